"""The page of orderings: what the literature reports, and what the races of benchmarks/orderings.yaml gave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import yaml

from axon_compose.learn.race import RaceResult, Verdict
from axon_compose.report._race import score

__all__ = ["came_out", "page"]

ROOT: Final = Path(__file__).resolve().parent.parent

_INTRODUCTION: Final = """\
# Known orderings

<!-- Written by `python docs/refresh.py docs/orderings.md` from benchmarks/orderings.json; do not edit. -->

A tool that compares small models should find what is known to be so. Each section is an ordering that the literature
reports, as a [race](race.md) of models with a hidden size of 32: learning rates {rates} tried by all,
batches of {batch} sequences. *Significant* means that the interval of the paired differences leaves out 0.
`python benchmarks/orderings.py` runs them on a CPU, in minutes each; the models are in `benchmarks/orderings.yaml`.

| ordering | came out |
|---|---|
"""


def page() -> str:
    """The whole page."""
    claims = yaml.safe_load((ROOT / "benchmarks" / "orderings.yaml").read_text("utf-8"))["claims"]
    known = json.loads((ROOT / "benchmarks" / "orderings.json").read_text("utf-8"))
    shown = [(claim, RaceResult.from_dict(known[claim["title"]])) for claim in claims if claim["title"] in known]
    terms = shown[0][1].settings
    rates = " and ".join(f"{rate:g}" for rate in terms.rates)
    head = _INTRODUCTION.format(rates=rates, batch=terms.batch)
    rows = "".join(f"| {claim['title']} | {came_out(claim, result)[0]} |\n" for claim, result in shown)
    return head + rows + "".join("".join(_section(claim, result)) for claim, result in shown)


def came_out(claim: dict[str, Any], result: RaceResult) -> tuple[str, list[str]]:
    """`yes`, `no` or `in part`, and a sentence for each thing that was expected."""
    good, lines = [], []
    for ahead, behind in claim.get("expect", ()):
        verdict = result.compared(ahead, behind)
        good.append(verdict.significant and verdict.ahead == ahead)
        lines.append(f"{verdict.ahead} is better than {verdict.behind}, by {_gap(result, verdict)}: {_word(verdict)}.")
    for one, other in claim.get("alike", ()):
        verdict = result.compared(one, other)
        good.append(not verdict.significant)
        lines.append(f"The difference between {one} and {other} is {_word(verdict)}: {_gap(result, verdict)}.")
    if least := claim.get("least"):
        verdicts = [result.compared(least, each.name) for each in result.entrants if each.name != least]
        good += [verdict.ahead == least for verdict in verdicts]
        lines += [
            f"{verdict.ahead} is lower than {verdict.behind}, by {_gap(result, verdict)}: {_word(verdict)}."
            for verdict in verdicts
        ]
    return "yes" if all(good) else "in part" if any(good) else "no", lines


def _word(verdict: Verdict) -> str:
    return "significant" if verdict.significant else "not significant"


def _gap(result: RaceResult, verdict: Verdict) -> str:
    unit, factor = (" points", 100) if result.metric == "accuracy" else ("", 1)
    mean, low, high = (f"{factor * each:.{1 if unit else 3}f}" for each in (verdict.mean, verdict.low, verdict.high))
    return f"{mean}{unit} ({low} to {high})"


def _section(claim: dict[str, Any], result: RaceResult) -> Iterator[str]:
    unit = "accuracy" if result.metric == "accuracy" else "bits a byte"
    blind = "" if result.chance is None else f"; a blind answer gets {result.chance:.1%}"
    terms = f"{result.settings.budget}, {result.settings.seeds} seeds"
    yield f"\n## {claim['title']}\n\n{claim['source']}. `{result.material}`, {terms}{blind}.\n\n"
    yield f"| model | stack | {unit} | lowest and highest | rate | parameters | caches |\n"
    yield "|---|---|---:|---:|---:|---:|---:|\n"
    entrants = {each.name: each for each in result.entrants}
    for each in result.standings():
        entrant, ends = entrants[each.name], [score(result, value) for value in each.spread or ()]
        middle = "-" if each.median is None else score(result, each.median)
        yield f"| {each.name} | `{claim['models'][each.name]}` | {middle} | {' to '.join(ends)} "
        yield f"| {each.rate:g} | {entrant.parameters:,} | {entrant.state_bytes:,} B |\n"
    words = " ".join([*came_out(claim, result)[1], claim.get("note", "")]).strip()
    yield "\n" + "\n".join(wrap(words, 118, break_on_hyphens=False)) + "\n"
