"""The slots through which a loaded ELF library calls functions of other libraries (its global offset table).

Layout: System V ABI, chapter 5, and the processor supplements for x86-64 and AArch64.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Slot", "slots", "written"]

_LOAD, _DYNAMIC, _RELRO = 1, 2, 0x6474E552
_STRTAB, _SYMTAB, _RELA, _RELASZ, _PLTRELSZ, _JMPREL = 5, 6, 7, 8, 2, 23
#: Relocations that are the address of a symbol: GLOB_DAT and JUMP_SLOT of x86-64, then of AArch64.
_ADDRESSES: Final = (6, 7, 1025, 1026)
_RTLD_NOLOAD: Final = 4
_RTLD_DI_LINKMAP: Final = 2
_PROT_READ, _PROT_WRITE = 1, 2


class Slot(NamedTuple):
    """Where a library keeps the address of an imported function.

    Attributes:
        name: The function.
        address: Of the slot in this process.
        protected: Whether its page is read-only after loading (RELRO).
    """

    name: str
    address: int
    protected: bool

    @property
    def function(self) -> int:
        """The address that is called now."""
        return ctypes.c_uint64.from_address(self.address).value


def slots(library: Path, prefix: str) -> list[Slot]:
    """The slots of a loaded library for functions whose names begin with `prefix`.

    Raises:
        OSError: The library is not loaded, or its file cannot be read.
        ValueError: It is no 64-bit little-endian ELF file with the usual tables.
    """
    base = _base_of(library)
    with library.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return list(_File(data).slots(base, prefix.encode()))
        except (struct.error, KeyError, IndexError, StopIteration) as error:
            raise ValueError(f"{library.name}: {error}") from error


@contextmanager
def _writable(slot: Slot) -> Iterator[None]:
    """The page of a slot, writable for a moment."""
    if not slot.protected:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    page = ctypes.c_void_p(slot.address & -mmap.PAGESIZE)
    if libc.mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), _PROT_READ | _PROT_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect")
    try:
        yield
    finally:
        libc.mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), _PROT_READ)


def written(slot: Slot, function: int) -> None:
    """Let a library call another function; takes one aligned store, so that calls of other threads see either.

    Raises:
        OSError: The system does not allow it.
    """
    with _writable(slot):
        ctypes.c_uint64.from_address(slot.address).value = function


class _LinkMap(ctypes.Structure):
    _fields_ = (("base", ctypes.c_uint64), ("name", ctypes.c_char_p))


def _base_of(library: Path) -> int:
    """What is added to the addresses of a library's file."""
    handle = ctypes.CDLL(str(library), mode=_RTLD_NOLOAD | ctypes.DEFAULT_MODE)._handle
    found = ctypes.POINTER(_LinkMap)()
    dlinfo = ctypes.CDLL(None).dlinfo
    if dlinfo(ctypes.c_void_p(handle), _RTLD_DI_LINKMAP, ctypes.byref(found)):
        raise OSError(f"{library.name}: dlinfo")
    return int(found.contents.base)


class _File:
    """A library's file: its segments and its dynamic section."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("no 64-bit little-endian ELF file")
        (offset,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        # type, flags, offset, address, physical address, size in the file, size in memory, alignment
        self.segments = [struct.unpack_from("<IIQQQQQQ", data, offset + size * at) for at in range(count)]
        start, length = next((s[2], s[5]) for s in self.segments if s[0] == _DYNAMIC)
        self.dynamic = dict(struct.iter_unpack("<QQ", data[start : start + length - length % 16]))

    def at(self, address: int) -> int:
        """The offset in the file of an address."""
        for kind, _, offset, start, _, size, *_ in self.segments:
            if kind == _LOAD and start <= address < start + size:
                return int(offset + address - start)
        raise ValueError("an address is in no segment")

    def slots(self, base: int, prefix: bytes) -> Iterator[Slot]:
        symbols, names = self.at(self.dynamic[_SYMTAB]), self.at(self.dynamic[_STRTAB])
        for table, size in ((_JMPREL, _PLTRELSZ), (_RELA, _RELASZ)):
            if table not in self.dynamic:
                continue
            start = self.at(self.dynamic[table])
            for address, info, _ in struct.iter_unpack("<QQq", self.data[start : start + self.dynamic[size]]):
                if info & 0xFFFFFFFF not in _ADDRESSES:
                    continue
                (at,) = struct.unpack_from("<I", self.data, symbols + 24 * (info >> 32))
                if self.data[names + at : names + at + len(prefix)] == prefix:
                    name = self.data[names + at : self.data.find(b"\0", names + at)].decode()
                    yield Slot(name, base + address, self.is_protected(address))

    def is_protected(self, address: int) -> bool:
        """Whether an address is in the part that is read-only after loading: of its last page nothing, or all of it.

        Libraries for ARM may end it within a page, as there are pages of 4, 16 and 64 KiB; the rest is written to.
        """
        ends = [(s[3], s[3] + s[6]) for s in self.segments if s[0] == _RELRO]
        return any(start & -mmap.PAGESIZE <= address < end & -mmap.PAGESIZE for start, end in ends)
