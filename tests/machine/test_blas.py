"""Which library multiplies matrices on the CPU, and OpenBLAS in its place."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from axon_compose.machine import _elf, blas

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is replaced")
WHEEL = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not blas._is_reference(blas._bound() or Path()) or not blas._openblas(),
    reason="needs MLX's wheel with the reference BLAS, and scipy-openblas32",
)
REFERENCE = Path("/venv/mlx_cpu.libs/libblas-bd8a282c.so.3.10.0")


@pytest.fixture
def anew() -> Iterator[None]:
    """The decision is taken again, in the test and after it."""
    blas.use_fast_blas.cache_clear()
    yield
    blas.use_fast_blas.cache_clear()
    blas.use_fast_blas()


def called() -> dict[str, str]:
    """The library that each of MLX's slots points into."""
    found = {}
    for library in blas._mlx_libraries():
        for slot in _elf.slots(library, "cblas_"):
            path = blas._file_of(ctypes.cast(slot.function, ctypes.CFUNCTYPE(None)))  # type: ignore[arg-type]
            found[slot.name] = path.name if path else ""
    return found


@WHEEL
def test_openblas_is_called() -> None:
    found = blas.use_fast_blas()
    assert found.library == blas._openblas()
    assert (found.threads or 0) >= 1
    assert not blas.is_reference_blas()
    assert called() == dict.fromkeys(("cblas_sgemm", "cblas_dgemm", "cblas_cgemm"), "libscipy_openblas.so")


@WHEEL
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_products_are_right(dtype: str) -> None:
    blas.use_fast_blas()
    rng = np.random.default_rng(0)
    # Multiples of 1/256: a NumPy array becomes one of float32 in MLX.
    a, b, c, d = (np.round(rng.standard_normal(s) * 256) / 256 for s in 2 * ((2, 65, 130), (2, 130, 33)))
    if dtype == "complex64":
        a, b = a + 1j * c, b - 1j * d
    with mx.stream(mx.cpu):
        x, y = (mx.array(m).astype(getattr(mx, dtype)) for m in (a, b))
        for product in (x @ y, (y.swapaxes(-1, -2) @ x.swapaxes(-1, -2)).swapaxes(-1, -2)):
            error = np.abs(np.array(product.tolist()) - a @ b).max() / np.abs(a @ b).max()
            assert error < (1e-13 if dtype == "float64" else 2e-6)


def put_back() -> dict[str, str]:
    """Let MLX multiply with the library that it was linked with."""
    for library in blas._mlx_libraries():
        for slot in _elf.slots(library, "cblas_"):
            original = getattr(ctypes.CDLL(str(library)), slot.name)
            _elf.written(slot, ctypes.cast(original, ctypes.c_void_p).value or 0)
    return called()


