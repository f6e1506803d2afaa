"""Widths are changed until figures agree, as far as heads allow."""

from __future__ import annotations

from typing import Any

import pytest
from learn.race.small_race import described

from axon_compose import load
from axon_compose.diagnostics import Refusal
from axon_compose.learn.race._match import Make, figure, matched


def make_of(data: dict[str, Any]) -> Make:
    """The description with other dims."""
    return lambda dims: load({**data, "dims": data["dims"] | dims})


LARGE = described("large", hidden_size=96, intermediate_size=192)
MIXERS = {
    "attention": {"type": "attention", "num_heads": 4},
    "state": {"type": "axon_ssm", "d_state": 4},
    "mamba2": {"type": "mamba2", "head_dim": 8, "d_state": 4},
    "delta": {"type": "gated_delta_net", "num_k_heads": 2, "head_k_dim": 8},
}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("name", ["params", "flops"])
@pytest.mark.parametrize("hidden", [32, 256])
def test_figures_agree_within_one_percent(mixer: str, name: Any, hidden: int) -> None:
    target = figure(load(LARGE), name, 32)
    make = make_of(described("small", MIXERS[mixer], hidden_size=hidden, intermediate_size=64))
    dims = matched(make, name, target, 32, ("hidden_size", "intermediate_size"))
    assert abs(figure(make(dims), name, 32) / target - 1) <= 0.01


def test_the_state_of_attention_is_matched_by_its_width() -> None:
    target = figure(load(LARGE), "state", 32)
    make = make_of(described("small", MIXERS["attention"]))
    dims = matched(make, "state", target, 32, ("hidden_size",))
    assert dims == {"hidden_size": 96}


def test_a_model_that_is_equal_stays_as_it_is() -> None:
    assert matched(make_of(LARGE), "params", figure(load(LARGE), "params", 8), 8, ("hidden_size",)) == {}


def test_what_widths_cannot_reach_is_the_nearest_of_all() -> None:
    """Against every width that heads divide."""
    data = described("small", {"type": "attention", "num_heads": 8})
    make, target = make_of(data), figure(load(LARGE), "params", 8)
    found = matched(make, "params", target, 8, ("hidden_size",))["hidden_size"]
    off = {width: abs(figure(make({"hidden_size": width}), "params", 8) - target) for width in range(16, 400, 16)}
    assert found == min(off, key=lambda width: off[width])


def test_a_dim_that_is_not_there_is_named() -> None:
    with pytest.raises(Refusal) as caught:
        matched(make_of(LARGE), "params", 10, 8, ("width",))
    assert caught.value.code == "AX913"
    assert "`width`" in caught.value.message
    assert "hidden_size" in (caught.value.help or "")
