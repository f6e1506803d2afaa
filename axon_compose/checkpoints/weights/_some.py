"""Single parameters out of a checkpoint, as often as they are wanted, where a whole model would not be in memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.files._safetensors import read_header
from axon_compose.checkpoints.files._tensors import Ranges, Tensors
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.gguf._tensors import GgufTensors
from axon_compose.checkpoints.weights._packed import Packed
from axon_compose.checkpoints.weights._plan_load import LoadPlan
from axon_compose.checkpoints.weights._transfer import Transfer

__all__ = ["Parameters"]


class Parameters:
    """Reads parameters of a model one by one; what is quantised is unpacked.

    Args:
        load_plan: What `checkpoint_plan` gave.
    """

    def __init__(self, load_plan: LoadPlan) -> None:
        self._plan = load_plan
        self._files: dict[Path, Tensors] = {}

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        """Some parameters.

        Args:
            names: Their full names.

        Returns:
            Name to `mx.array`, of the type that it is stored in, or that it is unpacked to.

        Raises:
            CheckpointError: AX511 a file has become shorter.
        """
        wanted = list(names)
        transfers = {id(transfer): transfer for transfer in (self._plan.parameters[name] for name in wanted)}
        found: dict[str, Any] = {}
        for transfer in transfers.values():
            for output, value in transfer.apply(self._sources(transfer)):
                if output.parameter in wanted:
                    found[output.parameter] = value.dense() if isinstance(value, Packed) else value
        return {name: found[name] for name in wanted}

    def _sources(self, transfer: Transfer) -> list[Any]:
        """The tensors that a transfer begins with."""
        values = []
        for source, form in zip(transfer.sources, transfer.forms(), strict=True):
            arrays = [self._file(header.file).pop(header.name) for header in source.tensors]
            values.append(source.read(arrays, form))
        return values

    def _file(self, path: Path) -> Tensors:
        """The tensors of a file, its headers read once."""
        if path not in self._files:
            self._files[path] = GgufTensors(path) if is_gguf(path) else Ranges(path, read_header(path))
        return self._files[path]
