"""The tokenizer in the metadata of a GGUF file as the files that transformers and mlx_lm read.

transformers' own converter builds it (`transformers.integrations.gguf`, 5.24). What it leaves out of llama.cpp's rules
is added here: a token at the start of every text, words that are tokens whatever the merges say, digits one by one, and
no space in front.
Source: llama.cpp, `src/llama-vocab.cpp`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._record import dump_json
from axon_compose.checkpoints.gguf._header import GgufFile, read_gguf
from axon_compose.checkpoints.gguf._splits import SPLITS
from axon_compose.diagnostics import CheckpointError

__all__ = ["has_gguf_tokenizer", "tokenizer_of_gguf"]

#: Names in `tokenizer.ggml.pre` whose texts are split as GPT-2 splits them.
_AS_GPT2: Final = frozenset({
    "", "default", "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
    "modern-bert", "mpt", "olmo", "jais", "exaone4", "trillion", "granite-docling", "gpt-neox",
})  # fmt: skip
#: Those where every digit is a word of its own besides.
_DIGITS: Final = frozenset({"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"})
#: Those that split as another one does that the converter knows.
_SAME: Final = {
    "glm4": "llama-bpe", "chatglm-bpe": "llama-bpe", "stablelm2": "qwen2", "hunyuan": "qwen2", "grok-2": "qwen2",
}  # fmt: skip
#: Those of Llama 3 and Tekken: a word that is a token stays one, and a text begins with the first token.
_WHOLE_WORDS: Final = frozenset({
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken",
})  # fmt: skip
#: Names of the tokens in tokenizer_config.json, and the keys of their ids.
_ROLES: Final = {
    "bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}  # fmt: skip
_TEMPLATE: Final = "tokenizer.chat_template"
_PREFIX: Final = "tokenizer.ggml."


def has_gguf_tokenizer(path: Path) -> bool:
    """Whether a GGUF file says anything of a tokenizer."""
    return f"{_PREFIX}model" in read_gguf(path).metadata


def tokenizer_of_gguf(path: Path) -> dict[str, bytes]:
    """The files tokenizer.json, tokenizer_config.json and, where there is a template, chat_template.jinja.

    Raises:
        CheckpointError: AX542 there is none, it is of a kind that is not known, or contradicts itself.
    """
    file = read_gguf(path)
    keys = {key.removeprefix(_PREFIX): value for key, value in file.metadata.items() if key.startswith(_PREFIX)}
    tokens = keys.get("tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise _unusable(file, "the metadata has no list of tokens")
    named = {role: keys.get(key) for role, key in _ROLES.items()}
    for role, number in named.items():
        if number is not None and (type(number) is not int or not 0 <= number < len(tokens)):
            raise _unusable(file, f"`{role}` is the token {str(number)[:20]}, of {len(tokens)}")
    backend = _backend(file, keys)
    first = named["bos_token"] if _starts(keys) else None
    if first is not None:
        _begin_with(backend, tokens[first], first)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": first is not None,
        **{role: tokens[number] for role, number in named.items() if number is not None},
    }
    if isinstance(length := file.metadata.get(f"{file.architecture}.context_length"), int):
        config["model_max_length"] = length
    files = {"tokenizer.json": backend.to_str().encode(), "tokenizer_config.json": dump_json(config, in_order=True)}
    if isinstance(template := file.metadata.get(_TEMPLATE), str):
        files["chat_template.jinja"] = template.encode()
    return files


def _backend(file: GgufFile, keys: dict[str, Any]) -> Any:
    """The tokenizer of the library `tokenizers`."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import (
            GGUF_PRE_TOKENIZER_SPLITS,
            GGUF_TOKENIZER_MAPPING,
            convert_gguf_tokenizer,
        )
    except ImportError as error:
        raise _unusable(file, "transformers is older than 5.24, which has the converter") from error
    model, pre = keys.get("model"), str(keys.get("pre", ""))
    known = _AS_GPT2 | _DIGITS | _WHOLE_WORDS | SPLITS.keys() | _SAME.keys() | GGUF_PRE_TOKENIZER_SPLITS.keys()
    if model == "gpt2" and pre not in known:
        raise _unusable(file, f"`tokenizer.ggml.pre` is `{pre[:40]}`, a way to split texts that is not known")
    keys = {**keys, "pre": _SAME.get(pre, pre)}
    names = GGUF_TOKENIZER_MAPPING["tokenizer"]
    given = {name: keys[key] for key, name in ((k.removeprefix("ggml."), n) for k, n in names.items()) if key in keys}
    try:
        backend, _ = convert_gguf_tokenizer(file.architecture, given)
    except Exception as error:  # a library of others, on data of others
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise _unusable(file, f"transformers cannot convert it ({reason})") from error
    if model == "gpt2":
        _split_as(backend, pre)
    elif model == "llama" and keys.get("add_space_prefix") is False and not file.architecture.startswith("gemma"):
        _without_space(backend)
    return backend


def _split_as(backend: Any, pre: str) -> None:
    """What a kind of byte-level BPE does besides the expression that splits texts."""
    from tokenizers import Regex, pre_tokenizers

    if pre in SPLITS:
        steps = [pre_tokenizers.Split(Regex(text), "isolated") for text in SPLITS[pre]]
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, words])
    if pre in _DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    if pre in _WHOLE_WORDS:
        backend.model.ignore_merges = True


def _without_space(backend: Any) -> None:
    """A SentencePiece vocabulary whose texts get no space in front."""
    from tokenizers import decoders, normalizers, pre_tokenizers

    if backend.normalizer is not None:
        backend.normalizer = normalizers.Replace(" ", "\u2581")
        backend.pre_tokenizer = None
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="never", split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps)


def _starts(keys: dict[str, Any]) -> bool:
    """Whether every text begins with the first token, where the file does not say as llama.cpp does."""
    given = keys.get("add_bos_token")
    if isinstance(given, bool):
        return given
    return keys.get("model") == "llama" or str(keys.get("pre", "")) in _WHOLE_WORDS


def _begin_with(backend: Any, token: str, number: int) -> None:
    from tokenizers import processors

    name = "<begin>"  # in the template alone, where a token with a colon would be read as one with a type
    special = {"id": name, "ids": [number], "tokens": [token]}
    backend.post_processor = processors.TemplateProcessing(
        single=[name, "$A"], pair=[name, "$A", name, "$B"], special_tokens=[special]
    )


def _unusable(file: GgufFile, why: str) -> CheckpointError:
    hint = (
        "give one with `--tokenizer DIR`, or ask for one token per byte with `--tokenizer bytes`, or for no tokenizer "
        "with `--tokenizer none`"
    )
    return CheckpointError("AX542", f"`{file.path}` has no tokenizer that can be used: {why}", hint)
