"""Weights: those that are declared, all of them trained, each of them once; and what quantisation makes of them."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from axon_compose.plan import DTYPES, Plan, weight_nbytes
from axon_compose.proof.check._compare import EXACT, at_most, distance, equal, flags, number
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._sequences import run
from axon_compose.proof.check._slopes import loss
from axon_compose.proof.check._subject import Subject

__all__ = ["gradients", "parameters", "quantized", "tied"]

#: Widest group of 8-bit weights that small sizes allow.
GROUP: Final = 32
#: Dequantised products are summed in another order for one token than for many; the router adds to it.
QUANTIZED: Final = 1e-3
#: How far 8 bits are from the whole weights, measured on shipped architectures: 0.003 to 0.04. A matrix of wrong scale
#: is off by its part of the sum.
NEAR: Final = 0.2


def parameters(subject: Subject) -> Truth:
    """Declared parameters = built parameters, to the byte, in float32 and in bfloat16."""
    plan, faults = subject.plan, []
    for dtype, model in subject.both():
        built = dict(tree_flatten(model.parameters()))
        size = sum(value.nbytes for value in built.values())
        if size != weight_nbytes(plan, dtype):
            faults.append(f"{size:,} bytes in {dtype}, declared {weight_nbytes(plan, dtype):,}")
        kept = {f"{use.path}.{name}" for use in plan.uses() for name in use.spec.float32}
        for name, shape in plan.parameters():
            wanted = mx.float32 if name in kept else getattr(mx, dtype)
            value = built.get(name)
            if value is None or tuple(value.shape) != tuple(shape) or value.dtype != wanted:
                is_ = "missing" if value is None else f"{tuple(value.shape)} {value.dtype}"
                faults.append(f"{name} is {is_}, declared {tuple(shape)} {wanted}")
    detail = "; ".join(faults[:5]) or f"{weight_nbytes(plan, 'float32') // DTYPES['float32']:,} parameters"
    return at_most("parameters", "built parameters match the declared ones, to the byte", len(faults), 0, detail)


def gradients(subject: Subject) -> Truth:
    """Every parameter that can be trained gets a gradient: finite, and not zero."""
    model, vocabulary = subject.model, int(subject.plan.dims.vocab_size)
    # Enough tokens for every expert and every token of the vocabulary.
    tokens = subject.tokens(8, 65)
    model.train()  # what only training leaves out, shows only there
    _, found = nn.value_and_grad(model, loss)(model, tokens[:, :-1], tokens[:, 1:] % vocabulary)
    grads = dict(tree_flatten(found))
    zero = {name: mx.all(grad == 0) for name, grad in grads.items() if grad.size}
    finite = {name: mx.isfinite(grad).all() for name, grad in grads.items()}
    mx.eval(grads, zero, finite)
    model.eval()
    dead = [name for name, is_zero in zero.items() if is_zero.item()]
    wild = [name for name, is_finite in finite.items() if not is_finite.item()]
    notes = [f"no gradient reaches {name}" for name in dead[:5]]
    notes += [f"the gradient of {name} is not finite" for name in wild[:5]]
    notes += [text for name, grad in grads.items() if name not in dead for text in _idle(name, grad)]
    frozen = len(tree_flatten(model.parameters())) - len(grads)
    notes += [f"{frozen} frozen"] if frozen else []
    claim = "a gradient reaches every parameter"
    return at_most(
        "gradients", claim, len(dead) + len(wild), 0, "; ".join([*notes, f"{len(grads)} parameters trained"])
    )


def _idle(name: str, grad: mx.array) -> list[str]:
    """Experts that no token was sent to: matrices of a stack without any gradient."""
    if grad.ndim != 3 or min(grad.shape) <= 1:
        return []
    used = flags(mx.any(grad != 0, axis=(1, 2)))
    idle = [str(i) for i, is_used in enumerate(used) if not is_used]
    return [f"{name}: no token reached {', '.join(idle)}"] if idle else []


def tied(subject: Subject) -> Truth:
    """What is one stays one: after a training step, the saved parameters are all there is to the model."""
    plan, model = subject.plan, subject.fresh("float32")
    tokens = subject.tokens(2, 24)
    _, grads = nn.value_and_grad(model, loss)(model, tokens[:, :-1], tokens[:, 1:])
    optim.SGD(learning_rate=0.5).update(model, grads)
    other = subject.unlike()
    other.load_weights(list(tree_flatten(model.parameters())), strict=True)
    trained = model(tokens)
    figure = distance(other(tokens), trained)
    detail = "a model with the trained parameters is the trained model"
    if not mx.isfinite(trained).all().item():
        detail = "after a training step the outputs are not finite numbers"
    elif not figure <= EXACT:
        detail = "a model with the same parameters gives other outputs: some weights are held elsewhere"
    elif _head_is_tied(plan):
        wrong = _follows(plan, model)
        if wrong:
            figure, detail = float("inf"), wrong
        else:
            detail += "; the head uses the embedding's table"
    return at_most("tied", "tied weights stay tied through a training step", figure, EXACT, detail)


def _head_is_tied(plan: Plan) -> bool:
    return plan.unembedding is plan.embedding and _table(plan) is not None


def _table(plan: Plan) -> str | None:
    rows = plan.embedding.token_rows
    return next((n for n, s in plan.embedding.params.items() if len(s) == 2 and s[0] == rows), None)


def _follows(plan: Plan, model: Any) -> str:
    """What is wrong if one token's vector changes: its own score has to, the others may not."""
    name = _table(plan)
    assert name is not None
    module_name, _, leaf = name.rpartition(".")
    modules = dict(model.embedding.named_modules())
    h = mx.random.normal((1, 3, int(plan.dims.hidden_size)), key=mx.random.key(0))
    before = model.head(h, model.embedding)
    table = modules[module_name][leaf]
    modules[module_name][leaf] = mx.where(mx.arange(table.shape[0])[:, None] == 2, table + 1.0, table)
    moved = mx.abs(model.head(h, model.embedding) - before).max(axis=(0, 1)) > 0
    if not moved[2].item():
        return "the head declares no table of its own, but does not use the embedding's"
    return "" if mx.sum(moved).item() == 1 else "a token's vector changes the scores of other tokens"


