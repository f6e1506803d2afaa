"""config.json as transformers 5 writes it, in the fields that mlx-lm reads.

transformers 5 keeps all that concerns rotary positions in `rope_parameters` and the kinds of layers in `layer_types`;
most models of mlx-lm 0.32 look for the fields of transformers 4, and take a default where one is missing. Which fields
a model reads, its own `ModelArgs` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from axon_compose.checkpoints.upstream._stock import stock_fields, stock_type

__all__ = ["older_fields", "with_older_fields"]

#: Fields that changed their names: model type to the old name and the new one.
_RENAMED: Final[dict[str, dict[str, str]]] = {
    "qwen3_moe": {"num_experts": "num_local_experts"},
    "mellum": {"num_experts": "num_local_experts"},
    "internlm3": {"qkv_bias": "attention_bias", "bias": "mlp_bias"},
    "gpt_neox": {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"},
    "lfm2": {"block_dim": "hidden_size", "block_ff_dim": "intermediate_size"},
    "bailing_hybrid": {"n_group": "num_expert_group", "num_experts_per_tok": "num_experts_per_token"},
}
#: Fields whose value is the one of another field, whatever they say.
_REPLACED: Final = {"bailing_hybrid": {"head_dim": "linear_head_dim"}}
#: Classes that transformers writes into `architectures`, and by what name mlx-lm knows them.
_CLASSES: Final = {"BailingHybridForCausalLM": "BailingMoeV3ForCausalLM"}
#: The kind of each layer: written anew even where the field is given, for layer_types counts. An interval is kept.
_KINDS: Final = ("layer_types", "sliding_window_pattern")
_BESIDE: Final = ("rope_theta", "partial_rotary_factor")


def older_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of transformers 4 that a configuration lacks and its newer fields imply."""
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        found = older_fields(inner)
        return {"text_config": {**inner, **found}} if found else {}
    family = stock_type(config)
    classes = config.get("architectures")
    written = str(classes[0]) if isinstance(classes, list) and classes else ""
    read = stock_fields(family, _CLASSES.get(written, written))
    found = {} if "rope_parameters" in read else _rotary(config)
    found |= {} if "layer_types" in read else _pattern(config)
    found |= {} if "mlp_layer_types" in read else _dense_layers(config)
    both = {**config, **found}
    found |= {old: both.get(new) for old, new in _RENAMED.get(family, {}).items()}
    if family in _OF_FAMILY:
        found |= _OF_FAMILY[family](config)
    found = {name: value for name, value in found.items() if name in read and value is not None}
    missing = {name: value for name, value in found.items() if config.get(name) is None}
    missing |= {name: config[source] for name, source in _REPLACED.get(family, {}).items() if source in config}
    missing |= {"architectures": [_CLASSES[written]]} if written in _CLASSES else {}
    return missing | {name: found[name] for name in _KINDS if isinstance(found.get(name), list | str)}


def with_older_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with those fields, and without `rope_parameters` where a `rope_scaling` now says the same.

    transformers takes `rope_scaling` first where both are there, and drops the rest of `rope_parameters`.
    """
    found = older_fields(config)
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        found = {"text_config": with_older_fields(inner)}
    elif "rope_scaling" in found:
        config = {name: value for name, value in config.items() if name != "rope_parameters"}
    return {**config, **found, "model_type": stock_type(config)}


def _rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    written = config.get("rope_parameters")
    if not isinstance(written, Mapping):
        return {}
    if isinstance(twice := config.get("rope_scaling"), Mapping) and twice:
        written = twice  # as transformers takes it
    full, local = written.get("full_attention"), written.get("sliding_attention")
    if isinstance(full, Mapping) and isinstance(local, Mapping):
        return {**_flat(full), "rope_local_base_freq": local.get("rope_theta")}
    return _flat(written)


def _flat(written: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of `rope_parameters` as `rope_theta`, `partial_rotary_factor` and `rope_scaling`."""
    kind = written.get("rope_type") or written.get("type") or "default"
    found = {name: written[name] for name in _BESIDE if name in written}
    if kind != "default":
        found["rope_scaling"] = {"type": kind, **{key: written[key] for key in written if key not in _BESIDE}}
    return found


def _pattern(config: Mapping[str, Any]) -> dict[str, Any]:
    """The interval of the layers that see everything, where it is even."""
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or "full_attention" not in kinds:
        return {}
    interval = kinds.index("full_attention") + 1
    if any((kind == "full_attention") != ((at + 1) % interval == 0) for at, kind in enumerate(kinds)):
        return {}
    names = {"sliding_attention": "sliding_window_pattern", "linear_attention": "full_attention_interval"}
    return {name: interval for kind, name in names.items() if kind in kinds}


def _dense_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """How many layers begin without experts, where all others have some."""
    kinds = config.get("mlp_layer_types")
    if not isinstance(kinds, list):
        return {}
    dense = kinds.count("dense")
    return {} if "dense" in kinds[dense:] else {"first_k_dense_replace": dense}


def _of_gemma4(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the global layers, which are all alike."""
    layers = config.get("per_layer_config")
    first: Mapping[str, Any] = next(iter(layers.values()), {}) if isinstance(layers, Mapping) else {}
    return {"global_head_dim": first.get("head_dim"), "num_global_key_value_heads": first.get("num_key_value_heads")}


def _of_granite(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {"linear_attention": "mamba", "full_attention": "attention"}
    kinds = config.get("layer_types") or ()
    return {"layer_types": [names.get(kind, kind) for kind in kinds]} if set(kinds) & set(names) else {}


def _of_exaone4(config: Mapping[str, Any]) -> dict[str, Any]:
    """Kinds of layers as letters, and fields that have to be there."""
    kinds = config.get("layer_types") if config.get("sliding_window") else None
    letters = "".join("L" if kind == "sliding_attention" else "G" for kind in kinds or ())
    return {
        "sliding_window_pattern": letters or None,
        "head_dim": config["hidden_size"] // config["num_attention_heads"],
        "rope_scaling": config.get("rope_scaling") or {"rope_type": "default"},
    }


def _of_solar_open(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that have to be there, though no layer is dense."""
    turned = _rotary(config).get("partial_rotary_factor", 1.0)
    width = config["moe_intermediate_size"]
    return {"intermediate_size": width, "first_k_dense_replace": 0, "partial_rotary_factor": turned}


def _of_kimi(config: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of all that concerns linear attention."""
    kinds = config.get("layer_types")
    if not isinstance(kinds, list):
        return {}
    names = {"head_dim": "linear_head_dim", "num_heads": "linear_num_heads"}
    names["short_conv_kernel_size"] = "linear_conv_kernel_dim"
    lists = {"full_attn_layers": "full_attention", "kda_layers": "linear_attention"}
    layers = {name: [at for at, other in enumerate(kinds, 1) if other == kind] for name, kind in lists.items()}
    return {"linear_attn_config": layers | {name: config.get(field) for name, field in names.items()}}


def _of_exaone(config: Mapping[str, Any]) -> dict[str, Any]:
    """Whether each layer has experts."""
    kinds = config.get("mlp_layer_types")
    return {"is_moe_layer": [kind == "sparse" for kind in kinds]} if isinstance(kinds, list) else {}


_OF_FAMILY: Final[dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "exaone_moe": _of_exaone,
    "gemma4_text": _of_gemma4,
    "kimi_linear": _of_kimi,
    "granitemoehybrid": _of_granite,
    "exaone4": _of_exaone4,
    "solar_open": _of_solar_open,
    "falcon_h1": lambda config: {"head_dim": config["hidden_size"] // config["num_attention_heads"]},
}
