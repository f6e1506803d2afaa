"""Measure the edits of a file beside this one on a model, and keep what came out beside it as JSON.

    python benchmarks/surgery.py smollm2.gguf                # every edit that is not there yet: plan, memory, receipt
    python benchmarks/surgery.py smollm2.gguf 1 --heal 8192  # heal this one with so many tokens
    python benchmarks/surgery.py smollm2.gguf 1 --heal 8192 --rate 1e-4   # with this learning rate in both stages
    python benchmarks/surgery.py smollm2.gguf --rank 'attn -> window:256'  # which layers can lose full attention
    python benchmarks/surgery.py                             # the table, as Markdown
    python benchmarks/surgery.py --edits surgery-gemma3 …    # the same with those edits; `surgery` unless given

Every figure is of the first tokens of the texts that Python carries, in float32; samples are of models as loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).resolve().parent
#: What is read for a receipt.
SEQUENCES, LENGTH = 1, 512
#: Tokens of held-out text that healing is measured on.
MEASURED: Final = 2048
#: What the models go on with: nothing of the texts that healing learns from, and something of them.
PROMPTS: Final = ("The capital of France is", "In Python, a list is")
WRITTEN: Final = 24


class Kept:
    """What is measured, and what was measured before.

    Args:
        name: Of the two files: `NAME.yaml` has the edits, `NAME.json` the figures.
    """

    def __init__(self, name: str) -> None:
        self.path = HERE / f"{name}.json"
        self.edits: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / f"{name}.yaml").read_text("utf-8"))
        self.found: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def keep(self, name: str, **found: Any) -> None:
        """Write it beside the others, at once."""
        self.found[name] = self.found.get(name, {}) | found
        self.path.write_text(json.dumps(self.found, indent=1) + "\n", "utf-8")


#: A command of ours, and at its end its peak, which `wait4` does not tell: that begins with what this process holds.
_RUN: Final = """
from axon_compose.__main__ import main
from axon_compose.machine.memory import peak
try:
    main()
finally:
    open({said!r}, "w").write(str(peak()))
"""


def timed(*arguments: str) -> tuple[float, int]:
    """Processor seconds and peak memory of a command of ours."""
    with TemporaryDirectory() as place:
        said = Path(place) / "peak"
        code = _RUN.format(said=str(said))
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"axon-compose {' '.join(arguments)} ended with {process.returncode}")
        return usage.ru_utime + usage.ru_stime, int(said.read_text())


def measure(kept: Kept, name: str, model: Path, tokens: int, first: float, rate: float | None, place: Path) -> None:
    """One edit: its plan, its folder and its receipt where they are not known, and what healing does if it does."""
    from axon_compose.diagnostics import CheckpointError
    from axon_compose.surgery import receipt_of

    file, folder = place / "edit.yaml", place / "edited"
    described = {"version": 1, "source": str(model), "edits": kept.edits[name]}
    file.write_text(yaml.safe_dump(described, sort_keys=False))
    written, peak = timed("edit", str(file), "--out", str(folder), "--force", "--no-receipt")
    if not tokens or "receipt" not in kept.found.get(name, {}):
        planned, _ = timed("edit", str(file), "--plan")
        size = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
        kept.keep(name, plan_seconds=planned, edit_seconds=written, peak_bytes=peak, bytes=size)
        began = time.process_time()
        found = receipt_of(model, folder, sequences=SEQUENCES, length=LENGTH)
        kept.keep(name, receipt_seconds=time.process_time() - began, receipt=found.to_dict())
    if tokens:
        places = {"source": model, "edited": folder, "healed": place / "healed"}
        try:
            learned = healed(folder, model, places["healed"], kept.edits[name], tokens, first, rate)
            kept.keep(name, healing=learned, nothing_to_heal=None)
        except CheckpointError as error:
            if error.code != "AX953":
                raise
            kept.keep(name, healing=None, nothing_to_heal=str(error).splitlines()[0])
            del places["healed"]
        kept.keep(name, samples={state: written_by(each) for state, each in places.items()})


class Clock:
    """Processor seconds of the steps of each stage, without evaluations and checkpoints."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since = time.process_time()

    def step(self, metrics: Any, part: float) -> None:
        """Add what it took to its stage."""
        if not metrics.step:
            self.seconds.append(0.0)
        now = time.process_time()
        self.seconds[-1] += now - self._since
        self._since = now

    def evaluation(self, line: Any) -> None:
        """Leave it out."""
        self._since = time.process_time()

    def sample(self, line: Any) -> None:
        """Leave it out."""
        self._since = time.process_time()

    def checkpoint(self, folder: Path, steps: int) -> None:
        """Leave it out."""
        self._since = time.process_time()


