"""How much memory there is, by what the system says, and a refusal in time."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_compose.checkpoints.files import CheckpointError, require
from axon_compose.machine import memory, units

GIB = 2**30


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (11_533_557_760, "11.5 GB"), (999_499, "999 kB"),
        (999_999, "1.00 MB"), (10**15, "1.00 PB"), (123 * 10**18, "123 EB"), (10**21, "10^21 B"),
        (999_999 * 10**15, "10^21 B"),
    ],
)  # fmt: skip
def test_bytes_for_people(nbytes: int, text: str) -> None:
    assert units.human(nbytes) == text


def test_numbers_too_long_to_print() -> None:
    assert units.human(10**5000) == "10^5000 B"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (17, "17"), (200_000, "200K"), (5_766_778_880, "5.77B"), (2_750_000_000, "2.75B"), (999_999, "1.00M"),
        (10**14, "100T"), (10**15, "10^15"),
    ],
)  # fmt: skip
def test_counts_for_people(number: int, text: str) -> None:
    assert units.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (11_900.4, "11,900"), (123_456, "123,000"), (100, "100"), (99.96, "100"), (45.67, "45.7"), (1.0, "1"),
        (0.01234, "0.0123"), (0.000123, "0.000123"), (1e-5, "< 0.0001"), (0, "0"),
    ],
)  # fmt: skip
def test_rates_for_people(number: float, text: str) -> None:
    assert units.rate(number) == text


@given(st.floats(1e-3, 1e15))
def test_a_rate_reads_back_to_three_digits(number: float) -> None:
    text = units.rate(number)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(number, rel=0.005)


def machine(root: Path, available_kb: int, cgroup: str, files: dict[str, str]) -> Path:
    texts = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {available_kb} kB\n", "proc/self/cgroup": cgroup}
    for name, text in (texts | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_free_memory_alone(tmp_path: Path) -> None:
    assert memory._linux(machine(tmp_path, 2 * 2**20, "0::/\n", {})) == 2 * GIB


def test_cgroup_2_and_its_parents(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/a/memory.max": f"{8 * GIB}\n",
        "sys/fs/cgroup/a/memory.current": f"{6 * GIB}\n",
        "sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "5\n",
    }
    root = machine(tmp_path, 64 * 2**20, "0::/a/b\n", files)
    assert memory._linux(root) == 3 * GIB  # 8 - 6 + 1 that file pages would give back
    (root / "sys/fs/cgroup/a/b/memory.max").write_text(str(GIB + 5))
    assert memory._linux(root) == GIB


def test_cgroup_1(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(4 * GIB),
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(3 * GIB),
        "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 7\ntotal_inactive_file 512\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
    }
    root = machine(tmp_path, 64 * 2**20, "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n", files)
    assert memory._linux(root) == GIB + 512


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": str(2 * GIB), "sys/fs/cgroup/memory.current": str(GIB)}
    assert memory._linux(machine(tmp_path, 64 * 2**20, "0::/far/away\n", files)) == GIB


def test_nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory._linux(tmp_path) is None
    monkeypatch.setattr(memory, "_linux", lambda root: None)
    monkeypatch.setattr(memory, "_macos", lambda: None)
    assert memory.available() > 2**20


def test_an_address_space_limit_counts() -> None:
    limit = 3 * GIB
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}));\
from axon_compose.machine.memory import available; print(available())"
    left = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0 < left < limit
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != limit


def test_macos_pages() -> None:
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               10.\nPages active:                            500.\n"
        "Pages inactive:                           20.\nPages speculative:                         3.\n"
        "Pages wired down:                        900.\nPages purgeable:                           4.\n"
    )
    assert memory._pages(text) == 37 * 16384
    assert memory._pages("") is None


def test_available_is_less_than_the_machine() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024 if sys.platform == "linux" else 2**50
    assert 0 < memory.available() < total


def test_a_refusal_names_the_largest_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 4 * 10**9)
    require(4 * 10**9, "`m`")
    parts = [("norm", 10), ("layers.0.moe", 9 * 10**9), ("layers.1.moe", 10**9), ("head", 5 * 10**9)]
    with pytest.raises(CheckpointError) as error:
        require(4 * 10**9 + 1, "`m` in bfloat16", parts)
    assert error.value.code == "AX401"
    assert error.value.message == "`m` in bfloat16 needs 4.00 GB of memory, 4.00 GB are available"
    assert error.value.help == "`layers.0.moe` takes 9.00 GB, `head` takes 5.00 GB, `layers.1.moe` takes 1.00 GB"
    with pytest.raises(CheckpointError, match="10\\^30 B"):
        require(10**30, "`m`")


def test_no_mlx_is_imported() -> None:
    code = (
        "import sys; from axon_compose.machine.memory import available; available(); "
        "sys.exit(any(n in sys.modules for n in ('mlx', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


#: Prints what a process holds while it maps a file, reads half of it, writes to a quarter, and copies it.
HELD = """
import sys
import numpy as np
from axon_compose.machine.memory import held

size, path = int(sys.argv[1]), sys.argv[2]
mapped = np.memmap(path, np.uint8, "c")
arrays = {mapped.ctypes.data: mapped.nbytes}
before = held({})
print(held(arrays) - before)
mapped[: size // 2].sum()
print(held(arrays) - before, held({}) - before)
mapped[: size // 4] = 1
print(held(arrays) - before, held({}) - before)
copied = np.ones(size, np.uint8)
arrays[copied.ctypes.data] = copied.nbytes
print(held(arrays) - before)
del copied
print(held({}) - before, held({}, most=True) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports pages of files")
def test_arrays_in_mapped_files_are_held_as_a_whole_and_once(tmp_path: Path) -> None:
    size = 32 << 20
    (tmp_path / "weights").write_bytes(bytes(size))
    done = subprocess.run(
        [sys.executable, "-c", HELD, str(size), str(tmp_path / "weights")], capture_output=True, text=True, check=False
    )
    found = [int(text) / size for text in done.stdout.split()]
    assert found[:-1] == pytest.approx([1, 1, 0, 1, 0.25, 2, 0.25], abs=0.05), done.stderr
    assert 1.2 < found[-1] < 2  # with pages of the file that were resident at that time
