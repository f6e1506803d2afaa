r"""Norms out of norms.

A layer norm is :math:`(x - \bar x) / \sqrt{\mathrm{var}(x) + \epsilon} \cdot s + b`, and as :math:`\mathrm{var}(x) =
\mathrm{mean}((x - \bar x)^2)` it is the RMS norm of :math:`x - \bar x`. Exactly contained in each other are therefore
an RMS norm with `center` and a layer norm without a shift; one without a scale in one with a scale of one; one without
a shift in one with a shift of zero; and scales that differ by a constant offset. An RMS norm that subtracts no mean is
not contained in a layer norm, nor the other way round, unless what it reads has a mean of zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from axon_compose.registry import Case
from axon_core.transfers._heads import Array

__all__ = ["scale_and_shift"]


def scale_and_shift(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """The scale in the new norm's offset, and its shift."""
    new, old, width = case.options, case.source_options, case.dims.hidden_size
    made = {}
    if new.weight:
        scale = arrays["weight"] + np.float32(old.offset) if old.weight else np.ones(width, np.float32)
        same = old.weight and new.offset == old.offset
        made["weight"] = arrays["weight"] if same else scale - np.float32(new.offset)
    if getattr(new, "bias", False):
        made["bias"] = arrays.get("bias", np.zeros(width, np.float32))
    return made
