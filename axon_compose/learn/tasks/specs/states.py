"""State tracking: the product of all elements of a group so far."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from axon_compose.registry import Options, TaskSpec

__all__ = ["SPECS", "StateOptions"]

_CODE: Final = "axon_compose.learn.tasks.states"
_SOURCE: Final = (
    'Merrill et al. 2024, "The Illusion of State in State-Space Models" (arXiv:2404.08819); Grazzi et al. 2024, '
    '"Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues" (arXiv:2411.12537)'
)


class StateOptions(Options):
    """How long a word is."""

    length: int = Field(32, ge=1, le=2**16, description="Tokens of a sequence, each an element of the group.")


SPECS: Final = (
    TaskSpec(
        name="parity",
        options=StateOptions,
        module=f"{_CODE}:parity",
        summary="bits: is the number of ones so far odd?",
        source=_SOURCE,
        vocabulary=lambda o: 2,
        length=lambda o: o.length,
        chance=lambda o: 1 / 2,
        examples=({"length": 16},),
    ),
    TaskSpec(
        name="s3",
        options=StateOptions,
        module=f"{_CODE}:s3",
        summary="permutations of three things: which one do all so far make together?",
        source=_SOURCE,
        vocabulary=lambda o: 6,
        length=lambda o: o.length,
        chance=lambda o: 1 / 6,
        examples=({"length": 16},),
    ),
    TaskSpec(
        name="s5",
        options=StateOptions,
        module=f"{_CODE}:s5",
        summary="the same of five things, a group that is not solvable",
        source=_SOURCE,
        vocabulary=lambda o: 120,
        length=lambda o: o.length,
        chance=lambda o: 1 / 120,
        examples=({"length": 16},),
    ),
)
