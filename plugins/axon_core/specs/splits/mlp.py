"""Feed-forward layers over devices: by their width."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Dims, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven
from axon_core.specs.splits._roles import Declared, Splitting, projected

__all__ = ["mlp_split"]


def mlp_split(params: Declared) -> Splitting:
    r"""A share of the width on each device.

    With :math:`W = [W_1 | W_2 | \dots]` cut by columns, and the rows of the other matrices cut alike,
    :math:`W h = \sum_i W_i h_i`, where :math:`h_i` are the inner numbers that device i computes. `sparsity` compares
    with the mean and deviation over the whole width, for which each device tells the others its own.

    Args:
        params: The layer's parameters.
    """

    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        width = options.intermediate_size
        if fault := uneven(devices, intermediate_size=width):
            return fault
        cuts = {"gate_proj": rows(width), "up_proj": rows(width), "down_proj": columns(width)}
        return Split(
            part(options, intermediate_size=width // devices),
            projected(params(options, dims), cuts),
            inside=() if options.sparsity is None else (Summed(2 * devices, "float32"),),
        )

    return split
