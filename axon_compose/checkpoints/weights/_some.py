"""Single parameters out of a checkpoint, as often as they are wanted, where a whole model would not be in memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.files._tensors import Tensors
from axon_compose.checkpoints.weights._load import opened
from axon_compose.checkpoints.weights._packed import Packed
from axon_compose.checkpoints.weights._plan_load import LoadPlan

__all__ = ["read_parameters"]


def read_parameters(load_plan: LoadPlan, names: Iterable[str]) -> dict[str, Any]:
    """Some parameters of a model; what is quantised is unpacked.

    Args:
        load_plan: What `plan_load` or `plan_own` gave.
        names: Full names of parameters.

    Returns:
        Name to lazy `mx.array`, of the type that it is stored in.
    """
    wanted = dict.fromkeys(names)
    transfers = dict.fromkeys(map(id, (load_plan.parameters[name] for name in wanted)))
    files: dict[Path, Tensors] = {}
    found: dict[str, Any] = {}
    for transfer in load_plan.transfers:
        if id(transfer) not in transfers:
            continue
        values = []
        for source, form in zip(transfer.sources, transfer.forms(), strict=True):
            arrays = []
            for header in source.tensors:
                if header.file not in files:
                    files[header.file] = opened(header.file)
                arrays.append(files[header.file].pop(header.name))
            values.append(source.read(arrays, form))
        for output, value in transfer.apply(values):
            if output.parameter in wanted:
                found[output.parameter] = value.dense() if isinstance(value, Packed) else value
    return {name: found[name] for name in wanted}
