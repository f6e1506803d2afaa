"""Quantised weights stay so where they can; fp8 and mxfp4 are decoded as others decode them."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_cases import Case, numbers

from axon_compose import load
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.weights import Packing

PACKINGS = [(4, 64), (8, 32), (2, 128), (3, 32), (6, 64), (4, 32)]


def packed(array: np.ndarray, bits: int, size: int) -> dict[str, mx.array]:
    return dict(zip(("weight", "scales", "biases"), mx.quantize(mx.array(array), size, bits), strict=True))


def named(prefix: str, members: dict[str, mx.array]) -> dict[str, mx.array]:
    return {f"{prefix}.{end}": array for end, array in members.items()}


def assert_bits(found: dict[str, mx.array], expected: dict[str, mx.array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(np.array(found[name]), np.array(value), err_msg=name)


@pytest.mark.parametrize(("bits", "size"), PACKINGS)
def test_packed_weights_keep_their_bits(tmp_path: Path, bits: int, size: int) -> None:
    case = Case(tmp_path, {"model.a": "a"}, {"a.weight": (8, 128)}, linear=("a",))
    members = packed(numbers(8, 128), bits, size)
    case.write(named("model.a", members), mark="mlx")
    assert case.plan().quantized == {"a": Packing(bits, size)}
    assert_bits(case.load(), named("a", members))


def test_modules_may_be_packed_differently(tmp_path: Path) -> None:
    shapes = {"a.weight": (4, 128), "b.weight": (4, 128), "c.weight": (4, 128)}
    case = Case(tmp_path, {"m.<x>": "<x>"}, shapes, linear=("a", "b", "c"))
    c = mx.array(numbers(4, 128))
    a, b = packed(numbers(4, 128), 4, 64), packed(numbers(4, 128), 8, 32)
    case.write(named("m.a", a) | named("m.b", b) | {"m.c.weight": c}, mark="mlx")
    assert case.plan().quantized == {"a": Packing(4, 64), "b": Packing(8, 32)}
    assert_bits(case.load(), named("a", a) | named("b", b) | {"c.weight": c})


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_packed_formats_without_biases(tmp_path: Path, mode: str) -> None:
    case = Case(tmp_path, {"m": "a"}, {"a.weight": (4, 128)}, linear=("a",))
    members = dict(zip(("weight", "scales"), mx.quantize(mx.array(numbers(4, 128)), mode=mode), strict=True))
    case.write(named("m", members), mark="mlx")
    assert case.plan().quantized["a"].mode == mode
    assert_bits(case.load(), named("a", members))


def test_packed_experts_are_stacked(tmp_path: Path) -> None:
    case = Case(tmp_path, {"e.<e>": {"to": "s", "stack": "e"}}, {"s.weight": (11, 4, 64)})
    w = numbers(11, 4, 64)
    tensors = {}
    for e in range(11):
        tensors |= named(f"e.{e}", packed(w[e], 4, 32))
    case.write(tensors, mark="mlx")
    # `Parameters` has no module for a stack that could be quantised, so the numbers come unpacked.
    expected = np.stack([np.array(mx.dequantize(*packed(w[e], 4, 32).values(), 32, 4)) for e in range(11)])
    np.testing.assert_array_equal(np.array(case.load()["s.weight"]), expected)
    (transfer,) = case.plan().transfers
    values = [source.read([tensors[t.name] for t in source.tensors], transfer.form) for source in transfer.sources]
    ((_, stacked),) = transfer.apply(values)
    for end in ("weight", "scales", "biases"):
        want = np.stack([np.array(tensors[f"e.{e}.{end}"]) for e in range(11)])
        np.testing.assert_array_equal(np.array(stacked.members[end]), want)


def test_packed_rows_are_split_with_their_scales(tmp_path: Path) -> None:
    split = {"q": 4, "k": 2, "v": 2}
    shapes = {"q.weight": (8, 64), "k.weight": (4, 64), "v.weight": (4, 64)}
    case = Case(tmp_path, {"qkv": {"split": split, "groups": 2}}, shapes, linear=("q", "k", "v"))
    members = packed(numbers(16, 64), 4, 32)
    case.write(named("qkv", members), mark="mlx")
    expected = {}
    for name, rows in (("q", [0, 1, 2, 3, 8, 9, 10, 11]), ("k", [4, 5, 12, 13]), ("v", [6, 7, 14, 15])):
        expected |= named(name, {end: array[mx.array(rows)] for end, array in members.items()})
    assert_bits(case.load(), expected)


def test_packed_columns_are_unpacked_to_be_split(tmp_path: Path) -> None:
    shapes = {"a.weight": (4, 32), "b.weight": (4, 64)}
    case = Case(tmp_path, {"f": {"split": {"a": 32, "b": 64}, "axis": 1}}, shapes, linear=("a", "b"))
    members = packed(numbers(4, 96), 8, 32)
    case.write(named("f", members), mark="mlx")
    dense = mx.dequantize(*members.values(), 32, 8)
    a, b = (mx.quantize(part, 32, 8) for part in (dense[:, :32], dense[:, 32:]))
    expected = named("a", dict(zip(members, a, strict=True))) | named("b", dict(zip(members, b, strict=True)))
    assert_bits(case.load(), expected)


def test_packed_latent_attention(tmp_path: Path) -> None:
    """The half that keeps its rows keeps its bits; the transposed half is unpacked and packed again."""
    heads, nope, v, rank = 2, 32, 8, 64
    rule = {
        "reshape": [heads, nope + v, -1],
        "split": {"k": {"size": nope, "transpose": True}, "v": v},
        "axis": 1,
    }
    shapes = {"k.weight": (heads, rank, nope), "v.weight": (heads, v, rank)}
    case = Case(tmp_path, {"kv": rule}, shapes)
    members = packed(numbers(heads * (nope + v), rank), 8, 32)
    case.write(named("kv", members), mark="mlx")
    dense = mx.dequantize(*members.values(), 32, 8).reshape(heads, nope + v, rank)
    k = mx.quantize(dense[:, :nope].swapaxes(1, 2), 32, 8)
    assert case.plan().quantized == {"k": Packing(8, 32), "v": Packing(8, 32)}
    found = case.load()
    np.testing.assert_array_equal(np.array(found["k.weight"]), np.array(mx.dequantize(*k, 32, 8)))
    np.testing.assert_array_equal(np.array(found["v.weight"]), np.array(dense[:, nope:]))


def test_arithmetic_on_packed_weights(tmp_path: Path) -> None:
    case = Case(tmp_path, {"m": {"to": "a", "add": 1, "scale": 2}}, {"a.weight": (4, 64)}, linear=("a",))
    members = packed(numbers(4, 64), 8, 32)
    case.write(named("m", members), mark="mlx")
    expected = mx.quantize((mx.dequantize(*members.values(), 32, 8) + 1) * 2, 32, 8)
    assert_bits(case.load(), named("a", dict(zip(members, expected, strict=True))))


def test_a_factor_goes_into_the_scales_of_packed_weights(tmp_path: Path) -> None:
    """The numbers are not rounded anew, and what is added in each group is multiplied too."""
    case = Case(tmp_path, {"m": {"to": "a", "scale": 4}}, {"a.weight": (4, 64)}, linear=("a",))
    members = packed(numbers(4, 64) + 1, 4, 32)
    case.write(named("m", members), mark="mlx")
    found = case.load()
    np.testing.assert_array_equal(np.array(found["a.weight"]), np.array(members["weight"]))
    dense = mx.dequantize(found["a.weight"], found["a.scales"], found["a.biases"], 32, 4)
    np.testing.assert_array_equal(np.array(dense), 4 * np.array(mx.dequantize(*members.values(), 32, 4)))


def test_packed_numbers_of_another_length(tmp_path: Path) -> None:
    case = Case(tmp_path, {"m": "a"}, {"a.weight": (4, 192)}, linear=("a",))
    case.write(named("m", packed(numbers(4, 64), 4, 32)), mark="mlx")
    with pytest.raises(CheckpointError, match=r"it gives \[4, 64\], the model has \[4, 192\]"):
        case.plan()


def test_scales_are_cast_with_the_model(tmp_path: Path) -> None:
    case = Case(tmp_path, {"m": "a"}, {"a.weight": (4, 64)}, linear=("a",))
    case.write(named("m", packed(numbers(4, 64), 4, 32)), mark="mlx")
    found = case.load(dtype="bfloat16")
    assert {name: value.dtype for name, value in found.items()} == {
        "a.weight": mx.uint32, "a.scales": mx.bfloat16, "a.biases": mx.bfloat16
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("scales", [mx.bfloat16, mx.float16], ids=str)
def test_unpacked_numbers_are_rounded_once(tmp_path: Path, scales: mx.Dtype, dtype: str | None) -> None:
    """Not by every operation to the type of the scales, as MLX does also where it is asked for float32."""
    case = Case(tmp_path, {"m": "a"}, {"a.weight": (4, 64)})
    weight, *rest = packed(numbers(4, 64), 8, 32).values()
    s, b = (each.astype(scales) for each in rest)
    case.write(named("m", {"weight": weight, "scales": s, "biases": b}), mark="mlx")
    wide = (np.repeat(np.array(each.astype(mx.float32), np.float64), 32, axis=1) for each in (s, b))
    factors, shifts = wide
    exact = np.array(weight).view(np.uint8) * factors + shifts
    found = case.load(dtype=dtype)["a.weight"]
    assert found.dtype == (scales if dtype is None else getattr(mx, dtype))
    assert mx.array_equal(found, mx.array(exact, dtype=mx.float32).astype(found.dtype))


E4M3 = np.array(
    [
        (-1) ** (c >> 7)
        * ((c & 7) / 8 * 2.0**-6 if not (c >> 3) & 15 else (1 + (c & 7) / 8) * 2.0 ** (((c >> 3) & 15) - 7))
        for c in range(256)
    ]
)


def write_fp8(path: Path, codes: np.ndarray, scale: mx.array, name: str = "w.weight_scale_inv") -> None:
    """MLX has no type for fp8, so the header that it writes is changed."""
    mx.save_safetensors(str(path), {"w.weight": mx.array(codes), name: scale})
    path.write_bytes(path.read_bytes().replace(b'"U8"', b'"F8_E4M3"', 1))
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes((length + 5).to_bytes(8, "little") + data[8:])


@pytest.mark.parametrize(
    ("shape", "scales", "block"),
    [
        ((256, 384), (2, 3), (128, 128)),
        ((200, 130), (2, 2), (128, 128)),
        ((64, 64), (1, 1), (128, 128)),
        ((5, 6), (3, 2), (2, 4)),
        ((5, 6), (5, 1), (128, 128)),
        ((5, 6), (1,), (128, 128)),
        ((5, 6), (), (128, 128)),
        ((2, 5, 6), (2, 3, 2), (2, 4)),
    ],
)
def test_fp8_blocks(tmp_path: Path, shape: tuple[int, ...], scales: tuple[int, ...], block: tuple[int, int]) -> None:
    codes = np.random.default_rng(0).integers(0, 127, shape).astype(np.uint8)
    scale = np.random.default_rng(1).uniform(0.1, 2, scales).astype(np.float32)
    write_fp8(tmp_path / "model.safetensors", codes, mx.array(scale))
    full = np.broadcast_to(scale, shape) if scale.size == 1 else None
    if full is None:
        rows = block[0] if scales[-2] != shape[-2] else 1
        full = np.repeat(np.repeat(scale, rows, -2), block[1], -1)[..., : shape[-2], : shape[-1]]
    case = Case(tmp_path, {"w": "w"}, {"w.weight": shape})
    found = case.load(block=block)["w.weight"]
    assert found.dtype == mx.bfloat16
    exact = mx.array((E4M3[codes] * full).astype(np.float32)).astype(mx.bfloat16)
    np.testing.assert_array_equal(np.array(found.astype(mx.float32)), np.array(exact.astype(mx.float32)))


def test_fp8_blocks_are_as_large_as_the_configuration_says(tmp_path: Path) -> None:
    """Blocks of 3 rows and 5 columns, which nothing but the configuration could tell."""
    config = {"model_type": "case", "quantization_config": {"weight_block_size": [3, 5]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    described = {
        "version": 1,
        "dims": {"hidden_size": 6, "vocab_size": 8},
        "components": {"mlp": {"type": "mlp", "intermediate_size": 5, "gated": False}},
        "stack": {"layers": 1, "block": ["mlp"]},
        "norm": {"weight": False},
        "huggingface": {
            "model_types": ["case"],
            "weights": {"w": "layers.0.mlp.up_proj", "down": "layers.0.mlp.down_proj", "e": "embedding.embed_tokens"},
        },
    }
    codes = np.random.default_rng(0).integers(0, 127, (5, 6)).astype(np.uint8)
    scale = np.random.default_rng(1).uniform(0.1, 2, (2, 2)).astype(np.float32)
    write_fp8(tmp_path / "model-1.safetensors", codes, mx.array(scale))
    others = {"down.weight": mx.zeros((6, 5)), "e.weight": mx.zeros((8, 6))}
    mx.save_safetensors(str(tmp_path / "model-2.safetensors"), others)
    model = load(described, checkpoint=tmp_path).build(weights=tmp_path)
    full = np.repeat(np.repeat(scale, 3, 0), 5, 1)[:5, :6]
    exact = mx.array((E4M3[codes] * full).astype(np.float32)).astype(mx.bfloat16).astype(mx.float32)
    found = model.layers[0].mlp.up_proj.weight.astype(mx.float32)
    np.testing.assert_array_equal(np.array(found), np.array(exact))


def test_fp8_without_its_scales(tmp_path: Path) -> None:
    write_fp8(tmp_path / "model.safetensors", np.zeros((4, 4), np.uint8), mx.zeros((1, 1)), "other")
    with pytest.raises(CheckpointError, match=r"`w\.weight` is fp8 without `w\.weight_scale_inv`") as caught:
        Case(tmp_path, {"w": "w", "other": None}, {"w.weight": (4, 4)}).plan()
    assert caught.value.code == "AX555"
    write_fp8(tmp_path / "model.safetensors", np.zeros((0, 4), np.uint8), mx.zeros((1, 1)))
    with pytest.raises(CheckpointError, match=r"not one scale for each block of \[0, 4\]"):
        Case(tmp_path, {"w": "w"}, {"w.weight": (0, 4)}).plan()
    write_fp8(tmp_path / "model.safetensors", np.zeros((4, 4), np.uint8), mx.zeros((5, 9)))
    with pytest.raises(CheckpointError, match=r"not one scale for each block of \[4, 4\]"):
        Case(tmp_path, {"w": "w"}, {"w.weight": (4, 4)}).plan()


FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def test_mxfp4_is_decoded_to_the_layout_of_the_unpacked_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (2, 3, 4, 16)).astype(np.uint8)
    scales = random.integers(110, 140, (2, 3, 4)).astype(np.uint8)
    case = Case(tmp_path, {"m.down_proj": "down"}, {"down": (2, 128, 3)})
    case.write({"m.down_proj_blocks": blocks, "m.down_proj_scales": scales})
    found = case.load()["down"]
    values = np.stack([FP4[blocks & 15], FP4[blocks >> 4]], -1).reshape(2, 3, 4, 32)
    exact = (values * 2.0 ** (scales[..., None].astype(float) - 127)).reshape(2, 3, 128).swapaxes(1, 2)
    assert found.dtype == mx.bfloat16
    np.testing.assert_array_equal(np.array(found.astype(mx.float32)), exact.astype(np.float32))


#: Of the bytes `37 * i % 256` with the scale 2².
TRANSFORMERS = [
    0, 0, 12, 4, -4, 8, -24, 16, 8, -2, -2, -6, -16, -12, 6, 0,
    0, 4, -12, 8, 4, 24, 24, -2, -8, -6, 2, -16, 16, 0, -6, 4
]  # fmt: skip


def test_mxfp4_as_transformers_decodes_it(tmp_path: Path) -> None:
    """Stored from `convert_moe_packed_tensors` of transformers 5.24."""
    blocks = (np.arange(16) * 37 % 256).astype(np.uint8).reshape(1, 1, 1, 16)
    case = Case(tmp_path, {"w": "w"}, {"w": (1, 32, 1)})
    case.write({"w_blocks": blocks, "w_scales": np.full((1, 1, 1), 129, np.uint8)})
    found = np.array(case.load()["w"].astype(mx.float32)).reshape(-1)
    np.testing.assert_array_equal(found, TRANSFORMERS)
