"""What the sheet says is sent, against what the devices of a running model hand to each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from axon_compose import load
from axon_compose.analysis.cost import Storage
from axon_compose.analysis.devices import Layout
from axon_compose.analysis.devices._strategies import Spreads
from axon_compose.model import divided, in_threads, with_folder_names
from axon_compose.proof.check import shrink
from axon_compose.registry import Shard
from tests.shipped import shipped

#: Attention, windows, states, experts, per-layer inputs, latents and several kinds in one model.
NAMES = ["llama", "bit-axon", "jamba", "nemotron_h", "qwen3_next", "gemma3n_text", "deepseek_v3", "rwkv7"]


def counted(device: Shard, found: Counter[str]) -> Shard:
    """A device that counts what a ring makes of what it hands over."""
    n = device.size

    def added(array: mx.array) -> mx.array:
        found["bytes"] += 2 * (n - 1) * array.nbytes
        found["messages"] += 2 * (n - 1)
        return device.sum(array)

    def gathered(array: mx.array) -> mx.array:
        found["bytes"] += (n - 1) * array.nbytes * n
        found["messages"] += n - 1
        return device.gather(array)

    return replace(device, sum=added, gather=gathered)


@pytest.mark.parametrize(("name", "devices"), [(name, 2 + 2 * (at % 2)) for at, name in enumerate(NAMES)])
def test_bytes_and_messages_of_a_pass(name: str, devices: int) -> None:
    architecture = load(shrink(shipped(name).plan(), hidden_size=64))
    model = architecture.build(dtype="float32")
    tokens = mx.zeros((2, 3), mx.int32)
    mx.eval(tokens, model.parameters())  # here, for a thread cannot compute what another one has begun

    def work(device: Shard) -> Counter[str]:
        found: Counter[str] = Counter()
        part = with_folder_names(model)
        part.keep_part(counted(device, found))
        mx.eval(part(tokens))
        return found

    spread = Spreads(architecture.plan(), Storage("float32"), 8).pieces(devices)
    traffic = [spread.exchanged(piece, tokens.size) for piece in spread.all()]
    for found in in_threads(devices, work):
        assert sum(each.nbytes for each in traffic) == pytest.approx(found["bytes"] / devices)
        assert sum(each.messages for each in traffic) == found["messages"]


#: Several streams, values of the embedding and of the first layer, layers with the weights of others.
DIVIDED = ["llama", "jamba", "deepseek_v4", "gemma3n_text", "rwkv7", "zamba2", "nanbeige", "longcat_flash_ngram"]


@pytest.mark.parametrize("name", DIVIDED)
def test_bytes_of_a_pipeline(name: str) -> None:
    architecture = load(shrink(shipped(name).plan(), hidden_size=64))
    size = min(3, sum(layer.owner is None for layer in architecture.plan().layers))
    model = architecture.build(dtype="float32")
    tokens = mx.zeros((2, 1), mx.int32)
    mx.eval(tokens)
    parts = divided(model, size)

    def step(part: Any) -> list[mx.array]:
        return [part(tokens, part.make_cache())]

    for _ in range(2):  # what is announced, and what is sent once, goes first
        parts.run(step)
    for ring in parts.rings:
        ring.sent.clear()
    parts.run(step)
    spread = Spreads(architecture.plan(), Storage("float32"), 1).spread(Layout(pipeline=size))
    sent = spread.scored(2)[1]
    for stage, traffic in spread.hops(2, batch=2):
        sent[stage] += traffic.nbytes
    found = [sum(ring.sent) for ring in reversed(parts.rings)]
    if name == "gemma3n_text":  # its per-layer inputs are narrower than the hidden state here
        assert all(said >= counted for said, counted in zip(sent, found, strict=True))
    else:
        assert sent == pytest.approx(found)
