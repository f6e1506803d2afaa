"""Layers of a few tokens in one operation of `axon-native`: against float64, MLX's derivatives and their own steps."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from stored_layers import (
    ACTIVATIONS,
    STORED,
    WIDTH,
    close,
    drawn,
    experts_of,
    layer,
    mlp_of,
    of_expert,
    rotated,
    step_by_step,
    times,
)

from axon_core import linear
from axon_core.experts import ExpertLinear
from axon_core.kernels import Stored, native_experts, native_heads, native_mlp
from axon_core.linear import Embedding, Linear

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

stored = pytest.mark.parametrize("name", STORED)
shifted = pytest.mark.parametrize("shift", [False, True], ids=["", "shifted"])


@stored
@shifted
@pytest.mark.parametrize("shape", [(WIDTH,), (1, 3, WIDTH)])
def test_a_gated_mlp(name: str, shift: bool, shape: tuple[int, ...]) -> None:
    gate, up, down = mlp_of(name, shift)
    x = drawn(*shape[::-1]).T  # the last axis is not the one that lies side by side
    wide = np.array(x).astype(np.float64)
    for activation, act in ACTIVATIONS.items():
        truth = times(act(times(wide, gate)) * times(wide, up), down)
        assert close(native_mlp(x, gate, up, down, activation), truth)


@stored
@shifted
@pytest.mark.parametrize("shape", [(WIDTH,), (1, 3, WIDTH)])
def test_gated_experts(name: str, shift: bool, shape: tuple[int, ...]) -> None:
    """Also where a token is sent twice to the same expert, and to the last one."""
    layers, x = experts_of(name, shift), drawn(*shape[::-1]).T
    count = int(np.prod(shape[:-1]))
    chosen = np.array([[2, 0], [1, 1], [0, 2]])[:count].reshape(*shape[:-1], 2)
    weights = drawn(*chosen.shape, seed=8)
    wide, shares = (np.array(each).astype(np.float64) for each in (x, weights))
    truth = np.zeros(shape)
    for at in np.ndindex(chosen.shape):
        gate, up, down = (of_expert(each, int(chosen[at])) for each in layers)
        row = wide[at[:-1]]
        truth[at[:-1]] += shares[at] * times(ACTIVATIONS["silu"](times(row, gate)) * times(row, up), down)
    for dtype in (mx.uint32, mx.int64):
        assert close(native_experts(x, mx.array(chosen).astype(dtype), weights, *layers, "silu"), truth)


@stored
@shifted
@pytest.mark.parametrize("traditional", [False, True])
def test_projected_heads(name: str, shift: bool, traditional: bool) -> None:
    """Values are of another width than keys, and their matrix is stored in another way than the rest."""
    projections = (
        layer(4 * 20, WIDTH, name, shift, 1),
        layer(2 * 20, WIDTH, name, False, 3),
        layer(2 * 12, WIDTH, "8 bits", shift, 5),
    )
    x, turn = drawn(3, 1, WIDTH), (drawn(1, 20, seed=7), drawn(1, 20, seed=8))
    plain = [
        times(np.array(x).astype(np.float64), made).reshape(3, heads, 1, -1)
        for made, heads in zip(projections, (4, 2, 2), strict=True)
    ]
    angles = [np.array(each).astype(np.float64) for each in turn]
    for pairs in (5, 10):
        found = native_heads(x, projections, (4, 2), turn, pairs, traditional=traditional)
        assert found is not None
        truth = [*(rotated(each, *angles, pairs, traditional) for each in plain[:2]), plain[2]]
        assert all(map(close, found, truth))
    found = native_heads(x, projections, (4, 2), None, 0, traditional=traditional)
    assert found is not None
    assert all(map(close, found, plain))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize("bits", [None, 4])
def test_types_of_16_bits(dtype: mx.Dtype, bits: int | None) -> None:
    """Rounded once, at the end; the sum of experts is in float32, as that of their steps is."""
    how = "4 bits" if bits else "bfloat16"

    def typed(made: Stored) -> Stored:
        floats = (
            each.astype(dtype) if isinstance(each, mx.array) and each.dtype != mx.uint32 else each for each in made
        )
        return tuple(floats)

    gate, up, down = (typed(each) for each in mlp_of(how, True))
    x, turn = drawn(2, 1, WIDTH).astype(dtype), (drawn(1, 20, seed=7), drawn(1, 20, seed=8))
    wide, rounding = np.array(x.astype(mx.float32)).astype(np.float64), 2.0**-8 if dtype == mx.bfloat16 else 2.0**-11

    def rounded(y: mx.array | None, truth: np.ndarray) -> bool:
        assert y is not None
        assert y.dtype == dtype
        return bool((np.abs(np.array(y.astype(mx.float32)) - truth) <= rounding * np.abs(truth) + 1e-5).all())

    assert rounded(
        native_mlp(x, gate, up, down, "silu"), times(ACTIVATIONS["silu"](times(wide, gate)) * times(wide, up), down)
    )
    projections = tuple(typed(layer(rows, WIDTH, how, True, rows)) for rows in (80, 40, 24))
    found = native_heads(x, projections, (4, 2), turn, 10, traditional=False)
    assert found is not None
    plain = [times(wide, made).reshape(2, n, 1, -1) for made, n in zip(projections, (4, 2, 2), strict=True)]
    angles = [np.array(each).astype(np.float64) for each in turn]
    truth = [*(rotated(each, *angles, 10, False) for each in plain[:2]), plain[2]]
    assert all(map(rounded, found, truth))
    experts = tuple(typed(each) for each in experts_of(how, True))
    y = native_experts(x, mx.zeros((2, 1, 1), mx.int32), mx.ones((2, 1, 1)), *experts, "silu")
    first, second, third = (of_expert(each, 0) for each in experts)
    assert close(y, times(ACTIVATIONS["silu"](times(wide, first)) * times(wide, second), third))
    shifted_in_float32 = (*gate[:3], gate[3].astype(mx.float32), *gate[4:])
    assert native_mlp(x, shifted_in_float32, up, down, "silu") is None, "steps would give float32"


@stored
def test_derivatives(name: str) -> None:
    """Towards the input, and towards what is added and matrices where they have gradients; and for several at once."""
    gate, up, down = mlp_of(name, True)
    x, goal = drawn(2, WIDTH), drawn(2, WIDTH, seed=9)

    def swapped(made: Stored, weight: mx.array, added: mx.array) -> Stored:
        return (weight if not made[-1] else made[0], *made[1:3], added, *made[4:])

    def ours(x: mx.array, weight: mx.array, added: mx.array) -> mx.array:
        y = native_mlp(x, swapped(gate, weight, added), up, down, "silu")
        assert y is not None
        return (y * goal).sum()

    def theirs(x: mx.array, weight: mx.array, added: mx.array) -> mx.array:
        inner = nn.silu(step_by_step(x, swapped(gate, weight, added))) * step_by_step(x, up)
        return (step_by_step(inner, down) * goal).sum()

    weight = gate[0] if not gate[-1] else drawn(1)
    primals = (x, weight, gate[3])
    found, truth = (mx.grad(each, (0, 1, 2))(*primals) for each in (ours, theirs))
    tangents = [drawn(*each.shape, seed=11).astype(each.dtype) for each in primals]
    forwards = [mx.jvp(each, list(primals), tangents)[1][0] for each in (ours, theirs)]
    digits = 1e-2 if name == "bfloat16" else 1e-5
    for mine, other in zip([*found, forwards[0]], [*truth, forwards[1]], strict=True):
        assert mx.abs(mine - other).max() <= digits * mx.abs(other).max() + 1e-9
    several = mx.vmap(lambda x: native_mlp(x, gate, up, down, "silu"))(mx.stack([x, 2 * x]))
    assert mx.array_equal(several[1], native_mlp(2 * x, gate, up, down, "silu"))


@stored
def test_derivatives_of_experts(name: str) -> None:
    """Towards the input, the weights of experts, and what one of their layers adds."""
    gate, up, down = experts_of(name, True)
    x, chosen, goal = drawn(2, WIDTH), mx.array([[2, 0], [1, 2]]), drawn(2, WIDTH, seed=9)

    def ours(x: mx.array, weights: mx.array, added: mx.array) -> mx.array:
        y = native_experts(x, chosen, weights, gate, up, (*down[:3], added, *down[4:]), "silu")
        assert y is not None
        return (y * goal).sum()

    def theirs(x: mx.array, weights: mx.array, added: mx.array) -> mx.array:
        total = mx.array(0.0)
        for row, experts in enumerate(chosen.tolist()):
            for place, expert in enumerate(experts):
                first, second, third = (of_expert(each, expert) for each in (gate, up, down))
                inner = nn.silu(step_by_step(x[row], first)) * step_by_step(x[row], second)
                y = step_by_step(inner, (*third[:3], added[expert], *third[4:]))
                total = total + weights[row, place] * (y * goal[row]).sum()
        return total

    primals = (x, drawn(2, 2, seed=8), down[3])
    found, truth = (mx.grad(each, (0, 1, 2))(*primals) for each in (ours, theirs))
    for mine, other in zip(found, truth, strict=True):
        assert mx.abs(mine - other).max() <= 1e-5 * mx.abs(other).max()


def test_derivatives_of_heads() -> None:
    projections = tuple(layer(rows, WIDTH, "float32", True, rows) for rows in (80, 40, 24))
    x, turn = drawn(2, 1, WIDTH), (drawn(1, 20, seed=7), drawn(1, 20, seed=8))
    goals = [drawn(2, heads, 1, width, seed=9 + heads) for heads, width in ((4, 20), (2, 20), (2, 12))]
    partner = mx.array([*range(10, 20), *range(10)])

    def ours(x: mx.array, weight: mx.array) -> mx.array:
        first = (weight, *projections[0][1:])
        found = native_heads(x, (first, *projections[1:]), (4, 2), turn, 10, traditional=False)
        assert found is not None
        return sum((y * goal).sum() for y, goal in zip(found, goals, strict=True))

    def theirs(x: mx.array, weight: mx.array) -> mx.array:
        first = (weight, *projections[0][1:])
        q, k, v = (
            step_by_step(x, made).reshape(2, heads, 1, -1)
            for made, heads in zip((first, *projections[1:]), (4, 2, 2), strict=True)
        )
        q, k = (each * turn[0] + each[..., partner] * turn[1] for each in (q, k))
        return sum((y * goal).sum() for y, goal in zip((q, k, v), goals, strict=True))

    primals = (x, projections[0][0])
    for mine, other in zip(*(mx.grad(each, (0, 1))(*primals) for each in (ours, theirs)), strict=True):
        assert mx.abs(mine - other).max() <= 1e-5 * mx.abs(other).max()


def test_functions_without_shapes_are_refused_others(module: Any) -> None:
    """Their outputs would be as large as the first ones."""
    gate, up, down = mlp_of("float32", False)
    for call in (
        lambda x: module.gated_mlp(x, gate, up, down, "silu"),
        lambda x: module.gated(x, x, "silu"),
        lambda x: module.rms_norm(x, mx.ones(WIDTH), 1e-5),
    ):
        compiled = mx.compile(call, shapeless=True)
        for _ in range(2):
            assert compiled(drawn(1, 1, WIDTH)).shape == (1, 1, WIDTH)
        with pytest.raises(RuntimeError, match="compiled for each shape"):
            compiled(drawn(3, 4, WIDTH))


def test_matrices_by_columns_are_left_to_the_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    """So they lie for the reference BLAS, and every call would copy them."""
    assert Linear(WIDTH, 8).stored() is not None
    monkeypatch.setattr(linear, "is_reference_blas", lambda: True)
    assert Linear(WIDTH, 8).stored() is None
    assert linear._of_few(drawn(1, WIDTH), drawn(8, WIDTH)) is None


@pytest.mark.parametrize("rows", [1, 8, 9])
def test_few_rows_of_float32(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear layers, tables and experts read their matrices by the kernel, up to eight rows."""
    calls = []
    for name in ("axon_core.linear", "axon_core.experts"):
        monkeypatch.setattr(f"{name}.native_product", lambda *a, name=name, **o: calls.append(name))
    x = drawn(1, rows, WIDTH)
    Linear(WIDTH, 8)(x)
    Embedding(10, WIDTH).as_linear(x)
    experts = ExpertLinear(WIDTH, 8, 4, False).eval()
    experts(x[:, :, None, None], mx.zeros((1, rows, 2), mx.uint32))
    assert calls == [*["axon_core.linear"] * 2, "axon_core.experts"] * (rows <= 8)


