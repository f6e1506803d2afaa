"""Families that share a fault of mlx-lm 0.32.2, since their classes have one function or module in common."""

from __future__ import annotations

from typing import Final

__all__ = ["GROUPED", "SWIGLU", "UNSCALED", "YARN"]

#: Families with yarn whose RoPE mlx-lm makes by one function.
YARN: Final = (
    "bailing_moe", "deepseek_v3", "deepseek_v32", "dots1", "exaone_moe", "falcon_h1", "glm4_moe_lite", "glm_moe_dsa",
    "gpt_oss", "granite", "granitemoe", "kimi_k2", "llama", "mistral", "olmo2", "olmoe", "qwen2", "qwen3", "qwen3_next",
    "seed_oss", "smollm3",
)  # fmt: skip

#: Families whose RoPE mlx-lm makes without its scaling.
UNSCALED: Final = (
    "cohere2", "ernie4_5", "ernie4_5_moe", "glm4_moe", "gpt_neox", "lfm2", "lfm2_moe", "minimax_m2", "mixtral",
    "qwen3_moe",
)  # fmt: skip

#: Families whose experts are chosen out of the best groups.
GROUPED: Final = (
    "bailing_moe", "deepseek_v3", "deepseek_v32", "dots1", "exaone_moe", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa",
    "kimi_k2", "nemotron_h",
)  # fmt: skip

#: Families whose MLPs mlx-lm makes with SwiGLU, where transformers reads `hidden_act`.
SWIGLU: Final = (
    "Klear", "afmoe", "bailing_hybrid", "bailing_moe", "cohere", "cohere2", "deepseek", "deepseek_v2", "deepseek_v3",
    "deepseek_v32", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "falcon_h1", "glm", "glm4",
    "glm4_moe", "glm4_moe_lite", "granite", "granitemoehybrid", "helium", "hunyuan", "hunyuan_v1_dense", "internlm2",
    "internlm3", "iquestcoder", "jamba", "joyai_llm_flash", "kimi_k2", "laguna", "llama", "llama4_text",
    "longcat_flash", "mimo", "mimo_v2_flash", "minicpm", "minicpm3", "ministral3", "mistral", "muse_spark", "nanbeige",
    "olmo", "olmo2", "olmo3", "olmo_hybrid", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "stablelm",
    "telechat3", "xverse", "youtu_llm",
)  # fmt: skip
