"""The kit for plugins refuses what is wrong with a component or its record, each fault in its own words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from axon_compose.registry import KV, ComponentSpec, Registry
from axon_compose.testing import check_layer, check_plugin, component_model

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {"rate": {"type": "number", "default": 0.5}},
    "additionalProperties": False,
}


class Scale(nn.Module):
    """Something right and small: a gain for each dimension."""

    def __init__(self, options: Any, dims: Any) -> None:
        super().__init__()
        self.gain = mx.ones((dims.hidden_size,)) * options["rate"]

    def __call__(self, x: mx.array) -> mx.array:
        return nn.silu(x) * self.gain


class Pair(Scale):
    def __call__(self, x: mx.array) -> Any:
        return super().__call__(x), None


class Narrow(Scale):
    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x)[..., :1]


class Wide(Scale):
    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x).astype(mx.float16)


class Leaking(Scale):
    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x) + x.mean(axis=1, keepdims=True)


class Alone(Scale):
    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        return super().__call__(x)


SPEC = ComponentSpec(
    name="scale",
    kind="layer",
    options=OPTIONS,
    module=f"{__name__}:Scale",
    summary="A gain.",
    params=lambda options, dims: {"gain": (dims.hidden_size,)},
    examples=({}, {"rate": 2.0}),
)


def of(made: type) -> str:
    return f"{__name__}:{made.__name__}"


def test_right_layer() -> None:
    check_layer(SPEC, {"rate": 0.25})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": of(Pair)}, "returns only y, not tuple"),
        ({"module": of(Narrow)}, r"turns \(2, 5, 64\) into \(2, 5, 1\)"),
        ({"module": of(Wide)}, "turns mlx.core.float32 into mlx.core.float16"),
        ({"module": of(Leaking)}, "FAIL  causal"),
        ({"module": of(Alone), "cache": lambda o, d: KV(1, 8)}, r"gives \(y, cache\), not array"),
        ({"params": lambda o, d: {"gain": (d.hidden_size + 1,)}}, "FAIL  parameters"),
        ({"params": lambda o, d: {"gains": (d.hidden_size,)}}, "FAIL  parameters"),
        ({"examples": ({"rte": 1.0},)}, "`scale`: example .*unknown option `rte`"),
        ({"shrink": lambda options, dims: {**options, "rate": "small"}}, "`shrink` of `scale` gives options that"),
        ({"shrink": lambda written: written}, "`shrink` of `scale` raises TypeError: .* takes 1 positional argument"),
    ],
)
def test_wrong_layer(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_layer(replace(SPEC, **changes))


def test_options_that_do_not_fit() -> None:
    with pytest.raises(AssertionError, match="unknown option `gain`"):
        check_layer(SPEC, {"gain": 3})
    with pytest.raises(AssertionError, match="cannot be planned"):
        check_layer("attention", {"num_heads": 3})


def test_reader_without_a_source() -> None:
    with pytest.raises(AssertionError, match="which no earlier layer uses"):
        check_layer("attention", {"num_heads": 4, "kv_from": "source"})


def test_kinds_that_stand_nowhere() -> None:
    with pytest.raises(ValueError, match="kind position"):
        component_model("core/rope", "position", {})


def test_whole_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third-party package of the other tests, as its author would test it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugins" / "axon-leaky"))
    import axon_leaky

    try:
        check_plugin(
            "leaky", {"hidden_size": 16, "vocab_size": 31}, registry=Registry.with_plugins({"leaky": axon_leaky})
        )
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] == "axon_leaky"]:
            del sys.modules[name]


def test_plugin_without_examples() -> None:
    registry = Registry.with_plugins({"acme": [replace(SPEC, examples=())]})
    with pytest.raises(AssertionError, match="`acme/scale` has no examples"):
        check_plugin("acme", registry=registry)
    with pytest.raises(AssertionError, match="no installed plugin provides `acne`"):
        check_plugin("acne", registry=registry)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "records_of_mine.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return "records_of_mine"

    return write


def test_records_that_import_mlx(package: Callable[[str], str]) -> None:
    from axon_compose.testing._layer import _imports_mlx

    name = package("import mlx.core")
    _imports_mlx.cache_clear()
    assert _imports_mlx(name)
    assert not _imports_mlx("axon_core")
