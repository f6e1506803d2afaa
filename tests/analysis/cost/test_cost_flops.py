"""Operations that components declare are those of the graph that MLX traces.

One decoded token shows everything exactly: products, scores against all kept keys, one step of every recurrence.
A prompt then is the sum of its tokens; where an implementation takes another way for many tokens (chunks of a scan,
keys under a mask), what is declared is still the work that the model asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import mlx.core as mx
import pytest
from cost_subjects import ARCHITECTURES, COMPONENTS, component, small

import axon_core.conv
from axon_compose import Architecture, load
from axon_compose.model import build
from axon_compose.registry import State
from axon_core.cpu import reference_implementations

PRODUCTS = ("Matmul", "AddMM", "GatherMM")
#: Modules of axon_core that convolve.
CONVOLVING = (
    "branch_convolutions",
    "convolved_attention",
    "engram",
    "gated_delta_net",
    "kimi_delta_attention",
    "kv_conv",
    "mamba2",
    "multihead_mamba",
    "rg_lru",
    "short_conv",
    "ssm",
)


@contextmanager
def convolutions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Operations of the convolutions that run, which are sums of products and not seen in a graph."""
    seen: list[int] = []
    right = axon_core.conv.causal_conv

    def counted(conv: Any, x: mx.array, *rest: Any) -> Any:
        channels, taps, _ = conv.weight.shape
        seen.append(2 * x.shape[0] * x.shape[1] * channels * taps)
        return right(conv, x, *rest)

    with monkeypatch.context() as patch:
        for module in CONVOLVING:
            patch.setattr(f"axon_core.{module}.causal_conv", counted)
        yield seen


def traced(
    architecture: Architecture, before: int, tokens: int, monkeypatch: pytest.MonkeyPatch, *, batch: int = 1
) -> int:
    """Operations of `tokens` tokens behind `before` others, counted in the graph."""
    model = build(architecture.plan())
    cache = model.make_cache()
    if before:
        model(mx.zeros((batch, before), mx.int32), cache)
    mx.eval(model.parameters(), [entry.state for entry in cache] if before else [])
    steps: list[dict[str, Any]] = []
    # MLX exports no function with a gradient of its own, as forms for the CPU have.
    with reference_implementations(), convolutions(monkeypatch) as convolved:
        mx.export_function(steps.append, lambda ids: model(ids, cache), mx.zeros((batch, tokens), mx.int32))
    steps = [step for step in steps if step["type"] == "primitive"]
    exponents = {name for step in steps if step["name"] == "Exp" for name, *_ in step["inputs"]}
    states = {
        # Beside it, others are kept in float32 that are as small as what is done to a token.
        max((prod(array.shape) for array in leaf.arrays if array.dtype == "float32"), default=0)
        for slot in architecture.plan().slots
        for leaf in getattr(slot, "children", (slot,))
        if isinstance(leaf, State)
    }
    total = sum(convolved)
    for step in steps:
        name, shape, _ = step["outputs"][0]
        if step["name"] in PRODUCTS:
            total += 2 * prod(shape) * step["inputs"][0][1][-1]
        elif step["name"] in ("Multiply", "Add") and prod(shape) in states and name not in exponents:
            # Decays and outer products of a recurrence: elementwise, but on the state.
            total += prod(shape) if sum(extent > 1 for extent in shape) > 1 else 0
    return total


def declared(architecture: Architecture, context: int) -> int:
    sheet = architecture.cost(context=context)
    assert sheet.exact_flops
    return sheet.contexts[0].decode_flops


