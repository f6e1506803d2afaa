"""Writing safetensors, one tensor at a time.

A model of any size goes to disk with little more memory than its largest tensor: arrays come in lazy, each is computed,
written, hashed and dropped before the next. That is true only if nothing else keeps a reference; see `write_shards`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from axon_compose.checkpoints.files import _disk
from axon_compose.checkpoints.files._record import dump_json
from axon_compose.checkpoints.files._safetensors import ITEM_BITS

__all__ = [
    "INDEX_FILE",
    "MAX_SHARD_BYTES",
    "NotComputed",
    "Progress",
    "Shard",
    "TensorSpec",
    "bytes_of",
    "drain",
    "plan_shards",
    "tensor_specs",
    "write_shards",
]

INDEX_FILE: Final = "model.safetensors.index.json"
#: The size at which mlx_lm starts a new file.
MAX_SHARD_BYTES: Final = 5_000_000_000

Progress = Callable[[int, int], None]

_DTYPES: Final[Mapping[str, str]] = {
    "bool_": "BOOL", "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32",
    "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32",
    "complex64": "C64",
}  # fmt: skip
_CHUNK: Final = 16 * 1024 * 1024
_IN_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class NotComputed(Exception):
    """A lazy array that cannot be computed.

    Attributes:
        tensor: Its name.
        cause: What was raised.
    """

    def __init__(self, tensor: str, cause: Exception) -> None:
        super().__init__(f"`{tensor}` cannot be computed")
        self.tensor, self.cause = tensor, cause


class TensorSpec(NamedTuple):
    """A tensor before it exists: full name, shape, and type as MLX calls it, e.g. `bfloat16`."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def code(self) -> str:
        """The type as the file format calls it.

        Raises:
            ValueError: The format as MLX reads it has no such type.
        """
        try:
            return _DTYPES[self.dtype]
        except KeyError:
            raise ValueError(f"{self.name}: {self.dtype} cannot be saved") from None

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return prod(self.shape) * ITEM_BITS[self.code] // 8


@dataclass(frozen=True, slots=True)
class Shard:
    """One file: its name and its tensors, in the order in which they arrive."""

    file: str
    specs: tuple[TensorSpec, ...]

    def layout(self) -> list[TensorSpec]:
        """The order in the file: wide numbers first, so that each tensor starts at a multiple of its number's size."""
        return sorted(self.specs, key=lambda spec: -ITEM_BITS[spec.code])

    def header(self, mark: str = "mlx", **more: str) -> bytes:
        """The bytes before the data, padded to a multiple of 8; `mark` is the `format` of the metadata."""
        content: dict[str, Any] = {"__metadata__": {"format": mark, **more}}
        start = 0
        for spec in self.layout():
            end = start + spec.nbytes
            content[spec.name] = {"dtype": spec.code, "shape": list(spec.shape), "data_offsets": [start, end]}
            start = end
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def tensor_specs(arrays: Mapping[str, Any]) -> list[TensorSpec]:
    """Names, shapes and types of MLX arrays; lazy ones stay lazy."""
    return [TensorSpec(name, tuple(a.shape), str(a.dtype).rpartition(".")[2]) for name, a in arrays.items()]


