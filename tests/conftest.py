"""What holds for the whole suite."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, settings

from tests import children, forks, mlx_tasks, native, processors
from tests.families import seeded

# What is tested are the forms that everybody has, also where `axon-native` is installed, which has tests of its own;
# with `AXON_NATIVE=1` it is everything with that.
os.environ.setdefault("AXON_NATIVE", "0")
# Workers are as many as processors, so each multiplies with one thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Hundreds of commands are started, and each would compile the same files again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Ten thousand tests and all modules stay in memory, and a collector that runs every 700 objects looks through them
# again and again: a seventh of the time of what only plans models.
gc.set_threshold(20_000, 20, 20)

# Machines that run the suite may be slow and shared: what a test tries is bounded by its examples, not by a clock.
# In CI the examples are always the same, so that a failure there can be repeated.
settings.register_profile(
    "suite", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def no_lost_tasks() -> Iterator[None]:
    """What a test loses of MLX's tasks stops no evaluation of a later one."""
    yield
    mlx_tasks.settle()


@pytest.fixture(autouse=True)
def same_variables() -> Iterator[None]:
    """With others than at first, every command of a later test would be a fresh interpreter instead of a fork."""
    before = forks.read_once(os.environ)
    yield
    assert forks.read_once(os.environ) == before


@pytest.fixture
def forked_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `bench` measures need not import everything again."""
    if forks.POSSIBLE:
        for name, value in forks.OFFLINE.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("axon_compose.proof.bench._process.PYTHON", forks.python())


@pytest.fixture
def default_signals() -> Iterator[None]:
    """For tests that send signals to their own process, which may ignore them."""
    with children.default_signals():
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which `axon-native` is installed."""
    return native.unpack(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def module(built: Path) -> ModuleType:
    """It, imported."""
    sys.path.insert(0, str(built))
    try:
        return importlib.import_module("axon_native")
    except ImportError as error:
        if "another nanobind" in str(error):  # what MLX was built with is not written anywhere
            pytest.skip(str(error))
        raise
    finally:
        sys.path.remove(str(built))


def pytest_collection_finish() -> None:
    """Seventeen thousand tests and all modules stay as they are: let no collector look through them again.

    Tests of memory collect first, hundreds of times, and would each pay a quarter of a second for it.
    """
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Make the drawn weights, and let MLX compile the kernels that every worker needs, before there are workers.

    On the CPU it keeps them in one folder for all processes, and one that finds a library half written cannot load it.
    """
    if worker := getattr(config, "workerinput", None):
        processors.settle(int(worker["workerid"].removeprefix("gw")), worker["workercount"])
    else:
        try:
            seeded.complete()
        except OSError as error:
            raise pytest.UsageError(f"the weights of fixtures cannot be written: {error}") from error
        from axon_core.elementary import exp, gelu, gelu_tanh, relu2, sigmoid, silu, softplus, tanh

        x = mx.full((8192,), -1.0)
        for of_what in (x, x[:1]):
            mx.eval([function(of_what) for function in (exp, gelu, gelu_tanh, relu2, sigmoid, silu, softplus, tanh)])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say in one line which tests were left out for want of an optional program or package: reasons with "needs"."""
    yield  # what others say comes first
    reasons = [
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    ]
    counts = Counter(reason for reason in reasons if reason.startswith("needs "))
    if counts:
        parts = "; ".join(f"{count} x {why}" for why, count in sorted(counts.items()))
        terminalreporter.write_line(f"tests left out: {parts}")
