"""A race for the terminal and for notebooks: standings, verdicts and terms."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf
from typing import TYPE_CHECKING

from axon_compose.machine.units import count, human, operations, rate
from axon_compose.report._cells import escape
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.learn.race import RaceResult, Standing, Verdict

__all__ = ["ALIGNMENT", "race_headline", "race_html", "race_notes", "race_rows", "race_text", "race_verdicts"]

#: Of the columns of `race_rows`.
ALIGNMENT = "<" + ">" * 7


def race_text(race: RaceResult, style: Style = PLAIN) -> str:
    """One line for each model, the verdicts, and the terms."""
    lines = table([list(map(escape, row)) for row in race_rows(race)], ALIGNMENT, style=style)
    parts = [[style.bold(escape(race_headline(race)))], lines]
    parts += [[f"  {escape(line)}" for line in found] for found in (race_verdicts(race), race_notes(race)) if found]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def race_html(race: RaceResult) -> str:
    """The same as a table."""
    below = "".join(map(paragraph, (*race_verdicts(race), *race_notes(race))))
    return bold(race_headline(race)) + html_table(race_rows(race), ALIGNMENT) + below


def race_headline(race: RaceResult) -> str:
    """What was learned, by how many models, for how long."""
    many, seeds = len(race.entrants), race.settings.seeds
    unit = "accuracy" if race.metric == "accuracy" else "bits a byte" if race.bits else "loss"
    text = f"{race.material}: {unit} of {many} model{'s' if many > 1 else ''} after {race.settings.budget}"
    return f"{text}, {seeds} seed{'s' if seeds > 1 else ''}" + ("" if race.finished else ", not finished")


def race_rows(race: RaceResult) -> list[list[str]]:
    """The cells, the head first; the best model comes first."""
    unit = "bits/byte" if race.bits else race.metric
    head = ["model", unit, "lowest and highest", "rate", "parameters", "FLOPs/token", "caches", "tokens/s"]
    return [head, *(_row(race, standing) for standing in race.standings())]


def _row(race: RaceResult, standing: Standing) -> list[str]:
    entrant = next(each for each in race.entrants if each.name == standing.name)
    spread = standing.spread
    return [
        standing.name,
        "-" if standing.median is None else score(race, standing.median),
        "-" if spread is None else f"{score(race, spread[0])} to {score(race, spread[1])}",
        "-" if standing.rate is None else f"{standing.rate:g}",
        count(entrant.parameters),
        operations(entrant.flops),
        human(entrant.state_bytes),
        "-" if standing.tokens_per_second is None else rate(standing.tokens_per_second),
    ]


def score(race: RaceResult, value: float) -> str:
    """A score as it is printed: a percentage, or a loss."""
    return f"{value:.1%}" if race.metric == "accuracy" else f"{value:.3f}"


def race_verdicts(race: RaceResult) -> list[str]:
    """The best model against each other one."""
    return [_verdict(race, verdict) for verdict in race.verdicts()]


def _verdict(race: RaceResult, verdict: Verdict) -> str:
    if not verdict.significant:
        text = f"no difference can be told between {verdict.ahead} and {verdict.behind}"
        if isinf(verdict.low):
            return f"{text}: fewer than two seeds have ended"
        return f"{text}: {_gap(race, verdict.mean)}; the interval from {_range(race, verdict)} includes 0"
    word = "lower" if race.metric == "loss" else "higher"
    return (
        f"{verdict.ahead} is {word} than {verdict.behind} by {_gap(race, verdict.mean)}, from {_range(race, verdict)}"
    )


def _range(race: RaceResult, verdict: Verdict) -> str:
    return f"{_gap(race, verdict.low)} to {_gap(race, verdict.high)}"


def _gap(race: RaceResult, value: float) -> str:
    return f"{100 * value:.1f} points" if race.metric == "accuracy" else f"{value:.3f}"


def race_notes(race: RaceResult) -> list[str]:
    """The terms, and what a reader has to know of them."""
    return list(_notes(race))


def _notes(race: RaceResult) -> Iterator[str]:
    terms = race.settings
    if race.chance is not None:
        yield f"accuracy over {race.scored:,} held-out targets; a blind answer gets {race.chance:.1%}"
    yield (
        f"batches of {terms.batch:,} sequences of {race.length:,} tokens, the same in the same order for all; "
        "one step of each at a time"
    )
    if len(terms.rates) > 1:
        rates = ", ".join(f"{each:g}" for each in terms.rates)
        yield f"learning rates {rates} were tried by all, each with a run of its own; the lowest loss decided"
        edge = [each.name for each in race.standings() if each.edge]
        if edge:
            yield f"at the end of that grid, where a better one may lie beyond: {', '.join(edge)}"
    else:
        yield f"learning rate {terms.rates[0]:g} for all"
    if len(race.entrants) > 1:
        yield "intervals: of the mean over paired seeds, by Student's t, right in 95 % of races"
    yield "caches: after one sequence, in bfloat16; tokens/s of training, while other runs take their turns"
    yield from _matched(race)
    for run in (*race.runs, *race.sweeps):
        if run.fault:
            which = f"seed {run.seed}" if run in race.runs else "in the grid"
            yield f"{run.model}, {which}, rate {run.rate:g} ended early and does not count: {run.fault}"


def _matched(race: RaceResult) -> Iterator[str]:
    terms = race.settings
    if terms.match is None:
        return
    what = {"params": "parameters", "flops": "FLOPs", "state": "caches"}[terms.match]
    for entrant in race.entrants[1:]:
        dims = ", ".join(f"{name} {value:,}" for name, value in entrant.dims.items()) or "as it is"
        near = "within 1 %" if abs(entrant.off) <= 0.01 else f"{entrant.off:+.1%}, as near as its widths come"
        yield f"{what} of {entrant.name} as {race.entrants[0].name}: {near} ({dims})"
