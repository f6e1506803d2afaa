"""Bytes that a sheet declares are those of the built model: weights, quantised weights, and caches."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import mlx.core as mx
import pytest
from cost_subjects import ARCHITECTURES, COMPONENTS, component, small
from mlx.utils import tree_flatten

from axon_compose import Architecture
from axon_compose.analysis.cost import BITS, GROUP_SIZE, Storage
from axon_compose.model import GROUP_SIZE as BUILT_GROUP_SIZE
from axon_compose.model import build, quantize
from axon_compose.registry import KV

#: Every width of quantised weights, the types of the rest in turn.
STORED: list[tuple[str, int | None]] = [
    ("float32", None),
    ("bfloat16", None),
    *zip(cycle(("float32", "bfloat16", "float16")), BITS),
]


def built_bytes(model: Any) -> dict[str, int]:
    """Bytes of each module, words, scales and biases together."""
    found: dict[str, int] = {}
    for name, value in tree_flatten(model.parameters()):
        module = name.rpartition(".")[0]
        found[module] = found.get(module, 0) + value.nbytes
    return found


def declared_bytes(architecture: Architecture, storage: Storage) -> dict[str, int]:
    found: dict[str, int] = {}
    for use in architecture.plan().uses():
        for name in use.params:
            module = f"{use.path}.{name}".rpartition(".")[0]
            found[module] = found.get(module, 0) + storage.parameter(use, name)
    return found


def check_weights(architecture: Architecture) -> None:
    for dtype, bits in STORED:
        model = build(architecture.plan(), dtype=dtype)
        if bits:
            quantize(model, bits)
        built = built_bytes(model)
        assert declared_bytes(architecture, Storage(dtype, bits)) == built, (dtype, bits)
        sheet = architecture.cost(context=1, dtype=dtype, quantize=bits)
        assert sheet.weight_bytes == sum(built.values())
        # Words have 32 bits; quantised numbers are packed into them without a gap.
        words = [value.size for name, value in tree_flatten(model.parameters()) if value.dtype == mx.uint32]
        assert sheet.quantized_parameters == (sum(words) * 32 // bits if bits else 0)
        assert sheet.weight_bytes == sum(part.weight_bytes for part in sheet.parts)
        plan = architecture.plan()
        outside = [part.weight_bytes for part in sheet.parts if part.name in ("embedding", "head")]
        # Connections have the name of the residual scheme they belong to, and are within layers.
        outside += [Storage(dtype, bits).nbytes(use) for use in (plan.final_norm, plan.residual) if use]
        assert sheet.weight_bytes == sum(outside) + sum(layer.weight_bytes for layer in sheet.layers)


def held(cache: Any) -> int:
    """Bytes of the part of a cache that holds tokens: keys and values are allocated in steps of 256."""
    if hasattr(cache, "caches"):
        return sum(map(held, cache.caches))
    if not hasattr(cache, "offset"):
        return sum(array.nbytes for array in cache.cache)
    kept = min(cache.offset, getattr(cache, "max_size", cache.offset))
    return sum(array[:, :, :kept].nbytes for array in (cache.keys, cache.values))


def check_caches(architecture: Architecture) -> None:
    plan = architecture.plan()
    leaves = [leaf for slot in plan.slots for leaf in getattr(slot, "children", (slot,))]
    window = max((leaf.window or 4 for leaf in leaves if isinstance(leaf, KV)), default=4)
    for dtype in ("float32", "bfloat16"):
        model = build(plan, dtype=dtype)
        for tokens in {1, window - 1, window, window + 1, 3 * window} - {0}:
            cache = model.make_cache()
            # The last token by itself, for a rotating cache keeps a prompt whole until the next token.
            for length in (tokens - 1, 1):
                if length:
                    model(mx.zeros((2, length), mx.int32), cache)
                    mx.eval([entry.state for entry in cache])
            (found,) = architecture.cost(context=tokens, dtype=dtype, batch=2).contexts
            assert found.cache_bytes == sum(map(held, cache)), (dtype, tokens)


@pytest.mark.parametrize(("name", "options"), COMPONENTS)
def test_weights_of_components(name: str, options: dict[str, Any]) -> None:
    check_weights(component(name, options))


@pytest.mark.parametrize(("name", "options"), COMPONENTS)
def test_caches_of_components(name: str, options: dict[str, Any]) -> None:
    check_caches(component(name, options))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name: str) -> None:
    check_weights(small(name))
    check_caches(small(name))


def test_the_groups_are_those_of_the_build() -> None:
    assert GROUP_SIZE == BUILT_GROUP_SIZE
