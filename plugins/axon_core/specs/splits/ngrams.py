"""Parts of n-gram embeddings: every device has some of the numbers of each row."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Dims, Role, Split, Summed, columns
from axon_core.specs.splits._even import part, uneven

__all__ = ["ngram_split"]


def ngram_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """The width of the tables. The sum of what is looked up comes before the tokens' own vectors are added."""
    width = options.row(dims.hidden_size)
    if fault := uneven(devices, **{"width" if options.width else "hidden_size // tables": width}):
        return fault
    roles: dict[str, Role] = {}
    for index in range(len(options.sizes)):
        roles |= {f"{name}.{index}.weight": columns(width) for name in ("embedders", "post_projs")}
    smaller = part(options, width=width // devices)
    return Split(smaller, roles, output="whole", inside=(Summed(dims.hidden_size),))
