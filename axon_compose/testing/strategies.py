"""Hypothesis strategies: options of a component, and whole descriptions.

    from hypothesis import given
    from axon_compose.testing import check_layer
    from axon_compose.testing.strategies import options


    @given(options("acme/hyena"))
    def test_hyena(chosen):
        check_layer("acme/hyena", chosen)

Hypothesis comes with the extra `testing` of axon-compose; nothing else in the package needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from axon_compose.registry import ComponentSpec, Registry
from axon_compose.testing._model import DIMS
from axon_compose.testing._parts import drawn_part
from axon_compose.testing._registered import registered
from axon_compose.testing._stacks import drawn_stack

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import DrawFn, SearchStrategy
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "axon_compose.testing.strategies needs hypothesis: pip install hypothesis", name=missing.name
    ) from None

__all__ = ["options", "stacks"]

T = TypeVar("T")


class _Drawn:
    """Choices that Hypothesis makes, and makes simpler when a test fails."""

    def __init__(self, draw: DrawFn) -> None:
        self._draw = draw

    def choose(self, values: Sequence[T]) -> T:
        """One of the values."""
        return self._draw(st.sampled_from(values))


def options(
    spec: ComponentSpec | str, dims: Mapping[str, Any] = DIMS, *, registry: Registry | None = None
) -> SearchStrategy[dict[str, Any]]:
    """Valid options of a component, in small sizes, as a file writes them.

    They are made up from its JSON Schema and its examples, and those that the record or a plan refuses are left out. So
    are options that name another component, such as `kv_from`.

    Args:
        spec: Its record, or the type as a file writes it, `namespace/name`.
        dims: Sizes of the model that it stands in.
        registry: The plugins; the installed ones unless given.
    """
    name, _, plugins = registered(spec, registry)

    @st.composite
    def drawn(draw: DrawFn) -> dict[str, Any] | None:
        return drawn_part(name, _Drawn(draw), dims, plugins)

    return _found(drawn())


def stacks(*, registry: Registry | None = None) -> SearchStrategy[dict[str, Any]]:
    """Whole descriptions for `axon_compose.load`: one to three layers of the components of every plugin.

    Their blocks have one or two branches: side by side, kept for later, with norms before, after or around, with
    factors; components read keys and values of earlier layers, blocks share their weights, and embedding, norms and
    head are drawn too. Few enough parameters that `axon_compose.proof.check.check_plan` takes seconds.

    Args:
        registry: The plugins; the installed ones unless given.
    """
    plugins = registry or Registry.installed()

    @st.composite
    def drawn(draw: DrawFn) -> dict[str, Any] | None:
        return drawn_stack(_Drawn(draw), plugins)

    return _found(drawn())


def _found(drawn: SearchStrategy[dict[str, Any] | None]) -> SearchStrategy[dict[str, Any]]:
    """Without the attempts that led to nothing."""
    return drawn.filter(lambda each: each is not None).map(lambda each: each or {})
