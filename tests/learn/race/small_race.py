"""Small models and terms for the tests of races."""

from __future__ import annotations

from typing import Any

from axon_compose.learn.race import RaceResult, race


def described(name: str, mixer: dict[str, Any] | None = None, **dims: int) -> dict[str, Any]:
    """One layer, 16 wide."""
    return {
        "version": 1,
        "name": name,
        "dims": {"hidden_size": 16, "vocab_size": 8, "intermediate_size": 24} | dims,
        "components": {
            "mix": mixer or {"type": "attention", "num_heads": 2},
            "mlp": {"type": "mlp", "intermediate_size": "=intermediate_size"},
        },
        "blocks": {"b": ["mix", "mlp"]},
        "stack": "b",
    }


ATTENTION = described("attention")
STATE = described("state", {"type": "axon_ssm", "d_state": 2})


def raced(*models: Any, **more: Any) -> RaceResult:
    """A race of a few steps."""
    terms: dict[str, Any] = {"task": "mqar:pairs=2,vocab=8", "budget": "4steps", "seeds": 2, "rates": (1e-2,)}
    return race(models or (ATTENTION, STATE), **(terms | {"batch": 4, "points": 2} | more))


def without_time(result: RaceResult) -> dict[tuple[str, int, float], list[tuple[Any, ...]]]:
    """What of the runs does not depend on the machine."""
    return {
        (run.model, run.seed, run.rate): [(p.step, p.tokens, p.flops, p.loss, p.accuracy) for p in run.points]
        for run in (*result.runs, *result.sweeps)
    }
