"""Experts with equal scores: which of them are chosen may not depend on anything."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import mlx.core as mx

from axon_compose.plan import Use
from axon_compose.proof.check._compare import Rows, equal, exact
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._sequences import plain, run
from axon_compose.proof.check._subject import MEDIUM, Forward, Subject

__all__ = ["ties"]


def ties(subject: Subject) -> Truth:
    """Where all experts have the same score, a token is sent to the same ones in every run, batch and chunk."""
    name, claim = "ties", "equal scores choose the same experts in every run, row and chunk"
    routed = [use for use in subject.plan.uses() if use.active < use.size]
    if not routed:
        return Truth(name, claim, True, detail="no component chooses among its parameters")
    copy = Subject(subject.plan, subject.seed, model=subject.fresh("float32"))
    copy.model.load_weights([pair for use in routed for pair in _equal_scores(use, copy)], strict=False)
    tokens = copy.tokens(1, MEDIUM)
    others = copy.tokens(3, MEDIUM, salt=1)

    def among(forward: Forward) -> Rows:
        batch = mx.concatenate([others[:1], tokens, others[1:], tokens])
        together = forward(batch, None)
        return [together[1:2], together[4:5]]

    whole = partial(plain, tokens=tokens)
    return equal(
        copy,
        name,
        claim,
        [
            ("again", whole, whole),
            ("among others", among, lambda f: plain(f, tokens) * 2),
            ("in chunks", lambda f: [run(copy, f, tokens, cycle([13, 1]))], whole),
        ],
        exact(subject),
    )


def _equal_scores(use: Use, subject: Subject) -> list[tuple[str, mx.array]]:
    """Parameters that make a router treat all experts alike: what has a row or a number for each is the same.

    Experts are what is stacked; their number is the first extent of those stacks.
    """
    counts = {shape[0] for shape in use.params.values() if len(shape) == 3 and min(shape) > 1}
    flat = {f"{use.path}.{name}": shape for name, shape in use.params.items() if shape[0] in counts}
    even = [(name, mx.zeros(shape)) for name, shape in flat.items() if len(shape) == 2]
    return even + [(name, mx.ones(shape)) for name, shape in flat.items() if len(shape) == 1]
