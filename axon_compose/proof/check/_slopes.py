"""Gradients against what they stand for: the slope of the loss, measured by two more forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from axon_compose.proof.check._compare import at_most, number
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._subject import Subject

__all__ = ["loss", "slopes"]

Weights = dict[str, mx.array]

#: By how much a step should change the loss: much more than its rounding of 5e-7, and so little that it is straight.
CHANGES: Final = (1e-3, 3e-4, 1e-4)
#: Longest step, as a part of the weights' own length.
LONGEST: Final = 0.005
#: Slopes that change the loss by less are lost in its rounding.
MEASURABLE: Final = 1e-5
#: Roundings of the loss, and its curvature, as a part of the change. A gradient that leaves out one of two uses of a
#: weight is off by tens of per cent.
LIMIT: Final = 0.1
#: Texts that are tried.
TEXTS: Final = 3


def loss(model: nn.Module, tokens: mx.array, targets: mx.array) -> mx.array:
    """Mean cross entropy of the next tokens."""
    return nn.losses.cross_entropy(model(tokens), targets, reduction="mean")


def slopes(subject: Subject) -> Truth:
    r"""The gradient of each component's weights is the slope of the loss along it.

    With the unit vector :math:`v = g / |g|` of a component's gradient, the central difference is

    .. math::
        \frac{L(w + \varepsilon v) - L(w - \varepsilon v)}{2 \varepsilon} = |g| + O(\varepsilon^2)

    A router may send a token elsewhere within a step, so a few steps are tried, on a few texts, and the best counts.
    """
    model: Any = subject.fresh("float32")
    best: dict[str, tuple[float, str]] = {}
    names = {use.path: f"{use.path} ({use.name})" for use in subject.plan.uses() if use.params}
    weights = dict(tree_flatten(model.parameters()))
    for text in range(TEXTS):
        tokens = subject.tokens(2, 9, salt=text)
        grads = _gradients(model, tokens)
        for path, name in names.items():
            part = {weight: grad for weight, grad in grads.items() if weight.startswith(f"{path}.")}
            if best.get(path, (1.0, ""))[0] > LIMIT and (off := list(_differences(model, weights, part, tokens))):
                best[path] = min(best.get(path, (float("inf"), name)), (min(off), name))
        if all(off <= LIMIT for off, _ in best.values()):
            break
    worst, where = max(best.values(), default=(0.0, ""))
    detail = f"most of all {where}; {len(best)} components" if where else "no gradient is large enough to be measured"
    detail = detail if worst < float("inf") else "gradients or losses are not finite numbers"
    return at_most("slopes", "gradients match finite differences of the loss", worst, LIMIT, detail)


def _gradients(model: Any, tokens: mx.array) -> Weights:
    _, found = nn.value_and_grad(model, loss)(model, tokens[:, :-1], tokens[:, 1:])
    grads = dict(tree_flatten(found))
    mx.eval(grads)
    return grads


def _differences(model: Any, weights: Weights, grads: Weights, tokens: mx.array) -> Iterator[float]:
    """How far the slope is from the length of the gradient, as a part of it; ends with the first step that fits.

    Weights are moved by `update`, for `load_weights` would lay out all of them anew.
    """
    length, size = _length(grads.values()), _length(weights[name] for name in grads)
    if not length < float("inf"):
        yield float("inf")
        return
    for change in CHANGES if length > 0 else ():
        step = min(change / length, LONGEST * size)
        if step * length < MEASURABLE:
            continue
        ends = []
        for sign in (1, -1):
            model.update(tree_unflatten([(n, weights[n] + sign * step / length * g) for n, g in grads.items()]))
            ends.append(loss(model, tokens[:, :-1], tokens[:, 1:]))
        model.update(tree_unflatten([(name, weights[name]) for name in grads]))
        mx.eval(ends)
        off = abs((number(ends[0]) - number(ends[1])) / (2 * step) - length) / length
        yield off
        if off <= LIMIT / 2:
            return


def _length(arrays: Any) -> float:
    squares = [(array * array).sum() for array in arrays]
    mx.eval(squares)
    return float(sum(map(number, squares))) ** 0.5
