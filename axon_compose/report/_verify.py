"""A comparison with other implementations for the terminal: one line for each, and where they part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from axon_compose.plan import layer_numbers
from axon_compose.report._cells import escape, shorten
from axon_compose.report._style import Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.proof.verify import PeerReport, Verification

__all__ = ["verify_text"]

_ROLES: Final = {"ok": "good", "known fault": "warning", "FAIL": "error", "error": "warning", "not installed": "dim"}
_WIDTH: Final = 100
#: Lines about layers after the first that differs, before the rest is left out.
_SHOWN: Final = 8


def verify_text(found: Verification, style: Style) -> str:
    """The report as text: a line for each implementation, then what explains a difference, or where it begins."""
    head = f"{escape(found.folder)}: {found.family}, {len(found.layers)} layers in float32"
    conditions = f"{found.tokens} random tokens, seed {found.seed}; differences relative to the largest logit"
    conditions += f", up to {found.tolerance:.0e} is rounding"
    rows = [["", "compared with", "forward", "cached", "same token"], *map(_row, found.peers)]
    lines = table(rows, "<<>>>")
    painted = [style.dim(lines[0])]
    for line, peer in zip(lines[1:], found.peers, strict=True):
        painted.append(line.replace(peer.status, style.paint(peer.status, _ROLES[peer.status]), 1))
    parts = [part for peer in found.peers for part in _remarks(peer, style)]
    parts += _layers(found, style)
    return "\n".join([style.bold(head), conditions, "", *painted, *parts, "", _verdict(found)]) + "\n"


def _row(peer: PeerReport) -> list[str]:
    same = "-" if peer.same is None else f"{peer.same:.0%}"
    return [peer.status, f"{peer.name} {peer.version}".strip(), _number(peer.forward), _number(peer.cached), same]


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def _remarks(peer: PeerReport, style: Style) -> Iterator[str]:
    """What was raised, and the known faults."""
    if peer.error:
        yield ""
        yield style.bold(f"{peer.name} cannot run it")
        yield from wrap(shorten(escape(peer.error), 3 * _WIDTH), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    if not peer.faults:
        return
    yield ""
    owner = peer.faults[0].owner or peer.name
    many = "s" if len(peer.faults) > 1 else ""
    left = "" if peer.left is None else f"; without {'them' if many else 'it'} {_number(peer.left)}"
    yield style.bold(f"known fault{many} of {owner}{left}")
    width = max(len(fault.name) for fault in peer.faults)
    for fault in peer.faults:
        blank = " " * (width + 4)
        yield from wrap(fault.what, _WIDTH, initial_indent=f"  {fault.name:{width}}  ", subsequent_indent=blank)
        for line in wrap(f"right: {fault.right}", _WIDTH - len(blank)):
            yield blank + style.dim(line)


def _layers(found: Verification, style: Style) -> Iterator[str]:
    """The differences after each layer where an implementation disagrees, layers that agree in one line."""
    failed = [peer for peer in found.peers if peer.status == "FAIL"]
    for peer in failed:
        if peer.layers is None:
            yield from ("", f"{peer.name} has other layers, so that they cannot be compared one by one")
    for peer in failed:
        if peer.layers is None:
            continue
        first = peer.layers.first(found.tolerance)
        place = "after the last layer" if first is None else _place(first, found.layers)
        yield ""
        yield style.bold(f"it first differs from {peer.name} {place}")
        lines = table([["after", "components", "difference"], *_rows(found, peer)], "<<>")
        yield style.dim(lines[0])
        yield from lines[1:]


def _place(first: int, layers: Sequence[str]) -> str:
    return "before the first layer" if first < 0 else f"in layer {first} ({layers[first]})"


def _rows(found: Verification, peer: PeerReport) -> Iterator[list[str]]:
    gaps = peer.layers
    assert gaps is not None
    yield ["embedding", "", _number(gaps.embedding)]
    first = gaps.first(found.tolerance)
    start = len(gaps.layers) if first is None else max(first, 0)
    if start:
        yield [layer_numbers(range(start)), "", f"≤ {_number(max(gaps.layers[:start]))}"]
    stop = min(start + _SHOWN, len(gaps.layers))
    for at in range(start, stop):
        yield [f"layer {at}", found.layers[at], _number(gaps.layers[at])]
    if stop < len(gaps.layers) - 1:
        yield ["…", "", ""]
    if stop < len(gaps.layers):
        yield [f"layer {len(gaps.layers) - 1}", found.layers[-1], _number(gaps.layers[-1])]
    yield ["head", "", _number(peer.forward if peer.left is None else peer.left)]


def _verdict(found: Verification) -> str:
    failed = [peer.name for peer in found.peers if peer.status == "FAIL"]
    if failed:
        return f"{' and '.join(failed)} differ{'s' if len(failed) == 1 else ''}, and no known fault explains it"
    compared = [peer.name for peer in found.peers if peer.compared]
    return f"the same as {' and '.join(compared)}" + _known(found) if compared else "nothing could be compared"


def _known(found: Verification) -> str:
    return ", but for known faults" if any(peer.compared and peer.faults for peer in found.peers) else ""
