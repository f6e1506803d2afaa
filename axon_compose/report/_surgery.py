"""The plan of an edit for the terminal: a tree of what each part is made from, sums, and the cost before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from axon_compose.machine.units import count, human, operations
from axon_compose.report._cells import escape
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.analysis.cost import CostSheet
    from axon_compose.surgery import SurgeryPlan
    from axon_compose.surgery._fold import ComponentFold, TensorFold

__all__ = ["surgery_text"]

_ROLES = {"same": "good", "exact": "good", "near": "note", "random": "warning"}


def surgery_text(plan: SurgeryPlan, style: Style = PLAIN) -> str:
    """The tree, the sums, and what the model costs before and after."""
    from axon_compose.analysis.cost import cost

    before, after = len(plan.source.plan().layers), len(plan.edited.plan().layers)
    layers = f"{after} layers" if before == after else f"{before} → {after} layers"
    lines = [style.bold(escape(f"{plan.edited.name}: {layers}")), *_tree(plan, style), "", *_sums(plan, style), ""]
    lines += _costs(cost(plan.source.plan()), cost(plan.edited.plan()), style)
    return "\n".join(lines) + "\n"


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
    rows = [["tensors", "number", "parameters", "bytes"]]
    for name, share in plan.totals().items():
        rows.append([name, f"{share.tensors:,}", f"{share.parameters:,}", human(share.nbytes)])
    return table(rows, "<>>>", 0, style=style)


def _costs(before: CostSheet, after: CostSheet, style: Style) -> list[str]:
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
    return table(rows, "<>>", 0, style=style)
