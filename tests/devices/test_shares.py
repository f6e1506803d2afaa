"""What each device has, as data and as `show --devices` prints it."""

from __future__ import annotations

import json

import pytest

from axon_compose.cli import main
from axon_compose.devices import shares, split_plan
from tests.devices.fakes import planned
from tests.shipped import shipped

HEADS = {"type": "acme/attention", "heads": 8}
WIDTH = {"type": "acme/mlp", "width": 96}


def test_layers_that_are_alike_are_one_entry() -> None:
    plan = planned({"attn": HEADS, "mlp": WIDTH}, {"b": ["attn", "mlp"], "c": ["mlp"]}, "b c b")
    found = {share.name: share.to_dict() for share in shares(plan, split_plan(plan, 4))}
    assert found["attn"]["layers"] == [0, 2]
    assert found["attn"]["sizes"] == {"heads": {"part": 2, "whole": 8}}
    assert (found["attn"]["output"], found["attn"]["reason"]) == ("sum", None)
    assert found["attn"]["whole_parameters"] == 4 * found["attn"]["parameters"] == 2 * 4 * 64 * 32
    assert found["mlp"]["layers"] == [0, 1, 2]
    assert found["mlp_norm"] | {"layers": None} == {
        "layers": None, "name": "mlp_norm", "type": "core/rms_norm", "split": False, "sizes": {}, "output": "whole",
        "reason": "it works on the residual stream, which every device has", "parameters": 96, "whole_parameters": 96,
    }  # fmt: skip


def test_all_parameters_are_counted_once() -> None:
    for name in ("shared-kv", "bit-axon-small", "gemma3n_text"):
        plan = shipped(name).plan()
        tensor = split_plan(plan, 2)
        found = shares(plan, tensor)
        assert sum(share.whole_parameters for share in found) == sum(use.size for use in plan.uses())
        assert sum(share.parameters for share in found) == sum(use.size for use in tensor.plan.uses())


def test_weights_that_layers_share_are_counted_once() -> None:
    plan = planned({"attn": HEADS, "mlp": WIDTH}, {"b": {"branches": ["attn", "mlp"], "share": "b"}}, "b*3")
    share = next(share for share in shares(plan, split_plan(plan, 2)) if share.name == "mlp")
    assert share.layers == (0, 1, 2)
    assert share.whole_parameters == 2 * 96 * 32


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "gemma4_text", "--devices", "3"]) == 0
    out = capsys.readouterr().out
    assert "intermediate_size 3,072 of 9,216" in out
    assert "`num_heads` (8) is not a multiple of 3 devices" in out
    assert "weights per device" in out
    assert main(["show", "gemma4_text", "--devices", "2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["result"]["devices"]
    heads = next(share for share in data["components"] if share["name"] == "full")
    assert heads["sizes"]["num_heads"] == {"part": 4, "whole": 8}
    assert data["weight_bytes"]["bfloat16"] < 0.51 * 2 * 5077177886


def test_quantised_weights_are_cut_between_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 256 columns eight devices would get 32 each, and 64 have one scale."""
    assert main(["show", "shared-kv", "--devices", "8", "--quantize", "4"]) == 0
    out = capsys.readouterr().out
    assert "`o_proj` is quantised in groups of 64, and parts of its 256 inputs for 8 devices would tear them" in out
    assert "in 4 bits and bfloat16" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["llama", "--devices", "7"], "error[AX980]: no layer of `llama` can be split over 7 devices"),
        (["llama", "--devices", "1"], "argument --devices: 2 at least"),
        (["llama", "--quantize", "4"], "argument --quantize: only with --devices"),
        (["llama", "--devices", "2", "--table"], "argument --devices: not with --stage or --table"),
    ],
)
def test_what_cannot_be(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["show", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code in (1, 2)
    assert told in capsys.readouterr().err
