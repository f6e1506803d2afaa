"""Heads in the order of llama.cpp, and back: numbers keep their values, packed ones their words."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from axon_compose.checkpoints.weights._llama_cpp_steps import TilesToGroups
from axon_compose.checkpoints.weights._packed import Packed, Packing, to_packed
from axon_compose.checkpoints.weights._steps import StepError


def order(repeats: int, groups: int, size: int, before: int) -> list[int]:
    """Where each entry of the grouped axis lies among the tiles."""
    heads = [before + (repeat * groups + group) * size for group in range(groups) for repeat in range(repeats)]
    return [*range(before), *(start + at for start in heads for at in range(size))]


@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tiles_become_groups_and_tiles_again(axis: int, before: int) -> None:
    step = TilesToGroups(3, 2, 4, axis)
    shape = [2, 3, 4]
    shape[axis] = before + 24
    array = np.random.default_rng(0).normal(size=shape)
    found = step.apply(array)
    assert step.shape(array.shape) == found.shape
    assert (found == np.take(array, order(3, 2, 4, before), axis)).all()
    assert (step.undo(found) == array).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_packed_numbers_stay_packed(axis: int) -> None:
    packed = to_packed(mx.random.normal((256, 256), key=mx.random.key(0)), Packing(4, 32))
    found = TilesToGroups(2, 2, 64, axis).apply(packed)
    assert isinstance(found, Packed)
    assert (np.array(found.dense()) == np.take(np.array(packed.dense()), order(2, 2, 64, 0), axis)).all()


def test_heads_that_cut_groups_are_unpacked() -> None:
    packed = to_packed(mx.random.normal((4, 64), key=mx.random.key(0)), Packing(4, 32))
    found = TilesToGroups(2, 2, 16, 1).apply(packed)
    assert not isinstance(found, Packed)
    assert (np.array(found) == np.array(packed.dense())[:, order(2, 2, 16, 0)]).all()


def test_an_axis_without_room_is_an_error() -> None:
    with pytest.raises(StepError, match=r"axis 0 of \[7\] does not end with 4 heads of 2"):
        TilesToGroups(2, 2, 2).shape((7,))
    with pytest.raises(StepError):
        TilesToGroups(2, 2, 2, 1).shape((8,))
