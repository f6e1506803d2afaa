"""The kit tries the transfers of a component, those of the built-in ones included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from axon_compose.registry import Case, ComponentSpec, Dims, Piece, Registry, Transfer, TransferExample
from axon_compose.testing import check_plugin, check_transfers

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {"rate": {"type": "number", "default": 0.5}},
    "additionalProperties": False,
}


class Scale(nn.Module):
    """A gain for each dimension, times a constant."""

    def __init__(self, options: Any, dims: Any) -> None:
        super().__init__()
        self.rate = options["rate"]
        self.gain = mx.ones((dims.hidden_size,))

    def __call__(self, x: mx.array) -> mx.array:
        return nn.silu(x) * self.rate * self.gain


def right(case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"gain": arrays["gain"] * np.float32(case.source_options["rate"] / case.options["rate"])}


def wrong_claim(case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"gain": arrays["gain"]}


def wrong_shape(case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"gain": arrays["gain"][:1]}


def wrong_type(case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"gain": arrays["gain"].astype(np.float64)}


def wrong_names(case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"gains": arrays["gain"]}


def infinite(case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"gain": arrays["gain"] * np.float32("inf")}


def fickle(case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"gain": np.random.default_rng().standard_normal(arrays["gain"].shape, dtype=np.float32)}


SPEC = ComponentSpec(
    name="scale",
    kind="layer",
    options=OPTIONS,
    module=f"{__name__}:Scale",
    summary="A gain.",
    params=lambda options, dims: {"gain": (dims.hidden_size,)},
    examples=({}, {"rate": 2.0}),
)
RIGHT = Transfer(
    name="transfer",
    sources=("same",),
    pieces=lambda case: {"gain": Piece(("gain",), "the gain, by the rates")},
    make=f"{__name__}:right",
    claim="The same.",
    examples=(TransferExample({"rate": 0.25}, {"rate": 2.0}),),
)


def spec(**changes: Any) -> ComponentSpec:
    return replace(SPEC, transfers=(replace(RIGHT, **changes),))


def test_a_right_transfer_passes() -> None:
    check_transfers(spec())
    check_transfers(spec(examples=()))
    check_plugin("acme", registry=Registry.with_plugins({"acme": [spec()]}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"make": f"{__name__}:wrong_claim"}, "is said to be exact, but outputs differ by"),
        ({"make": f"{__name__}:wrong_shape"}, "makes `gain` of shape (1,), not (64,)"),
        ({"make": f"{__name__}:wrong_type"}, "makes `gain` in float64, not float32"),
        ({"make": f"{__name__}:wrong_names"}, "makes ['gain', 'gains'] otherwise than its `pieces` say"),
        ({"make": f"{__name__}:infinite"}, "makes numbers of `gain` that are not finite"),
        ({"make": f"{__name__}:fickle"}, "makes other numbers of `gain` the second time"),
        (
            {"pieces": lambda case: {"gain": Piece(("gain",), "…", "about")}},
            "neither `exact` nor `near` of `gain`",
        ),
        ({"pieces": lambda case: {"loss": Piece((), "…")}}, "makes `loss`, which is no parameter of the component"),
        ({"pieces": lambda case: {"gain": Piece(("loss",), "…")}}, "reads `loss`, which is no parameter of the source"),
        ({"pieces": lambda case: "never"}, "does not take its own example {'rate': 0.25}: never"),
        ({"pieces": lambda case: "never", "examples": ()}, "fits no examples of both records"),
        ({"examples": (TransferExample({"rat": 1}, {}),)}, "does not take its own example {'rat': 1}: unknown option"),
        (
            {"examples": (TransferExample({}, {}, "core/mlp"),)},
            "of core/mlp, which it does not start from",
        ),
    ],
)
def test_a_wrong_transfer_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_transfers(spec(**changes))
    assert why in str(caught.value)


def test_a_source_that_is_not_installed_is_left_out() -> None:
    check_transfers(spec(sources=("nowhere/scale",), make="nowhere:at_all"))


BUILT_IN = sorted(name for name, each in Registry.installed().components().items() if each.transfers)


@pytest.mark.parametrize("name", BUILT_IN)
def test_transfers_of_built_in_components(name: str) -> None:
    check_transfers(name, Dims({"hidden_size": 64, "vocab_size": 97}))
