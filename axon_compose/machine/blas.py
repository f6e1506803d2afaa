"""Which BLAS multiplies MLX's float32 matrices on Linux CPUs, and OpenBLAS in the place of a slow one.

MLX's wheel for Linux brings the reference BLAS, whose products are some eighty times slower than those of OpenBLAS.
`libmlx.so` calls three functions of it (`cblas_sgemm`, `cblas_dgemm`, `cblas_cgemm`) through slots in its own memory;
`use_fast_blas` lets them point at the same functions of OpenBLAS, from the package `scipy-openblas32`. It does not
matter what was imported first, and products that were computed before stay as they are.

`AXON_BLAS=wheel` leaves everything as it is. A BLAS that is fast already (`LD_PRELOAD`, MLX of a distribution) is never
touched.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["MISSING", "SWITCHED_OFF", "Blas", "copies_for_few_rows", "is_reference_blas", "use_fast_blas"]

_FUNCTION: Final = "cblas_sgemm"
_VARIABLE: Final = "AXON_BLAS"
#: The names of scipy-openblas32 begin with this, so that they are nobody else's.
_PREFIX: Final = "scipy_"
#: Threads up to which a product of a few rows is faster in pieces that OpenBLAS does not copy.
_FEW_THREADS: Final = 3
#: Reasons why it is the reference BLAS.
MISSING: Final = "`scipy-openblas32` is not installed"
SWITCHED_OFF: Final = f"{_VARIABLE}=wheel"


class Blas(NamedTuple):
    """The BLAS of this process.

    Attributes:
        library: Its file, None where MLX uses none or that is unknown.
        threads: How many threads it multiplies with, None if unknown.
        reason: Why it is that one.
    """

    library: Path | None
    threads: int | None
    reason: str


@cache
def use_fast_blas() -> Blas:
    """Let MLX multiply with OpenBLAS, where it would with the reference BLAS; imports `mlx.core`.

    A product of every kind is compared with exact integers before it is trusted. Whatever fails, MLX goes on as before.
    """
    library = _bound()
    if library is None or not _is_reference(library):
        return Blas(library, None, "as it was found")
    if os.environ.get(_VARIABLE) == "wheel":
        return Blas(library, None, SWITCHED_OFF)
    package = _openblas()
    if package is None:
        return Blas(library, None, MISSING)
    try:
        return _replaced(package)
    except (OSError, ValueError, AttributeError) as error:
        return Blas(library, None, f"OpenBLAS cannot take its place: {error}")


def is_reference_blas() -> bool:
    """Whether it is the wheel's slow reference BLAS, which runs x @ W.T at half the speed of x @ W."""
    library = use_fast_blas().library
    return library is not None and _is_reference(library)


@cache
def copies_for_few_rows() -> bool:
    """Whether it is OpenBLAS on x86, with so few threads that its copies of a matrix cost more than a few rows."""
    library, threads, _ = use_fast_blas()
    if library is None or "openblas" not in library.name or platform.machine() not in ("x86_64", "AMD64"):
        return False
    asked = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return (threads or (int(asked) if asked.isdecimal() else os.cpu_count() or 1)) <= _FEW_THREADS


@cache  # asked for in every product
def _is_reference(library: Path) -> bool:
    # Its name carries the hash of those that a wheel brings.
    return re.match(r"libblas-[0-9a-f]+\.so", library.name) is not None


# -- OpenBLAS ---------------------------------------------------------------------------------------------------------


def _openblas() -> Path | None:
    """The library of the package `scipy-openblas32`."""
    return next(iter(_libraries("scipy_openblas32", "libscipy_openblas.so")), None)


def _replaced(package: Path) -> Blas:
    """Point MLX's slots at OpenBLAS, and back again if one cannot be changed or a product is wrong."""
    from axon_compose.machine._elf import slots, written

    fast = ctypes.CDLL(str(package))
    threads = _limit_threads(fast)
    called = [slot for library in _mlx_libraries() for slot in slots(library, "cblas_")]
    found = [(slot, getattr(fast, _PREFIX + slot.name)) for slot in called if hasattr(fast, _PREFIX + slot.name)]
    if not found:
        raise ValueError("libmlx.so calls no BLAS by name")
    before = []
    try:
        for slot, function in found:
            old = slot.function
            written(slot, ctypes.cast(function, ctypes.c_void_p).value or 0)
            before.append((slot, old))
        if not _is_exact():
            raise ValueError("its products are wrong")
    except BaseException:
        for slot, old in before:
            written(slot, old)
        raise
    return Blas(package, threads, "in the place of the wheel's reference BLAS")


def _limit_threads(fast: ctypes.CDLL) -> int:
    """No more threads than the container may run at once, which OpenBLAS does not look at."""
    get, set_ = (getattr(fast, f"{_PREFIX}openblas_{verb}_num_threads") for verb in ("get", "set"))
    most = _quota()
    asked = any(name in os.environ for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"))
    if most is not None and most < get() and not asked:
        set_(most)
    return int(get())


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Processors that the control group grants, None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        return max(1, ceil(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # no control groups, or "max"
        return None


def _is_exact() -> bool:
    """Whether products of small integers are exact: of every type, in every orientation and as a vector."""
    import mlx.core as mx

    a = [[(3 * i + 5 * k) % 7 - 3 for k in range(5)] for i in range(6)]
    b = [[(2 * k + j) % 5 - 2 for j in range(4)] for k in range(5)]
    exact = [[sum(a[i][k] * b[k][j] for k in range(5)) for j in range(4)] for i in range(6)]
    with mx.stream(mx.cpu):
        for dtype in (mx.float32, mx.complex64, mx.float64):
            x, y = mx.array(a).astype(dtype), mx.array(b).astype(dtype)
            turned = [mx.contiguous(matrix.T).T for matrix in (x, y)]
            for left in (x, turned[0]):
                for right in (y, turned[1]):
                    product = (left @ right).astype(mx.float32)
                    if product.tolist() != exact or (left[:1] @ right).astype(mx.float32).tolist() != exact[:1]:
                        return False
    return True


# -- What is bound -----------------------------------------------------------------------------------------------------


def _bound() -> Path | None:
    """The library of the function that MLX's products call when nothing is replaced."""
    if not sys.platform.startswith("linux"):
        return None
    import mlx.core  # noqa: F401  # binds the function

    for library in (None, *_mlx_libraries()):
        try:
            found = _file_of(getattr(ctypes.CDLL(str(library) if library else None), _FUNCTION))
        except (OSError, AttributeError):
            continue
        if found is not None:
            return found
    return None


def _mlx_libraries() -> list[Path]:
    return _libraries("mlx", "libmlx.so")


def _libraries(package: str, name: str) -> list[Path]:
    """Files of this name in the folders `lib` of an installed package."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    return [path for folder in folders if (path := Path(folder, "lib", name)).exists()]


class _Symbol(ctypes.Structure):
    """What `dladdr` reports for an address."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _file_of(function: ctypes._NamedFuncPointer) -> Path | None:
    """The file that a function was loaded from."""
    symbol = _Symbol()
    address = ctypes.cast(function, ctypes.c_void_p)
    if not ctypes.CDLL(None).dladdr(address, ctypes.byref(symbol)) or not symbol.file:
        return None
    return Path(symbol.file.decode())
