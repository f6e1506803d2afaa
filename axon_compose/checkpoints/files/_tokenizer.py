"""The tokenizer of a model folder: one token per byte, written here, or the files of an existing one, copied."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files import _disk
from axon_compose.checkpoints.files._record import dump_json
from axon_compose.diagnostics import CheckpointError

__all__ = ["BYTES", "TokenizerFiles", "byte_tokenizer", "copied_tokenizer", "tokenizer_files", "write_tokenizer"]

#: Names of the tokenizers that are made here.
BYTES: Final = ("bytes", "bytes-chat")
#: Token ids follow the 256 bytes in this order.
SPECIAL_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{ '<|im_start|>assistant\\n' }}\n"
    "{%- endif -%}\n"
)

#: Data files that transformers reads; Python files are not among them.
_COPIED: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
_MAX_BYTES: Final = 256 * 1024 * 1024


class TokenizerFiles(dict[str, bytes]):
    """File name to content, and what a model's config needs to know.

    Attributes:
        ids: `eos_token_id`, `bos_token_id`, `pad_token_id` where there are such tokens, and `vocab_size`, the highest
            token id plus one.
    """

    def __init__(self, files: dict[str, bytes], ids: dict[str, Any]) -> None:
        super().__init__(files)
        self.ids = ids


def write_tokenizer(folder: Path, choice: str | Path, vocab_size: int) -> dict[str, Any]:
    """Write a tokenizer into a model folder.

    Args:
        folder: The model folder.
        choice: `bytes`, `bytes-chat` (the same with a chat template), or a folder with a `tokenizer.json`.
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


def tokenizer_files(choice: str | Path, vocab_size: int) -> TokenizerFiles:
    """The files that `write_tokenizer` writes; raises the same errors, writes nothing."""
    made = choice in BYTES
    files = byte_tokenizer(chat=choice == "bytes-chat") if made else copied_tokenizer(Path(choice))
    if files.ids["vocab_size"] > vocab_size:
        message = f"the tokenizer has {files.ids['vocab_size']} tokens, the model {vocab_size}"
        raise CheckpointError("AX541", message, f"set `vocab_size` to {files.ids['vocab_size']} or more")
    return files


def byte_tokenizer(*, chat: bool = False) -> TokenizerFiles:
    """A tokenizer without training: token id b is the byte b, then three special tokens; every text comes back.

    Args:
        chat: With a template that wraps the turns of a chat in special tokens, as a model expects that was trained on
            them. A base model's prompt is left as it is.
    """
    letters = _byte_letters()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    specials = {token: 256 + i for i, token in enumerate(SPECIAL_TOKENS)}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for token, number in specials.items()],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {letters[byte]: byte for byte in range(256)},
            "merges": [],
        },
    }
    end = SPECIAL_TOKENS[0]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
    }
    first = specials[end]
    ids: dict[str, Any] = {"bos_token_id": first, "eos_token_id": first, "pad_token_id": first}
    ids["vocab_size"] = 256 + len(specials)
    if chat:
        config["chat_template"] = CHAT_TEMPLATE
        ids["eos_token_id"] = [first, specials["<|im_end|>"]]  # the end of a text, and of a turn
    return TokenizerFiles({"tokenizer.json": dump_json(tokenizer), "tokenizer_config.json": dump_json(config)}, ids)


def _byte_letters() -> list[str]:
    """The visible letter that stands for each byte: itself in Latin-1 where visible, else one from U+0100 on.

    Source: Radford et al. 2019, the byte-level BPE of GPT-2.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = (chr(0x100 + i) for i in range(256))
    return [chr(byte) if byte in visible else next(rest) for byte in range(256)]


def copied_tokenizer(folder: Path) -> TokenizerFiles:
    """Read the tokenizer files of a folder: plain files in it, or in the blob store beside a Hugging Face snapshot.

    Raises:
        CheckpointError: AX542.
    """
    files = {name: content for name in _COPIED if (content := _read(folder, name)) is not None}
    if "tokenizer.json" not in files:
        advice = "save it once with transformers: `AutoTokenizer.from_pretrained(…).save_pretrained(DIR)`"
        raise CheckpointError("AX542", f"`{folder}` has no `tokenizer.json`", advice)
    tokenizer = _parse(folder / "tokenizer.json", files["tokenizer.json"])
    config = _parse(folder / "tokenizer_config.json", files.get("tokenizer_config.json", b"{}"))
    named = _parse(folder / "special_tokens_map.json", files.get("special_tokens_map.json", b"{}"))
    try:
        tokens = dict(_tokens(tokenizer))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError("AX542", f"`{folder / 'tokenizer.json'}` has no vocabulary that can be read") from error
    ids: dict[str, Any] = {"vocab_size": max(tokens.values(), default=-1) + 1}
    for role in ("bos", "eos", "pad"):
        token = config.get(f"{role}_token") or named.get(f"{role}_token")
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text in tokens:
            ids[f"{role}_token_id"] = tokens[text]
    return TokenizerFiles(files, ids)


def _read(folder: Path, name: str) -> bytes | None:
    """The content of a file, None if there is none; a link must not lead out of the folder or its blob store."""
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


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError("AX542", f"`{path}` is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError("AX542", f"`{path}` is not a JSON object")
    return value


def _tokens(tokenizer: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every token with its id; a unigram vocabulary is a list of pairs, all others map token to id."""
    vocab = tokenizer["model"]["vocab"]
    pairs = ((piece, i) for i, (piece, _) in enumerate(vocab)) if isinstance(vocab, list) else vocab.items()
    yield from ((str(token), int(number)) for token, number in pairs)
    yield from ((token["content"], int(token["id"])) for token in tokenizer.get("added_tokens") or ())
