"""What a branch computes, written out in float64: norms around the whole and around single components."""

from __future__ import annotations

from typing import Any

import models
import numpy as np
import pytest
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.proof.check._subject import Subject

EPS = 0.1


def built(*branches: Any) -> Any:
    return Subject(
        axon_compose.load(
            {
                "version": 1,
                "dims": {"hidden_size": 16, "vocab_size": 97},
                "components": {
                    "f": {"type": "mlp", "intermediate_size": 8, "gated": False, "activation": "relu"},
                    "g": {"type": "mlp", "intermediate_size": 12, "gated": False, "activation": "relu"},
                },
                "blocks": {"a": list(branches)},
                "stack": "a",
                "norm": {"eps": EPS},
                "final_norm": "none",
                "embedding": {"scale": 20.0},
            }
        ).plan()
    ).model


class Parts:
    """The parts of the only layer, and the vectors of some tokens, in float64."""

    def __init__(self, model: Any) -> None:
        arrays = {name: np.array(value, dtype=np.float64) for name, value in tree_flatten(model.parameters())}
        self.x = 20.0 * arrays["embedding.embed_tokens.weight"][np.array(models.tokens(1, 9)[0])]
        self.weights = {name.removeprefix("layers.0."): value for name, value in arrays.items()}

    def mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ self.weights[f"{name}.up_proj.weight"].T, 0) @ self.weights[f"{name}.down_proj.weight"].T

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * self.weights[f"{name}.weight"]


def same(model: Any, want: np.ndarray) -> None:
    got = np.array(model.hidden(models.tokens(1, 9))[0])
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_two_norms_side_by_side() -> None:
    """GPT-NeoX: `x + f(n1(x)) + g(n2(x))`."""
    model = built({"parallel": [{"use": "f", "norm": "pre"}, {"use": "g", "norm": "pre"}], "norm": "none"})
    p = Parts(model)
    same(model, p.x + p.mlp("f", p.norm("f_norm", p.x)) + p.mlp("g", p.norm("g_norm", p.x)))


def test_norms_of_components_inside_of_a_norm_behind() -> None:
    """Gemma 4: `x + post(post_f(f(pre_f(x))) + post_g(g(x)))`."""
    model = built({"parallel": [{"use": "f", "norm": "sandwich"}, {"use": "g", "norm": "post"}], "norm": "post"})
    p = Parts(model)
    f = p.norm("f_post_norm", p.mlp("f", p.norm("f_norm", p.x)))
    g = p.norm("g_post_norm", p.mlp("g", p.x))
    same(model, p.x + p.norm("f_g_post_norm", f + g))


@pytest.mark.parametrize("kept", [False, True])
def test_every_norm_and_factor_at_once(kept: bool) -> None:
    """Inside to outside: a component's norms, its factor, the branch's norms, its factor."""
    name = {"as": "later"} if kept else {}
    members = [{"use": "f", "norm": "sandwich", "scale": 0.5}, {"use": "g", "norm": "sandwich", "scale": 3.0, **name}]
    branch = {"parallel": members, "norm": "sandwich", "scale": 0.25}
    model = built(branch, *([{"add": "later", "scale": 2.0}] if kept else []))
    p = Parts(model)
    h = p.norm("f_g_norm", p.x)
    f = 0.5 * p.norm("f_post_norm", p.mlp("f", p.norm("f_norm", h)))
    g = 3.0 * p.norm("g_post_norm", p.mlp("g", p.norm("g_norm", h)))
    if kept:
        same(model, p.x + 0.25 * p.norm("f_g_post_norm", f) + 2.0 * 0.25 * p.norm("f_g_post_norm", g))
    else:
        same(model, p.x + 0.25 * p.norm("f_g_post_norm", f + g))
