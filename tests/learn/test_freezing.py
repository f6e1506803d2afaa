"""Patterns keep parts from moving, or everything but parts."""

from __future__ import annotations

import pytest
from mlx.utils import tree_flatten

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.freezing import freeze, freeze_rest
from axon_compose.model import LanguageModel
from tests.learn.small import model


def moving(found: LanguageModel) -> set[str]:
    return {name for name, _ in tree_flatten(found.trainable_parameters())}


def test_the_two_divide_a_model() -> None:
    one, other = model(), model()
    every = moving(one)
    kept = freeze(one, ["layers.*.mlp", "embedding"])
    left = freeze_rest(other, ["layers.*.mlp", "embedding"])
    assert kept == left
    assert moving(one) == every - set(kept)
    assert moving(other) == set(kept)


def test_what_cannot_move_stays_though_it_is_named() -> None:
    found = model()
    found.layers[0].mlp.freeze()
    left = freeze_rest(found, ["layers.0"])
    assert left
    assert not any(name.startswith("layers.0.mlp.") for name in left)
    assert moving(found) == set(left)


def test_without_patterns_nothing_moves_and_a_wrong_one_is_refused() -> None:
    found = model()
    with pytest.raises(CheckpointError, match="names no parameter"):
        freeze_rest(found, ["layers.*.mpl"])
    assert freeze_rest(found, []) == []
    assert not moving(found)
