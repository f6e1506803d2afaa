"""The compiled model: embedding, stack, norm and head, with caches and masks wired by the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.machine.blas import is_reference_blas, use_fast_blas
from axon_compose.model._arrange import arrange, make_weights
from axon_compose.model._block import Block, Reuse
from axon_compose.model._caches import make_caches
from axon_compose.model._calls import call, collapse, expand
from axon_compose.model._forward import make_mask, position
from axon_compose.model._freed import keep_freed
from axon_compose.model._segments import run_in_segments, showing_routing
from axon_compose.plan import Compiled, Layer, Plan, Use
from axon_compose.registry import CacheSpec

__all__ = ["LanguageModel"]


class LanguageModel(nn.Module):
    """A causal language model that was compiled from a plan.

    Args:
        plan: The model, layer by layer.
        make: Gives the module of a component.
        names: Gives the names of a layer's modules, by their names in the plan, where they are called otherwise.

    Attributes:
        compiled: The description that the plan was made of, which `axon_compose.save` writes; None if only the plan is
            known.
        embedding: Tokens to vectors.
        residual: The residual scheme, if the plan has one.
        layers: The stack; layers that share weights hold them once.
        norm: The final norm, if the plan has one.
        head: Vectors to logits.
    """

    compiled: Compiled | None = None

    def __init__(
        self,
        plan: Plan,
        make: Callable[[Use], nn.Module],
        names: Callable[[Layer], Mapping[str, str]] = lambda layer: {},
    ) -> None:
        super().__init__()
        if mx.default_device() == mx.cpu:
            use_fast_blas()
        self._plan = plan
        self._in_order = True  # weights as they are made are of no use yet
        self.embedding = make(plan.embedding)
        if plan.residual:
            self.residual = make(plan.residual)
        self.layers: list[Block | Reuse] = []
        for layer in plan.layers:
            if layer.owner is None:
                self.layers.append(Block(layer, {use.key: make(use) for use in layer.uses()}, names(layer)))
            else:
                self.layers.append(Reuse(layer, self.layers[layer.owner]))
        if plan.final_norm:
            self.norm = make(plan.final_norm)
        self.head = make(plan.head)

    @property
    def plan(self) -> Plan:
        """The plan that the model was compiled from."""
        return self._plan

    @property
    def written(self) -> Mapping[str, Any] | None:
        """The config.json that mlx_lm made the model of, if it did."""
        return None

    def __call__(self, inputs: mx.array, cache: list[Any] | None = None) -> mx.array:
        """Logits of every position.

        Args:
            inputs: (B, L) token ids, at least one, each from 0 to vocab_size - 1. Others are not noticed, since looking
                at them would make every step wait for the one before: MLX then reads what lies beside the embedding.
            cache: What `make_cache` gave, advanced by L tokens; None for a plain forward pass.

        Returns:
            (B, L, vocab_size).

        Raises:
            TypeError: If `inputs` is no array.
            ValueError: If `inputs` has another shape, is empty or holds no integers, or `cache` has another number of
                slots.
            PluginFault: If the code of a component raises, or gives no array of the right shape (`AX212`).
        """
        return self.scored(self.hidden(inputs, cache))

    def hidden(self, inputs: mx.array, cache: list[Any] | None = None) -> mx.array:
        """(B, L, D), what the head reads: the output of the stack after the final norm."""
        return self.observed(inputs, cache)[0]

    def observed(
        self, inputs: mx.array, cache: list[Any] | None = None, *, routing: bool = False, segment: int = 0
    ) -> tuple[mx.array, dict[str, Any]]:
        """The same, with what layers publish, for training.

        Args:
            inputs: See `__call__`.
            cache: See `__call__`.
            routing: Let mixtures of experts publish the scores of all experts and which ones they chose, whose records
                say that they can (`Learning.load`).
            segment: Layers that keep nothing for the backward pass but what goes into the first of them, and compute
                the rest again (gradient checkpointing); 0 keeps everything.

        Returns:
            What the head reads, and published values by `layer.key.value`.
        """
        self._prepare(inputs, cache)
        return self._pass(inputs, cache, routing, segment)

    def _prepare(self, inputs: mx.array, cache: list[Any] | None) -> None:
        _require_tokens(inputs)
        if not self._in_order:
            self._in_order = self._arrange()
        slots = len(self._slots)
        if cache is not None and len(cache) != slots:
            raise ValueError(f"the cache has {len(cache)} slots, the model has {slots}")

    def _pass(
        self, inputs: mx.array, cache: list[Any] | None, routing: bool, segment: int
    ) -> tuple[mx.array, dict[str, Any]]:
        plan = self._plan
        masks = tuple(make_mask(group, cache, inputs.shape[1]) for group in plan.masks)
        values: dict[str, Any] = {"offset": position(cache, plan.offset), "tokens": inputs}
        h = self.entered(inputs, values)
        steps = list(zip(plan.layers, self.layers, strict=True))
        if routing:
            steps = [showing_routing(layer, module) for layer, module in steps]
        if segment and cache is None:
            h = run_in_segments(steps, h, masks, values, segment)
        else:
            for layer, module in steps:
                slot = cache[layer.slot] if cache is not None and layer.slot is not None else None
                h, published = module(h, masks, slot, {source: values[source] for source in layer.reads})
                values.update(published)
        return self.left(h, (*inputs.shape, int(plan.dims.hidden_size))), values

    def entered(self, inputs: mx.array, values: dict[str, Any]) -> Any:
        """The residual state of tokens (B, L) before the first layer; the embedding publishes into `values`."""
        h = self._embedded(inputs, values)
        return expand(self._plan.residual, self.residual, h) if self._plan.residual else h

    def left(self, state: Any, shape: tuple[int, ...]) -> mx.array:
        """What the head reads, (B, L, D), of the residual state after the last layer."""
        plan = self._plan
        h = collapse(plan.residual, self.residual, shape, state) if plan.residual else state
        return call(plan.final_norm, self.norm, shape, h) if plan.final_norm else h

    def scored(self, h: mx.array) -> mx.array:
        """Logits (B, L, vocab_size) of what the head reads, (B, L, D)."""
        plan = self._plan
        return call(plan.head, self.head, (*h.shape[:-1], int(plan.dims.vocab_size)), h, self.embedding)

    def _embedded(self, inputs: mx.array, values: dict[str, Any]) -> mx.array:
        """(B, L, D), what the first layer reads; what the embedding publishes goes into `values`."""
        use = self._plan.embedding
        arguments: dict[str, Any] = {name: values[source] for name, source in use.reads.items()}

        def publish(name: str, value: Any) -> None:
            values[f"embedding.{name}"] = value

        if use.writes:
            arguments["publish"] = publish
        shape = (*inputs.shape, int(self._plan.dims.hidden_size))
        return call(use, self.embedding, shape, inputs, **arguments)

    def train(self, mode: bool = True) -> LanguageModel:
        """Make ready for training, or with `mode=False`, as `eval` does, for inference.

        With the reference BLAS on the CPU, the next call puts the matrices in the order that either is fast with
        (`axon_compose.model._arrange`).
        """
        super().train(mode)
        self._in_order = False
        return self

    def load_weights(self, file_or_weights: Any, strict: bool = True) -> LanguageModel:
        """Take weights as `mlx.nn.Module` does; the next call puts them in order, as after `train`."""
        super().load_weights(file_or_weights, strict)
        self._in_order = False
        return self

    def _arrange(self) -> bool:
        if mx.default_device() != mx.cpu:
            make_weights(self)
            return True
        column_major = not self.training and is_reference_blas()
        done = arrange(self, column_major=column_major) and make_weights(self)
        if done:
            keep_freed()
        return done

    def make_cache(self) -> list[Any]:
        """Fresh caches of mlx-lm's classes, one for each layer that keeps something, in layer order."""
        return make_caches(self._slots)

    @property
    def _slots(self) -> Sequence[CacheSpec]:
        """Its caches, in order."""
        return self._plan.slots

    def path_of(self, name: str) -> str:
        """Where in this module the plan's parameter or module is."""
        return name

    def plan_name(self, path: str) -> str:
        """What the plan calls a parameter or module of this module: the inverse of `path_of`."""
        return path

    @property
    def cast_predicate(self) -> Callable[[str], bool]:
        """Whether a parameter may change its dtype; mlx-lm's `convert` and `build` ask."""
        kept = {self.path_of(f"{use.path}.{name}") for use in self._plan.uses() for name in use.spec.float32}
        return lambda path: path not in kept

    @property
    def quant_predicate(self) -> Callable[[str, nn.Module], bool]:
        """Whether a module may be quantised; routers and what else the components name stay as they are."""
        kept = {self.path_of(f"{use.path}.{name}") for use in self._plan.uses() for name in use.spec.unquantized}
        return lambda path, module: hasattr(module, "to_quantized") and path not in kept


def _require_tokens(inputs: Any) -> None:
    if not isinstance(inputs, mx.array):
        raise TypeError(f"tokens must be an mlx.core.array, not {type(inputs).__name__}")
    if inputs.ndim != 2 or inputs.size == 0:
        raise ValueError(f"tokens must be (B, L) with at least one token, not {tuple(inputs.shape)}")
    if not mx.issubdtype(inputs.dtype, mx.integer):
        raise ValueError(f"tokens must be integers, not {str(inputs.dtype).removeprefix('mlx.core.')}")
