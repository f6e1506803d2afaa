"""State tracking: the product of all elements of a group so far."""

from typing import Final

from pydantic import Field

from axon_compose.registry import Options, TaskSpec

__all__ = ["ORDERS", "SPECS", "StateOptions"]

_CODE: Final = "axon_compose.learn.tasks.states"
_SOURCE: Final = (
    'Merrill et al. 2024, "The Illusion of State in State-Space Models" (arXiv:2404.08819); Grazzi et al. 2024, '
    '"Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues" (arXiv:2411.12537)'
)
#: How many elements a group has.
ORDERS: Final = {"parity": 2, "s3": 6, "s5": 120}


class StateOptions(Options):
    """How long a word is."""

    length: int = Field(32, ge=1, le=2**16, description="Tokens of a sequence, each an element of the group.")


def _spec(name: str, summary: str) -> TaskSpec:
    """The record of a group: every element is a token, and as likely as any other to be the product."""
    order = ORDERS[name]
    return TaskSpec(
        name=name,
        options=StateOptions,
        module=f"{_CODE}:{name}",
        summary=summary,
        source=_SOURCE,
        vocabulary=lambda o: order,
        length=lambda o: o.length,
        chance=lambda o: 1 / order,
        examples=({"length": 16},),
    )


SPECS: Final = (
    _spec("parity", "bits: is the number of ones so far odd?"),
    _spec("s3", "permutations of three things: which one do all so far make together?"),
    _spec("s5", "the same of five things, a group that is not solvable"),
)
