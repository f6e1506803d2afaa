"""Attention, feed-forward layers, tables and heads split over devices, with options that their examples do not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from axon_compose.devices import split_plan
from axon_compose.diagnostics import Refusal
from axon_compose.model import random_weights
from axon_compose.model._folder_model import modules_of
from axon_compose.model._shard import quantised_groups
from axon_compose.registry import PASS_VALUES, Dims, Registry, Split
from axon_compose.testing import assert_splits
from axon_compose.testing._model import model_plan
from axon_core.specs.splits.experts import HELD, SHARED_ONCE
from axon_core.specs.splits.mlp import INPUTS, OUTPUTS
from tests.devices.parts import far, together

DIMS = Dims({"hidden_size": 32, "vocab_size": 96})
HEADS = {"num_heads": 8, "num_kv_heads": 4, "head_dim": 4}
BLOCKS = {"num_heads": 4, "head_dim": 8, "block_size": 2, "top_k": 2}
SHARED = {"type": "attention", "num_heads": 4, "num_kv_heads": 2}
QUERY_SCALE = {"k_norm_scale": "queries", "qk_norm": {"when": "after_rope"}}
LATENT = {"num_heads": 4, "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "q_lora_rank": 8}
LEARNED = {"rope": {"learned": True, "theta": 50.0}}
CHOICE = {"num_heads": 2, "head_dim": 8, "top_k": 3}
EXPERTS = {"num_experts": 8, "top_k": 3}
TABLE = {"size": 16, "layers": 3}

HOLD = [
    # Norms over all heads, some of which several devices have.
    ("attention", HEADS | {"num_kv_heads": 1, "qk_norm": {"over": "all", "type": "layer_norm", "bias": True}}, {}),
    ("attention", HEADS | {"qk_norm": {"over": "all", "offset": 1.0}, "bias": True}, {}),
    ("attention", HEADS | {"num_kv_heads": 2, "qk_norm": {"per_head": True, "type": "layer_norm", "bias": True}}, {}),
    # Slopes are those of the heads among all, also where their number is no power of two.
    ("attention", {"num_heads": 12, "head_dim": 4, "alibi": True, "rope": False}, {}),
    ("attention", HEADS | {"gate": "elementwise", "v_head_dim": 6, "bias": {"g": True, "o": True}}, {}),
    ("attention", HEADS | {"gate": "head", "bias": {"g": True, "k": True}, "k_eq_v": True, "chunk_size": 5}, {}),
    # Fewer heads that choose than devices, as many, and more.
    ("attention", HEADS | {"indexer": BLOCKS | {"num_heads": 1, "norm": {"over": "all"}}}, {}),
    ("attention", HEADS | {"indexer": BLOCKS | {"norm": {"per_head": True}}}, {}),
    ("attention", HEADS | {"num_kv_heads": 8, "indexer": BLOCKS | {"num_heads": 8}}, {}),
    # Readers: more heads than their source, of a part of its window, with scales of the keys of their own.
    ("attention", {"kv_from": "first", "num_heads": 8, "head_dim": 8, "window_size": 5}, SHARED),
    ("attention", {"kv_from": "first", "num_heads": 4, "num_kv_heads": 2, "qk_norm": {"over": "all"}}, SHARED),
    ("attention", {"kv_from": "first", "num_heads": 8, "head_dim": 8, **QUERY_SCALE}, SHARED | QUERY_SCALE),
    ("latent_attention", LATENT | {"bias": True, "gate": "head", "sinks": True}, {}),
    ("latent_attention", LATENT | {"index_from": "first"}, {"type": "latent_attention", **LATENT, "indexer": CHOICE}),
    (
        "latent_attention",
        LATENT | LEARNED | {"kv_from": "first", "alphas_from": "first", "log_scaling": True},
        {"type": "latent_attention", **LATENT, **LEARNED},
    ),
    ("convolved_attention", HEADS | {"d_conv": 3, "num_kv_heads": 2, "bias": True, "qk_norm": {"over": "all"}}, {}),
    ("mlp", {"intermediate_size": 40, "gated": False, "bias": True, "activation": "relu2"}, {}),
    ("mlp", {"intermediate_size": 40, "sparsity": 0.5, "bias": True}, {}),
    # Experts that are not wide enough to be cut: some on each device.
    ("moe", EXPERTS | {"intermediate_size": 9, "input_scaled": True, "bias": True}, {}),
    ("moe", EXPERTS | {"intermediate_size": 9, "identity_experts": 4, "correction_bias": True, "bias": True}, {}),
    ("moe", EXPERTS | {"intermediate_size": 9, "shared_intermediate_size": 7, "shared_gate": "softmax"}, {}),
    ("moe", EXPERTS | {"intermediate_size": 9, "shared_intermediate_size": 8, "bias": True, "gated": False}, {}),
    ("moe", EXPERTS | {"intermediate_size": 8, "shared_intermediate_size": 7, "bias": True}, {}),
    ("moe", EXPERTS | {"intermediate_size": 9, "num_shared_experts": 4, "hashed": True, "score": "sqrt_softplus"}, {}),
    # A latent width, with biases, and norms of what one device does not know.
    ("moe", EXPERTS | {"intermediate_size": 8, "latent_size": 6, "bias": True, "latent_norm": {"sum": True}}, {}),
    (
        "moe",
        EXPERTS | {"intermediate_size": 8, "latent_size": 6, "input_scaled": True, "latent_norm": {"expert": True}},
        {},
    ),
    ("shared_expert_moe", EXPERTS | {"intermediate_size": 9, "shared_intermediate_size": 12, "bias": True}, {}),
    ("shared_expert_moe", EXPERTS | {"intermediate_size": 9, "bias": True}, {}),
]


@pytest.mark.parametrize(("name", "options", "source"), HOLD, ids=lambda value: str(value)[:60])
def test_parts_give_what_the_whole_gives(name: str, options: dict[str, Any], source: dict[str, Any]) -> None:
    found = assert_splits(f"core/{name}", options, DIMS, sources={"first": source} if source else None)
    assert all(isinstance(split, Split) for split in found.values()), found


@pytest.mark.parametrize(
    ("name", "options", "embedding"),
    [
        *(("token_embedding", each, {}) for each in Registry.installed().component("token_embedding").examples),
        ("token_embedding", {"per_layer": TABLE | {"vocab_size": 50}, "positions": 20}, {}),
        *(("lm_head", each, {}) for each in Registry.installed().component("lm_head").examples),
        ("lm_head", {"bias": True, "gain": True}, {"size": 24}),
        # Rows beyond the tokens, of which the last devices may have nothing else.
        ("lm_head", {"bias": True}, {"padded_vocab_size": 203}),
        ("lm_head", {"tied": False}, {"padded_vocab_size": 101}),
        ("token_embedding", {"padded_vocab_size": 101, "per_layer": TABLE}, {}),
        ("per_layer_input", {"size": 16, "index": 2}, {"per_layer": TABLE, "scale": 3.0, "norm": True}),
        ("per_layer_input", {"size": 16, "index": 0}, {"per_layer": TABLE | {"vocab_size": 50}, "size": 24}),
        # Per-layer vectors that are not cut by their width: by tokens, or whole.
        ("token_embedding", {"per_layer": TABLE | {"size": 6, "vocab_size": 64}, "scale": 2.0}, {}),
        ("token_embedding", {"per_layer": TABLE | {"size": 6, "vocab_size": 50}, "size": 24}, {}),
        ("lm_head", {}, {"per_layer": TABLE}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_tables_and_heads(name: str, options: Mapping[str, Any], embedding: dict[str, Any]) -> None:
    found = assert_splits(f"core/{name}", options, DIMS, embedding=embedding)
    assert all(isinstance(split, Split) for split in found.values()), found


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("attention", {"num_heads": 6, "head_dim": 4}, "`num_heads` (6) is not a multiple of 4 devices"),
        (
            "attention",
            {"num_heads": 12, "num_kv_heads": 6, "head_dim": 4},
            "`num_kv_heads` (6) is neither a multiple nor a divisor of 4 devices",
        ),
        (
            "attention",
            {"num_heads": 12, "head_dim": 4, "indexer": BLOCKS | {"num_heads": 6}},
            "`indexer.num_heads` (6) is neither a multiple nor a divisor of 4 devices",
        ),
        (
            "attention",
            HEADS | {"indexer": BLOCKS | {"norm": {"over": "all"}}},
            "`indexer.norm` normalises all heads together, which would lie on several devices",
        ),
        ("latent_attention", LATENT | {"num_heads": 2}, "`num_heads` (2) is not a multiple of 4 devices"),
        ("mlp", {"intermediate_size": 42}, "`intermediate_size` (42) is not a multiple of 4 devices"),
        (
            "moe",
            {"num_experts": 6, "intermediate_size": 9},
            "`intermediate_size` (9) is not a multiple of 4 devices; `num_experts` (6) is not a multiple of 4 devices",
        ),
        (
            "moe",
            {"num_experts": 6, "intermediate_size": 8, "latent_size": 8, "latent_norm": {"expert": True}},
            "`latent_norm.expert` normalises what a whole expert gives; "
            "`num_experts` (6) is not a multiple of 4 devices",
        ),
        ("laurel", {"rank": 8}, "its matrices of `rank` 8 are small, and devices would sum all of what its norm reads"),
        ("layer_scale", {}, "it works on the residual stream, which every device has"),
        ("per_layer_input", {"size": 6, "index": 0}, "`size` (6) is not a multiple of 4 devices"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_why_a_component_stays_whole(name: str, options: dict[str, Any], reason: str) -> None:
    embedding = {"per_layer": TABLE | {"size": options["size"]}} if name == "per_layer_input" else None
    assert assert_splits(f"core/{name}", options, DIMS, devices=(4,), embedding=embedding) == {4: reason}


@pytest.mark.parametrize("vocabulary", [97, 5])  # of 5 the third of four devices has one, and the last one none
def test_a_vocabulary_that_does_not_divide_pads_the_last_part(vocabulary: int) -> None:
    dims, inputs = Dims({"hidden_size": 32, "vocab_size": vocabulary}), {"per_layer": TABLE | {"size": 6}}
    for name, options in (("token_embedding", {}), ("token_embedding", inputs), ("lm_head", {"tied": False})):
        for devices, split in assert_splits(f"core/{name}", options, dims).items():
            assert isinstance(split, Split)
            assert split.dims["vocab_size"] == -(-vocabulary // devices)


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        (
            "moe",
            {"num_experts": 4, "intermediate_size": 32, "num_shared_experts": 1, "shared_gate": True},
            {HELD: 2, SHARED_ONCE: True},
        ),
        ("mlp", {"intermediate_size": 96, "bias": True, "sparsity": 0.5}, {INPUTS: 96, OUTPUTS: 16}),
    ],
)
def test_what_a_cut_would_tear_is_split_otherwise(name: str, options: dict[str, Any], sizes: dict[str, Any]) -> None:
    """Quantised in groups of 32, 32 and 96 inner numbers are an odd number of groups: halves would tear one."""
    model = random_weights(model_plan(f"core/{name}", "layer", options, DIMS, Registry.installed()))
    nn.quantize(model, 32, 8, class_predicate=model.quant_predicate)
    tensor = split_plan(model.plan, 2, groups=quantised_groups(modules_of(model)))
    found = [tensor.splits[use.path].dims for use in model.plan.uses() if use.spec.name == name]
    assert found == [sizes] * len(found)
    tokens = mx.arange(2 * 9).reshape(2, 9)
    wanted = model(tokens)
    mx.eval(wanted, tokens, model.parameters())  # here, for no thread can compute what another one has begun
    for (logits,) in together(model, 2, lambda part: [part(tokens)]):
        assert far(logits, wanted) <= 2e-6


def outcomes() -> Iterator[tuple[str, str]]:
    """What becomes of every example on two devices; of what can be in no model by itself, nothing."""
    registry = Registry.installed()
    for name, spec in registry.components().items():
        reads = [option for value, option in spec.reads.items() if value not in PASS_VALUES and option is None]
        if not name.startswith("core/") or spec.kind not in ("layer", "block", "embedding", "head") or reads:
            continue
        for options in spec.examples:
            plan = model_plan(name, spec.kind, options, DIMS, registry)
            path = [use.path for use in plan.uses() if use.spec.name == spec.name][-1]
            try:
                tensor = split_plan(plan, 2)
            except Refusal as refusal:
                yield name, refusal.details[0]
            else:
                yield name, tensor.whole.get(path, "split")


def test_nearly_every_example_is_split_over_two_devices() -> None:
    """And what is not, has one of a few reasons: a split that is lost would be found nowhere else."""
    found = list(outcomes())
    whole = [(name, reason) for name, reason in found if reason != "split"]
    odd = [name for name, reason in whole if reason.endswith("is not a multiple of 2 devices")]
    assert len(odd) < len(found) / 10
    assert {name for name, _ in whole} - set(odd) == {"core/stream_norm", "core/layer_scale", "core/laurel"}
    assert min(Counter(name for name, reason in found if reason == "split").values()) >= 1
