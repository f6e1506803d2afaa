"""What the help of AX602 says is done as it is written there, and the checkpoint is read, built and exported."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from axon_compose import ArchitectureError, load
from axon_compose.cli import main
from tests.families.models import FIXTURES

SETTING: Final = re.compile(r"`(--set .*)`; otherwise")
#: A fixture, and fields that are added to its configuration.
CASES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "a field": ("llama", {"note": 3}),
    "several": ("llama", {"note": 3, "remark": "text", "aside": {"inner": [1]}}),
    "beside what the family ignores": ("gemma2", {"hidden_act": "gelu", "note": 3}),
    "a name with a dot": ("llama", {"other.program": 1}),
    "a name that a shell and YAML would read": ("llama", {"it's, [a] note: #1": 1}),
    "inside a rotation": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "twist": 3}},
    ),
    "inside a rotation of one kind": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e5, "twist": 3},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    "inside a mapping that is read": ("gemma4_text", {"per_layer_config": {"3": {"head_dim": 32, "note": 1}}}),
}


def checkpoint(folder: Path, name: str, fields: dict[str, Any]) -> Path:
    folder.mkdir()
    config = json.loads((FIXTURES / name / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(FIXTURES / name / "model.safetensors", folder)
    return folder


def advice(folder: Path) -> list[str]:
    """The words of every setting that is advised."""
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=folder)
    words = []
    for fault in caught.value.diagnostics:
        if fault.code == "AX602":
            found = SETTING.search(fault.help or "")
            assert found is not None
            words += shlex.split(found[1])
    return words


@pytest.mark.parametrize(("name", "fields"), CASES.values(), ids=CASES)
def test_a_checkpoint_is_imported_with_what_the_help_says(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", name, fields)
    target = tmp_path / "mine.yaml"
    assert main(["import", str(folder), "-o", str(target), *advice(folder)]) == 0
    assert load(target)


def test_several_settings_add_up(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "gemma2", {"hidden_act": "gelu", "note": 3, "remark": 4})
    found = load(checkpoint=folder, settings=advice(folder)[1::2])
    assert found.document.huggingface is not None
    assert {"hidden_act", "note", "remark"} <= set(found.document.huggingface.ignore)


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize("kind", ["huggingface", "mlx-lm"])
def test_such_a_model_is_built_and_exported(kind: str, imported: bool, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "vocab_size": 320, "num_hidden_layers": 2, "intermediate_size": 48}
    small = [
        word for name, size in (sizes | {"num_attention_heads": 2}).items() for word in ("--set", f"dims.{name}={size}")
    ]
    first, folder, built, out = (tmp_path / name for name in ("first", "checkpoint", "built", "exported"))
    assert main(["build", "llama", "--out", str(first), *small]) == 0
    assert main(["export", str(first), "-o", str(folder), "--to", "huggingface"]) == 0
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"note": 3}))
    source, settings = "llama", advice(folder)
    if imported:
        source = str(tmp_path / "mine.yaml")
        assert main(["import", str(folder), "-o", source, *settings]) == 0
        settings = []  # they are in the file
    assert main(["build", source, "--weights", str(folder), "--out", str(built), *settings]) == 0
    assert main(["export", str(built), "-o", str(out), "--to", kind]) == 0
    assert json.loads((out / "config.json").read_text())["note"] == 3


def test_a_family_named_or_written_reads_another_model_type(tmp_path: Path) -> None:
    """The help of AX606, done as it is written there and in its explanation."""
    folder = checkpoint(tmp_path / "checkpoint", "llama", {"model_type": "whisper"})
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=folder)
    (fault,) = caught.value.diagnostics
    assert fault.help is not None
    assert "import DIR --family llama" in fault.help
    assert main(["import", str(folder), "--family", "llama", "-o", str(tmp_path / "named.yaml")]) == 0
    family = tmp_path / "mine.yaml"
    family.write_text("version: 1\nname: mine\nextends: llama\nhuggingface: {model_types: [whisper]}\n")
    assert main(["import", str(folder), "--family", str(family), "-o", str(tmp_path / "written.yaml")]) == 0
