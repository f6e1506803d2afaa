"""mlx-lm's own model of a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.proof.verify._trace import Trace, trace

__all__ = ["run_mlx_lm"]


def run_mlx_lm(
    folder: Path,
    tokens: mx.array,
    steps: int,
    *,
    fields: Mapping[str, Any] | None = None,
    repairs: tuple[Callable[[nn.Module], None], ...] = (),
) -> Trace:
    """Load a checkpoint with mlx-lm and run it in float32.

    Args:
        folder: Of the checkpoint; code in it is not run.
        tokens: (B, L).
        steps: How many of the last tokens go one by one through the caches.
        fields: Laid over config.json.
        repairs: Called with the loaded model, to work around known faults.

    Raises:
        Exception: Whatever mlx-lm raises.
    """
    from mlx_lm.utils import load_model

    with redirect_stdout(sys.stderr):
        model, _ = load_model(folder, lazy=True, strict=True, model_config=dict(fields or {}), trust_remote_code=False)
    model.set_dtype(mx.float32)
    for repair in repairs:
        repair(model)
    return trace(model, tokens, steps)
