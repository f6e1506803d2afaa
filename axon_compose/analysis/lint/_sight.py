"""Advice on how far attention reaches, and on positional encoding."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi
from typing import Any

from axon_compose.analysis.lint._rule import Finding, layer_uses, option_path, place_of
from axon_compose.analysis.lint._written import CONTEXT_DIMS
from axon_compose.language.document import Document
from axon_compose.plan import Plan, Use, attends, takes_position
from axon_compose.registry import KV, State, cache_leaves, option_names

__all__ = [
    "no_mixer",
    "no_positions",
    "nothing_beyond_the_window",
    "short_rotation",
    "window_never_closes",
    "window_without_positions",
]


def nothing_beyond_the_window(document: Document, plan: Plan) -> Iterator[Finding]:
    """No layer attends to all tokens: older ones are seen only indirectly, through other layers."""
    leaves = list(_leaves(plan))
    windows = [leaf.window for leaf in leaves if isinstance(leaf, KV)]
    bounded = [window for window in windows if window is not None]
    if not bounded or len(bounded) < len(windows):
        return
    if any(isinstance(leaf, State) for leaf in leaves):
        rest = "older tokens are seen only through states of constant size"
    else:
        rest = f"all layers together reach back at most {sum(bounded) - len(bounded):,} tokens"
    yield Finding(
        f"no layer attends beyond {max(bounded):,} tokens; {rest}",
        ("stack",),
        "one full-attention layer in a few is enough for long-range recall; ignore this if it is intended",
        key=True,
    )


def window_never_closes(document: Document, plan: Plan) -> Iterator[Finding]:
    """A window that is not smaller than the context."""
    if context := _context(plan):
        for use in layer_uses(plan):
            window = use.window or getattr(use.cache, "window", None)
            if window is not None and window >= context:
                yield Finding(
                    f"the window of `{use.name}` is {window:,} tokens and the context at most {context:,}: "
                    "it has no effect",
                    option_path(use, plan, "window_size"),
                    "remove the window: the cache can then be quantised and trimmed",
                )


def short_rotation(document: Document, plan: Plan) -> Iterator[Finding]:
    """RoPE whose lowest frequency repeats within the context: distant tokens look like near ones."""
    context = _context(plan)
    for use in layer_uses(plan) if context else ():
        rope = use.option("rope")
        theta, width = getattr(rope, "theta", None), _rotated(use, rope)
        if theta is None or width is None or getattr(rope, "scaling", None) is not None:
            continue
        assert context is not None
        seen = min(context, getattr(use.cache, "window", None) or context)
        turn = 2 * pi * theta ** ((width - 2) / width)
        if turn < seen:
            yield Finding(
                f"the lowest RoPE frequency of `{use.name}` repeats after {turn:,.0f} tokens, "
                f"and it attends to {seen:,}",
                option_path(use, plan, "rope", "theta"),
                "increase `rope.theta`, or set `rope.scaling`",
            )


def no_positions(document: Document, plan: Plan) -> Iterator[Finding]:
    """Attention only and no positional encoding (NoPE): order enters through the causal mask alone."""
    uses = [plan.embedding, *(use for layer in plan.layers for use in layer.uses())]
    positioned = any(map(takes_position, uses)) or any(isinstance(leaf, State) for leaf in _leaves(plan))
    blind = {use.name: use for use in layer_uses(plan) if attends(use)}
    if blind and not positioned:
        first = next(iter(blind.values()))
        turned = next((use for use in blind.values() if "rope" in option_names(use.spec)), None)
        rotary = "" if turned is None else f"`rope: true` gives `{turned.name}` rotary positions, "
        yield Finding(
            f"no attention has positions (NoPE: `{'`, `'.join(blind)}`), and no recurrent state depends on the order",
            place_of(first, plan),
            f"{rotary}`embedding: {{positions: …}}` adds learned ones; ignore this if it is intended",
            key=True,
        )


def window_without_positions(document: Document, plan: Plan) -> Iterator[Finding]:
    """Attention in a window that has no positions, in a stack whose other attention has them."""
    if takes_position(plan.embedding) or any(isinstance(leaf, State) for leaf in _leaves(plan)):
        return
    attention = [use for use in layer_uses(plan) if attends(use)]
    positioned = next((use.name for use in attention if takes_position(use)), None)
    for use in attention if positioned else ():
        window = use.window or getattr(use.cache, "window", None)
        if window is not None and not takes_position(use) and positioned != use.name:
            hint = "`rope: true` gives it rotary positions; " if "rope" in option_names(use.spec) else ""
            yield Finding(
                f"`{use.name}` attends within {window:,} tokens without positions (NoPE), and `{positioned}` has them",
                place_of(use, plan),
                f"{hint}published models leave positions out of layers without a window, if of any",
                key=True,
            )


def no_mixer(document: Document, plan: Plan) -> Iterator[Finding]:
    """No layer mixes tokens: the next token would depend on the last one alone."""
    if not plan.slots and not any(use.source_layers for layer in plan.layers for use in layer.uses()):
        yield Finding(
            "no layer mixes tokens: each prediction depends on the current token alone",
            ("stack",),
            "add an attention or recurrent layer",
            key=True,
        )


def _context(plan: Plan) -> int | None:
    """The longest context that the file names, or None."""
    stated: list[Any] = [plan.dims.get(name) for name in CONTEXT_DIMS]
    stated.append(plan.embedding.option("positions"))
    numbers = [value for value in stated if isinstance(value, int) and not isinstance(value, bool)]
    return max(numbers, default=None)


def _rotated(use: Use, rope: Any) -> int | None:
    """How many numbers of a head are rotated."""
    width = getattr(use.cache, "head_dim", None)
    if width is None or rope is None:
        return None
    dims, fraction = getattr(rope, "dims", None), getattr(rope, "fraction", None)
    rotated = dims or (int(width * fraction) if fraction else width)
    return rotated if isinstance(rotated, int) and rotated >= 2 else None


def _leaves(plan: Plan) -> Iterator[KV | State]:
    return (leaf for slot in plan.slots for leaf in cache_leaves(slot))
