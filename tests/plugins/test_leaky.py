"""The layer of the third-party package against its formulas in float64, and against itself in pieces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache

from axon_compose.registry import Dims, Registry, check_options, load_factory

DIMS = Dims({"hidden_size": 10, "vocab_size": 32})
OPTIONS = {"channels": 6}


@pytest.fixture(scope="module")
def plugin() -> Any:
    folder = str(Path(__file__).parent / "axon-leaky")
    sys.path.insert(0, folder)
    try:
        import axon_leaky

        yield axon_leaky
    finally:
        sys.path.remove(folder)
        for name in [n for n in sys.modules if n.split(".")[0] == "axon_leaky"]:
            del sys.modules[name]


@pytest.fixture
def registry(plugin: Any) -> Registry:
    return Registry.with_plugins({"leaky": plugin})


@pytest.fixture
def layer(registry: Registry) -> Any:
    mx.random.seed(3)
    spec = registry.component("leaky/leaky_integrator")
    made = load_factory(spec)(check_options(spec, OPTIONS)[0], DIMS)
    made.mix = mx.random.uniform(shape=made.mix.shape)
    return made


def inputs(batch: int, length: int) -> mx.array:
    return mx.random.normal((batch, length, 10), key=mx.random.key(batch * 100 + length))


def reference(layer: Any, x: np.ndarray) -> np.ndarray:
    """One sequence (L, D), token by token in float64."""
    weight = {name: np.array(value, dtype=np.float64) for name, value in tree_flatten(layer.parameters())}
    h, before, out = np.zeros(6), np.zeros(10), []
    for token in x.astype(np.float64):
        u, g, z = np.split(weight["in_proj.weight"] @ (weight["mix"] * token + (1 - weight["mix"]) * before), 3)
        keep = 1 / (1 + np.exp(-(g + weight["leak"])))
        h = keep * h + (1 - keep) * u
        out.append(weight["out_proj.weight"] @ (h * z / (1 + np.exp(-z))))
        before = token
    return np.stack(out)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_layer_is_its_formula(layer: Any, length: int) -> None:
    x = inputs(2, length)
    y, cache = layer(x)
    assert cache is None
    for row in range(2):
        np.testing.assert_allclose(np.array(y[row]), reference(layer, np.array(x[row])), atol=2e-6)


@pytest.mark.parametrize("cuts", [(5, 8), (1, 2, 3), (12,)])
def test_layer_in_chunks(layer: Any, cuts: tuple[int, ...]) -> None:
    x, cache = inputs(2, 13), ArraysCache(2)
    pieces = [layer(part, None, cache)[0] for part in mx.split(x, list(cuts), axis=1)]
    np.testing.assert_allclose(np.array(mx.concatenate(pieces, axis=1)), np.array(layer(x)[0]), atol=2e-6)


def test_layer_with_padding_in_front(layer: Any) -> None:
    x, padding = inputs(2, 9), 4
    cache = ArraysCache(2, left_padding=[0, padding])
    got = [layer(part, cache.make_mask(part.shape[1]), cache)[0] for part in mx.split(x, [3, 6], axis=1)]
    alone = layer(x[1:, padding:])[0]
    np.testing.assert_allclose(np.array(mx.concatenate(got, axis=1)[1, padding:]), np.array(alone[0]), atol=2e-6)


def test_layer_with_padding_behind(layer: Any) -> None:
    x, more, length = inputs(2, 9), inputs(2, 2), 4
    cache = ArraysCache(2)
    cache.prepare(lengths=[9, length])
    for part in mx.split(x, [3, 6], axis=1):  # in the last chunk the short row is over
        layer(part, cache.make_mask(part.shape[1]), cache)
    cache.finalize()
    got = layer(more, None, cache)[0]
    alone = layer(mx.concatenate([x[1:, :length], more[1:]], axis=1))[0]
    np.testing.assert_allclose(np.array(got[1]), np.array(alone[0, length:]), atol=2e-6)


def test_state_is_as_declared(layer: Any, registry: Registry) -> None:
    spec = registry.component("leaky/leaky_integrator")
    options, _ = check_options(spec, OPTIONS)
    layer.set_dtype(mx.bfloat16)
    cache = ArraysCache(2)
    y, _ = layer(inputs(3, 4).astype(mx.bfloat16), None, cache)
    declared: Any = spec.cache(options, DIMS)
    assert y.dtype == mx.bfloat16
    assert [c.shape[1:] for c in cache.cache] == [a.shape for a in declared.arrays]
    assert [c.dtype for c in cache.cache] == [mx.float32, mx.bfloat16]
    assert cache.nbytes == 3 * declared.nbytes(4)


@pytest.mark.parametrize("name", ["leaky_integrator", "squared_relu_mlp"])
def test_parameters_are_as_declared(registry: Registry, name: str) -> None:
    spec = registry.component(f"leaky/{name}")
    for example in spec.examples:
        options, faults = check_options(spec, example)
        assert not faults
        built = load_factory(spec)(options, DIMS)
        shapes = {key: value.shape for key, value in tree_flatten(built.parameters())}
        assert shapes == dict(spec.params(options, DIMS))


def test_mlp_is_its_formula(registry: Registry) -> None:
    spec = registry.component("leaky/squared_relu_mlp")
    built = load_factory(spec)(check_options(spec, {"intermediate_size": 5, "bias": True})[0], DIMS)
    x = inputs(2, 3)
    up, down = built.up_proj, built.down_proj
    wide = np.maximum(np.array(x, np.float64) @ np.array(up.weight, np.float64).T + np.array(up.bias), 0) ** 2
    want = wide @ np.array(down.weight, np.float64).T + np.array(down.bias)
    np.testing.assert_allclose(np.array(built(x)), want, atol=1e-6)


def test_architecture_is_listed(registry: Registry) -> None:
    path = registry.architecture_path("leaky/leaky-hybrid")
    assert path.name == "leaky-hybrid.yaml"
    assert registry.architectures()["leaky/leaky-hybrid"].path == str(path)
