"""The tokenizer of an existing folder: its data files, without what names code."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._converted_tokenizer import SOURCES, converted
from axon_compose.checkpoints.files._record import dump_json
from axon_compose.checkpoints.files._tokenizer_class import with_own_class
from axon_compose.checkpoints.files._tokenizer_files import TokenizerFiles
from axon_compose.checkpoints.files._trust import without_code
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.diagnostics import CheckpointError

__all__ = ["copied_tokenizer", "has_tokenizer", "read_data_file"]

#: Data files that transformers reads; Python files are not among them.
_COPIED: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
#: What is read beside these to make a `tokenizer.json` where there is none.
_CONVERTED: Final = ("config.json", "sentencepiece.bpe.model", "tiktoken.model", "tekken.json")
_MAX_BYTES: Final = 256 * 1024 * 1024


def copied_tokenizer(folder: Path) -> TokenizerFiles:
    """Read the tokenizer files of a folder: plain files in it, or in the blob store beside a Hugging Face snapshot.

    Those of a GGUF file are made of its metadata.

    Without a `tokenizer.json` it is made by transformers from what there is. Fields that name code are left out, and
    the class of a tokenizer is the one that it has beside the folder's config.json.

    Raises:
        CheckpointError: AX542.
    """
    if is_gguf(folder):
        from axon_compose.checkpoints.gguf._tokenizer import tokenizer_of_gguf

        return _described(folder, tokenizer_of_gguf(folder), [])
    files = {name: content for name in _COPIED if (content := read_data_file(folder, name)) is not None}
    if "tokenizer.json" not in files:
        more = {name: content for name in _CONVERTED if (content := read_data_file(folder, name)) is not None}
        try:
            files = converted({name: _clean(folder / name, content)[0] for name, content in (files | more).items()})
        except ValueError as error:
            raise _unusable(folder, str(error)) from error
    cleaned = {name: _clean(folder / name, content) for name, content in files.items()}
    notes = [
        f"left `{field}` out of {name}: it names code, and this folder is opened with trust"
        for name, (_, left_out) in cleaned.items()
        for field in left_out
    ]
    files = {name: content for name, (content, _) in cleaned.items()}
    return _described(folder, files | _named(folder, files), notes)


def _named(folder: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """A `tokenizer_config.json` whose class is right in a folder of another model type, if it has to be changed."""
    name, beside = "tokenizer_config.json", read_data_file(folder, "config.json")
    if name not in files or beside is None:
        return {}
    before = _parse(folder / name, files[name])
    after = with_own_class(before, _parse(folder / "config.json", beside).get("model_type"))
    return {} if after is before else {name: dump_json(after, in_order=True)}


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has any file of a tokenizer, usable or not, or a GGUF file one in its metadata."""
    if is_gguf(folder):
        from axon_compose.checkpoints.gguf._tokenizer import has_gguf_tokenizer

        return has_gguf_tokenizer(folder)
    named = (set(_COPIED) | set(_CONVERTED)) - {"config.json"}
    return any((folder / name).exists() for name in named) or bool(_foreign(folder))


def _unusable(folder: Path, why: str) -> CheckpointError:
    """AX542 of a folder whose tokenizer cannot be had."""
    foreign = _foreign(folder)
    has = f"; `{foreign[0]}` is not a format that transformers reads without code of the checkpoint" if foreign else ""
    hint = (
        "give one with `--tokenizer DIR`, or ask for one token per byte with `--tokenizer bytes`, or for no tokenizer "
        "with `--tokenizer none`"
    )
    return CheckpointError("AX542", f"`{folder}` has no tokenizer that can be used: {why}{has}", hint)


def _foreign(folder: Path) -> list[str]:
    """Vocabularies and code of tokenizers that only their own code reads."""
    if not folder.is_dir():
        return []
    known = {name for source in SOURCES for name in source} | set(_COPIED)
    found = (path.name for path in folder.iterdir() if path.name not in known)
    return sorted(name for name in found if "vocab" in name or "tokeniz" in name.lower())


def _described(folder: Path, files: dict[str, bytes], notes: list[str]) -> TokenizerFiles:
    """The files with the ids that a config needs."""
    tokenizer = _parse(folder / "tokenizer.json", files["tokenizer.json"])
    config = _parse(folder / "tokenizer_config.json", files.get("tokenizer_config.json", b"{}"))
    named = _parse(folder / "special_tokens_map.json", files.get("special_tokens_map.json", b"{}"))
    try:
        vocabulary, added = dict(_vocabulary(tokenizer)), dict(_added(tokenizer))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError("AX542", f"`{folder / 'tokenizer.json'}` has no vocabulary that can be read") from error
    tokens = vocabulary | added
    ids: dict[str, Any] = {"vocab_size": max(tokens.values(), default=-1) + 1}
    for role in ("bos", "eos", "pad"):
        token = config.get(f"{role}_token") or named.get(f"{role}_token")
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text in tokens:
            ids[f"{role}_token_id"] = tokens[text]
    return TokenizerFiles(files, ids, added, notes)


def read_data_file(folder: Path, name: str) -> bytes | None:
    """The content of a file, None if there is none; a link must not lead out of the folder or its blob store.

    Raises:
        CheckpointError: AX542.
    """
    path = folder / name
    try:
        root = folder.resolve(strict=True)
        if not path.exists():
            return None
        roots = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
        real = path.resolve(strict=True)
        if real.parent not in roots:
            raise CheckpointError("AX542", f"`{path}` is a link that points outside its folder", "copy the file there")
        status = real.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise CheckpointError("AX542", f"`{path}` is not a file of reasonable size")
        return real.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError("AX542", f"cannot read the tokenizer `{path}`: {reason}") from error


def _clean(path: Path, content: bytes) -> tuple[bytes, list[str]]:
    """A JSON file without what names code, the same bytes if nothing does; other files as they are."""
    if path.suffix != ".json" or path.name in ("tokenizer.json", "vocab.json", "tekken.json"):
        return content, []  # vocabularies: their keys are tokens
    value, left_out = without_code(_parse(path, content))
    return (dump_json(value, in_order=True) if left_out else content), left_out


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError("AX542", f"`{path}` is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError("AX542", f"`{path}` is not a JSON object")
    return value


def _vocabulary(tokenizer: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every token with its id; a unigram vocabulary is a list of pairs, all others map token to id."""
    vocab = tokenizer["model"]["vocab"]
    pairs = ((piece, i) for i, (piece, _) in enumerate(vocab)) if isinstance(vocab, list) else vocab.items()
    yield from ((str(token), int(number)) for token, number in pairs)


def _added(tokenizer: dict[str, Any]) -> Iterator[tuple[str, int]]:
    yield from ((token["content"], int(token["id"])) for token in tokenizer.get("added_tokens") or ())
