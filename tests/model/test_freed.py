"""Memory that is kept for the next array: no page faults, and the user's own limit."""

from __future__ import annotations

import subprocess
import sys

import mlx.core as mx
import pytest

pytestmark = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="for the CPU")

FAULTS = """
import resource
import mlx.core as mx
from axon_compose.model._freed import keep_freed

{first}
x = mx.ones((2 << 20,))
def work():
    mx.eval([x + i for i in range(8)])
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, mx.set_cache_limit(0))
"""


def run(first: str) -> tuple[int, int]:
    """Page faults, and the limit in the end."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(first=first)], capture_output=True, text=True, check=True
    )
    faults, limit = map(int, done.stdout.split())
    return faults, limit


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages of 4 KiB")
def test_arrays_take_the_pages_of_those_before_them() -> None:
    kept, limit = run("keep_freed()")
    assert limit == 512 << 20
    # Without it, at least four of eight arrays of 2,048 pages each time.
    assert kept < 10_000 < 40_000 < run("")[0]


def test_what_the_user_has_told_stays() -> None:
    assert run("mx.set_cache_limit(1 << 20); keep_freed()")[1] == 1 << 20


def test_a_model_keeps_it_from_its_first_call_on() -> None:
    model = "from axon_compose import load; net = load('hybrid-demo').build(); net.eval(); net(mx.array([[1, 2]]))"
    assert run(model)[1] == 512 << 20
