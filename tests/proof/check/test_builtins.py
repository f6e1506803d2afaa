"""Every built-in component passes the kit that plugins pass, with each of its examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from axon_compose.proof.check import TRUTHS
from axon_compose.registry import Dims, Registry
from axon_compose.testing import check_layer

DIMS = Dims({"hidden_size": 32, "vocab_size": 97})
EXAMPLES = [
    pytest.param(name, options, id=f"{spec.name}-{number}")
    for name, spec in Registry.installed().components().items()
    if name.startswith("core/") and name != "core/per_layer_input"
    for number, options in enumerate(spec.examples)
]


@pytest.mark.parametrize(("name", "options"), EXAMPLES)
def test_example(name: str, options: Mapping[str, Any]) -> None:
    # A token that sees only itself has nothing to choose from: queries and keys have no gradient.
    left_out = {"gradients"} if options.get("window_size") == 1 else set()
    if name == "core/layer_scale":
        left_out.add("every-layer")  # the final norm takes a factor out again
    if name == "core/attention_residuals" or len(options.get("uses", ())) > 1:
        left_out.add("gradients")  # a mixture of one has none to give, nor have the adapters of uses that are elsewhere
    if name == "core/compressed_attention" and options.get("compression") == {"ratio": 8}:
        left_out.add("caches")  # the last tokens that are fed complete no entry
    check_layer(name, options, DIMS, truths=[truth for truth in TRUTHS if truth not in left_out])


@pytest.mark.parametrize("options", Registry.installed().component("per_layer_input").examples, ids=str)
def test_reader_of_the_embedding(options: Mapping[str, Any]) -> None:
    per_layer = {"size": 16, "layers": 2, "vocab_size": 120}
    check_layer("core/per_layer_input", options, DIMS, embedding={"per_layer": per_layer, "scale": 3.0})


SOURCE = {"type": "attention", "num_heads": 4, "num_kv_heads": 2}
WINDOW = {"type": "sliding_window_attention", "num_heads": 4, "window_size": 8}
RWKV = {"head_dim": 16, "decay_low_rank_dim": 8, "a_low_rank_dim": 8, "v_low_rank_dim": 4, "gate_low_rank_dim": 8}
LATENT = {"num_heads": 4, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "rope": {"learned": True}}
CHOICE = {"num_heads": 4, "head_dim": 16, "top_k": 12, "log_scaling": True}
SIDE = {
    "num_heads": 4, "head_dim": 16, "intermediate_size": 48, "adapter_rank": 8, "uses": [0, 2],
    "attention_adapters": True,
}  # fmt: skip
LATENT_SOURCE = {"type": "latent_attention", **LATENT, "indexer": CHOICE}


@pytest.mark.parametrize(
    ("name", "options", "source"),
    [
        ("attention", {"kv_from": "source", "num_heads": 4, "qk_norm": True}, SOURCE),
        ("attention", {"kv_from": "source", "num_heads": 8, "head_dim": 8, "window_size": 5}, SOURCE),
        ("sliding_window_attention", {"kv_from": "source", "num_heads": 4, "window_size": 8}, WINDOW),
        ("sliding_window_attention", {"kv_from": "source", "num_heads": 4, "window_size": 3, "bias": True}, WINDOW),
        ("rwkv7_time_mix", {"value_from": "source", **RWKV}, {"type": "rwkv7_time_mix", "head_dim": 8}),
        ("latent_attention", {**LATENT, "kv_from": "source", "alphas_from": "source"}, LATENT_SOURCE),
        ("latent_attention", {**LATENT, "kv_from": "source", "log_scaling": True, "indexer": CHOICE}, LATENT_SOURCE),
        ("latent_attention", {**LATENT, "alphas_from": "source", "index_from": "source"}, LATENT_SOURCE),
        ("side_transformer", {**SIDE, "weights_from": "source"}, {"type": "side_transformer", **SIDE, "use": 2}),
    ],
)
def test_reader(name: str, options: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    check_layer(name, options, DIMS, sources={"source": source})
