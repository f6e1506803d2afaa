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
from axon_compose.machine.blas import MISSING, SWITCHED_OFF, Blas, is_reference_blas
from axon_compose.proof import doctor
from axon_compose.proof.doctor import Finding, examine

DEBIAN = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """Another machine: its release, why it has the reference BLAS, its compiler."""

    def found(release: str = "", reason: str = MISSING, compiler: str | None = None) -> dict[str, Finding]:
        monkeypatch.setattr(doctor, "is_reference_blas", lambda: True)
        monkeypatch.setattr(doctor, "use_fast_blas", lambda: Blas(Path("libblas-bd8a282c.so.3"), None, reason))
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


def test_a_compiler_that_is_there(machine: Callable[..., dict[str, Finding]]) -> None:
    assert not machine(compiler="/usr/bin/g++")["compiler"].advice


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (MISSING, "pip install scipy-openblas32"),
        (SWITCHED_OFF, "unset AXON_BLAS"),
        ("OpenBLAS cannot take its place: mprotect", "OpenBLAS cannot take its place: mprotect\nexport LD_PRELOAD="),
    ],
)
def test_what_to_do_about_a_slow_blas(machine: Callable[..., dict[str, Finding]], reason: str, advice: str) -> None:
    assert machine(reason=reason)["BLAS"].advice.startswith(advice)


@pytest.mark.parametrize(
    ("release", "compiler"),
    [
        (DEBIAN, "sudo apt install g++"),
        ("ID=fedora\n", "sudo dnf install gcc-c++"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install gcc-c++"),
        ("ID=arch\n", "sudo pacman -S gcc"),
        ("", "install a C++ compiler that is called g++"),
    ],
)
def test_what_to_install(machine: Callable[..., dict[str, Finding]], release: str, compiler: str) -> None:
    found = machine(release)
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
