"""The position belongs to the forward pass: read once, before any cache moves on."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import models
import numpy as np
import pytest

from axon_compose.proof.check._batches import with_left_padding
from axon_core.attention import Attention


@pytest.fixture
def offsets(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The position that each attention layer is told, as it is when the whole pass is done."""
    told: list[Any] = []
    original = Attention.__call__

    def call(self: Any, x: mx.array, *arguments: Any, offset: Any = None, **rest: Any) -> Any:
        told.append(offset)
        return original(self, x, *arguments, offset=offset, **rest)

    monkeypatch.setattr(Attention, "__call__", call)
    monkeypatch.setattr(Attention, "residual", lambda *_, **__: None)  # which is not called as a layer is
    return told


def values(told: list[Any]) -> list[Any]:
    return [each.tolist() if isinstance(each, mx.array) else each for each in told]


def test_every_layer_of_a_pass_is_told_the_same(offsets: list[Any]) -> None:
    model = models.model("a b c", a=["attn"], b=["reader"], c=["swa"])
    cache = model.make_cache()
    for length, before in ((5, 0), (1, 5), (7, 6)):
        offsets.clear()
        mx.eval(model(models.tokens(1, length), cache))
        assert values(offsets) == [before] * 3


def test_rows_of_a_batch_count_for_themselves(offsets: list[Any]) -> None:
    """mlx-lm's batch caches add to their offsets in place or anew: neither may reach a pass that has begun."""
    model = models.model("a b c", a=["attn"], b=["reader"], c=["swa"])
    cache = [with_left_padding(leaf, [0, 3]) for leaf in model.make_cache()]
    for length, before in ((5, [0, -3]), (1, [5, 2]), (12, [6, 3]), (1, [18, 15])):
        offsets.clear()
        mx.eval(model(models.tokens(2, length), cache))
        assert values(offsets) == [before] * 3


def test_position_without_a_cache(offsets: list[Any]) -> None:
    mx.eval(models.model("a", a=["attn"])(models.tokens(2, 4)))
    assert values(offsets) == [0]


def test_slot_of_the_position_may_be_a_child() -> None:
    """The first cache that counts tokens is the second child of the second slot."""
    model = models.model("a b", a=["ssm"], b=[{"parallel": ["ssm", "attn"]}])
    assert model.plan.offset == (1, 1)
    row = models.tokens(1, 9)
    cache = model.make_cache()
    got = mx.concatenate([model(row[:, i : i + 1], cache) for i in range(9)], axis=1)
    np.testing.assert_allclose(np.array(got), np.array(model(row)), atol=1e-5)
