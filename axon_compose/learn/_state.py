"""What a run is continued from: weights, the optimiser's state, and what is spent."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from axon_compose.learn._checkpoint import STATE_FILE, read_state, require_same, stream_state, write_state
from axon_compose.learn.budget import Spent
from axon_compose.machine.files import cannot_write
from axon_compose.plan import plan_to_dict

if TYPE_CHECKING:
    from axon_compose.learn.trainer import Trainer

__all__ = ["State"]


class State:
    """The state of a trainer, written by the first of its ranks and read by it for all.

    Args:
        trainer: Whose it is.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        #: Where it is written already, as long as the ranks have parts.
        self._collected: Path | None = None

    @contextmanager
    def collected(self, out: Path | None = None) -> Iterator[None]:
        """Where the first rank has the whole model, and can write the state; all ranks enter it together.

        Args:
            out: The folder that the state will be written into; None if it will not.

        Raises:
            CheckpointError: AX503 there is no room beside the folder, where ranks with parts put the state together.
        """
        held = self.trainer.held
        try:
            if held.shards and out is not None:
                self._collect(out)
            with held.whole():
                yield
        finally:
            if self._collected is not None:
                with suppress(FileNotFoundError):
                    self._collected.unlink()
            self._collected = None

    def write(self, folder: Path) -> Path:
        """Write the state into a folder.

        Raises:
            OSError: As on a full disk.
        """
        if self._collected is None:
            return write_state(folder, self._arrays(), self._record())
        target = folder / STATE_FILE
        with suppress(FileNotFoundError):
            target.unlink()
        try:
            os.link(self._collected, target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(self._collected, target)
        return target

    def restore(self, folder: Path) -> None:
        """Take up what `write` wrote; see `Trainer.restore`."""
        trainer, own, record = self.trainer, self._arrays(), dict[str, Any]()
        found: dict[str, mx.array] = {}
        with trainer.ranks.together():
            if trainer.ranks.first:
                shapes = {key: trainer.held.shape_of(key, value) for key, value in own.items()}
                found, record = read_state(folder, shapes, trainer.model.plan.name)
                require_same(self._options(), record["options"])
            record = trainer.ranks.broadcast(record)
        arrays = {key: trainer.held.received(key, value, found.get(key)) for key, value in own.items()}
        weights = [(key.removeprefix("weights."), value) for key, value in arrays.items() if key.startswith("weights.")]
        state = [(key.removeprefix("optimizer."), value) for key, value in arrays.items() if key[0] == "o"]
        trainer.model.update(tree_unflatten(weights))
        _fill(trainer.optimizer.state, tree_unflatten(state))
        trainer.spent = Spent(**record["spent"])
        mx.eval(trainer.model.state, trainer.optimizer.state)

    def _collect(self, out: Path) -> None:
        held, ranks = self.trainer.held, self.trainer.ranks
        home = next(folder for folder in out.absolute().parents if folder.is_dir()) if ranks.first else None
        path = home / f".{secrets.token_hex(8)}.{STATE_FILE}" if home else None
        self._collected = path
        arrays = self._arrays()
        shapes = {key: held.shape_of(key, value) for key, value in arrays.items()}
        with ranks.together():
            try:
                stream_state(path, arrays, shapes, held.sent, self._record())
            except OSError as error:
                raise cannot_write(out / STATE_FILE, error) from error
            ranks.exchanged(None)

    def _record(self) -> dict[str, Any]:
        return {"spent": asdict(self.trainer.spent), "options": self._options()}

    def _options(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued."""
        trainer = self.trainer
        description = json.dumps(plan_to_dict(trainer.model.plan), sort_keys=True, default=str)
        digests = {"data": getattr(trainer.batches, "digest", None), "model": sha256(description.encode()).hexdigest()}
        own = getattr(trainer.objective, "options", {})
        return asdict(trainer.recipe) | asdict(trainer.budget) | own | digests

    def _arrays(self) -> dict[str, mx.array]:
        weights = {f"weights.{name}": value for name, value in tree_flatten(self.trainer.model.parameters())}
        state = tree_flatten(self.trainer.optimizer.state)
        return weights | {f"optimizer.{name}": value for name, value in state}


def _fill(state: Any, values: Any) -> None:
    """Put values into the places of a tree that others hold on to."""
    for key in range(len(state)) if isinstance(state, list) else list(state):
        if isinstance(state[key], mx.array):
            state[key] = values[key]
        else:
            _fill(state[key], values[key])
