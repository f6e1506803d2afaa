"""What this machine gives to models: versions, device, the library that multiplies, the compiler; and what to install.

On Linux, MLX's wheel for the CPU brings the reference BLAS, some eighty times slower than the processor could be, and
nothing says so. `axon_compose.machine.blas` puts OpenBLAS in its place; what multiplies now is looked up, measured, and
reported.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from axon_compose.machine.blas import MISSING, SWITCHED_OFF, is_reference_blas, use_fast_blas
from axon_compose.machine.memory import available
from axon_compose.machine.native import NEEDED, SWITCH, native
from axon_compose.machine.units import human

__all__ = ["Finding", "examine", "processor"]

#: Rows and columns of the matrices that are multiplied.
_SIZE: Final = 384
#: What to do about the reference BLAS, by the reason why it is still in use.
_ADVICE: Final = {MISSING: "pip install scipy-openblas32", SWITCHED_OFF: "unset AXON_BLAS"}
_COMPILERS: Final = {
    "debian": "sudo apt install g++",
    "fedora": "sudo dnf install gcc-c++",
    "rhel": "sudo dnf install gcc-c++",
    "suse": "sudo zypper install gcc-c++",
    "arch": "sudo pacman -S gcc",
}


@dataclass(frozen=True)
class Finding:
    """Something about the machine.

    Attributes:
        name: What it is about.
        value: What was found.
        advice: What to do about it; empty if it is well.
        broken: Nothing runs before that is done.
    """

    name: str
    value: str
    advice: str = ""
    broken: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)


def examine() -> Iterator[Finding]:
    """Look at everything, in the order in which one would. It imports mlx and takes less than a second."""
    yield Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    yield Finding("processor", f"{processor()}, {os.cpu_count()} cores, {human(available())} of memory free")
    for package in ("mlx", "mlx-lm"):
        yield _package(package)
    try:
        import mlx.core as mx
    except ImportError as error:
        extra = "'mlx[cpu]' or 'mlx[cuda]'" if sys.platform.startswith("linux") else "mlx"
        yield Finding("device", f"mlx cannot be imported: {error}", f"pip install {extra}", broken=True)
        return
    device = str(mx.default_device().type).removeprefix("DeviceType.")
    yield Finding("device", "the CPU" if device == "cpu" else "Metal" if mx.metal.is_available() else "CUDA")
    if device == "cpu":
        yield _products()
        yield _compiler()
        yield _native()


def processor() -> str:
    """Its name, as far as the system says."""
    if sys.platform.startswith("linux"):
        found = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", f"pip install {name}", broken=True)


def _products() -> Finding:
    """The library for matrix products, and how fast they are."""
    blas = use_fast_blas()
    speed = f"{_gigaflops():.3g} GFLOP/s in products of float32"
    threads = f", {blas.threads} thread{'s' if blas.threads > 1 else ''}" if blas.threads else ""
    if not is_reference_blas():
        return Finding("BLAS", f"{blas.library.name if blas.library else 'of the system'}{threads}, {speed}")
    advice = _ADVICE.get(blas.reason, f"{blas.reason}\nexport LD_PRELOAD=libopenblas.so.0  # before python starts")
    return Finding("BLAS", f"the reference BLAS of the wheel, {speed}", advice)


def _gigaflops() -> float:
    import mlx.core as mx

    a = mx.ones((_SIZE, _SIZE))
    mx.eval(a, a @ a)
    start = perf_counter()
    mx.eval(a @ a.T)
    return 2 * _SIZE**3 / (perf_counter() - start) / 1e9


def _compiler() -> Finding:
    """What `mx.compile` makes its kernels with."""
    found = shutil.which("g++")
    if found:
        return Finding("compiler", f"{found}, which makes fused kernels at run time")
    advice = _for_system(_COMPILERS) or "install a C++ compiler that is called g++"
    return Finding("compiler", "no g++: operations are not fused, and exponentials are slow", advice)


def _native() -> Finding:
    """Whether recurrences and products with packed weights run in C++, and for which processor."""
    name = "kernels"
    found = native()
    if found is None and os.environ.get(SWITCH) == "0":
        return Finding(name, f"those of MLX; axon-native is not used because {SWITCH} is 0")
    if found is None:
        return Finding(name, "those of MLX; axon-native, which is optional, is several times as fast")
    advice = "pip install --no-build-isolation ./plugins/axon-native"
    if found.version != NEEDED:
        return Finding(name, f"those of MLX; axon-native {found.version} is not used, {NEEDED} is needed", advice)
    try:
        import axon_native
    except ImportError as error:
        return Finding(name, str(error), advice)
    threads = axon_native.most_threads()
    products = f"products for {axon_native.product_kernels()}, {threads} thread{'s' if threads > 1 else ''}"
    return Finding(name, f"in C++, axon-native {found.version}: recurrences, {products}")


def _for_system(commands: dict[str, str]) -> str | None:
    """The command of this distribution, or of one that it is like."""
    release = _text("/etc/os-release")
    names = re.findall(r'^(?:ID|ID_LIKE)="?([^"\n]+)"?$', release, re.MULTILINE)
    words = [word for name in names for word in name.split()]
    return next((commands[word] for word in words if word in commands), None)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
