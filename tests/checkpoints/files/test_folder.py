"""The folder of a model: complete, the same every time, and checked against its own record."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from checkpoint_models import SHAPES, arrays, build, content

from axon_compose.checkpoints.files import (
    CheckpointError,
    load_weights,
    read_build,
    require_plain_name,
    tensor_specs,
    verify,
)

FILES = [
    "README.md", "axon_model.py", "build.json", "config.json", "generation_config.json",
    "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
    "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip


def test_what_is_in_it(tmp_path: Path) -> None:
    made = arrays()
    record = build(tmp_path / "m", tensors=made)
    assert made == {}  # handed over, so that no array outlives its writing
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config == {
        "model_type": "axon_compose",
        "model_file": "axon_model.py",
        "vocab_size": 300,
        "bos_token_id": 256,
        "eos_token_id": 256,
        "pad_token_id": 256,
    }
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256}
    assert record["seed"] == 7
    assert sorted(record["files"]) == sorted(set(FILES) - {"build.json"})
    assert read_build(tmp_path / "m") == record
    loaded = load_weights(tmp_path / "m", SHAPES)
    assert all(mx.array_equal(loaded[name], array) for name, array in arrays().items())


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "a")
    config = {"vocab_size": 300, "model_type": "axon_compose"}  # another order of keys
    build(tmp_path / "deep" / "b", config=config, tensors=list(arrays().items()), specs=tensor_specs(arrays()))
    assert content(tmp_path / "a") == content(tmp_path / "deep" / "b")
    before = content(tmp_path / "a")
    build(tmp_path / "a", force=True)
    assert content(tmp_path / "a") == before


def test_given_ids_are_kept(tmp_path: Path) -> None:
    build(tmp_path / "m", config={"vocab_size": 300, "eos_token_id": 258})
    assert json.loads((tmp_path / "m" / "config.json").read_text())["eos_token_id"] == 258
    assert json.loads((tmp_path / "m" / "generation_config.json").read_text())["eos_token_id"] == 258


def test_a_tensor_iterable_needs_specs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need specs"):
        build(tmp_path / "m", tensors=iter(arrays().items()))


@pytest.mark.parametrize(
    "name", ["../x.py", "/x.py", "a/x.py", "a\\x.py", "C:x.py", ".x.py", "x.txt", "", "x\n.py", 3, ["x.py"]]
)
def test_the_model_file_is_a_plain_name(tmp_path: Path, name: Any) -> None:
    with pytest.raises(CheckpointError) as error:
        build(tmp_path / "m", config={"vocab_size": 300, "model_file": name})
    assert error.value.code == "AX505"
    assert list(tmp_path.iterdir()) == []
    assert require_plain_name("axon_model.py") == "axon_model.py"


def run_model_file(folder: Path) -> types.ModuleType:
    """As mlx_lm does: under another name, without an entry in `sys.modules`."""
    spec = importlib.util.spec_from_file_location("custom_model", folder / "axon_model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_model_file_hands_out_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "m")
    adapter = types.ModuleType("axon_compose.checkpoints.model_file")
    adapter.model_in, adapter.ModelArgs = lambda file: file, object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "axon_compose.checkpoints.model_file", adapter)
    module = run_model_file(tmp_path / "m")
    assert (module.Model, module.ModelArgs) == (str(tmp_path / "m" / "axon_model.py"), adapter.ModelArgs)
    assert "custom_model" not in sys.modules


def test_the_model_file_says_what_to_install(tmp_path: Path) -> None:
    build(tmp_path / "m", build_record={"plugins": {"core": "axon-compose 0.2.0", "acme": "acme-axon 1.2.0+cpu"}})
    isolated = [sys.executable, "-I", "-S", str(tmp_path / "m" / "axon_model.py")]  # no site-packages
    result = subprocess.run(isolated, capture_output=True, text=True)
    expected = (
        "ImportError: this model needs acme-axon>=1.2.0+cpu and axon-compose>=0.2.0: `pip install` a wheel or a "
        "checkout of each. axon-compose is on no package index, its README says how to install it "
        "(No module named 'axon_compose')"
    )
    assert result.stderr.splitlines()[-1] == expected


def test_a_plugin_cannot_write_code_into_the_model_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not names and versions"):
        build(tmp_path / "m", build_record={"plugins": {"evil": 'x"); import os #'}})


def test_a_full_disk_is_refused_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10_000))
    with pytest.raises(CheckpointError) as error:
        build(tmp_path / "a" / "b")
    assert error.value.code == "AX504"
    assert f"`{tmp_path}` has 10.0 kB free" in error.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_tokenizer_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        build(tmp_path / "m", config={"vocab_size": 100})
    assert error.value.code == "AX541"
    assert list(tmp_path.iterdir()) == []


def test_a_record_cannot_take_the_keys_of_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files"):
        build(tmp_path / "m", build_record={"files": {}})
    assert list(tmp_path.iterdir()) == []


# ---- verify


def test_verify_reports_progress_and_returns_the_record(tmp_path: Path) -> None:
    record = build(tmp_path / "m")
    seen: list[tuple[int, int]] = []
    assert verify(tmp_path / "m", lambda done, total: seen.append((done, total))) == record
    total = sum(entry["bytes"] for entry in record["files"].values())
    assert seen[-1] == (total, total)


def test_every_changed_byte_missing_file_and_added_weight_is_found(tmp_path: Path) -> None:
    record = build(tmp_path / "m")
    for name, entry in record["files"].items():
        path = tmp_path / "m" / name
        whole = path.read_bytes()
        for damage, says in [
            (bytes([whole[0] ^ 1]) + whole[1:], f"`{name}` has other content"),
            (whole[:-1], f"`{name}` has {len(whole) - 1} bytes instead of {entry['bytes']}"),
        ]:
            path.write_bytes(damage)
            with pytest.raises(CheckpointError) as error:
                verify(tmp_path / "m")
            assert error.value.code == "AX522"
            assert says in error.value.message
        path.unlink()
        with pytest.raises(CheckpointError, match=f"`{name}` is missing"):
            verify(tmp_path / "m")
        path.write_bytes(whole)
    verify(tmp_path / "m")
    (tmp_path / "m" / "model-extra.safetensors").touch()  # mlx_lm would load it
    with pytest.raises(CheckpointError, match=r"`model-extra\.safetensors` was added"):
        verify(tmp_path / "m")


ENTRY = {"bytes": 1, "sha256": "0"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot read"),
        ("[" * 100_000, "cannot read"),
        ("[]", "not the record"),
        ("{}", "not the record"),
        ('{"build_format": true, "files": {}}', "not the record"),
        ('{"build_format": 1, "files": []}', "not the record"),
        ('{"build_format": 2}', "newer than 1"),
        (json.dumps({"build_format": 1, "files": {"../x": ENTRY}}), "bad entry for the file '../x'"),
        (json.dumps({"build_format": 1, "files": {"x": {**ENTRY, "bytes": "1"}}}), "bad entry"),
        (json.dumps({"build_format": 1, "files": {"x": 1}}), "bad entry"),
    ],
)
def test_bad_records(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "build.json").write_text(text)
    for call in (read_build, verify):
        with pytest.raises(CheckpointError, match=says) as error:
            call(tmp_path)
        assert error.value.code == "AX521"


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no `build\.json`") as error:
        read_build(tmp_path)
    assert error.value.code == "AX521"
    assert error.value.diagnostic.code == "AX521"


def test_reading_a_record_needs_no_mlx(tmp_path: Path) -> None:
    build(tmp_path / "m")
    code = "import sys, axon_compose.checkpoints.files as c; c.verify(sys.argv[1]); sys.exit('mlx.core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")]).returncode == 0
