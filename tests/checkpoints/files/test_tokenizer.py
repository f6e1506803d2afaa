"""The byte tokenizer and copied ones, as transformers and mlx_lm see them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer
from mlx_lm.tokenizer_utils import load as load_wrapped
from transformers import AutoTokenizer

from axon_compose.checkpoints.files import CheckpointError, write_tokenizer
from axon_compose.checkpoints.files._tokenizer import tokenizer_files

TEXTS = [
    "hello world",
    "  two  spaces\n\ttab ",
    "Grüße, 世界! 👩‍👩‍👧‍👦 नमस्ते",
    "e\u0301 vs \u00e9",
    "\u200b\ufeff\x00\x7f\x80",
    "a" * 5000,
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bytes")
    write_tokenizer(path, "bytes", 259)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_ids_and_files(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    ids = write_tokenizer(tmp_path, "bytes", 1000)
    assert ids == {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256, "vocab_size": 259}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert len(tokenizer) == 259
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 256, 256)
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [256, 257, 258]


@pytest.mark.parametrize("text", TEXTS)
def test_one_id_per_byte_and_the_text_comes_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    assume(not any(special in text for special in tokenizer.all_special_tokens))
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_one_id_and_can_be_skipped(tokenizer: Any) -> None:
    ids = tokenizer.encode("a<|im_end|>\n")
    assert ids == [97, 258, 10]
    assert tokenizer.decode(ids) == "a<|im_end|>\n"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a\n"


@pytest.mark.parametrize("text", ["Grüße, 世界! 👩‍👩‍👧‍👦", "x  y\n\n  z ", "नमस्ते"])
def test_mlx_lm_streams_bytes_as_whole_characters(folder: Path, text: str) -> None:
    wrapped = load_wrapped(folder, eos_token_ids=[256, 258])
    assert wrapped.eos_token_ids == {256, 258}
    stream = wrapped.detokenizer
    assert isinstance(stream, BPEStreamingDetokenizer)
    stream.reset()
    pieces = []
    for number in wrapped.encode(text):
        stream.add_token(number)
        pieces.append(stream.last_segment)
    stream.finalize()
    pieces.append(stream.last_segment)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_base_models_prompt_is_left_as_it_is(tokenizer: Any, folder: Path) -> None:
    """Where there is a template, mlx_lm wraps every prompt in it."""
    assert tokenizer.chat_template is None
    assert not load_wrapped(folder).has_chat_template


def test_the_chat_template(tmp_path: Path) -> None:
    ids = write_tokenizer(tmp_path, "bytes-chat", 259)
    assert ids == {"bos_token_id": 256, "eos_token_id": [256, 258], "pad_token_id": 256, "vocab_size": 259}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hi\n"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n hi\n<|im_end|>\n<|im_start|>assistant\n"
    without = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == without + "<|im_start|>assistant\n"


def test_the_model_must_have_room_for_the_tokens(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        write_tokenizer(tmp_path, "bytes", 258)
    assert error.value.code == "AX541"
    assert error.value.message == "the tokenizer has 259 tokens, the model 258"
    assert "vocab_size` to 259" in str(error.value.help)
    assert list(tmp_path.iterdir()) == []


# ---- copied tokenizers


def donor(path: Path, **config: Any) -> Path:
    """A word tokenizer of 5 tokens with an end token, in the form that Hugging Face saves."""
    path.mkdir(parents=True, exist_ok=True)
    added = [{"id": 4, "content": "</s>", "special": True}]
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "<unk>": 3}, "unk_token": "<unk>"}
    (path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": added, "model": model}))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", **config}))
    return path


def test_a_folder_is_copied_without_its_code(tmp_path: Path) -> None:
    source = donor(tmp_path / "in", bos_token={"content": "a"}, pad_token=None)
    for name in ("chat_template.jinja", "merges.txt", "tokenization_evil.py", "model.safetensors", "README.md"):
        (source / name).write_text(name)
    out = tmp_path / "out"
    out.mkdir()
    assert write_tokenizer(out, source, 5) == {"vocab_size": 5, "eos_token_id": 4, "bos_token_id": 0}
    expected = ["chat_template.jinja", "merges.txt", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in out.iterdir()) == expected
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    with pytest.raises(CheckpointError, match="has 5 tokens, the model 4"):
        write_tokenizer(tmp_path, source, 4)


def with_added(path: Path, roles: dict[str, Any], *contents: str) -> Path:
    """The word tokenizer with more added tokens after its five."""
    source = donor(path, **roles)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["added_tokens"] += [{"id": 5 + n, "content": text, "special": True} for n, text in enumerate(contents)]
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    return source


@pytest.mark.parametrize("contents", [["<image>"], ["<fill>", "<pre>", "<mid>", "<suf>"]])
def test_added_tokens_without_a_row_are_noted(contents: list[str], tmp_path: Path) -> None:
    """Gemma 3 1B has one such token, CodeLlama 34B four: only a prompt with their literal text reaches them."""
    files = tokenizer_files(with_added(tmp_path / "in", {}, *contents), 5)
    assert files.ids["vocab_size"] == 5 + len(contents)
    (note,) = files.notes
    assert f"the tokenizer has {5 + len(contents)} tokens, the embedding 5 rows" in note
    assert f"`{contents[0]}`" in note
    assert tokenizer_files(tmp_path / "in", 5 + len(contents)).notes == []


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_template_that_writes_a_token_without_a_row(place: str, tmp_path: Path) -> None:
    template = "{{ messages[0].content }}<image>"
    config = {"added_tokens_decoder": {"5": {"content": "<image>"}}}  # names every token, and writes none
    source = with_added(tmp_path / "in", config, "<image>")
    assert len(tokenizer_files(source, 5).notes) == 1
    source = with_added(source, config | ({"chat_template": template} if place.startswith("tok") else {}), "<image>")
    if place == "chat_template.jinja":
        (source / place).write_text(template)
    assert tokenizer_files(source, 5).notes[1:] == ["the chat template writes `<image>`"]


@pytest.mark.parametrize("role", ["bos_token", "eos_token", "pad_token"])
def test_a_token_that_every_text_has_needs_a_row(role: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="AX541"):
        tokenizer_files(with_added(tmp_path / "in", {role: "<image>"}, "<image>"), 5)


def test_a_word_of_the_vocabulary_needs_a_row(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="AX541") as error:
        tokenizer_files(with_added(tmp_path / "in", {}, "<image>"), 3)
    assert "vocab_size" not in str(error.value.help)


def test_our_own_tokenizer_can_be_copied(tmp_path: Path, folder: Path) -> None:
    ids = write_tokenizer(tmp_path, str(folder), 259)
    assert ids == {"vocab_size": 259, "eos_token_id": 256, "bos_token_id": 256, "pad_token_id": 256}


def test_a_unigram_vocabulary_and_ids_with_gaps(tmp_path: Path) -> None:
    source = donor(tmp_path / "in")
    content = {
        "model": {"type": "Unigram", "vocab": [["x", 0.0], ["</s>", -1.0]]},
        "added_tokens": [{"id": 90, "content": "y"}],
    }
    (source / "tokenizer.json").write_text(json.dumps(content))
    assert write_tokenizer(tmp_path, source, 91) == {"vocab_size": 91, "eos_token_id": 1}


def test_links_stay_inside(tmp_path: Path) -> None:
    source = donor(tmp_path / "in")
    (tmp_path / "secret").write_text("{}")
    (source / "special_tokens_map.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="points outside its folder") as error:
        write_tokenizer(tmp_path, source, 5)
    assert error.value.code == "AX542"
    (source / "special_tokens_map.json").unlink()
    (source / "special_tokens_map.json").symlink_to("tokenizer_config.json")
    assert write_tokenizer(tmp_path, source, 5)["eos_token_id"] == 4


def test_a_snapshot_of_the_hugging_face_cache(tmp_path: Path) -> None:
    blobs = donor(tmp_path / "models--x" / "blobs")
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert blobs.exists()
    assert write_tokenizer(tmp_path, snapshot, 5)["vocab_size"] == 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "has no tokenizer that can be used: none of `tokenizer.json`"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "no vocabulary"),
        (b'{"model": {"vocab": 3}}', "no vocabulary"),
        (b'{"model": {"vocab": {"a": "x"}}}', "no vocabulary"),
        (b'{"model": {"vocab": {}}, "added_tokens": [1]}', "no vocabulary"),
    ],
)
def test_unusable_folders(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as error:
        write_tokenizer(tmp_path / "out", tmp_path, 5)
    assert error.value.code == "AX542"


def test_no_folder_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file") as error:
        write_tokenizer(tmp_path, tmp_path / "gone", 5)
    assert error.value.code == "AX542"
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="not a file of reasonable size"):
        write_tokenizer(tmp_path, tmp_path, 5)
