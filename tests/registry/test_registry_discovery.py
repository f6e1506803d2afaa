"""Discovery reads metadata alone, survives what is damaged, and is quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from axon_compose.registry import _discovery


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    _discovery.installed.cache_clear()
    yield
    _discovery.installed.cache_clear()


def install(folder: Path, name: str, entry_points: bytes, version: str = "2.0") -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_bytes(entry_points)


def test_entry_points_are_read_but_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme", b"[console_scripts]\nx = y:z\n\n[axon_compose]\nacme = no_such_module_here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [c for c in _discovery.installed() if c.namespace == "acme"]
    assert [c.owner for c in found] == ["acme 2.0"]
    with pytest.raises(ModuleNotFoundError):
        found[0].load()


def test_the_first_copy_on_the_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "late", "acme", b"[axon_compose]\nacme = old\n", "1.0")
    install(tmp_path / "early", "Acme", b"[axon_compose]\nacme = new\n")
    monkeypatch.syspath_prepend(str(tmp_path / "late"))
    monkeypatch.syspath_prepend(str(tmp_path / "early"))
    assert [c.owner for c in _discovery.installed() if c.namespace == "acme"] == ["Acme 2.0"]


def test_damaged_metadata_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "latin", b"[axon_compose]\n\xff = x\n")
    install(tmp_path, "noise", b"[axon_compose]\nthis line is no entry point\n")
    install(tmp_path, "other", b"[other]\nthis line is no entry point\n")
    install(tmp_path, "acme", b"[axon_compose]\nacme = acme\n")
    install(tmp_path, "bare", b"[axon_compose]\nbare = bare\n")
    (tmp_path / "bare-2.0.dist-info" / "METADATA").unlink()
    (tmp_path / "empty-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {c.distribution: c for c in _discovery.installed()}
    assert found["acme"].namespace == "acme"
    assert "other" not in found
    assert found["unknown"].namespace == "bare"
    assert found["noise"].namespace == "?"
    with pytest.raises(ValueError, match="damaged entry points"):
        found["noise"].load()


def test_installed_is_read_once() -> None:
    assert _discovery.installed() is _discovery.installed()


IMPORTS = """
import sys
from axon_compose.registry import ComponentSpec, Options, Registry, check_options, defaults, options_schema

class Acme(Options):
    width: int = 3

registry = Registry.with_plugins({"acme": [ComponentSpec("hyena", "layer", Acme, "a:B", "")]})
spec = registry.component("acme/hyena")
assert check_options(spec, {"width": 4})[0].width == 4
assert check_options(spec, {"widht": 4})[1]
assert registry.default("norm") and registry.statuses() and options_schema(spec) and defaults(spec)
heavy = {"mlx", "mlx_lm", "numpy", "transformers", "jsonschema"} & set(sys.modules)
assert not heavy, heavy
raw = ComponentSpec("raw", "layer", {"properties": {"width": {"type": "integer"}}}, "a:B", "")
assert check_options(raw, {"width": 4})[0] == {"width": 4}
assert "jsonschema" in sys.modules
"""


def test_nothing_heavy_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
