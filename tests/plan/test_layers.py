"""How branches become components, norms and names of weights."""

from __future__ import annotations

from typing import Any

import pytest

from axon_compose import load
from axon_compose.plan import Layer, total_parameters
from tests.helpers import codes, described, faults, planned


def layer_of(block: Any, **sections: Any) -> Layer:
    return planned(blocks={"a": block}, stack="a", **sections).layers[0]


def keys(layer: Layer) -> list[str]:
    return [use.key for use in layer.uses()]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (["attn", "mlp"], "attn_norm attn mlp_norm mlp"),
        ([{"use": "attn", "norm": "pre"}], "attn_norm attn"),
        ([{"use": "attn", "norm": "post"}], "attn attn_post_norm"),
        ([{"use": "attn", "norm": "sandwich"}], "attn_norm attn attn_post_norm"),
        ([{"use": "attn", "norm": "none"}], "attn"),
        ([{"parallel": ["ssm", "attn"]}, "mlp"], "ssm_attn_norm ssm attn mlp_norm mlp"),
        (
            [{"parallel": [{"use": "mlp", "norm": "sandwich"}, {"use": "ssm", "norm": "post"}], "norm": "post"}],
            "mlp_norm mlp mlp_post_norm ssm ssm_post_norm mlp_ssm_post_norm",
        ),
        ([{"parallel": [{"use": "mlp", "norm": "pre"}]}], "mlp_norm_2 mlp_norm mlp"),
        (["attn", "attn"], "attn_norm attn attn_2_norm attn_2"),
        (
            ["attn", {"parallel": ["mlp", {"use": "swa", "as": "s"}]}, {"add": "s"}],
            "attn_norm attn mlp_swa_norm mlp swa",
        ),
    ],
)
def test_names_of_weights(block: Any, expected: str) -> None:
    assert keys(layer_of(block)) == expected.split() or sorted(keys(layer_of(block))) == sorted(expected.split())
    paths = {use.path for use in layer_of(block).uses()}
    assert paths == {f"layers.0.{key}" for key in expected.split()}


def test_a_component_named_like_a_norm_keeps_its_own_place() -> None:
    components = {"x": {"type": "mlp", "intermediate_size": 8}, "x_norm": {"type": "mlp", "intermediate_size": 8}}
    layer = layer_of(["x_norm", "x"], components=components)
    assert len(set(keys(layer))) == len(keys(layer)) == 4


def test_a_branch_may_have_a_norm_of_its_own() -> None:
    layer = layer_of([{"use": "attn", "norm": {"type": "layer_norm", "place": "post"}}, "mlp"])
    first, second = layer.branches
    assert first.pre is None
    assert first.post is not None
    assert first.post.type == "core/layer_norm"
    assert second.pre is not None
    assert second.pre.type == "core/rms_norm"


def test_a_component_side_by_side_may_have_a_norm_of_its_own() -> None:
    members = [
        "attn",
        {"use": "mlp", "norm": {"eps": 0.25}},
        {"use": "ssm", "norm": {"type": "layer_norm", "place": "post"}},
    ]
    first, second, third = layer_of([{"parallel": members}], norm={"num_groups": 2}).branches[0].members
    assert (first.pre, first.post, second.post, third.pre) == (None, None, None, None)
    assert second.pre is not None
    assert (second.pre.type, second.pre.written) == ("core/rms_norm", {"num_groups": 2, "eps": 0.25})
    assert third.post is not None
    assert (third.post.type, third.post.written) == ("core/layer_norm", {})


def test_a_faulty_norm_of_a_component_is_told_at_its_place() -> None:
    data = described(blocks={"a": [{"parallel": ["mlp", {"use": "ssm", "norm": {"epz": 1}}]}]}, stack="a")
    (fault,) = faults(data)
    assert fault.code == "AX101"
    assert "epz" in fault.message
    data["blocks"] = {"a": ["mlp"], "unused": [{"parallel": ["mlp", {"use": "ssm", "norm": {"epz": 1}}]}]}
    assert codes(data) == ["AX101"]
    data["blocks"] = {"a": [{"use": "mlp", "norm": "middle"}], "b": [{"parallel": [{"use": "ssm", "norm": "middle"}]}]}
    assert codes(data) == ["AX102", "AX102"]


