"""How much memory the reading of a checkpoint takes: counted from the headers, before anything is allocated."""

from __future__ import annotations

from math import prod
from typing import Final

from axon_compose.checkpoints.files._safetensors import ITEM_BYTES
from axon_compose.checkpoints.weights._plan_load import LoadPlan
from axon_compose.checkpoints.weights._transfer import Output, Transfer
from axon_compose.plan import DTYPES, Plan, kept_in_float32

__all__ = ["load_nbytes"]

#: Bytes of a number that was decoded, in bfloat16, and of what it is decoded through: its scale, and their product, in
#: float32.
_DECODED: Final = 2
_DECODING: Final = 8


def load_nbytes(load_plan: LoadPlan, plan: Plan, dtype: str | None = None) -> tuple[int, int]:
    """Bytes of the weights once they are read, and of the most that is there besides while one of them is read.

    Args:
        load_plan: What `plan_load` gave.
        plan: The model.
        dtype: What parameters are cast to, where they may be; None leaves them as they come.
    """
    kept = kept_in_float32(plan)
    weights = largest = 0
    for transfer in load_plan.transfers:
        weights += sum(
            _nbytes(transfer, output, None if output.parameter in kept else dtype) for output in _made(transfer)
        )
        largest = max(largest, _passing(transfer, dtype))
    return weights, largest


def _made(transfer: Transfer) -> list[Output]:
    return [output for output in transfer.outputs if output]


def _nbytes(transfer: Transfer, output: Output, dtype: str | None) -> int:
    """Bytes of a parameter; one that stays packed takes its share of what is stored."""
    if output.packing:
        every = sum(prod(other.shape) for other in _made(transfer))
        return transfer.nbytes * prod(output.shape) // max(every, 1)
    return prod(output.shape) * (DTYPES[dtype] if dtype else _item(transfer))


def _item(transfer: Transfer) -> int:
    """Bytes of a number as it comes."""
    source = transfer.sources[0]
    return ITEM_BYTES[source.tensors[0].dtype] if source.as_stored else _DECODED


def _passing(transfer: Transfer, dtype: str | None) -> int:
    """Bytes besides the result: what is read, and what each step makes of it."""
    if transfer.plain:
        return transfer.nbytes if dtype else 0
    numbers = len(transfer.sources) * prod(transfer.form.shape)
    plain = all(source.as_stored for source in transfer.sources) and not transfer.form.packing
    return transfer.nbytes + numbers * (_item(transfer) if plain else _DECODING)
