"""The rules backwards: names, shapes and bytes of what was read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_cases import Shapes, section
from hypothesis import given
from hypothesis import strategies as st

from axon_compose.checkpoints.files import CheckpointError, read_safetensors, tensor_specs
from axon_compose.checkpoints.weights import LoadPlan, SavePlan, TensorHeader, plan_load, plan_save, save_checkpoint

CODES = {mx.float32: "F32", mx.bfloat16: "BF16", mx.uint32: "U32", mx.float16: "F16", mx.int64: "I64"}


def headers(tensors: Mapping[str, mx.array]) -> dict[str, TensorHeader]:
    return {name: TensorHeader(name, tuple(a.shape), CODES[a.dtype], Path("x")) for name, a in tensors.items()}


def read(load_plan: LoadPlan, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The parameters, packed ones with their members."""
    made = {}
    for transfer in load_plan.transfers:
        values = [source.read([tensors[t.name] for t in source.tensors], transfer.form) for source in transfer.sources]
        for output, value in transfer.apply(values):
            base = output.parameter.removesuffix("weight")
            made |= {base + k: v for k, v in value.members.items()} if output.packing else {output.parameter: value}
    return made


@dataclass
class Trip:
    """A model and its rules, to go there and back."""

    weights: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, Any]

    def load(self, tensors: Mapping[str, mx.array], layout: Any) -> LoadPlan:
        return plan_load(Shapes(self.shapes), section(self.weights), self.dims, headers(tensors), layout)  # type: ignore[arg-type]

    def save(self, arrays: Mapping[str, mx.array], layout: Any) -> SavePlan:
        return plan_save(Shapes(self.shapes), section(self.weights), self.dims, tensor_specs(arrays), layout)  # type: ignore[arg-type]

    def there_and_back(self, tensors: Mapping[str, mx.array], layout: str = "huggingface") -> dict[str, mx.array]:
        arrays = read(self.load(tensors, layout), tensors)
        return dict(self.save(arrays, layout).tensors(dict(arrays)))


def numbers(*shape: int, dtype: mx.Dtype = mx.bfloat16) -> mx.array:
    return mx.array(np.random.default_rng([*shape, 1]).standard_normal(shape).astype(np.float32)).astype(dtype)


def bits(array: mx.array) -> np.ndarray:
    return np.array(mx.contiguous(array).view(mx.uint8))


