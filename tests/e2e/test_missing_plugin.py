"""A built folder on a machine without the plugin that it was built with, or with another version."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from commands import axon, fresh, python

from tests.rude import RUDE_FILE, install_rude


def paths(*site: Path) -> str:
    return os.pathsep.join([*map(str, site), *filter(None, sys.path)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with layers of a plugin, and the plugin in two versions."""
    made = tmp_path_factory.mktemp("missing")
    for version in ("1.5", "1.4"):
        (made / version).mkdir()
        install_rude(made / version, version)
    (made / "rude.yaml").write_text(RUDE_FILE)
    done = axon("build", "rude.yaml", "--out", "model", cwd=made, PYTHONPATH=paths(made / "1.5"))
    assert done.returncode == 0, done.stderr
    return made


def generate(folder: Path, *site: Path, **variables: str) -> tuple[int, str]:
    model = ("--model", folder / "model", "--trust-remote-code")
    done = python(
        "-m", "mlx_lm", "generate", *model, "--prompt", "a", "--max-tokens", 2, PYTHONPATH=paths(*site), **variables
    )
    return done.returncode, done.stderr


def test_with_the_plugin(folder: Path) -> None:
    assert generate(folder, folder / "1.5")[0] == 0
    assert generate(folder, folder / "1.4")[0] == 0  # it is the same, and nobody is asked to install another


def test_without_the_plugin(folder: Path) -> None:
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["axon_compose"]["plugins"]["rude"] == "axon-rude 1.5"
    code, said = generate(folder)
    assert code == 1
    assert "Traceback" not in said
    advice = "this model was built with axon-rude 1.5, which is not installed; `pip install 'axon-rude==1.5'`"
    assert "error[AX201]: unknown plugin `rude` in `rude/layer`\n" in said
    assert said.endswith(
        f"error[AX201]: unknown plugin `rude` in `rude/state`: no installed plugin provides `rude`: {advice}\n"
    )


def test_with_another_version_that_fails(folder: Path) -> None:
    code, said = generate(folder, folder / "1.4", RUDE="hook:fail")
    assert code == 1
    assert "Traceback" not in said
    assert "error[AX203]: plugin `rude` cannot be used: axon-rude 1.4: ZeroDivisionError: divided by nothing" in said
    assert "this model was built with axon-rude 1.5, here is 1.4; `pip install 'axon-rude==1.5'`\n" in said


def test_code_that_raises(folder: Path) -> None:
    """A model that cannot run says so in one line, too; the fault is the plugin's, and no version is recommended."""
    code, said = generate(folder, folder / "1.5", RUDE="forward:fail")
    assert code == 1
    assert "Traceback" not in said
    assert "the forward pass of `rude/layer` (`rude` in layer 0; axon-rude 1.5) raises ZeroDivisionError" in said
    assert "pip install" not in said


LOADING = """
import axon_compose, mlx_lm
try:
    mlx_lm.load("model", trust_remote_code=True)
except axon_compose.ArchitectureError as error:
    print(error)
"""


def test_python_gets_an_exception(folder: Path) -> None:
    done = fresh("-c", LOADING, cwd=folder, PYTHONPATH=paths())
    assert "pip install 'axon-rude==1.5'" in done.stdout, done.stderr


def test_other_exceptions_keep_their_traceback(folder: Path) -> None:
    done = fresh("-c", "import axon_compose.model.mlx_lm; 1 / 0", PYTHONPATH=paths())
    assert "\nTraceback (most recent call last):\n" in f"\n{done.stderr}"
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
