"""A refusal in time: MLX on the CPU ends the process when memory runs out, instead of raising."""

from __future__ import annotations

from collections.abc import Iterable

from axon_compose.checkpoint._errors import CheckpointError
from axon_compose.memory import available, human

__all__ = ["require"]


def require(bytes_needed: int, what: str, largest: Iterable[tuple[str, int]] = ()) -> None:
    """Refuse what does not fit into memory.

    Args:
        bytes_needed: Bytes about to be allocated.
        what: What needs them, as the sentence begins, e.g. "`bit-axon` in bfloat16".
        largest: Names and bytes of the largest parts; the help names the first three by size.

    Raises:
        CheckpointError: AX401.
    """
    free = available()
    if bytes_needed <= free:
        return
    parts = sorted(largest, key=lambda part: -part[1])[:3]
    named = ", ".join(f"`{name}` takes {human(size)}" for name, size in parts)
    message = f"{what} needs {human(bytes_needed)} of memory, {human(free)} are available"
    raise CheckpointError("AX401", message, named or None)
