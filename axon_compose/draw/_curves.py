"""What depends on the context, as charts: what grows is a slope, a window bends, a state is level."""

from __future__ import annotations

from typing import Final

from axon_compose.draw._chart import Axis, Line, Lines, brief
from axon_compose.draw._sums import cache_sums
from axon_compose.memory import human
from axon_compose.plan import Plan, cache_nbytes
from axon_compose.registry import KV

__all__ = ["cache_curves"]

#: Contexts at the left and right edge, as powers of two.
LOW: Final = 8
HIGH: Final = 18


def cache_curves(plan: Plan) -> Lines:
    """Bytes of the caches of one sequence in bfloat16; a line for each kind, and one for all where there are several.

    Args:
        plan: The model; it keeps at least one cache.
    """
    sums, contexts = cache_sums(plan), _contexts(plan)
    lines = [Line(part.label, [(n, part.nbytes(n)) for n in contexts], part.family) for part in sums]
    if len(sums) > 1:
        lines.append(Line("all caches", [(n, cache_nbytes(plan, n)) for n in contexts], "ink", dashed=True))
    tokens = Axis("tokens of context", _tokens, base=4)
    return Lines(f"{plan.name}: cache bytes over context", tokens, Axis("bytes", brief(human)), lines)


def _contexts(plan: Plan) -> list[int]:
    """Where lines have points: every power of two, and where a window is full."""
    leaves = (leaf for part in cache_sums(plan) for leaf in part.leaves)
    windows = {leaf.window for leaf in leaves if isinstance(leaf, KV) and leaf.window}
    powers = {2**power for power in range(LOW, HIGH + 1)}
    return sorted(powers | {window for window in windows if 2**LOW < window < 2**HIGH})


def _tokens(tokens: float) -> str:
    """A power of two as people say it: `256`, `64k`."""
    return f"{tokens:.0f}" if tokens < 1024 else f"{tokens / 1024:.0f}k"
