"""Groups of the last few tokens: what each of them begins with."""

from __future__ import annotations

import mlx.core as mx

__all__ = ["last_tokens"]


def last_tokens(ids: mx.array, length: int, longest: int, eos: int | None, missing: int) -> list[mx.array]:
    """Each token, that before it, and so on, (B, length) each.

    Args:
        ids: The tokens and `longest - 1` before them, (B, longest - 1 + length).
        length: How many of them are asked for, the last ones.
        longest: How many arrays.
        eos: Token that ends a text; None if there is none.
        missing: What stands for tokens that are not in the text of the first one.
    """
    before = longest - 1
    found, inside = [ids[:, before:]], mx.array(True)
    for back in range(1, longest):
        token = ids[:, before - back : before - back + length]
        if eos is not None:
            inside = inside & (token != eos)
            token = mx.where(inside, token, missing)
        found.append(token)
    return found
