"""Where a stack is cut for a pipeline, and what goes over the cuts."""

from __future__ import annotations

import random
from itertools import combinations, pairwise
from typing import Any

import pytest

from axon_compose import load
from axon_compose.analysis.balance import balanced_stages
from axon_compose.devices import given_stages, layer_loads, pipeline_plan, require_own_weights, stages
from axon_compose.devices._stages import _balanced
from axon_compose.diagnostics import Refusal
from axon_compose.plan import Plan
from axon_compose.registry import KV, State
from tests.helpers import planned
from tests.shipped import shipped

READERS = {
    "components": {
        "attn": {"type": "attention", "num_heads": 2},
        "reader": {"type": "attention", "num_heads": 2, "kv_from": "attn"},
        "swa": {"type": "sliding_window_attention", "num_heads": 2, "window_size": 8},
        "ssm": {"type": "axon_ssm", "d_state": 4},
    },
    "blocks": {"a": ["attn"], "r": ["reader"], "s": ["ssm"], "w": ["swa"]},
}


def lengths(plan: Plan, size: int, loads: list[float] | None = None) -> list[int]:
    return [len(stage) for stage in stages(plan, size, loads)]


@pytest.mark.parametrize(("size", "expected"), [(1, [10]), (2, [5, 5]), (3, [3, 3, 4]), (4, [2, 2, 3, 3])])
def test_equal_layers_are_divided_evenly_and_the_last_stages_get_the_extra_ones(size: int, expected: list[int]) -> None:
    assert lengths(planned(stack="a*10"), size) == expected


def test_the_largest_stage_is_as_small_as_of_any_cut() -> None:
    draw = random.Random(0)
    for _ in range(200):
        loads = [draw.randint(0, 9) ** 2 for _ in range(draw.randint(1, 9))]
        size = draw.randint(1, len(loads))
        bounds = _balanced(loads, size)
        assert bounds[0] == 0
        assert bounds[-1] == len(loads)
        assert bounds == sorted(set(bounds))
        assert len(bounds) == size + 1

        def sums(cuts: Any, loads: list[int] = loads) -> list[int]:
            return [sum(loads[first:last]) for first, last in pairwise(cuts)]

        every = [sums((0, *cuts, len(loads))) for cuts in combinations(range(1, len(loads)), size - 1)]
        best = min((max(found), sum(each**2 for each in found)) for found in every)
        assert (max(sums(bounds)), sum(each**2 for each in sums(bounds))) == best


def test_experts_weigh_by_what_they_hold_and_by_what_they_compute() -> None:
    # Of four layers the last holds eight times as much, and computes as much as the others.
    loads = layer_loads([1, 1, 1, 8], [5, 5, 5, 5])
    assert sum(loads) == pytest.approx(1)
    assert loads[3] == pytest.approx(8 / 22 + 1 / 8)
    assert lengths(planned(stack="a*4"), 2, loads) == [3, 1]
    assert layer_loads([1, 3], [None, 5]) == [0.25, 0.75]


def test_a_table_is_on_the_first_stage_with_the_head_that_reads_it_and_other_heads_on_the_last_one() -> None:
    table: dict[str, Any] = {"dims": {"hidden_size": 32, "vocab_size": 2**16}, "stack": "a*8"}
    tied, own = planned(**table), planned(**table, head={"tied": False})
    for plan, lengths, head in ((tied, [1, 7], 0), (own, [6, 2], 1)):
        ranges = balanced_stages(plan, 2)
        assert [len(stage) for stage in ranges] == lengths
        assert pipeline_plan(plan, ranges).head == head


def test_readers_stay_with_the_layer_whose_keys_they_read() -> None:
    plan = planned(**READERS, stack="s s a r r r r r")
    assert stages(plan, 2) == (range(2), range(2, 8))
    assert stages(plan, 3) == (range(1), range(1, 2), range(2, 8))
    assert not any(visit.values for visit in pipeline_plan(plan, stages(plan, 3)).visits)


def test_where_there_is_no_other_place_the_fewest_readers_are_parted() -> None:
    plan = planned(**READERS, stack="a r a r")
    found = pipeline_plan(plan, stages(plan, 3))
    parted = [visit for visit in found.visits if visit.values]
    assert [visit.values for visit in parted] in ([("0.attn.kv",)], [("2.attn.kv",)])
    assert parted[0].varies


def test_values_go_from_stage_to_stage_until_the_last_one_that_reads_them() -> None:
    plan = shipped("gemma3n_text").plan()
    found = pipeline_plan(plan, given_stages(plan, [10, 10, 15]))
    assert [stage.layers for stage in found.stages] == [range(10), range(10, 20), range(20, 35)]
    assert [visit.varies for visit in found.visits] == [False, False, True]
    assert found.visits[1].values == ("embedding.per_layer_inputs",)
    assert set(found.visits[2].values) == {"embedding.per_layer_inputs", "18.local.kv", "19.full.kv"}
    assert found.head == 0


