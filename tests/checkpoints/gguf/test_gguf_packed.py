"""Blocks of llama.cpp as packed words of MLX: number by number what the package `gguf` decodes."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize
from mlx.utils import tree_flatten

from axon_compose import ArchitectureError, load, load_model
from axon_compose.checkpoints.folder import write_model
from axon_compose.checkpoints.gguf._packed import PACKED_BITS, pack
from axon_compose.checkpoints.weights import load_nbytes
from axon_compose.diagnostics import CheckpointError
from axon_compose.model import LanguageModel
from tests.checkpoints.gguf import writing
from tests.checkpoints.gguf.converted import write
from tests.checkpoints.gguf.writing import fixture
from tests.families.models import expected

ROWS, BLOCKS = 6, 4


def any_blocks(kind: str, seed: int = 0) -> np.ndarray:
    """Rows of blocks with every bit at random, but scales that are numbers."""
    rng = np.random.default_rng(seed)
    size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    blocks = rng.integers(0, 256, (ROWS * BLOCKS, size), dtype=np.uint8)
    for at in (0,) if kind in ("Q4_0", "Q5_0", "Q8_0") else (0, 2):
        blocks[:, at : at + 2] = rng.normal(size=(len(blocks), 1)).astype("<f2").view(np.uint8)
    return blocks.reshape(ROWS, -1)


@pytest.mark.parametrize("kind", PACKED_BITS)
def test_every_number_is_the_same(kind: str) -> None:
    blocks = any_blocks(kind)
    words, scales, biases = map(mx.array, pack(blocks, kind))
    found = mx.dequantize(words, scales, biases, group_size=32, bits=PACKED_BITS[kind])
    np.testing.assert_array_equal(np.array(found), dequantize(blocks, GGMLQuantizationType[kind]))


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0"])
def test_a_model_has_the_numbers_of_the_file(kind: str, tmp_path: Path) -> None:
    """Rows of `phi3` are 64 wide; those that blocks do not divide stay in float32."""
    path = tmp_path / "model.gguf"
    write("phi3", path, kind)
    model = load_model(path)
    stored = fixture("phi3")["model.layers.1.self_attn.o_proj.weight"]
    number = GGMLQuantizationType[kind]
    wanted = dequantize(quantize(stored, number), number)
    parameters = named(model)
    base = "layers.1.attn.o_proj."
    words, scales, biases = (parameters[base + name] for name in ("weight", "scales", "biases"))
    found = mx.dequantize(words, scales, biases, group_size=32, bits=PACKED_BITS[kind])
    np.testing.assert_array_equal(np.array(found), wanted)
    assert "layers.1.mlp.down_proj.scales" not in parameters  # its rows have 72 numbers


def named(model: LanguageModel) -> dict[str, mx.array]:
    return {model.plan_name(name): value for name, value in tree_flatten(model.parameters())}


def test_mxfp4_is_the_same_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (ROWS * BLOCKS, 17), dtype=np.uint8)
    blocks[:, 0] = rng.integers(110, 140, len(blocks))
    blocks = blocks.reshape(ROWS, -1)
    words, scales, _ = pack(blocks, "MXFP4")
    found = mx.dequantize(mx.array(words), mx.array(scales), group_size=32, bits=4, mode="mxfp4")
    np.testing.assert_array_equal(np.array(found.astype(mx.float32)), dequantize(blocks, GGMLQuantizationType.MXFP4))
    path = tmp_path / "model.gguf"
    write("phi3", path, "MXFP4")
    assert named(load_model(path))["layers.1.attn.o_proj.scales"].dtype == mx.uint8


def test_other_types_are_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Into bfloat16 unless another type is asked for, and `build` says so."""

    def random_blocks(array: np.ndarray, number: GGMLQuantizationType) -> np.ndarray:
        block, size = GGML_QUANT_SIZES[number]
        blocks = np.random.default_rng(2).integers(0, 256, (array.size // block, size), dtype=np.uint8)
        blocks[:, :2] = np.full((len(blocks), 1), 0.001, "<f2").view(np.uint8)
        return blocks.reshape(*array.shape[:-1], -1)

    monkeypatch.setattr(writing, "quantize", random_blocks)
    path = tmp_path / "model.gguf"
    write("phi3", path, "IQ4_NL")
    parameters = named(load_model(path))
    assert parameters["layers.1.attn.o_proj.weight"].dtype == mx.bfloat16
    assert named(load_model(path, dtype="float32"))["layers.1.attn.o_proj.weight"].dtype == mx.float32
    record = write_model(load(checkpoint=path), tmp_path / "out", weights=path, tokenizer="none")
    assert "quantised tensors are unpacked, into bfloat16" in record["notes"][0]


def test_fewer_bits_are_made_of_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write("phi3", path, "Q8_0")
    architecture = load(checkpoint=path)
    record = write_model(architecture, tmp_path / "out", weights=path, quantize_bits=4, tokenizer="none")
    assert "4 bits move them by" in record["notes"][-1]
    tokens, _ = expected("phi3")
    whole, fewer = architecture.build(weights=path, unpack=True), load_model(tmp_path / "out")
    assert 0 < float(mx.abs(whole(tokens) - fewer(tokens)).max()) < 2


@pytest.mark.parametrize(("kind", "dtype"), [("Q8_0", None), ("Q5_1", "bfloat16"), ("MXFP4", None), (None, "float16")])
def test_memory_is_known_beforehand(kind: str | None, dtype: str | None, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write("phi3", path, kind)
    found = load(checkpoint=path)
    expected_bytes, _ = load_nbytes(found.load_plan(path), found.plan(), dtype)
    assert expected_bytes == sum(value.nbytes for value in named(found.build(weights=path, dtype=dtype)).values())


def test_a_folder_of_them_names_one(tmp_path: Path) -> None:
    write("phi3", tmp_path / "model-Q8_0.gguf", "Q8_0")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    assert "name one of its GGUF files" in str(caught.value)
    with pytest.raises(ArchitectureError) as refused:
        load("phi3", checkpoint=tmp_path)
    assert "model-Q8_0.gguf" in refused.value.diagnostics[0].help
