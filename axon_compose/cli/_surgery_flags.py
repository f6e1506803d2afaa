"""The flags of the commands that change trained models."""

from __future__ import annotations

from axon_compose.cli._arguments import as_json, checkpoint, dtype, output, seed
from axon_compose.cli._commands import Command, lazily

__all__ = ["add_surgery"]


def add_surgery(command: Command) -> None:
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
    edit.add_argument(
        "--plan", action="store_true", help="say what each new tensor is made from, and write nothing"
    )
    edit.add_argument(
        "--dtype",
        type=dtype,
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: as they are stored)",
    )
    edit.add_argument("--seed", type=seed, default=0, metavar="N", help="of what is random (default: 0)")
    edit.add_argument(
        "--tokenizer", metavar="bytes|bytes-chat|none|DIR", help="of the new folder (default: that of the weights)"
    )
    edit.add_argument("--force", action="store_true", help="replace a folder that an earlier build or edit wrote")
    edit.add_argument("--allow-large", action="store_true", help="edit even if memory seems too small")
    as_json(edit)
