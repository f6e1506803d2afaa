"""GPTQ, AWQ and compressed-tensors, packed here bit by bit from what their writers document, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_cases import Case

from axon_compose import load
from axon_compose.checkpoints.export import export
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.folder import write_model
from axon_compose.checkpoints.weights._declared import declared_in
from axon_compose.checkpoints.weights._integers import Declared
from axon_compose.diagnostics import Problems
from axon_compose.language.config import make_config
from axon_compose.language.source import Mapping, to_source

FIXTURES = Path(__file__).parents[2] / "families" / "fixtures"
ROWS, COLUMNS = 64, 256
AWQ = (0, 2, 4, 6, 1, 3, 5, 7)
RNG = np.random.default_rng(7)


def words(codes: np.ndarray, bits: int, order: Any = None) -> np.ndarray:
    """(..., n) small integers to (..., n·bits/32) int32, one bit at a time."""
    count = 32 // bits
    order = order or range(count)
    packed = np.zeros((*codes.shape[:-1], codes.shape[-1] // count), np.uint32)
    for place, column in enumerate(order):
        packed |= codes[..., column::count].astype(np.uint32) << np.uint32(bits * place)
    return packed.view(np.int32)


def matrix(bits: int, group: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N, K) codes, (N, G) scales in float16 and zero points, and the weight that they mean."""
    groups = COLUMNS // group
    codes = RNG.integers(0, 1 << bits, (ROWS, COLUMNS))
    scales = RNG.uniform(0.01, 0.2, (ROWS, groups)).astype(np.float16)
    zeros = np.full((ROWS, groups), 1 << (bits - 1)) if symmetric else RNG.integers(0, 1 << bits, (ROWS, groups))
    spread = [np.repeat(part, group, axis=1) for part in (scales.astype(np.float64), zeros)]
    return codes, scales, zeros, spread[0] * (codes - spread[1])


def write(folder: Path, **parts: np.ndarray) -> None:
    Case(folder, {}, {}).write({f"w.{name}": np.ascontiguousarray(value) for name, value in parts.items()})


def gptq(folder: Path, bits: int, group: int, symmetric: bool, offset: int = 1, order: Any = None) -> np.ndarray:
    codes, scales, zeros, weight = matrix(bits, group, symmetric)
    index = np.arange(COLUMNS) // group
    if order is not None:  # columns go where the order says, with their groups
        codes, weight, index = codes[:, order], weight[:, order], index[order]
    stored = (zeros - offset) & ((1 << bits) - 1)
    tensors = {
        "qweight": words(codes, bits).T.copy(),
        "qzeros": words(stored.T.copy(), bits),
        "scales": scales.T.copy(),
    }
    Case(folder, {}, {}).write(
        {f"w.{name}": value for name, value in (tensors | {"g_idx": index.astype(np.int32)}).items()}
    )
    return weight


def awq(folder: Path, group: int, symmetric: bool) -> np.ndarray:
    codes, scales, zeros, weight = matrix(4, group, symmetric)
    tensors = {
        "qweight": words(codes.T.copy(), 4, AWQ),
        "qzeros": words(zeros.T.copy(), 4, AWQ),
        "scales": scales.T.copy(),
    }
    write(folder, **tensors)
    return weight


def compressed(folder: Path, bits: int, group: int, symmetric: bool) -> np.ndarray:
    codes, scales, zeros, weight = matrix(bits, group, symmetric)
    tensors = {"weight_packed": words(codes, bits), "weight_scale": scales, "weight_shape": np.int64([ROWS, COLUMNS])}
    if not symmetric:
        tensors["weight_zero_point"] = words(zeros.T, bits).T
    write(folder, **tensors)
    return weight


