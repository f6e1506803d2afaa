"""What each device keeps of a parameter: parts of equal size, in order, units whole."""

from __future__ import annotations

import numpy as np
import pytest

from axon_compose.registry import Cut, Dims, Segment, Shard, columns, rows


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_in_order_are_the_whole(size: int) -> None:
    whole = np.arange(24)
    cut = rows(24, units=8)
    parts = [whole[first:end] for rank in range(size) for first, end in cut.ranges(rank, size)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert len({len(part) for part in parts}) == 1


def test_fewer_units_than_devices_are_shared_by_neighbours() -> None:
    assert [rows(6, units=2).ranges(rank, 4) for rank in range(4)] == [((0, 3),), ((0, 3),), ((3, 6),), ((3, 6),)]


def test_segments_are_cut_one_by_one() -> None:
    """A fused projection: two heads of queries, one head of keys, and two numbers that every device has."""
    cut = Cut(0, (Segment(4, 2), Segment(2, 1), Segment(2, None)))
    assert cut.ranges(1, 2) == ((2, 4), (4, 6), (6, 8))


@pytest.mark.parametrize(("entries", "units", "size"), [(9, 3, 2), (10, 4, 2), (6, 6, 4)])
def test_unequal_parts_are_refused(entries: int, units: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"{entries} entries in {units} units"):
        columns(entries, units).ranges(0, size)


@pytest.mark.parametrize(("entries", "units", "size"), [(10, 10, 4), (10, 5, 2), (5, 5, 4), (3, 3, 4), (8, 8, 4)])
def test_padded_parts_are_rounded_up(entries: int, units: int, size: int) -> None:
    """Together they are the whole in order, with zeros after it."""
    cut, whole = rows(entries, units, padded=True), np.arange(entries)
    parts = [whole[slice(*both)] for rank in range(size) for both in cut.ranges(rank, size)]
    assert np.array_equal(np.concatenate(parts), whole)
    each = -(-units // size) * (entries // units)
    assert cut.length(size) == each
    padded = [np.pad(part, (0, each - len(part)), constant_values=-1) for part in parts]
    assert np.array_equal(np.concatenate(padded)[:entries], whole)
    with pytest.raises(ValueError, match="only the last segment"):
        Cut(0, (*cut.segments, Segment(2, 2)))


def test_a_model_that_is_not_split_is_a_shard_of_one() -> None:
    shard = Dims({"hidden_size": 8, "vocab_size": 16}).shard
    assert (shard, shard.sum(3)) == (Shard(0, 1), 3)
