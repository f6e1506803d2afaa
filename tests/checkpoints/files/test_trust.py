"""What names code in a checkpoint arrives in no folder that is opened with trust."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer
from transformers import AutoTokenizer

from axon_compose import load
from axon_compose.checkpoints.export import KINDS, export
from axon_compose.checkpoints.files import write_tokenizer
from axon_compose.checkpoints.files._trust import without_code
from axon_compose.checkpoints.folder import write_model

FIXTURE = Path(__file__).parents[2] / "families" / "fixtures" / "llama"


def edit(path: Path, **fields: Any) -> None:
    """Lay fields over those of a JSON file."""
    written = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(written | fields))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint whose every JSON file names code that leaves a marker when it runs."""
    folder = tmp_path / "checkpoint"
    copytree(FIXTURE, folder, ignore=ignore_patterns("tokenizer*"))
    edit(folder / "config.json", vocab_size=96)
    write_tokenizer(folder, small_tokenizer(tmp_path / "tokenizer"), 96)
    (folder / "marker.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Marker: pass\n")
    code = f"{folder}--marker.Marker"
    maps = {"AutoConfig": code, "AutoTokenizer": [code, code], "AutoModelForCausalLM": code}
    for name in ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json"):
        edit(folder / name, auto_map=maps, model_file="marker.py", custom_generate=code, nested={"auto_map": maps})
    pipelines = {"marker": {"impl": "marker.Marker"}}
    edit(folder / "config.json", auto_map=maps, custom_pipelines=pipelines, _attn_implementation="marker/kernel")
    return folder


def small_tokenizer(folder: Path) -> Path:
    folder.mkdir()
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "</s>": 2, "<unk>": 3}, "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    edit(folder / "tokenizer_config.json", eos_token="</s>")
    return folder


def test_no_file_that_travels_names_code(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = write_model(load(checkpoint=checkpoint), out, weights=checkpoint)
    folders = [out]
    for kind in KINDS:
        export(out, tmp_path / kind, kind)
        folders.append(tmp_path / kind)
    for folder in folders:
        for path in folder.glob("*.json"):
            text = path.read_text()
            assert "marker" not in text, path
            assert "auto_map" not in text or path.name == "build.json", path
        assert not list(folder.glob("marker*"))
        load_tokenizer(folder, {"trust_remote_code": True})
    assert not (tmp_path / "ran").exists()
    assert (
        "left `auto_map` out of tokenizer_config.json: it names code, and this folder is opened with trust"
        in record["notes"]
    )


def test_the_marker_runs_where_nothing_is_left_out(checkpoint: Path, tmp_path: Path) -> None:
    """What the test above would miss if transformers no longer looked there."""
    with pytest.raises(AttributeError):  # the marker is no tokenizer
        AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "kept", "left_out"),
    [
        ({"auto_map": 1, "a": 2}, {"a": 2}, ["auto_map"]),
        ({"a": [{"auto_map": 1, "b": 2}]}, {"a": [{"b": 2}]}, ["a.0.auto_map"]),
        ({"attn_implementation": "eager"}, {"attn_implementation": "eager"}, []),
        ({"attn_implementation": {"": "sdpa", "x": None}}, {"attn_implementation": {"": "sdpa", "x": None}}, []),
        ({"_attn_implementation": "org/kernel"}, {}, ["_attn_implementation"]),
        ({"attn_implementation": {"": "org/kernel"}}, {}, ["attn_implementation"]),
        ({"tool_parser_type": "json_tools"}, {"tool_parser_type": "json_tools"}, []),
        ({"tool_parser_type": "a.b", "chat_template_type": ["x"]}, {}, ["tool_parser_type", "chat_template_type"]),
        ({"torch_dtype": "bfloat16", "x": None}, {"torch_dtype": "bfloat16", "x": None}, []),
    ],
)  # fmt: skip
def test_fields(value: Any, kept: Any, left_out: list[str]) -> None:
    assert without_code(value) == (kept, left_out)
