"""Recurrent and convolutional layers split over devices, with options that their examples do not have."""

from __future__ import annotations

from typing import Any

import pytest

from axon_compose.registry import Split
from axon_compose.testing import assert_splits

FIRST = {"head_dim": 16, "decay_low_rank_dim": 8}
SIDE = {"num_heads": 4, "head_dim": 8, "intermediate_size": 24, "adapter_rank": 4, "uses": [0, 1]}
HOLD = [
    # Norm groups that lie on one device, that share devices, and that begin in the middle of one.
    ("mamba2", {"num_heads": 8, "head_dim": 4, "d_state": 4, "n_groups": 4, "norm_groups": 4}, {}),
    ("mamba2", {"num_heads": 8, "head_dim": 4, "d_state": 4, "n_groups": 2, "norm_groups": 2}, {}),
    ("lightning_attention", {"num_heads": 12, "head_dim": 4, "norm_groups": 3}, {}),
    ("lightning_attention", {"num_heads": 4, "head_dim": 4, "norm_groups": 4, "qk_norm": {"per_head": True}}, {}),
    ("lightning_attention", {"num_heads": 8, "slope_scale": 0.5, "bias": True, "out_bias": True}, {}),
    # Norms of all heads together.
    ("lightning_attention", {"num_heads": 4, "head_dim": 8, "qk_norm": {"over": "all"}}, {}),
    ("kv_conv", {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "qk_norm": {"over": "all", "offset": 1.0}}, {}),
    # Fewer heads of keys than devices, or groups of B and C.
    ("mamba3", {"num_heads": 8, "head_dim": 8, "d_state": 8, "n_groups": 2, "mimo_rank": 2, "norm": True}, {}),
    ("gated_delta_net", {"num_k_heads": 1, "num_v_heads": 4, "head_k_dim": 16, "separate": True}, {}),
    ("gated_delta_net", {"num_k_heads": 4, "num_v_heads": 8, "head_k_dim": 16}, {}),
    ("kimi_delta_attention", {"num_heads": 4, "head_dim": 16}, {}),
    ("kimi_delta_attention", {"num_heads": 4, "head_dim": 16, "full_rank": {"gate": True}}, {}),
    ("kv_conv", {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "qk_norm": {"per_head": True}}, {}),
    # What is published in parts is read in parts.
    ("rwkv7_time_mix", FIRST | {"value_from": "first"}, {"first": {"type": "rwkv7_time_mix"} | FIRST}),
    (
        "side_transformer",
        SIDE | {"use": 1, "weights_from": "first"},
        {"first": {"type": "side_transformer", "attention_adapters": False} | SIDE},
    ),
    ("ngram_embedding", {"rows": 50, "longest": 3, "tables": 2, "eos": 2, "width": 8}, {}),
]


@pytest.mark.parametrize(("name", "options", "sources"), HOLD, ids=lambda value: str(value)[:60])
def test_parts_give_what_the_whole_layer_gives(name: str, options: dict[str, Any], sources: dict[str, Any]) -> None:
    found = assert_splits(f"core/{name}", options, sources=sources or None)
    assert all(isinstance(split, Split) for split in found.values()), found


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("mamba", {"intermediate_size": 33}, "`intermediate_size` (33) is not a multiple of 2 devices"),
        ("mamba2", {"num_heads": 6, "n_groups": 3}, "`n_groups` (3) is neither a multiple nor a divisor of 2 devices"),
        (
            "mamba2",
            {"num_heads": 4, "head_dim": 3, "norm_groups": 4},
            "`norm_groups` (4) does not divide the channels of a device (6)",
        ),
        ("rwkv7_time_mix", {"head_dim": 64}, "`hidden_size / head_dim` (1) is not a multiple of 2 devices"),
        ("rg_lru", {"num_heads": 1}, "`num_heads` (1) is not a multiple of 2 devices"),
    ],
)
def test_what_does_not_divide_stays_whole_and_says_why(name: str, options: dict[str, Any], reason: str) -> None:
    assert assert_splits(f"core/{name}", options, devices=(2,)) == {2: reason}
