"""GPUs that are not there, and `axon-native`, which is built for the tests."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import pytest
from host_gpu import COMPILER, HostGPU
from kernel_cases import install

from axon_core.kernels import _device, _native

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["metal", "cuda"])
def gpu(request, monkeypatch, folder):
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    device = HostGPU(request.param, folder)
    install(monkeypatch, request.param, device.kernel)
    yield device
    _device._built.cache_clear()


@pytest.fixture
def lazy(monkeypatch):
    """A GPU whose kernels give zeros, but do so where nothing can be evaluated."""

    def kernel(**described):
        def launch(inputs, output_shapes, output_dtypes, **called):
            return [mx.zeros(*pair) for pair in zip(output_shapes, output_dtypes, strict=True)]

        return launch

    install(monkeypatch, "metal", kernel)
    yield
    _device._built.cache_clear()


def missing() -> str | None:
    """What this machine lacks to build it."""
    if COMPILER is None:
        return "a C++ compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "the headers of Python"
    packages = ("scikit_build_core", "nanobind", "cmake", "ninja")
    return next((name for name in packages if not find_spec(name) and not shutil.which(name)), None)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which it is installed."""
    if lacking := missing():
        pytest.skip(f"axon-native cannot be built without {lacking}")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("native")
    shutil.copytree(ROOT / "plugins" / "axon-native", source, dirs_exist_ok=True)
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def module(built: Path) -> ModuleType:
    """It, imported."""
    sys.path.insert(0, str(built))
    try:
        return importlib.import_module("axon_native")
    except ImportError as error:
        if "another nanobind" in str(error):  # what MLX was built with is not written anywhere
            pytest.skip(str(error))
        raise
    finally:
        sys.path.remove(str(built))


@pytest.fixture
def native(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """It, as what components find."""
    monkeypatch.setattr(_native, "_installed", lambda: module)
    return module
