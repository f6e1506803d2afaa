"""Several processes that train one model together, each on its part of every batch, as `mlx.launch` starts them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from axon_compose.diagnostics import ArchitectureError, CheckpointError, Refusal
from axon_compose.learn.batches import Batch
from axon_compose.machine.launched import launched_rank
from axon_compose.model.ranks import connected, messages

__all__ = ["Ranks", "is_unheard"]

#: What MLX says where the other end of a connection is gone.
_LOST: Final = "connection to a peer was lost"
#: Where an exception says that all ranks know of it.
_KNOWN: Final = "_axon_compose_known"
_HINT: Final = "its own message says why; the folder is the last checkpoint, from which `--resume` continues"


class Ranks:
    """The processes of a run; one alone unless several were launched.

    All of them call the same methods in the same order, as everywhere in `mlx.core.distributed`.

    Args:
        group: What `mx.distributed.init()` gave; None is one process alone.

    Attributes:
        rank: The number of this process, from 0.
        size: How many there are.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank: int = group.rank() if group else 0
        self.size: int = group.size() if group else 1

    @classmethod
    def launched(cls) -> Ranks:
        """Those that were launched together with this process.

        Raises:
            CheckpointError: AX973 they cannot be connected.
        """
        if launched_rank() is None:
            return cls()
        try:
            return cls(connected())
        except CheckpointError as error:
            setattr(error, _KNOWN, False)
            raise

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints, and decides what only one can."""
        return self.rank == 0

    # Numbers.

    def rows(self, batch: Batch) -> Batch:
        """This rank's part of some sequences; none, where there are fewer than ranks."""
        return batch if self.size == 1 else Batch(*map(self.mine, batch))

    def mine(self, array: mx.array) -> mx.array:
        """This rank's rows of an array that all ranks have."""
        number = array.shape[0]
        return array[self.rank * number // self.size : (self.rank + 1) * number // self.size]

    def joined(self, array: mx.array) -> mx.array:
        """The rows of all ranks, one after the other; no gradient flows through it."""
        return array if self.size == 1 else mx.distributed.all_gather(array, group=self.group)

    def sum(self, array: mx.array) -> mx.array:
        """The sum of an array over all ranks; no gradient flows through it."""
        return array if self.size == 1 else mx.distributed.all_sum(array, group=self.group)

    def mean(self, tree: Any) -> Any:
        """The mean of all arrays of a list or dict over all ranks, in few messages."""
        return tree if self.size == 1 else nn.average_gradients(tree, self.group)

    def sums(self, numbers: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Sums of float64 numbers over all ranks, added in the order of the ranks."""
        return numbers if self.size == 1 else np.sum(self.exchanged(numbers.tolist()), axis=0)

    def any(self, asked: bool) -> bool:
        """Whether any rank says so."""
        return asked if self.size == 1 else bool(mx.distributed.all_max(mx.array(asked), group=self.group).item())

    def shared(self, tree: Any) -> Any:
        """The arrays of rank 0 to the bit, in the place of arrays of the same shapes and types, in the same order."""

        def sent(array: mx.array) -> mx.array:
            content = array.reshape(-1).view(mx.uint8)
            content = mx.distributed.all_sum(content if self.first else mx.zeros_like(content), group=self.group)
            found = content.view(array.dtype).reshape(array.shape)
            mx.eval(found)  # one after the other, so that all ranks send the same at a time
            return found

        return tree if self.size == 1 else tree_map(sent, tree)

    # Plain values and errors.

    def exchanged(self, value: Any) -> list[Any]:
        """The JSON-ready values of all ranks, by their numbers.

        Raises:
            CheckpointError: AX806 a rank has ended in an error meanwhile, see `together`.
        """
        if self.size == 1:
            return [value]
        found = self._messages({"value": value})
        for rank, each in enumerate(found):
            if "value" not in each:
                raise _known(_of_another(rank, each))
        return [each["value"] for each in found]

    def broadcast(self, value: Any) -> Any:
        """The JSON-ready value of rank 0."""
        return self.exchanged(value if self.first else None)[0]

    def in_turn(self, work: Callable[[], Any]) -> Any:
        """What some work gives that rank 0 does before all others, who find files that it has written."""
        found = work() if self.first else None
        self.exchanged(None)
        return found if self.first else work()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all ranks end in an error of one of them, the others at their next exchange of values.

        Raises:
            CheckpointError: AX806 another rank has ended.
        """
        try:
            yield
        except (ArchitectureError, Refusal, OSError, ValueError) as error:
            if self.size > 1 and not hasattr(error, _KNOWN):
                found = self._messages(_plain(_known(error)))
                rank = next(rank for rank, each in enumerate(found) if "value" not in each)
                if found[rank] != found[self.rank]:
                    raise _known(_of_another(rank, found[rank])) from error
            raise
        except RuntimeError as error:
            if _LOST not in str(error):
                raise
            raise _known(CheckpointError("AX806", "another process of the run is gone", _HINT)) from error

    @contextmanager
    def stepping(self, *alike: type[Exception]) -> Iterator[None]:
        """Where ranks send each other arrays: an error of one of them cannot be sent, and its end ends the others.

        Args:
            alike: What all ranks raise at the same time.
        """
        try:
            yield
        except (ArchitectureError, Refusal, OSError, ValueError) as error:
            if not isinstance(error, alike) and not hasattr(error, _KNOWN):
                setattr(error, _KNOWN, False)
            raise

    def _messages(self, value: Any) -> list[Any]:
        """The JSON-ready value of every rank."""
        return [json.loads(each) for each in messages(self.group, json.dumps(value).encode())]


def _known(error: Exception) -> Exception:
    """The same error, which all ranks know of."""
    setattr(error, _KNOWN, True)
    return error


def _plain(error: Exception) -> dict[str, Any]:
    if isinstance(error, Refusal):
        return {"message": error.message, "code": error.code, "help": error.help, "details": list(error.details)}
    return {"message": str(error), "code": None, "help": None, "details": []}


def _of_another(rank: int, said: dict[str, Any]) -> CheckpointError:
    code = f" ({said['code']})" if said["code"] else ""
    return CheckpointError("AX806", f"process {rank} has ended: {said['message']}{code}", said["help"], said["details"])


def is_unheard(error: BaseException) -> bool:
    """Whether only the rank that raised an error knows of it."""
    return getattr(error, _KNOWN, True) is False
