"""GPUs that are not there, and `axon-native` as what components find."""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx
import pytest
from host_gpu import COMPILER, HostGPU
from kernel_cases import install

from axon_core.kernels import _device, _native


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


@pytest.fixture
def native(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """It, as what components find."""
    monkeypatch.setattr(_native, "installed", lambda: module)
    return module


@pytest.fixture
def pure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Components find no axon-native, whatever the suite runs with: what is tested is said of the form in MLX alone."""
    monkeypatch.setattr(_native, "installed", lambda: None)
