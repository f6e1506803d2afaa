"""What mlx-lm's own classes read of a config.json."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache
from typing import Any

__all__ = ["stock_fields", "stock_type"]


def stock_type(config: Mapping[str, Any]) -> str:
    """The model type under which mlx-lm reads a model: for some text models that of the whole, such as `qwen3_5`."""
    name = str(config.get("model_type"))
    whole = name.removesuffix("_text")
    return whole if not stock_fields(name) and _reads_text_alone(whole) else name


@cache
def stock_fields(model_type: str, architecture: str = "") -> frozenset[str]:
    """The fields of config.json that mlx-lm's model of this type reads; none if it has no such model.

    Args:
        model_type: As in config.json.
        architecture: First of `architectures` in config.json, by which mlx-lm chooses among models of one type.
    """
    from mlx_lm.utils import _get_classes

    try:
        with redirect_stdout(sys.stderr):
            model, arguments = _get_classes(
                {"model_type": model_type, "architectures": [architecture] if architecture else None}
            )
    except (ValueError, SystemExit):  # OLMo's ends the process without a package of its own
        return frozenset()
    whole = frozenset(inspect.signature(arguments).parameters)
    return whole.union(*(inspect.signature(found).parameters for found in _of_text(model) if "text_config" in whole))


def _of_text(model: type) -> Iterator[type]:
    """The arguments of the text model inside: a class of their own, or those of the module that has it."""
    for module in (inspect.getmodule(base) for base in model.__mro__):
        if found := getattr(module, "TextModelArgs", None):
            yield found
        yield from (part.ModelArgs for part in vars(module).values() if hasattr(part, "ModelArgs"))


def _reads_text_alone(model_type: str) -> bool:
    """Whether mlx-lm's model of text and images reads the configuration of a text model too."""
    from mlx_lm.utils import _get_classes

    return bool(stock_fields(model_type)) and "from_dict" in vars(_get_classes({"model_type": model_type})[1])
