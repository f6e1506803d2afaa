"""axon-native for this machine: built once, found again, and installed; without what it takes, left out in silence.

    python packaging/build_native.py              # ends well without it: axon-compose then runs the operations of MLX
    python packaging/build_native.py --required   # ends with 1 then, and builds again what could not be built before

A wheel is kept in `.cache/native` for each state of its sources, MLX, nanobind, Python and processor. Building takes
about a minute of processor time, and the packages of the extra `native`, which pip fetches.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "plugins" / "axon-native"
#: Wheels, and what was printed where one could not be built.
KEPT: Final = ROOT / ".cache" / "native"
#: Says in the environment which wheel is installed there.
STAMP: Final = Path(sys.prefix, "axon-native.stamp")
#: What it is written in; `<span>` comes with C++20, and Python.h is often a package of its own.
_PROBE: Final = "#include <Python.h>\n#include <span>\nint main() { return 0; }\n"


class NotBuilt(Exception):
    """A reason why there is no wheel; `quiet` where the machine is one that does not need or cannot make it."""

    def __init__(self, reason: str, *, quiet: bool = False) -> None:
        super().__init__(reason)
        self.quiet = quiet


def lacking() -> str | None:
    """What keeps this machine from building it, or makes it useless."""
    import mlx.core as mx

    if mx.default_device() != mx.cpu:
        return "MLX runs on a GPU here, and it is for the CPU"
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        return "there is no C++ compiler"
    command = [compiler, "-std=c++20", "-fsyntax-only", "-I", sysconfig.get_path("include"), "-x", "c++", "-"]
    if subprocess.run(command, input=_PROBE, capture_output=True, text=True, check=False).returncode:
        return f"{compiler} does not compile C++20 with the headers of Python"
    return None


def key() -> str:
    """Differs where another wheel is needed."""
    found = hashlib.sha256()
    files = [path for path in SOURCES.rglob("*") if path.is_file() and path.suffix not in (".md", ".pyc")]
    for path in sorted(files):
        found.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes() + b"\0")
    versions = [version("mlx"), _nanobind(), sysconfig.get_config_var("SOABI"), platform.machine(), _instructions()]
    found.update("\0".join(map(str, versions)).encode())
    return found.hexdigest()[:16]


def _nanobind() -> str:
    """Its arrays are those of MLX only if both were built with versions that agree."""
    try:
        return version("nanobind")
    except PackageNotFoundError:
        return ""


def _instructions() -> str:
    """Of the processor, for which it is compiled."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return platform.processor()
    return " ".join(sorted(found[1].split())) if found else platform.processor()


def wheel(*, again: bool = False) -> Path:
    """The wheel for this machine, built unless it is there.

    Args:
        again: Try also where it could not be built before.

    Raises:
        NotBuilt: There is none, and why.
    """
    folder = KEPT / key()
    if found := next(folder.glob("*.whl"), None):
        return found
    log = folder / "build.log"
    if log.exists() and not again:
        raise NotBuilt(f"it could not be built, see {log}", quiet=True)
    folder.mkdir(parents=True, exist_ok=True)
    print("building axon-native, kernels in C++ for the CPU: about a minute, once", flush=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as place:
        done = _pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", place, str(SOURCES))
        built = next(Path(place).glob("*.whl"), None)
        if done.returncode or built is None:
            log.write_text(done.stdout + done.stderr)
            failure = NotBuilt(f"it could not be built, see {log}")
            failure.add_note(log.read_text())
            raise failure
        log.unlink(missing_ok=True)
        return built.replace(folder / built.name)


def _install_tools() -> None:
    """What builds it, unless all of it is there."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["native"]
    try:
        for requirement in wanted:
            version(re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0])
    except PackageNotFoundError:
        if _pip("install", *wanted).returncode:
            raise NotBuilt("pip cannot install what builds it") from None


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def install(found: Path) -> None:
    """Put a wheel into this environment, unless MLX there does not take it.

    Raises:
        NotBuilt: It cannot be imported.
    """
    _pip("install", "--no-deps", "--no-index", "--force-reinstall", str(found))
    if fault := _fault():
        _pip("uninstall", "--yes", "axon-native")
        raise NotBuilt(fault, quiet=True)
    STAMP.write_text(found.parent.name)


def _fault() -> str:
    """Why it cannot be imported, such as that MLX was built with another nanobind; nothing if it can."""
    done = subprocess.run([sys.executable, "-c", "import axon_native"], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def main(arguments: list[str]) -> int:
    """Build and install it, if that can be done and has not been."""
    required = arguments == ["--required"]
    if STAMP.exists() and STAMP.read_text() == key() and not _fault():
        return 0
    try:
        if reason := lacking():
            raise NotBuilt(reason, quiet=True)
        _install_tools()
        install(wheel(again=required))
    except NotBuilt as error:
        if required or not error.quiet:
            print(f"axon-native is left out: {error}", file=sys.stderr)
        return int(required)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
