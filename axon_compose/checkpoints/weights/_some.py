"""Single parameters out of a checkpoint, as often as they are wanted, where a whole model would not be in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.files._safetensors import read_header
from axon_compose.checkpoints.files._tensors import Ranges
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.gguf._tensors import GgufTensors
from axon_compose.checkpoints.weights._packed import Packed
from axon_compose.checkpoints.weights._pieces import by_rows, in_pieces, put_together
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
        self._files: dict[Path, GgufTensors | Ranges] = {}

    def read(self, dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Some parameters.

        Args:
            dtypes: Their full names, and the types that they shall have.

        Returns:
            Name to `mx.array`.

        Raises:
            CheckpointError: AX511 a file has become shorter.
        """
        transfers = {id(transfer): transfer for transfer in (self._plan.parameters[name] for name in dtypes)}
        found: dict[str, Any] = {}
        for transfer in transfers.values():
            found |= self._made(transfer, dtypes)
        return {name: found[name] for name in dtypes}

    def pieces(self, name: str, dtype: str) -> Iterator[Any] | None:
        """A large parameter in pieces (rows, K), each of them computed when it is asked for; None if it has no such.

        Args:
            name: Its full name.
            dtype: The type that it shall have.

        Raises:
            CheckpointError: AX511 a file has become shorter.
        """
        transfer = self._plan.parameters[name]
        return self._pieces(transfer, dtype) if by_rows(transfer) else None

    def _pieces(self, transfer: Transfer, dtype: str) -> Iterator[Any]:
        return (_dense(piece, dtype) for piece in in_pieces(transfer.sources[0], transfer.form, self._file))

    def _made(self, transfer: Transfer, dtypes: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """What a transfer gives, by name."""
        if by_rows(transfer):
            (only,) = (output.parameter for output in transfer.outputs if output)
            yield only, put_together(self._pieces(transfer, dtypes[only]), transfer.form.shape)
            return
        for output, value in transfer.apply(self._sources(transfer)):
            if output.parameter in dtypes:
                yield output.parameter, _dense(value, dtypes[output.parameter])

    def _sources(self, transfer: Transfer) -> list[Any]:
        """The tensors that a transfer begins with."""
        values = []
        for source, form in zip(transfer.sources, transfer.forms(), strict=True):
            arrays = [self._file(header.file).pop(header.name) for header in source.tensors]
            values.append(source.read(arrays, form))
        return values

    def _file(self, path: Path) -> GgufTensors | Ranges:
        """The tensors of a file, its headers read once."""
        if path not in self._files:
            self._files[path] = GgufTensors(path) if is_gguf(path) else Ranges(path, read_header(path))
        return self._files[path]


def _dense(value: Any, dtype: str) -> Any:
    import mlx.core as mx

    wanted = getattr(mx, dtype)
    return value.dense(wanted) if isinstance(value, Packed) else value.astype(wanted)