def assert_same(found: Mapping[str, mx.array], expected: Mapping[str, mx.array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(bits(found[name]), bits(value), err_msg=name)


TURNED = {"size": 1, "transpose": True}
HEADS, NOPE, V, RANK = 2, 32, 4, 64
TRIPS = {
    "rename": (
        Trip({"m.<l>.(x|y)": "l.<l>.(a|b)", "n": "n"}, {"l.0.a.w.weight": (2, 3), "l.1.b": (2,), "n.weight": (3,)}, {}),
        {"m.0.x.w.weight": numbers(2, 3), "m.1.x": numbers(2), "n.weight": numbers(3)},
    ),
    "neox": (
        Trip(
            {"qkv": {"split": {"q": "=d", "k": "=d", "v": "=d"}, "groups": "=h"}},
            {f"{p}.{e}": s for p in "qkv" for e, s in (("weight", (6, 5)), ("bias", (6,)))},
            {"d": 2, "h": 3},
        ),
        {"qkv.weight": numbers(18, 5), "qkv.bias": numbers(18)},
    ),
    "internlm2": (
        Trip({"wqkv": {"split": {"q": 6, "k": 2, "v": 2}, "groups": 2}},
             {"q.w": (12, 5), "k.w": (4, 5), "v.w": (4, 5)}, {}),
        {"wqkv.w": numbers(20, 5)},
    ),
    "gpt_oss": (
        Trip(
            {
                "e.gate_up": {"split": {"g.weight": TURNED, "u.weight": TURNED}, "axis": 2, "groups": "=i"},
                "e.gate_up_bias": {"split": {"g.bias": 1, "u.bias": 1}, "axis": 1, "groups": "=i"},
                "e.down": {"to": "d.weight", "transpose": True},
            },
            {"g.weight": (2, 4, 3), "u.weight": (2, 4, 3), "g.bias": (2, 4), "u.bias": (2, 4), "d.weight": (2, 3, 4)},
            {"i": 4},
        ),
        {"e.gate_up": numbers(2, 3, 8), "e.gate_up_bias": numbers(2, 8), "e.down": numbers(2, 4, 3)},
    ),
    "latent": (
        Trip(
            {"kv": {"reshape": [HEADS, "=nope + v", -1], "axis": 1,
                    "split": {"k": {"size": "=nope", "transpose": True}, "v": "=v"}}},
            {"k.weight": (HEADS, RANK, NOPE), "v.weight": (HEADS, V, RANK)},
            {"nope": NOPE, "v": V},
        ),
        {"kv.weight": numbers(HEADS * (NOPE + V), RANK)},
    ),
    "experts": (
        Trip(
            {"m.<l>.e.<e>": {"to": "l.<l>.s", "stack": "e"}, "m.<l>": "l.<l>"},
            {"l.0.s.up.weight": (12, 2, 3), "l.0.s.up.bias": (12, 2), "l.0.gate.weight": (12, 3)},
            {},
        ),
        {f"m.0.e.{e}.up.{k}": numbers(*s) * (e + 1) for e in range(12) for k, s in (("weight", (2, 3)), ("bias", (2,)))}
        | {"m.0.gate.weight": numbers(12, 3)},
    ),
    "fused experts": (
        Trip({"e.<e>": {"split": {"g": 2, "u": 2}, "stack": "e", "axis": 1}},
             {"g.weight": (3, 2, 5), "u.weight": (3, 2, 5)}, {}),
        {f"e.{e}.weight": numbers(4, 5) * (e + 1) for e in range(3)},
    ),
    "convolution": (
        Trip({"c": {"to": "c", "transpose": True}}, {"c.weight": (4, 3, 1), "c.bias": (4,)}, {}),
        {"c.weight": numbers(4, 1, 3), "c.bias": numbers(4)},
    ),
    "equal parts": (
        Trip({"qkv": {"split": ["q", "k", "v"], "groups": "=h"}}, {f"{p}.weight": (6, 5) for p in "qkv"}, {"h": 3}),
        {"qkv.weight": numbers(18, 5)},
    ),
    "parts": (
        Trip({"t.<l>.shard_<s>": {"to": "t.<l>", "stack": "s", "parts": "=n"}},
             {"t.0.weight": (11, 2), "t.1.weight": (3, 2), "t.1.bias": (9,)}, {"n": 5}),
        {f"t.0.shard_{s}.weight": numbers(3 if s < 3 else 2, 2) * (s + 1) for s in range(4)}
        | {f"t.1.shard_{s}.weight": numbers(1, 2) * (s + 1) for s in range(3)}
        | {f"t.1.shard_{s}.bias": numbers(2 if s < 4 else 1) * (s + 1) for s in range(5)},
    ),
    "joined": (
        Trip(
            {"a.<l>.<p>_proj": {"to": "l.<l>.qkv", "join": {"p": {"q": "=d", "k": "=d", "v": 3}}},
             "a.<l>.o_proj": "l.<l>.o"},
            {"l.0.qkv.weight": (11, 5), "l.0.qkv.bias": (11,), "l.1.qkv.weight": (11, 5), "l.0.o.weight": (2, 2)},
            {"d": 4},
        ),
        {f"a.{i}.{p}_proj.weight": numbers(3 if p == "v" else 4, 5) * i for i in (0, 1) for p in "qkv"}
        | {f"a.0.{p}_proj.bias": numbers(3 if p == "v" else 4) for p in "qkv"} | {"a.0.o_proj.weight": numbers(2, 2)},
    ),
    "joined by heads": (
        Trip(
            {"<p>.conv": {"to": "conv", "join": {"p": ["k", "q"]}, "groups": 2, "transpose": [0, 2, 1]}},
            {"conv.weight": (12, 4, 1)}, {},
        ),
        {f"{p}.conv.weight": numbers(6, 1, 4) * i for i, p in enumerate("kq")},
    ),
    "if needed": (
        Trip({name: {"to": name, "transpose": True, "if_needed": True} for name in "ab"},
             {"a.weight": (3, 4), "b.weight": (4, 4)}, {}),
        {"a.weight": numbers(4, 3), "b.weight": numbers(4, 4)},
    ),
    "shapes": (
        Trip(
            {
                "a": {"to": "a", "reshape": [3, -1, 2]},
                "d": {"to": "d", "reshape": [1, -1, 1]},
                "f": {"to": "f", "reshape": [4, 3], "reshape_from": [4, 1, -1]},
            },
            {"a.weight": (3, 4, 2), "a.bias": (5,), "d": (1, 5, 1), "f.weight": (4, 3)},
            {},
        ),
        {"a.weight": numbers(12, 2), "a.bias": numbers(5), "d": numbers(5), "f.weight": numbers(4, 1, 3)},
    ),
    "integers": (
        Trip({"t": {"to": "table", "integers": True}}, {"table": (4, 2)}, {}),
        {"t": mx.array([[0, 5], [2, 1], [255, 3], [4, 4]], mx.int64)},
    ),
    "condition": (
        Trip({"m.<l>.x": {"to": "m.<l>.x", "when": "=l < n"}, "m.<l>.y": {"to": "extra.y", "when": "=l == n"}},
             {"m.0.x.w": (1,), "extra.y.w": (2,)}, {"n": 7}),
        {"m.0.x.w": numbers(1), "m.7.y.w": numbers(2)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRIPS)
def test_there_and_back(name: str) -> None:
    trip, tensors = TRIPS[name]
    assert_same(trip.there_and_back(tensors), tensors)


def test_packed_tensors_there_and_back() -> None:
    trip = Trip(
        {
            "qkv": {"split": {"q": 2, "k": 2}, "groups": 2},
            "e.<e>": {"to": "s", "stack": "e"},
            "t.<e>": {"to": "t", "stack": "e", "parts": 2},
        },
        {
            "q.weight": (4, 64),
            "k.weight": (4, 64),
            "q.bias": (4,),
            "k.bias": (4,),
            "s.weight": (3, 2, 128),
            "t.weight": (5, 64),
        },
        {},
    )
    tensors = {"qkv.bias": numbers(8)}
    packed = [("qkv", (8, 64), 64, 4), *((f"e.{e}", (2, 128), 32, 8) for e in range(3))]
    packed += [("t.0", (3, 64), 32, 4), ("t.1", (2, 64), 32, 4)]
    for name, shape, size, width in packed:
        members = mx.quantize(numbers(*shape), size, width)
        tensors |= dict(zip((f"{name}.weight", f"{name}.scales", f"{name}.biases"), members, strict=True))
    assert_same(trip.there_and_back(tensors, "mlx"), tensors)


def test_packed_latent_attention_goes_back_close() -> None:
    trip, _ = TRIPS["latent"]
    members = mx.quantize(numbers(HEADS * (NOPE + V), RANK, dtype=mx.float32), 32, 8)
    tensors = dict(zip(("kv.weight", "kv.scales", "kv.biases"), members, strict=True))
    found = trip.there_and_back(tensors)
    assert found.keys() == tensors.keys()
    before, after = (np.array(mx.dequantize(*t.values(), 32, 8)) for t in (tensors, found))
    np.testing.assert_allclose(after, before, atol=0.04)  # two steps of 8 bits


def test_arithmetic_is_taken_back() -> None:
    trip = Trip({"n": {"to": "n", "add": 1, "scale": 4}}, {"n.weight": (5,)}, {})
    tensors = {"n.weight": mx.array([0.5, -0.25, 3, 0, 1])}
    assert_same(trip.there_and_back(tensors), tensors)


@st.composite
def splits(draw: st.DrawFn) -> tuple[Trip, dict[str, mx.array]]:
    """An axis of a random array, divided at random; perhaps stacked and moved before, perhaps turned after."""
    stretches = draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=4))
    sizes = [sum(own) for own in stretches]
    groups, count = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    stacked, moved = draw(st.booleans()), draw(st.booleans())
    lead = (count,) if stacked else ()
    rank = draw(st.integers(2, 3))
    axis = draw(st.integers(len(lead), len(lead) + rank - 1))
    inner = [draw(st.integers(1, 3)) for _ in range(rank)]
    inner[axis - len(lead)] = groups * sum(sizes)
    turned = [draw(st.booleans()) for _ in sizes]
    whole = (*lead, *inner)
    shapes = {}
    for index, size in enumerate(sizes):
        shape = list(whole)
        shape[axis] = groups * size
        if turned[index]:
            shape[-1], shape[-2] = shape[-2], shape[-1]
        shapes[f"p{index}.weight"] = tuple(shape)
    rule: dict[str, Any] = {
        "split": {
            f"p{i}": ({"sizes": own} if len(own) > 1 else {"size": own[0]}) | {"transpose": turned[i]}
            for i, own in enumerate(stretches)
        },
        "axis": axis,
        "groups": groups,
    }
    source = list(inner)
    if moved:
        rule["transpose"] = True
        source[-1], source[-2] = source[-2], source[-1]
    if stacked:
        rule["stack"] = "e"
    array = mx.array(np.random.default_rng(0).standard_normal((*lead, *source)).astype(np.float32))
    names = [f"x.{e}.weight" for e in range(count)] if stacked else ["x.weight"]
    tensors = {name: array[index] if stacked else array for index, name in enumerate(names)}
    return Trip({"x.<e>" if stacked else "x": rule}, shapes, {}), tensors


@given(splits())
def test_any_split_there_and_back(case: tuple[Trip, dict[str, mx.array]]) -> None:
    trip, tensors = case
    assert_same(trip.there_and_back(tensors), tensors)


def test_files_carry_the_mark_of_their_layout(tmp_path: Path) -> None:
    trip, tensors = TRIPS["convolution"]
    arrays = read(trip.load(tensors, "huggingface"), tensors)
    for layout, mark, shape in (("huggingface", "pt", (4, 1, 3)), ("mlx", "mlx", (4, 3, 1))):
        folder = tmp_path / layout
        folder.mkdir()
        save_plan = trip.save(arrays, layout)
        records = save_checkpoint(folder, save_plan, dict(arrays))
        assert set(records) == {"model.safetensors", "model.safetensors.index.json"}
        header = read_safetensors(folder / "model.safetensors")
        assert header.metadata == {"format": mark}
        assert header.entries["c.weight"].shape == shape
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == {"c.weight", "c.bias"}
        back = read(
            trip.load(mx.load(str(folder / "model.safetensors")), layout), mx.load(str(folder / "model.safetensors"))
        )
        assert_same(back, arrays)


def test_for_mlx_a_rule_that_moves_nothing_comes_first() -> None:
    weights = {
        "attn": "attn",
        "attn.kv": {"reshape": [2, 5, -1], "axis": 1, "split": {"attn.k": {"size": 2, "transpose": True}, "attn.v": 3}},
    }
    trip = Trip(weights, {"attn.k.weight": (2, 4, 2), "attn.v.weight": (2, 3, 4)}, {})
    arrays = {"attn.k.weight": numbers(2, 4, 2), "attn.v.weight": numbers(2, 3, 4)}
    assert [spec.name for spec in trip.save(arrays, "mlx").specs] == ["attn.k.weight", "attn.v.weight"]
    assert [spec.name for spec in trip.save(arrays, "huggingface").specs] == ["attn.kv.weight"]


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"a": "a"}, "b.weight"),
        ({"a": "a", "x": {"split": {"b": 1, "c?": 1}}}, "b.weight"),
        ({"a": "a", "x": "b", "x.weight": None}, "b.weight"),
        ({"a": "a", "x.<l>.<k>": {"to": "b", "when": "=l == k"}}, "b.weight"),
    ],
)
def test_no_way_back(weights: dict[str, Any], reason: str) -> None:
    trip = Trip(weights, {"a.weight": (1,), "b.weight": (1,)}, {})
    with pytest.raises(CheckpointError, match=f"1 without a tensor:\n +{reason}") as caught:
        trip.save({"a.weight": numbers(1), "b.weight": numbers(1)}, "huggingface")
    assert caught.value.code == "AX558"
