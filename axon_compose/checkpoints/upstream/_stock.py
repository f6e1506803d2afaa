"""What mlx-lm's own classes read of a config.json."""

from __future__ import annotations

import inspect
import sys
from contextlib import redirect_stdout
from functools import cache

__all__ = ["stock_fields"]


@cache
def stock_fields(model_type: str, architecture: str | None = None) -> frozenset[str]:
    """The fields of config.json that mlx-lm's model of this type reads; none if it has no such model.

    Args:
        model_type: As in config.json.
        architecture: First of `architectures` in config.json, by which mlx-lm chooses among models of one type.
    """
    from mlx_lm.utils import _get_classes

    try:
        with redirect_stdout(sys.stderr):
            _, arguments = _get_classes(
                {"model_type": model_type, "architectures": [architecture] if architecture else None}
            )
    except (ValueError, SystemExit):  # OLMo's ends the process without a package of its own
        return frozenset()
    return frozenset(inspect.signature(arguments).parameters)
