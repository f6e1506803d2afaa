"""`list`, `describe`, `help` and `completion`: what there is, and what it takes."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import Final

from axon_compose.cli._terminal import FAULTY, Terminal
from axon_compose.diagnostics import Refusal, nearest
from axon_compose.language.families import model_types_of
from axon_compose.registry import LookupFailure, Registry, TaskSpec
from axon_compose.report._catalogue import Entry, catalogue_text, component_data, component_text, task_data, task_text

__all__ = ["describe", "list_all", "list_families"]

_MODE_LINE: Final = re.compile(r"# yaml-language-server:.*\n")


def list_all(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """List architectures, families, components and tasks, or one of these, or those that a search finds."""
    return _listed(_sections(Registry.installed()), arguments.search, terminal)


def list_families(search: str, terminal: Terminal) -> int:
    """List the families that read checkpoints, those that a search finds unless it is empty."""
    return _listed({"families": _sections(Registry.installed())["families"]}, search or None, terminal)


def _listed(everything: dict[str, list[Entry]], search: str | None, terminal: Terminal) -> int:
    sections = everything
    if search is not None:
        sections = {
            title: entries if title == search else [e for e in entries if e.holds(search)]
            for title, entries in everything.items()
        }
    found = any(sections.values())
    data = {title: [asdict(entry) for entry in entries] for title, entries in sections.items()}
    if found:
        return terminal.result(catalogue_text(sections, terminal.style), data)
    known = [entry.name for entries in everything.values() for entry in entries]
    near = nearest(search or "", known)
    hint = f"; did you mean `{near}`?" if near else ""
    terminal.result("", data, ok=False)
    terminal.note(f"nothing has `{search}` in its name or summary{hint}")
    return FAULTY


def _sections(registry: Registry) -> dict[str, list[Entry]]:
    named = {name.removeprefix("core/"): spec for name, spec in sorted(registry.architectures().items())}
    types = {name: model_types_of(Path(spec.path)) for name, spec in named.items()}
    reading = {name: ", ".join(found) for name, found in types.items() if found is not None}
    summaries = {name: spec.summary or _summary(Path(spec.path)) for name, spec in named.items()}
    return {
        "architectures": [Entry(name, "", summary) for name, summary in summaries.items() if name not in reading],
        "families": [Entry(name, types, summaries[name]) for name, types in sorted(reading.items())],
        "components": [
            Entry(name.removeprefix("core/"), spec.kind, spec.summary) for name, spec in registry.components().items()
        ],
        "tasks": [Entry(name.removeprefix("core/"), "", spec.summary) for name, spec in registry.tasks().items()],
    }


def _summary(path: Path) -> str:
    """What a file says of itself: the first lines of comment."""
    with path.open(encoding="utf-8") as stream:
        text = _MODE_LINE.sub("", stream.read(4096), count=1)
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines).removesuffix(".")


def describe(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print what a component or a task is and every option that it takes."""
    registry, name = Registry.installed(), arguments.type
    try:
        spec = registry.component(name)
    except LookupFailure as error:
        try:
            task = registry.task(name)
        except LookupFailure:
            raise Refusal(error.code, error.message, _elsewhere(name, registry) or error.help) from error
        return _describe_task(name, task, registry, terminal)
    full = registry.full_name(spec)
    owner = registry.distribution(full.partition("/")[0])
    name = full.removeprefix("core/")
    return terminal.result(component_text(name, owner, spec, terminal.style), component_data(name, owner, spec))


def _describe_task(name: str, task: TaskSpec, registry: Registry, terminal: Terminal) -> int:
    full = name.removeprefix("core/")
    owner = registry.distribution(full.partition("/")[0] if "/" in full else "core")
    return terminal.result(task_text(full, owner, task, terminal.style), task_data(full, owner, task))


def _elsewhere(name: str, registry: Registry) -> str | None:
    try:
        registry.architecture_path(name)
    except LookupFailure:
        near = nearest(name, (found.removeprefix("core/") for found in (*registry.components(), *registry.tasks())))
        return f"did you mean `{near}`?" if near else None
    return f"it is an architecture: `axon-compose show {name}`"
