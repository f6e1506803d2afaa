"""The page of conformance: what each truth claims, and which planted faults it notices.

python docs/conformance_page.py                # plant every fault, run every truth, and write docs/conformance.md
python docs/conformance_page.py NAME NAME      # these faults; the others keep their marks
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from axon_compose import load
from axon_compose.proof.check import TRUTHS, check_plan

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "conformance.md"
sys.path.insert(0, str(ROOT / "tests" / "proof" / "check"))

from mutations import FOUND, MODELS, Mutation  # noqa: E402

#: What each truth is measured by; what it claims is told by the truth itself.
MEASURED: Final[Mapping[str, str]] = {
    "parameters": "names, shapes, dtypes and bytes of what is built, in float32 and bfloat16",
    "one-shot": "two sequences of 1, W − 1, W, W + 1 and 2 W + 3 tokens, and one of 291, with and without a cache",
    "chunks": "chunks of 7, W − 1, W, W + 1 and 97 tokens, irregular ones, and one longer than a block of a scan",
    "steps": "single tokens from the start, and after a prompt of 2 W + 3, until a window has wrapped",
    "causal": "all tokens from some position on replaced, at the edges of windows and blocks",
    "reach": "one token replaced at the edges of a window, with every other component that mixes tokens silenced",
    "every-layer": "each layer skipped, with and without a cache",
    "left-padded": "five left-padded prompts of unequal length, in chunks, then decoded until a window has wrapped",
    "right-padded": "the same, right-padded, with mlx-lm's `prepare` and `finalize`",
    "joined": "mlx-lm's `merge`, `extend`, `filter` and `extract` in the middle of three sequences",
    "saved": "mlx-lm's cache file, written and read after a window has wrapped",
    "trimmed": "a token trimmed and others put in its place, where the plan allows it",
    "caches": "what each cache holds and counts after a prompt and two tokens",
    "cache-bytes": "bytes after 3 and 3 W + 6 tokens, in float32 and bfloat16",
    "dtypes": "weights, caches and logits in float32 and bfloat16, also with large values inside",
    "large": "layer inputs scaled by 30 and 1000, less where rounding would change outputs; 1 to 20 tokens in turn",
    "float16": "a float16 model, with values beyond 65504 in each state that is declared float32",
    "ties": "tied router scores: twice, in a batch among others, and in chunks",
    "start": "the initial values that the records declare, in the copy and with its layers repeated to 48",
    "gradients": "one backward pass over 512 tokens, in training mode",
    "slopes": "central differences of the loss along each component's gradient",
    "tied": "a training step, its weights loaded into another model; one row of the table changed",
    "quantized": "8-bit weights: the typical token against unquantised weights, and with a cache against without",
}

_INTRODUCTION: Final = """\
# Conformance

<!-- Written by `python docs/conformance_page.py`; do not edit. -->

What `axon-compose check` tests: *truths* are properties of any causal language model with
caches, each measured on a small copy with random weights in float32 (W is the largest window of the model, or 8).
`axon_compose.testing` runs the same checks on components of plugins ([plugins.md](plugins.md#tests)).

Equal means equal up to the rounding of float32: 2e-5 of the largest output, or four times what the model's own rounding
errors come to. Every failure names the case, the position, and the first affected layer.

| truth | claim | measured by |
|---|---|---|
"""

_FAULTS: Final = """\
## What they detect

{count} faults, planted one at a time in a model that passes (`tests/proof/check/mutations.py`), and the truths
that fail: ● are those that the tests require, ○ others. Every fault is detected, and every truth is required by some
fault. The models:

{models}

"""
_SHORT: Final = "abcdefghijklmnopqrstuvwxyz"


def page(marks: Mapping[str, str]) -> str:
    """The whole page; marks are one character for each truth, by the name of the fault."""
    claims = {truth.name: truth.claim for truth in check_plan(load(MODELS["full"]).plan()).truths}
    parts = [_INTRODUCTION + "\n".join(f"| `{name}` | {claims[name]} | {MEASURED[name]} |" for name in TRUTHS), ""]
    models = "\n".join(f"* *{name}*: {_stack(description)}" for name, description in MODELS.items())
    parts.append(_FAULTS.format(count=len(FOUND), models=models) + "\n".join(_matrix(marks)))
    return "\n".join(parts) + "\n"


def _stack(description: Mapping[str, object]) -> str:
    blocks = description["blocks"]
    assert isinstance(blocks, Mapping)
    shown = ", ".join(f"{name} `{_flow(branches)}`" for name, branches in blocks.items())
    return f"`{description['stack']}` of {shown}"


def _flow(value: object) -> str:
    return str(value).replace("'", "")


def _matrix(marks: Mapping[str, str]) -> Iterator[str]:
    """Faults in rows, truths in columns, by letters that are told above it."""
    letters = dict(zip(TRUTHS, _SHORT, strict=False))
    yield ", ".join(f"**{letter}** {name}" for name, letter in letters.items()) + "\n"
    yield f"| fault | model | {' | '.join(letters.values())} |"
    yield "|---|---" + "|:-:" * len(letters) + "|"
    for fault in FOUND:
        cells = " | ".join("" if mark == "·" else mark for mark in marks[fault.name])
        yield f"| {fault.name.replace('_', ' ')} | {fault.model} | {cells} |"


def on_page() -> dict[str, str]:
    """The marks that the page has, by the name of the fault."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else ():
        if match := re.fullmatch(r"\| ([a-z][\w ]+) \| (\w+) \| (.*) \|", line):
            cells = [cell.strip() or "·" for cell in match[3].split("|")]
            if match[2] in MODELS and len(cells) == len(TRUTHS):
                found[match[1].replace(" ", "_")] = "".join(cells)
    return found


def measure(fault: Mutation) -> str:
    """Plant a fault and run every truth."""
    with pytest.MonkeyPatch.context() as patch:
        fault.plant(patch)
        report = check_plan(load(MODELS[fault.model]).plan())
    # A model that cannot be built has one truth alone, which stands for all.
    failed = {truth.name for truth in report.failed}
    return "".join(("●" if name in fault.noticed_by else "○") if name in failed else "·" for name in TRUTHS)


def main(names: list[str]) -> None:
    """Measure the named faults, or all, and write the page."""
    marks = on_page()
    for fault in FOUND:
        if not names or fault.name in names or fault.name not in marks:
            marks[fault.name] = measure(fault)
            print(marks[fault.name], fault.name, flush=True)
    PAGE.write_text(page(marks), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
