"""Single layers with weights that have no special value, and what they give in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from axon_compose import Architecture, load
from axon_compose.plan import Use
from axon_compose.registry import load_factory

__all__ = ["architecture", "arrays_for", "output", "use_of"]


def architecture(layer: Mapping[str, Any], norm: Mapping[str, Any] | None = None) -> Architecture:
    """A layer and a feed-forward one, twice."""
    return load(
        {
            "version": 1,
            "dims": {"hidden_size": 32, "vocab_size": 16},
            "components": {"layer": dict(layer), "other": {"type": "mlp", "intermediate_size": 40}},
            "blocks": {"block": ["layer", "other"]},
            "stack": "block*2",
            "norm": dict(norm or {"type": "rms_norm"}),
        }
    )


def use_of(layer: Mapping[str, Any]) -> Use:
    """The layer as a plan has it."""
    return next(use for use in architecture(layer).plan().uses() if use.path == "layers.0.layer")


def arrays_for(use: Use, seed: int = 1) -> dict[str, np.ndarray]:
    """Parameters of a component."""
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in use.params.items()}


def output(use: Use, arrays: Mapping[str, np.ndarray], x: np.ndarray, dtype: mx.Dtype = mx.float32) -> np.ndarray:
    """What the layer makes of x, (B, L, D)."""
    layer = load_factory(use.spec)(use.options, use.dims)
    layer.load_weights([(name, mx.array(array)) for name, array in arrays.items()])
    layer.set_dtype(dtype)
    arguments = {"offset": 0} if "offset" in use.spec.reads else {}
    y = layer(mx.array(x).astype(dtype), **arguments)
    return np.array((y[0] if isinstance(y, tuple) else y).astype(mx.float32))