def drain(arrays: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Hand out the arrays of a dict in order, forgetting each: what `write_shards` wants."""
    for name in list(arrays):
        yield name, arrays.pop(name)


def plan_shards(specs: Sequence[TensorSpec], max_shard_bytes: int = MAX_SHARD_BYTES) -> list[Shard]:
    """Divide tensors over files, in order; a tensor above the limit has a file of its own.

    Where one file is not enough, files begin with a layer, and what is outside of layers has files of its own: a device
    that runs some of the layers fetches few files that it does not need. Only a layer above the limit is divided.

    Raises:
        ValueError: A name comes twice or is reserved, or the limit is not positive.
    """
    names = {spec.name for spec in specs}
    if len(names) != len(specs) or "__metadata__" in names or "" in names:
        raise ValueError("tensor names must be unique, not empty and not `__metadata__`")
    if max_shard_bytes <= 0:
        raise ValueError("max_shard_bytes must be positive")
    if sum(spec.nbytes for spec in specs) <= max_shard_bytes:
        groups = [list(specs)]
    else:
        inside = groupby(_layers(specs, max_shard_bytes), key=lambda unit: _layer(unit[0]) is not None)
        groups = [group for _, units in inside for group in _filled(units, max_shard_bytes)]
    count = len(groups)
    single = "model.safetensors"
    files = [single] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    return [Shard(file, tuple(group)) for file, group in zip(files, groups, strict=True)]


def _layer(spec: TensorSpec) -> str | None:
    """The number of the layer that a tensor belongs to, as `mlx_lm` reads it from names."""
    found = _IN_LAYER.search(spec.name)
    return found and found[1]


def _layers(specs: Sequence[TensorSpec], limit: int) -> Iterator[list[TensorSpec]]:
    """Runs of tensors that stay together: those of a layer, or single ones."""
    for layer, run in groupby(specs, key=_layer):
        tensors = list(run)
        if layer is None or sum(spec.nbytes for spec in tensors) > limit:
            yield from ([spec] for spec in tensors)
        else:
            yield tensors


def _filled(units: Iterable[list[TensorSpec]], limit: int) -> list[list[TensorSpec]]:
    """Files that are filled one after the other."""
    groups: list[list[TensorSpec]] = [[]]
    size = 0
    for unit in units:
        more = sum(spec.nbytes for spec in unit)
        if groups[-1] and size + more > limit:
            groups.append([])
            size = 0
        groups[-1] += unit
        size += more
    return groups


def write_shards(
    folder: Path,
    specs: Sequence[TensorSpec],
    tensors: Iterable[tuple[str, Any]],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
    mark: str = "mlx",
) -> dict[str, _disk.FileRecord]:
    """Write safetensors files and their index into `folder`.

    Peak memory is near the largest tensor if each array is lazy and has no other user: give `drain(arrays)` and drop
    the model that the arrays come from. Arrays that are computed already cost what they weigh until their turn.

    Args:
        folder: An existing folder without these files.
        specs: Every tensor, in the order in which `tensors` hands them out.
        tensors: Pairs of name and MLX array, or of name and a function without arguments that returns the array, or an
            iterator of its pieces.
        max_shard_bytes: Bytes of tensors in one file.
        progress: Called with the bytes of tensors written so far and in all.
        mark: The `format` of the metadata: `mlx`, or `pt` for the layout of Hugging Face.

    Returns:
        File name to size and hash, of the shards and of the index.

    Raises:
        ValueError: The tensors are not those of `specs`.
        NotComputed: A lazy array raises.
        OSError: The disk failed.
    """
    import mlx.core as mx

    shards = plan_shards(specs, max_shard_bytes)
    source = iter(tensors)
    report = _counter(sum(spec.nbytes for spec in specs), progress)
    records = {}
    for shard in shards:
        pending = _take(source, shard.specs)
        records[shard.file] = _disk.write_file(folder / shard.file, _content(shard, pending, report, mark))
        mx.clear_cache()
    if extra := next(source, None):
        raise ValueError(f"tensor `{extra[0]}` was not announced")
    index = {
        "metadata": {"total_size": sum(spec.nbytes for spec in specs)},
        "weight_map": {spec.name: shard.file for shard in shards for spec in shard.specs},
    }
    records[INDEX_FILE] = _disk.write_file(folder / INDEX_FILE, [dump_json(index)])
    return records


def _counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def report(written: int) -> None:
        nonlocal done
        done += written
        if progress:
            progress(done, total)

    return report


def _take(source: Iterator[tuple[str, Any]], specs: Iterable[TensorSpec]) -> dict[str, Any]:
    pending = {}
    for spec in specs:
        name, array = next(source, (None, None))
        if name != spec.name:
            raise ValueError(f"tensor `{spec.name}` was announced, `{name}` came")
        pending[spec.name] = array
    return pending


def _content(shard: Shard, pending: dict[str, Any], report: Callable[[int], None], mark: str) -> Iterator[_disk.Bytes]:
    yield shard.header(mark)
    for spec in shard.layout():
        for chunk in bytes_of(spec, pending.pop(spec.name)):
            yield chunk
            report(len(chunk))
            del chunk  # a view of the whole tensor, which must be gone before the next one is computed


def bytes_of(spec: TensorSpec, array: Any) -> Iterator[memoryview]:
    """The bytes of an array, or of what a function without arguments returns, in pieces.

    That may be an array, or an iterator of the arrays that have its numbers in order.

    Raises:
        NotComputed: A lazy array raises.
        ValueError: It is not what the spec says.
    """
    if callable(array):
        array = array()
    if not isinstance(array, Iterator):
        if tensor_specs({spec.name: array}) != [spec]:
            what = f"{array.dtype} {array.shape}"
            raise ValueError(f"tensor `{spec.name}` is {what}, announced as {spec.dtype} {spec.shape}")
        yield from _bytes(spec, array)
        return
    written = 0
    for piece in array:
        if tensor_specs({spec.name: piece})[0].dtype != spec.dtype:
            raise ValueError(f"tensor `{spec.name}` has a piece of {piece.dtype}, announced as {spec.dtype}")
        written += piece.nbytes
        yield from _bytes(spec, piece)
    if written != spec.nbytes:
        raise ValueError(f"tensor `{spec.name}` has {written} bytes in pieces, announced are {spec.nbytes}")


def _bytes(spec: TensorSpec, array: Any) -> Iterator[memoryview]:
    import mlx.core as mx

    array = array.reshape(-1).view(mx.uint8)
    try:
        mx.eval(array)
    except Exception as error:
        raise NotComputed(spec.name, error) from error
    whole = memoryview(array)
    for start in range(0, len(whole), _CHUNK):
        yield whole[start : start + _CHUNK]
