"""Packages that import what they export when it is asked for."""

from importlib import import_module

import pytest

PACKAGES = ("architecture", "learn", "learn.race", "report", "report.draw", "surgery")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_found_and_no_other(package: str) -> None:
    module = import_module(f"axon_compose.{package}")
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"^module 'axon_compose.{package}' has no attribute 'nonsense'$"):
        _ = module.nonsense
    assert not hasattr(module, "__nonsense__")
