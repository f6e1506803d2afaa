"""Each worker of the suite has a processor of its own, where there are no more processors than workers."""

import json
import os
import subprocess
import sys

import pytest

from tests import forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processors are given out on Linux alone")

#: Of a process that may use all processors: which those are, and processors and policy of what starts inside `shared`
#: and of each thread afterwards.
PROGRAM = """
import json, os, sys, threading
from tests import processors

os.sched_setaffinity(0, range(os.cpu_count()))
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
threading.Thread(target=threading.Event().wait, daemon=True).start()
before = sorted(os.sched_getaffinity(0))
worker, missing = map(int, sys.argv[1:])
processors.settle(worker, len(before) - missing)
with processors.shared():
    shared = sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0)
threads = [int(name) for name in os.listdir("/proc/self/task")]
print(json.dumps([before, shared, [[sorted(os.sched_getaffinity(t)), os.sched_getscheduler(t)] for t in threads]]))
"""


def settled(worker: int, missing: int) -> tuple[list[int], list[tuple[list[int], int]]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM, str(worker), str(missing)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    before, shared, threads = json.loads(done.stdout)
    assert shared == [before, os.SCHED_OTHER]
    assert len(threads) == 2
    return before, [(processors, policy) for processors, policy in threads]


@pytest.mark.parametrize("worker", [0, 1, 5])
def test_every_thread_is_on_the_processor_of_its_worker(worker: int) -> None:
    before, threads = settled(worker, 0)
    assert threads == [([before[worker % len(before)]], os.SCHED_BATCH)] * 2


def test_fewer_workers_than_processors_share_them() -> None:
    before, threads = settled(0, 1)
    assert threads == [(before, os.SCHED_OTHER)] * 2


@pytest.mark.skipif(not forks.POSSIBLE, reason="forks are for Linux alone")
def test_a_fork_has_the_processors_of_its_caller() -> None:
    command = [*forks.python(), "-c", "import os; print(sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0))"]
    before, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
    for processors in (before, {min(before)}):
        os.sched_setaffinity(0, processors)
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | forks.OFFLINE)
        finally:
            os.sched_setaffinity(0, before)
        assert said.stdout == f"{sorted(processors)} {policy}\n"