def check(folder: Path, declared: Declared, weight: np.ndarray, *, packed: bool) -> None:
    """Packed, the parameters mean the weight exactly; unpacked, it is rounded once, to the type of the scales."""
    case = Case(folder, {"w": "w"}, {"w.weight": (ROWS, COLUMNS)}, linear=("w",))
    assert ("w" in case.plan(declared=declared).quantized) == packed
    found = case.load(declared=declared)
    if not packed:
        assert found["w.weight"].dtype == mx.float16
        np.testing.assert_array_equal(np.array(found["w.weight"]), weight.astype(np.float16))
        return
    size = COLUMNS // found["w.scales"].shape[-1]
    bits = found["w.weight"].shape[-1] * 32 // COLUMNS
    scales, biases = (found[f"w.{name}"].astype(mx.float32) for name in ("scales", "biases"))
    unpacked = mx.dequantize(found["w.weight"], scales, biases, group_size=size, bits=bits)
    np.testing.assert_array_equal(np.array(unpacked), weight)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize("offset", [0, 1])
def test_gptq_with_the_zero_in_the_middle_stays_packed(bits: int, group: int, offset: int, tmp_path: Path) -> None:
    weight = gptq(tmp_path, bits, group, True, offset)
    check(tmp_path, Declared("gptq", symmetric=True, zero_offset=offset), weight, packed=True)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [16, 64])
def test_gptq_with_zero_points_is_unpacked_exactly(bits: int, group: int, tmp_path: Path) -> None:
    weight = gptq(tmp_path, bits, group, False)
    check(tmp_path, Declared("gptq", zero_offset=1), weight, packed=False)


def test_gptq_with_its_columns_in_another_order(tmp_path: Path) -> None:
    weight = gptq(tmp_path, 4, 64, True, order=RNG.permutation(COLUMNS))
    declared = Declared("gptq", symmetric=True, zero_offset=1, reordered=True)
    check(tmp_path, declared, weight, packed=False)


@pytest.mark.parametrize("group", [32, 128, 256])
@pytest.mark.parametrize("symmetric", [False, True])
def test_awq(group: int, symmetric: bool, tmp_path: Path) -> None:
    weight = awq(tmp_path, group, symmetric)
    check(tmp_path, Declared("awq", symmetric=symmetric), weight, packed=symmetric)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 128, 256])
@pytest.mark.parametrize("symmetric", [False, True])
def test_compressed_tensors(bits: int, group: int, symmetric: bool, tmp_path: Path) -> None:
    weight = compressed(tmp_path, bits, group, symmetric)
    check(tmp_path, Declared("compressed-tensors"), weight, packed=symmetric)


