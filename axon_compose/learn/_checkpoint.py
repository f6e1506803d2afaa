"""The state of a run in one file: weights, optimiser and what is spent, so that going on is going on to the bit.

The file is written beside itself and takes its name in one step: whatever happens, it is the old one or the new one.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import mlx.core as mx

from axon_compose.checkpoints.files import read_safetensors
from axon_compose.checkpoints.files._safetensors import differences
from axon_compose.checkpoints.files._shards import Shard, bytes_of, tensor_specs
from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.files import sync

__all__ = ["STATE_FILE", "read_state", "require_same", "stream_state", "write_state"]

STATE_FILE: Final = "training.safetensors"
_KEY: Final = "axon_compose_training"
#: What is kept as a digest, when it has changed.
_IN_WORDS: Final = {
    "data": "the texts, the tokenizer or the task are not those of the beginning",
    "model": "the description is not that of the beginning",
}


def write_state(folder: Path, arrays: dict[str, mx.array], record: dict[str, Any]) -> Path:
    """Write arrays and a record of plain data as `training.safetensors`, in one step.

    Raises:
        OSError: It cannot be written, as on a full disk; what was there before still is.
    """
    target = folder / STATE_FILE
    partial = folder / f".{secrets.token_hex(8)}.partial.safetensors"
    try:
        partial.touch()  # if that fails it says why, which MLX does not
        mx.save_safetensors(str(partial), arrays, {_KEY: json.dumps(record)})
        sync(partial)
        partial.replace(target)
    except RuntimeError as error:  # of MLX, where the disk is full
        raise OSError(str(error)) from error
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    sync(folder)
    return target


def stream_state(
    target: Path | None,
    arrays: dict[str, mx.array],
    shapes: dict[str, tuple[int, ...]],
    whole: Callable[[str, mx.array], mx.array],
    record: dict[str, Any],
) -> None:
    """Write what `write_state` writes, of arrays of which each rank has a part: one is whole at a time.

    Args:
        target: The new file; None for ranks that only send their parts.
        arrays: All of them, by name.
        shapes: Of the whole arrays.
        whole: Given a name and an array, the whole one. All ranks call it for all arrays, whatever becomes of the file.
        record: Of plain data.

    Raises:
        OSError: It cannot be written.
    """
    specs = [spec._replace(shape=shapes[spec.name]) for spec in tensor_specs(arrays)]
    shard = Shard(STATE_FILE, tuple(specs))
    fault: OSError | None = None
    with ExitStack() as stack:
        try:
            file = stack.enter_context(target.open("xb")) if target else None
            if file:
                file.write(shard.header(**{_KEY: json.dumps(record)}))
        except OSError as error:
            file, fault = None, error
        for spec in shard.layout():
            array = whole(spec.name, arrays[spec.name])
            try:
                if file:
                    file.writelines(bytes_of(spec, array))
            except OSError as error:
                file, fault = None, error
    if fault:
        raise fault
    if target:
        sync(target)


def read_state(folder: Path, wanted: dict[str, tuple[int, ...]], whose: str) -> tuple[dict[str, mx.array], Any]:
    """Read what `write_state` wrote, once names and shapes are known to be right.

    Args:
        folder: Where it is.
        wanted: Names and shapes of all arrays.
        whose: Of the model, for the message.

    Returns:
        The arrays, and the record: what is `spent`, and the `options` that the run was begun with.

    Raises:
        CheckpointError: AX801 there is none, or it cannot be read; AX802 it belongs to another model or optimiser.
    """
    path = folder / STATE_FILE
    if not os.path.lexists(path):
        raise CheckpointError("AX801", f"`{folder}` has no `{STATE_FILE}`: there is no run to continue")
    header = read_safetensors(path)
    record = _record(header.metadata.get(_KEY, ""))
    if record is None:
        raise CheckpointError("AX801", f"`{path}` is no state of a run")
    details = differences({name: tuple(entry.shape) for name, entry in header.entries.items()}, wanted)
    if details:
        hint = "continue with the description, the optimiser and the frozen parts that the run was begun with"
        raise CheckpointError("AX802", f"`{path}` is the state of another run than one of `{whose}`", hint, details)
    arrays: Any = mx.load(str(path))
    return arrays, record


def state_options(folder: Path) -> dict[str, Any]:
    """What the run in a folder was begun with; empty if there is none to continue."""
    path = folder / STATE_FILE
    if not os.path.lexists(path):
        return {}
    record = _record(read_safetensors(path).metadata.get(_KEY, ""))
    return dict(record["options"]) if record else {}


def _record(text: str) -> dict[str, Any] | None:
    """What `write_state` was given; None if it is something else."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in ("spent", "options"))
    return found if whole else None


def require_same(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Compare the options of a run with those that it was begun with.

    Raises:
        CheckpointError: AX804 with what has changed.
    """
    changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    if not changed:
        return
    details = tuple(_IN_WORDS.get(key) or f"`{key}` was {then.get(key)}, and is {now.get(key)}" for key in changed)
    hint = "continue with the options of the beginning; a new run from these weights is `--init DIR`"
    raise CheckpointError("AX804", "the run was begun with other options", hint, details)
