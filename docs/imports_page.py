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
    "qwen3_moe": "MoE in some layers: two kinds of layers, and the stack gives their order.",
    "gemma3_text": "Norms before and after each branch; sliding windows in all layers but every third.",
    "gpt_oss": "Experts with a clamped activation, attention sinks; separate query, key and value projections.",
    "deepseek_v3": "Latent attention, and group-limited MoE after dense layers.",
    "qwen3_next": "Gated delta rule, and gated full attention in some layers.",
    "nemotron_h": "One branch in each layer: Mamba-2, attention, an MLP or MoE, in an irregular order.",
    "gemma4_text": "Late layers read keys and values of earlier ones (`overrides`); per-layer token embeddings.",
    "falcon_h1": "Mamba-2 and attention in parallel, and multipliers nearly everywhere.",
    "rwkv7": "No attention; value residuals from the first layer.",
}

_INTRODUCTION: Final = f"""\
# Imported checkpoints

<!-- Written by `python docs/refresh.py` from the checkpoints in {FOLDER}; do not edit. -->

`axon-compose import DIR` writes the architecture of a checkpoint as a standalone file: sizes instead of formulas,
layers by name in the order of the stack, no options at their defaults, and the weight map. The file can be edited,
built and trained without the checkpoint or the family; with `--weights DIR` it reads the weights again.

These are the files of ten of the small checkpoints that the tests use, as they are written. [families.md](families.md)
compares them with other implementations, [huggingface.md](huggingface.md) explains how a checkpoint is read.
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
