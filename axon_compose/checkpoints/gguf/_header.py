"""What a GGUF file says of itself: metadata and tensors, checked against the size of the file before it is believed.

Format: `GGUF`, version, numbers of tensors and of keys; keys with typed values; tensors with name, extents (fastest
first), type and offset; then the data, aligned. Types and their sizes are those of the package `gguf`. Its reader is
not used: it believes every count, so a file of a hundred bytes can keep it busy for ever, and it makes an array of
each token, 8 s and 0.2 GB for a vocabulary of 49 152.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from weakref import WeakValueDictionary

from axon_compose.checkpoints.files._safetensors import damaged
from axon_compose.checkpoints.files._unchanged import Stamp, stamps_of
from axon_compose.checkpoints.gguf._path import gguf_parts
from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.files import open_regular

__all__ = ["GgufFile", "GgufTensor", "read_gguf"]

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
#: Codes of `struct` for the numbers of the format, by the number of the type.
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FORMS: Final = {code: struct.Struct(f"<{code}") for code in _NUMBERS.values()}
_MAX_NAME: Final = 65_535
_MAX_AXES: Final = 4
_MAX_EXTENT: Final = 2**31 - 1
#: A longer header is refused: this is room for a vocabulary of about two million tokens.
_MAX_HEADER: Final = 128 * 1024 * 1024


class GgufTensor(NamedTuple):
    """One tensor: shape in the order of NumPy, type as `gguf.GGMLQuantizationType` names it, its bytes in its file."""

    shape: tuple[int, ...]
    kind: str
    file: Path
    start: int
    nbytes: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, or the first of several that are one model.

    Attributes:
        path: The file.
        metadata: Key to value; arrays are lists.
        tensors: Name to tensor, those of all parts.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """`general.architecture`; empty if it is not said."""
        found = self.metadata.get("general.architecture")
        return found if isinstance(found, str) else ""


#: Headers that somebody holds, by path and by the stamps of the files: each takes half a second to read where the
#: vocabulary has 150,000 tokens, and a plan, its weights and its tokenizer all ask for it.
_HELD: Final[WeakValueDictionary[tuple[Path, frozenset[tuple[Path, Stamp]]], GgufFile]] = WeakValueDictionary()


def read_gguf(path: Path) -> GgufFile:
    """Read and check the header of a GGUF file, and of those that continue it (`NAME-00001-of-00003.gguf`).

    As long as somebody holds a header and no file has changed, it is not read again.

    Raises:
        CheckpointError: AX511 it is no GGUF file of version 2 or 3, is truncated, or contradicts itself; AX552 a part
            is missing.
    """
    key = path, frozenset(stamps_of(path).items())
    found = _HELD.get(key)
    if found is None:
        found = _HELD[key] = _read_all(path)
    return found


def _read_all(path: Path) -> GgufFile:
    first = _read(path)
    tensors = dict(first.tensors)
    for part in _parts(path, first.metadata):
        if not part.is_file():
            raise CheckpointError("AX552", f"`{part.name}` is missing beside `{path}`", "all parts are needed")
        for name, tensor in _read(part).tensors.items():
            if name in tensors:
                raise damaged(part, "is in two parts", name)
            tensors[name] = tensor
    return GgufFile(path, first.metadata, tensors)


def _parts(path: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """The files after the first one."""
    count = metadata.get("split.count", 1)
    if not isinstance(count, int) or count < 2:
        return []
    parts = gguf_parts(path)
    if len(parts) != count:
        hint = "name the first part, as it was published: `NAME-00001-of-0000N.gguf`"
        raise CheckpointError("AX552", f"`{path}` is one of {count} parts, and not the first by its name", hint)
    return parts[1:]


def _read(path: Path) -> GgufFile:
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _Reader(path, file, size).file()


class _Reader:
    """Goes through a header once. Every length is compared with what is left before anything is made of it."""

    def __init__(self, path: Path, data: BinaryIO, size: int) -> None:
        self.path, self.data, self.size, self.at = path, data, size, 0

    def file(self) -> GgufFile:
        version, tensor_count, key_count = self.start()
        metadata: dict[str, Any] = {}
        for _ in range(self.count(key_count, 13)):
            name = self.text(_MAX_NAME)
            if name in metadata:
                raise damaged(self.path, f"the key `{name[:80]}` is there twice")
            metadata[name] = self.value(self.number("I"))
        entries = [self.entry(version) for _ in range(self.count(tensor_count, 25))]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise damaged(self.path, "its alignment is not a power of two")
        begin = -(-self.at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, kind, offset, nbytes in entries:
            if name in tensors:
                raise damaged(self.path, "is there twice", name)
            if offset % alignment or begin + offset + nbytes > self.size:
                raise damaged(self.path, "reaches past the end of the file, or is not aligned", name)
            tensors[name] = GgufTensor(shape, kind, self.path, begin + offset, nbytes)
        self.check_overlap(tensors)
        return GgufFile(self.path, metadata, tensors)

    def start(self) -> tuple[int, int, int]:
        """Version and the two counts."""
        if self.bytes(len(_MAGIC)) != _MAGIC:
            raise damaged(self.path, "does not begin with `GGUF`")
        version = self.number("I")
        if version not in _VERSIONS:
            what = "big-endian" if version and not version & 0xFFFF else f"of version {version}"
            raise damaged(self.path, f"is {what}; version 2 and 3, little-endian, are read")
        return version, self.number("Q"), self.number("Q")

    def bytes(self, length: int) -> bytes:
        if self.at + length > _MAX_HEADER:
            raise damaged(self.path, f"a header of more than {_MAX_HEADER} bytes, which is the limit")
        found = self.data.read(length)
        if len(found) < length:
            raise damaged(self.path, "ends within its header")
        self.at += length
        return found

    def number(self, code: str) -> Any:
        form = _FORMS[code]
        return form.unpack(self.bytes(form.size))[0]

    def count(self, given: int, size: int) -> int:
        """A number of things that take so many bytes each at least."""
        if given * size > self.size - self.at:
            raise damaged(self.path, f"says that it has {given} entries, more than the file has room for")
        return given

    def text(self, limit: int | None = None) -> str:
        length = self.count(self.number("Q"), 1)
        if limit is not None and length > limit:
            raise damaged(self.path, f"a name of {length} bytes")
        try:
            return self.bytes(length).decode()
        except UnicodeDecodeError as error:
            raise damaged(self.path, "a text that is not UTF-8") from error

    def value(self, kind: int, *, inside: bool = False) -> Any:
        if kind in _NUMBERS:
            found = self.number(_NUMBERS[kind])
            return _shortest(found) if kind == _FLOAT32 else found
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or inside:
            raise damaged(self.path, f"a value of type {kind}, which the format does not have here")
        item = self.number("I")
        if item in _NUMBERS:
            form = _FORMS[_NUMBERS[item]]
            length = self.count(self.number("Q"), form.size)
            return [value for (value,) in form.iter_unpack(self.bytes(length * form.size))]
        return [self.value(item, inside=True) for _ in range(self.count(self.number("Q"), 8))]

    def entry(self, version: int) -> tuple[str, tuple[int, ...], str, int, int]:
        """Name, shape, type, offset and bytes of a tensor."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self.text(_MAX_NAME)
        axes = self.number("I")
        if axes > _MAX_AXES:
            raise damaged(self.path, f"has {axes} axes", name)
        shape = tuple(reversed([self.number("Q") for _ in range(axes)]))
        number, offset = self.number("I"), self.number("Q")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise damaged(self.path, f"has the type {number}, which the package `gguf` does not know", name) from error
        block, size = GGML_QUANT_SIZES[kind]
        if any(not 0 < extent <= _MAX_EXTENT for extent in shape) or (shape[-1] if shape else 1) % block:
            raise damaged(self.path, f"has the shape {list(shape)}, which {kind.name} cannot have", name)
        return name, shape, kind.name, offset, prod(shape) // block * size

    def check_overlap(self, tensors: Mapping[str, GgufTensor]) -> None:
        """No byte belongs to two tensors."""
        end = 0
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
            if tensor.start < end:
                raise damaged(self.path, "lies on another tensor", name)
            end = tensor.start + tensor.nbytes


def _shortest(value: float) -> float:
    """The number with the fewest digits that is this one in float32: 1e-05 instead of 9.999999747378752e-06."""
    texts = (f"{value:.{digits}g}" for digits in range(6, 10))
    same = (float(text) for text in texts if struct.pack("<f", float(text)) == struct.pack("<f", value))
    return next(same, value) if math.isfinite(value) else value
