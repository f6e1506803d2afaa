"""The receipt of an edit for the terminal and for notebooks: predictions, layers, and places in a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

from axon_compose.plan import layer_ranges
from axon_compose.report._cells import escape
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.surgery import Receipt
    from axon_compose.surgery._records import LayerGap

__all__ = [
    "figures",
    "layer_rows",
    "receipt_headline",
    "receipt_html",
    "receipt_notes",
    "receipt_text",
    "small",
    "stretch_rows",
]


def receipt_text(receipt: Receipt, style: Style = PLAIN) -> str:
    """The figures, a line for each layer, and one for each stretch of a sequence."""
    names = figures(receipt)
    width = max(len(name) for name, _ in names)
    parts = [
        [style.bold(escape(receipt_headline(receipt)))],
        [f"  {name:{width}}  {said}" for name, said in names],
    ]
    if receipt.layers:
        rows = [[escape(cell) for cell in row] for row in layer_rows(receipt)]
        parts.append(table(rows, "<<<<>", style=style))
    if not receipt.exact:
        parts.append(table(stretch_rows(receipt), "<>", style=style))
    parts.append([f"  {escape(line)}" for line in receipt_notes(receipt)])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def receipt_html(receipt: Receipt) -> str:
    """The same as tables."""
    tables = [html_table([["", ""], *map(list, figures(receipt))], "<<")]
    if receipt.layers:
        tables.append(html_table(layer_rows(receipt), "<<<<>"))
    if not receipt.exact:
        tables.append(html_table(stretch_rows(receipt), "<>"))
    return bold(receipt_headline(receipt)) + "".join(tables) + "".join(map(paragraph, receipt_notes(receipt)))


def receipt_headline(receipt: Receipt) -> str:
    """Which models, on how much of what."""
    return f"{receipt.edited} against {receipt.source}, {receipt.tokens:,} tokens of {receipt.text}"


def figures(receipt: Receipt) -> list[tuple[str, str]]:
    """Names and values, of the predictions."""
    divergence = "0, to the bit"
    if not receipt.exact:
        sequence, token = receipt.most_at
        most = f"at most {small(receipt.most)} (sequence {sequence}, token {token})"
        divergence = f"{small(receipt.divergence)} nats a token, {most}"
    return [
        ("KL divergence", divergence),
        ("same first choice", f"{receipt.agreement:.2%} of tokens"),
        ("perplexity", f"{receipt.perplexity:,.4g}; the source {receipt.source_perplexity:,.4g}"),
    ]


def layer_rows(receipt: Receipt) -> list[list[str]]:
    """The cells, the head first; layers in front that are equal are one row."""

    def same(each: LayerGap) -> bool:
        return each.gap is not None and each.gap <= receipt.rounding and not each.changed

    rows = [["layer", "from", "", "components", "difference"]]
    equal = list(takewhile(same, receipt.layers))
    if len(equal) > 1:
        origins = layer_ranges(each.origin for each in equal if each.origin is not None)
        most = max(each.gap or 0.0 for each in equal)
        rows.append([layer_ranges(each.index for each in equal), origins, "", "", ("≤ " if most else "") + small(most)])
    for each in receipt.layers[len(equal) if len(equal) > 1 else 0 :]:
        origin = "new" if each.origin is None else str(each.origin)
        changed = "changed" if each.changed and each.origin is not None else ""
        rows.append([str(each.index), origin, changed, each.components, small(each.gap)])
    return rows


def stretch_rows(receipt: Receipt) -> list[list[str]]:
    """The mean divergence by place in a sequence, the head first."""
    rows = [["token of a sequence", "KL divergence"]]
    for each in receipt.stretches:
        place = str(each.first) if each.first == each.last else f"{each.first}..{each.last}"
        rows.append([place, small(each.divergence)])
    return rows


def small(value: float | None) -> str:
    """A difference: 0 only where it is 0."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.4f}" if 0.001 <= value < 100 else f"{value:.1e}"


def receipt_notes(receipt: Receipt) -> Iterator[str]:
    """What a reader has to know of the figures."""
    if not receipt.layers:
        yield "the layers are not compared: it is not known which of them belong together"
    elif receipt.parted is None:
        yield "no layer gives anything else, but for roundings"
    else:
        layer = next(each for each in receipt.layers if each.index == receipt.parted)
        yield f"they first part in layer {layer.index} ({layer.components})"
    many = f"{receipt.sequences} sequences" if receipt.sequences > 1 else "one sequence"
    yield f"{many} of {receipt.length:,} tokens, computed in {receipt.dtype}"
    if receipt.layers:
        yield (
            "difference: of the hidden states after a layer, relative to the source's, mean over tokens; up to "
            f"{receipt.rounding:g} is rounding"
        )
