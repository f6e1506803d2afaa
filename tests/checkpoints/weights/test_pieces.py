"""Large tensors that are read a piece of rows at a time: the numbers of the whole, in the memory of a piece."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.folder import write_model
from axon_compose.checkpoints.gguf import _tensors
from axon_compose.checkpoints.gguf._packed import PACKED_BITS
from axon_compose.checkpoints.weights import Parameters, _memory, _pieces, load_nbytes
from axon_compose.checkpoints.weights._blocks import Blocks
from axon_compose.checkpoints.weights._headers import TensorHeader
from axon_compose.checkpoints.weights._packed import Packed
from axon_compose.checkpoints.weights._pieces import in_pieces, put_together
from axon_compose.checkpoints.weights._source import Form
from axon_compose.machine import memory
from axon_compose.surgery import perform
from tests.checkpoints.gguf import converted, writing
from tests.families.models import FIXTURES
from tests.surgery.edits import edited

#: Rows of the table that is read in pieces below, and of all pieces of it.
ROWS, PIECE = 1 << 17, 1 << 18


def reading(monkeypatch: pytest.MonkeyPatch, numbers: int) -> list[tuple[str, int, int]]:
    """Read in pieces of so many numbers; the rows of GGUF files that are read from now on."""
    read: list[tuple[str, int, int]] = []
    rows = _tensors.GgufTensors.rows

    def told(self: Any, name: str, first: int, end: int) -> Any:
        read.append((name, first, end))
        return rows(self, name, first, end)

    monkeypatch.setattr(_pieces, "PIECE", numbers)
    monkeypatch.setattr(_tensors.GgufTensors, "rows", told)
    return read


def parameters(path: Path, **options: Any) -> dict[str, np.ndarray]:
    """The bytes of every array of a model."""
    model = axon_compose.load(checkpoint=path).build(weights=path, **options)
    return {name: np.array(value.view(mx.uint8)) for name, value in tree_flatten(model.parameters())}


class Stored:
    """A file in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array.reshape(-1, array.shape[-1])

    def rows(self, name: str, first: int, end: int) -> np.ndarray:
        return self.array[first:end]


@pytest.mark.parametrize("kind", [*PACKED_BITS, "MXFP4", "Q6_K", "Q2_K", "IQ4_NL"])
@pytest.mark.parametrize("numbers", [1, 1300, 1 << 20])
def test_pieces_of_experts_are_the_whole(kind: str, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three experts in one tensor, cut anywhere between rows; packed and decoded."""
    monkeypatch.setattr(_pieces, "PIECE", numbers)
    drawn = np.random.default_rng(0).normal(size=(3, 5, 512)).astype(np.float32)
    number = GGMLQuantizationType[kind]
    if kind in ("Q2_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"):  # which the package only decodes
        block, size = GGML_QUANT_SIZES[number]
        blocks = np.random.default_rng(1).integers(0, 100, (3, 5, 512 // block * size), dtype=np.uint8)
    else:
        blocks = quantize(drawn, number)
    source = Blocks("x", (TensorHeader("x", blocks.shape, "U8", Path("x"), 0, kind),), drawn.shape)
    for form in (source.forms()[0], Form(drawn.shape)):
        whole = source.read([blocks], form)
        found = put_together(in_pieces(source, form, lambda path: Stored(blocks)), drawn.shape)
        assert isinstance(found, Packed) == isinstance(whole, Packed) == bool(form.packing)
        assert found.shape == whole.shape
        each = (whole.members, found.members) if isinstance(whole, Packed) else ({"": whole}, {"": found})
        for name, value in each[0].items():
            assert value.dtype == each[1][name].dtype
            np.testing.assert_array_equal(np.array(value), np.array(each[1][name]))


@pytest.mark.parametrize("options", [{}, {"unpack": True}, {"dtype": "float32", "unpack": True}, {"dtype": "float16"}])
@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "MXFP4"])
def test_a_gguf_file_gives_the_same_bits(
    kind: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside matrices that are reordered or divided, which are read whole."""
    converted.write("phi3", tmp_path / "model.gguf", kind)
    whole = parameters(tmp_path / "model.gguf", **options)
    read = reading(monkeypatch, 300)
    found = parameters(tmp_path / "model.gguf", **options)
    assert len({name for name, *_ in read}) < len(read)
    assert found.keys() == whole.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)


