"""What MLX is called with for a kernel and when, what compilers and a GPU say, and the stand-in for a GPU itself."""

from __future__ import annotations

import shutil
import subprocess

import mlx.core as mx
import numpy as np
import pytest
from host_gpu import HostGPU
from kernel_cases import RECURRENCES, arrays, draw, install, reference, relative

from axon_core.cpu import reference_implementations
from axon_core.kernels import _device
from axon_core.kernels._device import Kernel, language
from axon_core.scan import selective_scan


@pytest.mark.parametrize("kind", RECURRENCES)
@pytest.mark.parametrize("length", [1, 20])
def test_what_mlx_is_called_with(gpu, kind, length):
    y, state = RECURRENCES[kind](**arrays(draw(kind, length=length)))
    (launch,) = gpu.launches
    assert launch.name.isidentifier()
    assert len(launch.input_names) == len(launch.inputs)
    assert {a.dtype for a in launch.inputs} == {mx.float32}
    assert launch.output_shapes == [y.shape, state.shape]
    assert launch.output_dtypes == [mx.float32, mx.float32]
    for name in (*launch.input_names, *launch.output_names, *(name for name, _ in launch.template)):
        assert name in launch.source
    threads = {"scan": y.shape[0] * y.shape[2]}.get(kind, 32 * state.size // state.shape[-1])
    assert launch.grid == (threads, 1, 1)
    assert launch.threadgroup[0] % 32 == 0
    assert launch.threadgroup[0] <= 1024
    assert launch.threadgroup[1:] == (1, 1)


def test_a_kernel_is_built_once_and_another_text_has_another_name(gpu):
    for length in (1, 5):
        selective_scan(**arrays(draw("scan", length=length)))
    assert _device._built.cache_info().currsize == 1
    bodies = ("float x = a[0]; if (at == 0) { y[0] = x; }", "float x = a[0]; if (at == 0) { y[0] = 2 * x; }")
    found = [Kernel("same", ("a",), ("y",), 32, body)(mx.ones(1), shapes=[(1,)], threads=32, Z=0) for body in bodies]
    assert [a.item() for (a,) in found] == [1, 2]
    first, second = (launch.name for launch in gpu.launches[-2:])
    assert first != second


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("if (at != 3) { y[at] = lane_sum(a[at]); }", "came apart"),
        ("y[at] = at < 16 ? lane_sum(lane_sum(1.0f)) : lane_sum(1.0f);", "came apart"),
        ("y[at + 1] = a[at];", "behind the end"),
        ("*(y + at - 1) = a[at];", "before the start"),
        ("int short_of = at * a_shape[0]; y[short_of] = 0;", "conversion"),
    ],
)
def test_the_stand_in_sees_faults(gpu, body, fault):
    with pytest.raises(AssertionError, match=fault):
        Kernel("faulty", ("a",), ("y",), 32, body)(mx.ones(32), shapes=[(32,)], threads=32, Z=0)


def test_the_stand_in_gives_what_a_simd_group_does(gpu):
    kernel = Kernel("sums", ("a",), ("y",), 64, "float sum = lane_sum(a[at % 80]); if (at < 80) { y[at] = sum; }")
    values = np.arange(96, dtype=np.float32)
    (y,) = kernel(mx.array(values), shapes=[(80,)], threads=96, Z=0)
    assert np.array_equal(y, np.repeat(np.append(values[:80], values[:16]).reshape(3, 32).sum(1), 32)[:80])


def test_the_pure_form_runs_where_a_kernel_does_not_fit(gpu):
    for kind, options in [
        ("scan", {"states": 65}),
        ("delta", {"key_dim": 40}),
        ("channels", {"key_dim": 40}),
        ("wkv7", {"key_dim": 16}),
    ]:
        values = draw(kind, length=3, **options)
        y, _ = RECURRENCES[kind](**arrays(values))
        assert relative(y, reference(kind, values)[0]) < 2e-6
    for kind in RECURRENCES:
        y, _ = RECURRENCES[kind](**arrays(draw(kind, length=0)))
        assert y.shape[1] == 0
    y, _ = selective_scan(**arrays(draw("scan", batch=0, length=1)))
    assert y.shape[0] == 0
    assert gpu.launches == []


def test_the_language_is_that_of_the_device(monkeypatch):
    install(monkeypatch, "metal", None)
    assert language() == "metal"
    with reference_implementations():
        assert language() is None
    install(monkeypatch, "cuda", None)
    assert language() == "cuda"
    monkeypatch.setattr(mx.cuda, "is_available", lambda: False)
    assert language() is None
    install(monkeypatch, "metal", None)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    assert language() is None


def test_nothing_is_built_on_the_cpu(monkeypatch):
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    for name in ("metal_kernel", "cuda_kernel"):
        monkeypatch.setattr(mx.fast, name, None)
    for kind, recurrence in RECURRENCES.items():
        mx.eval(recurrence(**arrays(draw(kind))))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no compiler for CUDA")
@pytest.mark.parametrize("kind", RECURRENCES)
def test_nvidias_compiler_takes_the_text_and_spills_no_register(kind, monkeypatch, folder, tmp_path):
    gpu = HostGPU("cuda", folder)
    install(monkeypatch, "cuda", gpu.kernel)
    RECURRENCES[kind](**arrays(draw(kind, length=2, **({"states": 64} if kind == "scan" else {"key_dim": 256}))))
    header = tmp_path / "mlx" / "backend" / "cuda" / "device" / "utils.cuh"
    header.parent.mkdir(parents=True)
    header.write_text(
        "#pragma once\n#include <cuda/std/array>\n#include <cuda/std/limits>\n"
        "namespace mlx::core::cu { using Shape = cuda::std::array<int32_t, 8>; }\n"
    )
    (tmp_path / "kernel.cu").write_text(gpu.text())
    command = ["nvcc", "-std=c++17", "-I", ".", "-cubin", "-Xptxas", "-v", "kernel.cu", "-o", "kernel.cubin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in done.stderr
    _device._built.cache_clear()


@pytest.mark.skipif(language() is None, reason="no GPU")
@pytest.mark.parametrize("kind", RECURRENCES)
@pytest.mark.parametrize("length", [1, 500])
def test_on_the_device_itself(kind, length):
    values = draw(kind, length=length)
    y, state = RECURRENCES[kind](**arrays(values))
    assert _device._built.cache_info().currsize > 0
    with reference_implementations():
        pure = RECURRENCES[kind](**arrays(values))
    for found, as_pure, exact in zip((y, state), pure, reference(kind, values), strict=True):
        assert relative(found, exact) < 1e-5
        assert relative(found, as_pure) < 1e-5
