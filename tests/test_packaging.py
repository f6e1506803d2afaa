"""What `pip install` puts on a machine: every package, every file of data, and commands that find them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    run(*pip, str(folder), str(ROOT))
    return next(folder.glob("*.whl"))


def test_every_plugin_package_has_an_entry_point() -> None:
    packages = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    assert packages == set(PROJECT["entry-points"]["axon_compose"].values())


def test_versions_agree() -> None:
    import axon_compose

    assert PROJECT["version"] == axon_compose.__version__


@pytest.mark.xdist_group("wheel")  # one worker makes it
@pytest.mark.slow
def test_the_wheel_holds_everything(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "-C", str(ROOT), "ls-files", "axon_compose", "plugins/axon_core").split()
    assert {name.removeprefix("plugins/") for name in tracked} <= names
    for kind in ("architectures", "schemas"):
        shipped = {f"axon_compose/_data/{kind}/{path.name}" for path in (ROOT / kind).iterdir() if path.suffix}
        assert shipped <= names
    assert "mlx_lm/models/axon_compose.py" in names
    assert not [name for name in names if name.split("/")[0] in ("packaging", "tests", "docs", "benchmarks", "plugins")]


@pytest.mark.xdist_group("wheel")  # one worker makes it
@pytest.mark.slow
def test_an_installed_wheel_works_on_its_own(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target")
    run(*pip, str(target), str(wheel))
    script = (
        "import sys, axon_compose; from axon_compose.cli import main\n"
        "assert axon_compose.__file__.startswith(sys.argv[1]), axon_compose.__file__\n"
        "codes = [main(['show', name]) for name in ('bit-axon', 'hybrid-demo')]\n"
        "sys.exit(max(*codes, main(['schema', '--published', '--check']), main(['explain', 'AX101'])))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    out = run(sys.executable, "-c", script, str(target), cwd=tmp_path, env=environment)
    assert "5,766,781,440 parameters" in out


@pytest.mark.xdist_group("wheel")  # one worker makes it
@pytest.mark.slow
def test_tools_without_a_flag_load_a_folder_where_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    """With mlx-lm in one place, as in any environment; as a model, and as a draft for another one."""
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    import mlx_lm

    shutil.copytree(Path(mlx_lm.__file__).parent, site / "mlx_lm", dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    build = "import sys; from axon_compose.cli import main; sys.exit(main(sys.argv[1:]))"
    sizes = ("--set", "dims.hidden_size=64", "--set", "dims.vocab_size=259")
    common = (*sizes, "--out", "m", "--no-model-file")
    run(sys.executable, "-c", build, "build", "llama-small", *common, cwd=tmp_path, env=environment)
    assert not list((tmp_path / "m").glob("*.py"))
    use = (
        "from mlx_lm import load, generate\n"
        "model, tokenizer = load('m')\n"
        "text = generate(model, tokenizer, 'Hello', max_tokens=8)\n"
        "draft, _ = load('m')\n"
        "assert generate(model, tokenizer, 'Hello', max_tokens=8, draft_model=draft) == text\n"
    )
    run(sys.executable, "-c", use, cwd=tmp_path, env=environment)
    command = (
        "-m",
        "mlx_lm",
        "generate",
        "--model",
        "m",
        "--draft-model",
        "m",
        "--prompt",
        "Hello",
        "--max-tokens",
        "4",
    )
    run(sys.executable, *command, cwd=tmp_path, env=environment)
