"""A model of MLX that runs as `mlx_lm` generates and trains."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Adam
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from axon_compose.analysis.measurement import Workload

__all__ = ["MLXModel"]

#: Tokens of a prompt that go through the model at once, as in `mlx_lm`.
CHUNK: Final = 2048


class MLXModel:
    """Runs a model with caches of mlx-lm, greedily, on random tokens.

    Args:
        model: Tokens (B, L) and caches to logits (B, L, V).
        vocabulary: Tokens that there are.
    """

    def __init__(self, model: Any, vocabulary: int) -> None:
        for _, weight in tree_flatten(model.parameters()):
            mx.eval(weight)  # one at a time: what a random weight is made of goes before the next
        self.model, self.vocabulary = model, vocabulary
        self.device = str(mx.default_device().type).removeprefix("DeviceType.")
        self.prompt = mx.zeros((1, 1), dtype=mx.int32)
        self.token = self.prompt
        self.cache: list[Any] = []
        self.trainer: Any = None

    def begin(self, workload: Workload) -> None:
        shape = (workload.batch, workload.prompt + workload.training)  # in training each token has a next one
        self.prompt = mx.random.randint(0, self.vocabulary, shape, key=mx.random.key(0))
        self.model.train(workload.training)
        self.trainer = (self.trainer or self._make_trainer()) if workload.training else None
        mx.eval(self.prompt)

    def prefill(self) -> None:
        """All but the last token fill the caches, whose logits are not needed; the last one is as in decoding."""
        self.cache = make_prompt_cache(self.model)
        known, self.token = self.prompt[:, :-1], self.prompt[:, -1:]
        for start in range(0, known.shape[1], CHUNK):
            self.model(known[:, start : start + CHUNK], self.cache)
            mx.eval([entry.state for entry in self.cache])
            mx.clear_cache()
        self.decode(1)

    def decode(self, steps: int) -> None:
        """A token is asked for while the one before it is computed."""
        for _ in range(steps):
            before, self.token = self.token, mx.argmax(self.model(self.token, self.cache)[:, -1:], axis=-1)
            mx.async_eval(self.token)  # type: ignore[no-untyped-call]
            mx.eval(before)
        mx.eval(self.token)

    def train(self) -> None:
        self.trainer(self.prompt)

    def _make_trainer(self) -> Any:
        """A step as that of `mlx_lm.tuner`, on all weights."""
        optimizer = Adam(learning_rate=1e-5)
        optimizer.init(self.model.trainable_parameters())
        state = [self.model.state, optimizer.state, mx.random.state]

        @partial(mx.compile, inputs=state, outputs=state)
        def step(tokens: mx.array) -> mx.array:
            loss, gradients = nn.value_and_grad(self.model, _loss)(self.model, tokens)
            optimizer.update(self.model, gradients)
            return cast("mx.array", loss)

        def train(tokens: mx.array) -> None:
            mx.eval(state, step(tokens))

        return train

    def reset_peak(self) -> None:
        self.cache = []
        mx.clear_cache()
        mx.reset_peak_memory()

    def peak_bytes(self) -> int:
        found: int = mx.get_peak_memory()
        return found


def _loss(model: Any, tokens: mx.array) -> mx.array:
    return cast("mx.array", nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean"))
