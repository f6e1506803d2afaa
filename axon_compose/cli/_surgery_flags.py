"""The flags of the commands that change trained models, and say what that has done."""

from __future__ import annotations

from axon_compose.cli._arguments import as_json, chart, checkpoint, dtype, length, output, seed, sequences
from axon_compose.cli._commands import Command, lazily

__all__ = ["add_edit", "add_receipt"]

#: In which models can run.
DTYPES = ("float32", "bfloat16", "float16")


def add_edit(command: Command) -> None:
    """Add `edit`."""
    edit = command("edit", lazily("_edit", "edit"), "change the architecture of a trained model, weights included")
    edit.add_argument("edits", metavar="EDIT", help="an edit file: its source, and what changes; - is standard input")
    edit.add_argument(
        "--weights",
        type=checkpoint,
        metavar="DIR",
        help="folder or GGUF file with the weights (default: the source, where it is one)",
    )
    output(edit, "DIR", "the folder to write, which mlx_lm runs (default: show the plan alone)", dest="out")
    edit.add_argument("--plan", action="store_true", help="say what each new tensor is made from, and write nothing")
    edit.add_argument(
        "--dtype",
        type=dtype,
        choices=DTYPES,
        help="of the weights (default: as they are stored)",
    )
    edit.add_argument("--seed", type=seed, default=0, metavar="N", help="of what is random (default: 0)")
    edit.add_argument(
        "--tokenizer", metavar="bytes|bytes-chat|none|DIR", help="of the new folder (default: that of the weights)"
    )
    edit.add_argument("--force", action="store_true", help="replace a folder that an earlier build or edit wrote")
    edit.add_argument("--allow-large", action="store_true", help="edit even if memory seems too small")
    as_json(edit)


def add_receipt(command: Command) -> None:
    """Add `receipt`."""
    receipt = command("receipt", lazily("_receipt", "receipt"), "what has an edit done? the model against its source")
    receipt.add_argument("source", type=checkpoint, metavar="SOURCE", help="the model as it was: a folder or .gguf")
    receipt.add_argument("edited", type=checkpoint, metavar="EDITED", help="the model as it is now: a folder")
    receipt.add_argument(
        "--text",
        action="append",
        metavar="TEXT",
        help="a file, folder or pattern (default: python-docs, the texts that Python carries)",
    )
    receipt.add_argument("--tokenizer", metavar="bytes|DIR", help="of the text (default: that of the source)")
    receipt.add_argument(
        "--sequences", type=sequences, default=4, metavar="N", help="how many are read at most (default: 4)"
    )
    receipt.add_argument("--length", type=length, default=512, metavar="N", help="tokens of each (default: 512)")
    receipt.add_argument(
        "--dtype", type=dtype, default="float32", choices=DTYPES, help="in which both run (default: float32)"
    )
    receipt.add_argument("--allow-large", action="store_true", help="run them even if memory seems too small")
    output(receipt, "PAGE.html", "write a page, or its picture of the layers as .svg", type=chart)
    receipt.add_argument("--force", action="store_true", help="replace the page")
    as_json(receipt)
