"""The scaffold: what it writes installs, passes its own tests, and is all there or not at all."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from plugin_venv import PluginVenv

from axon_compose.checkpoints.files import _disk
from axon_compose.scaffold import ScaffoldError, new_plugin

PACKAGE = [
    ".github/workflows/test.yml",
    ".gitignore",
    "README.md",
    "axon_deep_sea/__init__.py",
    "axon_deep_sea/architectures/deep-sea-demo.yaml",
    "axon_deep_sea/layers.py",
    "pyproject.toml",
    "tests/test_plugin.py",
]


def test_every_file_is_written_and_filled_in(tmp_path: Path) -> None:
    files = new_plugin("deep-sea", tmp_path)
    assert sorted(str(file.relative_to(tmp_path / "axon-deep-sea")) for file in files) == PACKAGE
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == sorted(files)
    for file in files:
        text = file.read_text()
        assert "{{n" not in text
        assert "{{p" not in text
        assert text.endswith("\n")
        if file.suffix == ".py":
            compile(text, file, "exec")
    project = tomllib.loads((tmp_path / "axon-deep-sea" / "pyproject.toml").read_text())["project"]
    assert project["name"] == "axon-deep-sea"
    assert project["entry-points"]["axon_compose"] == {"deep-sea": "axon_deep_sea"}


def test_its_workflow_says_what_it_installs_axon_compose_from(tmp_path: Path) -> None:
    """axon-compose is on no package index: without the variable the first step fails, and says so."""
    new_plugin("acme", tmp_path)
    workflow = yaml.safe_load((tmp_path / "axon-acme" / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["env"] == {"AXON_COMPOSE": "${{ vars.AXON_COMPOSE }}"}
    first, second = [step["run"] for step in job["steps"] if "run" in step][:2]
    assert second == "pip install -e '.[test]'"
    pip = "pip() { printf '%s\\n' \"$@\"; }; "
    done = subprocess.run(["sh", "-c", pip + first], capture_output=True, text=True, env={"AXON_COMPOSE": ""})
    assert done.returncode != 0
    assert "set the variable AXON_COMPOSE of this repository" in done.stderr
    source = "git+https://example.org/axon compose"
    done = subprocess.run(["sh", "-c", pip + first], capture_output=True, text=True, env={"AXON_COMPOSE": source})
    assert done.stdout.splitlines() == ["install", source]


@pytest.mark.parametrize("name", ["acme", "axon-acme", "axon_acme"])
def test_the_prefix_is_not_doubled(tmp_path: Path, name: str) -> None:
    assert new_plugin(name, tmp_path)[0].is_relative_to(tmp_path / "axon-acme")


@pytest.mark.parametrize(
    "name", ["", "axon-", "Acme", "1st", "a.b", "a/b", "../up", "a--b", "a-", "é", "a b", "core", "axon-compose"]
)
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScaffoldError, match=r"cannot be the name|belongs to axon-compose"):
        new_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_overwritten(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "axon-acme")
    with pytest.raises(ScaffoldError, match="is there already; nothing was written"):
        new_plugin("acme", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["axon-acme"]


def test_the_folder_may_be_new(tmp_path: Path) -> None:
    assert new_plugin("acme", tmp_path / "a" / "b")[0].is_file()


@pytest.mark.parametrize("call", range(10))
def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Fail the n-th write, for every n; past the last one the move to its name fails, and then nothing does."""
    calls = iter(range(100))
    write, move = Path.write_text, _disk.move

    def failing(real: Any) -> Any:
        def do(self: Path, *arguments: Any, **named: Any) -> Any:
            if next(calls) == call:
                raise OSError(28, "No space left on device")
            return real(self, *arguments, **named)

        return do

    monkeypatch.setattr(Path, "write_text", failing(write))
    monkeypatch.setattr(_disk, "move", failing(move))
    if call == len(PACKAGE) + 1:
        assert len(new_plugin("acme", tmp_path)) == len(PACKAGE)
        return
    with pytest.raises(ScaffoldError, match="cannot be written: No space left on device"):
        new_plugin("acme", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_disk, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        new_plugin("acme", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScaffoldError, match="cannot be written"):
        new_plugin("acme", tmp_path / "file")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> PluginVenv:
    made = PluginVenv.create(tmp_path_factory.mktemp("new-plugin"))
    new_plugin("deep-sea", made.folder)
    made.install(made.folder / "axon-deep-sea")
    return made


@pytest.mark.xdist_group("new-plugin")  # one environment for all
@pytest.mark.slow
def test_its_own_tests_pass(env: PluginVenv) -> None:
    done = env.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "axon-deep-sea")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.xdist_group("new-plugin")  # one environment for all
@pytest.mark.slow
def test_its_architecture_is_right(env: PluginVenv) -> None:
    for command in (
        ["validate", "axon-deep-sea/axon_deep_sea/architectures/deep-sea-demo.yaml"],
        ["show", "deep-sea/deep-sea-demo"],
    ):
        done = env.cli(*command)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.xdist_group("new-plugin")  # one environment for all
@pytest.mark.slow
def test_the_command_writes_the_same(env: PluginVenv) -> None:
    done = env.cli("new-plugin", "other")
    assert done.returncode == 0, done.stderr
    written = [
        str(path.relative_to(env.folder / "axon-other"))
        for path in (env.folder / "axon-other").rglob("*")
        if path.is_file()
    ]
    assert sorted(written) == [path.replace("deep_sea", "other").replace("deep-sea", "other") for path in PACKAGE]
    done = env.cli("new-plugin", "other")
    assert done.returncode == 2
    assert "is there already" in done.stderr
