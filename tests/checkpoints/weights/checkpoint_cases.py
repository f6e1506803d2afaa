"""Hand-made checkpoints and models that are nothing but parameters, so that a rule is tested alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from axon_compose.checkpoints.weights import LoadPlan, load_checkpoint, plan_load, read_checkpoint
from axon_compose.language.document import HuggingFace


def section(weights: Mapping[str, Any], prefixes: tuple[str, ...] = ()) -> HuggingFace:
    return HuggingFace.model_validate(
        {"model_types": ["case"], "prefixes": dict.fromkeys(prefixes, ""), "weights": dict(weights)}
    )


@dataclass
class Shapes:
    """Stands in for a plan: names and shapes of parameters."""

    shapes: Mapping[str, tuple[int, ...]]
    name: str = "case"
    head: ClassVar[Any] = SimpleNamespace(spec=SimpleNamespace(touched=None))  # one that is tied to nothing

    def parameters(self) -> list[tuple[str, tuple[int, ...]]]:
        return list(self.shapes.items())

    def uses(self) -> tuple[()]:
        return ()


class Parameters(nn.Module):
    """A model with these parameters; matrices called `.weight` below `linear` are those of a `Linear`."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], linear: tuple[str, ...] = ()) -> None:
        super().__init__()
        leaves: dict[str, Any] = {name: mx.zeros(shape) for name, shape in shapes.items()}
        for path in linear:
            rows, columns = leaves.pop(f"{path}.weight").shape
            leaves[path] = nn.Linear(columns, rows, bias=False)
        for name, value in tree_unflatten(list(leaves.items())).items():
            self[name] = value

    @property
    def cast_predicate(self) -> Any:
        return lambda path: not path.endswith("A_log")


@dataclass
class Case:
    """A checkpoint in a folder and the model that it is for."""

    folder: Path
    weights: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, Any] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    linear: tuple[str, ...] = ()

    def write(self, tensors: Mapping[str, Any], mark: str | None = "pt", name: str = "model.safetensors") -> None:
        arrays = {key: value if isinstance(value, mx.array) else mx.array(value) for key, value in tensors.items()}
        mx.save_safetensors(str(self.folder / name), arrays, {"format": mark} if mark else None)

    def plan(self, layout: Any = "read", **options: Any) -> LoadPlan:
        checkpoint = read_checkpoint(self.folder)
        layout = checkpoint.layout if layout == "read" else layout
        rules = section(self.weights, self.prefixes)
        return plan_load(Shapes(self.shapes), rules, self.dims, checkpoint.tensors, layout, **options)  # type: ignore[arg-type]

    def load(self, layout: Any = "read", dtype: str | None = None, **options: Any) -> dict[str, mx.array]:
        model = Parameters(self.shapes, self.linear)
        load_checkpoint(model, self.plan(layout, **options), dtype=dtype)
        return dict(tree_flatten(model.parameters()))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def assert_same(found: Mapping[str, mx.array], expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(np.array(found[name]), value, err_msg=name)
