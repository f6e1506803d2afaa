"""What mlx-lm's own classes read of a config.json."""

from __future__ import annotations

import inspect
import sys
from contextlib import redirect_stdout
from functools import cache

__all__ = ["stock_fields"]


@cache
def stock_fields(model_type: str) -> frozenset[str]:
    """The fields of config.json that mlx-lm's model of this type reads; none if it has no such model."""
    from mlx_lm.utils import _get_classes

    try:
        with redirect_stdout(sys.stderr):
            _, arguments = _get_classes({"model_type": model_type})
    except (ValueError, SystemExit):  # OLMo's ends the process without a package of its own
        return frozenset()
    return frozenset(inspect.signature(arguments).parameters)
