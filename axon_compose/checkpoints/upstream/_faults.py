"""The known faults: where mlx-lm 0.32.2 or transformers 5.24 computes something different from us, and why.

Each was measured on a small checkpoint (`tests/families/upstream_faults.yaml`): with the fault out of the way, the
difference is gone. Unless a source is named, right is what transformers computes.
"""

from __future__ import annotations

from typing import Final

from axon_compose.checkpoints.upstream._affected import GROUPED, SWIGLU, UNSCALED, YARN
from axon_compose.checkpoints.upstream._conditions import groups, least_step, original_length, rope, rope_type, slides
from axon_compose.checkpoints.upstream._fault import Config, UpstreamFault
from axon_compose.checkpoints.upstream._fields import older_fields
from axon_compose.checkpoints.upstream._repairs import (
    falcon_multipliers,
    first_kinds,
    head_norm_eps,
    longer_cache,
    norm_eps,
    raise_bias,
    rounded_scale,
)

__all__ = ["FAULTS", "OWN_HEAD", "faults_of"]


def faults_of(peer: str, config: Config, tokens: int, written: tuple[UpstreamFault, ...] = ()) -> list[UpstreamFault]:
    """The known faults that can matter in a comparison.

    Args:
        peer: Whom the comparison is with.
        config: config.json.
        tokens: Length of the comparison.
        written: Faults that the architecture file carries.
    """
    return [fault for fault in (*written, *FAULTS) if fault.applies(peer, config, tokens)]


#: Of checkpoints whose files hold two different matrices under a config.json that ties them, which is seen there alone.
OWN_HEAD: Final = UpstreamFault(
    "own-head-dropped",
    "mlx-lm",
    "a head that differs from the embedding is dropped where config.json ties the two",
    "two different matrices are not tied",
    fields=lambda config: {"tie_word_embeddings": False},
)