@pytest.mark.parametrize(("name", "options"), COMPONENTS)
def test_a_decoded_token(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = component(name, options)
    for before in (5, 30):
        hidden = beyond_the_window(architecture, before + 1) if "kv_from" in options else 0
        assert declared(architecture, before + 1) + hidden == traced(architecture, before, 1, monkeypatch), before


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_decoded_token_of_an_architecture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = small(name)
    assert declared(architecture, 31) == pytest.approx(traced(architecture, 30, 1, monkeypatch), rel=0.01)


@pytest.mark.parametrize(("name", "options"), COMPONENTS)
def test_a_prompt_is_the_sum_of_its_tokens(name: str, options: dict[str, Any]) -> None:
    """But for latents: keys and values are made for a prompt, and not for a token."""
    if name == "core/latent_attention":
        pytest.skip("another way for many tokens")
    architecture, tokens = component(name, options), 13
    (cost,) = architecture.cost(context=tokens, batch=2).contexts
    assert cost.prefill_flops == 2 * sum(declared(architecture, context) for context in range(1, tokens + 1))


@pytest.mark.parametrize(("name", "options"), COMPONENTS)
def test_a_prompt_in_the_graph(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products are as declared; a graph on the CPU also has the scores that a mask hides."""
    architecture, tokens = component(name, options), 12
    slots = architecture.plan().slots
    if any(isinstance(leaf, State) for slot in slots for leaf in getattr(slot, "children", (slot,))):
        pytest.skip("states are for many tokens at a time")
    hidden = 0
    for layer in architecture.plan().layers:
        for use in layer.uses():
            if use.masks:
                chunk = getattr(use.options, "chunk_size", None) or tokens
                hidden += 2 * masked(tokens, use.window, chunk) * score_width(use.options, use.dims.hidden_size)
                hidden += unreached(use.options, tokens)
    (cost,) = architecture.cost(context=tokens).contexts
    assert cost.prefill_flops + hidden == traced(architecture, 0, tokens, monkeypatch)


def beyond_the_window(architecture: Architecture, context: int) -> int:
    """Scores against keys of another layer that the own window hides."""
    uses = [use for layer in architecture.plan().layers for use in layer.uses() if use.masks and use.cache is None]
    hidden = [2 * (context - min(context, use.window or context)) for use in uses]
    return sum(n * score_width(use.options, use.dims.hidden_size) for n, use in zip(hidden, uses, strict=True))


def masked(tokens: int, window: int | None, chunk: int) -> int:
    """Pairs that a mask hides, counted one by one; queries of a chunk are multiplied with keys of that chunk alone."""
    pairs = ((query, key) for query in range(tokens) for key in range(tokens) if query // chunk == key // chunk)
    return sum(key > query or (window is not None and key <= query - window) for query, key in pairs)


def unreached(options: Any, tokens: int) -> int:
    """Operations for scores of distances that lie before the first token."""
    relative = getattr(options, "relative", None)
    if relative is None:
        return 0
    distances = [min(query + 1, relative.extent) for query in range(tokens)]
    return int(2 * options.num_heads * relative.rank * sum(max(distances) - seen for seen in distances))


def score_width(options: Any, hidden_size: int) -> int:
    """Numbers of all heads that are multiplied for one pair."""
    if not hasattr(options, "kv_lora_rank"):
        width = getattr(options, "head_dim", None) or hidden_size // options.num_heads
        return int(options.num_heads * (width + (getattr(options, "v_head_dim", None) or width)))
    absorbed = 2 * options.kv_lora_rank < options.qk_nope_head_dim + options.value_dim
    widths = 2 * options.kv_lora_rank if absorbed else options.qk_nope_head_dim + options.value_dim
    return int(options.num_heads * (widths + options.qk_rope_head_dim))


def test_layers_that_share_weights_compute_again() -> None:
    described = load("hybrid-demo").data | {"stack": "shared*3"}
    described["blocks"]["shared"] = {"branches": ["swa"], "share": "one"}
    three = load(described).cost(context=8)
    one = load(described | {"stack": "shared"}).cost(context=8)
    (three_swa,), (one_swa,) = ([p for p in sheet.parts if p.name == "swa"] for sheet in (three, one))
    assert three_swa.decode_flops[0] == 3 * (one_swa.decode_flops[0] or 0)
    assert three_swa.weight_bytes == one_swa.weight_bytes
