"""What there is to name in a file, for the terminal: lists, and a component with all its options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Final

from axon_compose.registry import SAME, ComponentSpec, Optioned, TaskSpec, Transfer
from axon_compose.report._component import Described, Option, describe, joins, option_rows
from axon_compose.report._style import Style
from axon_compose.report._table import table

__all__ = ["Entry", "catalogue_text", "component_data", "component_text", "starts", "task_data", "task_text"]

_WIDTH: Final = 100


@dataclass(frozen=True)
class Entry:
    """Something that can be named.

    Attributes:
        name: As a file or command names it.
        what: Its kind, or for a family the model types that it reads.
        summary: One line.
    """

    name: str
    what: str
    summary: str

    def holds(self, search: str) -> bool:
        """Whether a text is in it, whatever its case."""
        return search.lower() in f"{self.name}\n{self.what}\n{self.summary}".lower()


def catalogue_text(sections: Mapping[str, Sequence[Entry]], style: Style) -> str:
    """A list for each section that has entries.

    Args:
        sections: Title to entries.
        style: Colours, and how wide the terminal is.
    """
    parts = []
    for title, entries in sections.items():
        if entries:
            rows = [[entry.name, entry.what, entry.summary] for entry in entries]
            if not any(entry.what for entry in entries):
                rows = [[name, summary] for name, _, summary in rows]
            parts.append("\n".join([style.bold(title), *table(rows, "<" * len(rows[0]), style=style, heads=0)]))
    return "\n\n".join(parts) + "\n"


def component_text(name: str, owner: str, spec: ComponentSpec, style: Style) -> str:
    """A component: what it is, where it was published, how it is written and called, and every option.

    Args:
        name: As a file names it.
        owner: Distribution and version that bring it.
        spec: Its record.
        style: Colours, and how wide the terminal is.
    """
    words = describe(spec)
    width = style.columns or _WIDTH
    lines = [style.bold(f"{name}: {spec.kind} of {owner}"), *wrap(spec.summary, width, break_on_hyphens=False), ""]
    lines += table(list(_facts(name, spec, words)), "<<", style=Style(style.colour, width), heads=0)
    lines += _options(spec, style, width)
    if list(option_rows(spec)):
        lines += ["", *wrap(_FORMULAS, width)]
    return "\n".join(lines) + "\n"


def task_text(name: str, owner: str, spec: TaskSpec, style: Style) -> str:
    """A skill task: what it asks, where it was published, how it is written, and every option.

    Args:
        name: As the command line names it.
        owner: Distribution and version that bring it.
        spec: Its record.
        style: Colours, and how wide the terminal is.
    """
    width = style.columns or _WIDTH
    lines = [style.bold(f"{name}: task of {owner}"), *wrap(spec.summary, width, break_on_hyphens=False), ""]
    facts = [["source", spec.source]] if spec.source else []
    facts += [["example", f"--task {_spelt(name, example)}"] for example in spec.examples[:1]]
    facts += [["scored by", "accuracy over the positions that are asked for, on sequences that are held out"]]
    lines += table(facts, "<<", style=Style(style.colour, width), heads=0)
    return "\n".join([*lines, *_options(spec, style, width)]) + "\n"


def _spelt(name: str, options: Mapping[str, Any]) -> str:
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in options.items())


def _options(spec: Optioned, style: Style, width: int) -> list[str]:
    options = [_row(option) for option in option_rows(spec)]
    rows = table(options, "<<", style=Style(style.colour, width), heads=0) if options else []
    return ["", style.bold("options"), *rows] if rows else []


_FORMULAS: Final = "A value may be a formula over dims and the layer's index: `=hidden_size // 64`, `=i % 4 == 3`."


def _facts(name: str, spec: ComponentSpec, words: Described) -> Iterator[list[str]]:
    if spec.source:
        yield ["source", spec.source]
    yield ["example", words.example.replace(f"type: {spec.name}", f"type: {name}", 1)]
    yield ["call", words.call]
    yield ["cache", _plain(words.cache)]
    yield ["weights", _plain(words.weights)]
    for each in spec.connections:
        yield [f"connection {each.name}", joins(each)]
    if spec.float32:
        yield ["in float32", ", ".join(spec.float32)]
    if spec.unquantized:
        yield ["unquantised", ", ".join(spec.unquantized)]
    for transfer in spec.transfers:
        yield [f"init {transfer.name}", f"{', '.join(starts(name, transfer))}: {transfer.claim}"]


def _row(option: Option) -> list[str]:
    """An option, indented below the mapping that it belongs to."""
    depth, name = option.name.count("."), option.name.rpartition(".")[2]
    default = {"none": "", "required": "; required", "see below": ""}.get(option.default, f"; default {option.default}")
    return ["  " * depth + name, f"{_plain(option.type)}{default}. {option.description}"]


def _plain(text: str) -> str:
    return text.replace("`", "")


def component_data(name: str, owner: str, spec: ComponentSpec) -> dict[str, Any]:
    """The same as JSON-ready data."""
    words = describe(spec)
    return {
        "type": name,
        "kind": spec.kind,
        "distribution": owner,
        "summary": spec.summary,
        "source": spec.source or None,
        "examples": [{"type": name, **example} for example in spec.examples],
        "call": words.call,
        "cache": _plain(words.cache),
        "weights": _plain(words.weights),
        **(
            {"connections": {each.name: {"around": each.around, "summary": each.summary} for each in spec.connections}}
            if spec.connections
            else {}
        ),
        "float32": list(spec.float32),
        "unquantized": list(spec.unquantized),
        "transfers": [_transfer_data(name, transfer) for transfer in spec.transfers],
        "options": _options_data(spec),
    }


def starts(name: str, transfer: Transfer) -> list[str]:
    """Types that a transfer to the type `name` starts from, those of the namespace `core` as files write them."""
    return [(name if source == SAME else source).removeprefix("core/") for source in transfer.sources]


def _transfer_data(name: str, transfer: Transfer) -> dict[str, Any]:
    """A transfer as JSON-ready data."""
    return {
        "init": transfer.name,
        "from": starts(name, transfer),
        "claim": transfer.claim,
        "paper": transfer.paper or None,
        "needs": transfer.needs,
        "settings": {
            key: {"default": setting.default, "summary": setting.summary} for key, setting in transfer.settings.items()
        },
    }


def task_data(name: str, owner: str, spec: TaskSpec) -> dict[str, Any]:
    """The same of a task."""
    return {
        "type": name,
        "kind": "task",
        "distribution": owner,
        "summary": spec.summary,
        "source": spec.source or None,
        "examples": [dict(example) for example in spec.examples],
        "options": _options_data(spec),
    }


def _options_data(spec: Optioned) -> list[dict[str, Any]]:
    return [
        {
            "name": option.name,
            "type": _plain(option.type),
            "required": option.default == "required",
            "default": option.value,
            "description": option.description,
        }
        for option in option_rows(spec)
    ]
