"""Large values inside of the layers: they may neither overflow nor drown what is small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any, Final

import mlx.core as mx

from axon_compose.proof.check._compare import Rows, distance, equal
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._sequences import plain, run
from axon_compose.proof.check._subject import MEDIUM, Forward, Subject
from axon_compose.registry import State

__all__ = ["amplified", "large"]

#: Factors of what layers read in `large`. Steps of a state space layer have to come to their upper bound; scores of
#: attention grow as the square, and beyond this their rounding alone would change what is attended to.
STATES: Final = 1000.0
OTHERS: Final = 30.0
#: Saturated layers magnify rounding. Measured over 30 seeds: up to 1.1e-4 on the shipped architectures; a scan that
#: subtracts cumulative sums is off by 1.4e-3 and more.
LARGE: Final = 5e-4
#: Shares of these factors, and the part of the limit by which one rounding of every weight may move the outputs: the
#: sums of a BLAS in blocks move them twice as far. Seen beyond it are experts behind saturated attention, with twice
#: the limit, and a stack of nine state space layers, with 200 times.
SHARES: Final = (1.0, 0.1, 0.01)
ROUGH: Final = 0.5


@contextmanager
def amplified(subject: Subject, model: Any, share: float = 1.0) -> Iterator[None]:
    """Make what the layers read large for a while: by the whole factors, or by a share of them."""
    factors = {path: max(share * factor, 1.0) for path, factor in _amplifiers(subject)}
    modules = {path: module for path, module in model.named_modules() if path in factors}
    before = {path: module.parameters() for path, module in modules.items()}
    for path, module in modules.items():
        module.update({n: v * factors[path] for n, v in before[path].items() if isinstance(v, mx.array)})
    try:
        yield
    finally:
        for path, module in modules.items():
            module.update(before[path])


def _amplifiers(subject: Subject) -> Iterator[tuple[str, float]]:
    """Norms in front of components, and the factor that those bear.

    None where a component reads the residual stream as it is: there the outputs of large inputs would be inputs again.
    """
    branches = [branch for layer in subject.plan.layers for branch in layer.branches if branch.adds]
    if any(not branch.pre and not member.pre for branch in branches for member in branch.members):
        return
    for branch in branches:
        for member in branch.members:
            norm = member.pre or branch.pre
            assert norm is not None
            states = all(isinstance(m.use.cache, State) for m in (branch.members if norm is branch.pre else [member]))
            yield norm.path, STATES if states else OTHERS


def large(subject: Subject) -> Truth:
    """Large values inside the layers do no harm: finite, and still the same however the sequence is cut.

    Some models turn a rounding of their weights into much when all is large. What another order of summation does to
    them shows nothing, so they are tried with smaller factors.
    """
    tokens = subject.tokens(1, MEDIUM)
    for share in SHARES:
        with amplified(subject, subject.model, share):
            rough = distance(subject.roundly(tokens), subject.forward(tokens))
            # What is not finite is no rounding, and not excused.
            if share != SHARES[-1] and ROUGH * LARGE < rough < float("inf"):
                continue
            return _in_pieces(subject, tokens, "" if share == 1 else f"{share:g} of ")
    raise AssertionError("the last share is always tried")


def _in_pieces(subject: Subject, tokens: mx.array, share: str) -> Truth:
    """The model as it is just now, of which nothing is known yet."""
    changed = Subject(subject.plan, subject.seed, model=subject.model)
    case = f"{share}large inputs of every layer, in pieces of 1, 4, 1 and 20"

    def got(forward: Forward) -> Rows:
        return [run(changed, forward, tokens, cycle([1, 4, 1, 20]))]

    claim = "large values stay finite and exact"
    return equal(changed, "large", claim, [(case, got, lambda f: plain(f, tokens))], LARGE)
