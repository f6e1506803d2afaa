"""A first run of a fresh model: a forward pass, and the same tokens one by one through the caches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from axon_compose.model._calls import blamed
from axon_compose.model._language_model import LanguageModel

__all__ = ["Trial", "try_out"]


@dataclass(frozen=True)
class Trial:
    """What the first run showed.

    Attributes:
        prompt: Tokens of the forward pass.
        steps: Tokens that went one by one through the caches.
        shape: Of the logits, (B, L, vocab_size).
        dtype: Of the logits.
        finite: Whether every logit is a number, in both ways.
        difference: Largest difference of a logit between the two ways; None if not all are numbers.
        weight_bytes: Bytes of all weights as they are.
        cache_bytes: Bytes of the caches afterwards.
    """

    prompt: int
    steps: int
    shape: tuple[int, ...]
    dtype: str
    finite: bool
    difference: float | None
    weight_bytes: int
    cache_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)


def try_out(model: LanguageModel, *, tokens: int = 48, steps: int = 8, seed: int = 0) -> Trial:
    """Run random tokens through a model in both ways.

    Args:
        model: Any built model.
        tokens: Length of the forward pass.
        steps: How many of its last tokens are repeated one by one through the caches.
        seed: Of the tokens.

    Raises:
        PluginFault: If the code of a component raises, or gives no array of the right shape (`AX212`).
    """
    key = mx.random.key(seed)
    prompt = mx.random.randint(0, model.plan.dims.vocab_size, (1, tokens), key=key)
    with blamed(model.plan, lambda: model(prompt)):
        plain = model(prompt)
        mx.eval(plain)
        cache = model.make_cache()
        outputs = [model(prompt[:, : tokens - steps], cache)]
        for at in range(tokens - steps, tokens):
            outputs.append(model(prompt[:, at : at + 1], cache))
            mx.eval(outputs[-1])
    cached = mx.concatenate(outputs, axis=1)
    finite: Any = (mx.isfinite(plain) & mx.isfinite(cached)).all().item()
    difference: Any = mx.abs(cached.astype(mx.float32) - plain.astype(mx.float32)).max().item()
    return Trial(
        prompt=tokens,
        steps=steps,
        shape=tuple(plain.shape),
        dtype=str(plain.dtype).removeprefix("mlx.core."),
        finite=bool(finite),
        difference=float(difference) if finite else None,
        weight_bytes=sum(value.nbytes for _, value in tree_flatten(model.parameters())),
        cache_bytes=sum(entry.nbytes for entry in cache),
    )
