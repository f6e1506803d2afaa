"""Parameters that stay as they are, named by a pattern."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from mlx.utils import tree_flatten

from axon_compose.diagnostics import CheckpointError, nearest
from axon_compose.model import LanguageModel, module_at

__all__ = ["freeze", "freeze_rest"]


def freeze(model: LanguageModel, patterns: Iterable[str]) -> list[str]:
    """Keep what patterns name from moving.

    A pattern is a path with `*` for anything within one part of it, as `show` and checkpoints name parts:
    `layers.*.mlp`, `layers.[0-3]`, `embedding`, `layers.*.attn.q_proj.weight`. All that is below it stays too.

    Args:
        model: Its parameters are frozen as `mlx.nn.Module.freeze` does.
        patterns: Any number.

    Returns:
        The names of the parameters that are frozen now, as the description names them.

    Raises:
        CheckpointError: AX815 a pattern names nothing, or nothing is left to move.
    """
    paths = {model.plan_name(path): path for path, _ in tree_flatten(model.parameters())}
    frozen: set[str] = set()
    for pattern in patterns:
        found = {name for name in paths if _matches(name, pattern)}
        if not found:
            raise _unmatched(pattern, paths)
        frozen |= found
    if frozen and len(frozen) == len(paths):
        raise CheckpointError("AX815", "every parameter is frozen, there is nothing to train", "freeze fewer parts")
    for name in sorted(frozen):
        _freeze_one(model, paths[name])
    return sorted(frozen)


def freeze_rest(model: LanguageModel, patterns: Iterable[str]) -> list[str]:
    """Keep everything from moving but what patterns name, and of that what may move at all.

    Args:
        model: Its parameters are frozen as `mlx.nn.Module.freeze` does.
        patterns: As those of `freeze`; with none, all is frozen.

    Returns:
        The names of the parameters that move.

    Raises:
        CheckpointError: AX815 a pattern names nothing.
    """
    paths = {model.plan_name(path): path for path, _ in tree_flatten(model.parameters())}
    moving = {model.plan_name(path) for path, _ in tree_flatten(model.trainable_parameters())}
    named: set[str] = set()
    for pattern in patterns:
        found = {name for name in paths if _matches(name, pattern)}
        if not found:
            raise _unmatched(pattern, paths)
        named |= found
    for name in sorted(moving - named):
        _freeze_one(model, paths[name])
    return sorted(moving & named)


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(wanted) <= len(parts) and all(map(fnmatchcase, parts, wanted))


def _freeze_one(model: Any, path: str) -> None:
    holder, _, name = path.rpartition(".")
    module_at(model, holder).freeze(keys=[name], recurse=False)


def _unmatched(pattern: str, paths: Iterable[str]) -> CheckpointError:
    depth = len(pattern.split("."))
    known = {".".join("*" if part.isdigit() else part for part in name.split(".")[:depth]) for name in paths}
    near = nearest(pattern, known)
    hint = f"did you mean `{near}`?" if near else f"such as {', '.join(f'`{name}`' for name in sorted(known)[:3])}"
    return CheckpointError("AX815", f"`{pattern}` names no parameter of the model", hint)
