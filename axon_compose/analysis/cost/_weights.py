"""Bytes of parameters as they are stored: in a dtype, or quantised with scales and biases of every group."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final

from axon_compose.plan import DTYPES, Plan, Use

__all__ = ["BITS", "GROUP_SIZE", "Storage"]

#: Widths that weights can be quantised to.
BITS: Final = (1, 2, 3, 4, 5, 6, 8)
#: Numbers that share a scale and a bias, as `mlx_lm.convert` has it.
GROUP_SIZE: Final = 64


@dataclass(frozen=True)
class Storage:
    """How weights are stored.

    Attributes:
        dtype: `float32`, `bfloat16` or `float16`; parameters that a component keeps in float32 stay so.
        bits: Of a quantised number, None for weights as they are.
        group_size: Numbers that share a scale and a bias.

    Raises:
        ValueError: Weights cannot be stored so.
    """

    dtype: str
    bits: int | None = None
    group_size: int = GROUP_SIZE

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}")
        if self.bits is not None and self.bits not in BITS:
            raise ValueError(f"`quantize` must be one of {', '.join(map(str, BITS))}")

    def nbytes(self, use: Use) -> int:
        """Bytes of a component's parameters."""
        return sum(self.parameter(use, name) for name in use.params)

    def parameter(self, use: Use, name: str) -> int:
        """Bytes of one parameter."""
        shape = use.params[name]
        width = 4 if name in use.spec.float32 else DTYPES[self.dtype]
        if not self.quantized(use, name):
            return prod(shape) * width
        assert self.bits is not None
        *rows, length = shape
        # Numbers are packed into words of 32 bits; a group has a scale and a bias in the type of the weight.
        return prod(rows) * (length * self.bits // 8 + length // self.group_size * 2 * width)

    def groups(self, plan: Plan) -> dict[str, int]:
        """Full names of the modules of a plan that are quantised, to the numbers that share a scale."""
        return {
            f"{use.path}.{name.rpartition('.')[0]}": self.group_size
            for use in plan.uses()
            for name in use.params
            if self.quantized(use, name)
        }

    def quantized_size(self, use: Use) -> int:
        """Parameters of a component that are quantised."""
        return sum(prod(shape) for name, shape in use.params.items() if self.quantized(use, name))

    def quantized(self, use: Use, name: str) -> bool:
        """Whether a parameter is quantised, by the rule of `axon_compose.model.quantize`.

        A `weight` with two axes or more whose rows the group size divides, unless the component names its module among
        those that stay as they are. The taps of a convolution stand in rows of one, which no group divides.
        """
        if self.bits is None:
            return False
        module, _, kind = name.rpartition(".")
        shape = use.params[name]
        fits = len(shape) >= 2 and shape[-1] % self.group_size == 0
        return kind == "weight" and bool(module) and fits and module not in use.spec.unquantized
