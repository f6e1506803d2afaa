"""Parts of a matrix in the place of a layer: by its outputs."""

from __future__ import annotations

from typing import Any, Final

from axon_compose.registry import Dims, Split, rows
from axon_core.specs.splits._even import uneven
from axon_core.specs.splits._roles import Declared, Splitting, projected

__all__ = ["OUTPUTS", "linear_split"]

#: The size that says how many outputs a device has.
OUTPUTS: Final = "linear_outputs"


def linear_split(params: Declared) -> Splitting:
    """Outputs, which are put beside each other: each is a product of all inputs with one row.

    Args:
        params: The layer's parameters.
    """

    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        hidden = int(dims.hidden_size)
        if fault := uneven(devices, hidden_size=hidden):
            return fault
        roles = projected(params(options, dims), {"linear": rows(hidden)})
        return Split(options, roles, output="gather", dims={OUTPUTS: hidden // devices})

    return split