def test_options_of_the_files_norm_reach_every_branch() -> None:
    plan = planned(norm={"eps": 1e-5})
    norms = [b.pre for layer in plan.layers for b in layer.branches]
    assert all(norm is not None and norm.options.eps == 1e-5 for norm in norms)
    assert plan.final_norm is not None
    assert plan.final_norm.options.eps == 1e-5


def test_the_final_norm_can_be_left_out_or_differ() -> None:
    assert planned(final_norm="none").final_norm is None
    norm = planned(final_norm={"eps": 0.5}, norm={"type": "layer_norm"}).final_norm
    assert norm is not None
    assert (norm.type, norm.options.eps) == ("core/layer_norm", 0.5)


def test_scales_are_kept() -> None:
    layer = layer_of(
        [{"use": "attn", "scale": 0.5}, {"parallel": [{"use": "ssm", "scale": "=1 / 4"}, "mlp"], "scale": 2}]
    )
    assert [branch.scale for branch in layer.branches] == [0.5, 2.0]
    assert [member.scale for member in layer.branches[1].members] == [0.25, 1.0]


def test_whole_blocks_replace_the_stream() -> None:
    components = {
        "absorb": {
            "type": "axon_ssm_block",
            "ssm_d_state": 4,
        }
    }
    found = described(components=components, blocks={"a": ["absorb"]}, stack="a")
    layer = load(found).plan().layers[0]
    assert layer.branches[0].residual is False
    assert layer.branches[0].pre is None
    found["blocks"] = {"a": [{"use": "absorb", "norm": "post"}]}
    assert codes(found) == ["AX147"]


def test_overrides_change_only_their_layers() -> None:
    four = {"layers": "1..2", "set": {"swa.window_size": 4}}
    two = {"layers": [0, "4..5"], "set": {"swa.window_size": 2}}
    plan = planned(stack="w*6", overrides=[four, two])
    assert [layer.cache.window for layer in plan.layers] == [2, 4, 4, 8, 2, 2]  # type: ignore[union-attr]


def test_an_override_reaches_into_nested_options() -> None:
    plan = planned(
        components={"attn": {"type": "attention", "num_heads": 2, "rope": {"theta": 100.0, "fraction": 0.5}}},
        blocks={"a": ["attn"]},
        stack="a*2",
        overrides=[{"layers": 1, "set": {"attn.rope.theta": "=10.0 ** 6"}}],
    )
    ropes = [layer.branches[0].members[0].use.options.rope for layer in plan.layers]
    assert [(rope.theta, rope.fraction) for rope in ropes] == [(100.0, 0.5), (1e6, 0.5)]


def test_shared_weights_count_once() -> None:
    alone = planned(blocks={"a": ["mlp"]}, stack="a")
    shared = planned(blocks={"a": {"branches": ["mlp"], "share": "trunk"}}, stack="a*3")
    assert total_parameters(shared) == total_parameters(alone)
    assert [layer.owner for layer in shared.layers] == [None, 0, 0]
    assert {use.path for layer in shared.layers for use in layer.uses()} == {"layers.0.mlp", "layers.0.mlp_norm"}


def test_two_blocks_may_share_if_they_are_alike() -> None:
    blocks = {"a": {"branches": ["mlp"], "share": "t"}, "b": {"branches": [{"use": "mlp", "scale": 0.5}], "share": "t"}}
    assert [layer.owner for layer in planned(blocks=blocks, stack="a b").layers] == [None, 0]


def test_shared_weights_keep_their_caches_apart() -> None:
    plan = planned(blocks={"a": {"branches": ["attn"], "share": "t"}}, stack="a*3")
    assert [layer.slot for layer in plan.layers] == [0, 1, 2]


def test_all_faults_of_a_file_are_told() -> None:
    data = described(
        components={"attn": {"type": "attention", "num_heads": 0}, "mlp": {"type": "mpl"}},
        blocks={"a": ["attn", "mlq"], "b": [{"add": "nothing"}]},
        stack="a b c",
        overrides=[{"layers": "2-3", "set": {"attn.num_heads": 2}}],
        typo=1,
    )
    expected = "AX101 AX102 AX132 AX136 AX140 AX144 AX202"
    assert sorted(fault.code for fault in faults(data)) == expected.split()
