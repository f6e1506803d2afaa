"""Quantised weights: matrices whose rows the group size divides, but for those that a component keeps as they are."""

from __future__ import annotations

from typing import Final

import mlx.nn as nn

from axon_compose.model._calls import blamed
from axon_compose.model._language_model import LanguageModel

__all__ = ["GROUP_SIZE", "quantize"]

#: Numbers that share a scale, as `mlx_lm.convert` has it.
GROUP_SIZE: Final = 64


def quantize(model: LanguageModel, bits: int, group_size: int = GROUP_SIZE) -> None:
    """Quantise a model in place, lazily.

    Args:
        model: What `build` gave.
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: Numbers that share a scale: 32, 64 or 128.

    Raises:
        PluginFault: If the code of a component raises (`AX212`).
    """
    may = model.quant_predicate

    def fits(path: str, module: nn.Module) -> bool:
        return may(path, module) and module.weight.shape[-1] % group_size == 0

    with blamed(model.plan):
        nn.quantize(model, group_size=group_size, bits=bits, class_predicate=fits)
