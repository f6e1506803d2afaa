"""Metadata keys of llama.cpp as the dims of families: what its converter writes the same way for every architecture.

Source: llama.cpp, `gguf-py/gguf/constants.py` and `conversion/base.py`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ROPE_SCALING", "SAME", "USUAL", "WITHOUT_EFFECT"]

#: Dim to its keys, the first that is there, or to a formula; used where a family says nothing else.
USUAL: Final[dict[str, str | list[str]]] = {
    "hidden_size": "embedding_length",
    "vocab_size": "=tensors['token_embd.weight'][0]",
    "num_hidden_layers": "=keys['block_count']"
    " - (keys['nextn_predict_layers'] if 'nextn_predict_layers' in keys else 0)",  # which predict further tokens
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
    "original_max_position_embeddings": "rope.scaling.original_context_length",
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",
    "n_routed_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "tie_word_embeddings": "='output.weight' not in tensors",
}
#: Keys that must be what this dim is, unless a family reads or ignores them.
SAME: Final = {"rope.dimension_count": "head_dim", "attention.value_length": "head_dim"}
#: Keys that never change what a model computes from given weights; shapes of tensors say the same as some.
WITHOUT_EFFECT: Final = frozenset({
    "context_length", "vocab_size", "block_count", "embedding_length", "attention.causal", "pooling_type",
    "tensor_data_layout", "attention.key_length", "attention.value_length",
})  # fmt: skip
#: The dim that `rope.scaling.*` and the tensors of factors are read into.
ROPE_SCALING: Final = "rope_scaling"
