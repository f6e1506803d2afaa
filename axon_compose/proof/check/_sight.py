"""What a token sees: nothing later, what lies within its window, and through every layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import mlx.core as mx

from axon_compose.plan import Layer, Use
from axon_compose.proof.check._compare import EXACT, at_least, distance, first_off
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._subject import Subject, mixes
from axon_compose.registry import Composite, State

__all__ = ["causal", "every_layer", "reach"]

#: Least change that counts as one. What is not looked at changes nothing at all in a batch of one shape, not even by
#: rounding; a state may remember little of a token (2e-6 was seen), a window shows it at 1e-2.
SEEN: Final = 5e-7
#: Least change that a whole layer makes; measured: 0.2 and more.
COUNTS: Final = 5e-4
#: Texts that are tried where a component seems not to see a token.
OTHER_TEXTS: Final = (3, 4, 5, 6)
#: What is said where there is nothing to compare.
NOT_FINITE: Final = "the outputs are not finite numbers"
#: How far back unlimited attention has to see.
FAR: Final = 40


def causal(subject: Subject) -> Truth:
    """Changing a token and all later ones leaves every output before it as it was."""
    windows = subject.windows or [subject.window]
    length = max(150, 3 * windows[-1] + 10)
    edges = {1, 2, 63, 64, 65, 127, 128, 129, length // 2, length - 1}
    for window in windows:
        edges |= {window - 1, window, window + 1, 2 * window, 2 * window + 3, 3 * window + 1}
    positions = sorted(p for p in edges if 0 < p < length)
    base, other = subject.tokens(1, length), subject.tokens(1, length, salt=1)
    other = mx.where(other == base, (other + 1) % int(subject.plan.dims.vocab_size), other)
    index = mx.arange(length)[None]
    edited = mx.where(index < mx.array(positions)[:, None], base, other)
    logits = subject.forward(mx.concatenate([base, edited]))
    figure, detail = 0.0, f"edits at {', '.join(map(str, positions))} of {length} tokens"
    for row, position in enumerate(positions, start=1):
        moved = distance(logits[row : row + 1, :position], logits[:1, :position])
        if not moved <= EXACT and figure <= EXACT:
            first = first_off(logits[row, :position], logits[0, :position], logits[0, :position])
            detail = f"an edit at position {position} changes the output at {first}"
            detail = detail if moved < float("inf") else f"position {first}: {NOT_FINITE}"
        figure = max(figure, moved)
    claim = "a later token never changes an earlier output"
    return Truth("causal", claim, figure <= EXACT, figure, EXACT, detail=detail)


def reach(subject: Subject) -> Truth:
    """Each component that mixes tokens, the others switched off, sees the tokens that it should and no others."""
    claim = "each component sees as far back as it should, no further"
    least, detail = float("inf"), []
    for layer, use in _mixers(subject):
        required, asked, hidden = _distances(subject, use)
        # Longer than a block of banded attention; where tokens are chosen, so short that all of them are.
        beyond = (1,) if use.chosen else (1, 70)
        with subject.alone(layer, use):
            changes = _changes(subject, [*required, *asked, *hidden], beyond)
            for number, back in enumerate(required):
                if not changes[number][0] >= SEEN:
                    changes[number] = _elsewhere(subject, back, beyond, changes[number])
        where = f"`{use.name}` in {subject.describe(layer.index)}"
        for back, (low, high) in zip([*required, *asked, *hidden], changes, strict=True):
            if back in hidden and not high <= EXACT:
                text = f"{where} sees {back} tokens back, outside of its window"
                return Truth("reach", claim, False, high, EXACT, detail=text)
            if back in required and not SEEN <= low < float("inf"):
                text = f"{where} does not see {back} tokens back" if low < SEEN else f"{where}: {NOT_FINITE}"
                return Truth("reach", claim, False, low, SEEN, ">=", detail=text)
            least = min(least, low) if back in required else least
        far = max(
            (back for back, (low, _) in zip([*required, *asked], changes, strict=False) if low >= SEEN), default=0
        )
        detail.append(f"{use.name} {far} back")
    if not detail:
        return Truth("reach", claim, True, detail="no component mixes tokens")
    return at_least("reach", claim, least, SEEN, "; ".join(dict.fromkeys(detail)))


def every_layer(subject: Subject) -> Truth:
    """Leaving a layer out changes the outputs, without a cache and with one."""
    claim = "leaving any layer out changes the outputs"
    tokens = subject.tokens(2, 2 * subject.window + 3)
    least, where = float("inf"), ""
    for cached in (False, True):
        whole = subject.known(tokens, subject.model.make_cache() if cached else None)
        for layer in subject.plan.layers:
            with subject.without(layer.index):
                left = subject.forward(tokens, subject.model.make_cache() if cached else None)
            change = distance(left, whole)
            how = f"{subject.describe(layer.index)} {'with a cache' if cached else 'without a cache'}"
            if not change < float("inf"):
                return Truth("every-layer", claim, False, change, COUNTS, ">=", detail=f"{how}: {NOT_FINITE}")
            if change < least:
                least, where = change, f"least of all {how}"
    return at_least("every-layer", claim, least, COUNTS, where)


def _mixers(subject: Subject) -> Iterator[tuple[Layer, Use]]:
    for layer in subject.plan.layers:
        aside = {use.path for use in (*_aside(layer), *_after_mixers(layer))}
        for use in layer.uses():
            if mixes(use) and use.path not in aside:
                yield layer, use


def _aside(layer: Layer) -> Iterator[Use]:
    """What is read by another component alone, and so changes nothing with all others switched off."""
    for branch in layer.branches:
        if branch.connection is not None and branch.connection.spec.around == "aside":
            yield from (member.use for member in branch.members)


def _after_mixers(layer: Layer) -> Iterator[Use]:
    """Connections that mix what their branch gives, which is nothing with that switched off."""
    for branch in layer.branches:
        if branch.connection is not None and any(mixes(member.use) for member in branch.members):
            yield branch.connection


def _distances(subject: Subject, use: Use) -> tuple[list[int], list[int], list[int]]:
    """How far back the component has to see, how far one would like to know, and where it may not."""
    if use.chosen:
        return sorted({0, 1, use.chosen - 1} - ({1} if use.chosen == 1 else set())), [], []
    windows = [subject.plan.masks[index].window for index in use.masks]
    if isinstance(use.cache, State | Composite) or not windows:
        return [1], [FAR], []  # how long a state remembers is its own affair
    window = windows[0]
    if use.chunk:  # whether a token is seen depends on where the chunks are
        return [0], [1, use.chunk - 1], [use.chunk, use.chunk + 1, 2 * use.chunk]
    if window is None:
        return [1, FAR], [], []
    if window > (subject.windows or [0])[-1]:
        return [1] if window > 1 else [], [], []
    return sorted({0, window // 2, window - 1}), [], [window, window + 1, 2 * window]


def _elsewhere(subject: Subject, back: int, beyond: tuple[int, ...], seen: tuple[float, float]) -> tuple[float, float]:
    """The same on other texts: a narrow layer after a ReLU may rightly be silent about a token."""
    for salt in OTHER_TEXTS:
        (found,) = _changes(subject, [back], beyond, salt)
        if found[0] >= SEEN:
            return found
    return seen


def _changes(
    subject: Subject, distances: list[int], beyond: tuple[int, ...], salt: int = 2
) -> list[tuple[float, float]]:
    """How much the last output changes with the token so many places before it: least and most over some lengths.

    Args:
        subject: The model.
        distances: Places before the last token.
        beyond: By how much texts are longer than the largest of them.
        salt: Chooses the text.
    """
    longest = max([*distances, 1])
    figures = []
    for length in (longest + more for more in beyond):
        base = subject.tokens(1, length, salt=salt)
        places = mx.array([length - 1 - back for back in distances])
        changed = (base + 1 + mx.arange(len(distances))[:, None]) % int(subject.plan.dims.vocab_size)
        edited = mx.where(mx.arange(length)[None] == places[:, None], changed, base)
        logits = subject.forward(mx.concatenate([base, edited]))[:, -1:]
        figures.append([distance(logits[row : row + 1], logits[:1]) for row in range(1, len(distances) + 1)])
    return [(min(pair), max(pair)) for pair in zip(*figures, strict=True)]
