"""Products of a few rows in pieces, against float64 NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from axon_core import few_rows
from axon_core.cpu import reference_implementations
from axon_core.few_rows import few_rows_product
from axon_core.linear import Embedding, Linear


@pytest.fixture(autouse=True)
def on_the_cpu_with_openblas(monkeypatch):
    monkeypatch.setattr(few_rows, "copies_for_few_rows", lambda: True)
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def drawn(*shape, key=0):
    return mx.random.normal(shape, key=mx.random.key(key))


def close(got, x, weight):
    wanted = np.array(x, np.float64) @ np.array(weight, np.float64).T
    assert got.shape == wanted.shape
    assert np.abs(np.array(got) - wanted).max() < 1e-6 * np.abs(wanted).max() * weight.shape[1] ** 0.5


@pytest.mark.parametrize(
    "outputs", [1536, pytest.param(1201, id="a prime, with a rest"), pytest.param(2402, id="twice a prime")]
)
@pytest.mark.parametrize("shape", [(40,), (1, 40), (1, 1, 40), (8, 1, 40), (2, 3, 40), (16, 40)])
def test_values(shape, outputs):
    x, weight = drawn(*shape), drawn(outputs, 40, key=1)
    close(few_rows_product(x, weight), x, weight)


@pytest.mark.parametrize("inputs", [1, 1536, 60_000])
def test_pieces_are_within_both_limits(inputs):
    for rows in (1, 2, 7, 16):
        for outputs in (1300, 1301, 8192, 50_257):
            pieces, rest = few_rows._pieces(rows, outputs, inputs)
            if pieces == 0:
                assert rows * inputs * few_rows._LEAST > few_rows._PRODUCTS
                continue
            each, left = divmod(outputs - rest, pieces)
            assert left == 0
            assert max(each, rest) * rows <= few_rows._RESULTS
            assert max(each, rest) * rows * inputs <= few_rows._PRODUCTS


def test_a_matrix_that_lies_by_columns():
    x, weight = drawn(2, 40), drawn(40, 1536, key=1).T
    close(few_rows_product(x, weight), x, weight)


def test_gradients():
    x, weight, by = drawn(2, 40), drawn(1201, 40, key=1), drawn(2, 1201, key=2)
    got = mx.grad(lambda x, weight: (few_rows_product(x, weight) * by).sum(), argnums=(0, 1))(x, weight)
    close(got[0], by, weight.T)
    close(got[1], by.T, x.T)


def test_what_is_left_to_others(monkeypatch):
    weight = drawn(1536, 40)
    assert few_rows_product(drawn(1, 40), weight) is not None
    assert few_rows_product(drawn(17, 40), weight) is None
    assert few_rows_product(drawn(0, 40), weight) is None
    assert few_rows_product(drawn(1, 40), weight[:1200]) is None
    assert few_rows_product(drawn(1, 40).astype(mx.bfloat16), weight) is None
    with reference_implementations():
        assert few_rows_product(drawn(1, 40), weight) is None
    monkeypatch.setattr(few_rows, "copies_for_few_rows", lambda: False)
    assert few_rows_product(drawn(1, 40), weight) is None


@pytest.mark.parametrize("bias", [False, True])
def test_layers_take_it(monkeypatch, bias):
    asked = []
    monkeypatch.setattr("axon_core.linear.is_native", lambda *_: False)
    monkeypatch.setattr(
        "axon_core.linear.few_rows_product", lambda x, weight: asked.append(x.shape) or few_rows_product(x, weight)
    )
    x, linear, table = drawn(1, 1, 40), Linear(40, 1536, bias=bias), Embedding(1536, 40)
    linear.eval()
    table.eval()
    close(linear(x) - (linear.bias if bias else 0), x, linear.weight)
    close(table.as_linear(x), x, table.weight)
    assert asked == [(1, 1, 40), (1, 1, 40)]
