"""How much memory the reading of a checkpoint takes: counted from the headers, before anything is allocated."""

from __future__ import annotations

from math import prod
from typing import Final

from axon_compose.checkpoints.files._safetensors import ITEM_BITS
from axon_compose.checkpoints.weights import _pieces
from axon_compose.checkpoints.weights._blocks import Blocks
from axon_compose.checkpoints.weights._pieces import decoded_by_rows
from axon_compose.checkpoints.weights._plan_load import LoadPlan
from axon_compose.checkpoints.weights._transfer import Output, Transfer
from axon_compose.plan import DTYPES, Plan, kept_in_float32, running_nbytes

__all__ = ["load_nbytes"]

#: Bytes of a number that was decoded, in bfloat16, and of what it is decoded through: its scale, and their product, in
#: float32.
_DECODED: Final = 2
_DECODING: Final = 8
_FLOATS: Final = ("F32", "F16", "BF16")


def load_nbytes(load_plan: LoadPlan, plan: Plan, dtype: str | None = None) -> tuple[int, int]:
    """Bytes of the weights once they are read, and of what is there besides at most until the model has run once.

    Args:
        load_plan: What `plan_load` gave.
        plan: The model.
        dtype: What parameters are cast to, where they may be; None leaves them as they come.
    """
    kept = kept_in_float32(plan)
    widths: dict[str, int] = {}
    packed = 0
    for transfer in load_plan.transfers:
        for output in filter(None, transfer.outputs):
            cast = None if output.parameter in kept else dtype
            if output.packing:
                packed += _packed_nbytes(transfer, output, cast)
            else:
                widths[output.parameter] = DTYPES[cast] if cast else _item(transfer)
    weights = packed + sum(prod(shape) * widths.get(name, 0) for name, shape in plan.parameters())
    passing = max((_passing(transfer, dtype) for transfer in load_plan.transfers), default=0)
    return weights, max(passing, running_nbytes(plan, widths))


def _packed_nbytes(transfer: Transfer, output: Output, dtype: str | None) -> int:
    """Bytes of a parameter that stays packed: its share of what is stored, scales cast where they are floats."""
    source = transfer.sources[0]
    if isinstance(source, Blocks):
        packing = output.packing
        assert packing is not None
        of_group = 1 if packing.mode == "mxfp4" else 2 * DTYPES[dtype or "float32"]
        return prod(output.shape) * packing.bits // 8 + prod(output.shape) // packing.group_size * of_group
    stored = 0
    for tensor in (tensor for source in transfer.sources for tensor in source.tensors):
        is_float = tensor.dtype in _FLOATS
        stored += prod(tensor.shape) * (DTYPES[dtype] if dtype and is_float else ITEM_BITS[tensor.dtype] // 8)
    every = sum(prod(other.shape) for other in transfer.outputs if other)
    return stored * prod(output.shape) // max(every, 1)


def _item(transfer: Transfer) -> int:
    """Bytes of a number as it comes."""
    source = transfer.sources[0]
    if isinstance(source, Blocks):
        return DTYPES[source.unasked or "float32"]
    if transfer.form.packing:  # unpacked, for its module cannot be packed
        scales = source.tensors[1].dtype
        return ITEM_BITS[scales] // 8 if scales in _FLOATS else _DECODED
    return ITEM_BITS[source.tensors[0].dtype] // 8 if source.as_stored else _DECODED


def _passing(transfer: Transfer, dtype: str | None) -> int:
    """Bytes besides the result: what is read, and what each step makes of it."""
    if transfer.plain:
        return transfer.nbytes if dtype else 0
    numbers = sum(prod(form.shape) for form in transfer.forms())
    at_once = min(numbers, _pieces.PIECE) if decoded_by_rows(transfer) else numbers
    plain = all(source.as_stored for source in transfer.sources) and not transfer.form.packing
    return transfer.nbytes * at_once // max(numbers, 1) + at_once * (_item(transfer) if plain else _DECODING)
