"""Which library multiplies matrices on the CPU."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from axon_compose.machine import blas

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no telling")


@pytest.fixture(autouse=True)
def _ask_anew() -> None:
    blas.is_reference_blas.cache_clear()


@LINUX
def test_library_of_this_process() -> None:
    library = blas.blas_library()
    assert library is not None
    assert library.is_file()


@LINUX
def test_the_file_of_a_function() -> None:
    found = blas._file_of(ctypes.CDLL(None).strlen)
    assert found is not None
    assert found.name.startswith(("libc", "ld-musl"))


@pytest.mark.parametrize(
    ("path", "slow"),
    [
        ("/venv/mlx_cpu.libs/libblas-bd8a282c.so.3.10.0", True),
        ("/usr/lib/x86_64-linux-gnu/libopenblas.so.0", False),
        ("/usr/lib/x86_64-linux-gnu/libblas.so.3", False),
        ("/opt/intel/libmkl_rt.so.2", False),
        (None, False),
    ],
)
def test_only_the_wheels_own_is_slow(path: str | None, slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "blas_library", lambda: Path(path) if path else None)
    assert blas.is_reference_blas() is slow
    blas.is_reference_blas.cache_clear()


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert blas.blas_library.__wrapped__() is None
