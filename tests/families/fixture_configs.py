"""What the fixtures are made of: for each family the fields of its config, chosen so that each of them matters.

`FAMILIES` maps a folder's name to a `Family`: the arguments of its transformers config, and how a published
`config.json` (written by transformers 4) says the same in other words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: What most families share. 40 tokens are five windows of 8.
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 3e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}


@dataclass(frozen=True)
class Family:
    """One fixture.

    Attributes:
        model_type: transformers' name of the config.
        config: the arguments of the config.
        published: fields that published files have instead or besides; None takes a field away.
        rope_kind: the word for the kind in a published `rope_scaling`.
        tokens: tokens in each of the two rows.
    """

    model_type: str
    config: dict[str, Any]
    published: dict[str, Any] = field(default_factory=dict)
    rope_kind: str = "rope_type"
    tokens: int = 40


def small(**fields: Any) -> dict[str, Any]:
    """`SMALL` with fields replaced."""
    return SMALL | fields


FAMILIES: dict[str, Family] = {
    "llama": Family(
        "llama",
        small(
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 20000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
    ),
    "mistral": Family(
        "mistral",
        small(head_dim=16, sliding_window=None, rope_parameters={"rope_type": "default", "rope_theta": 30000.0}),
    ),
    "qwen2": Family(
        "qwen2",
        small(tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 70000.0}),
        {"use_sliding_window": False, "sliding_window": 256, "max_window_layers": 4, "layer_types": None},
    ),
    "qwen3": Family(
        "qwen3",
        small(head_dim=16, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}),
        {"layer_types": None},
    ),
    "gemma2": Family(
        "gemma2",
        small(
            num_hidden_layers=5,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=8,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
            rope_parameters={"rope_type": "default", "rope_theta": 7000.0},
        ),
        {"layer_types": None, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "gemma3_text": Family(
        "gemma3_text",
        small(
            num_hidden_layers=7,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=8,
            sliding_window_pattern=3,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
        ),
        {"layer_types": None, "sliding_window_pattern": 3},
    ),
    "gpt_oss": Family(
        "gpt_oss",
        small(
            head_dim=16,
            num_local_experts=6,
            num_experts_per_tok=3,
            intermediate_size=24,
            sliding_window=8,
            swiglu_limit=2.0,
            max_position_embeddings=512,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 15000.0,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 64,
            },
        ),
        {"initial_context_length": 64, "experts_per_token": 3},
    ),
    "cohere2": Family(
        "cohere2",
        {key: value for key, value in SMALL.items() if key != "rms_norm_eps"}
        | {
            "num_hidden_layers": 7,
            "layer_norm_eps": 3e-4,
            "attention_bias": True,
            "logit_scale": 0.4,
            "sliding_window": 8,
            "sliding_window_pattern": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 40000.0},
        },
        {"layer_types": None, "sliding_window_pattern": 3, "use_qk_norm": False, "use_parallel_block": True},
    ),
    "deepseek_v3": Family(
        "deepseek_v3",
        small(
            num_key_value_heads=4,
            attention_bias=True,
            q_lora_rank=24,
            kv_lora_rank=16,
            qk_nope_head_dim=16,
            qk_rope_head_dim=8,
            v_head_dim=12,
            first_k_dense_replace=1,
            n_routed_experts=8,
            n_shared_experts=2,
            num_experts_per_tok=3,
            n_group=4,
            topk_group=2,
            moe_intermediate_size=16,
            norm_topk_prob=True,
            routed_scaling_factor=1.7,
            num_mtp_layers=0,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 12000.0,
                "factor": 4.0,
                "mscale": 0.7,
                "mscale_all_dim": 1.3,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "original_max_position_embeddings": 64,
            },
        ),
        {
            "num_mtp_layers": None,
            "num_nextn_predict_layers": 0,
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
            "moe_layer_freq": 1,
        },
        rope_kind="type",
    ),
    "mixtral": Family(
        "mixtral",
        small(
            num_local_experts=6,
            num_experts_per_tok=2,
            intermediate_size=24,
            rope_parameters={"rope_type": "default", "rope_theta": 60000.0},
        ),
    ),
    "qwen2_moe": Family(
        "qwen2_moe",
        small(
            num_hidden_layers=5,
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=40,
            norm_topk_prob=False,
            mlp_only_layers=[1],
            rope_parameters={"rope_type": "default", "rope_theta": 80000.0},
        ),
        {"use_sliding_window": False, "sliding_window": 256, "max_window_layers": 5, "layer_types": None},
    ),
    "qwen3_moe": Family(
        "qwen3_moe",
        small(
            num_hidden_layers=6,
            head_dim=16,
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=16,
            norm_topk_prob=True,
            decoder_sparse_step=2,
            mlp_only_layers=[3],
            rope_parameters={"rope_type": "default", "rope_theta": 90000.0},
        ),
        {"max_window_layers": 6, "num_experts": 6, "num_local_experts": None},
    ),
    "phi3": Family(
        "phi3",
        small(
            original_max_position_embeddings=64,
            partial_rotary_factor=0.5,
            hidden_size=64,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 11000.0,
                "partial_rotary_factor": 0.5,
                "short_factor": [1.0, 1.1, 1.3, 1.6],
                "long_factor": [1.5, 2.5, 4.0, 6.0],
            },
        ),
        {"sliding_window": 262144},
        rope_kind="type",
    ),
    "olmo2": Family(
        "olmo2",
        small(attention_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 65000.0}),
    ),
}