@pytest.mark.parametrize("scales", [(ROWS, 1), (1,), (ROWS, 2)])
def test_int8_as_it_is(scales: tuple[int, ...], tmp_path: Path) -> None:
    codes = RNG.integers(-128, 128, (ROWS, COLUMNS)).astype(np.int8)
    factors = RNG.uniform(0.01, 0.2, scales).astype(np.float16)
    spread = np.repeat(factors, COLUMNS // scales[1], axis=1) if len(scales) == 2 else factors
    write(tmp_path, weight=codes, weight_scale=factors)
    check(tmp_path, Declared("compressed-tensors"), spread.astype(np.float64) * codes, packed=True)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"qweight": (32, 64)}, "has no `qzeros` and `scales` beside it"),
        ({"qweight": (24, 64), "qzeros": (4, 6), "scales": (4, 64)}, "is not GPTQ of 2, 4 or 8 bits"),
        ({"qweight": (32, 60), "qzeros": (4, 8), "scales": (4, 64)}, "is not GPTQ of 2, 4 or 8 bits"),
        ({"qweight": (32, 64), "qzeros": (3, 8), "scales": (3, 64)}, "3 groups"),
        ({"weight_packed": (64, 32)}, "has no `weight_scale` of floats"),
        ({"weight_packed": (64, 32), "weight_scale": (32, 4)}, "not one for each group"),
    ],
)
def test_parts_that_do_not_fit(tensors: dict[str, tuple[int, ...]], says: str, tmp_path: Path) -> None:
    made = {f"w.{n}": np.zeros(shape, np.float16 if "scale" in n else np.int32) for n, shape in tensors.items()}
    case = Case(tmp_path, {"w": "w"}, {"w.weight": (ROWS, COLUMNS)})
    case.write(made)
    with pytest.raises(CheckpointError) as caught:
        case.plan()
    assert says in caught.value.message + "".join(caught.value.details)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_whole_model(symmetric: bool, tmp_path: Path) -> None:
    """Every projection in GPTQ, the rest as it was: the logits are those of the numbers that it means."""
    dims = ["dims.hidden_size=64", "dims.intermediate_size=128", "dims.num_hidden_layers=2", "dims.vocab_size=320"]
    settings = [*dims, "dims.num_attention_heads=4"]
    dense = load("llama", settings=settings).build()
    write_model(load("llama", settings=settings), tmp_path / "built")
    export(tmp_path / "built", tmp_path / "c", "huggingface")
    tensors: Any = mx.load(str(tmp_path / "c" / "model.safetensors"))
    plain = dict(tensors)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors.pop(name).shape
        codes = RNG.integers(0, 16, (rows, columns))
        scales = RNG.uniform(0.01, 0.02, (rows, columns // 32)).astype(np.float16)
        zeros = np.full(scales.shape, 8) if symmetric else RNG.integers(4, 12, scales.shape)
        spread = [np.repeat(part, 32, axis=1) for part in (scales.astype(np.float64), zeros)]
        plain[name] = mx.array((spread[0] * (codes - spread[1])).astype(np.float16))
        parts = {"qweight": words(codes, 4).T, "qzeros": words((zeros - 1).T, 4), "scales": scales.T}
        base = name.removesuffix("weight")
        tensors |= {base + end: mx.array(np.ascontiguousarray(part)) for end, part in parts.items()}
    mx.save_safetensors(str(tmp_path / "c" / "model.safetensors"), tensors, {"format": "pt"})
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": symmetric}
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))

    architecture = load(checkpoint=tmp_path / "c")
    (tmp_path / "d").mkdir()
    mx.save_safetensors(str(tmp_path / "d" / "model.safetensors"), plain, {"format": "pt"})
    (tmp_path / "d" / "config.json").write_text((tmp_path / "c" / "config.json").read_text().replace('"gptq"', "null"))
    expected = load(checkpoint=tmp_path / "d").build(weights=tmp_path / "d", dtype="float32")
    found = architecture.build(weights=tmp_path / "c", dtype="float32")
    tokens = mx.array([[3, 14, 159, 26, 5, 35]])
    np.testing.assert_allclose(np.array(found(tokens)), np.array(expected(tokens)), rtol=0, atol=2e-3)
    assert not np.allclose(np.array(found(tokens)), np.array(dense(tokens)), atol=1e-2)
    notes = write_model(architecture, tmp_path / "again", weights=tmp_path / "c", tokenizer="bytes")["notes"]
    assert any("14 quantised tensors are unpacked" in note for note in notes) == (not symmetric)


def config_of(**quantization: Any) -> Any:
    node = to_source({"model_type": "llama", "quantization_config": quantization}, "config.json", Problems())
    assert isinstance(node, Mapping)
    return make_config(Path(), node, frozenset)


def test_what_config_json_declares() -> None:
    assert declared_in(None) == declared_in(config_of(bits=4, group_size=64)) == Declared()
    assert declared_in(config_of(quant_method="gptq", bits=4)) == Declared("gptq", True, 1)
    assert declared_in(config_of(quant_method="gptq", sym=False, desc_act=True)) == Declared("gptq", False, 1, True)
    assert declared_in(config_of(quant_method="gptq", checkpoint_format="gptq_v2")) == Declared("gptq", True, 0)
    assert declared_in(config_of(quant_method="awq", version="GEMM")) == Declared("awq")
    assert declared_in(config_of(quant_method="awq", zero_point=False)) == Declared("awq", True)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            "`bitsandbytes` (nf4, 4 bits)",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
            "`compressed-tensors` (nvfp4-pack-quantized)",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "`modelopt` (NVFP4)"),
        ({"quant_method": "awq", "version": "gemv"}, "`awq` (gemv)"),
        ({"quant_method": "hqq"}, "`hqq`,"),
    ],
)
def test_a_method_that_is_not_read_is_named(written: dict[str, Any], says: str, tmp_path: Path) -> None:
    copytree(FIXTURES / "llama", tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps(config | {"quantization_config": written}))
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint=tmp_path / "c").build(weights=tmp_path / "c")
    assert caught.value.code == "AX555"
    assert says in caught.value.message
