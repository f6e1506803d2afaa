"""What `show` and `build` say of the tools that run a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlx_lm.utils import MODEL_REMAPPING

from axon_compose import load
from axon_compose.checkpoints.tools import _known, tools
from axon_compose.cli import main
from tests.e2e.commands import SMALL, settings
from tests.families.models import FIXTURES


def test_models_that_mlx_lm_has() -> None:
    assert {"llama", "qwen3_moe", "rwkv7"} | MODEL_REMAPPING.keys() <= _known()
    assert "quill" not in _known()


def test_families_are_exported_and_hybrids_are_not() -> None:
    for name in ("llama", "qwen3_moe", "mamba2", "gemma4_text", "rwkv7"):
        assert "export --to mlx-lm" in tools(load(name)), name
    assert "export" not in tools(load("arcee"))  # mlx-lm has no such model
    for name in ("hybrid-demo", "bit-axon", "llama-small"):
        assert "build --no-model-file" in tools(load(name))
        assert "where axon-compose is installed" in tools(load(name), model_file=False)
    for name in ("llama", "mistral"):  # one family; exports keep the type
        assert tools(load(checkpoint=FIXTURES / name)).endswith(f"as a stock {name}")
    unknown = load("llama", settings=["huggingface.model_types=[quill]", "huggingface.write={}"])
    assert "export" not in tools(unknown)


@pytest.mark.parametrize("registered", [False, True], ids=["checkout", "wheel"])
def test_show_and_build_say_it(
    registered: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axon_compose.cli._build._registered", lambda: registered)
    assert main(["show", "llama"]) == 0
    assert "as a stock llama" in capsys.readouterr().out
    arguments = ["build", "hybrid-demo", *settings(*SMALL), "--out", str(tmp_path / "m")]
    assert main(arguments) == 0
    assert "runs with: mlx_lm with --trust-remote-code" in capsys.readouterr().err
    assert main([*arguments, "--no-model-file", "--force"]) == 0
    said = capsys.readouterr().err
    assert "mlx_lm.generate --model" in said
    assert "--trust-remote-code" not in said
    assert not list((tmp_path / "m").glob("*.py"))
    assert ("does not run yet" in said) != registered
