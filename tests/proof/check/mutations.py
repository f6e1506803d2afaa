"""Faults to plant, one at a time: what is done to the code, in which model, and which truths must notice.

The first eight are those that were measured in an implementation of these layers before (the fault of the layer
count is one of the plan and is tested there); the others are what goes wrong in hybrid models.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_map
from mlx_lm.models.cache import ArraysCache, BatchRotatingKVCache, KVCache, RotatingKVCache

import axon_compose.model._block
import axon_compose.model._language_model
import axon_core.attention
import axon_core.conv
import axon_core.experts
import axon_core.head
import axon_core.mlp
import axon_core.moe
import axon_core.norms
import axon_core.specs.embedding
import axon_core.ssm
import axon_core.window
from axon_compose.registry import KV, Array, ComponentSpec, Registry, State
from axon_core.attention import Attention
from axon_core.linear import QuantizedEmbedding
from axon_core.ssm import AxonSSM

Patch = pytest.MonkeyPatch

DIMS = {"hidden_size": 32, "vocab_size": 97}
COMPONENTS = {
    "ssm": {"type": "axon_ssm", "d_state": 4},
    "swa": {"type": "sliding_window_attention", "num_heads": 4, "num_kv_heads": 2, "window_size": 8, "rope": {}},
    "moe": {"type": "shared_expert_moe", "num_experts": 4, "top_k": 2, "intermediate_size": 32},
    "attn": {"type": "attention", "num_heads": 4, "num_kv_heads": 2},
    "reader": {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "kv_from": "attn"},
    "mlp": {"type": "mlp", "intermediate_size": 48},
}


def described(stack: str, **blocks: Any) -> dict[str, Any]:
    used = {name: section for name, section in COMPONENTS.items() if f"'{name}'" in repr(blocks)}
    return {"version": 1, "name": "planted", "dims": DIMS, "components": used, "blocks": blocks, "stack": stack}


MODELS = {
    "hybrid": described("absorb reason synthesize", absorb=["ssm"], reason=["swa", "moe"], synthesize=["ssm", "moe"]),
    "full": described("layer*2", layer=["attn", "mlp"]),
    "parallel": described("layer*2", layer=[{"parallel": ["ssm", "attn"]}, "mlp"]),
    "sharing": described("first second", first=["attn", "mlp"], second=["reader", "mlp"]),
    "shared": described("layer*3", layer={"branches": ["attn", "mlp"], "share": "one"}),
}


@dataclass(frozen=True)
class Mutation:
    name: str
    model: str
    plant: Callable[[Patch], None]
    noticed_by: tuple[str, ...]


FOUND: list[Mutation] = []


def mutation(model: str, *noticed_by: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        FOUND.append(Mutation(plant.__name__, model, plant, noticed_by))
        return plant

    return register


def changed_spec(patch: Patch, name: str, **changes: Any) -> None:
    """Another record for a built-in component."""
    original = Registry.component

    def component(self: Registry, type_name: str) -> ComponentSpec:
        spec = original(self, type_name)
        if spec.name != name:
            return spec
        if id(spec) not in made:
            made[id(spec)] = replace(spec, **changes)
            self._names[id(made[id(spec)])] = self.full_name(spec)
        return made[id(spec)]

    made: dict[int, ComponentSpec] = {}
    patch.setattr(Registry, "component", component)


# The measured faults.


@mutation("hybrid", "causal", "chunks")
def window_reads_the_future_behind_its_first_block(patch: Patch) -> None:
    original = axon_core.window._mask

    def mask(rows: int, columns: int, window: int, padding: Any) -> Any:
        if columns <= rows:
            return original(rows, columns, window, padding)
        query, key = mx.arange(columns - rows, columns)[:, None] + 3, mx.arange(columns)
        return (key <= query) & (key > query - window)

    patch.setattr(axon_core.window, "_mask", mask)


@mutation("hybrid", "one-shot", "chunks", "right-padded")
def keys_are_trimmed_to_the_window_before_attending(patch: Patch) -> None:
    original = Attention._keys_values

    def trimmed(self: Any, x: mx.array, cache: Any, offset: Any) -> Any:
        keys, values, padding = original(self, x, cache, offset)
        if cache is not None and x.shape[1] > self.window_size:
            gone = mx.arange(values.shape[2])[:, None] < values.shape[2] - self.window_size
            values = mx.where(gone, mx.nan, values)
        return keys, values, padding

    patch.setattr(Attention, "_keys_values", trimmed)


@mutation("full", "steps", "chunks", "caches", "saved")
def attention_ignores_its_cache(patch: Patch) -> None:
    original = Attention.__call__
    patch.setattr(Attention, "__call__", lambda self, x, mask=None, cache=None, **rest: original(self, x, **rest))


@mutation("full", "tied")
def head_keeps_a_copy_of_the_table(patch: Patch) -> None:
    def call(self: Any, h: mx.array, embedding: Any) -> mx.array:
        if not hasattr(self, "_table"):
            object.__setattr__(self, "_table", mx.array(embedding.embed_tokens.weight))
        return h @ object.__getattribute__(self, "_table").T

    patch.setattr(axon_core.head.LMHead, "__call__", call)


@mutation("full", "parameters")
def head_has_a_matrix_that_it_does_not_declare(patch: Patch) -> None:
    original = axon_core.head.LMHead.__init__

    def init(self: Any, hidden_size: int, vocab_size: int, *arguments: Any, **rest: Any) -> None:
        original(self, hidden_size, vocab_size, *arguments, **rest)
        self.lm_head = nn.Linear(hidden_size, vocab_size, bias=False)

    patch.setattr(axon_core.head.LMHead, "__init__", init)


@mutation("hybrid", "parameters", "dtypes")
def experts_are_float16(patch: Patch) -> None:
    original = axon_core.experts.ExpertGLU.__init__

    def init(self: Any, *arguments: Any, **rest: Any) -> None:
        original(self, *arguments, **rest)
        self.set_dtype(mx.float16)

    patch.setattr(axon_core.experts.ExpertGLU, "__init__", init)
    call = axon_core.experts.ExpertLinear.__call__
    patch.setattr(
        axon_core.experts.ExpertLinear,
        "__call__",
        lambda self, x, *rest, **more: call(self, x.astype(mx.float16), *rest, **more).astype(x.dtype),
    )


@mutation("hybrid", "parameters")
def size_claim_is_wrong(patch: Patch) -> None:
    changed_spec(patch, "axon_ssm", params=lambda options, dims: {"D": (dims.hidden_size,)})


@mutation("hybrid", "large")
def scan_subtracts_cumulative_sums(patch: Patch) -> None:
    def scan(x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any, state: Any, mask: Any) -> Any:
        if x.shape[1] == 1:
            return original(x, dt, A, B, C, D, state, mask)
        total = mx.cumsum(dt[..., None] * A, axis=1)
        decay = mx.exp(total[:, :, None] - total[:, None])
        seen = mx.tril(mx.ones((x.shape[1], x.shape[1])))[:, :, None, None]
        drive = (dt * x)[..., None] * B[:, :, None]
        h = (mx.where(seen > 0, decay, 0) * drive[:, None]).sum(axis=2)
        return (h * C[:, :, None]).sum(axis=-1) + D * x, h[:, -1].swapaxes(1, 2)

    original = axon_core.ssm.selective_scan
    patch.setattr(axon_core.ssm, "selective_scan", scan)


# Padding.


@mutation("hybrid", "left-padded", "right-padded")
def state_runs_over_padding(patch: Patch) -> None:
    original = AxonSSM.__call__

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> Any:
        return original(self, x, mx.ones(x.shape[:2], dtype=mx.bool_), cache)

    patch.setattr(AxonSSM, "__call__", call)


@mutation("parallel", "left-padded")
def attention_sees_padding(patch: Patch) -> None:
    original = Attention._keys_values
    patch.setattr(Attention, "_keys_values", lambda self, *rest: (*original(self, *rest)[:2], None))
    patch.setattr(Attention, "_default_mask", lambda self, mask, cache, n: "causal" if n > 1 else None)


@mutation("hybrid", "left-padded")
def window_sees_padding(patch: Patch) -> None:
    original = Attention._keys_values
    patch.setattr(Attention, "_keys_values", lambda self, *rest: (*original(self, *rest)[:2], None))


@mutation("hybrid", "right-padded")
def convolution_keeps_inputs_of_padding(patch: Patch) -> None:
    original = axon_core.conv.last_inputs
    patch.setattr(axon_core.conv, "last_inputs", lambda window, mask, kept: original(window, None, kept))


# Windows.


def shifted(by: int) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        original = axon_core.window._mask
        patch.setattr(axon_core.window, "_mask", lambda r, c, window, padding: original(r, c, window + by, padding))

    return plant


FOUND.append(Mutation("window_is_one_too_wide", "hybrid", shifted(1), ("reach", "steps")))
FOUND.append(Mutation("window_is_one_too_narrow", "hybrid", shifted(-1), ("reach", "steps", "chunks")))


def resized(by: int) -> Callable[[Patch], None]:
    """Everywhere alike, so that no two ways to compute differ: only the declared window tells."""

    def plant(patch: Patch) -> None:
        original = Attention.__init__

        def init(self: Any, hidden_dim: int, num_heads: int, **options: Any) -> None:
            original(self, hidden_dim, num_heads, **{**options, "window_size": options["window_size"] + by})

        patch.setattr(Attention, "__init__", init)
        make = axon_compose.model._language_model.make_caches
        wider = lambda spec: replace(spec, window=spec.window + by) if isinstance(spec, KV) else spec  # noqa: E731
        patch.setattr(axon_compose.model._language_model, "make_caches", lambda slots: make([wider(s) for s in slots]))

    return plant


FOUND.append(Mutation("window_is_one_too_wide_everywhere", "hybrid", resized(1), ("reach", "cache-bytes")))
FOUND.append(Mutation("window_is_one_too_narrow_everywhere", "hybrid", resized(-1), ("reach", "cache-bytes")))


@mutation("hybrid", "steps", "saved")
def cache_keeps_one_token_too_few(patch: Patch) -> None:
    original = RotatingKVCache.__init__
    patch.setattr(RotatingKVCache, "__init__", lambda self, max_size, keep=0: original(self, max_size - 1, keep))


# Recurrent caches.


@mutation("hybrid", "caches", "right-padded")
def state_is_not_advanced(patch: Patch) -> None:
    patch.setattr(ArraysCache, "advance", lambda self, n: None)


@mutation("hybrid", "caches", "left-padded")
def state_is_advanced_twice(patch: Patch) -> None:
    original = ArraysCache.advance
    patch.setattr(ArraysCache, "advance", lambda self, n: original(self, 2 * n))


@mutation("hybrid", "caches", "steps")
def state_is_never_written(patch: Patch) -> None:
    original = AxonSSM.__call__

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> Any:
        return original(self, x, mask, None if cache is None else [cache[0], cache[1]])[0], cache

    patch.setattr(AxonSSM, "__call__", call)


@mutation("hybrid", "caches", "cache-bytes")
def a_declared_array_is_never_written(patch: Patch) -> None:
    original = axon_core.specs.ssm._cache
    changed_spec(
        patch,
        "axon_ssm",
        cache=lambda options, dims: State((*original(options, dims).arrays, Array("spare", (4,)))),
    )


@mutation("full", "caches")
def a_declared_cache_is_never_written(patch: Patch) -> None:
    changed_spec(patch, "mlp", cache=lambda options, dims: KV(2, 8))
    original = axon_core.mlp.MLP.__call__
    patch.setattr(axon_core.mlp.MLP, "__call__", lambda self, x, mask=None, cache=None: (original(self, x), cache))


@mutation("hybrid", "steps", "chunks", "caches")
def convolution_state_is_stale(patch: Patch) -> None:
    patch.setattr(axon_core.conv, "last_inputs", lambda window, mask, kept: window[:, :kept])


@mutation("hybrid", "saved")
def state_is_held_beside_the_cache(patch: Patch) -> None:
    original = AxonSSM.__call__

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> Any:
        if cache is not None and hasattr(cache, "hidden"):
            cache[1] = cache.hidden
        y, cache = original(self, x, mask, cache)
        if hasattr(cache, "advance"):
            cache.hidden, cache[1] = cache[1], cache[1] * 0.5
        return y, cache

    patch.setattr(AxonSSM, "__call__", call)


@mutation("parallel", "joined")
def state_is_mixed_up_when_rows_leave(patch: Patch) -> None:
    original = ArraysCache.filter
    patch.setattr(ArraysCache, "filter", lambda self, rows: original(self, list(reversed(rows))))


# Positions.


@mutation("full", "steps", "chunks", "right-padded")
def position_is_that_of_the_chunk(patch: Patch) -> None:
    patch.setattr(axon_compose.model._language_model, "position", lambda caches, slot: 0)


@mutation("full", "steps", "chunks", "trimmed")
def position_is_read_after_the_update(patch: Patch) -> None:
    original = axon_compose.model._language_model.position
    patch.setattr(
        axon_compose.model._language_model,
        "position",
        lambda caches, slot: original(caches, slot) + (caches is not None and caches[0].offset > 0),
    )


@mutation("sharing", "steps", "chunks", "left-padded")
def reader_sees_the_new_keys_only(patch: Patch) -> None:
    original = Attention.__call__

    def call(self: Any, x: mx.array, *arguments: Any, publish: Any = None, **rest: Any) -> Any:
        def cut(name: str, kv: Any) -> None:
            publish(name, (kv[0][:, :, -x.shape[1] :], kv[1][:, :, -x.shape[1] :], kv[2]))

        mask, kv = rest.get("mask"), rest.get("kv")
        if kv is not None and isinstance(mask, mx.array):
            rest["mask"] = mask[..., -kv[0].shape[2] :]
        return original(self, x, *arguments, publish=cut if publish else None, **rest)

    patch.setattr(Attention, "__call__", call)


# Layers and weights.


@mutation("hybrid", "every-layer", "one-shot", "gradients")
def last_layer_is_dropped_without_a_cache(patch: Patch) -> None:
    original = axon_compose.model._block.Block.__call__

    def call(self: Any, x: mx.array, masks: Any, cache: Any, values: Any, layer: Any = None) -> Any:
        if cache is None and self._plan.index == 2:
            return x, {}
        return original(self, x, masks, cache, values, layer)

    patch.setattr(axon_compose.model._block.Block, "__call__", call)


@mutation("full", "every-layer", "reach")
def attention_adds_nothing(patch: Patch) -> None:
    original = axon_compose.model._block._Run.component

    def component(self: Any, use: Any, x: mx.array) -> mx.array:
        return original(self, use, x) * (0.0 if self.layer.index == 1 else 1.0)

    patch.setattr(axon_compose.model._block._Run, "component", component)


@mutation("hybrid", "gradients")
def skip_of_the_state_space_layer_is_not_used(patch: Patch) -> None:
    original = axon_core.ssm.selective_scan
    patch.setattr(
        axon_core.ssm,
        "selective_scan",
        lambda x, dt, A, B, C, D, state, mask: original(x, dt, A, B, C, None, state, mask),
    )


@mutation("shared", "tied")
def shared_weights_are_copies(patch: Patch) -> None:
    class Copying(axon_compose.model._block.Reuse):
        def __init__(self, layer: Any, owner: Any) -> None:
            twin = axon_compose.model._block.Block(
                owner._plan, {k: copy.deepcopy(m) for k, m in owner.children().items()}
            )
            super().__init__(layer, twin)

    patch.setattr(axon_compose.model._language_model, "Reuse", Copying)


@mutation("full", "causal", "steps")
def norm_is_taken_over_the_sequence(patch: Patch) -> None:
    patch.setattr(
        axon_core.norms.RMSNorm,
        "__call__",
        lambda self, x: x * mx.rsqrt(mx.mean(x * x, axis=(-2, -1), keepdims=True) + self.eps) * self.weight,
    )


# Types.


@mutation("hybrid", "dtypes")
def state_space_layer_gives_float32(patch: Patch) -> None:
    original = AxonSSM.__call__

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> Any:
        y, cache = original(self, x, mask, cache)
        return y.astype(mx.float32), cache

    patch.setattr(AxonSSM, "__call__", call)


@mutation("full", "dtypes", "cache-bytes")
def keys_are_kept_in_float32(patch: Patch) -> None:
    original = KVCache.update_and_fetch

    def update(self: Any, keys: mx.array, values: mx.array) -> Any:
        k, v = original(self, keys.astype(mx.float32), values.astype(mx.float32))
        return k.astype(keys.dtype), v.astype(values.dtype)

    patch.setattr(KVCache, "update_and_fetch", update)


@mutation("full", "quantized")
def a_matrix_is_used_past_its_module(patch: Patch) -> None:
    def call(self: Any, x: mx.array) -> mx.array:
        return self.down_proj(nn.silu(x @ self.gate_proj.weight.T) * self.up_proj(x))

    patch.setattr(axon_core.mlp.MLP, "__call__", call)


@mutation("hybrid", "large")
def exponential_overflows(patch: Patch) -> None:
    patch.setattr(axon_core.ssm, "silu", lambda x: x * (mx.exp(x) / (1 + mx.exp(x))))


# What is right in one way of running and wrong in another.


@mutation("hybrid", "float16")
def state_overflows_float16(patch: Patch) -> None:
    original = axon_core.ssm.selective_scan

    def scan(x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any, state: Any, mask: Any) -> Any:
        narrow = None if state is None else state.astype(x.dtype)
        y, after = original(x, dt, A, B, C, D, narrow, mask)
        return y, after.astype(x.dtype).astype(mx.float32)

    patch.setattr(axon_core.ssm, "selective_scan", scan)


@mutation("hybrid", "ties")
def ties_of_the_router_are_broken_at_random(patch: Patch) -> None:
    original = axon_core.moe.best
    patch.setattr(
        axon_core.moe, "best", lambda scores, k: original(scores + 1e-6 * mx.random.uniform(0, 1, scores.shape), k)
    )


@mutation("hybrid", "ties")
def ties_of_the_router_are_broken_otherwise_in_batches(patch: Patch) -> None:
    original = axon_core.moe.best

    def best(scores: mx.array, k: int) -> mx.array:
        if scores.shape[0] == 1:
            return original(scores, k)
        return scores.shape[-1] - 1 - original(scores[..., ::-1], k)

    patch.setattr(axon_core.moe, "best", best)


@mutation("hybrid", "chunks", "left-padded")
def experts_take_only_so_many_tokens(patch: Patch) -> None:
    original = axon_core.moe.MoE.__call__

    def call(self: Any, x: mx.array) -> mx.array:
        place = mx.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1)
        return mx.where(place < 80, original(self, x), 0)

    patch.setattr(axon_core.moe.MoE, "__call__", call)


@mutation("full", "left-padded")
def mask_is_that_of_another_row(patch: Patch) -> None:
    original = axon_compose.model._language_model.make_mask

    def make(group: Any, caches: Any, length: int) -> Any:
        mask = original(group, caches, length)
        return mask[::-1] if isinstance(mask, mx.array) and mask.ndim == 4 else mask

    patch.setattr(axon_compose.model._language_model, "make_mask", make)


@mutation("full", "right-padded", "joined")
def position_is_that_of_the_first_row(patch: Patch) -> None:
    original = axon_compose.model._language_model.position

    def position(caches: Any, slot: Any) -> Any:
        found = original(caches, slot)
        return mx.broadcast_to(found[:1], found.shape) if isinstance(found, mx.array) else found

    patch.setattr(axon_compose.model._language_model, "position", position)


@mutation("full", "trimmed")
def position_forgets_what_was_taken_back(patch: Patch) -> None:
    original = axon_compose.model._language_model.position

    def position(caches: Any, slot: Any) -> Any:
        found = original(caches, slot)
        if caches is None or isinstance(found, mx.array):
            return found
        caches[0].taken_back = getattr(caches[0], "taken_back", 0)
        return found + caches[0].taken_back

    def trim(self: Any, n: int) -> int:
        self.taken_back = n
        return before(self, n)

    before = KVCache.trim
    patch.setattr(KVCache, "trim", trim)
    patch.setattr(axon_compose.model._language_model, "position", position)


@mutation("hybrid", "right-padded")
def window_is_off_by_one_after_padding_behind(patch: Patch) -> None:
    original = BatchRotatingKVCache.finalize

    def finalize(self: Any) -> None:
        original(self)
        self.left_padding = self.left_padding - 1

    patch.setattr(BatchRotatingKVCache, "finalize", finalize)


@mutation("hybrid", "cache-bytes")
def cache_of_a_window_grows(patch: Patch) -> None:
    make = axon_compose.model._language_model.make_caches
    wide = lambda spec: replace(spec, window=1000) if isinstance(spec, KV) else spec  # noqa: E731
    patch.setattr(axon_compose.model._language_model, "make_caches", lambda slots: make([wide(s) for s in slots]))


@mutation("full", "steps", "caches")
def layers_write_into_one_cache(patch: Patch) -> None:
    make = axon_compose.model._language_model.make_caches
    patch.setattr(axon_compose.model._language_model, "make_caches", lambda slots: make(slots[:1]) * len(slots))


@mutation("hybrid", "chunks")
def scan_forgets_its_state_in_long_prompts(patch: Patch) -> None:
    original = axon_core.ssm.selective_scan

    def scan(x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any, state: Any, mask: Any) -> Any:
        if x.shape[1] <= 256 or state is None:
            return original(x, dt, A, B, C, D, state, mask)
        return original(x, dt, A, B, C, D, None, mask)

    patch.setattr(axon_core.ssm, "selective_scan", scan)


@mutation("hybrid", "saved")
def state_is_saved_in_half_precision(patch: Patch) -> None:
    whole = ArraysCache.state

    def halved(self: Any) -> Any:
        cache, *rest = whole.fget(self)
        return ([None if a is None else a.astype(mx.float16) for a in cache], *rest)

    narrow = property(halved, whole.fset)
    patch.setattr(ArraysCache, "state", narrow)


@mutation("hybrid", "joined")
def the_first_row_is_extracted_for_every_other(patch: Patch) -> None:
    original = ArraysCache.extract
    patch.setattr(ArraysCache, "extract", lambda self, row: original(self, 0))


@mutation("full", "gradients")
def a_layer_is_left_out_in_training(patch: Patch) -> None:
    original = axon_compose.model._block.Block.__call__

    def call(self: Any, x: mx.array, masks: Any, cache: Any, values: Any, layer: Any = None) -> Any:
        if self.training and self._plan.index == 1:
            return x, {}
        return original(self, x, masks, cache, values, layer)

    patch.setattr(axon_compose.model._block.Block, "__call__", call)


@mutation("shared", "slopes")
def gradient_of_shared_weights_is_counted_once(patch: Patch) -> None:
    class Once(axon_compose.model._block.Reuse):
        def __call__(self, *arguments: Any) -> Any:
            owner = object.__getattribute__(self, "_owner")
            weights = owner.parameters()
            owner.update(tree_map(mx.stop_gradient, weights))
            out = super().__call__(*arguments)
            owner.update(weights)
            return out

    patch.setattr(axon_compose.model._language_model, "Reuse", Once)


@mutation("hybrid", "slopes")
def gradient_of_the_scan_is_halved(patch: Patch) -> None:
    original = axon_core.ssm.selective_scan

    def scan(*arguments: Any) -> Any:
        y, state = original(*arguments)
        return (y + mx.stop_gradient(y)) * 0.5, state

    patch.setattr(axon_core.ssm, "selective_scan", scan)


@mutation("full", "quantized")
def scores_of_a_quantised_table_have_another_scale(patch: Patch) -> None:
    original = QuantizedEmbedding.as_linear
    patch.setattr(QuantizedEmbedding, "as_linear", lambda self, x: original(self, x) * 1.5)


@mutation("hybrid", "start")
def tables_begin_with_numbers_near_one(patch: Patch) -> None:
    patch.setattr(axon_core.specs.embedding, "_table_std", lambda dims: 1.0)


@mutation("full", "start")
def every_layer_makes_the_residual_stream_larger(patch: Patch) -> None:
    original = axon_compose.model._block.Block.__call__

    def call(self: Any, *arguments: Any) -> Any:
        x, published = original(self, *arguments)
        return 1.2 * x, published

    patch.setattr(axon_compose.model._block.Block, "__call__", call)
