"""A text of a model, token by token, for a look at what it has learned."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from axon_compose.model import LanguageModel

__all__ = ["sample"]


def sample(
    model: LanguageModel,
    prompt: Sequence[int],
    tokens: int,
    *,
    temperature: float = 0.8,
    seed: int = 0,
    end: int | None = None,
) -> list[int]:
    """Continue a prompt by drawing from the model's own probabilities.

    The model is left in training mode if it was in that.

    Args:
        model: Any model.
        prompt: At least one token.
        tokens: How many are drawn at most.
        temperature: What logits are divided by; 0 takes the likeliest.
        seed: Of the draws.
        end: The token after which the text ends.

    Returns:
        The new tokens, without the end.
    """
    trained, key = model.training, mx.random.key(seed)
    model.eval()
    try:
        cache, found = model.make_cache(), list[int]()
        logits = model(mx.array([list(prompt)]), cache)[0, -1]
        for _ in range(tokens):
            key, draw = mx.random.split(key)
            scores = logits.astype(mx.float32)
            drawn = mx.random.categorical(scores / temperature, key=draw) if temperature else mx.argmax(scores)
            token = int(drawn)
            if token == end:
                break
            found.append(token)
            logits = model(mx.array([[token]]), cache)[0, -1]
        return found
    finally:
        if trained:
            model.train()
