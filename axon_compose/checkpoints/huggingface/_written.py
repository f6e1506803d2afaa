"""Dims to the config.json of a stock model: the configuration that they came from, or one made of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from axon_compose.checkpoints.huggingface._dims import field_names, rope_keys
from axon_compose.checkpoints.huggingface._rope import ORIGINAL_LENGTH, key_of_rope
from axon_compose.language.config import INFINITE, INNER
from axon_compose.language.document import FormulaError, HuggingFace, cached_parse, is_formula
from axon_compose.language.wrappers import OTHER_PARTS, TEXT_TYPES

__all__ = ["exported_as", "model_type_of", "original_config", "whole_config", "with_dims", "with_missing"]

#: How the tensors were stored: what is written is stored in its own way.
_STORAGE: Final = ("quantization", "quantization_config", "compression_config")
#: Of the wrapper of a model of text and images, what also describes the text model.
_OF_WRAPPER: Final = (
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "dtype", "torch_dtype",
    "transformers_version",
)  # fmt: skip
#: Names of the options of `rope` in a mapping of `rope_parameters`.
_WORDS: Final = {"theta": "rope_theta", "fraction": "partial_rotary_factor"}
_LENGTH: Final = "max_position_embeddings"
#: Context of a model that says none, as most readers want a number.
_DEFAULT_LENGTH: Final = 4096


def original_config(source: Mapping[str, Any], section: HuggingFace) -> dict[str, Any]:
    """The configuration that a model came from, without how its weights were stored there.

    That of a text model inside another one becomes one of its own: the weights of the rest are not in the model.

    Args:
        source: The whole config.json, infinity as text.
        section: The section of the file that read it.
    """
    inner = next((part for name in INNER if isinstance(part := source.get(name), Mapping)), None)
    found = source if inner is None else {name: source[name] for name in _OF_WRAPPER if name in source} | dict(inner)
    kept = {name: _with_infinity(value) for name, value in found.items() if name not in _STORAGE}
    if isinstance(kept.get("rope_parameters"), Mapping) and isinstance(kept.get("rope_scaling"), Mapping):
        scaling = kept.pop("rope_scaling")  # written twice: it counts, unless it is empty
        if scaling and not any(isinstance(item, Mapping) for item in kept["rope_parameters"].values()):
            kept["rope_parameters"] = {"rope_type": scaling.get("type", "default"), **scaling}
    if inner is None:
        kept = {name: value for name, value in kept.items() if name not in OTHER_PARTS}
        if (named := kept.get("model_type")) in TEXT_TYPES and named not in section.model_types:
            kept["model_type"] = TEXT_TYPES[named]
    elif set(source.get("architectures") or ()) & set(section.architectures):
        kept["model_type"] = section.model_types[0]  # that of the part alone is another family's
    if "model_type" not in kept and section.model_types:
        kept["model_type"] = section.model_types[0]
    if other := exported_as(section, kept.get("model_type")):
        kept.pop("architectures", None)
        kept["model_type"] = other
    return kept


def exported_as(section: HuggingFace, model_type: Any) -> str | None:
    """The model type that an export has instead of this one, if it has another one."""
    of_type = section.per_type.get(model_type)
    return of_type.export_as if of_type else None


def whole_config(section: HuggingFace, dims: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration made of nothing but dims; a null that is the default is left out.

    Args:
        section: With at least one model type, the first of which is taken.
        dims: Values of all dims.
        defaults: Those of the family file.
    """
    config: dict[str, Any] = {"model_type": model_type_of(section, dims)}
    if section.architectures:
        config["architectures"] = section.architectures[:1]
    for name, allowed in section.only.items():
        value = (allowed or [None])[0] if isinstance(allowed, list) else allowed
        if value not in (None, False) and "*" not in name and not is_formula(value):
            _put(config, name, value)
    written = {name: value for name, value in dims.items() if value is not None or defaults.get(name) is not None}
    config = with_missing(with_dims(config, section, written), section, dims)
    if not any(_LENGTH in field_names(section, name) for name in dims):
        config.setdefault(_LENGTH, _DEFAULT_LENGTH)
    if {"rope_theta", "rope_scaling"} <= dims.keys():
        options = {"theta": "rope_theta", "fraction": "partial_rotary_factor", "scaling": "rope_scaling"}
        own = _besides(config.get("rope_scaling") or {}, section, dims) | (config.get("rope_parameters") or {})
        config["rope_parameters"] = _rope({key: dims.get(name) for key, name in options.items()}) | own
    return config


def model_type_of(section: HuggingFace, dims: Mapping[str, Any]) -> str:
    """The first model type, unless `huggingface.write` chooses another one."""
    chosen = _value(section.write.get("model_type"), dims)
    found: str = chosen if chosen in section.model_types else section.model_types[0]
    return exported_as(section, found) or found


