"""Which BLAS multiplies MLX's float32 matrices on Linux CPUs.

The wheel ships the reference BLAS, whose products are some thirty times slower than those of OpenBLAS. Its functions
are looked up by name when `mlx` is first imported, among all that is loaded globally: `LD_PRELOAD=libopenblas.so.0`
puts another library in its place.
"""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["blas_library", "is_reference_blas"]

_FUNCTION = "cblas_sgemm"


@cache
def blas_library() -> Path | None:
    """The BLAS library file that MLX uses, or None where it uses none or that is unknown.

    It holds for the whole process from the first import of `mlx.core` on, which this function does.
    """
    if not sys.platform.startswith("linux"):
        return None
    import mlx.core  # noqa: F401  # binds the function

    spec = find_spec("mlx")
    folders = (spec.submodule_search_locations if spec else None) or []
    own = [Path(folder) / "lib" / "libmlx.so" for folder in folders]
    for library in (None, *own):
        try:
            found = _file_of(getattr(ctypes.CDLL(str(library) if library else None), _FUNCTION))
        except (OSError, AttributeError):
            continue
        if found is not None:
            return found
    return None


@cache
def is_reference_blas() -> bool:
    """Whether it is the wheel's slow reference BLAS, which runs x @ W.T at half the speed of x @ W."""
    library = blas_library()
    # Its name carries the hash of those that a wheel brings.
    return library is not None and re.match(r"libblas-[0-9a-f]+\.so", library.name) is not None


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
