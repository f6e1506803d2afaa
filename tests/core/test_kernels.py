"""Kernels for GPUs: their texts compiled as C++ against the pure forms and float64, and what MLX is called with."""

from __future__ import annotations

import shutil
import subprocess

import mlx.core as mx
import numpy as np
import pytest
import test_gated_delta
import test_scan
import test_wkv7
from host_gpu import COMPILER, HostGPU

from axon_core.cpu import plain_forms
from axon_core.gated_delta import gated_delta_rule
from axon_core.kernels import _device
from axon_core.kernels._derivatives import in_place_of
from axon_core.kernels._device import Kernel, language
from axon_core.scan import selective_scan
from axon_core.wkv7 import wkv7

RECURRENCES = {"scan": selective_scan, "delta": gated_delta_rule, "wkv7": wkv7}
SEQUENCES = {
    "scan": ("x", "dt", "B", "C"),
    "delta": test_gated_delta.SEQUENCES,
    "wkv7": test_wkv7.SEQUENCES,
}


def draw(kind, **options):
    """Arguments for which there is a kernel."""
    if kind == "scan":
        return test_scan.draw(**{"states": 4} | options)
    return {"delta": test_gated_delta, "wkv7": test_wkv7}[kind].draw(**{"key_dim": 32, "value_dim": 3} | options)


def reference(kind, values):
    """Outputs and last state in float64."""
    if kind == "wkv7":
        return test_wkv7.reference(values)
    y, states = test_scan.reference(**values) if kind == "scan" else test_gated_delta.reference(values)
    return y, states[-1]


def arrays(values):
    return {name: mx.array(value) for name, value in values.items()}


def relative(found, expected):
    expected = np.asarray(expected, np.float64)
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


