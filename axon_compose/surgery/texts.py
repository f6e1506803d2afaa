"""A text as a few sequences of tokens: what receipts and measurements read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axon_compose.checkpoints.built import model_folder
from axon_compose.checkpoints.folder import usual_tokenizer
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data import PYTHON_DOCS, Sources, TokenMaker, token_maker
from axon_compose.learn.data._cache import cache_folder

__all__ = ["LENGTH", "PYTHON_DOCS", "SEQUENCES", "Sample", "few_at_once", "sample_text"]

#: Unless others are asked for: two thousand tokens, and sequences in which a window of half of them shows.
SEQUENCES: Final = 4
LENGTH: Final = 512
#: Characters of a document that are looked at for each token that is still wanted.
_CHARACTERS: Final = 16
#: Tokens that go through the layers at once.
_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class Sample:
    """Tokens of a text.

    Attributes:
        tokens: (B, L).
        text: Where they are from.
    """

    tokens: npt.NDArray[np.int64]
    text: str


def sample_text(
    sources: Sources,
    model: str | Path,
    vocabulary: int,
    *,
    tokenizer: str | Path | None = None,
    sequences: int = SEQUENCES,
    length: int = LENGTH,
    kept: Sequence[int] | None = None,
) -> Sample:
    """The first tokens of a text, in sequences one after the other.

    Args:
        sources: The text.
        model: Folder of the model, or its GGUF file.
        vocabulary: Tokens of the model.
        tokenizer: `bytes` or a folder; that of the model unless given.
        sequences: How many; fewer where the text is shorter.
        length: Tokens of each; fewer where the text does not fill one.
        kept: Tokens that are read, where the others are left out.

    Raises:
        CheckpointError: AX810, AX811 the text cannot be read; AX542, AX812 there is no tokenizer; AX813 it gives tokens
            that the model does not have; AX814 the text has less than two tokens.
        OSError: If a file cannot be read.
    """
    choice = tokenizer or usual_tokenizer(model_folder(Path(model)))
    if isinstance(choice, str) and choice.startswith("bpe"):
        raise CheckpointError("AX812", f"`{choice}` would be a new tokenizer", "name one that the model was trained on")
    maker = token_maker(choice, sources.documents, cache_folder(), "")
    found = np.zeros(0, np.int64)
    for ids in _documents(sources, maker, sequences * length):
        found = np.concatenate([found, ids if kept is None else ids[np.isin(ids, np.asarray(kept))]])
        if len(found) >= sequences * length:
            break
    if len(found) < 2:
        raise CheckpointError("AX814", f"the text in {sources} has {len(found)} tokens", "two are needed at least")
    if found.max() >= vocabulary:
        message = f"the tokenizer gives the token {found.max()}, the model has {vocabulary}"
        raise CheckpointError("AX813", message, "it is that of another model: `--tokenizer` takes one")
    begin = np.array([token for token in maker.begin if kept is None or token in kept], np.int64)
    return Sample(_rows(found, begin, sequences, length), ", ".join(sources.names))


def few_at_once(tokens: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Sequences of (B, L), as many at a time as go through a model at once."""
    number, length = tokens.shape
    rows = max(1, _AT_ONCE // length)
    return (tokens[start : start + rows] for start in range(0, number, rows))


def _rows(
    found: npt.NDArray[np.int64], begin: npt.NDArray[np.int64], sequences: int, length: int
) -> npt.NDArray[np.int64]:
    """Sequences (B, L) out of a row of tokens; each begins as a text does, since some models are at a loss without."""
    length = min(length, len(found))
    rows: list[npt.NDArray[np.int64]] = []
    start = 0
    while len(rows) < sequences:
        first = begin if not np.array_equal(found[start : start + len(begin)], begin) else begin[:0]
        row = np.concatenate([first, found[start : start + length - len(first)]])
        if len(row) < length:
            break
        rows.append(row)
        start += length - len(first)
    return np.stack(rows)


def _documents(sources: Sources, maker: TokenMaker, wanted: int) -> Iterator[npt.NDArray[Any]]:
    """The tokens of each document, or of as much of it as is needed, and of its end."""
    end = np.array([] if maker.end is None else [maker.end], np.int64)
    any_text = False
    for text in sources.documents():
        any_text = True
        (ids,) = maker.encode([text[: _CHARACTERS * wanted]])
        yield np.concatenate([ids, end])
    if not any_text:
        raise CheckpointError("AX811", f"there is no text in {sources}", "name files with text, or `python-docs`")
