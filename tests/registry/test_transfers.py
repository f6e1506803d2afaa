"""What a record declares of transfers: checked when the plugin is loaded, and asked in one way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from registry_fakes import module, spec

from axon_compose.registry import (
    Candidate,
    Case,
    Dims,
    LookupFailure,
    Piece,
    PluginFault,
    Registry,
    Setting,
    Transfer,
    load_make,
    pieces_of,
    transfers_from,
)
from axon_compose.registry._discovery import in_memory

CASE = Case({}, Dims({"hidden_size": 8, "vocab_size": 9}), {}, Dims({"hidden_size": 8, "vocab_size": 9}))


def transfer(name: str = "transfer", **changes: Any) -> Transfer:
    """A right transfer, with some of it changed."""
    record: dict[str, Any] = {
        "name": name,
        "sources": ("core/attention",),
        "pieces": lambda case: {"w": Piece(("q_proj.weight",), "the queries")},
        "make": "os.path:join",
        "claim": "Never the same.",
        "settings": {
            "share": Setting(0.5, "How much.", 0, 1),
            "by": Setting("size", "Order.", choices=("size", "use")),
        },
    }
    return Transfer(**record | changes)


def cause(*transfers: object, **changes: Any) -> str:
    """Why a plugin whose component has these transfers is refused."""
    fake = in_memory("acme", module(axon_components=lambda: [spec(**{"transfers": transfers} | changes)]))
    registry = Registry([Candidate("acme", "axon-acme", "1", fake.load)])
    try:
        registry.component("acme/hyena")
    except LookupFailure as failure:
        return failure.label
    return "none"


def test_right_transfers_are_taken() -> None:
    assert cause(transfer(), transfer("mean"), transfer(sources=("same", "acme/other"), needs="usage")) == "none"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "Mean"}, "its name must be of the form"),
        ({"name": "keep"}, "and none of keep, copy, random, zero_out, noise"),
        ({"sources": "core/attention"}, "`sources` must be a tuple of full type names"),
        ({"sources": ("attention",)}, "`sources` must be a tuple of full type names"),
        ({"sources": ()}, "`sources` must be a tuple of full type names"),
        ({"pieces": {}}, "`pieces` must be a function of a `Case`"),
        ({"make": "acme.make"}, "make `acme.make` is not of the form"),
        ({"claim": ""}, "`claim` must say when"),
        ({"paper": None}, "`paper` must be a text"),
        ({"settings": {"share": 0.5}}, "`settings` must map names to records `Setting`"),
        ({"settings": {"noise": Setting(0.5, "…")}}, "the setting `noise` must be of the form"),
        ({"settings": {"share": Setting(2.0, "…", 0, 1)}}, "is not a number of at least 0 and at most 1"),
        ({"examples": ({"options": {}},)}, "`examples` must be a tuple of records `TransferExample`"),
        ({"needs": "luck"}, "unknown `needs` `luck`; one of usage, importance"),
    ],
)
def test_wrong_transfers_are_refused_with_the_plugin(changes: Mapping[str, Any], why: str) -> None:
    assert f"component `hyena`: transfer `{changes.get('name', 'transfer')}`: " in cause(transfer(**changes))
    assert why in cause(transfer(**changes))


def test_transfers_are_records_and_differ() -> None:
    assert "`transfers` must be a tuple of records `Transfer`" in cause("mean")
    assert "`transfers` must be a tuple" in cause(transfers=transfer())
    assert "two transfers `mean` start from core/mlp" in cause(
        transfer("mean", sources=("core/attention", "core/mlp")), transfer("mean", sources=("core/mlp",))
    )


def test_the_usual_transfer_of_a_pair_comes_first() -> None:
    all_of_them = [
        transfer("mean"),
        transfer(),
        transfer("split", sources=("same",)),
        transfer("cut", sources=("a/b",)),
    ]
    assert list(transfers_from(all_of_them, "acme/hyena", "core/attention")) == ["transfer", "mean"]
    assert list(transfers_from(all_of_them, "acme/hyena", "acme/hyena")) == ["split"]
    assert list(transfers_from(all_of_them, "a/b", "a/b")) == ["split", "cut"]


def test_settings_have_defaults_and_limits() -> None:
    assert transfer().settled({}) == ({"share": 0.5, "by": "size"}, [])
    assert transfer().settled({"share": 1})[1] == []
    _, faults = transfer().settled({"share": 1.5, "by": "sice", "shar": 1})
    assert [(fault.path, fault.kind) for fault in faults] == [
        (("shar",), "unknown"),
        (("share",), "value"),
        (("by",), "value"),
    ]
    assert [fault.help for fault in faults] == ["did you mean `share`?", None, "did you mean `size`?"]
    assert faults[1].message == "key `share` must be a number of at least 0 and at most 1"


@pytest.mark.parametrize(
    ("setting", "right", "wrong"),
    [
        (Setting(2, "…", least=1), (1, 7), (0, 2.0, True, "2")),
        (Setting(0.1, "…"), (1, -2.5), (True, float("nan"), "1")),
        (Setting(True, "…"), (False,), (0, "no")),
        (Setting("a", "…"), ("b", ""), (1, None)),
    ],
)
def test_a_setting_takes_values_of_its_type(setting: Setting, right: tuple[Any, ...], wrong: tuple[Any, ...]) -> None:
    assert all(map(setting.takes, right))
    assert not any(map(setting.takes, wrong))


def pieces(function: Any) -> Any:
    return pieces_of(transfer(pieces=function), CASE, "`hyena`", ["w"], ["q_proj.weight"])


def refuses(case: Case) -> Any:
    raise ValueError("8 heads do not go into 3")


def test_a_misfit_is_reported_in_plain_words() -> None:
    assert pieces(lambda case: "it has no keys") == "it has no keys"
    assert pieces(refuses) == "8 heads do not go into 3"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda case: {"b": Piece((), "zero")}, "makes `b`, which is no parameter of the component"),
        (lambda case: {"w": Piece(("k",), "keys")}, "reads `k`, which is no parameter of the source"),
        (lambda case: ["w"], "gives neither a mapping of `Piece` nor a text"),
        (lambda case: case.options["heads"], "raises KeyError"),
    ],
)
def test_pieces_name_what_is_there(function: Any, why: str) -> None:
    with pytest.raises(PluginFault, match=why) as caught:
        pieces(function)
    assert caught.value.code == "AX212"


def test_code_is_imported_when_it_is_asked_for() -> None:
    assert load_make(transfer(), "`hyena`")("a", "b") == "a/b"
    with pytest.raises(PluginFault, match="the transfer `transfer` of `hyena` cannot be imported"):
        load_make(transfer(make="os.path:joint"), "`hyena`")
