"""Differences between implementations whose cause is known.

A fault explains a disagreement only if both sides agree once it is out of the way: it says how to do that, by other
fields of config.json for theirs, by a repair of their loaded model, or by settings that make ours do the same. What
keeps a checkpoint from being loaded is recognised by the text of the error instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.integrations.peers._fields import older_fields

__all__ = ["FAULTS", "UpstreamFault", "faults_of"]

Config = Mapping[str, Any]


@dataclass(frozen=True)
class UpstreamFault:
    """What one implementation does otherwise than the model was made.

    Attributes:
        name: Stable name.
        peer: Whom the comparison is with, `mlx-lm` or `transformers`.
        owner: Whose fault it is; that of the peer unless given.
        model_types: The families that have it; all of them if empty.
        what: What is wrong, in one line.
        right: What is right, in one line.
        source: Where that can be seen.
        when: Whether it matters, given config.json and the number of tokens.
        fields: What to lay over config.json for theirs.
        settings: Texts of `--set` with which ours does the same.
        repair: Puts their loaded model right.
        error: A piece of the error that it leads to while loading.
    """

    name: str
    peer: str
    what: str
    right: str
    source: str
    model_types: tuple[str, ...] = ()
    owner: str = ""
    when: Callable[[Config, int], bool] = lambda config, tokens: True
    fields: Callable[[Config], dict[str, Any]] | None = None
    settings: Callable[[Config], list[str]] | None = None
    repair: Callable[[nn.Module], None] | None = None
    error: str = ""

    def applies(self, peer: str, config: Config, tokens: int) -> bool:
        """Whether it can matter in this comparison; `config` is the whole config.json."""
        inner = {**config, **(config.get("text_config") or {})}
        known = not self.model_types or {config.get("model_type"), inner["model_type"]} & set(self.model_types)
        return self.peer == peer and bool(known) and self.when(inner, tokens)

    def to_dict(self) -> dict[str, str]:
        """Its words, as JSON-ready data."""
        return {
            "name": self.name,
            "owner": self.owner or self.peer,
            "what": self.what,
            "right": self.right,
            "source": self.source,
        }


def faults_of(peer: str, config: Config, tokens: int) -> list[UpstreamFault]:
    """The known faults that can matter in a comparison."""
    return [fault for fault in FAULTS if fault.applies(peer, config, tokens)]


def _rope(config: Config) -> Mapping[str, Any]:
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found if isinstance(found, Mapping) else {}


def _rope_type(config: Config) -> str:
    return str(_rope(config).get("rope_type") or _rope(config).get("type") or "default")


def _original_length(config: Config) -> int:
    name = "original_max_position_embeddings"
    return int(config.get(name) or _rope(config).get(name) or config["max_position_embeddings"])


def _raise_bias(model: nn.Module) -> None:
    """Add the same to every correction bias: the order stays, and no score that counts is below zero any more."""
    for module in model.modules():
        if "e_score_correction_bias" in module:
            bias = module["e_score_correction_bias"]
            module["e_score_correction_bias"] = bias + mx.maximum(-bias.min(), 0)


def _rounded_scale(config: Config) -> list[str]:
    scale: Any = mx.array(math.sqrt(config["hidden_size"]), mx.bfloat16).item()
    return [f"embedding.scale={scale}"]


#: Looked at in this order; all seen in mlx-lm 0.32.2 and transformers 5.24.
FAULTS: Final = (
    UpstreamFault(
        "newer-fields",
        "mlx-lm",
        "reads the fields of transformers 4 and takes defaults for those of transformers 5",
        "`rope_parameters` and `layer_types` say the same as `rope_theta`, `rope_scaling` and intervals",
        "transformers/modeling_rope_utils.py",
        when=lambda config, tokens: bool(older_fields(config)),
        fields=older_fields,
    ),
    UpstreamFault(
        "window-ignored",
        "mlx-lm",
        "every layer sees all earlier tokens",
        "the window of every other layer",
        "transformers/models/gemma2/modeling_gemma2.py, Gemma2Attention",
        model_types=("gemma2",),
        when=lambda config, tokens: tokens > (config.get("sliding_window") or tokens),
        settings=lambda config: [f"dims.sliding_window={config['max_position_embeddings']}"],
    ),
    UpstreamFault(
        "rounded-scale",
        "mlx-lm",
        "rounds the scale of the embedding to bfloat16, whatever the type of the weights",
        "sqrt(hidden_size) in the type of the weights",
        "transformers/models/gemma3/modeling_gemma3.py, Gemma3TextScaledWordEmbedding",
        model_types=("gemma3_text", "gemma3"),
        settings=_rounded_scale,
    ),
    UpstreamFault(
        "groups-at-zero",
        "mlx-lm",
        "scores of excluded groups of experts become 0, which is more than a negative score that counts",
        "they become -inf",
        "transformers/models/deepseek_v3/modeling_deepseek_v3.py, DeepseekV3TopkRouter",
        model_types=("deepseek_v3", "kimi_k2"),
        when=lambda config, tokens: (config.get("n_group") or 1) > (config.get("topk_group") or 1),
        repair=_raise_bias,
    ),
    UpstreamFault(
        "rope-scaling-ignored",
        "mlx-lm",
        "ignores the scaling of rotary positions",
        "rope_scaling, as in every family",
        "transformers/modeling_rope_utils.py",
        model_types=("mixtral", "qwen2_moe", "qwen3_moe"),
        when=lambda config, tokens: _rope_type(config) != "default",
        settings=lambda config: ["dims.rope_scaling={type: linear, factor: 1.0}"],
    ),
    UpstreamFault(
        "experts-everywhere",
        "mlx-lm",
        "gives every layer experts",
        "dense layers at mlp_only_layers, and where decoder_sparse_step says so",
        "transformers/models/qwen2_moe/modeling_qwen2_moe.py, Qwen2MoeDecoderLayer",
        model_types=("qwen2_moe",),
        when=lambda config, tokens: bool(config.get("mlp_only_layers")) or config.get("decoder_sparse_step", 1) != 1,
        error="parameters not in model",
    ),
    UpstreamFault(
        "packed-experts-only",
        "mlx-lm",
        "reads experts that are packed as mxfp4 alone",
        "experts in bfloat16 or float32 too, as after fine-tuning",
        "transformers/models/gpt_oss/modeling_gpt_oss.py, GptOssExperts",
        model_types=("gpt_oss",),
        error="parameters not in model",
    ),
    UpstreamFault(
        "one-set-of-factors",
        "transformers",
        "takes the long factors of longrope for prompts of any length",
        "the short factors up to original_max_position_embeddings",
        "transformers/modeling_rope_utils.py, longrope_frequency_update",
        model_types=("phi3",),
        owner="axon-compose",
        when=lambda config, tokens: _rope_type(config) in ("longrope", "su") and tokens <= _original_length(config),
        settings=lambda config: [f"dims.rope_scaling.max_position_embeddings={_original_length(config)}"],
    ),
)