#: Looked at in this order.
FAULTS: Final = (
    UpstreamFault(
        "newer-fields",
        "mlx-lm",
        "fields that transformers 5 writes into config.json are not read; defaults are taken, or it cannot be loaded",
        "rope_parameters and layer_types say what rope_theta, rope_scaling and intervals said",
        when=lambda config, tokens: bool(older_fields(config)),
        fields=older_fields,
    ),
    UpstreamFault(
        "activation-ignored",
        "mlx-lm",
        "the activation is silu, whatever hidden_act says",
        "hidden_act of config.json",
        model_types=SWIGLU,
        when=lambda config, tokens: config.get("hidden_act") not in (None, "silu", "swish"),
        settings=lambda config: ["dims.hidden_act=silu"],
    ),
    UpstreamFault(
        "window-ignored",
        "mlx-lm",
        "sliding-window layers attend to all earlier tokens",
        "they attend to sliding_window tokens",
        model_types=("gemma2", "mistral", "mixtral", "phi3"),
        when=slides,
        settings=lambda config: [f"dims.sliding_window={config['max_position_embeddings']}"],
    ),
    UpstreamFault(
        "window-ignored",
        "mlx-lm",
        "without layer_types all layers attend to all earlier tokens",
        "they attend to sliding_window tokens",
        model_types=("ministral3",),
        when=lambda config, tokens: not config.get("layer_types") and slides(config, tokens),
        settings=lambda config: [f"dims.sliding_window={config['max_position_embeddings']}"],
    ),
    UpstreamFault(
        "window-ignored",
        "mlx-lm",
        "use_sliding_window is ignored",
        "layers from max_window_layers on attend to sliding_window tokens",
        model_types=("qwen2", "qwen3"),
        when=lambda config, tokens: bool(config.get("use_sliding_window")) and slides(config, tokens),
        settings=lambda config: ["dims.use_sliding_window=false"],
    ),
    UpstreamFault(
        "layer-types-ignored",
        "mlx-lm",
        "layer_types is ignored, only sliding_window_pattern counts",
        "layer_types says what each layer is",
        model_types=("cohere2", "gemma3_text"),
        when=lambda config, tokens: config.get("layer_types") not in (None, first_kinds(config)),
        settings=lambda config: [f"dims.layer_types=[{', '.join(first_kinds(config))}]"],
    ),
    UpstreamFault(
        "rounded-scale",
        "mlx-lm",
        "the square root of the hidden size is rounded to bfloat16 in models of every type",
        "it is rounded to the type of the weights",
        model_types=("gemma3_text",),
        settings=rounded_scale,
    ),
    UpstreamFault(
        "groups-at-zero",
        "mlx-lm",
        "groups of experts that were not chosen get the score 0, and may win over a negative one",
        "they get -inf (also in DeepSeek's own code)",
        model_types=GROUPED,
        when=lambda config, tokens: (config.get("n_group") or 1) > (config.get("topk_group") or 1),
        repair=raise_bias,
    ),
    UpstreamFault(
        "rope-scaling-ignored",
        "mlx-lm",
        "rope_scaling is ignored",
        "it applies as for any RoPE",
        model_types=UNSCALED,
        when=lambda config, tokens: rope_type(config) != "default",
        settings=lambda config: ["dims.rope_scaling={type: linear, factor: 1.0}"],
    ),
    UpstreamFault(
        "experts-everywhere",
        "mlx-lm",
        "mlp_only_layers is ignored, every layer has experts",
        "a layer in mlp_only_layers has a plain MLP",
        model_types=("qwen2_moe",),
        when=lambda config, tokens: bool(config.get("mlp_only_layers")),
        error="parameters not in model",
    ),
    UpstreamFault(
        "packed-experts-only",
        "mlx-lm",
        "experts that are not in mxfp4 cannot be loaded",
        "gate_up_proj and down_proj are (experts, in, out) then",
        model_types=("gpt_oss",),
        error="parameters not in model",
    ),
    UpstreamFault(
        "truncate-ignored",
        "mlx-lm",
        "truncate of yarn is ignored, the range of the ramp is rounded",
        "with `truncate` false nothing is rounded",
        model_types=YARN,
        when=lambda config, tokens: rope_type(config) == "yarn" and rope(config).get("truncate") is False,
        settings=lambda config: ["dims.rope_scaling.truncate=true"],
    ),
    UpstreamFault(
        "attention-factor-ignored",
        "mlx-lm",
        "attention_factor of yarn is ignored, what scales queries and keys follows from the factor alone",
        "attention_factor, where config.json has it",
        model_types=YARN,
        when=lambda config, tokens: rope_type(config) == "yarn" and bool(rope(config).get("attention_factor")),
        settings=lambda config: ["dims.rope_scaling.attention_factor=null"],
    ),
    UpstreamFault(
        "fixed-limit",
        "mlx-lm",
        "swiglu_limit is 7 whatever config.json says",
        "swiglu_limit of config.json",
        model_types=("gpt_oss",),
        when=lambda config, tokens: config.get("swiglu_limit", 7.0) != 7.0,
        settings=lambda config: ["dims.swiglu_limit=7.0"],
    ),
    UpstreamFault(
        "multipliers-missing",
        "mlx-lm",
        "keys lack key_multiplier, values attention_in_multiplier, and biases every multiplier",
        "they act on the input and the output of a projection, its bias included",
        model_types=("falcon_h1",),
        repair=falcon_multipliers,
    ),
    UpstreamFault(
        "norm-groups-ignored",
        "mlx-lm",
        "the gated norm ignores the number of groups",
        "one root mean square for each group (also in the code of state-spaces/mamba)",
        model_types=("falcon_h1", "mamba2", "granitemoehybrid"),
        when=lambda config, tokens: groups(config) > 1,
        settings=lambda config: ["components.mamba.norm_groups=1"],
    ),
    UpstreamFault(
        "fixed-eps",
        "mlx-lm",
        "the eps of norms is 1e-5 whatever config.json says",
        "layer_norm_epsilon",
        model_types=("mamba", "falcon_mamba", "mamba2"),
        when=lambda config, tokens: config.get("layer_norm_epsilon", 1e-5) != 1e-5,
        repair=norm_eps,
    ),
    UpstreamFault(
        "fixed-eps",
        "mlx-lm",
        "the eps of the norm over heads is 64e-5 whatever config.json says",
        "head_dim * norm_eps, as in flash-linear-attention; the same number where heads have 64",
        model_types=("rwkv7",),
        repair=head_norm_eps,
    ),
    UpstreamFault(
        "cache-too-short",
        "mlx-lm",
        "in the cache is one token less than a query of a whole prompt sees: sliding_window of them",
        "sliding_window tokens besides the query's own, prompt or not (also the mask of mlx-lm)",
        model_types=("plamo3",),
        when=slides,
        repair=longer_cache,
    ),
    UpstreamFault(
        "size-required",
        "mlx-lm",
        "a config.json without intermediate_size is refused",
        "it is expand * hidden_size",
        model_types=("mamba2",),
        when=lambda config, tokens: config.get("intermediate_size") is None,
        fields=lambda config: {"intermediate_size": config.get("expand", 2) * config["hidden_size"]},
    ),
    UpstreamFault(
        "gelu-by-tanh",
        "mlx-lm",
        "gelu is computed with tanh",
        "hidden_act gelu is the exact one",
        model_types=("gpt_neox",),
        when=lambda config, tokens: config.get("hidden_act", "gelu") == "gelu",
        settings=lambda config: ["dims.hidden_act=gelu_pytorch_tanh"],
    ),
    UpstreamFault(
        "size-ignored",
        "mlx-lm",
        "intermediate_size is ignored, the MLP has 4 * hidden_size",
        "intermediate_size",
        model_types=("gpt_neox",),
        when=lambda config, tokens: config.get("intermediate_size") != 4 * config["hidden_size"],
        error="Expected shape",
    ),
    UpstreamFault(
        "size-ignored",
        "mlx-lm",
        "n_inner is ignored, the MLP has 4 * n_embd",
        "n_inner, where it is given",
        model_types=("gpt2",),
        when=lambda config, tokens: (config.get("n_inner") or 4 * config["n_embd"]) != 4 * config["n_embd"],
        error="Expected shape",
    ),
    UpstreamFault(
        "names-of-the-base",
        "mlx-lm",
        "tensors whose names begin with `transformer.` cannot be loaded",
        "that is how the language model is saved; the first published files lack it",
        model_types=("gpt2",),
        error="parameters not in model: model.transformer.",
    ),
    UpstreamFault(
        "experts-elsewhere",
        "mlx-lm",
        "layers with (index + expert_layer_offset) % expert_layer_period == 0 have experts",
        "those with index % expert_layer_period == expert_layer_offset",
        model_types=("jamba",),
        when=lambda config, tokens: config.get("expert_layer_period", 2) != 2,
        error="parameters not in model",
    ),
    UpstreamFault(
        "step-clamped",
        "transformers",
        "steps of the state space layers are at least time_step_min, which is for drawing new weights",
        "time_step_limit bounds them, by default not at all (also in NVIDIA's own code, and in mlx-lm)",
        model_types=("nemotron_h",),
        when=lambda config, tokens: least_step(config) > (config.get("time_step_limit") or [0.0])[0],
        settings=lambda config: [f"dims.time_step_limit=[{least_step(config)}, null]"],
    ),
    UpstreamFault(
        "one-set-of-factors",
        "transformers",
        "the long factors of longrope are taken for prompts of any length, unless a setting says otherwise",
        "short factors up to original_max_position_embeddings tokens",
        model_types=("phi3",),
        owner="axon-compose",
        when=lambda config, tokens: rope_type(config) in ("longrope", "su") and tokens <= original_length(config),
        settings=lambda config: [f"dims.rope_scaling.max_position_embeddings={original_length(config)}"],
    ),
    *(
        UpstreamFault(
            "one-theta",
            peer,
            "the theta that a dynamic rope_scaling has at its longest is taken for prompts of any length, unless a "
            "setting says otherwise",
            "rope_theta itself up to max_position_embeddings tokens",
            owner="axon-compose",
            when=lambda config, tokens: rope_type(config) == "dynamic" and tokens <= original_length(config),
            settings=lambda config: [f"dims.rope_scaling.max_position_embeddings={original_length(config)}"],
        )
        for peer in ("mlx-lm", "transformers")
    ),
)