def install(monkeypatch, spoken, kernel):
    """Make a GPU the default device, as far as the components see."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx.metal, "is_available", lambda: spoken == "metal")
    monkeypatch.setattr(mx.cuda, "is_available", lambda: spoken == "cuda")
    monkeypatch.setattr(mx.fast, f"{spoken}_kernel", kernel)
    _device._built.cache_clear()


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


def check(gpu, kind, values, limit=2e-6):
    y, state = RECURRENCES[kind](**arrays(values))
    assert len(gpu.launches) == 1
    with plain_forms():
        pure, last = RECURRENCES[kind](**arrays(values))
    assert len(gpu.launches) == 1
    for found, as_pure, exact in zip((y, state), (pure, last), reference(kind, values), strict=True):
        assert relative(found, exact) < limit
        assert relative(found, as_pure) < limit


@pytest.mark.parametrize("states", [1, 4, 16])
@pytest.mark.parametrize(("batch", "length", "channels"), [(1, 1, 1), (3, 1, 40), (2, 40, 5), (1, 300, 33), (5, 7, 64)])
def test_the_selective_scan(gpu, batch, length, channels, states):
    check(gpu, "scan", test_scan.draw(batch, length, channels, states))


@pytest.mark.parametrize(("low", "high"), [(1e-4, 100), (50, 100), (1e-4, 2e-4)])
def test_the_selective_scan_with_any_step(gpu, low, high):
    check(gpu, "scan", draw("scan", length=200, channels=20, low=low, high=high))


@pytest.mark.parametrize("key_dim", [32, 96])
@pytest.mark.parametrize(
    ("batch", "length", "key_heads", "heads", "value_dim"),
    [(1, 1, 1, 1, 1), (2, 1, 2, 4, 32), (3, 17, 1, 3, 6), (1, 60, 2, 2, 3)],
)
def test_the_gated_delta_rule(gpu, batch, length, key_heads, heads, key_dim, value_dim):
    check(gpu, "delta", test_gated_delta.draw(batch, length, key_heads, heads, key_dim, value_dim))


@pytest.mark.parametrize(("low", "high"), [(-10, -8), (1, 9)])
def test_the_gated_delta_rule_with_any_decay(gpu, low, high):
    check(gpu, "delta", draw("delta", length=30, low=low, high=high))


@pytest.mark.parametrize("key_dim", [32, 64])
@pytest.mark.parametrize(
    ("batch", "length", "heads", "value_dim"), [(1, 1, 1, 1), (2, 1, 3, 32), (3, 17, 2, 7), (1, 60, 1, 5)]
)
def test_the_recurrence_of_rwkv7(gpu, batch, length, heads, key_dim, value_dim):
    check(gpu, "wkv7", test_wkv7.draw(batch, length, heads, key_dim, value_dim))


@pytest.mark.parametrize("kind", RECURRENCES)
def test_random_sizes(gpu, kind):
    rng = np.random.default_rng(7)
    for seed in range(5):
        sizes = {"batch": int(rng.integers(2, 5)), "length": int(rng.integers(1, 12)), "seed": seed}
        if kind == "scan":
            sizes["channels"] = int(rng.integers(1, 100))
        else:
            sizes["value_dim"] = int(rng.integers(1, 7))
        check(gpu, kind, draw(kind, **sizes))
        gpu.launches.clear()


@pytest.mark.parametrize("kind", RECURRENCES)
def test_a_sequence_in_pieces_equals_the_whole(gpu, kind):
    values = draw(kind, length=24)
    y, state = RECURRENCES[kind](**arrays(values))
    outputs, carried = [], mx.array(values["state"])
    for start, end in ((0, 1), (1, 14), (14, 15), (15, 24)):
        part = values | {name: values[name][:, start:end] for name in SEQUENCES[kind]}
        piece, carried = RECURRENCES[kind](**arrays(part) | {"state": carried})
        outputs.append(piece)
    assert np.array_equal(mx.concatenate(outputs, axis=1), y)
    assert np.array_equal(carried, state)


@pytest.mark.parametrize("kind", RECURRENCES)
def test_padding_leaves_the_state_alone_whatever_stands_there(gpu, kind):
    values = draw(kind, length=20)
    kept = np.random.default_rng(1).random((2, 20)) < 0.6
    for name in SEQUENCES[kind]:
        values[name][~kept] = np.nan
    y, state = RECURRENCES[kind](**arrays(values), mask=mx.array(kept))
    for row in range(2):
        single = {name: value[row : row + 1] for name, value in values.items() if name in (*SEQUENCES[kind], "state")}
        single = values | single | {name: single[name][:, kept[row]] for name in SEQUENCES[kind]}
        expected, last = reference(kind, single)
        assert relative(np.array(y)[row : row + 1, kept[row]], expected) < 2e-6
        assert relative(state[row : row + 1], last) < 2e-6


@pytest.mark.parametrize("kind", RECURRENCES)
def test_low_precision_in_is_low_precision_out_and_float32_inside(gpu, kind):
    values = {name: mx.array(value).astype(mx.bfloat16) for name, value in draw(kind).items()}
    y, state = RECURRENCES[kind](**values)
    assert (y.dtype, state.dtype) == (mx.bfloat16, mx.float32)
    exact = {name: np.array(value.astype(mx.float32)) for name, value in values.items()}
    assert relative(state, reference(kind, exact)[1]) < 2e-6


@pytest.mark.parametrize("kind", RECURRENCES)
def test_arrays_that_are_not_contiguous(gpu, kind):
    """MLX copies them, as the stand-in does; the shapes must be those of the view."""
    values = draw(kind)
    views = {name: mx.array(np.ascontiguousarray(value.T)).T for name, value in values.items()}
    y, state = RECURRENCES[kind](**views)
    for found, exact in zip((y, state), reference(kind, values), strict=True):
        assert relative(found, exact) < 2e-6


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


@pytest.mark.parametrize("kind", RECURRENCES)
def test_the_gradient_is_that_of_the_pure_form(gpu, kind):
    values = arrays(draw(kind, length=40))
    weights = [mx.array(np.random.default_rng(i).normal(size=a.shape)) for i, a in enumerate(reference(kind, values))]

    def loss(values):
        return sum((w * found).sum() for w, found in zip(weights, RECURRENCES[kind](**values), strict=True))

    found = mx.grad(loss)(values)
    assert len(gpu.launches) == 1
    with plain_forms():
        expected = mx.grad(loss)(values)
    for name, gradient in expected.items():
        assert np.array_equal(found[name], gradient), name


@pytest.mark.parametrize("kind", RECURRENCES)
def test_transformations_take_the_pure_form(lazy, kind):
    values = arrays(draw(kind, length=4))
    names = list(values)

    def function(*inputs):
        return RECURRENCES[kind](**dict(zip(names, inputs, strict=True)))

    def gradient(*inputs):
        return mx.grad(lambda *inputs: sum(a.sum() for a in function(*inputs)), argnums=range(len(names)))(*inputs)

    inputs = list(values.values())
    several = [a if name in ("A", "D") else mx.stack([a, a, a]) for name, a in values.items()]
    axes = tuple(None if name in ("A", "D") else 0 for name in names)

    def transformed():
        return [
            *mx.vmap(function, in_axes=axes)(*several),
            *mx.jvp(function, inputs, [mx.ones_like(a) for a in inputs])[1],
            *mx.compile(gradient)(*inputs),
        ]

    found = transformed()
    with plain_forms():
        expected = transformed()
    for a, b in zip(found, expected, strict=True):
        assert mx.allclose(a, b, rtol=1e-5, atol=1e-5 * float(mx.abs(b).max()))
        assert mx.abs(a).max() > 0


@pytest.mark.parametrize("kind", RECURRENCES)
def test_training_takes_the_memory_of_the_pure_form(lazy, kind):
    values = arrays(draw(kind, batch=1, length=2048))

    def peak():
        mx.eval(values)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.grad(lambda values: sum(a.sum() for a in RECURRENCES[kind](**values)))(values))
        return mx.get_peak_memory() - before

    found = peak()
    with plain_forms():
        assert found < 1.1 * peak()


def test_the_pure_form_runs_where_a_kernel_does_not_fit(gpu):
    for kind, options in [("scan", {"states": 65}), ("delta", {"key_dim": 40}), ("wkv7", {"key_dim": 16})]:
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
    with plain_forms():
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


def test_a_kernel_in_place_of_a_pure_form_gives_its_own_values():
    run = in_place_of(lambda a, b: (a * b, a + b), lambda a, b: (a * b + 1, a + b))
    assert [a.item() for a in run(mx.array(2.0), mx.array(3.0))] == [7, 5]


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
    with plain_forms():
        pure = RECURRENCES[kind](**arrays(values))
    for found, as_pure, exact in zip((y, state), pure, reference(kind, values), strict=True):
        assert relative(found, exact) < 1e-5
        assert relative(found, as_pure) < 1e-5