def test_products_of_few_rows_are_right() -> None:
    made, table = Linear(WIDTH, 33, bias=True), Embedding(33, WIDTH)
    experts = ExpertLinear(WIDTH, 8, 4, True).eval()
    x, chosen = drawn(2, 3, WIDTH), mx.array(np.random.default_rng(1).integers(0, 4, (2, 3, 2)))
    wide = np.array(x).astype(np.float64)
    assert close(made(x), times(wide, (made.weight, None, None, made.bias, 0, 0, "")))
    assert close(table.as_linear(x), times(wide, (table.weight, None, None, None, 0, 0, "")))
    weight = np.array(experts.weight).astype(np.float64)[np.array(chosen)]
    truth = np.einsum("blk,bleok->bleo", wide, weight) + np.array(experts.bias)[np.array(chosen)]
    assert close(experts(x[:, :, None, None], chosen)[..., 0, :], truth)


def test_what_does_not_fit_is_refused(module: Any) -> None:
    gate, up, down = mlp_of("float32", True)
    heads = tuple(layer(rows, WIDTH, "4 bits", False, rows) for rows in (80, 40, 24))
    x, turn = mx.zeros((2, 1, WIDTH)), (mx.ones((1, 20)), mx.ones((1, 20)))
    experts, chosen, shares = experts_of("float32", True), mx.zeros((2, 1, 2), mx.int32), mx.ones((2, 1, 2))
    for call in (
        lambda: module.gated_mlp(x, gate, up, up, "silu"),
        lambda: module.gated_mlp(x, gate, down, down, "silu"),
        lambda: module.gated_mlp(x, layer(8, WIDTH, "float32", False, 1), up, down, "silu"),
        lambda: module.gated_mlp(x, gate, up, down, "relu"),
        lambda: module.gated_mlp(x.astype(mx.int32), gate, up, down, "silu"),
        lambda: module.gated_mlp(x, (*gate[:3], mx.ones(3), *gate[4:]), up, down, "silu"),
        lambda: module.gated_experts(x, chosen[:1], shares, *experts, "silu"),
        lambda: module.gated_experts(x, chosen, shares[..., :1], *experts, "silu"),
        lambda: module.gated_experts(x, chosen * 1.0, shares, *experts, "silu"),
        lambda: module.gated_experts(x, chosen, shares, *experts[:2], up, "silu"),
        lambda: module.gated_experts(x, chosen, shares, *experts[:2], experts_of("float32", True, 2)[2], "silu"),
        lambda: module.projected_heads(mx.zeros((2, 2, WIDTH)), *heads, (4, 2)),
        lambda: module.projected_heads(x, *heads, (3, 2)),
        lambda: module.projected_heads(x, *heads, (4, 0)),
        lambda: module.projected_heads(x, *heads, (4, 2), turn, 11),
        lambda: module.projected_heads(x, *heads, (4, 2), turn, 1 << 30),
        lambda: module.projected_heads(x, *heads, (4, 2), (turn[0], mx.ones((1, 19))), 10),
    ):
        with pytest.raises(ValueError, match="should"):
            call()
