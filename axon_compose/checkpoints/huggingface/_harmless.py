"""Fields of config.json that never change what a model computes from given weights."""

from __future__ import annotations

from typing import Final

__all__ = ["HARMLESS"]

#: Of the class of all configurations: names, versions, token ids, and defaults for generation and for classifiers.
_GENERAL: Final = """
    _attn_implementation _attn_implementation_autoset _name_or_path _commit_hash add_cross_attention
    architectures attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id cache_implementation
    chunk_size_feed_forward cross_attention_hidden_size custom_pipelines decoder_start_token_id diversity_penalty
    do_sample
    dtype early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id id2label is_decoder is_encoder_decoder label2id
    length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams num_labels
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix problem_type
    pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p torch_dtype
    torchscript transformers_version typical_p use_bfloat16 use_cache unsloth_fixed unsloth_version
    mlx_lm_version transformers.js_config output_past
"""
#: Of training, and hints for kernels.
_TRAINING: Final = """
    attention_dropout attention_probs_dropout_prob hidden_dropout_prob attn_dropout attn_pdrop aux_loss_alpha
    classifier_dropout dropout embd_pdrop embedding_dropout embd_dropout hidden_dropout initializer_range
    initializer_cutoff_factor max_position_embeddings model_max_length output_router_logits resid_pdrop
    router_aux_loss_coef router_jitter_noise router_z_loss_coef seq_aux use_flash_attn use_flash_attention
    use_mamba_kernels use_mambapy use_kernels fused_rms_norm fuse_norm fuse_cross_entropy fuse_swiglu ep_size
    pretraining_tp rescale_prenorm_residual summary_activation summary_first_dropout gradient_checkpointing
    time_step_init_scheme time_step_scale use_associative_scan keys_to_ignore_at_inference
"""
#: How the weights are stored: read with the tensors.
_STORAGE: Final = "quantization quantization_config compression_config _pre_quantization_dtype"

HARMLESS: Final = frozenset(f"{_GENERAL} {_TRAINING} {_STORAGE}".split())
