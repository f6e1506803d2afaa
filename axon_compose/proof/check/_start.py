"""The start of training: as likely as not is every token, and no layer's activations explode or die."""

from __future__ import annotations

from math import log
from typing import Any, Final

import mlx.core as mx

from axon_compose.diagnostics import ArchitectureError
from axon_compose.model import random_weights
from axon_compose.plan import Layer, Plan
from axon_compose.proof.check._compare import number
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._shrink import deepened
from axon_compose.proof.check._subject import SEEDS, Subject

__all__ = ["start"]

#: How far the first loss may be from the logarithm of the vocabulary, as a part of it. All shipped models are within
#: 3 %; a head with weights of one is off by 700 %.
LIMIT: Final = 0.05
#: Layers of a deep copy.
DEPTH: Final = 48
#: Root mean squares of the residual stream that are neither dead nor exploded. Norms after 96 branches add up to 10.
SIZES: Final = (1e-3, 100.0)
#: By how much the second half of a deep model may change them: sums grow as the root of the depth, by 1.4, or linearly.
GROWTH: Final = 8.0
#: The least that a layer changes of the stream, as a part of it.
LEAST: Final = 1e-4


def start(subject: Subject) -> Truth:
    r"""With the initial values that the records declare, every token is about as likely, at any depth.

    The expected loss of tokens that nothing is known of is, with the logits :math:`s_{tv}` of T tokens,

    .. math::
        \frac{1}{T} \sum_t \Big( \log \sum_v \exp s_{tv} - \frac{1}{V} \sum_v s_{tv} \Big)

    and :math:`\log V` if all are equally likely. It is taken of the model, and of one with its layers repeated to at
    least 48, whose residual outputs are scaled accordingly.
    """
    claim = "the first loss is ln(vocabulary) and activations neither explode nor die, also with 48 layers"
    worst, told, faults = 0.0, [], []
    for plan in _depths(subject.plan):
        off, fault = _measured(plan, subject)
        worst = max(worst, abs(off))
        told.append(f"{off:+.1%} with {len(plan.layers)} layers")
        faults += [fault] if fault else []
    detail = "; ".join([*faults, *told])
    return Truth("start", claim, worst <= LIMIT and not faults, worst, LIMIT, "<=", detail)


def _depths(plan: Plan) -> list[Plan]:
    """The plan, and a deep one where its layers can be repeated."""
    if len(plan.layers) >= DEPTH:
        return [plan]
    try:
        return [plan, deepened(plan, DEPTH).plan()]
    except ArchitectureError:  # such as layers that name others by their number
        return [plan]


def _measured(plan: Plan, subject: Subject) -> tuple[float, str]:
    """How far the loss is from the logarithm of the vocabulary, as a part of it; and what else is wrong."""
    model: Any = random_weights(plan, seed=subject.seed % SEEDS)
    model.eval()
    vocabulary = int(plan.dims.vocab_size)
    key = mx.random.key(subject.seed % SEEDS)
    tokens = mx.random.randint(0, vocabulary, (2, 16), key=key)
    model.layers = taps = [_Tap(layer) for layer in model.layers]
    logits = model(tokens).astype(mx.float32)
    measured = (mx.logsumexp(logits, axis=-1) - logits.mean(axis=-1)).mean()
    mx.eval(measured, [(tap.size, tap.change) for tap in taps])
    loss = number(measured)
    if not loss < float("inf"):
        return float("inf"), f"logits are not finite with {len(taps)} layers"
    return loss / log(vocabulary) - 1, _activations(taps, plan)


def _activations(taps: list[_Tap], plan: Plan) -> str:
    """What is wrong with the activations, or nothing."""
    sizes = [number(tap.size) for tap in taps]
    for index, size in enumerate(sizes):
        if not SIZES[0] <= size <= SIZES[1]:
            return f"activations of {size:.2g} after layer {index} of {len(taps)}"
    half = len(sizes) // 2
    growth = sizes[-1] / sizes[half]
    if len(taps) >= DEPTH and not 1 / GROWTH <= growth <= GROWTH:
        return (
            f"activations of {sizes[half]:.2g} after layer {half}, and of {sizes[-1]:.2g} after layer {len(taps) - 1}"
        )
    for index, (tap, layer) in enumerate(zip(taps, plan.layers, strict=True)):
        if tap.change is not None and _computes(layer) and not number(tap.change) >= LEAST:
            return f"layer {index} changes {number(tap.change):.1g} of the residual stream"
    return ""


def _computes(layer: Layer) -> bool:
    """Whether a layer has a branch to add, or a matrix: norms and factors alone may be the identity at first."""
    matrices = (shape for use in layer.uses() for shape in use.params.values() if len(shape) > 1)
    return any(branch.adds for branch in layer.branches) or any(matrices)


class _Tap:
    """A layer of which it is kept how large its output is, and how much of it is new."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, state: Any, *arguments: Any) -> Any:
        out = self.block(state, *arguments)
        before, after = _flat(state), _flat(out[0])
        self.size = _size(after)
        self.change = _size(after - before) / self.size if before.shape == after.shape else None
        return out


def _flat(state: Any) -> mx.array:
    """All numbers of a residual state, which may be a tuple of arrays."""
    parts = (state,) if isinstance(state, mx.array) else state
    return mx.concatenate([part.astype(mx.float32).reshape(-1) for part in parts if isinstance(part, mx.array)])


def _size(x: mx.array) -> mx.array:
    return mx.sqrt((x * x).mean())
