"""What holds for the repository as a whole: public names are described, no file knows the machine it was made on."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ("axon_compose", "axon_compose.registry", "axon_compose.testing", "axon_compose.plan", "axon_compose.model")
#: Folders of one machine, written so that this file does not hold them.
MACHINE = re.compile(r"(?<![\w.~}*/-])/(?:" + "|".join(("work", "root", "tmp/w", "home")) + r")/\w")


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_described(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__doc__, module
    for name in found.__all__:
        value = getattr(found, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            told = value.__doc__
            assert told, f"{module}.{name} has no docstring"
            assert not told.startswith(f"{name}("), f"{module}.{name} has no docstring but the one of its dataclass"


@pytest.mark.parametrize("module", PUBLIC)
def test_methods_of_public_classes_are_described(module: str) -> None:
    found = importlib.import_module(module)
    for name in found.__all__:
        value = getattr(found, name)
        if not inspect.isclass(value):
            continue
        for method, code in vars(value).items():
            own = inspect.isfunction(code) and code.__qualname__.startswith(value.__name__)  # no default of a field
            if own and not method.startswith("_"):
                assert inspect.getdoc(code), f"{module}.{name}.{method} has no docstring"


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def test_no_file_knows_a_machine() -> None:
    assert MACHINE.search("see /" + "work/main")
    assert not MACHINE.search("a/work/main and https://example.org/" + "home/page")
    told = []
    for path in tracked():
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        told += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE.finditer(text)]
    assert not told


def test_nobody_is_sent_to_a_package_index() -> None:
    """axon-compose is on none: how it is installed is in one place, the section `Install` of the README."""
    indexed = re.compile(r"pip3? install [^\n`]*(?<![/\w.-])axon-compose\b|pypi\.org/project/axon-compose")
    assert indexed.search("run `pip install 'axon-compose[png]'`")
    assert indexed.search("pip install -e x axon-compose")
    assert not indexed.search("`pip install` a wheel of axon-compose")
    files = [path for path in tracked() if path.is_file() and path != Path(__file__)]
    found = [(path, indexed.search(path.read_text("utf-8", "replace"))) for path in files]
    told = [f"{path.relative_to(ROOT)}: {match[0]}" for path, match in found if match]
    assert not told
    readme = (ROOT / "README.md").read_text("utf-8")
    (install,) = re.findall(r"^## Install\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    assert "is on no package index" in install
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"dist/axon_compose-{project['version']}-py3-none-any.whl" in install
    extras = set(re.findall(r"^\| `(\w+)` \|", install, re.MULTILINE))
    assert extras == set(project["optional-dependencies"]) - {"dev", "native"}  # those are for a checkout, by make
