"""Two folders, or GGUF files, and a text to a receipt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from axon_compose.checkpoints.edited import Edited, read_edited
from axon_compose.checkpoints.places import compile_place
from axon_compose.checkpoints.trained import build_trained
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data import PYTHON_DOCS, Sources
from axon_compose.model import LanguageModel
from axon_compose.plan import Compiled
from axon_compose.surgery._receipt import receipt
from axon_compose.surgery._records import Receipt
from axon_compose.surgery.texts import LENGTH, SEQUENCES, sample_text

__all__ = ["load_pair", "names_of", "receipt_of"]


def receipt_of(
    source: str | Path,
    edited: str | Path,
    *,
    text: Sources | str | Path | Sequence[str] = PYTHON_DOCS,
    tokenizer: str | Path | None = None,
    sequences: int = SEQUENCES,
    length: int = LENGTH,
    dtype: str | None = "float32",
    description: Compiled | None = None,
    allow_large: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Receipt:
    """Compare the model in a folder with the one that it was made of, on the beginning of a text.

    Args:
        source: Folder or GGUF file of the source's weights.
        edited: Folder of the edited model. Which layers belong together is read there.
        text: Files, folders or `python-docs`.
        tokenizer: `bytes` or a folder; that of the source unless given.
        sequences: How many.
        length: Tokens of each.
        dtype: In which both run; None for that in which they are stored.
        description: Of the source, where its folder does not say it all.
        allow_large: Do not compare the sizes with the memory that is free.
        progress: Called with tokens done and in all.

    Raises:
        ArchitectureError: One of them cannot be compiled.
        CheckpointError: One of them cannot be loaded, the text cannot be read, or AX951 they do not have the same
            tokens and nothing says which.
    """
    before, after, record = load_pair(source, edited, dtype=dtype, description=description, allow_large=allow_large)
    kept = None if record is None or record.vocabulary is None else [each for each in record.vocabulary if each >= 0]
    sample = sample_text(
        Sources.of(text), source, int(before.plan.dims.vocab_size), tokenizer=tokenizer, sequences=sequences,
        length=length, kept=kept,
    )  # fmt: skip
    return receipt(
        before,
        after,
        sample.tokens,
        origins=None if record is None else record.origins,
        vocabulary=None if record is None else record.vocabulary,
        text=sample.text,
        names=names_of(source, edited),
        progress=progress,
    )


def load_pair(
    source: str | Path,
    edited: str | Path,
    *,
    dtype: str | None = "float32",
    description: Compiled | None = None,
    allow_large: bool = False,
) -> tuple[LanguageModel, LanguageModel, Edited | None]:
    """A source, what was made of it, and how; see `receipt_of`."""
    compiled = [description or compile_place(None, source), compile_place(None, edited)]
    record = read_edited(Path(edited), compiled[1].plan())
    sizes = [int(each.plan().dims.vocab_size) for each in compiled]
    if sizes[0] != sizes[1] and (record is None or record.vocabulary is None):
        message = f"`{source}` has {sizes[0]} tokens and `{edited}` {sizes[1]}, and nothing says which are the same"
        raise CheckpointError("AX951", message, "compare a folder that `axon-compose edit` wrote with its source")
    before, after = (
        build_trained(each, folder, dtype=dtype, allow_large=allow_large, unpack=dtype is not None)
        for each, folder in zip(compiled, (source, edited), strict=True)
    )
    return before, after, record


def names_of(source: str | Path, edited: str | Path) -> tuple[str, str]:
    """The last parts of two paths, or both as they are where those are the same."""
    short = Path(source).name, Path(edited).name
    return (str(source), str(edited)) if short[0] == short[1] else short
