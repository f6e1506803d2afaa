"""A rule: a code, and a function that finds what the code is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from axon_compose.language.document import Document, Path
from axon_compose.plan import Plan, Use
from axon_compose.registry import as_data

__all__ = ["Finding", "Rule", "layer_uses", "option_path", "place_of"]


@dataclass(frozen=True)
class Finding:
    """One piece of advice.

    Attributes:
        message: What is noticed, with its figures: one line, lower case, no full stop.
        path: Where it is in the file.
        help: What to do instead.
        key: Whether the key at `path` is meant, not its value.
    """

    message: str
    path: Path
    help: str
    key: bool = False


@dataclass(frozen=True)
class Rule:
    """One kind of advice.

    Attributes:
        code: `AX7` and two digits, explained as all codes are.
        check: `(document, plan)` to what is found; it looks at declared facts and at options by their names, and knows
            no component.
    """

    code: str
    check: Callable[[Document, Plan], Iterator[Finding]]


def layer_uses(plan: Plan) -> Iterator[Use]:
    """Every component of the stack once for each set of options, norms left out."""
    seen = set()
    for layer in plan.layers:
        for branch in layer.branches:
            for member in branch.members:
                key = (member.use.name, repr(as_data(member.use.options, member.use.who)), member.use.cache)
                if key not in seen:
                    seen.add(key)
                    yield member.use


def place_of(use: Use, plan: Plan) -> Path:
    """Where a component is described."""
    if use is plan.embedding:
        return ("embedding",)
    if use is plan.head:
        return ("head",)
    if use.spec.kind in ("residual", "connection"):
        return ("residual",)
    members = (member.use for layer in plan.layers for branch in layer.branches for member in branch.members)
    if use.spec.kind == "norm" and not any(member is use for member in members):
        return ("norm",)
    return ("components", use.name)


def option_path(use: Use, plan: Plan, *names: str) -> Path:
    """Where an option of a component is written."""
    return (*place_of(use, plan), *names)
