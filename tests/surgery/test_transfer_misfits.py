"""Replacements whose sizes or options do not fit their source say why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from axon_compose.registry import Dims
from tests.surgery.small_layers import architecture, use_of
from tests.surgery.transplants import offered

HEADS = {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
MLP = {"type": "mlp", "intermediate_size": 24}
MOE = {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 12}
LATENT = {"type": "latent_attention", "num_heads": 4, "kv_lora_rank": 32, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
HALVES = {**HEADS, "num_heads": 8, "num_kv_heads": 4, "v_head_dim": 4}
SHARED = {**MOE, "shared_intermediate_size": 24}
DELTA = {"type": "gated_delta_net", "num_k_heads": 4, "head_k_dim": 8}


@pytest.mark.parametrize(
    ("new", "old", "init", "why"),
    [
        (
            {**HEADS, "num_kv_heads": 4},
            {**HEADS, "num_heads": 6, "num_kv_heads": 3},
            "transfer",
            "4 query heads can be made",
        ),
        ({**HEADS, "head_dim": 16}, HEADS, "transfer", "heads have other widths"),
        ({**HEADS, "k_eq_v": True}, HEADS, "transfer", "with `k_eq_v` values are keys"),
        (HEADS, HEADS, "mean", "the mean is for fewer key/value heads than the source's 2, not 2"),
        (HEADS, HEADS, "align", "2 key/value heads of 4 heads cannot be aligned to 2 of 4"),
        ({**HEADS, "num_kv_heads": 1, "qk_norm": True}, HEADS, "align", "with `qk_norm` heads cannot be turned"),
        ({**HEADS, "num_kv_heads": 1, "softcap": 3.0}, HEADS, "align", "though `softcap` differs"),
        ({**HEADS, "num_kv_heads": 1}, HEADS, "repeat", "repeating gives no fewer heads"),
        ({**HEADS, "num_heads": 8}, HEADS, "split", "4 and 2 heads cannot be split into 8 and 2"),
        ({**MOE, "intermediate_size": 7}, MLP, "transfer", "experts of 7 are no equal parts"),
        ({**MOE, "num_experts": 5}, MLP, "transfer", "5 experts are no whole number of copies of the 2 parts"),
        ({**MOE, "activation": "relu2"}, MLP, "transfer", "`activation` differs"),
        ({**MOE, "latent_size": 8}, MLP, "transfer", "with `latent_size` experts do not read"),
        ({**MOE, "num_shared_experts": 2}, MLP, "transfer", "write `init: shared`"),
        ({**MOE, "num_shared_experts": 1}, MLP, "shared", "the shared expert has a width of 12, the source 24"),
        ({**MOE, "num_experts": 3}, MOE, "transfer", "4 experts cannot be merged into 3"),
        ({**MOE, "num_experts": 6}, MOE, "repeat", "6 experts are no multiple of the source's 4"),
        ({**MOE, "num_experts": 6}, MOE, "prune", "6 experts are not fewer than the source's 4"),
        (MLP, MOE, "transfer", "a width of 24 is neither that of one expert (12) nor that of all (48)"),
        ({**MLP, "gated": False}, MLP, "transfer", "the source has a gate"),
        ({**MLP, "gated": False, "activation": "xielu"}, {**MLP, "gated": False}, "transfer", "`xielu` has slopes"),
        (
            {**MOE, "intermediate_size": 16},
            MOE,
            "transfer",
            "`switch_mlp.gate_proj.weight` is [4, 16, 32], in the source",
        ),
        ({**MOE, "router_norm": True}, MOE, "transfer", "the source has no `router_norm.weight`"),
        ({**DELTA, "head_k_dim": 16}, HEADS, "transfer", "the width of a query is 16, in the source 8"),
        (
            {**DELTA, "num_k_heads": 3},
            HEADS,
            "transfer",
            "3 query heads can be made neither by repeating nor by merging 4",
        ),
        ({**LATENT, "norm_eps": 1e-6}, HEADS, "transfer", "give `norm_eps: 1e8`, which undoes that"),
        (LATENT, {**HEADS, "rope": False}, "transfer", "write `rope: false`"),
        ({**LATENT, "rope": {"theta": 5e5}}, HEADS, "transfer", "`rope.theta` differs"),
        (
            {**LATENT, "qk_nope_head_dim": 3, "v_head_dim": 8},
            HEADS,
            "transfer",
            "4 dimensions of a head are not rotated",
        ),
        ({**HALVES, "v_head_dim": 8}, HEADS, "split", "keep a `head_dim` of 8 and have a `v_head_dim` of 4"),
        ({**HALVES, "v_norm": True}, HEADS, "split", "values that are keys, or are normalised"),
        ({**HALVES, "softcap": 3.0}, HEADS, "split", "split heads keep all other options, though `softcap` differs"),
        ({**HALVES, "sinks": True}, HEADS, "split", "the source has no `sinks`"),
        *(
            ({**HALVES, "qk_norm": norm}, {**HEADS, "qk_norm": norm}, "split", "that know of all heads")
            for norm in ({"over": "all"}, {"per_head": True})
        ),
        ({**HEADS, "num_kv_heads": 1, "head_dim": 16}, HEADS, "align", "heads have other widths"),
        ({**HEADS, "num_kv_heads": 1}, {**HEADS, "gate": "elementwise"}, "align", "values cannot be mixed"),
        ({**MOE, "input_scaled": True, "intermediate_size": 24}, MLP, "transfer", "it needs `top_k: 1` and weights"),
        ({**MOE, "input_scaled": True, "top_k": 1}, MLP, "transfer", "parts of the layer would not add up"),
        ({**SHARED, "shared_bias": True}, MLP, "shared", "`shared_bias` differs from the `bias`"),
        ({**SHARED, "identity_experts": 1}, MLP, "shared", "with `identity_experts` tokens keep a part"),
        ({**MOE, "intermediate_size": 24}, {**MLP, "sparsity": 0.5}, "transfer", "experts have no `sparsity`"),
        (MLP, {**MOE, "input_scaled": True}, "transfer", "with `input_scaled` experts do not read or give"),
        (MLP, {**SHARED, "shared_gate": True}, "transfer", "the shared expert has a gate or other biases"),
        ({**MOE, "num_experts": 2, "identity_experts": 1}, {**MOE, "identity_experts": 1}, "transfer", "stay as many"),
        ({**MOE, "num_experts": 2, "bias": True}, MOE, "transfer", "`bias` differs from that of the source"),
        (
            {**MOE, "num_experts": 8, "top_k": 4, "score": "sparsemixer"},
            {**MOE, "score": "sparsemixer"},
            "repeat",
            "weighed one by one, cannot be repeated",
        ),
        ({**MLP, "intermediate_size": 24}, MLP, "slice", "a width of 24 is no part of the source's 24"),
        ({**LATENT, "v_head_dim": 4}, HEADS, "transfer", "`v_head_dim` is 4, that of the source 8"),
        ({**LATENT, "num_heads": 3}, HEADS, "transfer", "3 query heads can be made neither by repeating"),
        ({**LATENT, "qk_rope_head_dim": 6}, HEADS, "transfer", "6 rotated dimensions are no even choice of"),
    ],
)
def test_what_does_not_fit_is_reported(new: dict[str, Any], old: dict[str, Any], init: str, why: str) -> None:
    reason = offered(use_of(new), use_of(old), init)
    assert isinstance(reason, str)
    assert why in reason


@pytest.mark.parametrize(
    ("new", "old", "rule"),
    [
        (HEADS, {**HEADS, "gate": "head"}, "though `gate` differs"),
        (HEADS, {**HEADS, "sinks": True, "bias": {"q": True}}, "though `sinks`, `bias.q` differ"),
        ({**LATENT, "norm_eps": 1e8}, {**HEADS, "num_kv_heads": 1, "sinks": True}, "`sinks` are gone"),
        ({**LATENT, "norm_eps": 1e8}, {**HEADS, "num_kv_heads": 1, "head_gain": True}, "factors of the queries differ"),
        ({**LATENT, "norm_eps": 1e8}, {**HEADS, "num_kv_heads": 1, "gate": "head"}, "`gate` differs"),
    ],
)
def test_what_is_lost_is_in_the_rule(new: dict[str, Any], old: dict[str, Any], rule: str) -> None:
    rope = {"rope": {"dims": 4}} if new["type"] == "latent_attention" else {}
    pieces = offered(use_of(new), use_of({**old, **rope}))
    assert not isinstance(pieces, str)
    assert rule in pieces["q_proj.weight"].rule
    assert pieces["q_proj.weight"].exactness == "near"


@pytest.mark.parametrize(
    ("new", "old", "rule"),
    [
        ({"eps": 1e-5}, {}, "`eps` is 1e-05 instead of 1e-06"),
        ({"num_groups": 4}, {}, "`num_groups` differs"),
        (
            {"weight": False, "type": "layer_norm", "eps": 1e-6},
            {"type": "layer_norm", "eps": 1e-6},
            "there is no scale",
        ),
        (
            {"bias": False, "type": "layer_norm", "eps": 1e-6},
            {"type": "layer_norm", "eps": 1e-6},
            "there is no shift",
        ),
    ],
)
def test_what_a_norm_lacks_is_in_the_rule(new: dict[str, Any], old: dict[str, Any], rule: str) -> None:
    norms = [architecture(MLP, {"type": "rms_norm", "eps": 1e-6, **norm}).plan().uses() for norm in (new, old)]
    pieces = offered(*(next(use for use in uses if use.path == "layers.0.layer_norm") for uses in norms))
    assert not isinstance(pieces, str)
    assert all(piece.rule.endswith(f", though {rule}") and piece.exactness == "near" for piece in pieces.values())
    assert pieces


def test_tables_and_heads_of_other_sizes_lend_nothing() -> None:
    uses = {use.path: use for use in architecture(MLP).plan().uses()}
    table, tied = uses["embedding"], uses["head"]
    larger = replace(table, dims=Dims({"hidden_size": 32, "vocab_size": 20}))
    narrow = replace(table, options=table.options.model_copy(update={"size": 16}))
    untied = replace(tied, options=tied.options.model_copy(update={"tied": False}))
    assert offered(tied, table) == "a tied head reads the table of the embedding itself"
    assert offered(table, tied) == "the source has no matrix of its own"
    assert offered(untied, larger) == "`vocab_size` is 16, that of the source 20"
    assert offered(untied, narrow) == offered(narrow, untied) == "the table is 16 wide, a head 32"


def test_models_of_other_widths_lend_nothing() -> None:
    wider = replace(use_of(MLP), dims=Dims({"hidden_size": 64, "vocab_size": 16}))
    assert offered(use_of(MLP), wider) == "`hidden_size` is 32, that of the source 64"
