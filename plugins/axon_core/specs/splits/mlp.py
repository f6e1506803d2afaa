"""Feed-forward layers over devices: by their width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from axon_compose.registry import Dims, Gathered, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven
from axon_core.specs.splits._roles import Declared, projected

__all__ = ["INPUTS", "OUTPUTS", "mlp_split"]

#: Sizes of a part that has rows of the last matrix: what that reads, and how many rows.
INPUTS: Final = "mlp_inputs"
OUTPUTS: Final = "mlp_outputs"


def mlp_split(params: Declared) -> Callable[[Any, Dims, int], Split | list[Split] | str]:
    r"""A share of the width on each device.

    With :math:`W = [W_1 | W_2 | \dots]` cut by columns, and the rows of the other matrices cut alike,
    :math:`W h = \sum_i W_i h_i`, where :math:`h_i` are the inner numbers that device i computes. `sparsity` compares
    with the mean and deviation over the whole width, for which each device tells the others its own.

    A quantised :math:`W` whose groups such columns would tear is cut by rows instead: each device then reads the inner
    numbers of all of them, and gives some of the outputs.

    Args:
        params: The layer's parameters.
    """

    def split(options: Any, dims: Dims, devices: int) -> Split | list[Split] | str:
        width, hidden = options.intermediate_size, int(dims.hidden_size)
        if fault := uneven(devices, intermediate_size=width):
            return fault
        names, smaller = params(options, dims), part(options, intermediate_size=width // devices)
        inner = {"gate_proj": rows(width), "up_proj": rows(width)}
        inside = () if options.sparsity is None else (Summed(2 * devices, "float32"),)
        summed = Split(smaller, projected(names, inner | {"down_proj": columns(width)}), inside=inside)
        if hidden % devices:
            return summed
        gathered = Split(
            smaller,
            projected(names, inner | {"down_proj": rows(hidden)}),
            output="gather",
            dims={INPUTS: width, OUTPUTS: hidden // devices},
            inside=(*inside, Gathered(width)),
        )
        return [summed, gathered]

    return split
