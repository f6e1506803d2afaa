r"""The table of the embedding as the matrix of the head, and back.

A tied head gives the scores :math:`E h` with the table :math:`E` of the embedding (Press and Wolf 2017,
arXiv:1608.05859). A head of its own with :math:`W = E` gives the same. The other way, :math:`E := W` keeps the scores
of the same :math:`h`, and changes what comes in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from axon_compose.registry import Case
from axon_core.transfers._heads import Array

__all__ = ["to_head", "to_table"]


def to_head(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """A head's own matrix."""
    table = arrays["embed_tokens.weight"]
    bias = {"lm_head.bias": np.zeros(len(table), np.float32)} if case.options.bias else {}
    return {"lm_head.weight": table} | bias


def to_table(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """A table that the head is tied to."""
    return {"embed_tokens.weight": arrays["lm_head.weight"]}
