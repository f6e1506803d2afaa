"""Texts to token ids: one for each byte, by the tokenizer of a folder, or by one that is trained on the texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axon_compose.checkpoints.files._byte_tokenizer import SPECIAL_TOKENS
from axon_compose.checkpoints.files._disk import write_file
from axon_compose.checkpoints.files._tokenizer import tokenizer_files
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data._cache import keep

__all__ = ["Ids", "TokenMaker", "token_maker"]

Ids = npt.NDArray[np.int64]
#: `bpe:4096`: a byte-level tokenizer with so many tokens, trained on the texts.
_TRAINED: Final = re.compile(r"bpe:([0-9]{1,7})")
_FILES: Final = ("tokenizer.json", "tokenizer_config.json")
_OTHERS: Final = "`--tokenizer bytes` needs no files, `--tokenizer bpe:4096` is trained on the texts"
#: The 256 bytes and the special tokens.
_FEWEST: Final = 256 + len(SPECIAL_TOKENS)
#: Documents that are encoded together, so that all cores have something to do.
_TOGETHER: Final = 256


@dataclass(frozen=True)
class TokenMaker:
    """A tokenizer, ready to encode.

    Attributes:
        choice: What `axon_compose.save` writes it from: `bytes`, or a folder.
        digest: Of its vocabulary; the same texts and the same digest give the same tokens.
        size: The highest token id plus one.
        end: The token that ends a document, or None.
        encode: Texts to their ids. Each begins with `begin`; there are no other special tokens.
        decode: Ids to a text.
        begin: Tokens that the tokenizer puts before every text, as those of Gemma and Llama 3 do; mostly none.
    """

    choice: str | Path
    digest: str
    size: int
    end: int | None
    encode: Callable[[Iterable[str]], Iterator[Ids]]
    decode: Callable[[list[int]], str]
    begin: tuple[int, ...] = ()


def token_maker(choice: str | Path, texts: Callable[[], Iterable[str]], cache: Path, digest: str) -> TokenMaker:
    """The tokenizer of a choice.

    Args:
        choice: `bytes`, `bpe:N`, or a folder with the files of a tokenizer.
        texts: What `bpe:N` is trained on.
        cache: Where it keeps what it has trained.
        digest: Of those texts.

    Raises:
        CheckpointError: AX542 the folder has no tokenizer that can be used; AX812 a `bpe:` without a size that can be,
            or `none`.
    """
    if choice == "none":
        raise CheckpointError("AX812", "without a tokenizer there are no tokens", _OTHERS)
    if isinstance(choice, str) and choice.startswith("bpe"):
        choice = _trained(choice, texts, cache, digest)
    try:
        files = tokenizer_files(choice, 2**31)
    except CheckpointError as error:  # its hint offers `none` too
        raise CheckpointError(error.code, error.message, _OTHERS, error.details) from error
    tokenizer = _tokenizer(files["tokenizer.json"], choice)
    end = files.ids.get("eos_token_id", files.ids.get("bos_token_id"))
    begin = () if choice == "bytes" else _begin(tokenizer)
    return TokenMaker(
        choice,
        sha256(files["tokenizer.json"]).hexdigest(),
        files.ids["vocab_size"],
        end[0] if isinstance(end, list) else end,
        _by_bytes if choice == "bytes" else lambda texts: _by(tokenizer, begin, texts),
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
        begin,
    )


def _tokenizer(content: bytes, choice: str | Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises this class itself
        raise CheckpointError("AX542", f"the tokenizer of `{choice}` cannot be read: {error}") from error
    tokenizer.encode_special_tokens = True  # a document that spells one out is a text like any other
    return tokenizer


def _begin(tokenizer: Any) -> tuple[int, ...]:
    """The special tokens before a text, which a model has seen before all that it learned from."""
    plain, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    places = range(len(whole) - len(plain) + 1)
    return tuple(whole[: next((at for at in places if whole[at : at + len(plain)] == plain), 0)])


def _by_bytes(texts: Iterable[str]) -> Iterator[Ids]:
    return (np.frombuffer(text.encode(), np.uint8).astype(np.int64) for text in texts)


def _by(tokenizer: Any, begin: tuple[int, ...], texts: Iterable[str]) -> Iterator[Ids]:
    waiting: list[str] = []
    for text in texts:
        waiting.append(text)
        if len(waiting) == _TOGETHER:
            yield from _encoded(tokenizer, begin, waiting)
            waiting = []
    yield from _encoded(tokenizer, begin, waiting)


def _encoded(tokenizer: Any, begin: tuple[int, ...], texts: list[str]) -> Iterator[Ids]:
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        yield np.array([*begin, *encoding.ids], np.int64)


def _trained(choice: str, texts: Callable[[], Iterable[str]], cache: Path, digest: str) -> Path:
    """The folder of a byte-level tokenizer (Sennrich et al. 2016, as in GPT-2) that is trained on texts, once."""
    match = _TRAINED.fullmatch(choice)
    if match is None or int(match[1]) < _FEWEST:
        message = f"`{choice}` is no tokenizer: `bpe:` has a number of tokens from {_FEWEST} to 9999999"
        raise CheckpointError("AX812", message, "such as `bpe:4096`")
    size = int(match[1])
    return keep(
        cache / "tokenizers" / f"{digest[:32]}-{size}",
        lambda folder: _train(size, texts, folder),
        whole=lambda folder: all((folder / name).is_file() for name in _FILES),
    )


def _train(size: int, texts: Callable[[], Iterable[str]], folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    end = SPECIAL_TOKENS[0]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
    }
    for name, content in zip(_FILES, (tokenizer.to_str(pretty=True), json.dumps(config, indent=2)), strict=True):
        write_file(folder / name, [content.encode()])
