"""`extends`: one text laid over another, on nodes, so that every value keeps its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.source import Entry, Mapping, Node, Scalar, Sequence, plain, read_file
from axon_compose.registry import LookupFailure

__all__ = ["FindArchitecture", "merge", "with_base"]

#: Longest chain of `extends`.
MAX_DEPTH: Final = 8
#: The section whose nulls are values, and the lists that are added to.
_VALUES: Final = ("dims",)
_ADDED: Final = (("huggingface", "ignore"), ("gguf", "ignore"))

#: Gives the path of a shipped architecture, or raises `LookupFailure`.
FindArchitecture = Callable[[str], Path]


def merge(base: Mapping, top: Mapping, path: tuple[str, ...] = ()) -> Mapping:
    """Lay `top` over `base`.

    Mappings merge deeply, null removes a key of the base, and a mapping whose `type` changes replaces the base's whole.
    Two sections differ: in `dims` null is a value like any other, and the names in `huggingface.ignore` and
    `gguf.ignore` are added to those of the base.

    Args:
        base: What is below.
        top: What is laid over it.
        path: Keys that lead to both from the top of the file.
    """
    entries = dict(base.entries)
    for key, entry in top.entries.items():
        below = entries.get(key)
        if below is None:
            entries[key] = entry
        elif isinstance(entry.node, Scalar) and entry.node.value is None and path != _VALUES:
            del entries[key]
        else:
            entries[key] = Entry(entry.key_span, _laid(below.node, entry.node, (*path, key)))
    return Mapping(entries, top.span)


def _laid(base: Node, top: Node, path: tuple[str, ...]) -> Node:
    if isinstance(top, Mapping) and isinstance(base, Mapping) and not _changes_type(base, top):
        return merge(base, top, path)
    if isinstance(top, Sequence) and isinstance(base, Sequence) and path in _ADDED:
        known = [plain(item) for item in base.items]
        return Sequence((*base.items, *(item for item in top.items if plain(item) not in known)), top.span)
    return top


def _changes_type(base: Mapping, top: Mapping) -> bool:
    new, old = top.get("type"), base.get("type")
    return isinstance(new, Scalar) and isinstance(old, Scalar) and new.value != old.value


def with_base(
    node: Mapping, directory: Path, root: Path, find: FindArchitecture, problems: Problems, chain: tuple[Path, ...] = ()
) -> Mapping | None:
    """Resolve `extends` of a node that was read in `directory`; bases stay inside `root`.

    Returns:
        The node with its bases below it, or None if a base could not be read; the fault is reported.
    """
    reference = node.entries.get("extends")
    if reference is None:
        return node
    rest = Mapping({key: entry for key, entry in node.entries.items() if key != "extends"}, node.span)
    value = reference.node
    if not isinstance(value, Scalar) or not isinstance(value.value, str) or not value.value:
        problems.error("AX110", "`extends` is not the name of a file or of an architecture", value.span)
        return None
    found = _find_base(value.value, value.span, directory, root, find, problems)
    if found is None:
        return None
    path, base_root = found
    if path in chain or len(chain) >= MAX_DEPTH:
        names = " → ".join(p.name for p in [*chain, path])
        kind = "is a circle" if path in chain else f"is deeper than {MAX_DEPTH} files"
        problems.error("AX112", f"`extends` {kind}: {names}", value.span)
        return None
    base = _read_base(path, value.span, problems)
    whole = with_base(base, path.parent, base_root, find, problems, (*chain, path)) if base else None
    return merge(whole, rest) if whole else None


def _find_base(
    reference: str, span: Span, directory: Path, root: Path, find: FindArchitecture, problems: Problems
) -> tuple[Path, Path] | None:
    if not reference.endswith((".yaml", ".yml")):
        try:
            path = find(reference)
        except LookupFailure as failure:
            problems.error(failure.code, failure.message, span, label=failure.label, help=failure.help)
            return None
        return path.resolve(), path.resolve().parent
    if "\0" in reference or Path(reference).is_absolute() or reference.startswith("~") or "://" in reference:
        problems.error(
            "AX113",
            f"`extends` points outside the folder of the file: `{reference}`",
            span,
            label="must be a relative path",
        )
        return None
    try:
        path = (directory / reference).resolve()
        inside = path.is_relative_to(root.resolve())
        exists = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        problems.error("AX111", f"cannot read `{reference}`: {error}", span)
        return None
    if not inside:
        problems.error(
            "AX113", f"`extends` points outside the folder of the file: `{reference}`", span, label=f"outside of {root}"
        )
        return None
    if not exists:
        problems.error("AX111", f"there is no file `{reference}`", span, label="looked for beside this file")
        return None
    return path, root


def _read_base(path: Path, span: Span, problems: Problems) -> Mapping | None:
    before = len(problems)
    try:
        node = read_file(path, problems, _display(path))
    except OSError as error:
        problems.error("AX111", f"cannot read `{path.name}`: {error.strerror}", span)
        return None
    if isinstance(node, Mapping):
        return node
    if len(problems) == before:
        problems.error("AX101", f"`{path.name}` is not an architecture file: it is not a mapping", span)
    return None


def _display(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