def healed(
    folder: Path,
    model: Path,
    out: Path,
    edits: list[dict[str, Any]],
    tokens: int,
    first: float,
    rate: float | None = None,
) -> dict[str, Any]:
    """Receipts before and after learning from so many tokens, a part of them in the first stage where there is one."""
    from dataclasses import replace

    from axon_compose.learn import Budget, Cadence
    from axon_compose.machine.memory import peak
    from axon_compose.surgery import RECIPE, heal

    windows = "window_size" in str(edits)
    recipe = replace(RECIPE, batch=1, length=512 if windows else 256, learning_rate=rate or RECIPE.learning_rate)
    learn = ("layers.*",) if any("drop" in edit for edit in edits) else ()
    clock = Clock()
    found = heal(
        folder,
        model,
        "python-docs",
        out,
        recipe=recipe,
        budget=Budget("tokens", tokens),
        first=first,
        by_divergence=rate is None,
        measured=MEASURED,
        learn=learn,
        cadence=Cadence(evaluations=1, samples=0, checkpoints=0),
        listeners=[clock],
        force=True,
    )
    data = found.to_dict()
    del data["out"]
    more = {
        "learn": learn,
        "length": recipe.length,
        "seconds_of_steps": clock.seconds,
        "peak_bytes": peak(),
        "rate": rate,
    }
    return data | more


def written_by(place: Path) -> list[str]:
    """What a model goes on with after each prompt, its likeliest token each time."""
    from axon_compose import load_model
    from axon_compose.learn.data import token_maker
    from axon_compose.learn.sampling import sample

    model, maker = load_model(place), token_maker(place, tuple, place, "")
    prompts = maker.encode(PROMPTS)
    return [maker.decode(sample(model, each.tolist(), WRITTEN, temperature=0, end=maker.end)) for each in prompts]


def ranked(kept: Kept, model: Path, change: str) -> None:
    """Which layers can be changed so at the least harm."""
    from axon_compose.machine.memory import peak
    from axon_compose.surgery import rank

    began = time.process_time()
    found = rank(model, change, sequences=SEQUENCES, length=LENGTH)
    data = found.to_dict()
    data["edit"]["source"] = model.name
    kept.keep(change, ranking=data, seconds=time.process_time() - began, peak_bytes=peak())


def table(kept: Kept) -> str:
    """Everything that is known, as Markdown."""
    rows = ["| edit | plan | memory | KL | same first choice | perplexity |", "|---|---:|---:|---:|---:|---:|"]
    for name, found in kept.found.items():
        if receipt := found.get("receipt"):
            rows.append(
                f"| {name} | {found['plan_seconds']:.1f} s | {found['peak_bytes'] / found['bytes']:.2f} × | "
                f"{receipt['divergence']:.3g} | {receipt['agreement']:.1%} | {receipt['source_perplexity']:.1f} to "
                f"{receipt['perplexity']:.1f} |"
            )
    rows += ["", *healings(kept), "", *samples(kept)]
    for change, found in kept.found.items():
        if ranking := found.get("ranking"):
            order = ", ".join(f"{each['index']} ({each['divergence']:.2g})" for each in ranking["layers"])
            rows += ["", f"`{change}`, layers by harm: {order}."]
    return "\n".join(rows)


def healings(kept: Kept) -> Iterator[str]:
    """A row for each edit that was healed, the head first."""
    yield "| edit | tokens | perplexity of the source | edited | healed | KL, edited | healed | processor |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name, found in kept.found.items():
        if after := found.get("healing"):
            before, now = after["before"], after["after"]
            perplexities = (before["source_perplexity"], before["perplexity"], now["perplexity"])
            divergences = (before["divergence"], now["divergence"])
            cells = [f"{each:,.1f}" for each in perplexities] + [f"{each:.2g}" for each in divergences]
            took = f"{sum(after['seconds_of_steps']):.0f} s"
            yield f"| {name} | {after['curve'][-1][1]:,} | {' | '.join(cells)} | {took} |"


def samples(kept: Kept) -> Iterator[str]:
    """What was written, by prompt."""
    written = {name: found["samples"] for name, found in kept.found.items() if "samples" in found}
    for number, prompt in enumerate(PROMPTS):
        shown = {"source": next(iter(written.values()))["source"][number]} if written else {}
        for name, texts in written.items():
            shown |= {f"{name}, {state}": text[number] for state, text in texts.items() if state != "source"}
        yield prompt
        for name, text in shown.items():
            yield f"  {name:{max(map(len, shown))}}  {json.dumps(text, ensure_ascii=False)}"


def main() -> None:
    """Measure what is asked for, or print what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("numbers", nargs="*", type=int, help="of edits, from 0")
    parser.add_argument("--heal", type=int, default=0, metavar="TOKENS")
    parser.add_argument("--first", type=float, default=0.5, metavar="X", help="part of them for layers by themselves")
    parser.add_argument("--rate", type=float, metavar="X", help="learning rate of both stages")
    parser.add_argument("--rank", metavar="CHANGE", help="of a component, tried in each layer alone")
    parser.add_argument("--edits", default="surgery", metavar="NAME", help="of a file beside this one")
    arguments = parser.parse_args()
    kept = Kept(arguments.edits)
    if arguments.model is None:
        print(table(kept))
        return
    model = arguments.model.resolve()
    if arguments.rank:
        ranked(kept, model, arguments.rank)
        return
    for number, name in enumerate(kept.edits):
        if number in arguments.numbers or (not arguments.numbers and "receipt" not in kept.found.get(name, {})):
            with TemporaryDirectory(prefix="axon-compose-surgery-") as place:
                measure(kept, name, model, arguments.heal, arguments.first, arguments.rate, Path(place))
            print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main()
