"""The page of imports: what `axon-compose import` writes for ten small checkpoints, one of each kind."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from axon_compose.cli import main

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = "tests/families/fixtures"

#: Checkpoints, and what is worth a look in the file.
SHOWN: Final = {
    "llama": "Every layer alike.",
    "qwen3_moe": "Experts in some layers: two kinds of layers, and the stack says in which order they stand.",
    "gemma3_text": "Norms before and after each branch; windows in all layers but every third.",
    "gpt_oss": "Experts with a clamped activation, sinks in the softmax; queries, keys and values are told apart.",
    "deepseek_v3": "Latent attention, and experts in groups behind dense layers.",
    "qwen3_next": "Gated delta nets, and full attention with a gate in some layers.",
    "nemotron_h": "One branch in each layer: Mamba-2, attention, an MLP or experts, in an order of its own.",
    "gemma4_text": "Late layers read keys and values of earlier ones (`overrides`); a narrow vector of each token.",
    "falcon_h1": "Mamba-2 and attention side by side, and a factor for nearly everything.",
    "rwkv7": "No attention; the first layer's values go to all others.",
}

_INTRODUCTION: Final = f"""\
# Imported checkpoints

<!-- Written by `python docs/refresh.py` from the checkpoints in {FOLDER}; do not edit. -->

`axon-compose import DIR` writes the architecture of a checkpoint as a file of its own: sizes instead of formulas,
layers by name in the order of the stack, no option that has its default, and the rules that read its weights. The file
needs neither the checkpoint nor the family to be changed, built and trained; with `--weights DIR` it reads the weights
again.

These are the files of ten of the small checkpoints that the tests use, as they are written. [families.md](families.md)
tells how they compare with other implementations, [huggingface.md](huggingface.md) how a checkpoint is read.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *(part for name in SHOWN for part in _section(name))])


def _section(name: str) -> Iterator[str]:
    yield f"## {name}\n"
    yield SHOWN[name] + "\n"
    yield f"`axon-compose import {FOLDER}/{name}`\n"
    yield f"```yaml\n{imported(name)}```\n"


def imported(name: str) -> str:
    """What the command writes for a checkpoint."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()), contextlib.chdir(ROOT):
        code = main(["import", os.path.join(FOLDER, name)])  # noqa: PTH118
    assert code == 0, name
    return text.getvalue()
