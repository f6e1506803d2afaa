"""Whole models against other implementations, on the same weights wherever there is the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from axon_compose import Architecture, load
from axon_compose.proof.bench import Contest, Peer, Progress, Workload, contest, same_weights, subject, workloads

__all__ = ["FAMILIES", "GROWTH", "TRANSFORMERS", "Effort", "family", "hybrid", "measured"]

SIZES: Final[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "families.yaml").read_text())
FAMILIES: Final = tuple(SIZES["families"])
#: Families that are compared with transformers too.
TRANSFORMERS: Final = ("mamba", "jamba", "mixtral", "qwen3")
#: Families whose cost is followed to long prompts.
GROWTH: Final = ("granitemoehybrid", "gemma3_text")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often.
        prompts: Tokens.
        steps: Tokens that are decoded.
        batches: Sequences that are decoded together.
        training: Whether a training step on each prompt is measured too.
    """

    rounds: int = 3
    prompts: tuple[int, ...] = (128,)
    steps: int = 16
    batches: tuple[int, ...] = (1, 8)
    training: bool = False

    def work(self) -> list[Workload]:
        """What is run."""
        return workloads(self.prompts, self.batches, self.steps, self.rounds, training=self.training)


def family(name: str, sizes: Mapping[str, Any] | None = None) -> Architecture:
    """A shipped family in the sizes of `families.yaml`, and others laid over them."""
    known = load(name).document.envelope.dims
    common = {key: value for key, value in SIZES["common"].items() if key in known}
    found = {**common, **SIZES["families"][name], **(sizes or {})}
    return load(name, settings=[f"dims.{key}={json.dumps(value)}" for key, value in found.items()])


def measured(name: str, peers: tuple[Peer, ...], effort: Effort, progress: Progress | None = None) -> Contest:
    """A family and its peers in turns."""
    work = effort.work()
    with same_weights(family(name), peers, work[-1]) as subjects:
        return Contest.of(name, {"dtype": "float32"}, work, contest(subjects, work, progress=progress))


def bit_axon() -> Architecture:
    """The hybrid of 24 layers."""
    return load("bit-axon", settings=SIZES["hybrid"]["bit-axon"])


def hybrid(effort: Effort, progress: Progress | None = None) -> Contest:
    """State spaces, windows and experts in 24 layers, and two other models of about its size."""
    sizes, work = SIZES["hybrid"], effort.work()
    subjects = [subject(bit_axon(), work[-1], name="axon-compose: bit-axon", dtype="float32")]
    peers: dict[str, Peer] = {"granitemoehybrid": "mlx-lm", "jamba": "transformers"}
    with ExitStack() as stack:
        for name, peer in peers.items():
            _, other = stack.enter_context(same_weights(family(name, sizes[name]), (peer,), work[-1]))
            subjects.append(replace(other, name=f"{peer}: {name}"))
        return Contest.of("hybrid of 24 layers", {"dtype": "float32"}, work, contest(subjects, work, progress=progress))
