"""The kit tries how a component is split over devices: what holds passes, and every wrong role is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from axon_compose.registry import (
    KV,
    Array,
    ComponentSpec,
    Cut,
    Dims,
    Registry,
    Segment,
    Split,
    State,
    Summed,
    columns,
    rows,
)
from axon_compose.testing import _splits as kit
from axon_compose.testing import assert_splits, check_layer, check_plugin

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {"width": {"type": "integer", "default": 8}, "centred": {"type": "boolean", "default": False}},
    "additionalProperties": False,
}


class Sums(nn.Module):
    """Running sums of channels that are up to twice as wide as they are kept, with a bias before and after."""

    def __init__(self, options: Any, dims: Dims) -> None:
        super().__init__()
        self.into = nn.Linear(dims.hidden_size, 2 * options["width"])
        self.out = nn.Linear(options["width"], dims.hidden_size)
        self.centred, self._shard = options["centred"], dims.shard

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> tuple[mx.array, Any]:
        x = self.into(x)
        half = x.shape[-1] // 2
        y = mx.cumsum(x[..., :half] * mx.sigmoid(x[..., half:]), axis=1)
        if cache is not None:
            y = y if cache[0] is None else y + cache[0][:, None]
            cache[0] = y[:, -1]
        if self.centred:
            y = y - self._shard.sum(y.mean(axis=-1, keepdims=True)) / self._shard.size
        return self.out(y), cache


def params(options: Any, dims: Dims) -> dict[str, tuple[int, ...]]:
    width, hidden = options["width"], dims.hidden_size
    return {
        "into.weight": (2 * width, hidden),
        "into.bias": (2 * width,),
        "out.weight": (hidden, width),
        "out.bias": (hidden,),
    }


def right(options: Any, dims: Dims, devices: int) -> Split | str:
    width = options["width"]
    if width % devices:
        return f"`width` ({width}) is not a multiple of {devices} devices"
    both = Cut(0, (Segment(width, width), Segment(width, width)))
    roles = {"into.weight": both, "into.bias": both, "out.weight": columns(width), "out.bias": "once"}
    return Split({**options, "width": width // devices}, roles, inside=(Summed(1),) if options["centred"] else ())


def changed(**changes: Any) -> Callable[[Any, Dims, int], Split | str]:
    """The right split with something wrong; `out=…` changes the role of `out.weight`, and so on."""
    roles = {name.replace("_", "."): changes.pop(name) for name in list(changes) if "_" in name}

    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        found = right(options, dims, devices)
        assert isinstance(found, Split)
        kept = {name: role for name, role in {**found.roles, **roles}.items() if role is not None}
        return replace(found, **{"roles": kept, **changes})

    return split


SPEC = ComponentSpec(
    name="sums",
    kind="layer",
    options=OPTIONS,
    module=f"{__name__}:Sums",
    summary="Running sums.",
    cache=lambda options, dims: State((Array("sums", (options["width"],)),)),
    params=params,
    split=right,
    examples=({}, {"width": 6, "centred": True}),
)


def test_what_holds_is_given_back() -> None:
    found = assert_splits(SPEC)
    assert [found[size].options["width"] for size in (2, 4)] == [4, 2]  # type: ignore[union-attr]
    assert assert_splits(SPEC, {"centred": True}, devices=(2, 8))
    assert assert_splits(SPEC, {"width": 6}, devices=(4,)) == {4: "`width` (6) is not a multiple of 4 devices"}
    assert assert_splits(replace(SPEC, split=None)) == {}


HALVES = rows(16)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"into_weight": HALVES}, "the sum of the outputs differs"),
        ({"into_bias": HALVES}, "the sum of the outputs differs"),
        ({"out_bias": "whole"}, "the sum of the outputs differs"),
        ({"out_bias": None}, "the sum of the outputs differs"),
        ({"into_bias": "whole"}, r"a part whose `into.bias` has \(8,\), where its cut leaves \(16,\)"),
        ({"out_weight": rows(64)}, r"a part whose `out.weight` has \(64, 4\), where its cut leaves \(32, 8\)"),
        ({"out_weight": columns(9)}, "a cut of `out.weight` that does not fit its shape"),
        ({"out_weight": Cut(2, (Segment(8, 8),))}, "a cut of `out.weight` that does not fit its shape"),
        ({"into_weight": rows(16, units=3)}, "cut of `into.weight` that does not divide: 16 entries in 3 units"),
        ({"in_weight": rows(16)}, "a role of `in.weight`, which is no parameter"),
        ({"output": "gather"}, r"the outputs beside each other has the shape \(2, 20, 128\)"),
        ({"output": "whole"}, "the output of device 0 differs"),
        ({"options": {"width": "four"}}, "options that it does not take: option `width` must be an integer"),
        ({"options": {"width": 2}}, "a part whose `into.bias` has"),
        ({"inside": (Summed(1),)}, "inside are no sums, `inside` says a sum of 40 numbers"),
    ],
)
def test_what_is_wrong_is_reported(fault: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_splits(replace(SPEC, split=changed(**fault)), devices=(2,))


def test_a_reason_says_something_and_residual_schemes_stay_whole() -> None:
    with pytest.raises(AssertionError, match="gives a `str`, not a `Split` or a reason"):
        assert_splits(replace(SPEC, split=lambda options, dims, devices: ""))
    found = assert_splits(replace(Registry.installed().component("side_input"), split=lambda *_: Split({})))
    assert found[2] == "it works on the residual stream, which every device has"


def test_each_way_is_tried() -> None:
    def ways(options: Any, dims: Dims, devices: int) -> list[Split]:
        first = right(options, dims, devices)
        assert isinstance(first, Split)
        return [first, replace(first, roles={**first.roles, "out.bias": "whole"})]

    with pytest.raises(AssertionError, match="the sum of the outputs differs"):
        assert_splits(replace(SPEC, split=ways))
    assert isinstance(assert_splits(replace(SPEC, split=lambda *_: ways(*_)[:1]))[2], Split)


def test_what_is_gathered_inside_is_counted() -> None:
    mlp = Registry.installed().component("mlp")

    def silent(options: Any, dims: Dims, devices: int) -> Split | str:
        _, gathered = mlp.split(options, dims, devices)  # type: ignore[misc]
        return replace(gathered, inside=())  # type: ignore[type-var]

    with pytest.raises(AssertionError, match="inside are a gather of 320 numbers, `inside` says no sums"):
        assert_splits(replace(mlp, split=silent), {"intermediate_size": 8})


class Uneven(Sums):
    """Sums on one device alone, for which the others would wait."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> tuple[mx.array, Any]:
        if self._shard.rank == 0:
            self._shard.sum(x)
        return super().__call__(x, mask, cache)


