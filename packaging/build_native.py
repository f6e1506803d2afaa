"""axon-native for this machine: built once, found again, and installed; without what it takes, left out in silence.

    python packaging/build_native.py              # ends well without it: axon-compose then runs the operations of MLX
    python packaging/build_native.py --required   # ends with 1 then, and builds again what could not be built before

A wheel is kept in `.cache/native` for each state of its sources, MLX, nanobind, Python and processor, and of `CXX`,
`CXXFLAGS`, `CMAKE_ARGS` and `CMAKE_TOOLCHAIN_FILE`. Building takes about a minute of processor time, and the packages
of the extra `native`, which pip fetches. What takes longer than a quarter of an hour is ended; nothing that was started
goes on after this script, unless it is killed by SIGKILL.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "plugins" / "axon-native"
#: Wheels, and what was printed where one could not be built.
KEPT: Final = ROOT / ".cache" / "native"
#: Says in the environment which wheel is installed there.
STAMP: Final = Path(sys.prefix, "axon-native.stamp")
#: What says in the environment how CMake builds it.
_ASKED: Final = ("CXX", "CXXFLAGS", "CMAKE_ARGS", "CMAKE_TOOLCHAIN_FILE")
#: A program that takes longer hangs.
_SECONDS: Final = 900.0
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
    if _run(command, _PROBE).returncode:
        return f"{compiler} does not compile C++20 with the headers of Python"
    return None


def key() -> str:
    """Differs where another wheel is needed."""
    found = hashlib.sha256()
    files = [path for path in SOURCES.rglob("*") if path.is_file() and path.suffix not in (".md", ".pyc")]
    for path in sorted(files):
        found.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes() + b"\0")
    versions = [version("mlx"), _nanobind(), sysconfig.get_config_var("SOABI"), platform.machine(), _instructions()]
    asked = [os.environ.get(name) for name in _ASKED]
    found.update("\0".join(map(str, versions + asked)).encode())
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
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # of those that need it at the same time, one builds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        return next(folder.glob("*.whl"), None) or _build(folder, again=again)


def _build(folder: Path, *, again: bool) -> Path:
    log = folder / "build.log"
    if log.exists() and not again:
        raise NotBuilt(f"it could not be built, see {log}", quiet=True)
    for left in folder.glob(".building-*"):  # by a build that was killed
        shutil.rmtree(left)
    print("building axon-native, kernels in C++ for the CPU: about a minute, once", flush=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as place:
        done = _pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", place, str(SOURCES), TMPDIR=place)
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


def _pip(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], **variables)


def _run(command: list[str], text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """A program that reads a text, until it ends or has hung; what it started and left running is ended, too."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(text, _SECONDS)
        except subprocess.TimeoutExpired:
            _end(process)
            out, err = process.communicate()
            err += f"it was ended after {_SECONDS:g} seconds\n"
        finally:
            _end(process)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _end(process: subprocess.Popen[str]) -> None:
    """End the group of a program; ninja, which runs each compiler in another one, ends those if it is asked first."""
    with suppress(ProcessLookupError, PermissionError):  # there is none; macOS forbids it then, until all are reaped
        os.killpg(process.pid, signal.SIGTERM)
        for _ in range(100):
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


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
    done = _run([sys.executable, "-c", "import axon_native"])
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def end_at_signals() -> None:
    """Let signals that end this process end what it has started first, as Ctrl-C does."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


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
    except (NotBuilt, OSError) as error:
        if required or not getattr(error, "quiet", False):
            print(f"axon-native is left out: {error}", file=sys.stderr)
        return int(required)
    return 0


if __name__ == "__main__":
    end_at_signals()
    sys.exit(main(sys.argv[1:]))
