"""Other tokens for a model: those of a text, with a smaller tokenizer, or those of another tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._generation import GENERATION_FILE, read_generation
from axon_compose.checkpoints.files._tokenizer import tokenizer_files
from axon_compose.checkpoints.files._tokenizer_files import TokenizerFiles
from axon_compose.checkpoints.folder import usual_tokenizer
from axon_compose.learn.data import Sources

__all__ = ["NewTokens", "Uncut", "cut", "replaced"]

#: Files that say the same as `tokenizer.json`, for tokens as they were.
_STALE: Final = frozenset(
    {"vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "added_tokens.json"}
)
_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")
_ROLES: Final = ("bos_token_id", "eos_token_id", "pad_token_id")
_KINDS: Final = ("BPE", "Unigram", "WordPiece", "WordLevel")
#: Documents that are encoded together.
_TOGETHER: Final = 256


class Uncut(Exception):
    """A tokenizer that cannot be made smaller."""


@dataclass(frozen=True)
class NewTokens:
    """The tokens of an edited model.

    Attributes:
        files: Those of the tokenizer.
        rows: For each token those of the source whose rows it has: one, several whose mean it has, or none.
    """

    files: Mapping[str, bytes]
    rows: tuple[tuple[int, ...], ...]

    @property
    def same(self) -> tuple[int, ...]:
        """For each token that of the source, or -1."""
        return tuple(rows[0] if len(rows) == 1 else -1 for rows in self.rows)


def cut(home: Path, texts: Sources, rows: int) -> NewTokens:
    """The tokens that occur in texts, and those that any text or prompt needs, with a tokenizer of these.

    Texts that were looked at give the same tokens as before; others give more and shorter ones.

    Args:
        home: Folder or GGUF file with the tokenizer.
        texts: What to look at.
        rows: Of the embedding.

    Raises:
        CheckpointError: AX542 there is no tokenizer; AX810 a text cannot be read.
        Uncut: It is of a kind that cannot be made smaller.
    """
    files = tokenizer_files(usual_tokenizer(home), 2**31)
    if "tokenizer.json" not in files:
        raise Uncut("there is no tokenizer beside the weights")
    data = json.loads(files["tokenizer.json"])
    kind = data["model"].get("type") or ("BPE" if "merges" in data["model"] else "WordLevel")
    if kind not in _KINDS:
        raise Uncut(f"a tokenizer of the type {kind} is not known")
    tokens = _tokens(data)
    names = {number: token for token, number in tokens.items()}
    wanted = {names[number] for number in _used(files, texts) if number in names}
    wanted |= {token["content"] for token in data.get("added_tokens") or () if token.get("special")}
    wanted |= {names[number] for role in _ROLES for number in _numbers(files.ids.get(role)) if number in names}
    wanted |= _needed(data, tokens) & tokens.keys()
    kept = sorted(tokens[token] for token in _with_parts(data, wanted) if tokens[token] < rows)
    new = {old: number for number, old in enumerate(kept)}
    return NewTokens(_smaller(files, data, names, new) | _generation(home, new), tuple((old,) for old in kept))


def _used(files: TokenizerFiles, texts: Sources) -> set[int]:
    """Every token of the texts."""
    tokenizer = _loaded(files)
    found: set[int] = set()
    waiting: list[str] = []
    for text in texts.documents():
        waiting.append(text)
        if len(waiting) == _TOGETHER:
            found.update(*(each.ids for each in tokenizer.encode_batch_fast(waiting, add_special_tokens=False)))
            waiting = []
    return found.union(*(each.ids for each in tokenizer.encode_batch_fast(waiting, add_special_tokens=False)))


def _loaded(files: Mapping[str, bytes]) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.encode_special_tokens = True
    return tokenizer


def _tokens(data: Mapping[str, Any]) -> dict[str, int]:
    """Every token with its id."""
    vocab = data["model"]["vocab"]
    found = {piece: number for number, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return found | {token["content"]: token["id"] for token in data.get("added_tokens") or ()}


def _needed(data: Mapping[str, Any], tokens: Mapping[str, int]) -> set[str]:
    """Tokens without which some texts could not be written: single bytes, or else single characters."""
    model = data["model"]
    unknown = model.get("unk_token")
    found = {unknown} if unknown else set()
    if isinstance(model["vocab"], list) and model.get("unk_id") is not None:
        found.add(model["vocab"][model["unk_id"]][0])
    of_bytes = {token for token in tokens if _BYTE.fullmatch(token)}
    return found | (of_bytes if len(of_bytes) == 256 else {token for token in tokens if len(token) == 1})


def _with_parts(data: Mapping[str, Any], wanted: set[str]) -> set[str]:
    """The same with all that is merged on the way to them."""
    if "merges" not in data["model"]:
        return wanted
    parts: dict[str, list[str]] = {}
    for left, right, whole in _merges(data):
        parts.setdefault(whole, []).extend((left, right))
    found, left_over = set(wanted), list(wanted)
    while left_over:
        for part in parts.get(left_over.pop(), ()):
            if part not in found:
                found.add(part)
                left_over.append(part)
    return found


def _merges(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Both parts of each merge, and what comes of them."""
    prefix = data["model"].get("continuing_subword_prefix") or ""
    for merge in data["model"]["merges"]:
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        yield left, right, left + right.removeprefix(prefix)


