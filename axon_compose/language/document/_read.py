"""Nodes to a `Document`: sections validated one by one, so that one fault does not hide the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError

from axon_compose.diagnostics import Flood, Label, Problems
from axon_compose.language.document._blocks import check_blocks
from axon_compose.language.document._document import Document, Path
from axon_compose.language.document._formulas import check_formulas, resolve_dims
from axon_compose.language.document._merge import FindArchitecture, with_base
from axon_compose.language.document._models import NAME
from axon_compose.language.document._sections import CHECKPOINTS, Envelope
from axon_compose.language.document._settings import check_new_dims, reading_first, with_settings
from axon_compose.language.document.formula import RESERVED
from axon_compose.language.source import Entry, Node, Sequence, plain
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.registry import Fault, pydantic_faults

__all__ = ["VERSION", "Overlay", "read_document"]

#: Changes the nodes of a whole file before they are validated.
Overlay = Callable[[MappingNode, Problems], MappingNode]

#: The version of the language that this package reads.
VERSION: Final = 1

#: Sections whose entries stand alone: a faulty entry is left out and the others stay.
_ENTRIES: Final = ("components", "blocks", "dims", "overrides")
_NAME_HELP: Final = "a name has lower-case letters, digits and `_`, a letter first, at most 100 in all"
_REQUIRED_DIMS: Final = ("hidden_size", "vocab_size")


def read_document(
    node: Node | None,
    problems: Problems,
    *,
    find: FindArchitecture,
    directory: FilePath | None = None,
    settings: Iterable[str] = (),
    overlay: Overlay | None = None,
) -> Document | None:
    """Turn the nodes of a file into a document.

    Args:
        node: What `source.read` gave.
        problems: Collects faults.
        find: Gives the path of a shipped architecture for `extends`.
        directory: Folder of the file; bases stay inside it. The current folder unless given.
        settings: Texts of `--set`.
        overlay: Lays the sizes of a checkpoint over the file, below the `settings` of all other sections than
            `huggingface`, which says how they are read.

    Returns:
        The document without its faulty entries, or None if there is no mapping to read.
    """
    if node is None:
        return None
    if not isinstance(node, MappingNode):
        problems.error(
            "AX100", "an architecture file is a mapping of sections", node.span, help="begin with `version: 1`"
        )
        return None
    try:
        return _read(node, problems, find, directory or FilePath.cwd(), settings, overlay)
    except Flood:
        return None


def _read(
    node: MappingNode,
    problems: Problems,
    find: FindArchitecture,
    root: FilePath,
    settings: Iterable[str],
    overlay: Overlay | None,
) -> Document | None:
    merged = with_base(node, root, root, find, problems)
    first, then = reading_first(settings)
    readable = with_settings(merged or node, first, problems)
    laid = overlay(readable, problems) if merged and overlay else readable
    kept = _without_private(with_settings(laid, then, problems), problems)
    if merged is None or not _right_version(kept, problems):
        return None  # without its base, most of what a file lacks is no fault of its own
    envelope, broken, kept = _validate(kept, problems)
    document = Document(envelope, {}, kept, frozenset(broken))
    for key, section in kept.items():
        if key not in ("name", "description") and not check_formulas(section, problems):
            document = replace(document, broken=document.broken | {(f"{key}.formula",)})
    document = _with_dims(document, problems)
    check_new_dims(document, laid, problems)
    _check_names(document, problems)
    check_blocks(document, problems)
    if document.huggingface or document.gguf:
        from axon_compose.language.document._checkpoints import check_checkpoints

        check_checkpoints(document, problems)
    return document


def _without_private(node: MappingNode, problems: Problems) -> MappingNode:
    """The node without `x-*` keys; unknown keys are reported."""
    known = [*Envelope.model_fields, *CHECKPOINTS]
    entries = {}
    for key, entry in node.entries.items():
        if key in known:
            entries[key] = entry
        elif not key.startswith("x-"):
            near = problems.nearest(key, known)
            hint = (
                f"did you mean `{near}`?" if near else f"sections are {', '.join(known)}; custom keys begin with `x-`"
            )
            problems.error(
                "AX101",
                f"unknown section `{key}`",
                entry.key_span,
                label="not a section of an architecture file",
                help=hint,
            )
    return MappingNode(entries, node.span)


def _right_version(node: MappingNode, problems: Problems) -> bool:
    version = node.get("version")
    if version is None:
        return True  # reported as missing with the other sections
    value = plain(version)
    if isinstance(value, bool) or value == str(VERSION):
        problems.error("AX105", "the version must be an integer", version.span, help=f"write `version: {VERSION}`")
        return False
    if isinstance(value, int) and value != VERSION:
        problems.error(
            "AX105",
            f"the file is written for version {value} of the language, this axon-compose reads version {VERSION}",
            version.span,
            help="upgrade axon-compose" if value > VERSION else f"write `version: {VERSION}`",
        )
        return False
    return True


def _validate(node: MappingNode, problems: Problems) -> tuple[Envelope, set[Path], MappingNode]:
    """Validate what can be validated: faulty entries are reported, dropped, and the rest is tried again.

    Returns:
        The sections, the paths of what was dropped, and the nodes without the dropped items of lists, so that the
        positions of those that stay are the same in both.
    """
    data = plain(node)
    model = _model_of(data)
    broken: set[Path] = set()
    while True:
        try:
            return model.model_validate(data), broken, node
        except ValidationError as error:
            faults = pydantic_faults(error, data, model=model, owner=node.span.file, noun="key")
        dropped = {_entry_of(fault.path, data) for fault in faults}
        for fault in faults:
            _report(fault, node, problems)
        for path in dropped:
            if len(path) == 1 or not isinstance(path[1], int):
                _drop(data, path)
        for section in {str(path[0]) for path in dropped if len(path) == 2 and isinstance(path[1], int)}:
            kept = [index for index in range(len(data[section])) if (section, index) not in dropped]
            data[section] = [data[section][index] for index in kept]
            node = _with_items(node, section, kept)
        broken |= dropped


def _model_of(data: Mapping[str, Any]) -> type[Envelope]:
    """What the sections of a file are validated by."""
    if data.keys().isdisjoint(CHECKPOINTS):
        return Envelope
    from axon_compose.language.document._checkpoints import CheckpointEnvelope

    return CheckpointEnvelope


def _entry_of(path: Path, data: Mapping[str, Any]) -> Path:
    section = path[0]
    if section in _ENTRIES and len(path) > 1 and isinstance(data.get(str(section)), dict | list):
        return path[:2]
    return path[:1]


def _with_items(node: MappingNode, section: str, indices: list[int]) -> MappingNode:
    """The nodes with only these items of a list."""
    entry = node.entries[section]
    assert isinstance(entry.node, Sequence)
    items = Sequence(tuple(entry.node.items[index] for index in indices), entry.node.span)
    return MappingNode({**node.entries, section: Entry(entry.key_span, items)}, node.span)


#: What stands in for a required section whose own text is missing or faulty.
_STAND_INS: Final[Mapping[str, Any]] = {"version": VERSION, "stack": "unknown"}


def _drop(data: dict[str, Any], path: Path) -> None:
    if len(path) == 2:
        del data[str(path[0])][str(path[1])]
    elif path[0] in _STAND_INS:
        data[str(path[0])] = _STAND_INS[str(path[0])]
    else:
        data.pop(str(path[0]), None)


def _report(fault: Fault, node: MappingNode, problems: Problems) -> None:
    document = Document(Envelope.model_construct(), {}, node)
    if NAME in fault.label:
        is_key = fault.path[0] in _ENTRIES and len(fault.path) == 2
        place = document.place(*fault.path, key=is_key)
        what = f"`{fault.path[-1]}` cannot be a name" if is_key else "this cannot be a name"
        problems.error("AX104", what, place, help=_NAME_HELP)
        return
    if fault.kind == "missing":
        problems.error(
            "AX103", fault.message, document.place(*fault.path[:-1], key=True), label=fault.label, help=fault.help
        )
        return
    code = "AX101" if fault.kind == "unknown" else "AX102"
    problems.error(
        code, fault.message, document.place(*fault.path, key=fault.at_key), label=fault.label, help=fault.help
    )


def _with_dims(document: Document, problems: Problems) -> Document:
    values, failed = resolve_dims(document, problems)
    broken = set(document.broken) | {("dims", name) for name in failed}
    for name in _REQUIRED_DIMS:
        if ("dims",) in broken or ("dims", name) in broken:
            continue
        if name not in values:
            problems.error(
                "AX103", f"`dims` has no `{name}`", document.place("dims", key=True), label=f"`{name}` is missing"
            )
            broken.add(("dims", name))
        elif not isinstance(values[name], int) or isinstance(values[name], bool) or values[name] < 1:
            problems.error(
                "AX102",
                f"`{name}` must be a positive integer",
                document.place("dims", name),
                label=f"this is {json.dumps(values[name]):.80}",
            )
            broken.add(("dims", name))
    values = {name: value for name, value in values.items() if ("dims", name) not in broken}
    return replace(document, dims=values, broken=frozenset(broken))


def _check_names(document: Document, problems: Problems) -> None:
    """A name that formulas could read in two ways is an error."""
    dims = document.envelope.dims.keys()
    for section in ("components", "blocks"):
        for name in getattr(document.envelope, section):
            if name in dims:
                problems.error(
                    "AX122",
                    f"`{name}` is a dim and one of the {section}",
                    document.place(section, name, key=True),
                    label="second meaning",
                    labels=[Label(document.place("dims", name, key=True), "first meaning")],
                    help="rename one: formulas could not tell them apart",
                )
    for section in ("dims", "components", "blocks"):
        for name in getattr(document.envelope, section):
            if name == "i" or name in RESERVED:
                problems.error(
                    "AX122",
                    f"`{name}` is reserved in formulas",
                    document.place(section, name, key=True),
                    help="choose another name",
                )
