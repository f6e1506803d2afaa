"""One set of weights in several layers, and gradient checkpoints around layers that share things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import models
import pytest
from mlx.utils import tree_flatten

from axon_compose.model import Block, Reuse
from axon_compose.plan import total_parameters

BRANCHES = ["attn", "mlp"]


def shared(seed: int = 0) -> Any:
    return models.model("a*3", seed, a={"branches": BRANCHES, "share": "one"})


def unshared(weights: dict[str, mx.array]) -> Any:
    """Three layers of their own, with the weights of one in each."""
    model = models.model("a*3", a=BRANCHES)
    copies = [
        (name.replace("layers.0", f"layers.{i}"), value)
        for i in range(3)
        for name, value in weights.items()
        if i == 0 or name.startswith("layers.0")
    ]
    model.load_weights(copies, strict=True)
    return model


def parameters(model: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def loss(model: Any, tokens: mx.array) -> mx.array:
    return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean")


def gradients(model: Any, tokens: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
    value, grads = nn.value_and_grad(model, loss)(model, tokens)
    return value, dict(tree_flatten(grads))


def test_counted_once() -> None:
    model = shared()
    assert [type(layer) for layer in model.layers] == [Block, Reuse, Reuse]
    built = parameters(model)
    assert {name.split(".")[1] for name in built if name.startswith("layers")} == {"0"}
    one = models.model("a", a=BRANCHES)
    assert sum(v.size for v in built.values()) == total_parameters(model.plan) == total_parameters(one.plan)


def test_runs_as_layers_with_equal_weights() -> None:
    model, row = shared(), models.tokens(2, 9)
    assert models.close(model(row), unshared(parameters(model))(row))


def test_gradient_is_the_sum_over_uses() -> None:
    model, row = shared(), models.tokens(2, 12)
    value, got = gradients(model, row)
    alone_value, alone = gradients(unshared(parameters(model)), row)
    assert models.close(value, alone_value)
    for name, grad in got.items():
        if name.startswith("layers.0"):
            wanted = sum(alone[name.replace("layers.0", f"layers.{i}")] for i in range(3))
        else:
            wanted = alone[name]
        assert models.close(grad, wanted, 1e-4), name  # sums of three, each rounded


def test_stays_one_in_training_and_in_a_file(tmp_path: Path) -> None:
    model, row = shared(), models.tokens(2, 12)
    _, grads = nn.value_and_grad(model, loss)(model, row)
    optim.Adam(learning_rate=0.01).update(model, grads)
    assert models.close(model(row), unshared(parameters(model))(row))
    file = str(tmp_path / "model.safetensors")
    model.save_weights(file)
    assert set(mx.load(file)) == set(parameters(model))
    other = shared(seed=1)
    other.load_weights(file, strict=True)
    assert mx.array_equal(other(row), model(row)).item()


@pytest.fixture
def checkpointed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """mlx-lm's switch, which changes the class; put back afterwards."""
    from mlx_lm.tuner.trainer import grad_checkpoint

    monkeypatch.setattr(Block, "__call__", Block.__call__)
    return grad_checkpoint


STACKS = {
    "shared weights": ("a*3", {"a": {"branches": BRANCHES, "share": "one"}}),
    "shared values": ("a b c", {"a": ["attn", "mlp"], "b": ["reader"], "c": ["near", "mlp"]}),
    "both": ("a b b", {"a": ["attn"], "b": {"branches": ["reader", "mlp"], "share": "one"}}),
    "flagship": ("a b c", {"a": ["ssm"], "b": ["swa", "moe"], "c": ["ssm", "moe"]}),
}


@pytest.mark.parametrize("stack", STACKS)
def test_gradient_checkpoints(stack: str, checkpointed: Any) -> None:
    text, blocks = STACKS[stack]
    model, row = models.model(text, **blocks), models.tokens(2, 21)
    value, grads = gradients(model, row)
    mx.eval(value, grads)
    runs = []
    checkpointed(model.layers[0])
    inner = Block.__call__
    Block.__call__ = lambda self, *rest: (runs.append(1), inner(self, *rest))[1]
    again, same = gradients(model, row)
    mx.eval(again, same)
    assert len(runs) == len(model.plan.layers)
    assert models.close(again, value)
    assert grads.keys() == same.keys()
    for name, grad in grads.items():
        assert mx.abs(grad).max().item() > 0, name
        assert models.close(same[name], grad), name
