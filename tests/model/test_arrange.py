"""Under the reference BLAS matrices are column-major for inference and row-major for training; only the clock tells."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from axon_compose import load
from axon_compose.model import LanguageModel, _language_model, quantize
from axon_compose.model._arrange import arrange

pytestmark = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="matrices are put in order on the CPU alone")


def column_major(weight: mx.array) -> bool:
    """Told by the strides, of all leading axes but that of experts."""
    mx.eval(weight)
    strides = memoryview(weight).strides
    assert strides is not None
    return strides[-2] == weight.itemsize


def orders(model: LanguageModel) -> dict[str, bool]:
    """Of all matrices, once the model has run."""
    mx.eval(model(mx.array([[1]])))
    matrices = {name: value for name, value in tree_flatten(model.parameters()) if value.ndim > 1}
    return {name: column_major(value) for name, value in matrices.items() if min(value.shape[-2:]) > 1}


@pytest.fixture(autouse=True)
def _reference_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_language_model, "is_reference_blas", lambda: True)


@pytest.fixture
def model() -> LanguageModel:
    return load("hybrid-demo").build()


def test_for_inference_and_for_training(model: LanguageModel) -> None:
    found = orders(model)
    linear = {name for name in found if name.endswith(("_proj.weight", "gate.weight"))}
    assert len(linear) > 10
    assert all(found[name] for name in linear)
    assert not any(orders(model.train()).values())
    assert orders(model.eval()) == found


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_stays_as_it_is(tied: bool) -> None:
    sizes = {"hidden_size": 32, "vocab_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = [f"dims.{name}={value}" for name, value in sizes.items()]
    model = load("llama", settings=[*settings, f"dims.tie_word_embeddings={str(tied).lower()}"]).build()
    assert not orders(model)["embedding.embed_tokens.weight"]


def test_with_a_fast_blas_nothing_is_laid_out_anew(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_language_model, "is_reference_blas", lambda: False)
    assert not any(orders(model).values())


def test_numbers_stay(model: LanguageModel) -> None:
    tokens = mx.array([[1, 2, 3, 4]])
    before = {name: mx.array(value) for name, value in tree_flatten(model.parameters())}
    logits = model(tokens)
    trained = model.train()(tokens)
    assert mx.abs(logits - trained).max() < 1e-5
    for name, value in tree_flatten(model.parameters()):
        assert mx.array_equal(value, before[name])


def test_weights_that_are_loaded_are_put_in_order(model: LanguageModel) -> None:
    other = load("hybrid-demo").build(seed=1)
    found = orders(model)
    weights = [(name, mx.contiguous(value)) for name, value in tree_flatten(other.parameters())]
    assert model.load_weights(weights) is model
    assert orders(model) == found
    assert all(mx.array_equal(value, dict(weights)[name]) for name, value in tree_flatten(model.parameters()))
    assert not any(orders(model.train().load_weights(weights)).values())


def test_what_is_saved_is_the_same(model: LanguageModel, tmp_path: Path) -> None:
    for name, mode in (("a", True), ("b", False)):
        model.train(mode)
        mx.save_safetensors(str(tmp_path / name), dict(tree_flatten(model.parameters())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_loading_takes_no_room_and_a_call_that_of_one_matrix(model: LanguageModel) -> None:
    weights = list(tree_flatten(load("hybrid-demo").build(seed=1).parameters()))
    mx.eval(weights)
    model.load_weights(weights)
    largest = max(value.nbytes for _, value in weights)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    model._arrange()
    # The list above keeps the old ones.
    kept = sum(value.nbytes for _, value in weights if value.ndim > 1)
    assert mx.get_peak_memory() - before < kept + 2 * largest
    del weights
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    model.train()._arrange()
    assert mx.get_peak_memory() - before < 2.5 * largest


def test_while_a_function_is_traced_nothing_is_computed(model: LanguageModel) -> None:
    step = mx.compile(lambda tokens: model(tokens), inputs=model.state)
    tokens = mx.array([[1, 2, 3]])
    traced = step(tokens)
    assert not model._in_order
    assert mx.abs(traced - model(tokens)).max() < 1e-5
    assert model._in_order


def test_other_types_and_packed_weights_stay_as_they_are(model: LanguageModel) -> None:
    half = load("hybrid-demo").build(dtype="bfloat16")
    assert not any(orders(half).values())
    quantize(model, 4)
    packed = {name: value for name, value in tree_flatten(model.parameters()) if value.dtype == mx.uint32}
    model.eval()
    after = dict(tree_flatten(model.parameters()))
    assert all(mx.array_equal(value, after[name]) for name, value in packed.items())
    assert not any(column_major(after[name]) for name in packed)


class Own(nn.Module):
    """A class that says for itself whether it takes part."""

    def __init__(self, told: bool | None) -> None:
        super().__init__()
        self.weight = mx.zeros((2, 3, 5))
        if told is not None:
            self.column_major = told


class Plain(nn.Linear):
    column_major = False


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Own(True), True),
        (lambda: Own(False), False),
        (lambda: Own(None), False),
        (lambda: nn.Linear(3, 5), True),
        (lambda: Plain(3, 5), False),
        (lambda: nn.Embedding(3, 5), False),
    ],
)
def test_who_takes_part(make: Callable[[], Any], expected: bool) -> None:
    layer = make()
    arrange(layer, column_major=True)
    assert column_major(layer.weight) is expected


def test_a_copy_and_a_second_time(model: LanguageModel) -> None:
    found = orders(model)
    held = model.head
    again = copy.deepcopy(model).eval().eval()
    assert orders(again) == found
    assert model.head is held
