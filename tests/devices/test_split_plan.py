"""The plan of one of several devices: parts, caches, and what stays whole because other components are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from axon_compose.devices import split_plan
from axon_compose.diagnostics import Refusal
from axon_compose.plan import Plan, Use
from axon_compose.registry import KV, PluginFault, Split, columns, rows
from tests.devices.fakes import ATTENTION, MLP, planned

HEADS = {"type": "acme/attention", "heads": 8}
WIDTH = {"type": "acme/mlp", "width": 96}


def usual(*more: Any) -> Plan:
    return planned({"attn": HEADS, "mlp": WIDTH}, {"b": ["attn", "mlp"]}, "b*3", *more)


def use(plan: Plan, name: str, layer: int = 0) -> Use:
    return next(use for use in plan.layers[layer].uses() if use.key == name)


def test_parts_have_their_share_of_parameters_and_caches() -> None:
    whole = usual()
    for rank in range(4):
        tensor = split_plan(whole, 4, rank)
        attn, mlp = use(tensor.plan, "attn"), use(tensor.plan, "mlp")
        assert attn.params == {"q.weight": (16, 32), "o.weight": (32, 16), "kv.weight": (32, 32)}
        assert mlp.params == {"up.weight": (24, 32), "down.weight": (32, 24)}
        assert attn.written["heads"] == 2
        assert attn.shard_output == mlp.shard_output == "sum"
        assert (attn.dims.shard.rank, attn.dims.shard.size) == (rank, 4)
        assert tensor.plan.slots == (KV(2, 8),) * 3
        assert [layer.cache for layer in tensor.plan.layers] == [KV(2, 8)] * 3
        assert (tensor.plan.masks, tensor.plan.offset) == (whole.masks, whole.offset)
        assert [layer.slot for layer in tensor.plan.layers] == [0, 1, 2]


def test_what_every_device_has_is_not_told_of_devices() -> None:
    whole, tensor = usual(), split_plan(usual(), 2, 1)
    assert tensor.plan.final_norm == whole.final_norm
    assert use(tensor.plan, "attn_norm") == use(whole, "attn_norm")
    assert tensor.plan.final_norm.dims.shard.size == 1  # type: ignore[union-attr]
    assert tensor.whole["norm"] == "it works on the residual stream, which every device has"


def test_the_parts_of_all_devices_are_the_whole() -> None:
    whole = usual()
    first, second = (split_plan(whole, 2, rank) for rank in range(2))
    assert [u.params for u in first.plan.uses()] == [u.params for u in second.plan.uses()]
    assert set(first.splits) == {f"layers.{i}.{name}" for i in range(3) for name in ("attn", "mlp")} | (
        set(first.splits) & {"embedding", "head"}
    )
    assert first.splits.keys() | first.whole.keys() == {u.path for u in whole.uses()}


def test_one_device_has_the_model_itself() -> None:
    whole = usual()
    assert split_plan(whole, 1).plan is whole


def test_a_part_that_does_not_divide_is_whole_and_names_its_option() -> None:
    tensor = split_plan(planned({"attn": HEADS | {"heads": 6}, "mlp": WIDTH}, {"b": ["attn", "mlp"]}, "b"), 4)
    assert tensor.whole["layers.0.attn"] == "`heads` (6) is not a multiple of 4 devices"
    assert use(tensor.plan, "attn").shard_output is None
    assert tensor.plan.slots == (KV(6, 8),)
    assert "layers.0.mlp" in tensor.splits


def test_nothing_to_split() -> None:
    with pytest.raises(Refusal, match="no layer of `demo` can be split over 7 devices") as raised:
        split_plan(replace(usual(), name="demo"), 7)
    assert raised.value.code == "AX980"
    assert "`attn`: `heads` (8) is not a multiple of 7 devices" in raised.value.details
    assert "`mlp`: `width` (96) is not a multiple of 7 devices" in raised.value.details


# Values that cross layers.


def sharing(source: dict[str, Any], reader: dict[str, Any]) -> Plan:
    components = {"attn": HEADS | source, "late": HEADS | {"kv_from": "attn"} | reader, "mlp": WIDTH}
    return planned(components, {"a": ["attn"], "b": ["late", "mlp"]}, "a b b")


def test_published_parts_are_read_by_parts() -> None:
    tensor = split_plan(sharing({}, {}), 2)
    assert {"layers.0.attn", "layers.1.late", "layers.2.late"} <= tensor.splits.keys()
    assert tensor.plan.slots == (KV(4, 8),)


def test_a_whole_reader_keeps_its_source_whole_and_that_its_other_readers() -> None:
    data = {
        "attn": HEADS, "late": HEADS | {"kv_from": "attn"}, "alone": HEADS | {"kv_from": "attn", "alone": True},
        "mlp": WIDTH,
    }  # fmt: skip
    tensor = split_plan(planned(data, {"a": ["attn", "mlp"], "b": ["late"], "c": ["alone"]}, "a b c"), 2)
    assert tensor.whole["layers.2.alone"] == "`alone` is true"
    assert tensor.whole["layers.0.attn"] == "`alone` of layer 2 reads `kv` whole"
    assert tensor.whole["layers.1.late"] == "`attn` of layer 0 publishes `kv` whole"
    assert "layers.0.mlp" in tensor.splits


def test_a_whole_source_keeps_its_readers_whole() -> None:
    tensor = split_plan(sharing({"alone": True}, {}), 2)
    assert tensor.whole["layers.1.late"] == "`attn` of layer 0 publishes `kv` whole"
    assert tensor.plan.slots == (KV(8, 8),)


def test_shared_weights_are_cut_once() -> None:
    plan = planned({"attn": HEADS, "mlp": WIDTH}, {"b": {"branches": ["attn", "mlp"], "share": "b"}}, "b*3")
    tensor = split_plan(plan, 2)
    assert [use(tensor.plan, "attn", layer).params for layer in range(3)] == [use(tensor.plan, "attn").params] * 3
    assert tensor.plan.slots == (KV(4, 8),) * 3
    assert [use(tensor.plan, "mlp", layer).shard_output for layer in range(3)] == ["sum"] * 3


# Components side by side.


def side_by_side(*members: Any) -> list[str | None]:
    """What becomes of the outputs of attention and two MLPs that read the same input."""
    components = {"attn": HEADS, "mlp": WIDTH, "other": WIDTH, "whole": HEADS | {"alone": True}}
    plan = planned(components, {"b": [{"parallel": list(members)}]}, "b")
    return [member.use.shard_output for member in split_plan(plan, 2).plan.layers[0].branches[0].members]


def test_what_is_added_anyhow_is_summed_once() -> None:
    assert side_by_side("attn", "mlp") == ["later", "sum"]
    assert side_by_side("attn", "whole", "mlp", "other") == ["later", None, "later", "sum"]


def test_what_is_not_added_as_it_is_is_summed_by_itself() -> None:
    assert side_by_side("attn", {"use": "mlp", "scale": 0.5}) == ["sum", "sum"]
    assert side_by_side("attn", {"use": "mlp", "norm": "post"}, "other") == ["later", "sum", "sum"]
    assert side_by_side("attn", {"use": "mlp", "norm": "pre"}) == ["later", "sum"]


# Quantised weights.


def test_groups_stay_together() -> None:
    plan = usual()
    fits = {"layers.0.attn.o": 16, "layers.0.mlp.up": 32}
    assert {"layers.0.attn", "layers.0.mlp"} <= split_plan(plan, 2, groups=fits).splits.keys()
    tensor = split_plan(plan, 4, groups={"layers.0.attn.o": 32})
    assert tensor.whole["layers.0.attn"] == (
        "`o` is quantised in groups of 32, and parts of its 64 inputs for 4 devices would tear them"
    )
    assert "layers.1.attn" in tensor.splits


def test_biases_of_quantised_matrices_are_in_no_group() -> None:
    state = {"type": "mamba2", "num_heads": 4, "head_dim": 8, "d_state": 4, "bias": True}
    plan = planned({"state": state}, {"b": ["state"]}, "b")
    assert "layers.0.state" in split_plan(plan, 4, groups={"layers.0.state.in_proj": 32}).splits


def test_the_first_way_that_keeps_groups_is_taken() -> None:
    def ways(options: Any, dims: Any, devices: int) -> list[Split]:
        width = options["width"] // devices
        by_width = {"up.weight": rows(96), "down.weight": columns(96)}
        return [Split({"width": width}, by_width), Split(options, {}, output="whole")]

    plan = usual(replace(MLP, split=ways))
    assert use(split_plan(plan, 2).plan, "mlp").shard_output == "sum"
    other = use(split_plan(plan, 2, groups={"layers.0.mlp.down": 32}).plan, "mlp")
    assert (other.shard_output, other.params["down.weight"]) == (None, (32, 96))


# A plugin's faults.


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda o, d, n: 1 / 0, "raises ZeroDivisionError"),
        (lambda o, d, n: None, "gives a `NoneType`, not a `Split` or a reason"),
        (lambda o, d, n: Split(o, {"nose": rows(1)}), "a role of `nose`, which is no parameter"),
        (lambda o, d, n: Split({"width": 48}), "whose `down.weight` has (32, 48), where its cut leaves (32, 96)"),
        (lambda o, d, n: Split(o, {"up.weight": rows(95)}), "cut of `up.weight` that does not fit its shape (96, 32)"),
        (lambda o, d, n: Split(o, {"up.weight": rows(96, 5)}), "a cut of `up.weight` that does not divide"),
        (lambda o, d, n: Split({"widht": 48}), "options that it does not take"),
        (lambda o, d, n: Split(o, output="half"), "gives the output 'half'"),  # type: ignore[arg-type]
    ],
    ids=["raises", "none", "parameter", "shape", "size", "units", "options", "output"],
)  # fmt: skip
def test_a_split_that_is_wrong_is_told_with_its_component(answer: Any, told: str) -> None:
    with pytest.raises(PluginFault) as raised:
        split_plan(usual(replace(MLP, split=answer)), 2)
    assert raised.value.code == "AX212"
    assert "`acme/mlp` (`mlp` in layer 0" in str(raised.value)
    assert told in str(raised.value)


def test_another_kind_of_cache() -> None:
    def split(options: Any, dims: Any, devices: int) -> Split:
        return Split({**options, "window": 4}, {})

    schema = {**ATTENTION.options, "properties": {**ATTENTION.options["properties"], "window": {"type": "integer"}}}  # type: ignore[dict-item,index]
    windowed = replace(
        ATTENTION, options=schema, split=split, cache=lambda o, d: KV(o["heads"], 8, window=o.get("window"))
    )
    with pytest.raises(PluginFault, match="another kind of cache"):
        split_plan(usual(windowed), 2)
