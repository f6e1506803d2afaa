"""A plugin that brings a task and nothing else: how many of the tokens so far were a 1?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from axon_compose.registry import Options, TaskSpec, hookimpl


class CountingOptions(Options):
    """How far is counted."""

    length: int = Field(8, ge=1, le=64, description="Tokens of a sequence.")


@hookimpl
def axon_tasks() -> Iterator[TaskSpec]:
    """The task."""
    yield TaskSpec(
        name="counting",
        options=CountingOptions,
        module="tests.learn.tasks.counting_plugin:counting",
        summary="bits: how many ones so far?",
        vocabulary=lambda o: o.length + 1,
        length=lambda o: o.length,
        chance=lambda o: 1 / (o.length + 1),
        examples=({"length": 4},),
    )


def counting(options: Any, draw: Any) -> Any:
    """Tokens and targets."""
    tokens = draw.rng.integers(2, size=(draw.batch, options.length))
    return tokens, tokens.cumsum(axis=1)
