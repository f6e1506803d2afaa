"""Records that a plugin names and whose module is imported when one of them is asked for."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from registry_fakes import module, spec

from axon_compose.registry import ComponentSpec, DeferredSpecs, LookupFailure, Registry


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that can be imported, with two lists of records."""
    found = types.ModuleType("acme_specs")
    found.LONG = [spec("hyena"), spec("monarch")]  # type: ignore[attr-defined]
    found.SHORT = (spec("shift"),)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_specs", found)
    return found


def registry(*given: object, namespace: str = "acme") -> Registry:
    plugins: dict[str, Any] = {namespace: module(axon_components=lambda: given)}
    return Registry.with_plugins(plugins, {namespace: "axon-compose 1" if namespace == "core" else "axon-acme 1.2"})


LONG = DeferredSpecs("acme_specs:LONG", ("hyena", "monarch"))
SHORT = DeferredSpecs("acme_specs:SHORT", ("shift",))


def test_a_record_is_imported_with_those_beside_it(made: types.ModuleType) -> None:
    del made.SHORT
    found = registry(SHORT, LONG)
    assert found.component("acme/monarch") is made.LONG[1]
    assert found.full_name(made.LONG[1]) == "acme/monarch"
    assert found.component("acme/monarch") is found.component("acme/monarch")


def test_names_are_known_without_an_import(made: types.ModuleType) -> None:
    del made.SHORT, made.LONG
    with pytest.raises(LookupFailure) as caught:
        registry(SHORT, LONG).component("acme/hyana")
    assert (caught.value.code, caught.value.help) == ("AX202", "did you mean `acme/hyena`?")


def test_all_are_listed_in_their_order_among_those_that_are_given(made: types.ModuleType) -> None:
    found = registry(spec("first"), LONG, spec("middle"), SHORT)
    names = [f"acme/{name}" for name in ("first", "hyena", "monarch", "middle", "shift")]
    assert [name for name in found.components() if name.startswith("acme/")] == names
    (status,) = (each for each in found.statuses() if each.namespace == "acme")
    assert (status.status, list(status.components)) == ("ok", names)
    assert found.full_name(made.SHORT[0]) == "acme/shift"


@pytest.mark.parametrize(
    ("deferred", "cause"),
    [
        (DeferredSpecs("acme_nowhere:SPECS", ("shift",)), "ModuleNotFoundError: No module named 'acme_nowhere'"),
        (DeferredSpecs("acme_specs:WIDE", ("shift",)), "AttributeError: module 'acme_specs' has no attribute 'WIDE'"),
        (DeferredSpecs("acme_specs:NUMBER", ("shift",)), "TypeError: 'int' object is not iterable"),
        (DeferredSpecs("acme_specs:TEXTS", ("shift",)), "`acme_specs:TEXTS` is not an iterable of ComponentSpec"),
        (DeferredSpecs("acme_specs:LONG", ("shift",)), "`acme_specs:LONG` has hyena, monarch, not shift"),
        (DeferredSpecs("acme_specs:WRONG", ("shift",)), "component `shift`: unknown kind `layr`"),
        (DeferredSpecs("acme_specs:DEFAULT", ("shift",)), "component `shift`: only `core` may mark a default"),
    ],
    ids=lambda value: value.place.partition(":")[2] if isinstance(value, DeferredSpecs) else "",
)
def test_a_module_that_does_not_hold_the_records_fails_its_plugin(
    deferred: DeferredSpecs, cause: str, made: types.ModuleType
) -> None:
    made.NUMBER, made.TEXTS = 3, ["shift"]  # type: ignore[attr-defined]
    made.WRONG, made.DEFAULT = [spec("shift", kind="layr")], [spec("shift", default=True)]  # type: ignore[attr-defined]
    found = registry(spec("first"), deferred)
    assert found.component("acme/first").name == "first"
    for _ in range(2):
        with pytest.raises(LookupFailure) as caught:
            found.component("acme/shift")
        assert (caught.value.code, caught.value.message) == ("AX203", "plugin `acme` cannot be used")
        assert caught.value.label.startswith(f"axon-acme 1.2: {cause}")
    for each in (found, registry(spec("first"), deferred)):
        assert not [name for name in each.components() if name.startswith("acme/")]
        (status,) = (status for status in each.statuses() if status.namespace == "acme")
        assert (status.status, status.cause[: len(cause)]) == ("failed", cause)
    assert found.component("attention").name == "attention"


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ((LONG, spec("hyena")), "`axon_components` gave `hyena` twice"),
        ((LONG, LONG), "`axon_components` gave `hyena` twice"),
        ((DeferredSpecs("acme_specs", ("a",)),), "`acme_specs` is not of the form `package.module:attribute`"),
        ((DeferredSpecs("acme_specs:LONG", ("Hyena",)),), "`Hyena` is not a component name"),
    ],
    ids=["given too", "named twice", "no attribute", "bad name"],
)
def test_what_is_wrong_without_an_import(given: tuple[object, ...], cause: str) -> None:
    with pytest.raises(LookupFailure) as caught:
        registry(*given).component("acme/hyena")
    assert cause in caught.value.label


def test_two_defaults_are_found_when_the_second_is_imported(made: types.ModuleType) -> None:
    made.SHORT = (spec("shift", default=True),)  # type: ignore[attr-defined]
    found = registry(spec("first", default=True), SHORT, namespace="core")
    assert found.default("layer").name == "first"
    with pytest.raises(LookupFailure) as caught:
        found.component("shift")
    assert "two defaults of kind layer: `first` and `shift`" in caught.value.label


def test_tasks_need_no_records() -> None:
    class Plugin:
        def axon_components(self) -> Iterator[ComponentSpec]:
            raise AssertionError("unmarked, so not asked")

    Plugin.axon_components = module(axon_components=lambda self: [LONG]).axon_components  # type: ignore[method-assign]
    with pytest.raises(LookupFailure) as caught:
        Registry.with_plugins({"acme": Plugin()}).task("acme/copy")
    assert caught.value.code == "AX901"


NAMED = """
import sys
from axon_compose.registry import Registry

registry = Registry.installed()
registry.component("attention"), [registry.default(kind) for kind in ("norm", "embedding", "head")]
families = ("attention", "embedding", "mamba", "moe", "norms")
print(*(name for name in families if f"axon_core.specs.{name}" in sys.modules))
"""


def test_built_in_records_are_imported_when_they_are_named() -> None:
    done = subprocess.run([sys.executable, "-c", NAMED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["attention", "embedding", "norms"]