class Unequal(Sums):
    """Sums arrays of unequal sizes."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> tuple[mx.array, Any]:
        self._shard.sum(x[..., self._shard.rank :])
        return super().__call__(x, mask, cache)


class Mixed(Sums):
    """Sums on one device what the other one gathers."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> tuple[mx.array, Any]:
        (self._shard.sum if self._shard.rank else self._shard.gather)(x)
        return super().__call__(x, mask, cache)


class Wide(Sums):
    """Has parameters that do not become smaller with the options."""

    def __init__(self, options: Any, dims: Dims) -> None:
        super().__init__({**options, "width": 8}, dims)


class Forgetful(Sums):
    """Forgets what is in the cache where it is split."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> tuple[mx.array, Any]:
        if self._shard.size > 1 and cache is not None:
            cache[0] = None
        return super().__call__(x, mask, cache)


class Padded(Sums):
    """Keeps more than its record says where it is split."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> tuple[mx.array, Any]:
        if cache is None or self._shard.size == 1:
            return super().__call__(x, mask, cache)
        if cache[0] is not None:
            cache[0] = cache[0][:, : self.out.weight.shape[1]]
        y, _ = super().__call__(x, mask, cache)
        cache[0] = mx.concatenate([cache[0], cache[0]], axis=-1)
        return y, cache


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Uneven, "called by some devices and not by others"),
        (Unequal, "arrays of unequal shapes"),
        (Mixed, "`dims.shard.gather` is called where another device calls something else"),
        (Wide, "makes other parameters for a part"),
        (Forgetful, "differs by .* at tokens 8 to 16"),
        (Padded, r"the cache of a part holds \(8,\), its record says \(4,\)"),
    ],
)
def test_faults_of_the_code_are_reported(module: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_splits(replace(SPEC, module=f"{__name__}:{module.__name__}"), devices=(2,))


def test_parts_may_differ_as_much_as_a_rounding_of_the_weights_does() -> None:
    wanted = np.array([1.0, -0.5], np.float32)
    close = partial(kit._close, "the output", at="token 0")
    close(wanted * np.float32(1 + 1e-6), iter([wanted]))  # nothing more is computed
    close(wanted * np.float32(1 + 1e-5), iter([wanted, wanted, wanted * np.float32(1 - 1e-5)]))
    for wrong in (wanted * np.float32(1 + 1e-5), wanted + np.float32("nan")):
        with pytest.raises(AssertionError, match=r"the output differs by .* at token 0"):
            close(wrong, iter([wanted, wanted * np.float32(1 + 2e-6)]))


def test_the_checks_of_layers_and_plugins_try_splits() -> None:
    wrong = replace(SPEC, split=changed(out_bias="whole"), examples=({},))
    with pytest.raises(AssertionError, match="`under_test/sums` on 2 devices: the sum of the outputs differs"):
        check_layer(wrong, truths=())
    with pytest.raises(AssertionError, match="`acme/sums` on 2 devices: the sum of the outputs differs"):
        check_plugin("acme", registry=Registry.with_plugins({"acme": [wrong]}))


def test_a_vocabulary_that_no_device_could_share_is_made_to_fit() -> None:
    """97 tokens are as they are for all other checks; a table that is cut wrongly is found nevertheless."""
    table = Registry.installed().component("token_embedding")

    def wrong(options: Any, dims: Dims, devices: int) -> Split | str:
        return replace(table.split(options, dims, devices), output="sum")  # type: ignore[misc, type-var]

    with pytest.raises(AssertionError, match="the sum of the outputs differs"):
        check_layer(replace(table, split=wrong), truths=())


#: Attention whose keys a second layer reads: right, and with heads of the reader that do not fit those of the source.
def heads(published: tuple[str, ...] = ("kv",)) -> Callable[[Any, Dims, int], Split | str]:
    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        width = dims.hidden_size // options.num_heads
        part = {"num_heads": options.num_heads // devices, "head_dim": width, "kv_from": options.kv_from}
        cut = rows(dims.hidden_size, units=options.num_heads)
        roles = {"q_proj.weight": cut, "o_proj.weight": columns(dims.hidden_size, units=options.num_heads)}
        own = {} if options.kv_from else {"k_proj.weight": cut, "v_proj.weight": cut}
        return Split(part, {**roles, **own}, published=published)

    return split


READER = {"num_heads": 4, "kv_from": "source"}


def attention(**changes: Any) -> ComponentSpec:
    return replace(Registry.installed().component("attention"), default=False, **changes)


def reads(spec: ComponentSpec) -> dict[int, Split | str]:
    section = {"type": f"acme/{spec.name}", "num_heads": 4}
    registry = Registry.with_plugins({"acme": [spec]})
    return assert_splits("acme/attention", READER, registry=registry, sources={"source": section})


def test_readers_are_split_with_what_they_read() -> None:
    assert isinstance(reads(attention(split=heads()))[4], Split)


def test_values_that_only_one_side_splits_leave_both_whole() -> None:
    def one_sided(options: Any, dims: Dims, devices: int) -> Split | str:
        return heads(("kv",) if options.kv_from else ())(options, dims, devices)

    assert reads(attention(split=one_sided))[2] == "`source` of layer 0 publishes `kv` whole"


def test_published_values_that_are_said_to_be_whole_are() -> None:
    with pytest.raises(AssertionError, match="`kv`, as device 0 publishes it, has the shape"):
        assert_splits(attention(split=heads(())), {"num_heads": 4})


def test_caches_of_keys_have_the_heads_of_the_part() -> None:
    right_cache = attention().cache

    def all_heads(options: Any, dims: Dims) -> Any:
        return replace(right_cache(options, dims), heads=4)

    assert isinstance(right_cache(attention().options(num_heads=4), Dims({"hidden_size": 64})), KV)
    with pytest.raises(AssertionError, match=r"holds \(2, 16, 16\), its record says \(4, 16, 16\)"):
        assert_splits(attention(split=heads(), cache=all_heads), {"num_heads": 4}, devices=(2,))
