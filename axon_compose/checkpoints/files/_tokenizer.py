"""The tokenizer of a model folder: one token per byte, that of another folder, copied or converted, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.files import _disk
from axon_compose.checkpoints.files._byte_tokenizer import byte_tokenizer
from axon_compose.checkpoints.files._copied_tokenizer import copied_tokenizer
from axon_compose.checkpoints.files._tokenizer_files import TokenizerFiles
from axon_compose.diagnostics import CheckpointError

__all__ = ["BYTES", "is_tokenizer_of", "tokenizer_files", "tokenizer_folder", "write_tokenizer"]

#: Names of the tokenizers that are made here.
BYTES = ("bytes", "bytes-chat")

#: Tokens that are produced at the begin and end of every text.
_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_tokenizer(folder: Path, choice: str | Path, vocab_size: int) -> dict[str, Any]:
    """Write a tokenizer into a model folder.

    Args:
        folder: The model folder.
        choice: `bytes`, `bytes-chat` (the same with a chat template), `none`, or a folder with the files of a
            tokenizer.
        vocab_size: Rows of the model's embedding.

    Returns:
        The ids, see `TokenizerFiles`.

    Raises:
        CheckpointError: AX541 the model has fewer tokens than the tokenizer; AX542 the files cannot be used.
        OSError: The disk failed.
    """
    files = tokenizer_files(choice, vocab_size)
    for name, content in files.items():
        _disk.write_file(folder / name, [content])
    return files.ids


def tokenizer_files(choice: str | Path, vocab_size: int, *, trained: bool = False) -> TokenizerFiles:
    """The files that `write_tokenizer` writes; raises the same errors, writes nothing.

    Args:
        choice: As for `write_tokenizer`.
        vocab_size: Rows of the model's embedding.
        trained: Whether the weights are there already, so that their number of rows is not to be chosen.
    """
    if choice == "none":
        return TokenizerFiles({}, {"vocab_size": 0})
    if choice in BYTES:
        files = byte_tokenizer(chat=choice == "bytes-chat")
        own = "choose" if trained else "set `dims.vocab_size` to 259 or more, choose"
        hint = f"{own} a smaller tokenizer with `--tokenizer DIR`, or write none with `--tokenizer none`"
    else:
        files = copied_tokenizer(Path(choice))
        hint = "the tokenizer is that of another model: `--tokenizer` takes one"
    _check_size(files, vocab_size, hint)
    return files


def tokenizer_folder(choice: str | Path) -> Path | None:
    """The folder that a choice of tokenizer names, if it names one."""
    return None if choice in (*BYTES, "none") else Path(choice)


def is_tokenizer_of(home: Path | None, choice: str | Path) -> bool:
    """Whether a choice of tokenizer is that of the folder that the weights come from."""
    folder = tokenizer_folder(choice)
    return home is not None and folder is not None and home.resolve() == folder.resolve()


def _check_size(files: TokenizerFiles, rows: int, hint: str) -> None:
    """Every token that a text can give needs a row of the embedding.

    Added tokens without one are accepted with a note, since only a prompt with their literal text reaches them: the
    image token of Gemma 3 1B, the infilling tokens of CodeLlama 34B.
    """
    count = files.ids["vocab_size"]
    if count <= rows:
        return
    beyond = {token: number for token, number in files.added.items() if number >= rows}
    roles = {number for role in _ROLES for number in _numbers(files.ids.get(role))}
    if len(beyond) < count - rows or roles & set(beyond.values()):
        raise CheckpointError("AX541", f"the tokenizer has {count} tokens, the model {rows}", hint)
    names = ", ".join(f"`{token}`" for token in list(beyond)[:3])
    files.notes.append(
        f"the tokenizer has {count} tokens, the embedding {rows} rows: no prompt may contain {names}"
        + (f" or {len(beyond) - 3} others" if len(beyond) > 3 else "")
    )
    templates = _templates(files)
    if written := [token for token in beyond if token in templates]:
        files.notes.append(f"the chat template writes {', '.join(f'`{token}`' for token in written[:3])}")


def _templates(files: TokenizerFiles) -> str:
    """The chat templates of a tokenizer, one after the other."""
    found = [files.get("chat_template.jinja", b"").decode(errors="replace")]
    for name in ("tokenizer_config.json", "chat_template.json"):
        try:
            found.append(json.dumps(json.loads(files.get(name, b"{}"))["chat_template"], ensure_ascii=False))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return "\n".join(found)


def _numbers(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]