def with_missing(config: Mapping[str, Any], section: HuggingFace, dims: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with those fields of `huggingface.write` that it lacks."""
    fields = {name: _value(written, dims) for name, written in section.write.items()}
    return {**{name: _without_null(value) for name, value in fields.items()}, **config}


def with_dims(config: Mapping[str, Any], section: HuggingFace, dims: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the fields of these dims, each where it is read from."""
    found = copy.deepcopy(dict(config))
    for name, value in dims.items():
        if name in section.tensors:
            continue  # follows from the tensors
        names = [field for field in field_names(section, name) if "*" not in field]
        if not names:
            continue
        if name == "rope_parameters":
            found.pop("rope_scaling", None)
            found[name] = {kind: _rope(options) for kind, options in value.items()} if value else None
        elif name == "rope_scaling":
            written = found.get("rope_parameters" if _flat(found) else name) or {}
            _put_scaling(found, value, _besides(written, section, dims))
        elif (key := key_of_rope(names[0])) is not None:
            _put_key(found, key, value)
        elif not _put_rope(found, name, value):
            _put(found, next((field for field in names if _has(found, field)), names[0]), _without_null(value))
    return found


def _put_scaling(config: dict[str, Any], value: Mapping[str, Any] | None, besides: Mapping[str, Any]) -> None:
    """Write the scaling of positions in the words of config.json, where one mapping holds them all.

    Args:
        config: The configuration.
        value: The option `rope.scaling`.
        besides: What the mapping keeps.
    """
    scaling = dict(value or {})
    kind = scaling.pop("type", "default")
    length = scaling.pop(_LENGTH, None) or (scaling.get(ORIGINAL_LENGTH) if kind == "dynamic" else None)
    if length:
        config[_LENGTH] = length
    if ORIGINAL_LENGTH in config and ORIGINAL_LENGTH in scaling:
        config[ORIGINAL_LENGTH] = scaling[ORIGINAL_LENGTH]
    if _flat(config):
        config.pop("rope_scaling", None)
        config["rope_parameters"] = {**besides, "rope_type": kind, **scaling}
    elif value or besides:
        config["rope_scaling"] = {**besides, "rope_type": kind, "type": kind, **scaling}
    else:
        config["rope_scaling"] = None


def _put_key(config: dict[str, Any], key: str, value: Any) -> None:
    """Write a key of the mapping about positions, under the name that the mapping has there."""
    name = "rope_scaling" if config.get("rope_scaling") and not config.get("rope_parameters") else "rope_parameters"
    if value is not None or _has(config, f"{name}.{key}"):
        _put(config, f"{name}.{key}", _without_null(value))


def _put_rope(config: dict[str, Any], name: str, value: Any) -> bool:
    """Write the base or the fraction of the rotation into the mapping, if there is one for all layers."""
    if name not in _WORDS.values() or not _flat(config):
        return False
    config["rope_parameters"][name] = value
    return name not in config


def _flat(config: Mapping[str, Any]) -> bool:
    """Whether one mapping of `rope_parameters` holds what all layers have."""
    mapping = config.get("rope_parameters") or {}
    return bool(mapping) and not any(isinstance(item, dict) for item in mapping.values())


def _besides(mapping: Mapping[str, Any], section: HuggingFace, dims: Mapping[str, Any]) -> dict[str, Any]:
    """What a mapping about positions has besides the scaling: the base, and keys that are dims of their own."""
    kept = {*_WORDS.values(), *rope_keys(section, dims)}
    return {name: value for name, value in mapping.items() if name in kept}


def _rope(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `rope` as one mapping of `rope_parameters`."""
    scaling = dict(options.get("scaling") or {})
    found = {word: options[key] for key, word in _WORDS.items() if options.get(key) is not None}
    scaling.pop(_LENGTH, None)
    return {"rope_type": scaling.pop("type", "default"), **found, **scaling}


def _has(config: Mapping[str, Any], name: str) -> bool:
    if name in config:
        return config[name] is not None
    first, dot, rest = name.partition(".")
    below = config.get(first)
    return bool(dot) and isinstance(below, Mapping) and _has(below, rest)


def _put(config: dict[str, Any], name: str, value: Any) -> None:
    """Write a field; `a.b` is one inside a mapping."""
    *outer, last = [name] if name in config else name.split(".")
    for key in outer:
        below = config.get(key)
        config[key] = config = dict(below) if isinstance(below, Mapping) else {}
    config[last] = value


def _without_null(value: Any) -> Any:
    """Infinity for a null inside a list, where it stands for no limit."""
    if isinstance(value, list | tuple):
        return [float("inf") if item is None else _without_null(item) for item in value]
    return value


def _with_infinity(value: Any) -> Any:
    """Infinity for the text that stands for it in what a built folder keeps; what transformers 5 writes stays."""
    if isinstance(value, Mapping):
        if value.keys() == {"__float__"}:
            return dict(value)
        return {key: _with_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_infinity(item) for item in value]
    return float(value) if isinstance(value, str) and value in INFINITE else value


def _value(written: Any, dims: Mapping[str, Any]) -> Any:
    """A value, or what a formula over dims gives; null where that has no value."""
    if not is_formula(written):
        return written
    try:
        return cached_parse(written).evaluate(dims)
    except FormulaError:
        return None
