"""Layers of a few tokens with the norm before them and the sum behind them, in one operation: against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from stored_layers import (
    ACTIVATIONS,
    INNER,
    ROUNDING,
    STORED,
    WIDTH,
    drawn,
    experts_of,
    layer,
    mlp_of,
    normalised,
    rotated,
    rounded,
    step_by_step,
    times,
    typed,
)

from axon_core.kernels import Routing, StoredNorm, native_attended, native_heads, native_mlp, native_routed

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

stored = pytest.mark.parametrize("name", STORED)
types = pytest.mark.parametrize("dtype", ROUNDING, ids=str)
#: Norms of rows, by what is special about them.
NORMS: dict[str, StoredNorm | None] = {
    "none": None,
    "weightless": (None, 1e-6, 0.0),
    "weightless, with an offset that nothing is added to": (None, 1e-6, 1.0),
    "weighed": (drawn(WIDTH, seed=20), 1e-3, 0.0),
    "of an offset": (drawn(WIDTH, seed=21) / 8, 0.0, 1.0),
    "of 16 bits": (drawn(WIDTH, seed=22).astype(mx.bfloat16), 1e-5, 0.5),
    "every other number": (drawn(2 * WIDTH, seed=23)[::2], 1e-5, 0.0),
}
norms = pytest.mark.parametrize("norm", NORMS)
adding = pytest.mark.parametrize("adds", [False, True], ids=["", "adds"])


def wide(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


@norms
@adding
@types
@pytest.mark.parametrize("shape", [(WIDTH,), (4, 1, WIDTH)])
def test_an_mlp(norm: str, adds: bool, dtype: mx.Dtype, shape: tuple[int, ...]) -> None:
    name = "float32" if dtype == mx.float32 else "bfloat16"
    gate, up, down = (typed(each, dtype) for each in mlp_of(name, True))
    x = drawn(*shape[::-1]).T.astype(dtype)
    h = normalised(wide(x), NORMS[norm])
    truth = times(ACTIVATIONS["silu"](times(h, gate)) * times(h, up), down)
    y = native_mlp(x, gate, up, down, "silu", NORMS[norm], adds=adds)
    assert rounded(y, wide(x) + truth if adds else truth, dtype)


@stored
@norms
@types
def test_heads(name: str, norm: str, dtype: mx.Dtype) -> None:
    """With norms of queries and keys before they are rotated, whose widths no vector divides."""
    name = "bfloat16" if name == "float32" and dtype != mx.float32 else name
    shapes = ((4 * 20, True), (2 * 20, False), (2 * 12, True))
    projections = tuple(typed(layer(n, WIDTH, name, shift, n), dtype) for n, shift in shapes)
    x, turn = drawn(3, 1, WIDTH).astype(dtype), (drawn(1, 20, seed=7), drawn(1, 20, seed=8))
    of_queries, of_keys = (drawn(20, seed=9), 1e-2, 0.0), (drawn(20, seed=10).astype(dtype), 1e-6, 1.0)
    h = normalised(wide(x), NORMS[norm])
    plain = [times(h, made).reshape(3, heads, 1, -1) for made, heads in zip(projections, (4, 2, 2), strict=True)]
    own = [normalised(plain[0], of_queries), normalised(plain[1], of_keys)]
    for given in ((NORMS[norm], of_queries, of_keys), (NORMS[norm], None, of_keys)):
        found = native_heads(x, projections, (4, 2), turn, 7, traditional=True, norms=given)
        asked = own[0] if given[1] else plain[0]
        truth = [*(rotated(each, *map(wide, turn), 7, True) for each in (asked, own[1])), plain[2]]
        assert found is not None
        assert all(rounded(y, each, dtype) for y, each in zip(found, truth, strict=True))
    found = native_heads(x, projections, (4, 2), None, 0, traditional=False, norms=(NORMS[norm], of_queries, None))
    assert found is not None
    assert all(rounded(y, each, dtype) for y, each in zip(found, [own[0], *plain[1:]], strict=True))


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, sinks: np.ndarray | None) -> np.ndarray:
    """(B, 1, H V) in float64, every head with keys and values of its own."""
    k, v = (np.repeat(each, q.shape[1] // each.shape[1], axis=1) for each in (k, v))
    scores = q @ k.swapaxes(-1, -2) * scale
    extra = (
        np.full((*scores.shape[:-1], 1), -np.inf)
        if sinks is None
        else np.broadcast_to(sinks[:, None, None], (*scores.shape[:-1], 1))
    )
    scores = np.concatenate([scores, extra], axis=-1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights[..., :-1] @ v).swapaxes(1, 2).reshape(q.shape[0], 1, -1)


@stored
@types
@adding
@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize(
    ("batch", "heads", "groups", "tokens", "kept"), [(1, 4, 4, 1, 8), (2, 8, 2, 37, 256), (4, 4, 1, 9, 9)]
)
def test_what_is_made_of_attention(
    name: str, dtype: mx.Dtype, adds: bool, sinks: bool, batch: int, heads: int, groups: int, tokens: int, kept: int
) -> None:
    """Of the first tokens of a cache, whatever is behind them; scores are large enough to choose."""
    name = "bfloat16" if name == "float32" and dtype != mx.float32 else name
    q = 3 * drawn(batch, 1, heads, 20).swapaxes(1, 2).astype(dtype)
    k = drawn(batch, groups, kept, 20, seed=1).astype(dtype)
    v = drawn(batch, kept, groups, 24, seed=2).swapaxes(1, 2).astype(dtype)  # as tokens come out of a projection
    k[:, :, tokens:], v[:, :, tokens:] = float("nan"), float("nan")
    output = typed(layer(WIDTH, heads * 24, name, True, 3), dtype)
    base = drawn(batch, 1, WIDTH, seed=4).astype(dtype) if adds else None
    s = 3 * drawn(heads, seed=5).astype(dtype) if sinks else None
    y = native_attended(q, k, v, 0.3, s, output, base, tokens)
    mixed = attended(wide(q), wide(k)[:, :, :tokens], wide(v)[:, :, :tokens], 0.3, None if s is None else wide(s))
    truth = times(mixed, output)
    assert rounded(y, truth if base is None else wide(base) + truth, dtype)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gated(h: np.ndarray, layers: Any, activation: str = "silu") -> np.ndarray:
    gate, up, down = layers
    return times(ACTIVATIONS[activation](times(h, gate)) * times(h, up), down)


def routed(h: np.ndarray, router: Any, experts: Any, how: Routing, shared: Any, share: Any) -> np.ndarray:
    """Expert by expert in float64; of equal scores, the first ones are chosen."""
    logits = times(h, router)
    chosen = np.argsort(-logits, axis=-1, kind="stable")[..., : how.top_k]
    weights = np.take_along_axis(logits if how.of_chosen else softmax(logits), chosen, -1)
    weights = softmax(weights) if how.of_chosen else weights
    if how.to_one:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + how.eps)
    truth = np.zeros((*h.shape[:-1], WIDTH))
    for at in np.ndindex(chosen.shape):
        own = [tuple(a[chosen[at]] if isinstance(a, mx.array) else a for a in made) for made in experts]
        truth[at[:-1]] += how.factor * weights[at] * gated(h[at[:-1]], own)
    if shared is not None:
        common = gated(h, shared)
        truth += common if share is None else common / (1 + np.exp(-times(h, share)))
    return truth


HOW = [
    Routing(2, of_chosen=False, to_one=True, eps=0.0, factor=1.0),
    Routing(3, of_chosen=False, to_one=False, eps=0.0, factor=2.5),
    Routing(1, of_chosen=True, to_one=False, eps=0.0, factor=1.0),
    Routing(5, of_chosen=True, to_one=True, eps=0.25, factor=0.5),
]


@stored
@types
@adding
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("more", ["", "shared", "gate"])
def test_routed_experts(name: str, dtype: mx.Dtype, adds: bool, how: Routing, more: str) -> None:
    name = "bfloat16" if name == "float32" and dtype != mx.float32 else name
    router = typed(layer(5, WIDTH, name, True, 40), dtype)
    experts = tuple(typed(each, dtype) for each in experts_of(name, True, 5))
    shared = tuple(typed(each, dtype) for each in mlp_of(name, False)) if more else None
    share = typed(layer(1, WIDTH, name, True, 50), dtype) if more == "gate" else None
    for norm, shape in ((None, (WIDTH,)), (NORMS["of an offset"], (2, 2, WIDTH))):
        x = drawn(*shape[::-1], seed=3).T.astype(dtype)
        h = normalised(wide(x), norm)
        truth = routed(h, router, experts, how, shared, share)
        y = native_routed(x, router, experts, "silu", how, shared, share, norm, adds=adds)
        assert rounded(y, wide(x) + truth if adds else truth, dtype)


def test_of_experts_with_equal_scores_the_first_ones_are_chosen() -> None:
    """As all of a router that has not been trained have."""
    experts, x = experts_of("float32", False, 6), drawn(3, WIDTH)
    for weight in (mx.zeros((6, WIDTH)), mx.broadcast_to(drawn(1, WIDTH, seed=2), (6, WIDTH))):
        router = (weight, None, None, None, 0, 0, "")
        for how in HOW:
            y = native_routed(x, router, experts, "silu", how)
            assert rounded(y, routed(wide(x), router, experts, how, None, None), mx.float32)
    rising = (mx.zeros((6, WIDTH)), None, None, mx.array([0.0, 2.0, 2.0, 1.0, 2.0, 0.0]), 0, 0, "")
    for how in HOW:
        y = native_routed(x, rising, experts, "silu", how)
        assert rounded(y, routed(wide(x), rising, experts, how, None, None), mx.float32)


def test_experts_far_apart() -> None:
    """Scores whose exponentials would overflow, and chosen ones that have none of the sum."""
    experts, x = experts_of("float32", False, 4), drawn(2, WIDTH)
    router = (mx.zeros((4, WIDTH)), None, None, mx.array([-1e4, 300.0, 1e4, -3e38]), 0, 0, "")
    for how in HOW[:3]:
        y = native_routed(x, router, experts, "silu", how)
        assert rounded(y, routed(wide(x), router, experts, how, None, None), mx.float32)


# -- Derivatives and vmap ---------------------------------------------------------------------------------------------


def normed(x: mx.array, weight: mx.array, eps: float, offset: float) -> mx.array:
    return x * mx.rsqrt(mx.square(x).mean(axis=-1, keepdims=True) + eps) * (weight + offset)


def mlp_in_steps(x: mx.array, layers: Any) -> mx.array:
    gate, up, down = layers
    g = step_by_step(x, gate)
    return step_by_step(g * mx.sigmoid(g) * step_by_step(x, up), down)


def expert_layers(experts: Any, which: int) -> list[Any]:
    return [tuple(a[which] if isinstance(a, mx.array) else a for a in made) for made in experts]


def cases() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], list[mx.array]]]:
    """By its name, a call, the same in steps, and its arguments."""
    gate, up, down = mlp_of("float32", True)
    weight = drawn(WIDTH, seed=30)
    found: dict[str, Any] = {
        "mlp": (
            lambda x, w, g: native_mlp(x, (g, *gate[1:]), up, down, "silu", (w, 1e-3, 1.0), adds=True),
            lambda x, w, g: x + mlp_in_steps(normed(x, w, 1e-3, 1.0), ((g, *gate[1:]), up, down)),
            [drawn(2, WIDTH), weight, gate[0]],
        )
    }
    q, k, v = (layer(n, WIDTH, "float32", True, n) for n in (80, 40, 24))
    own, turn = drawn(20, seed=31), (drawn(1, 20, seed=7), drawn(1, 20, seed=8))
    partner = mx.array([*range(10, 20), *range(10)])

    def heads(x: mx.array, w: mx.array, own: mx.array, kw: mx.array) -> mx.array:
        norms = ((w, 1e-3, 0.0), (own, 1e-2, 1.0), (own, 1e-2, 1.0))
        made = native_heads(x, (q, (kw, *k[1:]), v), (4, 2), turn, 10, traditional=False, norms=norms)
        assert made is not None
        return mx.concatenate([each.flatten(1) for each in made], axis=1)

    def heads_in_steps(x: mx.array, w: mx.array, own: mx.array, kw: mx.array) -> mx.array:
        h = normed(x, w, 1e-3, 0.0)
        asked = normed(step_by_step(h, q).reshape(-1, 4, 1, 20), own, 1e-2, 1.0)
        keys = normed(step_by_step(h, (kw, *k[1:])).reshape(-1, 2, 1, 20), own, 1e-2, 1.0)
        turned = [each * turn[0] + each[..., partner] * turn[1] for each in (asked, keys)]
        return mx.concatenate([each.flatten(1) for each in (*turned, step_by_step(h, v))], axis=1)

    found["heads"] = (heads, heads_in_steps, [drawn(2, 1, WIDTH), weight, own, k[0]])
    output = layer(WIDTH, 4 * 12, "float32", True, 60)

    def attention_in_steps(*a: mx.array) -> mx.array:
        q, k, v, s, o, base = a
        k, v = (mx.repeat(each[:, :, :5], 2, axis=1) for each in (k, v))
        scores = mx.concatenate(
            [(q @ k.swapaxes(-1, -2)) * 0.3, mx.broadcast_to(s[:, None, None], (*q.shape[:3], 1))], -1
        )
        y = (mx.softmax(scores, axis=-1)[..., :-1] @ v).swapaxes(1, 2).flatten(2)
        return base + step_by_step(y, (o, *output[1:]))

    found["attention"] = (
        lambda q, k, v, s, o, base: native_attended(q, k, v, 0.3, s, (o, *output[1:]), base, 5),
        attention_in_steps,
        [
            drawn(2, 4, 1, 20),
            drawn(2, 2, 7, 20, seed=1),
            drawn(2, 2, 7, 12, seed=2),
            drawn(4, seed=3),
            output[0],
            drawn(2, 1, WIDTH, seed=4),
        ],
    )
    router, experts = layer(4, WIDTH, "float32", True, 70), experts_of("float32", True, 4)
    shared, share = mlp_of("float32", True), layer(1, WIDTH, "float32", True, 80)
    for name, how in zip(
        ("experts", "experts of a softmax of the chosen"), (HOW[0], HOW[3]._replace(top_k=3)), strict=True
    ):

        def whole(x: mx.array, w: mx.array, r: mx.array, g: mx.array, how: Routing = how) -> mx.array:
            norm = (w, 1e-3, 0.0)
            y = native_routed(x, (r, *router[1:]), experts, "silu", how, shared, (g, *share[1:]), norm, adds=True)
            assert y is not None
            return y

        def in_steps(x: mx.array, w: mx.array, r: mx.array, g: mx.array, how: Routing = how) -> mx.array:
            h = normed(x, w, 1e-3, 0.0)
            logits = step_by_step(h, (r, *router[1:]))
            kept = (mx.argsort(mx.argsort(-logits, axis=-1), axis=-1) < how.top_k).astype(mx.float32)
            if how.of_chosen:
                weights = mx.softmax(mx.where(kept > 0, logits, -mx.inf), axis=-1)
            else:
                weights = mx.softmax(logits, axis=-1) * kept
            weights = how.factor * weights / (weights.sum(axis=-1, keepdims=True) + how.eps)
            every = mx.stack([mlp_in_steps(h, expert_layers(experts, i)) for i in range(4)], axis=-2)
            common = mx.sigmoid(step_by_step(h, (g, *share[1:]))) * mlp_in_steps(h, shared)
            return x + (every * weights[..., None]).sum(axis=-2) + common

        found[name] = (whole, in_steps, [drawn(2, WIDTH), weight, router[0], share[0]])
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    """Of every argument, forwards and backwards."""
    ours, theirs, arguments = CASES[name]
    goal = drawn(*theirs(*arguments).shape, seed=90)
    every = tuple(range(len(arguments)))
    found, truth = (
        mx.grad(lambda *a, call=call: (call(*a) * goal).sum(), every)(*arguments) for call in (ours, theirs)
    )
    tangents = [drawn(*each.shape, seed=91 + i) for i, each in enumerate(arguments)]
    forwards = [mx.jvp(call, arguments, tangents)[1][0] for call in (ours, theirs)]
    for mine, other in zip([*found, forwards[0]], [*truth, forwards[1]], strict=True):
        assert mx.abs(mine - other).max() <= 2e-5 * mx.abs(other).max()


@pytest.mark.parametrize("name", CASES)
def test_vmap(name: str) -> None:
    """Along any axis, which leaves rows of every argument apart in memory."""
    call, _, arguments = CASES[name]
    for axis in (0, -1):
        several = [mx.stack([each, -0.5 * each], axis=axis) for each in arguments]
        axes = [each.ndim - 1 if axis else 0 for each in several]
        y = mx.vmap(call, in_axes=tuple(axes))(*several)
        for i in range(2):
            assert mx.array_equal(y[i], call(*(mx.take(each, i, axis) for each in several)))


def test_what_does_not_fit_is_refused(module: Any) -> None:
    gate, up, down = mlp_of("float32", True)
    x, norm = mx.zeros((2, 1, WIDTH)), (mx.ones(WIDTH), 1e-5, 0.0)
    heads = tuple(layer(rows, WIDTH, "4 bits", False, rows) for rows in (80, 40, 24))
    q, k, v = mx.zeros((2, 4, 1, 8)), mx.zeros((2, 2, 5, 8)), mx.zeros((2, 2, 5, 12))
    output, base = layer(WIDTH, 48, "float32", True, 1), mx.zeros((2, 1, WIDTH))
    router, experts = layer(3, WIDTH, "float32", True, 1), experts_of("float32", True)
    shared, how = mlp_of("float32", True), (2, False, True, 0.0, 1.0)
    none = layer(80, WIDTH, "float32", False, 1)
    empty = (none[0][:0], *none[1:])
    for call in (
        lambda: module.gated_mlp(x, gate, up, down, "silu", (mx.ones(WIDTH - 1), 1e-5, 0.0)),
        lambda: module.gated_mlp(x, gate, up, down, "silu", (mx.ones((1, WIDTH)), 1e-5, 0.0)),
        lambda: module.gated_mlp(x, gate, up, down, "silu", (mx.ones(WIDTH, mx.int32), 1e-5, 0.0)),
        lambda: module.gated_mlp(x, gate, up, layer(8, INNER, "float32", False, 1), "silu", None, True),
        lambda: module.projected_heads(x, *heads, (4, 2), norm=(mx.ones(20), 1e-5, 0.0)),
        lambda: module.projected_heads(x, *heads, (4, 2), query_norm=norm),
        lambda: module.projected_heads(x, *heads, (4, 2), key_norm=norm),
        lambda: module.projected_heads(x, empty, empty, heads[2], (4, 2), (mx.ones((1, 0)), mx.ones((1, 0)))),
        lambda: module.attention_of_one(q, k, v, 1.0, tokens=6),
        lambda: module.attention_of_one(q, k, v, 1.0, tokens=-1),
        lambda: module.attention_of_one(q, k, v[:, :, :4], 1.0),
        lambda: module.attention_of_one(q, k, v, 1.0, output=layer(WIDTH, 32, "float32", True, 1)),
        lambda: module.attention_of_one(q, k, v, 1.0, output=output, base=base[:1]),
        lambda: module.attention_of_one(q, k, v, 1.0, output=output, base=base.astype(mx.int32)),
        lambda: module.attention_of_one(q, k, v, 1.0, base=base),
        lambda: module.attention_of_one(q, k, v, 1.0, mx.zeros(2)),
        lambda: module.attention_of_one(q.astype(mx.int32), k, v, 1.0),
        lambda: module.with_token(k, k[:, :, :1], 5),
        lambda: module.with_token(k, k[:, :, :1], -1),
        lambda: module.with_token(k, k[:, :, :2], 0),
        lambda: module.with_token(k, k[:1, :, :1], 0),
        lambda: module.with_token(k, v[:, :, :1], 0),
        lambda: module.with_token(k, k[:, :, :1].astype(mx.bfloat16), 0),
        lambda: module.routed_experts(x, router, experts, "silu", (0, *how[1:])),
        lambda: module.routed_experts(x, router, experts, "silu", (4, *how[1:])),
        lambda: module.routed_experts(x, layer(4, WIDTH, "float32", True, 1), experts, "silu", how),
        lambda: module.routed_experts(x, router, (*experts[:2], experts_of("float32", True, 2)[2]), "silu", how),
        lambda: module.routed_experts(x, router, experts, "relu", how),
        lambda: module.routed_experts(x, router, (experts[0], experts[2], experts[2]), "silu", how),
        lambda: module.routed_experts(x, router, experts, "silu", how, (gate, up, layer(8, INNER, "float32", True, 1))),
        lambda: module.routed_experts(x, router, experts, "silu", how, shared, router),
        lambda: module.routed_experts(x, router, experts, "silu", how, norm=(mx.ones(3), 1e-5, 0.0)),
        lambda: module.routed_experts(x[..., :0], router, experts, "silu", how),
    ):
        with pytest.raises(ValueError, match="should"):
            call()