def quantized(subject: Subject) -> Truth:
    """A copy in 8 bits runs, computes nearly what the model does, and its caches are as right as before."""
    name, claim = "quantized", "an 8-bit copy runs, stays close to the model, and matches with and without a cache"
    copy = Subject(subject.plan, subject.seed, model=subject.fresh("float32"))
    keep = copy.model.quant_predicate

    def fits(path: str, module: nn.Module) -> bool:
        return keep(path, module) and "weight" in module and module.weight.shape[-1] % GROUP == 0

    count = sum(fits(path, m) for path, m in copy.model.named_modules())
    if not count:
        return Truth(name, claim, True, detail=f"no matrix has rows of a multiple of {GROUP}")
    nn.quantize(copy.model, group_size=GROUP, bits=8, class_predicate=fits)
    tokens = copy.tokens(1, 2 * copy.window + 3)
    off = _typical(copy.forward(tokens), subject.forward(tokens))
    if not off <= NEAR:
        return Truth(name, claim, False, off, NEAR, detail=f"{count} matrices; half of the tokens are off by so much")
    return equal(
        copy,
        name,
        claim,
        [(f"{count} matrices", lambda f: [run(copy, f, tokens, cycle([5, 1]))], lambda f: [f(tokens, None)])],
        QUANTIZED,
    )


def _typical(got: mx.array, wanted: mx.array) -> float:
    """The median distance of tokens: single ones may go to other experts, and then are far off rightly."""
    apart = mx.abs(got - wanted).max(axis=-1) / mx.abs(wanted).max(axis=-1)
    return number(mx.sort(apart.flatten())[apart.size // 2])
