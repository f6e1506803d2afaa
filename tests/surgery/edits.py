"""Small models and edit files that several tests share."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

import axon_compose
from axon_compose.surgery import SurgeryPlan, perform, plan_edit

#: Six layers, the last of which reads the keys and values of the one before it.
MODEL: dict[str, Any] = {
    "version": 1,
    "name": "small",
    "dims": {"hidden_size": 32, "vocab_size": 64},
    "components": {
        "attn": {"type": "attention", "num_heads": 4, "num_kv_heads": 2},
        "keys": {"type": "attention", "num_heads": 4, "num_kv_heads": 2},
        "reading": {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "kv_from": "keys"},
        "mlp": {"type": "mlp", "intermediate_size": 64},
    },
    "blocks": {"layer": ["attn", "mlp"], "writer": ["keys", "mlp"], "reader": ["reading", "mlp"]},
    "stack": "layer*4 writer reader",
    "head": {"tied": True},
}


def changed(**sections: Any) -> dict[str, Any]:
    """`MODEL` with sections replaced."""
    return copy.deepcopy(MODEL) | sections


def written(folder: Path, model: dict[str, Any] | None = None, *, seed: int = 0, dtype: str = "float32") -> Path:
    """A folder with a model of random weights, biases and norms too."""
    built = axon_compose.load(model or MODEL).build(seed=seed, dtype=dtype)
    mx.random.seed(seed)
    built.update(tree_map(lambda w: w + (0.02 * mx.random.normal(w.shape)).astype(w.dtype), built.parameters()))
    axon_compose.save(built, folder, tokenizer="none")
    return folder


def edited(source: Path, *edits: dict[str, Any], **options: Any) -> SurgeryPlan:
    """The plan of some edits."""
    return plan_edit({"version": 1, "source": str(source), "edits": list(edits)}, **options)


def performed(source: Path, target: Path, *edits: dict[str, Any], **options: Any) -> Path:
    """The folder that some edits give."""
    return perform(edited(source, *edits, **options), target)
