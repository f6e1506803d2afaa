"""Fields of config.json that never change what a model computes from given weights."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["NEUTRAL", "is_harmless"]

#: Of the class of all configurations of transformers, also of version 4: names, token ids, defaults for generation
#: and for classifiers, what a forward pass returns.
_GENERAL: Final = """
    _attn_implementation _attn_implementation_autoset _name_or_path _commit_hash architectures attn_implementation
    auto_map bad_words_ids begin_suppress_tokens bos_token_id cache_implementation custom_pipelines
    decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    experts_implementation exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    id2label is_composition is_decoder label2id length_penalty max_length min_length model_type name_or_path
    no_repeat_ngram_size
    num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states output_scores
    pad_token_id prefix problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
    tie_last_hidden_states tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p
    use_bfloat16 use_cache xla_device
"""
#: Further defaults for generation, as transformers 5 takes them out of config.json, and a misspelt one in LLaMA 1.
_GENERATION: Final = """
    assistant_confidence_threshold assistant_lookbehind badwordsids encoder_repetition_penalty epsilon_cutoff
    eta_cutoff num_assistant_tokens num_assistant_tokens_schedule target_lookbehind
"""
#: Of other programs.
_PROGRAMS: Final = """
    internal_version mlx_lm_version output_past transformers.js_config unsloth_fixed unsloth_version
"""
#: Of training, lengths that say how long a context may be, and hints for kernels.
_TRAINING: Final = """
    aux_loss_alpha attn_pdrop embd_pdrop resid_pdrop hidden_dropout_prob attention_probs_dropout_prob
    ep_size fused_rms_norm fuse_cross_entropy fuse_norm fuse_swiglu gradient_checkpointing initializer_cutoff_factor
    initializer_range keys_to_ignore_at_inference max_position_embeddings max_seq_len max_sequence_length
    model_max_length output_router_logits pretraining_tp rescale_prenorm_residual router_aux_loss_coef
    router_jitter_noise router_z_loss_coef seq_aux summary_activation time_step_init_scheme time_step_scale
    use_associative_scan use_flash_attention use_flash_attn use_kernels use_mamba_kernels use_mambapy
"""
#: How the weights are stored: read with the tensors.
_STORAGE: Final = "quantization quantization_config compression_config _pre_quantization_dtype"
#: Of the models of images and sound around a text model.
_OUTSIDE: Final = re.compile(r"(image|video|audio|vision|boi|eoi|boa|eoa|boc|eoc)(_\w+)?_token(_id|_index)?", re.ASCII)
_HARMLESS: Final = frozenset(f"{_GENERAL} {_GENERATION} {_PROGRAMS} {_TRAINING} {_STORAGE}".split())
#: Dropout, wherever it is, such as `resid_dropout` and `moe_dropout_rate`.
_DROPOUT: Final = re.compile(r"(\w+_)?dropout(_prob|_rate|_p)?", re.ASCII)

#: Of the class of all configurations too, but without effect at this value alone.
NEUTRAL: Final[dict[str, Any]] = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "is_encoder_decoder": False,
    "pruned_heads": {},
}


def is_harmless(name: str) -> bool:
    """Whether a field never changes what a model computes from given weights, whatever its value."""
    return name in _HARMLESS or any(pattern.fullmatch(name) for pattern in (_DROPOUT, _OUTSIDE))
