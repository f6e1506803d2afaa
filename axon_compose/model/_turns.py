"""What a process exchanges goes over the same connections, so one thing has to be over before the next one begins.

On the CPU MLX runs an exchange in the thread of the stream that it was made on, and does not keep those of two streams
apart: a process that is faster sends the one first, another the other, and each takes what comes for its own, without
an error. mlx-lm's generators run the model on a stream of their own, and have computed a token ahead when they end:
its sums are still on their way when the next model is loaded, or called by hand.
"""

from __future__ import annotations

import sys

import mlx.core as mx

__all__ = ["in_turn", "others_done"]

_last: mx.Stream | None = None


def in_turn() -> None:
    """Wait, before something is exchanged, for what this process exchanges on another stream.

    It costs nothing as long as the stream is the same. On GPUs it always is: MLX exchanges on one of the CPU, or leaves
    the order to NCCL.

    Raises:
        RuntimeError: A connection was lost meanwhile.
    """
    global _last
    stream = mx.default_stream(mx.cpu)
    if _last is not None and _last != stream:
        mx.synchronize(_last)
    _last = stream


def others_done() -> None:
    """As `in_turn`, and also wait for what models of mlx-lm's own exchange, which do not ask for their turn.

    Raises:
        RuntimeError: A connection was lost meanwhile.
    """
    in_turn()
    generating = getattr(sys.modules.get("mlx_lm.generate"), "generation_stream", None)
    if generating is not None:
        mx.synchronize(generating)
