"""The order of the layers: stack text, lists and generated stacks expanded to one block for each layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, NoReturn

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.document import (
    BranchItem,
    Document,
    InlineBlock,
    Path,
    Unresolved,
    is_formula,
    resolve,
    within,
)
from axon_compose.language.document._models import NAME
from axon_compose.language.document._stack_text import StackError, parse_stack
from axon_compose.record import record

__all__ = ["MAX_LAYERS", "StackLayer", "expand_stack"]

#: More layers than any model has, few enough to be planned at once.
MAX_LAYERS: Final = 4096
#: Components in all layers together: four in each of as many layers as may be.
MAX_USES: Final = 4 * MAX_LAYERS


@record
class StackLayer:
    """A layer before its components are resolved.

    Attributes:
        block: Name of the block, `=` for one written in the stack.
        branches: Its branches as written.
        share: Name of a set of weights, or None.
        path: Where the branches are in the file.
    """

    block: str
    branches: tuple[BranchItem, ...]
    share: str | None
    path: Path


@record
class _Run:
    """`count` layers of one block, or of one written in the stack; `term` is how the file says it."""

    term: str
    count: int
    layers: Iterable[tuple[str | None, Span, InlineBlock | None, Path]]


def expand_stack(document: Document, problems: Problems) -> list[StackLayer] | None:
    """One `StackLayer` for each layer, or None if the stack is faulty."""
    if ("stack",) in document.broken or ("stack.formula",) in document.broken:
        return None
    return _Expansion(document, problems).run()


class _Expansion:
    def __init__(self, document: Document, problems: Problems) -> None:
        self.document, self.problems = document, problems
        self.blocks = document.envelope.blocks
        self.names: dict[str, Any] = {**document.names(), **document.dims}
        self.broken_blocks = {path[1] for path in document.broken if path[0] == "blocks" and len(path) == 2}
        self.reported: set[str] = set()

    def run(self) -> list[StackLayer] | None:
        stack = self.document.envelope.stack
        try:
            layers = self._of_a_size_to_plan(self._listed() if stack.generated is None else self._generated())
            return layers and [self._with_share(layer, index) for index, layer in enumerate(layers)]
        except (Unresolved, _Faulty):
            return None

    def _listed(self) -> list[StackLayer] | None:
        items = self.document.envelope.stack.items or ()
        runs = [run for index, _ in enumerate(items) for run in self._item(index)]
        if not self._counts_are_right(runs):
            return None
        layers = [layer for run in runs for _ in range(run.count) for layer in run.layers]
        found = [self._layer(name, span, inline, path) for name, span, inline, path in layers]
        return None if None in found else [layer for layer in found if layer]

    # Items of a list; stack text is a list of one.

    def _item(self, index: int) -> Iterator[_Run]:
        item = (self.document.envelope.stack.items or [])[index]
        path: Path = ("stack", index)
        if item.text is not None:
            yield from self._text(item.text, path)
            return
        repeat = resolve(item.repeat, self.names, self.document, (*path, "repeat"), self.problems)
        if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 1:
            self._fault("AX131", f"`repeat` must be a positive integer, this is {repeat!r:.80}", (*path, "repeat"))
        assert item.block is not None
        block_path = (*path, "block")
        name = self._name(item.block, self.names, block_path)
        term = f"{name or 'block'}*{repeat}"
        yield _Run(term, repeat, ((name, self.document.place(*block_path), item.block, block_path),))

    def _text(self, text: str, path: Path) -> Iterator[_Run]:
        span = self.document.place(*path)
        if is_formula(text):
            text = resolve(text, self.names, self.document, path, self.problems)
            text = " ".join(map(str, text)) if isinstance(text, list) else str(text)
            quoted = None
        else:
            quoted = span
        try:
            stack = parse_stack(text)
        except StackError as error:
            where = within(span, error.start, error.end, len(text)) if quoted else span
            self.problems.error("AX130", error.message, where, help=error.help)
            raise _Faulty from None
        total = stack.count()
        if total > MAX_LAYERS:
            yield _Run(text if len(text) < 60 else "stack text", total, ())
            return
        for term, count in stack.terms():
            yield _Run(term, count, ())
        names = (
            (name, within(span, start, end, len(text)) if quoted else span, None, path)
            for name, (start, end) in stack.expand(MAX_LAYERS)
        )
        yield _Run("", 1, names)  # expanded when all counts are known to be right

    # Stacks made by formulas of `i`.

    def _generated(self) -> list[StackLayer] | None:
        generated = self.document.envelope.stack.generated
        assert generated is not None
        count = resolve(generated.layers, self.names, self.document, ("stack", "layers"), self.problems)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            self._fault("AX131", f"`layers` must be a positive integer, this is {count!r:.80}", ("stack", "layers"))
        if not self._counts_are_right([_Run("stack", count, ())]):
            return None
        path: Path = ("stack", "block")
        layers: list[StackLayer] = []
        unresolved = False
        for index in range(count):
            try:
                name = self._name(generated.block, {**self.names, "i": index}, path)
            except Unresolved:
                unresolved = True  # what is wrong in other layers is reported too
                continue
            layer = self._layer(name, self.document.place(*path), generated.block, path)
            if layer is None:
                return None
            layers.append(layer)
        return None if unresolved else layers

    def _name(self, block: InlineBlock, names: dict[str, Any], path: Path) -> str | None:
        if block.name is None:
            return None
        name = resolve(block.name, names, self.document, path, self.problems)
        if not isinstance(name, str):
            self._fault("AX132", f"the formula gives {name!r:.80}, not the name of a block", path)
        return str(name)

    def _layer(self, name: str | None, span: Span, inline: InlineBlock | None, path: Path) -> StackLayer | None:
        if name is None:
            assert inline is not None
            return StackLayer("=", tuple(inline.branches or ()), None, path)
        block = self.blocks.get(name)
        if block is not None:
            return StackLayer(name, tuple(block.branches), block.share, ("blocks", name, "branches"))
        if name not in self.broken_blocks and ("blocks",) not in self.document.broken and name not in self.reported:
            self.reported.add(name)
            near = self.problems.nearest(name, self.blocks)
            hint = f"did you mean `{near}`?" if near else f"blocks are {', '.join(self.blocks) or 'missing'}"
            if name in self.document.envelope.components:
                hint = f"`{name}` is a component; give it a block: `blocks: {{{name}: [{name}]}}`"
            self.problems.error("AX132", f"the stack names a block `{name}` that does not exist", span, help=hint)
        return None

    def _with_share(self, layer: StackLayer, index: int) -> StackLayer:
        """The layer with the name of its weights, which a formula may give: a text, a number, or null for its own."""
        if not is_formula(layer.share):
            return layer
        path = (*layer.path[:-1], "share")
        value = resolve(layer.share, {**self.names, "i": index}, self.document, path, self.problems)
        name = f"weights_{value}" if isinstance(value, int) and not isinstance(value, bool) else value
        if name is not None and not (isinstance(name, str) and re.fullmatch(NAME, name)):
            self._fault("AX102", f"`share` must be a name, a number or null, this is {value!r:.80}", path)
        return replace(layer, share=name)

    # Counts.

    def _counts_are_right(self, runs: list[_Run]) -> bool:
        """Compare the number of layers with the limit and with `layers:`, before anything is expanded."""
        terms = [(run.term, run.count) for run in runs if run.term]
        total = sum(count for _, count in terms)
        each = ", ".join(f"`{term}` gives {count:,}" for term, count in terms[:20])
        if total > MAX_LAYERS:
            self.problems.error(
                "AX135",
                f"the stack has {total:,} layers, the limit is {MAX_LAYERS:,}",
                self.document.place("stack"),
                help=each,
            )
            return False
        expected = resolve(self.document.envelope.layers, self.names, self.document, ("layers",), self.problems)
        if expected is not None and total != expected:
            self.problems.error(
                "AX133",
                f"the stack has {total} layers, `layers` says {expected}",
                self.document.place("layers"),
                help=each,
            )
            return False
        return True

    def _of_a_size_to_plan(self, layers: list[StackLayer] | None) -> list[StackLayer] | None:
        uses = [(sum(len(branch.parallel or "1") for branch in layer.branches), layer) for layer in layers or ()]
        total = sum(count for count, _ in uses)
        if total > MAX_USES:
            most, layer = max(uses, key=lambda use: use[0])
            self._fault(
                "AX135",
                f"the layers have {total:,} components, the limit is {MAX_USES:,}",
                layer.path,
                f"`{layer.block}` has {most:,}",
            )
        return layers

    def _fault(self, code: str, message: str, path: Path, hint: str | None = None) -> NoReturn:
        self.problems.error(code, message, self.document.place(*path), help=hint)
        raise _Faulty


class _Faulty(Exception):
    """The stack cannot be expanded; the fault is already reported."""
