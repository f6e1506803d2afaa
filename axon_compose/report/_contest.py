"""A contest of implementations for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_compose.machine.units import human
from axon_compose.report._cells import escape
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.proof.bench import Contest, Line

__all__ = ["contest_rows", "contest_text"]


def contest_text(found: Contest, style: Style = PLAIN) -> str:
    """A line for each figure, and what the figures are of."""
    settings = found.settings
    peers = len(found.subjects) > 1
    rounds = max(line.workload.rounds for line in found.lines)
    head = f"{found.name} in {settings['dtype']} on the {settings['device'].upper()}"
    lines = table(contest_rows(found), "<<" + ">" * (2 * len(found.subjects) - 1), style=style, keys=2)
    weights = "the same random weights" if peers else "random weights"
    taken = f"median of {rounds} rounds and the farthest from it" if rounds > 1 else "one run"
    notes = [f"{weights}; {taken}, tokens a second; peak of arrays, weights included"]
    if peers:
        notes.append("ratios: above 1, axon-compose is faster or takes less")
    if "transformers" in found.subjects and settings["device"] == "cpu":
        notes.append(
            "memory of transformers: weights, those in mapped files too, and what its process took beyond them"
        )
    notes += [f"not measured: {escape(name)}: {escape(fault)}" for name, fault in _faults(found).items()]
    if settings.get("blas") == "reference":
        notes.append("this BLAS is slow, whoever uses it: `axon-compose doctor` says what to install")
    return "\n\n".join((style.bold(escape(head)), "\n".join(lines), "\n".join(f"  {note}" for note in notes))) + "\n"


def contest_rows(found: Contest) -> list[list[str]]:
    """The cells, the head first."""
    ours, *peers = found.subjects
    head = ["", "", ours, *(cell for peer in peers for cell in (peer, "ratio"))]
    return [head, *(_row(line, len(found.subjects)) for line in found.lines)]


def _row(line: Line, subjects: int) -> list[str]:
    cells = [line.kind, _what(line), _figure(line, 0)]
    for at in range(1, subjects):
        ratio = line.ratio(at)
        cells += [_figure(line, at), "" if ratio is None else f"{ratio:.2f}x"]
    return cells


def _what(line: Line) -> str:
    work = line.workload
    sequences = f"{work.batch:,} sequence{'s' if work.batch > 1 else ''}"
    if line.kind == "decode":
        return sequences
    tokens = f"{work.prompt:,} tokens" if work.batch == 1 else f"{sequences} of {work.prompt:,} tokens"
    if line.kind == "memory":
        return f"{'training' if work.training else 'prefill'}, {tokens}"
    return tokens


def _figure(line: Line, at: int) -> str:
    if line.kind == "memory":
        size = line.measurements[at].peak_bytes
        return "-" if size is None else human(size)
    spread = line.spread(at)
    return "-" if spread is None else f"{_speed(spread.median)} ±{spread.variation:.0%}"


def _speed(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:,.3g}"


def _faults(found: Contest) -> dict[str, str]:
    """Why subjects have no figures, each reason once."""
    return {one.name: one.fault for line in found.lines for one in line.measurements if one.fault}
