"""A hybrid, attention alone and a state space alone learn to write from the texts of Python, step by step in turns.

    python benchmarks/words.py                  # 600 steps of each: six minutes of the processor for each
    python benchmarks/words.py --steps 100      # less

All have the parameters of the hybrid (`benchmarks/learn/words.yaml`, 3.4M) within 1 %, and see the same tokens in the
same order. It prints a table and what each writes, and draws docs/pictures/words.svg. Seconds are those of the
processor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Any, Final

import yaml

from axon_compose import Architecture, load
from axon_compose.learn import Budget, Recipe, Trainer
from axon_compose.learn.data import Prepared, Sources, TextBatches, prepare
from axon_compose.learn.race._match import figure, matched
from axon_compose.learn.sampling import sample
from axon_compose.machine.units import count
from axon_compose.model import build
from axon_compose.plan import total_parameters
from axon_compose.report.draw._chart import CYCLE, Axis, Line, Lines, brief
from axon_compose.report.draw._html import picture_alone

HERE: Final = Path(__file__).resolve().parent
PICTURE: Final = HERE.parent / "docs" / "pictures" / "words.svg"
STACKS: Final = {"hybrid": "s s a s s a", "attention": "a*6", "state space": "s*6"}
RECIPE: Final = Recipe(batch=8, length=128, learning_rate=4e-3)
PROMPT: Final = "The return value of"
WIDE, TALL = 720.0, 320.0


@dataclass
class Pupil:
    """A model that learns, and what is known of it."""

    name: str
    parameters: int
    trainer: Trainer
    seconds: float = 0.0
    points: list[tuple[float, float]] = field(default_factory=list)

    def step(self) -> None:
        began = time.process_time()
        self.trainer.step()
        self.seconds += time.process_time() - began

    def evaluate(self, prepared: Prepared) -> None:
        bits = self.trainer.evaluate()["loss"] / log(2) / prepared.bytes_per_token
        self.points.append((float(self.trainer.spent.tokens), bits))

    def writes(self, prepared: Prepared) -> str:
        (prompt,) = prepared.maker.encode([PROMPT])
        tokens = sample(self.trainer.model, prompt.tolist(), 60, temperature=0.7, end=prepared.maker.end)
        return PROMPT + prepared.maker.decode(tokens)


def architecture(stack: str) -> Architecture:
    """The description with another stack, as wide inside its layers as the hybrid's parameters ask for."""
    data = yaml.safe_load((HERE / "learn" / "words.yaml").read_text("utf-8"))
    hybrid = load(data)
    used = {word.split("*")[0] for word in stack.split()}
    data["blocks"] = {name: parts for name, parts in data["blocks"].items() if name in used}
    named = {part for parts in data["blocks"].values() for part in parts}
    data["components"] = {name: options for name, options in data["components"].items() if name in named}
    data["stack"] = stack

    def make(dims: Mapping[str, int]) -> Architecture:
        return load(data | {"dims": data["dims"] | dict(dims)})

    dims = matched(make, "params", figure(hybrid, "params", 1), 1, ("intermediate_size",))
    return make(dims)


def pupil(name: str, prepared: Prepared, steps: int) -> Pupil:
    plan = architecture(STACKS[name]).plan()
    batches = TextBatches(prepared, batch=RECIPE.batch, length=RECIPE.length, seed=0)
    trainer = Trainer(build(plan, seed=0), batches, RECIPE, Budget("steps", steps))
    return Pupil(name, total_parameters(plan), trainer)


def drawn(pupils: list[Pupil]) -> str:
    """The curves as an SVG by itself."""
    lines = [Line(each.name, each.points[1:], tone) for each, tone in zip(pupils, CYCLE, strict=False)]
    title = "Held-out bits a byte over tokens"
    across, up = Axis("tokens of training", brief(count)), Axis("held-out bits a byte", lambda bits: f"{bits:.3g}")
    return picture_alone(title, WIDE, TALL, Lines(title, across, up, lines, named=True).svg(WIDE, TALL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of each (default: 600)")
    parser.add_argument("--evaluations", type=int, default=10, help="(default: 10)")
    given = parser.parse_args()
    prepared = prepare(Sources(("python-docs",)), "bpe:2048", vocabulary=2048)
    pupils = [pupil(name, prepared, given.steps) for name in STACKS]
    for step in range(given.steps + 1):
        if step % max(1, given.steps // given.evaluations) == 0:
            for each in pupils:
                each.evaluate(prepared)
            print(step, *(f"{each.name} {each.points[-1][1]:.3f}" for each in pupils), flush=True)
        if step < given.steps:
            for each in pupils:
                each.step()
    print("| | stack | parameters | bits per byte, held out | seconds |\n|---|---|---:|---:|---:|")
    for each in pupils:
        cells: list[Any] = [each.name, f"`{STACKS[each.name]}`", count(each.parameters)]
        print("|", " | ".join([*cells, f"{each.points[-1][1]:.3f}", f"{each.seconds:,.0f}"]), "|")
    for each in pupils:
        print(f"\n{each.name}:\n{each.writes(prepared)}")
    PICTURE.write_text(drawn(pupils), "utf-8")


if __name__ == "__main__":
    main()
