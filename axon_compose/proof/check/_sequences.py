"""One sequence, cut in every way: in one piece, in chunks, token by token, saved and loaded, trimmed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import mlx.core as mx

from axon_compose.plan import capabilities
from axon_compose.proof.check._compare import Rows, equal
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._subject import LONG, MEDIUM, Forward, Subject

__all__ = ["chunks", "one_shot", "plain", "run", "saved", "steps", "trimmed"]


def run(subject: Subject, forward: Forward, tokens: mx.array, sizes: Iterable[int], cache: Any = None) -> mx.array:
    """Outputs of a sequence that is fed in pieces; the last size goes on to the end."""
    cache = subject.model.make_cache() if cache is None else cache
    outputs, start, length = [], 0, tokens.shape[1]
    for size in sizes:
        if start >= length:
            break
        outputs.append(forward(tokens[:, start : start + size], cache))
        start += size
    return mx.concatenate(outputs, axis=1)


def plain(forward: Forward, tokens: mx.array) -> Rows:
    """Outputs without a cache."""
    return [forward(tokens, None)]


def one_shot(subject: Subject) -> Truth:
    """Without a cache = with a fresh cache, in one piece."""
    window = subject.window
    edges = {window - 1, window, window + 1} if subject.windows else {window}
    lengths = sorted({1, *edges, 2 * window + 3, LONG} - {0})
    cases = []
    for length in lengths:
        tokens = subject.tokens(1 if length == LONG else 2, length)
        cases.append(
            (
                f"{length} tokens",
                lambda f, t=tokens: [f(t, subject.model.make_cache())],
                lambda f, t=tokens: plain(f, t),
            )
        )
    return equal(subject, "one-shot", "a fresh cache changes nothing", cases)


def chunks(subject: Subject) -> Truth:
    """Without a cache = fed in chunks, that divide the length and that do not, around the window and far beyond."""
    window = subject.window
    medium, long = subject.tokens(2, max(MEDIUM, 3 * window)), subject.tokens(1, LONG)
    sizes = sorted({7, max(2, window - 1), window, window + 1} if subject.windows else {7, 8})
    cuts = {f"chunks of {size}": [size] for size in sizes}
    longer = {"chunks of 97": [97], "7 tokens, then the rest": [7, LONG]}
    longer["irregular chunks"] = [5, 1, window, 1, 1, 2 * window + 1, 64, 1, 160, 1]
    cases = [
        (name, lambda f, c=cut, t=tokens: [run(subject, f, t, cycle(c))], whole)
        for tokens, chosen in ((medium, cuts), (long, longer))
        for whole in [partial(plain, tokens=tokens)]
        for name, cut in chosen.items()
    ]
    return equal(subject, "chunks", "chunked prefill matches a single pass", cases)


def steps(subject: Subject) -> Truth:
    """Without a cache = token by token, from the start and after a prompt.

    From the start until windows have wrapped twice; what follows is fed in pieces with single tokens between them.
    """
    window = subject.window
    tokens = subject.tokens(1, max(MEDIUM, 2 * window + 3))
    prompt = subject.tokens(1, 3 * window + 5, salt=1)
    sizes = [*[1] * (2 * window + 3), *[15, 1] * MEDIUM]
    cases = [
        ("from the first token", lambda f: [run(subject, f, tokens, sizes)], lambda f: plain(f, tokens)),
        (
            f"after a prompt of {2 * window + 3} tokens",
            lambda f: [run(subject, f, prompt, [2 * window + 3, *[1] * (window + 2)])],
            lambda f: plain(f, prompt),
        ),
    ]
    return equal(subject, "steps", "token-by-token decoding matches a single pass", cases)


def saved(subject: Subject) -> Truth:
    """Saving and loading the cache changes nothing."""
    window = subject.window
    length = 5 * window + 9
    tokens = subject.tokens(1, length)

    def got(forward: Forward) -> Rows:
        first = 2 * window + 5
        before, cache = _begun(subject, forward, tokens[:, :first])
        cache = save_and_load(cache)
        after = run(subject, forward, tokens[:, first:], [window + 1, *[1] * (window + 2), length], cache)
        return [mx.concatenate([before, after], axis=1)]

    return equal(
        subject, "saved", "a saved and reloaded cache continues identically", [("", got, lambda f: plain(f, tokens))]
    )


def _begun(subject: Subject, forward: Forward, tokens: mx.array) -> tuple[mx.array, Any]:
    """A prompt and then single tokens, so that a rotating cache has wrapped."""
    cache = subject.model.make_cache()
    return run(subject, forward, tokens, [tokens.shape[1] - 4, 1, 1, 1, 1], cache), cache


def save_and_load(cache: list[Any]) -> list[Any]:
    """Through a file of mlx-lm."""
    from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

    if not cache:
        return cache
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cache.safetensors")
        save_prompt_cache(path, cache)
        loaded = load_prompt_cache(path)
        mx.eval([leaf.state for leaf in loaded])  # before the file is gone
    return loaded


def trimmed(subject: Subject) -> Truth:
    """Caches can be trimmed where the plan says so, and nowhere else."""
    from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

    name, claim = "trimmed", "caches can be trimmed as the plan declares"
    able = capabilities(subject.plan).trimmable if subject.plan.slots else "yes"
    length = max(2, min([*subject.windows, 6]) - 1)
    tokens, others = subject.tokens(1, length), subject.tokens(1, 2 * subject.window + 3, salt=1)
    kept = length - 1

    cache = subject.model.make_cache()
    subject.forward(tokens, cache)
    possible = not cache or can_trim_prompt_cache(cache)
    smallest = min((group.kept for group in subject.plan.masks if group.kept is not None), default=length + 1)
    if able == "no" or length >= smallest:
        wrong = able == "no" and possible
        return Truth(name, claim, not wrong, float(wrong), 0.0, detail=f"trimmable: {able}")
    if not possible:
        return Truth(name, claim, False, detail=f"the plan says `{able}`, the caches refuse")

    def got(forward: Forward) -> Rows:
        cache = subject.model.make_cache()
        before = forward(tokens, cache)[:, :kept]
        if cache:
            trim_prompt_cache(cache, length - kept)
        sizes = [*[1] * (subject.window + 2), others.shape[1]]
        return [mx.concatenate([before, run(subject, forward, others, sizes, cache)], axis=1)]

    whole = mx.concatenate([tokens[:, :kept], others], axis=1)
    return equal(subject, name, claim, [(f"trimmable: {able}", got, lambda f: plain(f, whole))])