def source_of(kind: str, place: Path) -> Path:
    """Weights of a model in one of the forms that can be read by rows."""
    if kind == "published":
        return FIXTURES / "llama"
    converted.write("phi3", place / "model.gguf", "Q5_0")
    if kind == "gguf":
        return place / "model.gguf"
    architecture = axon_compose.load(checkpoint=place / "model.gguf")
    write_model(architecture, place / "model", weights=place / "model.gguf", tokenizer="none")
    return place / "model"


@pytest.mark.parametrize("kind", ["gguf", "published", "packed by MLX"])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_an_edit_gives_the_same_file(
    kind: str, dtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers are kept, and one is made of the numbers of another."""
    source = source_of(kind, tmp_path)
    edits = [{"layers": 0, "set": {"attn.window_size": 4}}, {"insert": {"after": 0}}]

    def weights(name: str) -> bytes:
        plan = edited(source, *edits, dtype=dtype)
        return (perform(plan, tmp_path / name, tokenizer="none") / "model.safetensors").read_bytes()

    whole = weights("whole")
    monkeypatch.setattr(_pieces, "PIECE", 300)
    assert weights("pieces") == whole


def large(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A model whose table of tokens weighs more than all the rest."""
    fixture = writing.fixture("phi3")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        fixture[name] = np.resize(fixture[name], (ROWS, fixture[name].shape[1]))
    monkeypatch.setattr(converted, "fixture", lambda name: fixture)
    converted.write("phi3", path, kind)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_an_edit_takes_no_more_than_a_few_pieces(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than the table in the type in which it is written, of which all of it would take three times that much."""
    large(tmp_path / "model.gguf", monkeypatch, kind)
    monkeypatch.setattr(_pieces, "PIECE", PIECE)
    plan = edited(tmp_path / "model.gguf", {"layers": 0, "set": {"attn.window_size": 4}})
    table = max(step.nbytes for step in plan.steps)
    assert table == ROWS * 64 * 2
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    tracemalloc.start()  # of NumPy, which MLX does not count
    try:
        perform(plan, tmp_path / "out", tokenizer="none")
        numbers = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mx.get_peak_memory() - before + numbers < table


def test_memory_that_is_asked_for_is_that_of_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large(tmp_path / "model.gguf", monkeypatch, "Q8_0")
    architecture = axon_compose.load(checkpoint=tmp_path / "model.gguf")
    plan, load_plan = architecture.plan(), architecture.load_plan(tmp_path / "model.gguf")
    monkeypatch.setattr(_memory, "running_nbytes", lambda plan, widths: 0)
    weights, besides = load_nbytes(load_plan, plan)
    monkeypatch.setattr(_pieces, "PIECE", PIECE)
    fewer = load_nbytes(load_plan, plan)
    assert fewer[0] == weights
    assert fewer[1] < besides
    monkeypatch.setattr(memory, "available", lambda: ROWS * 64)  # half of the table
    perform(edited(tmp_path / "model.gguf", {"drop": 0}), tmp_path / "out", tokenizer="none")
    monkeypatch.setattr(_pieces, "PIECE", ROWS * 64)
    with pytest.raises(CheckpointError, match="AX401"):
        perform(edited(tmp_path / "model.gguf", {"drop": 0}), tmp_path / "again", tokenizer="none")


def test_a_file_that_ends_early_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted.write("phi3", tmp_path / "model.gguf", "Q8_0")
    reading(monkeypatch, 300)
    plan = edited(tmp_path / "model.gguf", {"drop": 0})
    assert plan.load_plan is not None
    path = tmp_path / "model.gguf"
    path.write_bytes(path.read_bytes()[:-4000])
    names = dict.fromkeys(plan.load_plan.parameters, "float32")
    with pytest.raises(CheckpointError, match="AX511"):
        Parameters(plan.load_plan).read(names)
