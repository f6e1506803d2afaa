"""Quantised weights: matrices whose rows the group size divides, but for those that a component keeps as they are."""

from __future__ import annotations

from typing import Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.diagnostics import CheckpointError
from axon_compose.model._calls import blamed
from axon_compose.model._language_model import LanguageModel

__all__ = ["GROUP_SIZE", "quantize", "rounding"]

#: Numbers that share a scale, as `mlx_lm.convert` has it.
GROUP_SIZE: Final = 64
#: Rows of a matrix that `rounding` looks at.
_ROWS: Final = 64


def quantize(model: LanguageModel, bits: int, group_size: int = GROUP_SIZE) -> list[str]:
    """Quantise a model in place, lazily.

    Args:
        model: What `build` gave.
        bits: 1, 2, 3, 4, 5, 6 or 8.
        group_size: Numbers that share a scale: 32, 64 or 128.

    Returns:
        What the user should know: a sentence if matrices stay as they are because groups do not divide their rows.

    Raises:
        CheckpointError: AX561 nothing is quantised.
        PluginFault: If the code of a component raises (`AX212`).
    """
    exempt = {f"{use.path}.{name}" for use in model.plan.uses() for name in use.spec.unquantized}
    done: list[str] = []
    odd: dict[str, int] = {}

    def fits(path: str, module: nn.Module) -> bool:
        weight = module.get("weight")
        if weight is None or weight.ndim < 2 or hasattr(module, "bits") or model.plan_name(path) in exempt:
            return False
        if width := weight.shape[-1] if weight.shape[-1] % group_size else 0:
            odd[path] = width
        elif hasattr(module, "to_quantized"):
            done.append(path)
        return done[-1:] == [path]

    with blamed(model.plan):
        nn.quantize(model, group_size=group_size, bits=bits, class_predicate=fits)
    if not done:
        if _is_quantised(model):
            message = "nothing is quantised: the weights are quantised already"
            raise CheckpointError("AX561", message, "build without `--quantize`, or from weights that are not")
        message = f"nothing is quantised: {_undivided(odd, group_size)}"
        raise CheckpointError("AX561", message, f"make the widths multiples of {group_size}")
    whole = len(done) + len(odd)
    return [f"{len(odd)} of {whole} matrices are not quantised: {_undivided(odd, group_size)}"] if odd else []


def rounding(model: LanguageModel, bits: int, group_size: int = GROUP_SIZE) -> float:
    """How far `quantize` will move the weights: the root mean square of the change over that of the weights.

    Counted over the first rows of every matrix, so that no second copy of a model is needed.
    """
    change = size = 0.0
    for _, module in model.named_modules():
        weight = module.get("weight")
        if weight is None or not hasattr(module, "to_quantized") or weight.shape[-1] % group_size:
            continue
        rows = weight.reshape(-1, weight.shape[-1])[:_ROWS].astype(mx.float32)
        packed = mx.quantize(rows, group_size, bits)
        moved = mx.dequantize(*packed, group_size=group_size, bits=bits) - rows
        change += float(moved.square().sum())
        size += float(rows.square().sum())
    return (change / size) ** 0.5 if size else 0.0


def _undivided(odd: dict[str, int], group_size: int) -> str:
    """Which rows groups do not divide, for a message."""
    if not odd:
        return "no component has a matrix that may be"
    path, width = next(iter(odd.items()))
    return f"groups of {group_size} do not divide rows of {width} (`{path}`)"


def _is_quantised(model: LanguageModel) -> bool:
    return any(hasattr(module, "bits") for _, module in model.named_modules())
