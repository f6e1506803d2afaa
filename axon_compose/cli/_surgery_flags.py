"""The flags of the commands about models that were edited."""

from __future__ import annotations

from axon_compose.cli._arguments import as_json, chart, checkpoint, dtype, length, output, sequences
from axon_compose.cli._commands import Command, lazily

__all__ = ["add_receipt"]

#: In which models can run.
DTYPES = ("float32", "bfloat16", "float16")


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
