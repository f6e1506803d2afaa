"""What the fixtures are made of: for each family the fields of its config, chosen so that each of them matters.

`FAMILIES` maps a folder's name to a `Family`: the arguments of its transformers config, and how a published
`config.json` (written by transformers 4) says the same in other words.
"""

from __future__ import annotations

import math
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
        mxfp4: whether the experts are stored in 4 bits.
        tokens: tokens in each of the two rows.
        draws: distributions for names that match a shell pattern, see `distributions.py`.
    """

    model_type: str
    config: dict[str, Any]
    published: dict[str, Any] = field(default_factory=dict)
    rope_kind: str = "rope_type"
    mxfp4: bool = False
    tokens: int = 40
    draws: dict[str, list[Any]] = field(default_factory=dict)


def small(**fields: Any) -> dict[str, Any]:
    """`SMALL` with fields replaced."""
    return SMALL | fields


def without(*names: str) -> dict[str, Any]:
    """`SMALL` without some fields."""
    return {key: value for key, value in SMALL.items() if key not in names}


def letters(pattern: str) -> list[str]:
    """The kinds of layers that a pattern of nemotron_h spells."""
    names = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
    return [names[letter] for letter in pattern]


def kinds(pattern: str) -> list[str]:
    """The kinds of attention: S sliding, F full."""
    return [{"S": "sliding_attention", "F": "full_attention"}[letter] for letter in pattern]


GEMMA4_ROPE: dict[str, Any] = {
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 55000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 4000.0},
}
#: Its scores have no scale but that of the norm of queries (every third layer has heads of 16, the others of 8), the
#: input of a router is divided by the root of the hidden size, and embeddings of layers have 8 numbers each.
GEMMA4_DRAWS: dict[str, list[Any]] = {
    "*.self_attn.q_norm.weight": ["normal", 1 / math.sqrt(8), 0.2 / math.sqrt(8)],
    "*.[258].self_attn.q_norm.weight": ["normal", 1 / math.sqrt(16), 0.2 / math.sqrt(16)],
    "*.router.scale": ["normal", math.sqrt(48), 0.2 * math.sqrt(48)],
    "*.embed_tokens_per_layer.weight": ["normal", 0.0, 1 / math.sqrt(8)],
}

#: The multipliers of muP, and the biases.
FALCON_H1: dict[str, Any] = {
    "attention_bias": True,
    "mlp_bias": True,
    "projectors_bias": True,
    "mamba_proj_bias": True,
    "lm_head_multiplier": 0.7,
    "embedding_multiplier": 1.4,
    "mlp_multipliers": [0.8, 0.6],
    "key_multiplier": 0.39,
    "attention_in_multiplier": 1.7,
    "attention_out_multiplier": 0.9,
    "ssm_multipliers": [0.7, 1.3, 0.8, 1.2, 0.6],
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.75,
    "rope_parameters": {"rope_type": "default", "rope_theta": 75000.0},
}

MAMBA: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "state_size": 6,
    "expand": 2,
    "conv_kernel": 4,
    "time_step_rank": 5,
    "layer_norm_epsilon": 3e-5,
}

GPT_NEOX: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "layer_norm_eps": 3e-4,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 0.5},
}
GPT_NEOX_PUBLISHED: dict[str, Any] = {
    "rope_theta": None,
    "partial_rotary_factor": None,
    "rotary_emb_base": 25000,
    "rotary_pct": 0.5,
}

GPT_OSS: dict[str, Any] = {
    "head_dim": 16,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "sliding_window": 8,
    "swiglu_limit": 2.0,
    "max_position_embeddings": 512,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 15000.0,
        "factor": 8.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
    },
}
GPT_OSS_PUBLISHED: dict[str, Any] = {"initial_context_length": 64, "experts_per_token": 3}

#: Mamba-2, attention and experts of Nemotron-H in small, and its fields before transformers 5.
NEMOTRON_EXPERTS = without("num_hidden_layers", "rms_norm_eps") | {
    "layers_block_type": letters("M*EME"),
    "head_dim": 16,
    "layer_norm_epsilon": 3e-5,
    "mamba_num_heads": 4,
    "mamba_head_dim": 12,
    "ssm_state_size": 8,
    "n_groups": 2,
    "chunk_size": 16,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 24,
    "routed_scaling_factor": 1.6,
}
NEMOTRON_EXPERTS_BEFORE = {
    "layers_block_type": None,
    "layer_types": None,
    "hybrid_override_pattern": "M*EME",
    "num_hidden_layers": 5,
    "time_step_limit": [0.0, float("inf")],
}

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
    # Its experts are (experts, in, out).
    "gpt_oss": Family(
        "gpt_oss",
        small(intermediate_size=24, **GPT_OSS),
        GPT_OSS_PUBLISHED,
        draws={"*.experts.down_proj": ["normal", 0.0, 1 / math.sqrt(24)]},
    ),
    "gpt_oss_mxfp4": Family(
        "gpt_oss",
        small(
            hidden_size=64,
            intermediate_size=32,
            quantization_config={
                "quant_method": "mxfp4",
                "modules_to_not_convert": [
                    "model.layers.*.self_attn",
                    "model.layers.*.mlp.router",
                    "model.embed_tokens",
                    "lm_head",
                ],
            },
            **GPT_OSS,
        ),
        GPT_OSS_PUBLISHED,
        mxfp4=True,
        draws={"*.experts.down_proj": ["normal", 0.0, 1 / math.sqrt(32)]},
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
    "qwen3_next": Family(
        "qwen3_next",
        small(
            num_hidden_layers=7,
            head_dim=16,
            full_attention_interval=3,
            linear_conv_kernel_dim=4,
            linear_key_head_dim=8,
            linear_value_head_dim=12,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=12,
            shared_expert_intermediate_size=20,
            mlp_only_layers=[1],
            norm_topk_prob=True,
            rope_parameters={"rope_type": "default", "rope_theta": 45000.0, "partial_rotary_factor": 0.5},
        ),
        {"layer_types": None, "full_attention_interval": 3, "num_experts": 4, "num_local_experts": None},
    ),
    "nemotron_h": Family(
        "nemotron_h",
        without("num_hidden_layers", "rms_norm_eps")
        | {
            "layers_block_type": letters("MM*-MEM*EM-"),
            "head_dim": 16,
            "layer_norm_epsilon": 3e-5,
            "mlp_bias": True,
            "use_bias": True,
            "mamba_proj_bias": True,
            "mamba_num_heads": 4,
            "mamba_head_dim": 12,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 16,
            "time_step_min": 1e-9,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "moe_shared_expert_intermediate_size": 24,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.6,
        },
        {
            "layers_block_type": None,
            "layer_types": None,
            "hybrid_override_pattern": "MM*-MEM*EM-",
            "num_hidden_layers": 11,
            "time_step_limit": [0.0, float("inf")],
        },
    ),
    "nemotron_h_latent": Family(
        "nemotron_h", NEMOTRON_EXPERTS | {"time_step_min": 1e-9, "moe_latent_size": 20}, NEMOTRON_EXPERTS_BEFORE
    ),
    "nemotron_h_published": Family("nemotron_h", NEMOTRON_EXPERTS | {"time_step_min": 1e-3}, NEMOTRON_EXPERTS_BEFORE),
    "gemma4_text": Family(
        "gemma4_text",
        small(
            num_hidden_layers=9,
            layer_types=kinds("SSFSSFSSF"),
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=8,
            vocab_size_per_layer_input=96,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=3,
            use_double_wide_mlp=True,
            final_logit_softcapping=3.0,
            tie_word_embeddings=True,
            rope_parameters=GEMMA4_ROPE,
        ),
        {"per_layer_config": None, "global_head_dim": 16, "num_global_key_value_heads": 1},
        draws=GEMMA4_DRAWS,
    ),
    "gemma4_text_moe": Family(
        "gemma4_text",
        small(
            num_hidden_layers=6,
            layer_types=kinds("SSFSSF"),
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=8,
            hidden_size_per_layer_input=0,
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=16,
            final_logit_softcapping=3.0,
            tie_word_embeddings=True,
            rope_parameters=GEMMA4_ROPE,
        ),
        {"per_layer_config": None, "global_head_dim": 16, "num_global_key_value_heads": 1},
        draws=GEMMA4_DRAWS,
    ),
    "falcon_h1": Family(
        "falcon_h1",
        small(
            mamba_d_ssm=48,
            mamba_n_heads=4,
            mamba_d_head=12,
            mamba_n_groups=2,
            mamba_d_state=8,
            mamba_chunk_size=16,
            mamba_rms_norm=True,
            mamba_norm_before_gate=False,
            **FALCON_H1,
        ),
        {"head_dim": 12},
    ),
    "falcon_h1_plain": Family(
        "falcon_h1",
        small(
            num_hidden_layers=3,
            mamba_d_ssm=48,
            mamba_n_heads=4,
            mamba_d_head=12,
            mamba_n_groups=1,
            mamba_d_state=8,
            mamba_chunk_size=16,
            mamba_rms_norm=False,
            tie_word_embeddings=True,
            **FALCON_H1,
        ),
        {"head_dim": 12},
    ),
    "mamba": Family("mamba", MAMBA | {"use_bias": True, "use_conv_bias": True}),
    "falcon_mamba": Family("falcon_mamba", MAMBA | {"mixer_rms_eps": 1e-3, "tie_word_embeddings": False}),
    "mamba2": Family(
        "mamba2",
        {
            "vocab_size": 96,
            "hidden_size": 48,
            "num_hidden_layers": 4,
            "num_heads": 6,
            "head_dim": 16,
            "expand": 2,
            "state_size": 8,
            "n_groups": 2,
            "conv_kernel": 4,
            "use_bias": True,
            "chunk_size": 16,
            "layer_norm_epsilon": 3e-5,
            "tie_word_embeddings": False,
            "time_step_limit": [0.002, 0.2],
        },
    ),
    "jamba": Family(
        "jamba",
        small(
            num_hidden_layers=7,
            attn_layer_period=4,
            attn_layer_offset=2,
            expert_layer_period=3,
            expert_layer_offset=1,
            num_experts=4,
            num_experts_per_tok=2,
            intermediate_size=32,
            mamba_d_state=6,
            mamba_expand=2,
            mamba_dt_rank=5,
            mamba_proj_bias=True,
        ),
        {"num_experts": 4, "num_local_experts": None},
    ),
    "granitemoehybrid": Family(
        "granitemoehybrid",
        small(
            num_hidden_layers=6,
            layer_types=["linear_attention", "linear_attention", "full_attention"] * 2,
            attention_bias=True,
            embedding_multiplier=3.0,
            logits_scaling=2.0,
            residual_multiplier=0.4,
            attention_multiplier=0.2,
            num_local_experts=4,
            num_experts_per_tok=2,
            intermediate_size=16,
            shared_intermediate_size=24,
            position_embedding_type="rope",
            mamba_n_heads=4,
            mamba_d_head=24,
            mamba_n_groups=2,
            mamba_d_state=8,
            mamba_expand=2,
            mamba_chunk_size=16,
            mamba_proj_bias=True,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 35000.0},
        ),
        {"layer_types": ["mamba", "mamba", "attention"] * 2},
    ),
    "granitemoehybrid_dense": Family(
        "granitemoehybrid",
        small(
            layer_types=["linear_attention", "full_attention"] * 2,
            embedding_multiplier=3.0,
            logits_scaling=2.0,
            residual_multiplier=0.4,
            attention_multiplier=0.2,
            num_local_experts=0,
            num_experts_per_tok=0,
            intermediate_size=40,
            shared_intermediate_size=40,
            position_embedding_type="nope",
            mamba_n_heads=4,
            mamba_d_head=24,
            mamba_n_groups=1,
            mamba_d_state=8,
            mamba_chunk_size=16,
            tie_word_embeddings=True,
        ),
        {"layer_types": ["mamba", "attention"] * 2},
    ),
    "lfm2": Family(
        "lfm2",
        without("rms_norm_eps")
        | {
            "num_hidden_layers": 7,
            "norm_eps": 3e-5,
            "full_attn_idxs": [2, 4, 6],
            "conv_bias": True,
            "conv_L_cache": 3,
            "block_multiple_of": 8,
            "block_ffn_dim_multiplier": 1.2,
            "block_auto_adjust_ff_dim": True,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 85000.0},
        },
        {
            "layer_types": None,
            "full_attn_idxs": [2, 4, 6],
            "block_dim": 48,
            "block_ff_dim": 72,
            "tie_embedding": True,
            "intermediate_size": None,
            "tie_word_embeddings": None,
        },
    ),
    "gpt_neox": Family("gpt_neox", GPT_NEOX, GPT_NEOX_PUBLISHED),
    "gpt_neox_sequential": Family(
        "gpt_neox", GPT_NEOX | {"use_parallel_residual": False, "intermediate_size": 192}, GPT_NEOX_PUBLISHED
    ),
    # One matrix in each layer is square, so that only the mark of the file tells whether it is transposed already.
    "gpt2": Family(
        "gpt2",
        {
            "vocab_size": 96,
            "n_embd": 48,
            "n_layer": 4,
            "n_head": 4,
            "n_positions": 64,
            "n_inner": 80,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 3e-4,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        {"n_ctx": 64},
    ),
}
