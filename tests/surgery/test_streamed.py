"""A model run layer by layer, its weights coming and going, gives what the model gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.model import module_at
from axon_compose.plan import Use
from axon_compose.surgery._streamed import Streamed
from tests.helpers import described

TOKENS = np.random.default_rng(0).integers(0, 64, (2, 12))
LATE = {"type": "attention", "num_heads": 2, "kv_from": "attn"}
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared keys": {
        "components": described()["components"] | {"late": LATE},
        "blocks": {"a": ["attn", "mlp"], "l": ["late"]},
        "stack": "a l a l",
    },
    "shared weights": {
        "blocks": described()["blocks"] | {"a": {"branches": ["attn", "mlp"], "share": "one"}},
        "stack": "a s a",
    },
    "residual scheme": {"residual": {"type": "hyper_connections"}},
    "tied": {"embedding": {"type": "token_embedding", "scale": 2.0}},
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_model(name: str) -> None:
    model = axon_compose.load(described(**MODELS[name])).build(seed=0)
    most, held = 0, 0

    def weights(use: Use) -> Mapping[str, mx.array]:
        nonlocal held
        held += 1
        return dict(tree_flatten(module_at(model, use.path).parameters()))

    streamed = Streamed(model.plan, weights)
    passing = streamed.begin([TOKENS])[0]
    for index in range(len(model.plan.layers)):
        held = 0
        (passing,) = streamed.layer(index, [passing])
        most = max(most, held)
    with streamed.ended() as finish:
        h = finish(passing)
        logits = streamed.model.head(h, streamed.model.embedding)
    assert np.array_equal(np.array(logits), np.array(model(mx.array(TOKENS))))
    assert most <= max(len(list(layer.uses())) for layer in model.plan.layers)  # one layer's weights at a time
