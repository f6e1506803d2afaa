"""What a decoding step reads of the weights: all of most components, rows of tables, and chosen experts."""

from __future__ import annotations

from axon_compose.analysis.cost._answers import Answers
from axon_compose.analysis.cost._weights import Storage
from axon_compose.plan import Plan, Use

__all__ = ["bytes_read"]


def bytes_read(plan: Plan, use: Use, batch: int, storage: Storage, answers: Answers) -> int:
    """Bytes of a component's weights that one token of each sequence reads, at most.

    Args:
        plan: The model, whose head may read the table of the embedding.
        use: The component.
        batch: Sequences.
        storage: How weights are stored.
        answers: What the component says of its rows.
    """
    touched = answers.touched(use, batch)
    if not touched:
        return storage.nbytes(use)
    total = 0
    for name, shape in use.params.items():
        size = storage.parameter(use, name)
        total += size * min(touched[name], shape[0]) // shape[0] if name in touched and shape[0] else size
    for name, rows in touched.items():
        section, _, inner = name.partition(".")
        if use is plan.head and section == "embedding" and inner in plan.embedding.params:
            length = plan.embedding.params[inner][0]
            total += storage.parameter(plan.embedding, inner) * min(rows, length) // length
    return total
