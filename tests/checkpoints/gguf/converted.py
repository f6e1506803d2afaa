"""The fixtures of families as GGUF files, written with the package `gguf` the way llama.cpp's converter does.

Names come from the package's own table of tensors, not from the rules that are tested. What the converter changes
(`conversion/*.py` of llama.cpp) is written out here a second time, with NumPy.
"""

from __future__ import annotations

import json
from pathlib import Path

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, get_tensor_name_map

from tests.checkpoints.gguf import attention, delta, experts, fused, gemma4, layered, recurrent, scaled, taken
from tests.checkpoints.gguf.writing import Conversion, add, finish, fixture, place, same, stacked, usual
from tests.families.models import FIXTURES


def write(name: str, path: Path, kind: str | None = None) -> None:
    """Write a fixture; with `kind` every matrix whose rows allow it is quantised so."""
    conversion = CONVERSIONS[name]
    config = json.loads((FIXTURES / name / "config.json").read_text())
    config = {**config, **config.get("text_config", {})}
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[conversion.architecture])
    for key, value in conversion.keys(config).items():
        add(writer, f"{writer.arch}.{key}", value)
    names = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
    count = next((config[name] for name in names if name in config), None) or len(config["layers_block_type"])
    table = get_tensor_name_map(conversion.architecture, count)
    tensors = dict(stacked(fixture(name)))
    for published, array in tensors.items():
        for other, changed in conversion.change(published, array, config):
            place(writer, table.get_name(other, (".weight", ".bias")) or other, changed, kind)
    for other, array in conversion.extra(config).items():
        place(writer, other, array, None)
    finish(writer)


