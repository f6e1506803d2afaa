"""config.json as the configuration classes of the installed transformers read it: the truth for defaults."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from typing import Any, Final

__all__ = ["Refused", "explicit", "fields_of", "reference_class"]

#: Model types that transformers knows by another name.
_SAME: Final = {"kimi_k2": "deepseek_v3"}


class Refused(Exception):
    """transformers does not read such a configuration."""


def reference_class(config: dict[str, Any]) -> Any:
    """The class that `AutoConfig` chooses; one of Mistral with kinds of layers counts as Ministral there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CONFIG_MAPPING

        name = config["model_type"]
        if name == "mistral" and "layer_types" in config:
            name = "ministral"
        return CONFIG_MAPPING[_SAME.get(name, name)]


def fields_of(config: dict[str, Any]) -> set[str]:
    """The fields that its class has, further names for them included."""
    found = reference_class(config)
    return {field.name for field in fields(found)} | found.attribute_map.keys() | set(found.attribute_map.values())


def explicit(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with every field that its class has.

    Raises:
        Refused: With what the class says.
    """
    written = {name: value for name, value in _infinite(config).items() if name != "model_type"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = reference_class(config).from_dict(written)
        except Exception as error:
            raise Refused(str(error)) from error
        read: dict[str, Any] = json.loads(found.to_json_string(use_diff=False))
    return {**read, "model_type": config["model_type"]}


def _infinite(value: Any) -> Any:
    """The value with numbers for the words that transformers 5 writes for infinity."""
    if isinstance(value, dict):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {key: _infinite(item) for key, item in value.items()}
    return [_infinite(item) for item in value] if isinstance(value, list) else value
