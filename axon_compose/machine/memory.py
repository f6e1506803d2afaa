"""How much memory is free, how much was taken, and the refusal of what does not fit."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.units import human

__all__ = ["available", "held", "peak", "require"]

#: What the program takes besides arrays: modules of components that are yet to be imported, compiled kernels.
_PROGRAM: Final = 128 << 20
#: Addresses, no memory: each of MLX's threads reserves 64 MiB for small allocations and 8 MiB for its stack.
_THREADS: Final = 768 << 20
#: In `/proc/self/smaps`: first and last address, a file that has an inode, and the lines about it.
_MAPPED_FILE: Final = re.compile(r"^(\w+)-(\w+) \S+ \S+ \S+ [1-9]\d* .*\n((?:[A-Z].*\n)*)", re.MULTILINE)


def available() -> int:
    """Bytes of arrays that this process can still take, by free memory, the limits of its cgroups and RLIMIT_AS."""
    bounds = [_macos() if sys.platform == "darwin" else _linux(Path("/"))]
    bounds.append(_address_space(Path("/proc/self/statm")))
    known = [bound for bound in bounds if bound is not None]
    free = min(known) if known else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, free - _PROGRAM)


def require(bytes_needed: int, what: str, largest: Iterable[tuple[str, int]] = (), remedy: str | None = None) -> None:
    """Refuse what does not fit into memory.

    Args:
        bytes_needed: Bytes about to be allocated.
        what: What needs them, as the sentence begins, e.g. "`bit-axon` in bfloat16".
        largest: Names and bytes of the largest parts; the first three are named by size.
        remedy: What the help says; the largest parts unless given.

    Raises:
        CheckpointError: AX401.
    """
    free = available()
    if bytes_needed <= free:
        return
    parts = sorted(largest, key=lambda part: -part[1])[:3]
    named = ", ".join(f"`{name}` takes {human(size)}" for name, size in parts)
    message = f"{what} needs {human(bytes_needed)} of memory, {human(free)} are available"
    raise CheckpointError("AX401", message, remedy or named or None, [named] if remedy and named else [])


def peak() -> int:
    """The most bytes that this process has held so far.

    Where Linux reports it, that is read: what `getrusage` says begins with what the parent held.
    """
    found = _kilobytes("VmHWM", _read(Path("/proc/self/status")))
    return found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held(arrays: Mapping[int, int], *, most: bool = False) -> int:
    """The bytes that this process holds, without its libraries.

    These, as all pages of files, are taken out, where Linux reports them. Arrays that lie in a mapped file are then
    counted as a whole, resident or not.

    Args:
        arrays: Bytes of each by its address.
        most: The most that were held so far.
    """
    status = _read(Path("/proc/self/status"))
    if not status:
        return peak()  # no system but Linux says what is held now
    files, now = (_kilobytes(name, status) for name in ("RssFile", "VmRSS"))
    return (peak() if most else now) - files + _file_backed(arrays, _read(Path("/proc/self/smaps")))


def _file_backed(arrays: Mapping[int, int], smaps: str) -> int:
    """Bytes of arrays that are pages of files; those that were written to have become pages of the process."""
    total = 0
    for first, end, fields in _MAPPED_FILE.findall(smaps):
        inside = sum(size for address, size in arrays.items() if int(first, 16) <= address < int(end, 16))
        total += max(0, inside - _kilobytes("Anonymous", fields))
    return total


def _kilobytes(name: str, text: str) -> int:
    """A line such as `VmHWM:  12 kB` in bytes; 0 without it."""
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _linux(root: Path) -> int | None:
    """The least of `MemAvailable` and what the cgroups (version 1 and 2) of this process leave."""
    bounds = [_meminfo(root / "proc/meminfo")]
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            bounds += _cgroup(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            bounds += _cgroup(root / "sys/fs/cgroup/memory", path, *names)
    known = [bound for bound in bounds if bound is not None]
    return min(known) if known else None


def _meminfo(path: Path) -> int | None:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read(path), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _cgroup(mount: Path, path: str, limit: str, used: str, cached: str) -> list[int]:
    """What every group from that of the process up to the root leaves; a container may see only its own as the root."""
    group = mount / path.strip("/")
    folders = [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]
    return [left for folder in folders if (left := _left(folder, limit, used, cached)) is not None]


def _left(folder: Path, limit: str, used: str, cached: str) -> int | None:
    most, taken = _read(folder / limit).strip(), _read(folder / used).strip()
    if not most.isdigit() or not taken.isdigit():  # no such group, or the limit is `max`
        return None
    match = re.search(rf"^{cached} (\d+)", _read(folder / "memory.stat"), re.MULTILINE)
    return int(most) - int(taken) + (int(match[1]) if match else 0)  # unused file pages are given back under pressure


def _address_space(statm: Path) -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = _read(statm).split()
    return limit - _THREADS - (int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0)


def _macos() -> int | None:
    """Free, inactive, speculative and purgeable pages; half of the memory where `vm_stat` does not answer."""
    pages = _pages(_run("/usr/bin/vm_stat"))
    if pages is not None:
        return pages
    size = _run("/usr/sbin/sysctl", "-n", "hw.memsize").strip()
    return int(size) // 2 if size.isdigit() else None


def _pages(vm_stat: str) -> int | None:
    size = re.search(r"page size of (\d+) bytes", vm_stat)
    counts = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", vm_stat, re.MULTILINE)
    return int(size[1]) * sum(map(int, counts)) if size and counts else None


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
