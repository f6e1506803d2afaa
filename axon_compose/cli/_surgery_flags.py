"""The flags of the commands that change trained models, and say what that has done."""

from __future__ import annotations

import argparse
from typing import Any

from axon_compose.cli._arguments import (
    as_json,
    chart,
    checkpoint,
    dtypes,
    length,
    nbytes,
    output,
    seed,
    sequences,
    tokens,
)
from axon_compose.cli._commands import Command, lazily
from axon_compose.cli._training_flags import DATA, add_budget, add_options
from axon_compose.learn import Cadence
from axon_compose.surgery.recipe import RECIPE, STEPS

__all__ = ["add_edit", "add_heal", "add_receipt"]

#: `surgery.recipe.recipe_of` in a sentence.
_RATE = "without --learning-rate it follows what the edit has done, the size of the weights, and the stage"


def add_edit(command: Command) -> None:
    """Add `edit`."""
    edit = command("edit", lazily("_edit", "edit"), "change the architecture of a trained model, weights included")
    edit.add_argument(
        "edits",
        metavar="EDIT",
        help="an edit file: its source, and what changes; - is standard input; with --rank a model",
    )
    edit.add_argument(
        "--weights",
        type=checkpoint,
        metavar="DIR",
        help="folder or GGUF file with the weights (default: the source, where it is one)",
    )
    output(edit, "DIR", "the folder to write, which mlx_lm runs (default: show the plan alone)", dest="out")
    edit.add_argument("--plan", action="store_true", help="say what each new tensor is made from, and write nothing")
    dtypes(edit, "of the weights (default: as they are stored)")
    edit.add_argument("--no-receipt", action="store_true", help="do not run both models on a text afterwards")
    edit.add_argument("--seed", type=seed, default=0, metavar="N", help="of what is random (default: 0)")
    edit.add_argument(
        "--tokenizer", metavar="bytes|bytes-chat|none|DIR", help="of the new folder (default: that of the weights)"
    )
    edit.add_argument("--force", action="store_true", help="replace a folder that an earlier build or edit wrote")
    edit.add_argument("--allow-large", action="store_true", help="edit even if memory seems too small")
    _add_text(edit.add_argument_group("what is measured on"), sequences_=2)
    _add_ranking(edit.add_argument_group("which layers"))
    as_json(edit)


def _add_ranking(group: Any) -> None:
    group.add_argument(
        "--rank",
        metavar="CHANGE",
        help="try a change such as 'attn -> window:512' in each layer alone, and say what it does to predictions; "
        "--out is the edit file to write",
    )
    group.add_argument(
        "--cache", type=nbytes, metavar="BYTES", help="propose layers until the caches of a sequence are no larger"
    )
    group.add_argument(
        "--context", type=tokens, default=32768, metavar="N", help="tokens of that sequence (default: 32k)"
    )


def add_receipt(command: Command) -> None:
    """Add `receipt`."""
    receipt = command("receipt", lazily("_receipt", "receipt"), "what has an edit done? the model against its source")
    receipt.add_argument("source", type=checkpoint, metavar="SOURCE", help="the model as it was: a folder or .gguf")
    receipt.add_argument("edited", type=checkpoint, metavar="EDITED", help="the model as it is now: a folder")
    _add_text(receipt, sequences_=4)
    receipt.add_argument("--tokenizer", metavar="bytes|DIR", help="of the text (default: that of the source)")
    dtypes(receipt, "in which both run (default: float32)", "float32")
    receipt.add_argument("--allow-large", action="store_true", help="run them even if memory seems too small")
    output(receipt, "PAGE.html", "write a page, or its picture of the layers as .svg", type=chart)
    receipt.add_argument("--force", action="store_true", help="replace the page")
    as_json(receipt)


def _add_text(group: Any, *, sequences_: int) -> None:
    """The text that something is measured on."""
    group.add_argument(
        "--text",
        action="append",
        metavar="TEXT",
        help="a file, folder or pattern (default: python-docs, the texts that Python carries)",
    )
    group.add_argument(
        "--sequences", type=sequences, default=sequences_, metavar="N",
        help=f"how many are read at most (default: {sequences_})",
    )  # fmt: skip
    group.add_argument("--length", type=length, default=512, metavar="N", help="tokens of each (default: 512)")


def add_heal(command: Command) -> None:
    """Add `heal`."""
    heal = command("heal", lazily("_heal", "heal"), "let an edited model learn to be the one that it was made of")
    heal.add_argument("edited", type=checkpoint, metavar="DIR", help="the edited model: a folder")
    heal.add_argument(
        "--teacher", type=checkpoint, required=True, metavar="SOURCE", help="what it was made of: a folder or .gguf"
    )
    heal.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="TEXT",
        help=DATA,
    )
    output(heal, "OUT", "the folder to write, which mlx_lm runs", dest="out", required=True)
    heal.add_argument("--field", default="text", metavar="NAME", help="where the text is in .jsonl (default: text)")
    heal.add_argument("--tokenizer", metavar="bytes|DIR", help="of the texts (default: that of the edited model)")
    heal.add_argument("--resume", action="store_true", help="continue the interrupted run in OUT, to the bit")
    heal.add_argument("--force", action="store_true", help="replace a folder that an earlier run or build wrote")
    heal.add_argument("--allow-large", action="store_true", help="heal even if memory seems too small")
    group = heal.add_argument_group("what learns")
    group.add_argument(
        "--learn", action="append", default=[], metavar="PATTERN", help="beside what was changed, such as layers.*.mlp"
    )
    group.add_argument(
        "--first", type=_part, default=0.5, metavar="X",
        help="part of the budget in which each changed layer learns by itself (default: 0.5)",
    )  # fmt: skip
    group.add_argument(
        "--teacher-weight", type=_part, default=1.0, metavar="X",
        help="of the teacher's predictions after that; the rest is the text's (default: 1)",
    )  # fmt: skip
    group.add_argument("--temperature", type=float, default=1.0, metavar="X", help="that softens them (default: 1)")
    add_budget(heal, STEPS)
    add_options(heal.add_argument_group("recipe", _RATE), RECIPE)
    between = heal.add_argument_group("between the steps")
    between.add_argument(
        "--measured", type=length, metavar="N",
        help="tokens of held-out text that an evaluation reads with both models (default: 2048, and no more than a "
        "quarter of those that are learned from)",
    )  # fmt: skip
    add_options(between, Cadence())
    as_json(heal)


def _part(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number
