"""axon-native for tests: the wheel that `make` builds, or one that is built like it."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "packaging"))
import build_native  # a script beside the package

__all__ = ["missing", "unpack"]


def missing() -> str | None:
    """What this machine lacks to build it."""
    if shutil.which("g++") is None:
        return "a C++ compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "the headers of Python"
    packages = ("scikit_build_core", "nanobind", "cmake", "ninja")
    return next((name for name in packages if not find_spec(name) and not shutil.which(name)), None)


def unpack(target: Path) -> Path:
    """Install it into a folder."""
    if lacking := missing():
        pytest.skip(f"axon-native cannot be built without {lacking}")
    with zipfile.ZipFile(build_native.wheel(again=True)) as found:
        found.extractall(target)
    return target
