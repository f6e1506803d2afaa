"""Small copies keep the structure; nothing large is ever built."""

from __future__ import annotations

from typing import Any

import pytest

import axon_compose
from axon_compose.plan import Plan, total_parameters
from axon_compose.proof.check import shrink, small_architecture
from axon_compose.registry import ComponentSpec, Dims, Registry
from tests.helpers import described


def small(source: Any, **keywords: Any) -> Plan:
    return small_architecture(axon_compose.load(source, **keywords).plan()).plan()


def blocks(plan: Plan) -> list[str]:
    return [layer.block for layer in plan.layers]


def test_bit_axon() -> None:
    plan = small("bit-axon")
    assert blocks(plan) == [*["absorb"] * 2, *["reason"] * 2, *["synthesize"] * 2]
    assert total_parameters(plan) < 500_000
    assert plan.dims["embedding_size"] != plan.dims["hidden_size"]  # a factored table stays factored
    assert len(plan.slots) == 6


@pytest.mark.parametrize("name", ["hybrid-demo", "llama-small", "parallel-hybrid", "shared-kv", "bit-axon-small"])
def test_is_its_own_small_copy(name: str) -> None:
    description = shrink(axon_compose.load(name).plan())
    once = axon_compose.load(description).plan()
    assert shrink(once) == description


LOCAL = {"type": "attention", "num_heads": 32, "num_kv_heads": 8, "window_size": 1024, "head_dim": 128}
MIXED: dict[str, Any] = {
    "version": 1,
    "name": "mixed",
    "dims": {"hidden_size": 4096, "vocab_size": 50000, "heads": [32, 16, 8] * 4},
    "components": {
        "global": {"type": "attention", "num_heads": "=heads[i]", "num_kv_heads": "=heads[i] // 4", "head_dim": 128},
        "local": LOCAL,
        "reader": {**LOCAL, "kv_from": "local"},
        "mlp": {"type": "mlp", "intermediate_size": "=hidden_size * 4"},
        "moe": {"type": "moe", "num_experts": 64, "top_k": 8, "intermediate_size": 2048},
    },
    "blocks": {
        "wide": [
            {"use": "global", "norm": "sandwich", "scale": "=1 / (i + 1)"},
            {"use": "moe", "as": "later"},
            {"parallel": [{"use": "mlp", "scale": 0.5}, "local"], "norm": "post"},
            {"add": "later", "scale": 0.25},
        ],
        "read": ["reader", {"use": "mlp", "norm": "none"}],
        "one": {"branches": ["local", "mlp"], "share": "weights"},
    },
    "stack": "wide*6 read*3 one*3",
    "norm": {"type": "layer_norm", "bias": False},
    "final_norm": "none",
    "head": {"tied": False, "softcap": 30.0},
}  # fmt: skip


def test_everything_that_a_block_can_say() -> None:
    plan = small(MIXED)
    # The last `wide` layer stays as well, since the readers read from it.
    assert [name.partition("_")[0] for name in blocks(plan)] == [*["wide"] * 3, "read", "read", "one", "one", "one"]
    wide, read, one = plan.layers[0], plan.layers[3], plan.layers[-1]
    sandwich, kept, parallel, added = wide.branches
    assert (sandwich.pre is not None, sandwich.post is not None, sandwich.scale) == (True, True, 1.0)
    assert plan.layers[1].branches[0].scale == 0.5
    assert kept.members[0].keep == added.add == "later"
    assert added.scale == 0.25
    assert [(member.use.name, member.scale) for member in parallel.members] == [("mlp", 0.5), ("local", 1.0)]
    assert (parallel.pre, parallel.post is not None) == (None, True)
    assert parallel.post.type == "core/layer_norm"
    assert parallel.post.written == {"bias": False}
    assert next(iter(read.uses())).type == "core/layer_norm"
    assert read.branches[1].pre is None
    assert one.owner == 5
    assert plan.final_norm is None
    assert plan.head.options.softcap == 30.0
    source = next(use for use in read.uses() if use.name == "reader").reads["kv"]
    assert source == "2.local.kv"


@pytest.mark.parametrize("count", [1, 2])
def test_norms_of_components_side_by_side_stay(count: int) -> None:
    members = [{"use": "mlp", "norm": "sandwich"}, {"use": "attn", "norm": {"eps": 0.5}}][:count]
    data = described(blocks={"a": [{"parallel": members, "norm": "post"}]}, stack="a")
    (branch,) = small(data).layers[0].branches
    assert (branch.pre, branch.post is not None) == (None, True)
    places = [(member.pre is not None, member.post is not None) for member in branch.members]
    assert places == [(True, True), (True, False)][:count]
    last = branch.members[-1].pre
    assert last is not None
    assert last.written == ({"eps": 0.5} if count == 2 else {})


def test_layers_of_one_kind_with_other_widths() -> None:
    """Head counts that differ by layer become few: the second layer of a kind is enough."""
    plan = small({**MIXED, "stack": "wide*12"})
    heads = [next(u for u in layer.uses() if u.name.startswith("global")).options.num_heads for layer in plan.layers]
    assert heads == [4, 4]


def test_a_component_that_cannot_be_made_small() -> None:
    """Without `shrink` sizes stay, and the width grows until the component can live with it."""

    def params(options: Any, dims: Dims) -> dict[str, tuple[int, ...]]:
        if dims.hidden_size % 96:
            raise ValueError("hidden_size must be a multiple of 96")
        return {"weight": (dims.hidden_size,)}

    spec = ComponentSpec("picky", "layer", {"type": "object"}, "nowhere:Picky", "A layer of one width.", params=params)
    registry = Registry.with_plugins({"acme": [spec]})
    description = {
        "version": 1,
        "name": "m",
        "dims": {"hidden_size": 192, "vocab_size": 7},
        "components": {"picky": "acme/picky"},
        "blocks": {"layer": ["picky"]},
        "stack": "layer",
    }
    plan = small(description, registry=registry)
    assert plan.dims.hidden_size == 192
    assert plan.dims.vocab_size == 7
