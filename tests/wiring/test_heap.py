"""Memory that is kept for the next array: fewer page faults, and the user's own settings."""

from __future__ import annotations

import os
import subprocess
import sys

import mlx.core as mx
import pytest

from axon_compose.model._heap import keep_freed

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or mx.default_device() != mx.cpu, reason="for glibc and the CPU"
)

FAULTS = """
import resource
import mlx.core as mx
from axon_compose.model._heap import keep_freed

told = {told}
x = mx.ones((2 << 20,))
def work():
    mx.eval(mx.exp(x + 1) * 2 + x)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(told: str, **variables: str) -> tuple[str, int]:
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(told=told)],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    answer, count = done.stdout.split()
    return answer, int(count)


@pytest.mark.skipif(not hasattr(__import__("ctypes").CDLL(None), "mallopt"), reason="not glibc")
def test_arrays_take_the_pages_of_those_before_them() -> None:
    told, kept = faults("keep_freed()")
    assert told == "True"
    # 20 times two or three arrays of 2,048 pages.
    assert kept < 20_000 < faults("None", MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")[1]


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"])
def test_what_the_user_has_settled_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "131072")
    keep_freed.cache_clear()
    try:
        assert not keep_freed()
    finally:
        keep_freed.cache_clear()
