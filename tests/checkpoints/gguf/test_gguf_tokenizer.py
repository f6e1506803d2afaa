"""Tokenizers out of the metadata: the tokens of a text are those of the vocabulary that it was written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from axon_compose.checkpoints.files._tokenizer import tokenizer_files
from axon_compose.checkpoints.gguf._tokenizer import _starts
from axon_compose.diagnostics import CheckpointError
from tests.checkpoints.gguf.writing import finish

TEXT = "State space, a window and 4096 experts:\n\n  describe,  trust, run. It's 12 o'clock — naïve café!"
CORPUS = [
    TEXT,
    "the tokens of the text are those of the vocabulary",
    "a window, an expert, a state " * 3,
    "it's o'clock",
]


def written(path: Path, **keys: Any) -> Path:
    """A GGUF file with a tokenizer alone."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(keys.pop("model"))
    writer.add_token_list(keys.pop("tokens"))
    for name, value in keys.items():
        getattr(writer, f"add_{name}")(value)
    finish(writer)
    return path


def byte_level(*before: Any) -> Tokenizer:
    """A trained BPE with a special token in front; words of GPT-2, after other splits unless those split all."""
    tokenizer = Tokenizer(models.BPE())
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=len(before) < 3)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, rest])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def of_bpe(path: Path, tokenizer: Tokenizer, **keys: Any) -> Path:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [" ".join(pair) for pair in model["merges"]]
    types = [3 if token == "<|end|>" else 1 for token in tokens]
    return written(
        path,
        model="gpt2",
        tokens=tokens,
        token_types=types,
        token_merges=merges,
        eos_token_id=0,
        bos_token_id=0,
        **keys,
    )


def read(path: Path) -> tuple[Tokenizer, dict[str, Any], Any]:
    files = tokenizer_files(path, 512)
    texts = dict(files.items())
    return Tokenizer.from_str(texts["tokenizer.json"].decode()), json.loads(texts["tokenizer_config.json"]), texts


#: The three splits of the tokenizer.json of DeepSeek-V3.
DEEPSEEK = [
    "\\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]


@pytest.mark.parametrize(
    ("pre", "before"),
    [
        ("gpt-2", []),
        ("smollm", [pre_tokenizers.Digits(individual_digits=True)]),
        ("deepseek-v3", [pre_tokenizers.Split(Regex(text), "isolated") for text in DEEPSEEK]),
    ],
)
def test_byte_level_bpe(pre: str, before: list[Any], tmp_path: Path) -> None:
    known = byte_level(*before)
    path = of_bpe(tmp_path / "m.gguf", known, tokenizer_pre=pre, chat_template="{{ messages }}")
    found, config, files = read(path)
    for text in (TEXT, "a<|end|>b", "  7 77  ", "1234567 日本の x\n\n (a)\r\n"):
        assert found.encode(text).ids == known.encode(text).ids
        plain = text.replace("<|end|>", "")
        assert found.pre_tokenizer.pre_tokenize_str(plain) == known.pre_tokenizer.pre_tokenize_str(plain)
        assert found.decode(found.encode(text).ids, skip_special_tokens=False) == text
    assert config["eos_token"] == "<|end|>"
    assert files["chat_template.jinja"] == b"{{ messages }}"


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("kimi-k2", ["日本語", "abc", " HTTPServer's", " ", "123", "45", "!!\n\n", "x"]),
        ("bailingmoe2", ["日本語abc", " HTTPServer", "'s", " ", "1", "2", "3", "4", "5", "!!\n\n", "x"]),
        ("seed-coder", ["日本語abc", " HTTPServer", "'s", " ", "1", "2", "3", "4", "5", "!!", "\n\n", "x"]),
        (
            "deepseek-coder",
            ["日本語", "abc", " HTTPServer", "'", "s", " ", "1", "2", "3", "4", "5", "!!", "\n", "\n", "x"],
        ),
        ("exaone4", ["日本語abc", " HTTPServer", "'s", " 12345", "!!", "\n", "\n", "x"]),
    ],
)
def test_texts_are_split_as_the_name_says(pre: str, words: list[str], tmp_path: Path) -> None:
    found, _, _ = read(of_bpe(tmp_path / "m.gguf", byte_level(), tokenizer_pre=pre))
    text = "日本語abc HTTPServer's 12345!!\n\nx"
    spans = [span for _, span in found.pre_tokenizer.pre_tokenize_str(text)]
    assert [text[start:end] for start, end in spans] == words


def test_a_text_begins_as_the_metadata_says(tmp_path: Path) -> None:
    known = byte_level()
    plain, config, _ = read(of_bpe(tmp_path / "a.gguf", known, tokenizer_pre="gpt-2"))
    begun, told, _ = read(of_bpe(tmp_path / "b.gguf", known, tokenizer_pre="gpt-2", add_bos_token=True))
    assert begun.encode("run").ids == [0, *plain.encode("run").ids]
    assert (config["add_bos_token"], told["add_bos_token"]) == (False, True)
    assert not _starts({"model": "gpt2", "pre": ["no", "text"]})


def test_sentencepiece(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs sentencepiece")
    (tmp_path / "corpus").write_text("\n".join(CORPUS * 5))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus"), model_prefix=str(tmp_path / "spm"), model_type="bpe", vocab_size=380,
        byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    known = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    count = known.GetPieceSize()
    kinds = [
        2 if known.IsUnknown(i) else 3 if known.IsControl(i) else 6 if known.IsByte(i) else 1 for i in range(count)
    ]
    path = written(
        tmp_path / "m.gguf", model="llama", tokens=[known.IdToPiece(i) for i in range(count)], token_types=kinds,
        token_scores=[known.GetScore(i) for i in range(count)], bos_token_id=1, eos_token_id=2, unk_token_id=0,
    )  # fmt: skip
    found, config, _ = read(path)
    for text in (TEXT.replace("\n\n", " "), "a window", "日本"):
        plain = " ".join(text.split())  # sentencepiece takes repeated spaces out by default
        assert found.encode(plain).ids == [1, *known.EncodeAsIds(plain)]
    assert config["add_bos_token"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model": "gpt2", "tokens": ["a", "b"], "tokenizer_pre": "spiral", "token_merges": []}, "`spiral`"),
        ({"model": "runes", "tokens": ["a", "b"]}, "transformers cannot convert it"),
        ({"model": "gpt2", "tokens": ["a", "b"], "token_merges": [], "eos_token_id": 7}, "is the token 7, of 2"),
    ],
)
def test_a_tokenizer_that_is_not_known_is_refused(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf", **keys)
    with pytest.raises(CheckpointError, match="AX542") as caught:
        tokenizer_files(path, 512)
    assert said in str(caught.value)
    assert "--tokenizer" in str(caught.value)
