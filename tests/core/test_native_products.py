"""Products of `axon-native` against float64, and what `test_float32_products` asks of those of MLX operations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from test_float32_products import (  # noqa: F401  # they run here too, with kernels
    test_a_matrix_is_trained,
    test_a_product_is_right_to_one_rounding,
    test_a_table_is_one_too,
    test_gradients_are_those_of_the_reference,
    test_other_transforms_of_a_plain_matrix,
    test_quantised_experts,
    test_scales_are_trained_as_distillation_does,
)

from axon_core.kernels import _native, is_native, native_product

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

TYPES = (mx.float32, mx.bfloat16, mx.float16)
PACKINGS = [("affine", bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)] + [("mxfp4", 4, 32)]
#: What a sum in float32 may lose, relative to the sum of the sizes of its terms.
LOST = 3e-7
#: Rows of x: as many as there are ways to take them, on every processor.
ROWS = (1, 2, 3, 4, 5, 8, 9, 14, 40)


def drawn(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).standard_normal(shape), dtype=mx.float32)


def exact(x):
    return np.array(x.astype(mx.float32)).astype(np.float64)


def packed(shape, packing, dtype):
    """A quantised matrix, as arguments of a product, and what it means in float64."""
    mode, bits, group = packing
    weight, scales, *biases = mx.quantize(drawn(*shape), group, bits, mode)
    if mode == "affine":
        scales, biases = scales.astype(dtype), [biases[0].astype(dtype)]
    wide = [a.astype(mx.float32) if mode == "affine" else a for a in (scales, *biases)]
    meant = mx.dequantize(weight, *wide, group_size=group, bits=bits, mode=mode, dtype=mx.float32)
    how = {"group_size": group, "bits": bits, "mode": mode}
    return {"weight": weight, "scales": scales, "biases": biases[0] if biases else None, **how}, exact(meant)


def is_right(y, x, weight):
    size = np.abs(x) @ np.abs(np.swapaxes(weight, -1, -2))
    return (np.abs(exact(y) - x @ np.swapaxes(weight, -1, -2)) <= LOST * size).all()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_products_with_quantised_matrices(packing, dtype):
    for columns, groups in ((1, 1), (5, 3), (37, 13)):
        stored, weight = packed((columns, groups * packing[2]), packing, dtype)
        for rows in ROWS:
            x = drawn(rows, weight.shape[1], seed=rows)
            assert is_right(native_product(x, **stored), exact(x), weight), (columns, groups, rows)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_products_with_plain_matrices(dtype):
    for columns, width in ((1, 1), (3, 15), (37, 16), (18, 17), (5, 100), (33, 1601)):
        weight = drawn(columns, width).astype(dtype)
        for rows in ROWS:
            x = drawn(rows, width, seed=rows).astype(dtype)
            assert is_right(native_product(x, weight), exact(x), exact(weight)), (columns, width, rows)


@pytest.mark.parametrize("packing", [None, PACKINGS[0], PACKINGS[7], PACKINGS[-1]], ids=str)
def test_inputs_with_gaps_batches_and_nothing(packing):
    if packing is None:
        matrix = drawn(128, 37).T
        stored, weight = {"weight": matrix}, exact(matrix)
    else:
        stored, weight = packed((37, 128), packing, mx.float16)
        gaps = mx.repeat(stored["weight"], 2, axis=1)[:, ::2]
        stored["weight"] = gaps
    for x in (
        drawn(128, 6).T,
        drawn(2, 3, 4, 256)[..., ::2],
        drawn(3, 2, 128).swapaxes(0, 1)[::-1],
        drawn(128),
        mx.broadcast_to(drawn(128), (3, 128)),
        drawn(0, 128),
        drawn(2, 0, 128),
    ):
        y = native_product(x, **stored)
        assert y.shape == (*x.shape[:-1], 37)
        assert is_right(y, exact(x), weight)
    none = {name: a[:0] if isinstance(a, mx.array) else a for name, a in stored.items()}
    assert native_product(drawn(2, 128), **none).shape == (2, 0)
    if packing is None:
        assert not exact(native_product(mx.zeros((2, 0)), mx.zeros((3, 0)))).any()


@pytest.mark.parametrize("packing", [None, *PACKINGS[5:8], PACKINGS[-1]], ids=str)
@pytest.mark.parametrize(
    ("leading", "x_leading"), [((4, 2), (4, 1)), ((90,), (90,)), ((1, 3, 2), (3, 2)), ((0, 2), (0, 1))]
)
def test_rows_go_to_their_experts(packing, leading, x_leading):
    if packing is None:
        matrices = drawn(5, 21, 96).astype(mx.bfloat16)
        stored, weight = {"weight": matrices}, exact(matrices)
    else:
        stored, weight = packed((5, 21, 2 * packing[2]), packing, mx.bfloat16)
    x = drawn(*x_leading, 1, weight.shape[-1])
    indices = mx.array(np.random.default_rng(1).integers(0, 5, leading))
    y = native_product(x, **stored, indices=indices)
    assert y.shape == (*np.broadcast_shapes(leading, x_leading), 1, 21)
    assert is_right(y, exact(x), weight[np.array(indices)])


@pytest.mark.parametrize("kind", [mx.bfloat16, mx.float16], ids=str)
def test_every_number_of_16_bits_is_read(kind):
    patterns = mx.arange(1 << 16).astype(mx.uint16).view(kind)
    numbers = np.array(patterns.astype(mx.float32))
    found = np.array(native_product(mx.ones((1, 1)), patterns.reshape(-1, 1)))[0]
    assert np.array_equal(found, numbers, equal_nan=True)


def test_every_scale_of_mxfp4_is_read():
    scales = mx.arange(255).astype(mx.uint8).reshape(-1, 1)  # the last one is no number
    weight = mx.full((255, 4), 0x22222222, dtype=mx.uint32)
    x = mx.zeros((1, 32))
    x[0, 3] = 1
    found = native_product(x, weight, scales, mode="mxfp4", group_size=32, bits=4)
    assert np.array_equal(exact(found)[0], 2.0 ** (np.arange(255) - 127.0))


def test_what_is_not_a_number_stays_so():
    stored, _ = packed((40, 128), PACKINGS[7], mx.float32)
    x = drawn(3, 128)
    x[1, 100] = mx.nan
    y = native_product(x, **stored)
    assert np.array_equal(np.isnan(exact(y)).all(axis=1), [False, True, False])
    assert np.isfinite(exact(y)[[0, 2]]).all()


def test_many_threads_change_nothing():
    stored, weight = packed((3000, 256), PACKINGS[7], mx.float16)
    for rows in (1, 30):
        x = drawn(rows, 256)
        first = native_product(x, **stored)
        assert is_right(first, exact(x), weight)
        for _ in range(5):
            assert mx.array_equal(native_product(x, **stored), first)


def test_gradients_and_tangents_of_experts():
    stored, weight = packed((3, 8, 64), PACKINGS[7], mx.float32)
    x, indices, factors = drawn(4, 1, 64), mx.array([2, 0, 2, 1]), drawn(4, 1, 8, seed=1)

    def loss(x):
        return (native_product(x, **stored, indices=indices) * factors).sum()

    own = weight[np.array(indices)]
    assert exact(mx.grad(loss)(x)) == pytest.approx(exact(factors) @ own, abs=1e-5)
    _, (tangent,) = mx.jvp(lambda x: native_product(x, **stored, indices=indices), [x], [x])
    assert exact(tangent) == pytest.approx(exact(x) @ np.swapaxes(own, -1, -2), abs=1e-4)
    both = mx.vmap(lambda x, i: native_product(x, **stored, indices=i))(
        mx.stack([x, x]), mx.stack([indices, 0 * indices])
    )
    assert exact(both[0]) == pytest.approx(exact(x) @ np.swapaxes(own, -1, -2), abs=1e-4)
    assert exact(both[1]) == pytest.approx(exact(x) @ weight[0].T, abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 7},
        {"group_size": 16},
        {"mode": "nvfp4"},
        {"scales": None},
        {"biases": None},
        {"scales": mx.ones((8, 3))},
        {"weight": mx.zeros((8, 9), mx.uint32)},
        {"weight": mx.zeros((8, 8), mx.int32)},
        {"x": mx.zeros((2, 32))},
        {"indices": mx.array([0])},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(module, change):
    stored, _ = packed((8, 64), PACKINGS[7], mx.float32)
    with pytest.raises(ValueError, match="should"):
        module.product(**({"x": drawn(2, 64), **stored} | change))


def test_other_packings_are_left_to_mlx():
    assert is_native("affine", 4, 64)
    assert not any(
        is_native(*how) for how in [("nvfp4", 4, 16), ("mxfp8", 8, 32), ("affine", 7, 64), ("affine", 4, 16)]
    )


@pytest.mark.parametrize("kernels", ["AVX512", "AVX2", "PORTABLE"])
def test_kernels_of_other_processors(module, kernels):
    """The same in a process that chooses among fewer."""
    order = ("AVX512VBMI", "AVX512", "AVX2", "PORTABLE")
    if order.index(module.product_kernels()) >= order.index(kernels):
        pytest.skip("this processor has no others")
    folders = [Path(__file__).parent, Path(module.__file__).parents[1], os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"AXON_KERNELS": kernels, "AXON_NATIVE": "1", "PYTHONPATH": ":".join(map(str, folders))}
    command = [sys.executable, "-c", "import test_native_products; test_native_products.run_all()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (f"{kernels}\n", 0), done.stderr


def run_all():
    """What depends on the kernels, with those that this process has."""
    sys.stdout.write(f"{_native.native().product_kernels()}\n")
    for dtype in TYPES:
        test_products_with_plain_matrices(dtype)
        for packing in PACKINGS:
            test_products_with_quantised_matrices(packing, dtype)
    for dtype in TYPES[1:]:
        test_every_number_of_16_bits_is_read(dtype)
    test_every_scale_of_mxfp4_is_read()
