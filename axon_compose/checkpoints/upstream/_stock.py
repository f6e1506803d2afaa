"""What mlx-lm's own classes read of a config.json."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from typing import Any

__all__ = ["stock_fields", "stock_type"]


def stock_type(config: Mapping[str, Any]) -> str:
    """The model type under which mlx-lm reads a model: for some text models that of the whole, such as `qwen3_5`."""
    name = str(config.get("model_type"))
    whole = name.removesuffix("_text")
    return whole if not stock_fields(name) and stock_fields(whole) else name


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
    modules = (inspect.getmodule(base) for base in model.__mro__)
    of_text = (getattr(module, "TextModelArgs", None) for module in modules)
    return whole.union(*(inspect.signature(found).parameters for found in of_text if found))
