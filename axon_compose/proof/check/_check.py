"""`check`: every check on a small copy of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import mlx.core as mx

from axon_compose.diagnostics import Refusal
from axon_compose.machine.memory import require
from axon_compose.model import largest_parts
from axon_compose.plan import Compiled, Plan, weight_nbytes
from axon_compose.proof.check import (
    _batches,
    _devices,
    _half,
    _large,
    _pipeline,
    _sequences,
    _sight,
    _slopes,
    _start,
    _storage,
    _ties,
    _weights,
)
from axon_compose.proof.check._compare import number
from axon_compose.proof.check._report import CheckReport, Truth
from axon_compose.proof.check._shrink import VOCABULARY, small_architecture
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import Guard, Raised

__all__ = ["TRUTHS", "check", "check_plan"]

#: Copies of the weights that live at once: the model, another one, gradients of both, and what they are moved by.
_COPIES: Final = 6

#: Name to check, in the order of the report.
TRUTHS: Final[dict[str, Callable[[Subject], Truth]]] = {
    "parameters": _weights.parameters,
    "one-shot": _sequences.one_shot,
    "chunks": _sequences.chunks,
    "steps": _sequences.steps,
    "causal": _sight.causal,
    "reach": _sight.reach,
    "every-layer": _sight.every_layer,
    "left-padded": _batches.left_padded,
    "right-padded": _batches.right_padded,
    "joined": _batches.joined,
    "saved": _sequences.saved,
    "trimmed": _sequences.trimmed,
    "caches": _storage.caches,
    "cache-bytes": _storage.cache_bytes,
    "dtypes": _storage.dtypes,
    "large": _large.large,
    "float16": _half.half,
    "ties": _ties.ties,
    "start": _start.start,
    "gradients": _weights.gradients,
    "slopes": _slopes.slopes,
    "tied": _weights.tied,
    "quantized": _weights.quantized,
}


def check(
    architecture: Compiled,
    *,
    seed: int = 0,
    truths: Iterable[str] | None = None,
    as_is: bool = False,
    devices: int | None = None,
) -> CheckReport:
    """Prove that the caches and masks of a model are right, on a copy in small sizes with random weights in float32.

    Args:
        architecture: What `axon_compose.load` gave; of any size, for it is never built itself.
        seed: Of weights and tokens.
        truths: Names out of `TRUTHS`; all unless given.
        as_is: Try the model itself instead of a copy; it has to be small.
        devices: Also split the components over this number of devices, threads of this process, and then the layers,
            and compare.

    Returns:
        Every check with what was measured. Nothing is raised for a model that fails.

    Raises:
        ArchitectureError: If a component cannot be made small.
        PluginFault: If its `shrink` raises, or gives options that it does not take (`AX212`).
        CheckpointError: If the model itself is tried and does not fit into memory.
        ValueError: If a name is not that of a check.
    """
    plan = architecture.plan()
    if as_is:
        require(_COPIES * weight_nbytes(plan, "float32"), f"a check of `{plan.name}` as it is", largest_parts(plan))
        return check_plan(plan, seed=seed, truths=truths, devices=devices)
    report = check_plan(small_architecture(plan).plan(), seed=seed, truths=truths, described=len(plan.layers))
    if devices is None:
        return report
    # A vocabulary of its own, which can be split.
    small = small_architecture(plan, vocabulary=-(-VOCABULARY // devices) * devices).plan()
    split = check_plan(small, seed=seed, truths=[], devices=devices)
    return replace(report, truths=(*report.truths, *split.truths))


def check_plan(
    plan: Plan,
    *,
    seed: int = 0,
    truths: Iterable[str] | None = None,
    described: int | None = None,
    devices: int | None = None,
) -> CheckReport:
    """The same on a plan as it is, which is built in its own sizes.

    Args:
        plan: A small model.
        seed: Of weights and tokens.
        truths: Names out of `TRUTHS`; all unless given.
        described: Layers of the model that the plan is a small copy of.
        devices: As of `check`.
    """
    names = list(TRUTHS) if truths is None else list(truths)
    unknown = [name for name in names if name not in TRUTHS]
    if unknown:
        raise ValueError(f"there is no check `{unknown[0]}`; checks are {', '.join(TRUTHS)}")
    chosen = {name: TRUTHS[name] for name in names}
    if devices is not None:
        chosen["devices"] = partial(_devices.devices, size=devices)
        if len(plan.layers) > 1:
            chosen["pipeline"] = partial(_pipeline.pipeline, size=devices)
        chosen["devices-caches"] = partial(_devices.caches_on_devices, size=devices)
    with _exact_device():
        found = _run(Subject(plan, seed), chosen)
    layers = len(plan.layers)
    return CheckReport(plan.name, seed, layers, described or layers, tuple(found), shrunk=described is not None)


def _run(subject: Subject, truths: Mapping[str, Callable[[Subject], Truth]]) -> list[Truth]:
    found = []
    try:
        with Guard(None):
            mx.eval(subject.model.parameters())
    except (Refusal, Raised) as error:  # a plugin's own code may raise anything, and that is what is asked about
        return [Truth("parameters", "the model can be built", False, detail=_told(error))]
    for name, truth in truths.items():
        try:
            with Guard(None):
                found.append(truth(subject))
        except (Refusal, Raised) as error:
            found.append(Truth(name, "runs without an error", False, detail=_told(error)))
    return found


def _told(error: Refusal | Raised) -> str:
    return error.message if isinstance(error, Refusal) else str(error)


@contextmanager
def _exact_device() -> Any:
    """The default device, unless it multiplies float32 in fewer bits (as GPUs with TF32 do): then the CPU."""
    a, b = (mx.random.normal((64, 64), key=mx.random.key(i)) for i in range(2))
    exact = mx.matmul(a, b, stream=mx.cpu)
    if number(mx.abs(a @ b - exact).max()) < 1e-4:
        yield
    else:
        with mx.stream(mx.cpu):
            yield
