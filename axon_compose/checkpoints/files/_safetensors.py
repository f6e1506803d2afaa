"""Reading safetensors: the header is checked to the byte before MLX opens the file.

Format: 8 bytes little-endian length of the header, a JSON header `{name: {dtype, shape, data_offsets}}`, then the data.
Source: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.files import open_regular

__all__ = [
    "ITEM_BITS",
    "MAX_HEADER_BYTES",
    "NOT_IN_MLX",
    "Entry",
    "Header",
    "compare_shapes",
    "damaged",
    "data_start",
    "differences",
    "listing",
    "load_weights",
    "read_header",
    "read_safetensors",
    "shown",
]

#: A longer header is refused: this is room for about 250 000 tensors.
MAX_HEADER_BYTES: Final = 32 * 1024 * 1024

#: Bits of one number, for every type of the format (safetensors 0.8).
ITEM_BITS: Final[Mapping[str, int]] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip
#: Types that MLX cannot hold; `mx.load` refuses a whole file for one tensor of these.
NOT_IN_MLX: Final = {"F64", "F8_E5M2", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}

_MAX_DIM: Final = 2**31 - 1
_SHARD: Final = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


class Entry(NamedTuple):
    """One tensor of a file: type name of the format, shape, and its bytes `[start, end)` within the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """What a file says of itself: its tensors in the order of the header, and `__metadata__`."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name, in the order of the header; see `read_safetensors`."""
    return read_safetensors(path).entries


def read_safetensors(path: Path) -> Header:
    """Read and check the header of a safetensors file; no tensor is read.

    The tensors must fill the data exactly: no overlap, no hole, nothing beyond the end.

    Raises:
        CheckpointError: AX511, names the file and, where one is to blame, the tensor.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            length = int.from_bytes(file.read(8), "little")
            room = status.st_size - 8
            if room < 2:
                raise damaged(path, f"truncated: {status.st_size} bytes, the shortest file has 10")
            if length > room:
                raise damaged(path, f"truncated: {status.st_size} bytes, the header alone says {length}")
            if length > MAX_HEADER_BYTES:
                raise damaged(path, f"a header of {length} bytes is above the limit of {MAX_HEADER_BYTES}")
            raw = file.read(length)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    parsed = _parse(path, raw)
    metadata = parsed.pop("__metadata__", None) or {}  # MLX writes null for none
    entries = {name: _entry(path, name, value) for name, value in parsed.items()}
    _check_layout(path, entries, status.st_size - 8 - length)
    return Header(entries, metadata)


def data_start(path: Path) -> int:
    """Where the data of a file begins, whose header has been checked."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def damaged(path: Path, what: str, tensor: str | None = None) -> CheckpointError:
    """AX511 of a file, and of one tensor where that is to blame."""
    of_tensor = f"tensor `{shown(tensor)}`: " if tensor is not None else ""
    return CheckpointError("AX511", f"`{path}`: {of_tensor}{what}", "the file is damaged or was written incorrectly")


