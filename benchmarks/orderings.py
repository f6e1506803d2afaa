"""Run the races of benchmarks/orderings.yaml, and keep what came out in benchmarks/orderings.json.

    python benchmarks/orderings.py             # all that are not there yet
    python benchmarks/orderings.py 0 3         # these, anew

Then `python docs/refresh.py docs/orderings.md` writes the page. A race that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final

import yaml

from axon_compose.learn.race import RaceResult, race

HERE: Final = Path(__file__).resolve().parent
RESULTS: Final = HERE / "orderings.json"
#: Runs of each model unless a claim says otherwise, the grid that all try, and the sequences of a step.
TERMS: Final = {"seeds": 3, "rates": (3e-3, 1e-2), "batch": 32, "points": 6}


def claims() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the models have in common, and the claims."""
    data = yaml.safe_load((HERE / "orderings.yaml").read_text("utf-8"))
    return data["common"], data["claims"]


def models(common: dict[str, Any], claim: dict[str, Any]) -> list[dict[str, Any]]:
    """The descriptions of a claim, each with the parts that its stack names."""
    found = []
    for name, stack in claim["models"].items():
        words = {word.split("*")[0] for word in stack.split()}
        blocks = {key: value for key, value in common["blocks"].items() if key in words}
        used = {part for branches in blocks.values() for part in branches}
        components = {key: value for key, value in common["components"].items() if key in used}
        found.append(
            {
                "version": 1,
                "name": name,
                "dims": common["dims"],
                "components": components,
                "blocks": blocks,
                "stack": stack,
            }
        )
    return found


def run(common: dict[str, Any], claim: dict[str, Any], folder: Path) -> RaceResult:
    """The race of a claim."""
    more = {key: claim[key] for key in ("task", "data", "length", "match") if key in claim}
    seeds = {"seeds": claim["seeds"]} if "seeds" in claim else {}
    return race(models(common, claim), budget=claim["budget"], folder=folder, **more, **(TERMS | seeds))


def main(wanted: list[int]) -> None:
    """Run what is wanted, and write each result as soon as it is known."""
    common, every = claims()
    for index, claim in enumerate(every):
        known = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
        if (claim["title"] in known and index not in wanted) or (wanted and index not in wanted):
            continue
        print(claim["title"], flush=True)
        found = run(common, claim, Path(gettempdir()) / "axon-orderings" / str(index))
        print(found, flush=True)
        if not found.finished:
            return
        known = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
        data = found.to_dict()
        for one in (*data["runs"], *data["sweeps"]):  # the page shows where they ended
            one["points"] = one["points"][-1:]
        known[claim["title"]] = data
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
