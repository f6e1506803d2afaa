"""Parts of n-gram embeddings and of Engram: every device has some of the numbers of each row."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Cut, Dims, Role, Segment, Split, Summed, columns
from axon_core.specs.splits._even import part, uneven

__all__ = ["engram_split", "ngram_split"]


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


def engram_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """The width of the tables, with the columns that read it; keys and values are summed, and all else is whole."""
    hidden = dims.hidden_size // dims.streams
    width = options.row(hidden)
    if fault := uneven(devices, **{"width" if options.width else "hidden_size // tables": width}):
        return fault
    reads = Cut(1, (Segment(width, width),) * options.count)
    roles: dict[str, Role] = {"embedder.weight": columns(width), "key_proj.weight": reads, "value_proj.weight": reads}
    smaller = part(options, width=width // devices)
    return Split(smaller, roles, output="whole", inside=(Summed(dims.hidden_size + hidden),))
