"""A component that shall add nothing to the stream, tried out: some do more than their last matrix says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_unflatten

from axon_compose.diagnostics import CheckpointError
from axon_compose.model._calls import call, make_module
from axon_compose.plan import Use
from axon_compose.registry import PASS_VALUES

__all__ = ["require_silent"]

_TOKENS: Final = 3


def require_silent(use: Use, values: Mapping[str, mx.array]) -> None:
    """Refuse a component that adds something though its output matrices are zero, such as experts that pass on x.

    What reads from other layers is not tried.

    Args:
        use: The component.
        values: Its parameters.

    Raises:
        CheckpointError: AX926.
        PluginFault: Its code fails.
    """
    asked = {name for name, option in use.spec.reads.items() if option is None or use.written.get(option)}
    if use.spec.kind != "layer" or asked - set(PASS_VALUES):
        return
    module = make_module(use)
    module.update(tree_unflatten([(name, value.astype(mx.float32)) for name, value in values.items()]))
    module.eval()
    width = int(use.dims.hidden_size)
    x = mx.sin(mx.arange(_TOKENS * width, dtype=mx.float32)).reshape(1, _TOKENS, width)
    known: dict[str, Any] = {"offset": 0, "tokens": mx.zeros((1, _TOKENS), mx.int32)}
    arguments: dict[str, Any] = {name: known[name] for name in PASS_VALUES if name in asked}
    if use.cache is not None:
        arguments |= {"mask": None, "cache": None}
    if mx.any(call(use, module, x.shape, x, **arguments)).item():
        message = f"{use.who} adds something to the stream even with output matrices of zero"
        raise CheckpointError("AX926", message, "write `init: copy` or `init: random`, or a `block` without it")
