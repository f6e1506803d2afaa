"""What the built-in components leave for the backward pass, as MLX keeps it where no kernel of its own does better.

Every operation keeps what its gradient is made of: a product both factors, a sigmoid or softmax its output, a cast
nothing. Where a component computes in float32, its casts are arrays of their own unless everything is float32. Numbers
of a few bytes per token and head (lengths, weights of experts) are left out where they are less than a hundredth.

Recurrences keep their inputs and the state before each segment, and compute what is inside again (see
`axon_core.recompute`). On a GPU, norms and rotations are single kernels and keep a little less.
"""

from __future__ import annotations

from typing import Final

from axon_compose.registry import Array
from axon_core.specs._segments import ssd_blocks, ssd_cut

__all__ = [
    "Limit",
    "activation_saved",
    "convolution_saved",
    "each",
    "in_float32",
    "mlp_saved",
    "norm_saved",
    "ssd_saved",
    "states_saved",
]

Saved = tuple[Array, ...]
#: What bounds the product of a gated layer: one number, or those of `situ`.
Limit = float | tuple[float, float | None] | None

#: Arrays as wide as its input that an activation and the product after it keep; some are several steps.
_ACTIVATED: Final = {
    "relu": 2, "silu": 3, "gelu_quick": 3, "relu2": 3, "gelu": 4, "gelu_tanh": 5, "xielu": 5,
}  # fmt: skip


def each(tokens: int, **widths: int) -> Saved:
    """Arrays of these widths for each token, in the type of the activations."""
    return tuple(Array(name, (tokens, width)) for name, width in widths.items() if width)


def in_float32(tokens: int, **widths: int) -> Saved:
    """The same in float32, whatever the type of the activations."""
    return tuple(Array(name, (tokens, width), "float32") for name, width in widths.items() if width)


def norm_saved(
    tokens: int, width: int, groups: int = 1, *, name: str = "norm", weight: bool = True, offset: float = 0.0
) -> Saved:
    """A norm: its input in float32, two numbers of each group, and for a learned scale what that multiplies.

    A scale with an offset is a float32 number, and so is what it multiplies.
    """
    found = in_float32(tokens, **{f"{name}_input": width, f"{name}_lengths": 2 * groups})
    unit = Array(f"{name}_unit", (tokens, width), "float32" if offset else None)
    return (*found, unit) if weight else found


def activation_saved(tokens: int, width: int, activation: str, *, gated: bool, limit: Limit = None) -> Saved:
    """From the projections to the product with the last matrix of a feed-forward layer, that included."""
    if activation == "situ":
        # In float32: tanh, its multiple, the sigmoid and the product of both; of the other side the same, or itself.
        arrays = 5 if not isinstance(limit, tuple) or limit[1] is None else 6
        return in_float32(tokens, bounded=arrays * width) + each(tokens, activated=width)
    arrays = _ACTIVATED.get(activation, 3) + (2 if gated else 0)
    if gated and (limit is not None or activation == "swiglu_oai"):
        arrays += 3  # a bound keeps what it bounds
    sides = (Array("sides", (tokens, width), "bool"),) if activation == "xielu" else ()
    return sides + tuple(Array(f"activated_{number}", (tokens, width)) for number in range(arrays))


def mlp_saved(
    tokens: int, hidden: int, width: int, activation: str = "silu", *, gated: bool = True, limit: Limit = None
) -> Saved:
    """A feed-forward layer, its input included."""
    return each(tokens, input=hidden) + activation_saved(tokens, width, activation, gated=gated, limit=limit)


def convolution_saved(tokens: int, channels: int, taps: int, dtype: str) -> Saved:
    """A convolution in float32: its input, one cast of it for every tap, and the output, which an activation needs."""
    copies = 1 if dtype == "float32" else taps
    shifted = tuple(Array(f"shifted_{tap}", (tokens, channels), "float32") for tap in range(copies))
    return shifted + in_float32(tokens, convolved=channels)


def states_saved(tokens: int, segment: int, numbers: int) -> Saved:
    """The states before every segment of a recurrence."""
    return (Array("states", (-(-tokens // segment), numbers), "float32"),)


def ssd_saved(tokens: int, heads: int, width: int, states: int, *, inputs: int = 0) -> Saved:
    """State space duality: `inputs` numbers of each token again if the last block is not full, and the states."""
    blocks, steps = ssd_cut(tokens)
    copied = in_float32(blocks * steps, filled_up=inputs) if tokens % steps else ()
    return copied + states_saved(tokens, steps * ssd_blocks(heads, steps, width, states), heads * width * states)
