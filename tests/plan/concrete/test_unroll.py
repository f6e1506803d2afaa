"""A file written out again gives the same model, without formulas and generated stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from axon_compose import Architecture, load
from axon_compose.language.document import is_formula
from axon_compose.language.layout import to_text
from axon_compose.plan import Plan
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry
from tests.shipped import VARIED, shipped

REGISTRY = Registry.installed()


def rewritten(architecture: Architecture, folder: Path) -> Architecture:
    path = folder / "concrete.yaml"
    path.write_text(to_text(unroll(architecture.document, architecture.plan(), REGISTRY), ("a comment",)))
    return load(path)


def everything(plan: Plan) -> list[Any]:
    """What decides what a model computes: places, options and wiring of all its parts."""
    outside = [plan.embedding, plan.final_norm, plan.head]
    uses = [use for use in outside if use] + [use for layer in plan.layers for use in layer.uses()]
    parts = [(u.path, u.type, u.options, u.slot, u.masks, dict(u.reads), u.writes, u.params) for u in uses]
    branches = [
        (layer.owner, b.scale, b.residual, b.add, [(m.scale, m.keep) for m in b.members])
        for layer in plan.layers
        for b in layer.branches
    ]
    return [parts, branches, plan.slots, plan.masks, plan.offset]


@pytest.mark.parametrize("name", VARIED)
def test_shipped_architectures_come_back_the_same(name: str, tmp_path: Path) -> None:
    architecture = shipped(name)
    assert everything(rewritten(architecture, tmp_path).plan()) == everything(architecture.plan())


@pytest.mark.parametrize("name", VARIED)
def test_no_formula_is_left_outside_of_the_rules_for_weights(name: str) -> None:
    architecture = shipped(name)
    data = unroll(architecture.document, architecture.plan(), REGISTRY)
    data.pop("huggingface", None)
    data.pop("dims")  # only what those rules need is left, and long lists are written in stretches

    def walk(value: Any) -> None:
        assert not is_formula(value) or value == "=i"  # another value in every layer
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)

    walk(data)
    assert isinstance(data["stack"], str)


def description(**sections: Any) -> dict[str, Any]:
    return {"version": 1, "dims": {"hidden_size": 32, "vocab_size": 64, "n": 8}, **sections}


MLP = {"type": "mlp", "intermediate_size": 48}
ATTENTION = {"type": "attention", "num_heads": 4}


def unrolled(**sections: Any) -> dict[str, Any]:
    architecture = load(description(**sections))
    return unroll(architecture.document, architecture.plan(), REGISTRY)


def test_a_pattern_becomes_a_short_stack_with_a_name_for_each_kind() -> None:
    data = unrolled(
        components={"near": {**ATTENTION, "window_size": 8}, "far": ATTENTION, "mlp": MLP},
        stack={"layers": "=n", "block": ["=near if (i + 1) % 4 else far", "mlp"]},
    )
    assert data["stack"] == "(near*3 far)*2"
    assert data["blocks"] == {"near": ["near", "mlp"], "far": ["far", "mlp"]}


def test_kinds_are_told_apart_by_what_only_one_has() -> None:
    data = unrolled(
        components={"attn": ATTENTION, "mlp": MLP, "moe": {"type": "moe", "num_experts": 4, "intermediate_size": 8}},
        stack={"layers": "=n", "block": ["attn", "=mlp if i < 2 else moe"]},
    )
    assert data["stack"] == "mlp*2 moe*6"


def test_options_that_differ_become_overrides() -> None:
    data = unrolled(
        components={"mlp": {**MLP, "intermediate_size": "=64 if i in [1, 2, 5] else 48"}},
        stack={"layers": "=n", "block": ["mlp"]},
    )
    assert data["components"] == {"mlp": {"type": "mlp", "intermediate_size": 48}}
    assert data["overrides"] == [{"layers": "1..2, 5", "set": {"mlp.intermediate_size": 64}}]


def test_branches_that_formulas_leave_out_are_gone() -> None:
    data = unrolled(
        components={"attn": ATTENTION, "mlp": MLP},
        stack={"layers": 4, "block": ["=attn if i % 2 else null", {"use": "mlp", "norm": "post", "scale": "=1 / 4"}]},
    )
    assert list(data["blocks"].values()) == [
        [{"use": "mlp", "norm": "post", "scale": 0.25}],
        ["attn", {"use": "mlp", "norm": "post", "scale": 0.25}],
    ]


def test_defaults_are_left_out() -> None:
    data = unrolled(
        components={"attn": {**ATTENTION, "bias": False, "rope": {"theta": 1e4, "scaling": None}}},
        stack={"layers": 1, "block": ["attn"]},
        norm={"eps": "=1e-6"},
        head={"tied": True, "softcap": None},
    )
    assert data["components"] == {"attn": {"type": "attention", "num_heads": 4}}
    assert "norm" not in data
    assert "head" not in data


def test_a_final_norm_keeps_what_it_changes_in_the_norm(tmp_path: Path) -> None:
    """Its options stand over those of `norm`, so that a default of the component may be what differs."""
    changes = [
        ["norm={offset: 1.0}", "final_norm={offset: 0.0}"],
        ["norm={type: layer_norm}", "final_norm={bias: true}"],
    ]
    for settings in changes:
        architecture = load("llama-small", settings=settings)
        assert everything(rewritten(architecture, tmp_path).plan()) == everything(architecture.plan())


def test_rules_keep_what_only_a_checkpoint_knows() -> None:
    rules = {
        "a.<l>": {"drop": True, "when": "=l >= n"},
        "b": {"to": "embedding.embed_tokens", "when": "=n > 4"},
        "c": {"to": "embedding.embed_tokens", "when": "=n > 8"},
        "d": {"split": {"norm": "=n * 2"}},
    }
    data = unrolled(
        components={"mlp": MLP},
        stack={"layers": 1, "block": ["mlp"]},
        huggingface={"weights": rules, "model_types": ["x"]},
    )
    assert data["huggingface"] == {
        "weights": {
            "a.<l>": {"drop": True, "when": "=l >= n"},
            "b": "embedding.embed_tokens",
            "d": {"split": {"norm": 16}},
        }
    }
    assert data["dims"] == {"hidden_size": 32, "vocab_size": 64, "n": 8}


def test_long_lists_for_rules_are_written_in_stretches() -> None:
    dims = {"hidden_size": 32, "vocab_size": 64, "rows": [1.5] * 40 + [2e-7] * 24}
    rules = {"l.<l>": {"to": "layers.<l>.mlp", "scale": "=rows if l else 1"}}
    data = unrolled(
        dims=dims,
        components={"mlp": MLP},
        stack={"layers": 1, "block": ["mlp"]},
        huggingface={"weights": rules},
    )
    assert data["dims"]["rows"] == "=[1.5] * 40 + [2e-07] * 24"
    assert load(data).document.dims["rows"] == [1.5] * 40 + [2e-7] * 24


def test_the_text_keeps_lines_short() -> None:
    architecture = load("gpt_oss")
    text = to_text(unroll(architecture.document, architecture.plan(), REGISTRY))
    assert max(map(len, text.splitlines())) <= 120
