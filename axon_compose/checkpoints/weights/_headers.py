"""The files of a published checkpoint, a folder or a GGUF file, and what they say of their tensors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final, NamedTuple

from axon_compose.checkpoints.files import CheckpointError, read_safetensors
from axon_compose.checkpoints.files._record import is_plain_name
from axon_compose.checkpoints.files._safetensors import ITEM_BITS, damaged
from axon_compose.checkpoints.files._shards import INDEX_FILE
from axon_compose.checkpoints.gguf._header import read_gguf
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.gguf._tensors import PLAIN, stored_as
from axon_compose.language.document import Layout
from axon_compose.machine.files import read_regular

__all__ = ["Checkpoint", "TensorHeader", "read_checkpoint"]

_MAX_INDEX_BYTES: Final = 64 * 1024 * 1024
_PICKLED: Final = (".bin", ".pth", ".pt", ".ckpt")


class TensorHeader(NamedTuple):
    """One tensor of a checkpoint: name, shape, type as the file format calls it, file, and its place in the data.

    `blocks` is the type of the blocks of llama.cpp that the bytes are, where they are that.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    start: int = 0
    blocks: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in its file."""
        return prod(self.shape) * ITEM_BITS[self.dtype] // 8


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds, no tensor read.

    Attributes:
        folder: The folder.
        tensors: Name to header, in the order of the files.
        layout: `mlx` or `huggingface` by the mark `format` of the files, None without one.
    """

    folder: Path
    tensors: dict[str, TensorHeader]
    layout: Layout | None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a GGUF file, or of all safetensors files of a folder; nothing is unpickled.

    The files are those of the index where there is one, else `model*.safetensors`, else all.

    Raises:
        CheckpointError: AX511 a damaged file; AX551 there is no safetensors file; AX552 a file of the index is missing.
    """
    folder = Path(folder)
    if is_gguf(folder):
        return Checkpoint(folder, _gguf_tensors(folder), "huggingface")
    tensors: dict[str, TensorHeader] = {}
    marks: set[str | None] = set()
    for path in _files(folder):
        header = read_safetensors(path)
        marks.add(header.metadata.get("format"))
        for name, entry in header.entries.items():
            if name in tensors:
                raise damaged(path, f"is also in `{tensors[name].file.name}`", name)
            tensors[name] = TensorHeader(name, entry.shape, entry.dtype, path, entry.start)
    return Checkpoint(folder, tensors, _layout(marks))


def _gguf_tensors(path: Path) -> dict[str, TensorHeader]:
    found: dict[str, TensorHeader] = {}
    for name, tensor in read_gguf(path).tensors.items():
        shape, dtype = stored_as(tensor)
        blocks = None if tensor.kind in PLAIN else tensor.kind
        found[name] = TensorHeader(name, shape, dtype, path, tensor.start, blocks)
    return found


def _layout(marks: set[str | None]) -> Layout | None:
    """The layout if all files have one mark."""
    if len(marks) != 1 or None in marks:
        return None
    return "mlx" if marks == {"mlx"} else "huggingface"


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if index.exists():
        names = _indexed(index)
        lost = [name for name in names if not (folder / name).is_file()]
        if lost:
            message = f"`{folder}` lacks the file `{lost[0]}`, which `{INDEX_FILE}` lists"
            more = f", and {len(lost) - 1} more are missing" if len(lost) > 1 else ""
            raise CheckpointError("AX552", message + more, "download the whole folder again")
        return [folder / name for name in names]
    found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if found:
        return found
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED) if folder.is_dir() else []
    if pickled:
        message = f"the weights in `{folder}` are pickled: `{pickled[0]}`"
        hint = "a pickle can run any code, so it is not opened; take a revision with safetensors, or convert it"
        raise CheckpointError("AX551", message, hint)
    raise CheckpointError("AX551", f"`{folder}` has no safetensors file", "weights are read from safetensors only")


def _indexed(index: Path) -> list[str]:
    """The files that an index names, each once, sorted."""
    try:
        content = read_regular(index, _MAX_INDEX_BYTES + 1)
        if len(content) > _MAX_INDEX_BYTES:
            raise damaged(index, f"larger than {_MAX_INDEX_BYTES} bytes")
        weight_map = json.loads(content)["weight_map"]
        names = sorted(set(_texts(weight_map.values())))
    except OSError as error:
        raise damaged(index, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(index, "not an index: `weight_map` must map names to files") from error
    for name in names:
        if not is_plain_name(name) or not name.endswith(".safetensors"):
            raise damaged(index, f"`{name[:80]}` is not the name of a safetensors file beside it")
    if not names:
        raise damaged(index, "names no file")
    return names


def _texts(values: Iterable[object]) -> list[str]:
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(list(values)):
        raise TypeError
    return texts
