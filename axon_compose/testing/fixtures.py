"""A plugin of pytest for the tests of a plugin: the checks as fixtures, with a seed from the command line.

In `conftest.py` at the root of the tests::

    pytest_plugins = ["axon_compose.testing.fixtures"]

It is not registered as an entry point, for then every run of pytest in the environment would load it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from axon_compose import __version__
from axon_compose.registry import Registry
from axon_compose.testing import _layer

__all__ = ["axon_registry", "check_layer", "check_plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--axon-seed`, so that the same tests can be run with other weights and tokens."""
    parser.addoption("--axon-seed", type=int, default=0, metavar="N", help="of weights and tokens (default: 0)")


def pytest_report_header(config: pytest.Config) -> str:
    """Which seed the run has."""
    return f"axon-compose: {__version__}, --axon-seed {config.getoption('axon_seed')}"


@pytest.fixture(scope="session")
def axon_registry() -> Registry:
    """The plugins: the installed ones. Override it to test one that is not installed, by `Registry.with_plugins`."""
    return Registry.installed()


@pytest.fixture
def check_layer(axon_registry: Registry, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`axon_compose.testing.check_layer` with the plugins and the seed of the run."""
    return partial(_layer.check_layer, registry=axon_registry, seed=request.config.getoption("axon_seed"))


@pytest.fixture
def check_plugin(axon_registry: Registry, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`axon_compose.testing.check_plugin` with the plugins and the seed of the run."""
    return partial(_layer.check_plugin, registry=axon_registry, seed=request.config.getoption("axon_seed"))
