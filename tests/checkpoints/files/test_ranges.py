"""Parts of tensors that are read from a folder are those that are cut out of the whole tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from axon_compose.checkpoints.files import CheckpointError, FolderParts, _ranges


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of every type that weights have, in two files."""
    folder = tmp_path_factory.mktemp("folder")
    mx.random.seed(0)
    numbers = mx.random.normal((6, 8, 10))
    mx.save_safetensors(str(folder / "model-00001-of-00002.safetensors"), {
        "float32": numbers, "bfloat16": numbers.astype(mx.bfloat16), "float16": numbers.astype(mx.float16),
    })  # fmt: skip
    words = (1000 * numbers).astype(mx.int32).view(mx.uint32)
    mx.save_safetensors(str(folder / "model-00002-of-00002.safetensors"), {
        "uint32": words, "uint8": words.astype(mx.uint8), "vector": numbers[0, 0], "matrix": numbers[0],
    })  # fmt: skip
    return folder


def whole(folder: Path) -> dict[str, mx.array]:
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= mx.load(str(path))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("window", [1, 200, 1 << 20])
def test_parts_are_the_slices(folder: Path, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ranges, "_WINDOW", window)
    parts = FolderParts(folder)
    for name, array in whole(folder).items():
        for axis, length in enumerate(array.shape):
            for ranges in [((0, length // 2),), ((1, length),), ((0, 1), (2, 4), (5, length))]:
                before = (slice(None),) * axis
                wanted = mx.concatenate([array[(*before, slice(*both))] for both in ranges], axis)
                for zeros in (0, 2):
                    part = parts.part(name, array, axis, ranges, zeros)
                    wanted = mx.concatenate([wanted, mx.zeros_like(wanted[(*before, slice(zeros))])], axis)
                    assert part.dtype == array.dtype
                    assert part.shape == wanted.shape
                    assert mx.array_equal(part.view(mx.uint8), wanted.view(mx.uint8)).item()


def test_a_tensor_that_is_another_one_is_not_read(folder: Path) -> None:
    parts = FolderParts(folder)
    assert parts.part("vectors", mx.zeros(10), 0, ((0, 5),)) is None
    assert parts.part("vector", mx.zeros(12), 0, ((0, 5),)) is None
    assert parts.part("vector", mx.zeros(10, mx.float16), 0, ((0, 5),)) is None
    assert parts.part("vector", mx.zeros(10), 0, ((0, 5),)) is not None


def test_a_tensor_without_numbers(tmp_path: Path) -> None:
    save_file({"a": np.zeros((4, 0), np.float32)}, tmp_path / "model.safetensors")
    part = FolderParts(tmp_path).part("a", mx.zeros((4, 0)), 0, ((0, 2),))
    assert (part.shape, part.dtype) == ((2, 0), mx.float32)


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {"a": mx.ones((64, 64))})
    parts = FolderParts(tmp_path)
    assert parts.part("a", mx.zeros((64, 64)), 1, ((0, 32),)).sum().item() == 64 * 32
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)
    with pytest.raises(CheckpointError, match="AX511"):
        parts.part("a", mx.zeros((64, 64)), 1, ((0, 32),))
