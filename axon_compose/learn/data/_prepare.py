"""Documents to a file of token ids, prepared once for each content and mapped into memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, chain, compress, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data._cache import cache_folder, keep
from axon_compose.learn.data._sources import Sources, Survey
from axon_compose.learn.data._tokens import TokenMaker, token_maker

__all__ = ["HELD_OUT", "Pieces", "Prepared", "prepare"]

#: (n, 2): where each piece of text begins and ends among the tokens.
Pieces = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

#: The part of the text that no step learns from.
HELD_OUT: Final = 0.05
#: What a file has to be read anew for: a number that is raised when the form of the files changes.
_FORM: Final = 2
_TOKENS, _ABOUT = "tokens.bin", "about.json"


@dataclass(frozen=True)
class Prepared:
    """Tokens, and how they are divided.

    Attributes:
        tokens: All ids, mapped into memory.
        training: Documents to learn from.
        held_out: Documents that no step learns from; where all are large, the end of the largest.
        maker: The tokenizer.
        bytes_per_token: Of the text that is held out, end tokens counted: what turns a loss into bits per byte.
        digest: Of texts, tokenizer and division.
    """

    tokens: npt.NDArray[Any]
    training: Pieces
    held_out: Pieces
    maker: TokenMaker
    bytes_per_token: float
    digest: str


def prepare(
    sources: Sources,
    tokenizer: str | Path = "bytes",
    *,
    vocabulary: int | None = None,
    trained: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make the tokens of some texts, or find those that were made before.

    Args:
        sources: The texts.
        tokenizer: `bytes`, `bpe:N`, or a folder with the files of a tokenizer.
        vocabulary: Tokens of the model.
        trained: Whether its weights are there already, so that their number of rows is not to be chosen.
        cache: Where they are kept; see `cache_folder`.
        progress: Called with bytes of text done and in all.

    Raises:
        CheckpointError: AX503, AX542, AX810 to AX812; AX813 the tokenizer has more tokens than the model.
        OSError: If a file cannot be read.
    """
    cache = cache or cache_folder()
    survey = sources.survey()
    kept = _kept_back(survey)
    learned = [not each for each in kept]
    maker = token_maker(tokenizer, lambda: compress(sources.again(survey), learned), cache, survey.digest)
    if vocabulary is not None and maker.size > vocabulary:
        hint = "choose a smaller tokenizer, such as that of the weights"
        if not trained:
            hint = f"give the model as many with `--set dims.vocab_size={maker.size}`, or choose a smaller tokenizer"
        raise CheckpointError("AX813", f"the tokenizer has {maker.size} tokens, the model {vocabulary}", hint)
    digest = sha256(f"{_FORM} {survey.digest} {maker.digest}".encode()).hexdigest()
    folder = keep(
        cache / "tokens" / digest[:32],
        lambda folder: _write(folder, sources, survey, maker, progress or _silent),
        whole=lambda folder: _read(folder) is not None,
    )
    found = _read(folder)
    assert found is not None  # it was looked at, or made, just now
    return _divided(*found, survey, kept, maker, digest)


def _kept_back(survey: Survey) -> list[bool]:
    """Which documents are held out: chosen by the size of all alone, so that every run holds back the same.

    None is where they do not come to half of what is wanted, such as where each is more than twice that: then it is the
    end of the largest.
    """
    kept, wanted = [False] * len(survey.sizes), HELD_OUT * sum(survey.sizes)
    most = 2 * wanted
    for index in np.random.default_rng(0).permutation(len(kept)).tolist():
        if wanted > 0 and survey.sizes[index] <= most:
            kept[index] = True
            wanted -= survey.sizes[index]
    return kept if wanted <= most / 4 else [False] * len(kept)


def _write(folder: Path, sources: Sources, survey: Survey, maker: TokenMaker, progress: Progress) -> None:
    dtype = np.dtype("<u2" if maker.size <= 2**16 else "<u4")
    total, ends, end = sum(survey.sizes), [], 0
    done = accumulate(chain(survey.sizes, repeat(0)))  # of texts that have changed there may be more
    with (folder / _TOKENS).open("wb") as file:
        for ids in maker.encode(sources.again(survey)):
            file.write(ids.astype(dtype).tobytes())
            end += len(ids)
            ends.append(end)
            progress(next(done), total)
    if end <= len(maker.begin) * len(ends):
        message = f"the tokenizer `{maker.choice}` makes no token of the text in {sources}"
        raise CheckpointError("AX811", message, "choose another, such as `--tokenizer bytes`")
    (folder / _ABOUT).write_text(json.dumps({"dtype": dtype.str, "ends": ends}))


def _read(folder: Path) -> tuple[npt.NDArray[Any], Pieces] | None:
    """Tokens, and where documents end among them; None if the files are not whole, as where a disk was tidied up."""
    try:
        about = json.loads((folder / _ABOUT).read_text())
        tokens, ends = np.memmap(folder / _TOKENS, about["dtype"], "r"), np.array(about["ends"], np.int64)
    except (OSError, ValueError):
        return None
    return (tokens, ends) if len(tokens) == ends[-1] else None


def _divided(
    tokens: npt.NDArray[Any], ends: Pieces, survey: Survey, kept: Sequence[bool], maker: TokenMaker, digest: str
) -> Prepared:
    pieces, mask = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1), np.array(kept)
    training, held_out = pieces[~mask], pieces[mask]
    text = float(sum(compress(survey.sizes, kept)))
    if not len(held_out):
        largest = int(np.argmax(survey.sizes))
        begin, end = pieces[largest].tolist()
        cut = end - min(int(HELD_OUT * int(ends[-1])), (end - begin) // 2)
        training[largest, 1] = cut
        held_out = np.array([[cut, end]])
        text = survey.sizes[largest] * (end - cut) / max(end - begin, 1)
    number = int((held_out[:, 1] - held_out[:, 0]).sum()) + len(held_out) * (maker.end is not None)
    return Prepared(tokens, training, held_out, maker, text / max(number, 1), digest)


def _silent(done: int, total: int) -> None:
    pass