CONVERSIONS = {
    "llama": Conversion(MODEL_ARCH.LLAMA, attention.llama_keys, attention.llama, attention.llama3_factors),
    "mistral": Conversion(MODEL_ARCH.LLAMA, attention.llama_keys, attention.llama, attention.llama3_factors),
    "mixtral": Conversion(MODEL_ARCH.LLAMA, attention.mixtral_keys, attention.mixtral, attention.llama3_factors),
    "qwen2": Conversion(MODEL_ARCH.QWEN2, usual, same),
    "qwen3": Conversion(MODEL_ARCH.QWEN3, usual, same),
    "qwen3_moe": Conversion(MODEL_ARCH.QWEN3MOE, attention.qwen3_moe_keys, attention.fused_experts),
    "qwen2_moe": Conversion(MODEL_ARCH.QWEN2MOE, attention.qwen2_moe_keys, attention.fused_experts),
    "qwen3_next": Conversion(MODEL_ARCH.QWEN3NEXT, delta.qwen3_next_keys, delta.qwen3_next),
    "qwen3_5": Conversion(MODEL_ARCH.QWEN35, delta.qwen3_5_keys, delta.qwen3_5, experts.predictor),
    "qwen3_5_moe": Conversion(MODEL_ARCH.QWEN35MOE, delta.qwen3_5_keys, delta.qwen3_5, experts.predictor),
    "gemma": Conversion(MODEL_ARCH.GEMMA, usual, attention.plus_one),
    "gemma2": Conversion(MODEL_ARCH.GEMMA2, attention.gemma2_keys, attention.plus_one),
    "gemma3_text": Conversion(MODEL_ARCH.GEMMA3, attention.gemma3_keys, attention.plus_one),
    "gemma4_text": Conversion(MODEL_ARCH.GEMMA4, gemma4.keys, gemma4.tensors, gemma4.factors),
    "gemma4_text_moe": Conversion(MODEL_ARCH.GEMMA4, gemma4.keys, gemma4.tensors, gemma4.factors),
    "phi3": Conversion(MODEL_ARCH.PHI3, attention.phi3_keys, same, attention.phi3_factors),
    "mamba": Conversion(MODEL_ARCH.MAMBA, recurrent.mamba_keys, recurrent.mamba),
    "falcon_mamba": Conversion(MODEL_ARCH.MAMBA, recurrent.mamba_keys, recurrent.mamba),
    "mamba2": Conversion(MODEL_ARCH.MAMBA2, recurrent.mamba2_keys, recurrent.mamba2),
    "granite": Conversion(MODEL_ARCH.GRANITE, recurrent.granite_keys, attention.llama),
    "granitemoe": Conversion(MODEL_ARCH.GRANITE_MOE, recurrent.granitemoe_keys, recurrent.granitemoe),
    "granitemoeshared": Conversion(MODEL_ARCH.GRANITE_MOE, recurrent.granitemoe_keys, recurrent.granitemoe),
    "granitemoehybrid": Conversion(MODEL_ARCH.GRANITE_HYBRID, recurrent.granitehybrid_keys, recurrent.granitehybrid),
    "granitemoehybrid_dense": Conversion(
        MODEL_ARCH.GRANITE_HYBRID, recurrent.granitehybrid_keys, recurrent.granitehybrid
    ),
    "lfm2": Conversion(MODEL_ARCH.LFM2, recurrent.lfm2_keys, recurrent.lfm2),
    "lfm2_moe": Conversion(MODEL_ARCH.LFM2MOE, recurrent.lfm2_moe_keys, recurrent.lfm2_moe),
    "olmo2": Conversion(MODEL_ARCH.OLMO2, usual, same),
    "smollm3": Conversion(MODEL_ARCH.SMOLLM3, attention.llama_keys, attention.llama),
    "gpt_oss": Conversion(MODEL_ARCH.GPT_OSS, attention.gpt_oss_keys, attention.gpt_oss),
    "deepseek_v3": Conversion(MODEL_ARCH.DEEPSEEK2, experts.deepseek_keys, experts.deepseek),
    "deepseek_v2": Conversion(MODEL_ARCH.DEEPSEEK2, experts.deepseek_keys, experts.deepseek),
    "deepseek_v2_lite": Conversion(MODEL_ARCH.DEEPSEEK2, experts.deepseek_keys, experts.deepseek),
    "youtu": Conversion(MODEL_ARCH.DEEPSEEK2, experts.deepseek_keys, experts.deepseek),
    "glm4_moe": Conversion(MODEL_ARCH.GLM4_MOE, experts.glm4_moe_keys, experts.glm4_moe, experts.predictor),
    "cohere": Conversion(MODEL_ARCH.COMMAND_R, taken.cohere_keys, same),
    "cohere2": Conversion(MODEL_ARCH.COHERE2, taken.cohere2_keys, same),
    "olmo3": Conversion(MODEL_ARCH.OLMO2, taken.windowed_keys, same),
    "exaone4": Conversion(MODEL_ARCH.EXAONE4, taken.windowed_keys, same),
    "glm4": Conversion(MODEL_ARCH.GLM4, taken.rotated, same),
    "seed_oss": Conversion(MODEL_ARCH.SEED_OSS, usual, same),
    "arcee": Conversion(MODEL_ARCH.ARCEE, attention.llama_keys, attention.llama),
    "starcoder2": Conversion(MODEL_ARCH.STARCODER2, usual, same),
    "ernie4_5": Conversion(MODEL_ARCH.ERNIE4_5, usual, same),
    "ernie4_5_moe": Conversion(MODEL_ARCH.ERNIE4_5_MOE, taken.ernie_moe_keys, taken.bias_named),
    "hunyuan_v1_dense": Conversion(MODEL_ARCH.HUNYUAN_DENSE, taken.hunyuan_keys, same),
    "hunyuan_v1_moe": Conversion(MODEL_ARCH.HUNYUAN_MOE, taken.hunyuan_moe_keys, same),
    "dots1": Conversion(MODEL_ARCH.DOTS1, taken.dots1_keys, taken.bias_named),
    "minimax_m2": Conversion(MODEL_ARCH.MINIMAXM2, taken.minimax_m2_keys, taken.bias_named),
    "kimi_linear": Conversion(MODEL_ARCH.KIMI_LINEAR, experts.kimi_linear_keys, experts.kimi_linear),
    "ministral3": Conversion(MODEL_ARCH.MISTRAL3, fused.ministral3_keys, attention.llama),
    "qwen3_vl": Conversion(MODEL_ARCH.QWEN3VL, fused.qwen3_vl_keys, same),
    "qwen3_vl_moe": Conversion(MODEL_ARCH.QWEN3VLMOE, fused.qwen3_vl_moe_keys, fused.qwen3_vl_moe),
    "gpt2": Conversion(MODEL_ARCH.GPT2, fused.gpt2_keys, fused.gpt2),
    "gpt_neox": Conversion(MODEL_ARCH.GPTNEOX, fused.gpt_neox_keys, fused.gpt_neox),
    "jamba": Conversion(MODEL_ARCH.JAMBA, fused.jamba_keys, fused.jamba),
    "olmo": Conversion(MODEL_ARCH.OLMO, fused.olmo_keys, fused.olmo),
    "olmoe": Conversion(MODEL_ARCH.OLMOE, fused.olmoe_keys, same),
    "exaone": Conversion(MODEL_ARCH.EXAONE, fused.exaone_keys, same, fused.exaone_factors),
    "exaone_moe": Conversion(MODEL_ARCH.EXAONE_MOE, fused.exaone_moe_keys, taken.bias_named, experts.predictor),
    "bailing_moe": Conversion(MODEL_ARCH.BAILINGMOE2, fused.bailing_moe_keys, fused.bailing_moe),
    "llama4_text": Conversion(MODEL_ARCH.LLAMA4, scaled.llama4_keys, scaled.llama4),
    "afmoe": Conversion(MODEL_ARCH.AFMOE, scaled.afmoe_keys, scaled.afmoe),
    "minicpm": Conversion(MODEL_ARCH.MINICPM, scaled.minicpm_keys, scaled.minicpm),
    "minicpm3": Conversion(MODEL_ARCH.MINICPM3, scaled.minicpm3_keys, same),
    "plamo2": Conversion(MODEL_ARCH.PLAMO2, scaled.plamo2_keys, scaled.plamo2),
    "qwen2_vl": Conversion(MODEL_ARCH.QWEN2VL, scaled.qwen2_vl_keys, scaled.text_alone),
    "plamo3": Conversion(MODEL_ARCH.PLAMO3, scaled.plamo3_keys, scaled.plamo3),
    "nemotron": Conversion(MODEL_ARCH.NEMOTRON, scaled.nemotron_keys, attention.plus_one),
    "jais2": Conversion(MODEL_ARCH.JAIS2, scaled.jais2_keys, same),
    "mistral4": Conversion(MODEL_ARCH.MISTRAL4, experts.deepseek_keys, scaled.mistral4),
    "falcon": Conversion(MODEL_ARCH.FALCON, layered.falcon_keys, layered.falcon),
    "falcon_two_norms": Conversion(MODEL_ARCH.FALCON, layered.falcon_keys, layered.falcon),
    "stablelm": Conversion(MODEL_ARCH.STABLELM, layered.stablelm_keys, layered.stablelm, layered.stablelm_norms),
    "stablelm_parallel": Conversion(MODEL_ARCH.STABLELM, layered.stablelm_keys, layered.stablelm),
    "deepseek": Conversion(MODEL_ARCH.DEEPSEEK, scaled.deepseek_moe_keys, scaled.deepseek_moe),
    "bloom": Conversion(MODEL_ARCH.BLOOM, layered.bloom_keys, layered.bloom),
    "mpt": Conversion(MODEL_ARCH.MPT, layered.mpt_keys, same),
    "gpt_bigcode": Conversion(MODEL_ARCH.STARCODER, layered.starcoder_keys, same),
    "mimo_v2_flash": Conversion(MODEL_ARCH.MIMO2, scaled.mimo2_keys, scaled.mimo2, experts.predictor),
    "nemotron_h_published": Conversion(MODEL_ARCH.NEMOTRON_H_MOE, recurrent.nemotron_h_keys, recurrent.nemotron_h),
    "falcon_h1": Conversion(MODEL_ARCH.FALCON_H1, recurrent.falcon_h1_keys, recurrent.falcon_h1),
    "rwkv7": Conversion(MODEL_ARCH.RWKV7, recurrent.rwkv7_keys, recurrent.rwkv7, recurrent.rwkv7_shares),
}
#: What llama.cpp has no key for, so that the converter loses it: here the fixtures differ from published models.
LOST = {
    "qwen3_moe": ["dims.decoder_sparse_step=2", "dims.mlp_only_layers=[3]"],
    "qwen2_moe": ["dims.mlp_only_layers=[1]"],
    "qwen3_next": ["dims.mlp_only_layers=[1]"],
    "qwen3_5": ["dims.attention_bias=true"],
    "gemma2": ["dims.query_pre_attn_scalar=24", "dims.rope_theta=7000.0"],
    "gemma3_text": [
        "dims.query_pre_attn_scalar=24", "dims.sliding_window_pattern=3", "dims.rope_local_base_freq=5000.0",
    ],
    "gemma4_text": ["dims.rope_parameters.full_attention.fraction=0.5"],
    "gemma4_text_moe": ["dims.rope_parameters.full_attention.fraction=0.5"],
    "phi3": ["dims.rope_scaling.max_position_embeddings=64"],
    "falcon_mamba": ["dims.mixer_rms_eps=0.001"],
    "mamba2": ["dims.time_step_limit=[0.002, 0.2]"],
    "granitemoehybrid": ["dims.attention_bias=true"],
    "lfm2": ["dims.conv_bias=true"],
    "lfm2_moe": ["dims.conv_bias=true", "dims.routed_scaling_factor=1.5"],
    "smollm3": ["dims.no_rope_layer_interval=2", "dims.use_sliding_window=true", "dims.sliding_window=8"],
    "gpt_oss": ["dims.swiglu_limit=2.0"],
    "deepseek_v3": ["dims.attention_bias=true", "dims.rope_scaling.mscale=0.7"],
    "deepseek_v2": ["dims.attention_bias=true"],
    "cohere2": ["dims.sliding_window_pattern=3"],
    "starcoder2": ["dims.sliding_window=12"],
    "ernie4_5_moe": ["dims.moe_layer_end_index=4"],
    "hunyuan_v1_moe": ["dims.moe_topk=[3, 2, 3]"],
    "dots1": ["dims.sliding_window=8", "dims.max_window_layers=2"],
    "kimi_linear": ["dims.n_group=4"],
    "ministral3": ["dims.rope_scaling.mscale=1.0", "dims.sliding_window=24"],
    "qwen3_vl_moe": ["dims.decoder_sparse_step=2"],
    "gpt_neox": ["dims.rope_theta=25000.0"],
    "olmoe": ["dims.norm_topk_prob=true", "dims.rms_norm_eps=3e-5"],
    "llama4_text": [
        "dims.attention_chunk_size=9", "dims.no_rope_layer_interval=3", "dims.floor_scale=7", "dims.attn_scale=0.4",
    ],
    "afmoe": ["dims.global_attn_every_n_layers=3"],
    "minicpm3": [
        "dims.scale_emb=3", "dims.scale_depth=0.9", "dims.dim_model_base=24", "dims.rope_theta=20000.0",
        "dims.rope_scaling={type: yarn, factor: 4.0, original_max_position_embeddings: 64, mscale: 0.7, "
        "mscale_all_dim: 1.3}",
    ],
    "plamo2": ["dims.attention_window_size=50", "dims.full_attention_idx=[1]"],
    "qwen2_vl": ["dims.use_sliding_window=true", "dims.sliding_window=12", "dims.max_window_layers=2"],
    "mistral4": ["dims.rope_scaling.mscale=1.0", "dims.query_growth=0.3"],
    "falcon": ["dims.rope_theta=9000.0"],
    "falcon_two_norms": ["dims.rope_theta=9000.0"],
    "stablelm": ["dims.rope_theta=20000.0"],
    "stablelm_parallel": ["dims.rope_theta=5000.0", "dims.rope_scaling={type: linear, factor: 4.0}"],
    "deepseek": ["dims.moe_layer_freq=2"],
    "mpt": ["dims.softmax_scale=0.4"],
    "mimo_v2_flash": ["dims.norm_topk_prob=false", "dims.routed_scaling_factor=1.7"],
    "nemotron_h_published": ["dims.time_step_limit=[0.001, null]"],
}  # fmt: skip
