"""GPUs that are not there, and `axon-native` as what components find."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import mlx.core as mx
import pytest
from host_gpu import COMPILER, HostGPU
from kernel_cases import install

from axon_core import few_tokens
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


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whole layers that run in one operation from here on."""
    found: list[str] = []
    for name in ("native_mlp", "native_attended", "native_routed", "native_selective"):
        call = getattr(few_tokens, name)

        def counting(*arguments: Any, name: str = name, call: Any = call, **options: Any) -> Any:
            y = call(*arguments, **options)
            if y is not None:
                found.append(name)
            return y

        monkeypatch.setattr(few_tokens, name, counting)
    return found
