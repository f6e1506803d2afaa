"""A teacher for a model whose vocabulary was cut: the source with the tokens that stayed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from axon_compose.diagnostics import Problems
from axon_compose.model import LanguageModel, random_weights
from axon_compose.plan import compile_node
from axon_compose.registry import Registry
from axon_compose.surgery._changed import other_tokens
from axon_compose.surgery._draft import Draft
from axon_compose.surgery._making import Made
from axon_compose.surgery._plan import makings_of
from axon_compose.surgery._rows import NoRows
from axon_compose.surgery._tokens import NewTokens
from axon_compose.surgery._vocabulary import give_tokens

__all__ = ["of_tokens"]


def of_tokens(model: LanguageModel, kept: Sequence[int]) -> LanguageModel:
    r"""A model that knows some tokens of another one, under their places in a list.

    With the logits u of the whole model for the tokens :math:`k(t)`, its own for the tokens t are :math:`u_{k(v)}`, so
    what it predicts is

    .. math::
        \frac{e^{u_{k(v)}}}{\sum_w e^{u_{k(w)}}},

    the whole model's prediction, made to sum to one over the tokens that are left.

    Args:
        model: The whole model, its weights plain numbers. It is not changed, and shares all weights without rows.
        kept: k, tokens of the whole model, each of them once.

    Raises:
        CheckpointError: AX954 a part of the model depends on the tokens in another way than by rows.
    """
    assert model.compiled is not None
    registry, problems = Registry.installed(), Problems()
    draft = Draft(model.compiled, registry)
    try:
        give_tokens(draft, NewTokens({}, tuple((token,) for token in kept)))
    except NoRows as fault:
        raise other_tokens(model.plan.name, f"cannot be asked about some of its tokens ({fault})") from fault
    config = model.compiled.config
    compiled = compile_node(draft.node(problems), Path(), config=config, registry=registry, problems=problems)
    plan = compiled.plan()
    made = [making for _, making in makings_of(draft, plan) if isinstance(making, Made)]
    axes = {f"{making.use.path}.{name}": axis for making in made for name, axis in making.axes.items()}
    found = random_weights(plan, as_made=True)  # lazy, and never computed
    rows = mx.array(list(kept))
    weights = [
        (name, value if (axis := axes.get(model.plan_name(name))) is None else mx.take(value, rows, axis=axis))
        for name, value in tree_flatten(model.parameters())
    ]
    found.load_weights(weights)
    mx.eval(found.parameters())
    found.compiled = compiled
    found.eval()
    return found
