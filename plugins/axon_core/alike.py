"""Layers that equal those of MLX and mlx-lm which they extend, for tools that compare types.

`mlx_lm.gptq` works on layers of which `type(layer) in {nn.Linear, SwitchLinear}` is true. A subclass is none of these,
and GPTQ would round its weights without a word. The classes here compute the same as their bases, faster or in more
types of numbers, so they may be taken for them.
"""

from __future__ import annotations

from inspect import Signature, signature
from typing import Any, Final, NoReturn

__all__ = ["Alike", "not_offered"]

#: The smallest group of numbers that shares a scale, in all of MLX's formats but nvfp4.
GROUP: Final = 32


class Alike(type):
    """The type of a class that equals the one in its attribute `alike`.

    Called with a width that no group of quantised numbers divides, such a class makes its subclass `narrow`, which
    equals no other and has no `to_quantized`: gptq and dynamic_quant quantise whatever has it, and would fail.
    """

    def __eq__(cls, other: object) -> bool:
        return cls is other or (other is not None and cls.__dict__.get("alike") is other)

    def __hash__(cls) -> int:
        return hash(cls.__dict__["alike"]) if "alike" in cls.__dict__ else super().__hash__()

    @property
    def __signature__(cls) -> Signature:
        """That of the class, which would be hidden by the call below."""
        own = signature(getattr(cls, "__init__"))  # noqa: B009  # of the class, whatever its instances have
        return own.replace(parameters=list(own.parameters.values())[1:])

    def __call__(cls, input_dims: int, *args: Any, **kwargs: Any) -> Any:
        """Make a layer, of the narrow kind where the width asks for it."""
        made = cls.__dict__.get("narrow", cls) if input_dims % GROUP else cls
        return type.__call__(made, input_dims, *args, **kwargs)


def _missing(layer: Any) -> NoReturn:
    raise AttributeError(f"no group of {GROUP} divides the width of this {type(layer).__name__}")


#: In place of a method, so that `hasattr` says no.
not_offered: Final = property(_missing)