@WHEEL
def test_wrong_products_are_noticed_and_undone(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = put_back()
    monkeypatch.setattr(blas, "_is_exact", lambda: False)
    found = blas.use_fast_blas()
    assert found.reason == "OpenBLAS cannot take its place: its products are wrong"
    assert called() == before
    assert before["cblas_sgemm"].startswith("libblas-")


@WHEEL
def test_slots_are_changed_together_or_not_at_all(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before, written, allowed = put_back(), _elf.written, iter([True, False, True])

    def refusing(slot: _elf.Slot, function: int) -> None:
        if not next(allowed):
            raise OSError(13, "mprotect")
        written(slot, function)

    monkeypatch.setattr(_elf, "written", refusing)
    assert "mprotect" in blas.use_fast_blas().reason
    assert called() == before


def in_a_child(program: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "AXON_BLAS"} | variables
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True, timeout=300
    ).stdout


MODEL = "import axon_compose\nmodel = axon_compose.load('llama-small', settings=['dims.hidden_size=64']).build()\n"
SAY = "from tests.machine.test_blas import called\nprint(called()['cblas_sgemm'].partition('-')[0])\n"


@WHEEL
@pytest.mark.parametrize("first", ["", "import mlx.core as mx\nmx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))\n"])
def test_the_order_of_imports_does_not_matter(first: str) -> None:
    assert in_a_child(first + MODEL + SAY) == "libscipy_openblas.so\n"


@WHEEL
def test_it_can_be_switched_off() -> None:
    assert in_a_child(MODEL + SAY, AXON_BLAS="wheel") == "libblas\n"


@WHEEL
def test_planning_alone_replaces_nothing() -> None:
    assert in_a_child("import mlx.core, axon_compose\naxon_compose.load('llama-small')\n" + SAY) == "libblas\n"


@WHEEL
def test_threads_and_forks() -> None:
    """Products of several threads at once, and of a child of a process that has not computed yet."""
    program = """
import os, threading
import axon_compose.machine.blas as blas, mlx.core as mx, numpy as np
pid = os.fork()
blas.use_fast_blas()
a = np.random.default_rng(0).standard_normal((200, 300)).astype(np.float32)
wrong = []
def work():
    with mx.stream(mx.new_stream(mx.cpu)):
        for _ in range(20):
            x = mx.array(a)
            if np.abs(np.array(x @ x.T) - a @ a.T).max() > 1e-3:
                wrong.append(1)
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert not wrong
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("right", blas.use_fast_blas().threads)
"""
    assert in_a_child(program, OPENBLAS_NUM_THREADS="1") == "right 1\n"


@pytest.mark.parametrize(
    ("path", "slow"),
    [
        (REFERENCE, True),
        (Path("/usr/lib/x86_64-linux-gnu/libopenblas.so.0"), False),
        (Path("/usr/lib/x86_64-linux-gnu/libblas.so.3"), False),
        (Path("/opt/intel/libmkl_rt.so.2"), False),
        (None, False),
    ],
)
def test_only_the_wheels_own_is_slow(
    path: Path | None, slow: bool, anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "_bound", lambda: path)
    monkeypatch.setattr(blas, "_openblas", lambda: None)
    assert blas.is_reference_blas() is slow
    assert blas.use_fast_blas() == (path, None, blas.MISSING if slow else "as it was found")


def test_a_fast_library_is_never_touched(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_bound", lambda: Path("/usr/lib/libopenblas.so.0"))
    monkeypatch.setattr(blas, "_replaced", lambda package: pytest.fail("it is fast already"))
    blas.use_fast_blas()


@pytest.mark.parametrize(
    ("library", "machine", "threads", "copies"),
    [
        ("/usr/lib/x86_64-linux-gnu/libopenblas.so.0", "x86_64", "2", True),
        ("/usr/lib/x86_64-linux-gnu/libopenblas.so.0", "x86_64", "8", False),
        ("/usr/lib/aarch64-linux-gnu/libopenblas.so.0", "aarch64", "2", False),
        ("/opt/intel/libmkl_rt.so.2", "x86_64", "2", False),
        (None, "x86_64", "2", False),
    ],
)
def test_whose_products_of_few_rows_copy_the_matrix(
    library: str | None, machine: str, threads: str, copies: bool, anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "_bound", lambda: library and Path(library))
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    assert blas.copies_for_few_rows.__wrapped__() is copies


def test_threads_that_nobody_asked_for(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_bound", lambda: Path("/usr/lib/libopenblas.so.0"))
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    for asked in ("", "all"):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", asked)
        for processors, copies in ((3, True), (4, False)):
            monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
            assert blas.copies_for_few_rows.__wrapped__() is copies


def test_elsewhere(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert blas.use_fast_blas().library is None
    assert not blas.is_reference_blas()


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_processors_of_a_control_group(files: dict[str, str], processors: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert blas._quota(tmp_path) == processors


@LINUX
def test_the_file_of_a_function() -> None:
    found = blas._file_of(ctypes.CDLL(None).strlen)
    assert found is not None
    assert found.name.startswith(("libc", "ld-musl"))


@LINUX
def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libmlx.so").write_bytes(b"\x7fELF\x01\x01" + bytes(64))
    with pytest.raises(OSError, match="libmlx"):
        _elf.slots(tmp_path / "libmlx.so", "cblas_")  # not loaded
    with (tmp_path / "libmlx.so").open("rb") as stream, pytest.raises(ValueError, match="ELF"):
        _elf._File(__import__("mmap").mmap(stream.fileno(), 0, access=1))


@pytest.mark.parametrize(("page", "last"), [(1 << 12, 0xEF4FFF), (1 << 14, 0xEF3FFF), (1 << 16, 0xEEFFFF)])
def test_what_the_loader_protects(page: int, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole pages, as `_dl_protect_relro` of glibc rounds; the segment is that of MLX's library for AArch64."""
    monkeypatch.setattr("mmap.PAGESIZE", page)
    file = object.__new__(_elf._File)
    file.segments = [(0x6474E552, 4, 0xECFAA0, 0xEDFAA0, 0xEDFAA0, 0x15560, 0x15560, 1)]
    assert [file.is_protected(at) for at in (0xED0000 - 1, 0xEDFAA0, last, last + 1)] == [False, True, True, False]