def test_matrices_that_later_layers_use_come_once() -> None:
    plan = shipped("zamba2").plan()
    found = pipeline_plan(plan, stages(plan, 2)).visits[1]
    assert "embedding.vectors" in found.values
    assert "embedding.vectors" not in found.constant
    assert found.constant
    assert all(value.endswith(".weights") for value in found.constant)
    assert not found.varies


def test_layers_with_the_weights_of_others_run_where_those_are() -> None:
    plan = planned(blocks={"a": {"branches": ["attn", "mlp"], "share": "=i % 3"}}, stack="a*6")
    ranges = stages(plan, 2)
    assert ranges == (range(1), range(1, 3))
    found = pipeline_plan(plan, ranges)
    assert [(visit.stage, visit.layers) for visit in found.visits] == [
        (0, range(1)),
        (1, range(1, 3)),
        (0, range(3, 4)),
        (1, range(4, 6)),
    ]
    assert [len(stage.slots) for stage in found.stages] == [2, 4]
    with pytest.raises(Refusal, match="3 layers with weights of their own"):
        stages(plan, 4)


def test_every_stage_has_a_cache_of_each_kind() -> None:
    plan = planned(**READERS, stack="s w a s w a")
    first, second, third = pipeline_plan(plan, given_stages(plan, [1, 1, 4])).stages
    assert first.slots == (plan.slots[0], KV(1, 1, 0, 8), KV(1, 1, 0))
    assert first.counting == 2
    assert second.slots[0] == plan.slots[1]
    assert second.counting == 2
    assert isinstance(second.slots[1], State)
    assert second.slots[2] == KV(1, 1, 0)
    assert third.slots == plan.slots[2:]
    assert third.counting == 0
    assert first.places == {0: 0}
    assert third.places == {2: 0, 3: 1, 4: 2, 5: 3}
    assert [group.slot for group in plan.masks] == [(0,), (1,), (2,)]
    assert [group.slot for group in first.masks] == [(0,), (1,), (2,)]
    assert [group.slot for group in third.masks] == [(1,), (2,), (0,)]
    assert (first.offset, second.offset, third.offset) == ((1,), (0,), (0,))


def test_a_cache_inside_of_a_layers_own_is_found() -> None:
    plan = planned(blocks={"a": ["attn"], "b": [{"parallel": ["ssm", "swa"]}]}, stack="a b")
    second = pipeline_plan(plan, stages(plan, 2)).stages[1]
    assert second.offset == (0, 1)
    assert second.counting == 1
    assert {group.kept: group.slot for group in second.masks if group.kind == "kv"} == {None: (1,), 8: (0, 1)}


def test_a_model_without_caches_has_none_in_a_pipeline() -> None:
    plan = planned(blocks={"a": ["mlp"]}, stack="a*2")
    assert [stage.slots for stage in pipeline_plan(plan, stages(plan, 2)).stages] == [(), ()]


@pytest.mark.parametrize("size", [0, 5])
def test_more_devices_than_layers(size: int) -> None:
    with pytest.raises(Refusal) as caught:
        stages(planned(stack="a*4"), size)
    assert caught.value.code == "AX990"


@pytest.mark.parametrize("numbers", [[], [4, 1], [5, -1], [4, 0], [2]])
def test_given_numbers_of_layers_that_are_not_those_of_the_model(numbers: list[int]) -> None:
    with pytest.raises(Refusal) as caught:
        given_stages(planned(stack="a*4"), numbers)
    assert caught.value.code == "AX990"
    assert "4 layers" in str(caught.value)


def test_every_shipped_architecture_can_be_cut() -> None:
    for name in ("bit-axon-small", "gemma4_text", "nanbeige", "glm_moe_dsa", "deepseek_v4"):
        plan = load(name).plan()
        for size in (2, 4):
            found = pipeline_plan(plan, balanced_stages(plan, size))
            run = [index for visit in found.visits for index in visit.layers]
            assert run == list(range(len(plan.layers)))
            assert sum(len(stage.slots) - stage.counting for stage in found.stages) == len(plan.slots)


def test_shared_weights_between_others_are_nothing_that_mlx_lm_can_load() -> None:
    loop = planned(blocks={"a": {"branches": ["attn"], "share": "=i % 3"}}, stack="a*6")
    require_own_weights(loop)
    between = planned(blocks={"a": {"branches": ["attn"], "share": "one"}, "s": ["ssm"]}, stack="a s a a s a")
    with pytest.raises(Refusal, match=r"layers 2\.\.3 of .* use the weights of earlier ones") as caught:
        require_own_weights(between)
    assert caught.value.code == "AX991"