def shown(name: str) -> str:
    """A name from a file, fit for a message."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= 120 else text[:117] + "…"


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise damaged(path, "duplicate name", twice)
        return result

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"the header is not JSON: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise damaged(path, "the header is not a JSON object")
    metadata = header.get("__metadata__") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damaged(path, "`__metadata__` does not map text to text")
    return header


def _entry(path: Path, name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise damaged(path, "needs exactly dtype, shape and data_offsets", name)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise damaged(path, f"unknown dtype {shown(str(dtype))}", name)
    if not _is_counts(shape) or any(dim > _MAX_DIM for dim in shape):
        raise damaged(path, "the shape is not a list of integers from 0 to 2^31 - 1", name)
    if not _is_counts(offsets) or len(offsets) != 2:
        raise damaged(path, "data_offsets are not two integers from 0", name)
    entry = Entry(dtype, tuple(shape), offsets[0], offsets[1])
    needed, part = divmod(ITEM_BITS[dtype] * prod(shape), 8)
    if part:
        raise damaged(path, f"{dtype} of shape {shape} does not fill whole bytes", name)
    if entry.end - entry.start != needed:
        raise damaged(
            path, f"{dtype} of shape {shape} takes {needed} bytes, offsets give {entry.end - entry.start}", name
        )
    return entry


def _is_counts(value: Any) -> bool:
    """Whether `value` is a short list of integers from 0; `true` is no integer."""
    return isinstance(value, list) and len(value) <= 32 and all(type(item) is int and item >= 0 for item in value)


def _check_layout(path: Path, entries: Mapping[str, Entry], data_bytes: int) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.end > data_bytes:
            raise damaged(path, f"ends at byte {entry.end} of {data_bytes}; the file is truncated", name)
        if entry.start < end:
            raise damaged(path, f"starts at byte {entry.start}, inside the tensor before it", name)
        if entry.start > end:
            raise damaged(path, f"starts at byte {entry.start}, after a gap from byte {end}", name)
        end = entry.end
    if end != data_bytes:
        raise damaged(path, f"{data_bytes - end} bytes after the last tensor belong to no tensor")


def load_weights(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Open the weights of a model folder, once names and shapes are known to be right.

    Reads every `model*.safetensors`, as mlx_lm does. Nothing is unpickled and nothing else is opened.

    Args:
        folder: The model folder.
        expected: Name to shape of every parameter of the model.

    Returns:
        Name to lazy `mx.array`, in the order of `expected`.

    Raises:
        CheckpointError: AX511 a damaged file; AX512 no weights, or names or shapes differ (first ten of each kind).
    """
    folder = Path(folder)
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(
            "AX512", f"`{folder}` has no `model*.safetensors`", "weights are read from safetensors only"
        )
    found: dict[str, tuple[Path, Entry]] = {}
    for path in files:
        for name, entry in read_header(path).items():
            if name in found:
                raise damaged(path, f"is also in `{found[name][0].name}`", name)
            if entry.dtype in NOT_IN_MLX:
                raise damaged(path, f"MLX has no dtype for {entry.dtype}", name)
            found[name] = path, entry
    compare_shapes(folder, files, {name: entry.shape for name, (_, entry) in found.items()}, expected)

    import mlx.core as mx

    arrays: dict[str, Any] = {}
    for path in files:
        loaded: Any = mx.load(str(path), format="safetensors")
        arrays.update(loaded)
    return {name: arrays[name] for name in expected}


def compare_shapes(
    folder: Path,
    files: Iterable[Path],
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    hint: str | None = None,
) -> None:
    """Compare names and shapes of tensors with those of a model.

    Args:
        folder: Where the tensors are.
        files: Their files.
        found: Name to shape.
        expected: Name to shape of every parameter.
        hint: What to do where tensors differ and no file is missing.

    Raises:
        CheckpointError: AX512, with the first ten of each kind of difference.
    """
    details = differences(found, expected)
    if details:
        message = f"the weights in `{folder}` are not those of this model"
        raise CheckpointError("AX512", message, _lost_shards(files) or hint, details)


def differences(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How names and shapes differ from those of a model, the first ten of each kind as lines; none if they do not."""
    shaped = [
        f"{shown(name)} is {list(found[name])}, the model has {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(shape) != found[name]
    ]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [shown(name) for name in found if name not in expected],
        "of the wrong shape": shaped,
    }
    return [line for kind, lines in kinds.items() for line in listing(kind, lines)]


def listing(kind: str, lines: list[str]) -> list[str]:
    """`3 missing:` and the first ten, each on a line of its own; nothing if there is none."""
    if not lines:
        return []
    more = [f"  … and {len(lines) - 10} more"] if len(lines) > 10 else []
    return [f"{len(lines)} {kind}:", *(f"  {line}" for line in lines[:10]), *more]


def _lost_shards(files: Iterable[Path]) -> str | None:
    numbers = [(int(match[1]), int(match[2])) for path in files if (match := _SHARD.fullmatch(path.name))]
    if not numbers:
        return None
    total = max(of for _, of in numbers)
    lost = sorted(set(range(1, min(total, 10_000) + 1)) - {number for number, _ in numbers})
    return f"shard {lost[0]} of {total} is not in the folder" if lost else None
