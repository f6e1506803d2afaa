"""Tokenizers without a tokenizer.json: converted as transformers does, or refused by name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from axon_compose.checkpoints.files import CheckpointError, write_tokenizer

TEXT = [
    "the quick brown fox jumps over the lazy dog", "pack my box with five dozen jugs", "a state and a window",
    "tokens are numbers", "the weights are the same", "numbers are not words", "what the fox says of the dog",
]  # fmt: skip
PROMPTS = [*TEXT, "the  numbers", "fox, dog!", " lead", "windows of states"]


def sentencepiece_model(kind: str) -> bytes:
    """A SentencePiece model trained on `TEXT`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 20), model_writer=model, vocab_size=90, model_type=kind, minloglevel=2,
        byte_fallback=False, hard_vocab_limit=False,
    )  # fmt: skip
    return model.getvalue()


def tokenizer_in(folder: Path, vocab_size: int = 1000) -> Any:
    """What a built folder's tokenizer is to transformers."""
    out = folder / "out"
    out.mkdir()
    write_tokenizer(out, folder, vocab_size)
    (out / "config.json").write_text('{"model_type": "axon_compose"}')
    return AutoTokenizer.from_pretrained(out)


@pytest.mark.parametrize(("model_type", "kind"), [("llama", "bpe"), ("gemma", "bpe"), ("mistral", "bpe")])
def test_a_sentencepiece_model(model_type: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(kind))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    expected = AutoTokenizer.from_pretrained(tmp_path)
    ours = tokenizer_in(tmp_path)
    assert [ours.encode(text) for text in PROMPTS] == [expected.encode(text) for text in PROMPTS]
    if model_type == "llama":  # gemma adds no space before a text
        truth = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(kind))
        assert [ours.encode(text, add_special_tokens=False) for text in TEXT] == [truth.encode(text) for text in TEXT]


@pytest.mark.parametrize("model_type", ["gpt2", "qwen2"])
def test_a_vocabulary_with_merges(model_type: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=letters, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    tokenizer.model.save(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours = tokenizer_in(tmp_path)
    assert [ours.encode(text) for text in TEXT] == [tokenizer.encode(text).ids for text in TEXT]
    assert [ours.decode(ours.encode(text)) for text in PROMPTS] == PROMPTS


#: How OLMo 2 and Granite split text, whose files name GPT-2's class: numbers in threes, line breaks together.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize(
    ("model_type", "named", "kept"),
    [
        ("olmo2", "GPT2Tokenizer", False),
        ("granite", "GPT2TokenizerFast", False),
        ("phi3", "LlamaTokenizer", False),
        ("qwen2", "GPT2Tokenizer", False),
        ("olmo2", "PreTrainedTokenizerFast", True),
        ("llama", "GPT2Tokenizer", True),
        ("gpt2", "GPT2TokenizerFast", True),
        ("qwen3", "Qwen2Tokenizer", True),
    ],
)
def test_a_class_that_depends_on_the_model_type(model_type: str, named: str, kept: bool, tmp_path: Path) -> None:
    """transformers splits a text in our folder as in the one that the tokenizer comes from."""
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(["in 2024 and\n\n\nthen 12345"] * 5, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    described = {"tokenizer_class": named, "model_max_length": 64}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    expected = AutoTokenizer.from_pretrained(tmp_path)
    ours = tokenizer_in(tmp_path)
    text = "in 2024 and\n\n\nthen 12345"
    assert ours.encode(text) == expected.encode(text)
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (written == described) is kept
    assert list(written) == list(described)


def test_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    (tmp_path / "rwkv_vocab_v20230424.txt").write_text("1 'a' 1\n")
    (tmp_path / "tokenization_rwkv.py").write_text("raise SystemExit('this file is not run')")
    with pytest.raises(CheckpointError) as error:
        write_tokenizer(tmp_path, tmp_path, 300)
    assert error.value.code == "AX542"
    assert "`rwkv_vocab_v20230424.txt` is not a format" in error.value.message
    assert "--tokenizer bytes" in str(error.value.help)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "none of `tokenizer.json`, `tokenizer.model`"),
        ({"tokenizer_config.json": b'{"tokenizer_class": "LlamaTokenizer"}'}, "none of `tokenizer.json`"),
        ({"vocab.json": b'{"a": 0}'}, "`vocab.json` with `merges.txt`"),
        ({"tokenizer.model": b"not a model"}, "transformers cannot convert `tokenizer.model`"),
        ({"tekken.json": b"{}"}, "transformers cannot convert `tekken.json`"),
        ({"vocab.json": b"{}", "merges.txt": b"a b\n"}, "transformers cannot convert `vocab.json` with `merges.txt`"),
    ],
)
def test_no_tokenizer_that_can_be_used(files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        write_tokenizer(tmp_path, tmp_path, 300)
    assert error.value.code == "AX542"
    assert says in error.value.message
    assert str(tmp_path) not in error.value.message.removeprefix(f"`{tmp_path}`")
    # A reason in several lines is not cut off at the end of the first.
    assert not error.value.message.rstrip(") ").endswith(":")
    assert "\n" not in error.value.message
