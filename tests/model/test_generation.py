"""The flagship in mlx-lm's own batch generation: ragged rows, in pieces, joining late, go on as if alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import models
import numpy as np
import pytest
from mlx_lm.generate import batch_generate

ALL = {"return_token_ids": True, "return_logprobs": True}
TOKENIZER = SimpleNamespace(eos_token_ids=[], decode=str)


def greedy(model: Any, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """The likeliest tokens one after the other and their log probabilities, from the whole text without any cache."""
    text, chances = list(prompt), []
    for _ in range(count):
        logits = model(mx.array([text]))[0, -1]
        text.append(int(mx.argmax(logits).item()))
        chances.append((logits.max() - mx.logsumexp(logits)).item())
    return text[len(prompt) :], chances


def same_as_alone(model: Any, found: Any, texts: list[list[int]], counts: list[int]) -> None:
    for tokens, chances, text, count in zip(found.token_ids, found.logprobs, texts, counts, strict=True):
        wanted, wanted_chances = greedy(model, text, count)
        assert tokens == wanted
        # Rounding of logits of about 2; a wrong state moves them by 1e-2.
        np.testing.assert_allclose(chances, wanted_chances, atol=1e-5)


def prompts(*lengths: int) -> list[list[int]]:
    return [models.tokens(1, length, seed=length)[0].tolist() for length in lengths]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefill_step_size": 5},  # prompts in pieces
        {"completion_batch_size": 2, "prefill_batch_size": 1},  # the third one joins when there is room
    ],
    ids=["at once", "in pieces", "joining"],
)
def test_ragged_rows(options: dict[str, Any]) -> None:
    model = models.flagship()
    texts = prompts(23, 9, 2)
    counts = [6, 12, 9]
    found = batch_generate(model, TOKENIZER, texts, max_tokens=counts, **ALL, **options)
    same_as_alone(model, found, texts, counts)


def test_with_prompt_caches() -> None:
    """Prompts whose beginnings were cached one by one, of unequal lengths."""
    model = models.flagship()
    texts, known = prompts(21, 12, 17), (14, 3, 9)
    caches = [model.make_cache() for _ in texts]
    for text, count, cache in zip(texts, known, caches, strict=True):
        mx.eval(model(mx.array([text[:count]]), cache))
    rest = [text[count:] for text, count in zip(texts, known, strict=True)]
    found = batch_generate(model, TOKENIZER, rest, prompt_caches=caches, max_tokens=10, **ALL)
    same_as_alone(model, found, texts, [10] * 3)


def test_caches_that_come_back() -> None:
    """What a batch gives back for one row carries on alone."""
    model = models.flagship()
    texts, after = prompts(19, 4), [7, 11, 3]
    found = batch_generate(model, TOKENIZER, texts, max_tokens=6, return_prompt_caches=True, **ALL)
    for text, more, cache in zip(texts, found.token_ids, found.caches, strict=True):
        got = model(mx.array([after]), cache)
        assert models.close(got, model(mx.array([[*text, *more, *after]]))[:, -len(after) :])
