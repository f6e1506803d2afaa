"""The plan of an edit for the terminal: a tree of what each part is made from, sums, and the cost before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from axon_compose.machine.units import count, human, operations
from axon_compose.report._cells import escape
from axon_compose.report._html import bold, html_table
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.analysis.cost import CostSheet
    from axon_compose.surgery import SurgeryPlan
    from axon_compose.surgery._fold import ComponentFold, TensorFold

__all__ = ["surgery_html", "surgery_text"]

_ROLES = {"same": "good", "exact": "good", "near": "note", "random": "warning"}


def surgery_text(plan: SurgeryPlan, style: Style = PLAIN) -> str:
    """The tree, the sums, and what the model costs before and after."""
    from axon_compose.analysis.cost import cost

    lines = [style.bold(escape(_headline(plan))), *_tree(plan, style), "", *_sums(plan, style), ""]
    lines += _costs(cost(plan.source.plan()), cost(plan.edited.plan()), style)
    return "\n".join(lines) + "\n"


def surgery_html(plan: SurgeryPlan) -> str:
    """The same as three tables."""
    from axon_compose.analysis.cost import cost

    tables = (
        (_parts(plan), "<<<<"),
        (_sum_rows(plan), "<>>>"),
        (_cost_rows(cost(plan.source.plan()), cost(plan.edited.plan())), "<>>"),
    )
    return "".join([bold(_headline(plan)), *(html_table(rows, align) for rows, align in tables)])


def _headline(plan: SurgeryPlan) -> str:
    before, after = len(plan.source.plan().layers), len(plan.edited.plan().layers)
    return f"{plan.edited.name}: " + (f"{after} layers" if before == after else f"{before} → {after} layers")


def _parts(plan: SurgeryPlan) -> list[list[str]]:
    """A row for each component that is not what it was, and one for each part that is."""
    from axon_compose.surgery._fold import folded

    rows = [["part", "component", "begins with", "options, tensors"]]
    for part in folded(plan):
        place = f"{part.title} {part.origins}".rstrip()
        if not part.components:
            rows.append([place, "", "kept", ""])
        for each in part.components:
            if each.init != "kept" or each.options:
                said = [*each.options, *(": ".join((cells[0], cells[2])) for cells in map(_row, each.tensors))]
                rows.append([place, each.name, each.init, "; ".join(said)])
    return rows


def _tree(plan: SurgeryPlan, style: Style) -> Iterator[str]:
    from axon_compose.surgery._fold import folded

    for part in folded(plan):
        origins = f"  {part.origins}" if part.origins else ""
        if not part.components:
            yield f"{part.title}{style.dim(origins)}  {style.paint('kept', 'good')}"
            continue
        yield f"{part.title}{style.dim(origins)}"
        for component in part.components:
            yield from _component(component, style)


def _component(part: ComponentFold, style: Style) -> Iterator[str]:
    options = f"  {escape(', '.join(part.options))}" if part.options else ""
    how = style.paint("kept", "good") if part.init == "kept" else part.init
    named = part.name if part.init == "kept" or part.name == part.type else f"{part.name} ({part.type})"
    yield f"  {escape(named)}  {how}{options}"
    if part.tensors:
        rows = [[escape(cell) for cell in _row(tensor)] for tensor in part.tensors]
        lines = table(rows, "<<<", 4, style=Style(False, style.columns), heads=0)
        for line, word in zip(lines, (tensor.exactness for tensor in part.tensors), strict=True):
            yield line.replace(f"  {word}  ", f"  {style.paint(word, _ROLES[word])}  ", 1)


def _row(tensor: TensorFold) -> list[str]:
    names = ", ".join(tensor.names)
    sources = f", from {', '.join(tensor.sources)}" if tensor.sources else ""
    return [names, tensor.exactness, f"{tensor.rule}{sources}"]


def _sums(plan: SurgeryPlan, style: Style) -> list[str]:
    return table(_sum_rows(plan), "<>>>", 0, style=style)


def _sum_rows(plan: SurgeryPlan) -> list[list[str]]:
    rows = [["tensors", "number", "parameters", "bytes"]]
    for name, share in plan.totals().items():
        rows.append([name, f"{share.tensors:,}", f"{share.parameters:,}", human(share.nbytes)])
    return rows


def _costs(before: CostSheet, after: CostSheet, style: Style) -> list[str]:
    return table(_cost_rows(before, after), "<>>", 0, style=style)


def _cost_rows(before: CostSheet, after: CostSheet) -> list[list[str]]:
    rows = [["cost", "before", "after"]]
    rows.append(["parameters", count(before.parameters), count(after.parameters)])
    if before.active_parameters != before.parameters or after.active_parameters != after.parameters:
        rows.append(["active per token", count(before.active_parameters), count(after.active_parameters)])
    rows.append([f"weights in {before.stored}", human(before.weight_bytes), human(after.weight_bytes)])
    for one, other in zip(before.contexts, after.contexts, strict=True):
        rows.append([f"cache at {one.tokens:,} tokens", human(one.cache_bytes), human(other.cache_bytes)])
    for one, other in zip(before.contexts, after.contexts, strict=True):
        flops = [f"{operations(each.decode_flops)}FLOPs" for each in (one, other)]
        rows.append([f"a token after {one.tokens:,}", *flops])
    return rows
