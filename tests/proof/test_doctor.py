"""`doctor`: what it says of a slow library, a missing compiler, a package that is not there."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from axon_compose.cli import main
from axon_compose.machine.blas import is_reference_blas
from axon_compose.proof import doctor
from axon_compose.proof.doctor import Finding, examine

DEBIAN = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """A machine with the reference BLAS."""

    def found(release: str, library: str | None = None, compiler: str | None = None) -> dict[str, Finding]:
        monkeypatch.setattr(doctor, "is_reference_blas", lambda: True)
        monkeypatch.setattr(doctor, "find_library", lambda name: library if name == "openblas" else None)
        monkeypatch.setattr(doctor.shutil, "which", lambda name: compiler)
        monkeypatch.setattr(doctor, "_text", lambda path: release if path == "/etc/os-release" else "")
        return {finding.name: finding for finding in examine()}

    return found


def test_this_machine() -> None:
    found = {finding.name: finding for finding in examine()}
    assert not any(finding.broken for finding in found.values())
    assert found["mlx"].value
    if mx.default_device() == mx.cpu:
        assert ("reference BLAS" in found["BLAS"].value) == is_reference_blas()
        assert bool(found["BLAS"].advice) == is_reference_blas()
        assert "GFLOP/s" in found["BLAS"].value
    else:
        assert "BLAS" not in found


def test_nothing_is_installed_that_is_there(slow: Callable[..., dict[str, Finding]]) -> None:
    found = slow(DEBIAN, library="libopenblas.so.0", compiler="/usr/bin/g++")
    assert found["BLAS"].advice.startswith("export LD_PRELOAD=libopenblas.so.0 ")
    assert not found["compiler"].advice


@pytest.mark.parametrize(
    ("release", "blas", "compiler"),
    [
        (DEBIAN, "sudo apt install libopenblas0-pthread", "sudo apt install g++"),
        ("ID=fedora\n", "sudo dnf install openblas-threads", "sudo dnf install gcc-c++"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install openblas-threads", "sudo dnf install gcc-c++"),
        ("ID=arch\n", "sudo pacman -S openblas", "sudo pacman -S gcc"),
        ("", "install OpenBLAS", "install a C++ compiler that is called g++"),
    ],
)
def test_what_to_install(slow: Callable[..., dict[str, Finding]], release: str, blas: str, compiler: str) -> None:
    found = slow(release)
    first, second = found["BLAS"].advice.splitlines()
    assert first == blas
    assert second.startswith("export LD_PRELOAD=libopenblas.so.0 ")
    assert found["compiler"].advice == compiler
    assert "not fused" in found["compiler"].value


def test_mlx_that_does_not_load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def broken(name: str, *rest: Any, **more: Any) -> Any:
        if name == "mlx.core":
            raise ImportError("libmlx.so: cannot open shared object file")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    code = main(["doctor", "--json"])
    data = json.loads(capsys.readouterr().out)
    assert code == 1
    assert data["ok"] is False
    last = data["result"]["findings"][-1]
    assert last["name"] == "device"
    assert last["broken"]
    assert "cannot open shared object file" in last["value"]


def test_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: doctor_version(name))

    def doctor_version(name: str) -> str:
        if name == "mlx-lm":
            raise doctor.PackageNotFoundError(name)
        return "1"

    assert main(["doctor"]) == 1
    assert "mlx-lm      not installed\n            → pip install mlx-lm" in capsys.readouterr().out


def test_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter([Finding("BLAS", "slow", "do this\nthen that")]))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "BLAS        slow\n            → do this\n            → then that\n"
