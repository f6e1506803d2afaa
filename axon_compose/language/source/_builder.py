"""YAML events to nodes. The stack is a list, so no input can exhaust Python's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from axon_compose.diagnostics import Label, Position, Problems, Span, nearest
from axon_compose.language.source._nodes import Entry, Mapping, Node, Scalar, Sequence
from axon_compose.language.source._scalars import NumberFault, resolve

__all__ = ["MAX_DEPTH", "MAX_NODES", "Builder", "Halt", "report_depth"]

#: Collections inside one another; an alias counts as deep as what it points at.
MAX_DEPTH: Final = 64
#: Keys, values and collections together; an alias counts as many as what it points at.
MAX_NODES: Final = 100_000

#: So many faults beyond those that are kept end the reading.
_HOPELESS: Final = 1000
_SURROGATE: Final = "[\ud800-\udfff]"


class Halt(Exception):
    """There is no point in reading on."""


class _Anchor:
    """What `&name` marks; `node` is None until it is complete."""

    def __init__(self, span: Span, node: Node | None = None) -> None:
        self.span, self.node = span, node
        self.nodes, self.height = 1, 0


class _Key:
    """A key that waits for its value; `text` None means that the value is dropped."""

    def __init__(self, text: str | None, span: Span, *, merge: bool = False) -> None:
        self.text, self.span, self.merge = text, span, merge


class _Open:
    """A collection that has begun."""

    def __init__(
        self, span: Span, flow: bool, anchor: _Anchor | None, before: int, entries: dict[str, Entry] | None
    ) -> None:
        self.span, self.flow, self.anchor, self.before = span, flow, anchor, before
        self.last: Span | None = None
        self.height = 1
        self.items: list[Node] = []
        self.entries = entries
        self.key: _Key | None = None
        self.merges: list[Node] = []

    @property
    def wants_key(self) -> bool:
        return self.entries is not None and self.key is None


class Builder:
    """Takes events one by one (`feed`); `root` is the result.

    Args:
        file: Name for spans.
        text: What the events come from, for the end of block scalars.
        problems: Collects AX006 to AX016 where they are found.
    """

    def __init__(self, file: str, text: str, problems: Problems) -> None:
        self.root: Node | None = None
        self._file = file
        self._text = text
        self._problems = problems
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Anchor] = {}
        self._nodes = 0
        self._documents = 0

    def feed(self, event: Any) -> None:
        """Take the next event.

        Raises:
            Halt: A limit is passed or a second document begins; the fault has been reported. Or faults are too many.
        """
        handler = _HANDLERS.get(type(event))
        if handler:
            handler(self, event)

    def unclosed(self) -> Span | None:
        """The place of the innermost bracket that is still open."""
        return next((one.span for one in reversed(self._stack) if one.flow), None)

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            message = "a second document begins here"
            helped = "keep one document in a file; the line `---` may only come before it"
            self._problems.error("AX013", message, self._span(event), label="one file, one document", help=helped)
            raise Halt

    def _scalar(self, event: Any) -> None:
        span = self._span(event)
        self._count(1, span)
        if event.tag:
            self._refuse_tag(event.tag, span)
        style, stack = event.style, self._stack
        if style and style in "|>":
            span = Span(self._file, span.start, self._last_character(event))
        elif span.start == span.end and stack and stack[-1].key:
            span = self._empty_value(event, span, stack[-1].key)
        if stack and stack[-1].wants_key:
            node = self._key_scalar(event.value, span, bool(style))
        else:
            node = Scalar(self._value(event.value, span, bool(style)), span, bool(style))
        if event.anchor:
            self._anchors[event.anchor] = _Anchor(span, node)
        self._place(node, 0)

    def _empty_value(self, event: Any, span: Span, key: _Key) -> Span:
        """Where a value that is left out would stand; without a `:` its event has the place of the next token."""
        index = event.start_mark.index
        end = key.span.end
        return span if self._text[index - 1 : index] == ":" else Span(self._file, end, end)

    def _value(self, text: str, span: Span, quoted: bool) -> Any:
        if quoted:
            if not text.isascii() and re.search(_SURROGATE, text):  # only the pure Python parser lets them pass
                self._problems.error("AX004", "a lone surrogate is not a character", span)
                return re.sub(_SURROGATE, "\ufffd", text)
            return text
        try:
            return resolve(text)
        except NumberFault as fault:
            self._problems.error("AX010", f"{fault} is out of range", span, label="out of range")
            return 1  # a number that most checks accept, so that one mistake is reported once

    def _key_scalar(self, text: str, span: Span, quoted: bool) -> Scalar:
        """A key: always text, whatever it looks like."""
        value = self._value(text, span, quoted)
        if not isinstance(value, str):
            kind = {bool: "a boolean", type(None): "null"}.get(type(value), "a number")
            message = f"the key `{_shorten(text)}` is {kind}, not text" if text else "a key is missing before the `:`"
            helped = f'put it in quotes: `"{_shorten(text)}"`' if text else None
            self._problems.error("AX012", message, span, label="not text", help=helped)
            value = text
        return Scalar(value, span, quoted)

    def _open_collection(self, event: Any) -> None:
        span = self._span(event)
        self._count(1, span)
        if event.tag:
            self._refuse_tag(event.tag, span)
        if len(self._stack) >= MAX_DEPTH:
            self._too_deep(span)
        anchor = None
        if event.anchor:
            anchor = self._anchors[event.anchor] = _Anchor(span)
        entries: dict[str, Entry] | None = {} if type(event) is yaml.MappingStartEvent else None
        self._stack.append(_Open(span, event.flow_style, anchor, self._nodes - 1, entries=entries))

    def _close_collection(self, event: Any) -> None:
        done = self._stack.pop()
        # the end event of block style stands at the next token, maybe many lines down
        end = self._span(event).end if done.flow or done.last is None else done.last.end
        span = Span(self._file, done.span.start, end)
        node: Node
        if done.entries is None:
            node = Sequence(tuple(done.items), span)
        else:
            for merged in done.merges:
                _flatten(merged, done.entries)
            node = Mapping(done.entries, span)
        if done.anchor:
            done.anchor.node = node
            done.anchor.nodes = self._nodes - done.before
            done.anchor.height = done.height
        self._place(node, done.height)

    def _alias(self, event: Any) -> None:
        span = self._span(event)
        anchor = self._anchors.get(event.anchor)
        if anchor is None or anchor.node is None:
            self._report_alias(event.anchor, anchor, span)
            self._place_nothing(span)
            return
        self._count(anchor.nodes, span)
        if len(self._stack) + anchor.height > MAX_DEPTH:
            self._too_deep(span)
        self._place(anchor.node, anchor.height, span)

    def _report_alias(self, name: str, anchor: _Anchor | None, span: Span) -> None:
        shown = _shorten(name)
        if anchor is None:
            guess = nearest(name, self._anchors)
            helped = f"did you mean `*{guess}`?" if guess else f"mark a value before it with `&{shown}`"
            message, label = f"unknown anchor `{shown}`", "not defined so far"
            self._problems.error("AX014", message, span, label=label, help=helped)
        else:
            labels = (Label(Span(self._file, anchor.span.start, anchor.span.start), "which begins here"),)
            message = f"`*{shown}` is inside the value that it refers to"
            self._problems.error("AX015", message, span, label="a cycle", labels=labels)

    def _place_nothing(self, span: Span) -> None:
        """Go on after a faulty alias: leave out an item, a key or a merge; a key that is known stays known."""
        if not self._stack:
            raise Halt
        top = self._stack[-1]
        top.last = span
        self._count(1, span)
        if top.entries is not None and top.key is None:
            top.key = _Key(None, span)
        elif top.key is not None and top.key.merge:
            top.key = None
        elif top.key is not None:
            self._place(Scalar(None, span), 0)

    def _place(self, node: Node, height: int, at: Span | None = None) -> None:
        """Put a complete node where it belongs; `at` is the place of an alias."""
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        here = at or node.span
        top.height = max(top.height, height + 1)
        top.last = here
        if top.entries is None:
            top.items.append(node)
        elif top.key is None:
            top.key = self._key(node, here, top.entries)
        else:
            key, top.key = top.key, None
            if key.merge:
                self._merge(node, here, top)
            elif key.text is not None:
                top.entries[key.text] = Entry(key.span, node)

    def _key(self, node: Node, span: Span, entries: dict[str, Entry]) -> _Key:
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            kind = {Sequence: "a list", Mapping: "a mapping"}.get(type(node), "not text")
            helped = "a text that begins with `{` or `[` needs quotes around it"
            self._problems.error("AX012", f"a key that is {kind}", span, label="keys are text", help=helped)
            return _Key(None, span)
        if node.value == "<<" and not node.quoted:
            return _Key(None, span, merge=True)
        first = entries.get(node.value)
        if first is None:
            return _Key(node.value, span)
        labels = (Label(first.key_span, "first defined here"),)
        message = f"duplicate key `{_shorten(node.value)}`"
        self._problems.error("AX007", message, span, label="second definition", labels=labels)
        return _Key(None, span)

    def _merge(self, node: Node, span: Span, top: _Open) -> None:
        parts = node.items if isinstance(node, Sequence) else (node,)
        if not all(isinstance(part, Mapping) for part in parts):
            helped = "`<<` copies the entries of a mapping: `<<: *name`, or of several: `<<: [*one, *two]`"
            self._problems.error("AX016", "`<<` needs a mapping", span, label="not a mapping", help=helped)
            return
        top.merges.extend(parts)

    def _refuse_tag(self, tag: str, span: Span) -> None:
        written = tag.replace("tag:yaml.org,2002:", "!!")
        message = f"the tag `{_shorten(written)}` is not allowed"
        helped = "remove it; a text that looks like a number goes into quotes"
        self._problems.error("AX011", message, _first_line(span), label="tags are not supported", help=helped)

    def _count(self, nodes: int, span: Span) -> None:
        if self._problems.dropped > _HOPELESS:
            raise Halt
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} keys and values"
            helped = "an alias counts as much as the value that it refers to"
            self._problems.error("AX009", message, _first_line(span), label="the limit is exceeded here", help=helped)
            raise Halt

    def _too_deep(self, span: Span) -> None:
        report_depth(span, self._problems)
        raise Halt

    def _span(self, event: Any) -> Span:
        start, end = event.start_mark, event.end_mark
        return Span(self._file, Position(start.line + 1, start.column + 1), Position(end.line + 1, end.column + 1))

    def _last_character(self, event: Any) -> Position:
        """Where the text of a block scalar really ends; its event reaches to the next token."""
        start, end = event.start_mark, event.end_mark
        kept = self._text[start.index : end.index].rstrip()
        breaks = list(_breaks(kept))
        column = len(kept) - breaks[-1] + 1 if breaks else start.column + 1 + len(kept)
        return Position(start.line + 1 + len(breaks), column)


def _breaks(text: str) -> Iterator[int]:
    return (match.end() for match in re.finditer(r"\r\n?|\n", text))


def _flatten(merged: Node, entries: dict[str, Entry]) -> None:
    """Add what `<<` brings; keys that are there already win."""
    if isinstance(merged, Mapping):
        for key, entry in merged.entries.items():
            entries.setdefault(key, entry)


def report_depth(span: Span, problems: Problems) -> None:
    """Say that a collection is nested too deeply; the parser may notice before the builder sees any of it."""
    problems.error("AX008", f"nested more than {MAX_DEPTH} levels deep", _first_line(span), label="too deep")


def _first_line(span: Span) -> Span:
    return Span(span.file, span.start, span.end if span.end.line == span.start.line else span.start)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


_HANDLERS: Final = {
    yaml.DocumentStartEvent: Builder._document,
    yaml.ScalarEvent: Builder._scalar,
    yaml.AliasEvent: Builder._alias,
    yaml.SequenceStartEvent: Builder._open_collection,
    yaml.MappingStartEvent: Builder._open_collection,
    yaml.SequenceEndEvent: Builder._close_collection,
    yaml.MappingEndEvent: Builder._close_collection,
}
