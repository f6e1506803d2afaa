"""Linear layers in every way that they are stored, for tests of what kernels make of them, and the same in float64."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from axon_core.kernels import Stored, StoredNorm

WIDTH, INNER = 64, 96

#: How a matrix is stored, by what it is called here: a type, or mode, bits and group size.
STORED: dict[str, Any] = {
    "float32": mx.float32,
    "bfloat16": mx.bfloat16,
    "4 bits": ("affine", 4, 32),
    "8 bits": ("affine", 8, 32),
    "mxfp4": ("mxfp4", 4, 32),
}


def drawn(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape), dtype=mx.float32)


def layer(rows: int, width: int, name: str, shift: bool, seed: int) -> Stored:
    how, weight = STORED[name], drawn(rows, width, seed=seed) / 8
    added = drawn(rows, seed=seed + 1) if shift else None
    if isinstance(how, mx.Dtype):
        return weight.astype(how), None, None, added, 0, 0, ""
    mode, bits, group = how
    if mode == "mxfp4":
        packed, scales = mx.quantize(weight, group, bits, mode)
        return packed, scales, None, added, group, bits, mode
    return *mx.quantize(weight, group, bits, mode), added, group, bits, mode


def exact(made: Stored) -> tuple[np.ndarray, Any]:
    """The matrix and what is added, in float64."""
    weight, scales, biases, added, group, bits, mode = made
    if scales is not None and biases is not None:
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)  # else it is computed in their type
    if mode:
        weight = mx.dequantize(weight, scales, biases, group, bits, mode, dtype=mx.float32)
    wide = np.array(weight.astype(mx.float32)).astype(np.float64)
    return wide, 0.0 if added is None else np.array(added.astype(mx.float32)).astype(np.float64)


def times(x: np.ndarray, made: Stored) -> np.ndarray:
    weight, added = exact(made)
    return x @ weight.T + added


def close(y: mx.array | None, truth: np.ndarray) -> bool:
    assert y is not None
    assert (y.dtype, y.shape) == (mx.float32, truth.shape)
    return bool(np.abs(np.array(y) - truth).max() <= 2e-6 * np.abs(truth).max())


#: Activations in float64.
ACTIVATIONS = {
    "silu": lambda g: g / (1 + np.exp(-g)),
    "gelu_tanh": lambda g: g / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (g + 0.044715 * g**3))),
    "gelu_quick": lambda g: g / (1 + np.exp(-1.702 * g)),
}


def mlp_of(name: str, shift: bool) -> tuple[Stored, Stored, Stored]:
    return (
        layer(INNER, WIDTH, name, shift, 1),
        layer(INNER, WIDTH, name, shift, 3),
        layer(WIDTH, INNER, name, shift, 5),
    )


def experts_of(name: str, shift: bool, count: int = 3) -> tuple[Stored, Stored, Stored]:
    """Layers of each expert by itself, stacked."""
    single = [
        [layer(rows, width, name, shift, 10 * expert + seed) for expert in range(count)]
        for rows, width, seed in ((INNER, WIDTH, 1), (INNER, WIDTH, 3), (WIDTH, INNER, 5))
    ]
    gate, up, down = (
        tuple(each[0] if not isinstance(each[0], mx.array) else mx.stack(each) for each in zip(*layers, strict=True))
        for layers in single
    )
    return gate, up, down


def of_expert(made: Stored, expert: int) -> Stored:
    return tuple(each[expert] if isinstance(each, mx.array) else each for each in made)


def rotated(x: np.ndarray, cosines: np.ndarray, sines: np.ndarray, pairs: int, traditional: bool) -> np.ndarray:
    partner = np.arange(x.shape[-1])
    first = np.arange(0, 2 * pairs, 2) if traditional else np.arange(pairs)
    second = first + 1 if traditional else first + pairs
    partner[first], partner[second] = second, first
    return x * cosines + x[..., partner] * sines


def step_by_step(x: mx.array, made: Stored) -> mx.array:
    weight, scales, biases, added, group, bits, mode = made
    if mode:
        weight = mx.dequantize(weight, scales, biases, group, bits, mode, dtype=mx.float32)
    y = x @ weight.astype(mx.float32).T
    return y if added is None else y + added


def normalised(x: np.ndarray, norm: StoredNorm | None) -> np.ndarray:
    """In float64; x itself without a norm."""
    if norm is None:
        return x
    weight, eps, offset = norm
    scale = 1.0 if weight is None else offset + np.array(weight.astype(mx.float32)).astype(np.float64)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def typed(made: Stored, dtype: mx.Dtype) -> Stored:
    """A layer whose floats have another type."""
    floats = (mx.float32, mx.bfloat16, mx.float16)
    return tuple(each.astype(dtype) if isinstance(each, mx.array) and each.dtype in floats else each for each in made)


#: What one rounding may lose of a number, by its type.
ROUNDING = {mx.float32: 0.0, mx.bfloat16: 2.0**-8, mx.float16: 2.0**-11}


def rounded(y: mx.array | None, truth: np.ndarray, dtype: mx.Dtype) -> bool:
    """Whether it has been computed in float32 and rounded once."""
    assert y is not None
    assert (y.dtype, y.shape) == (dtype, truth.shape)
    lost = np.abs(np.array(y.astype(mx.float32)).astype(np.float64) - truth)
    return bool((lost <= ROUNDING[dtype] * np.abs(truth) + 4e-6 * np.abs(truth).max()).all())
