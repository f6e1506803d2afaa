"""Models of which several devices have a part each give what the whole model gives, on every device."""

from __future__ import annotations

import mlx.core as mx
import pytest

from axon_compose.devices import split_plan
from axon_compose.diagnostics import Refusal
from axon_compose.model import LanguageModel
from axon_compose.proof.check._batches import with_left_padding
from tests.devices.parts import VOCABULARY, far, small, together
from tests.shipped import VARIED

#: Of the largest logit.
ROUNDING = 2e-6
TOKENS = 21
#: Ends of passes with caches: chunks, and then single tokens.
ENDS = (7, 16, 17, 18, 19, 20, TOKENS)
#: Tokens before the rows of a batch.
PADDING = [0, 3]


def passes(model: LanguageModel) -> list[mx.array]:
    """Logits of a plain pass, of chunks and single tokens with caches, and of a batch that is padded on the left."""
    tokens = mx.random.randint(0, VOCABULARY, (2, TOKENS), key=mx.random.key(3))
    found = [model(tokens)]
    for cache in (model.make_cache(), [with_left_padding(each, PADDING) for each in model.make_cache()]):
        start, steps = 0, list[mx.array]()
        for end in ENDS:
            steps.append(model(tokens[:, start:end], cache))
            mx.eval(steps[-1])
            start = end
        found.append(mx.concatenate(steps, axis=1))
    padded = mx.arange(TOKENS)[None] < mx.array(PADDING)[:, None]
    found[-1] = mx.where(padded[..., None], 0, found[-1])
    return found


@pytest.mark.parametrize("name", VARIED)
def test_logits_are_those_of_the_whole_model(name: str) -> None:
    model = small(name).model
    wanted = passes(model)
    for size in (2, 4):
        try:
            split_plan(model.plan, size)
        except Refusal:
            assert size == 4  # a vocabulary and widths that two divide
            continue
        for found in together(model, size, passes):
            assert [far(one, other) <= ROUNDING for one, other in zip(found, wanted, strict=True)] == [True] * 3