def _smaller(
    files: TokenizerFiles, data: dict[str, Any], names: Mapping[int, str], new: Mapping[int, int]
) -> dict[str, bytes]:
    """The files of a tokenizer with some of its tokens, under new numbers."""
    model, ids = data["model"], {names[old]: number for old, number in new.items()}
    vocab = model["vocab"]
    if isinstance(vocab, list):
        unknown = model.get("unk_id")
        model["vocab"] = [pair for pair in vocab if pair[0] in ids]
        model["unk_id"] = None if unknown is None else ids[vocab[unknown][0]]
    else:
        model["vocab"] = {token: ids[token] for token in sorted(vocab, key=vocab.get) if token in ids}
    if "merges" in model:
        pairs = zip(model["merges"], _merges(data), strict=True)
        model["merges"] = [merge for merge, parts in pairs if all(part in ids for part in parts)]
    data["added_tokens"] = [
        token | {"id": ids[token["content"]]} for token in data.get("added_tokens") or () if token["content"] in ids
    ]
    data["post_processor"] = _renumbered(data.get("post_processor"), ids)
    if isinstance(data.get("padding"), dict):
        data["padding"]["pad_id"] = ids.get(data["padding"].get("pad_token"), 0)
    found = {name: content for name, content in files.items() if name not in _STALE}
    found["tokenizer.json"] = json.dumps(data, ensure_ascii=False).encode()
    config = json.loads(found.get("tokenizer_config.json", b"{}"))
    if isinstance(decoder := config.get("added_tokens_decoder"), dict):
        known = {str(old): str(number) for old, number in new.items()}
        config["added_tokens_decoder"] = {known[old]: token for old, token in decoder.items() if old in known}
        found["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False, indent=2).encode()
    return found


def _renumbered(part: Any, ids: Mapping[str, int]) -> Any:
    """What a post-processor adds, by the new numbers: `["</s>", 2]`, or `{"ids": [2], "tokens": ["</s>"]}`."""
    if isinstance(part, dict):
        found = {key: _renumbered(value, ids) for key, value in part.items()}
        if isinstance(tokens := found.get("tokens"), list) and "ids" in found:
            found["ids"] = [ids[token] for token in tokens]
        return found
    if isinstance(part, list):
        if len(part) == 2 and isinstance(part[0], str) and type(part[1]) is int and part[0] in ids:
            return [part[0], ids[part[0]]]
        return [_renumbered(each, ids) for each in part]
    return part


def _generation(home: Path, new: Mapping[int, int]) -> dict[str, bytes]:
    """The tokens that end a text, by their new numbers."""
    found = {}
    for role, value in read_generation(home).items() if home.is_dir() else ():
        numbers = [new[old] for old in _numbers(value) if old in new] if role in _ROLES else []
        if numbers:
            found[role] = numbers if isinstance(value, list) else numbers[0]
    return {GENERATION_FILE: json.dumps(found).encode()} if found else {}


def _numbers(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def replaced(home: Path, folder: Path, rows: int) -> NewTokens:
    """The tokens of another tokenizer: those that are the same, and the pieces that make up the others.

    Args:
        home: Folder or GGUF file with the tokenizer of the source.
        folder: That of the new one.
        rows: Of the source's embedding.

    Raises:
        CheckpointError: AX542 one of them cannot be used.
    """
    old, new = tokenizer_files(usual_tokenizer(home), 2**31), tokenizer_files(folder, 2**31)
    spelled = _spelled(old)
    known = {spelling: number for number, spelling in spelled.items() if number < rows}
    tokenizer = _loaded(old)
    found: list[tuple[int, ...]] = [()] * new.ids["vocab_size"]
    for number, spelling in _spelled(new).items():
        if spelling in known:
            found[number] = (known[spelling],)
        else:
            text = spelling.decode(errors="ignore") if isinstance(spelling, bytes) else spelling
            pieces = tokenizer.encode(text, add_special_tokens=False).ids if text else []
            found[number] = tuple(piece for piece in pieces if piece < rows)
    _of_roles(found, old, new)
    return NewTokens(dict(new), tuple(found))


def _of_roles(found: list[tuple[int, ...]], old: TokenizerFiles, new: TokenizerFiles) -> None:
    """Tokens that begin, end and fill texts are those of the same role, whatever they are called."""
    for role in _ROLES:
        one, other = _numbers(old.ids.get(role)), _numbers(new.ids.get(role))
        if one and other and len(found[other[0]]) != 1:
            found[other[0]] = (one[0],)


def _spelled(files: Mapping[str, bytes]) -> dict[int, bytes | str]:
    """Every token by its bytes; added ones by their text."""
    data = json.loads(files["tokenizer.json"])
    added = {token["id"]: token["content"] for token in data.get("added_tokens") or ()}
    of_bytes = "ByteLevel" in json.dumps([data.get("decoder"), data.get("pre_tokenizer")])
    table = _byte_level() if of_bytes else {}
    found: dict[int, bytes | str] = {}
    for token, number in _tokens(data).items():
        if number in added:
            found[number] = token
        elif match := _BYTE.fullmatch(token):
            found[number] = bytes([int(match[1], 16)])
        elif of_bytes and all(character in table for character in token):
            found[number] = bytes(table[character] for character in token)
        else:
            found[number] = token.replace("\u2581", " ").encode()
    return found


def _byte_level() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes as (Radford et al. 2019, "GPT-2")."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in shown}
    hidden: Iterable[int] = (byte for byte in range(256) if byte not in shown)
    return table | {chr(256 + number): byte for number, byte in enumerate(hidden)}
