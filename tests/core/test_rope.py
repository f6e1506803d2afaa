"""Rotary positions: against float64 NumPy, against mlx-lm, and against the properties that define them."""

import math
import re

import attention_reference as reference
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.rope_utils import initialize_rope
from pydantic import ValidationError

from axon_core.rope import RoPE, rope_gain, rope_periods
from axon_core.specs.attention import RopeOptions

DIMS = 16
LLAMA3 = {"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512, "high_freq_factor": 3.0}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
LONGROPE = {
    "type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0 + i / 10 for i in range(DIMS // 2)],
    "long_factor": [2.0 + i for i in range(DIMS // 2)],
}
SCALINGS = {
    "none": None,
    "linear": {"type": "linear", "factor": 4.0},
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn-mscale": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7, "beta_fast": 16.0, "beta_slow": 2.0},
    "longrope": LONGROPE,
}


def options(**fields):
    return RopeOptions.model_validate(fields)


def inputs(length=20, width=DIMS, batch=1):
    return mx.random.normal((batch, 2, length, width), key=mx.random.key(3))


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize(("dims", "width"), [(16, 16), (8, 16), (2, 6)])
@pytest.mark.parametrize("offset", [0, 1000])
def test_rotation_equals_the_definition(traditional, dims, width, offset):
    x = inputs(width=width)
    got = RoPE(width, options(theta=500.0, dims=dims, traditional=traditional))(x, offset)
    periods = [500.0 ** (2 * i / dims) for i in range(dims // 2)]
    want = reference.rotate(np.array(x[0]), periods, offset + np.arange(20), traditional)
    # Angles of up to 1020 are rounded to float32: 1020 * 2^-24 = 6e-5.
    np.testing.assert_allclose(np.array(got[0]), want, atol=3e-6 if offset == 0 else 3e-4)


@pytest.mark.parametrize(
    ("scaling", "theta"),
    # With theta 50 even the slowest pair of `yarn` turns more than `beta_slow` times: the ramp ends beyond it.
    [*((name, 10000.0) for name in SCALINGS), ("yarn", 50.0)],
)
def test_equals_mlx_lm(scaling, theta):
    config = SCALINGS[scaling]
    x = inputs()
    theirs = initialize_rope(DIMS, theta, False, config and {**config}, max_position_embeddings=256)
    ours = RoPE(DIMS, options(theta=theta, scaling=config))
    # Both round periods to float32, at angles of up to 60.
    np.testing.assert_allclose(np.array(ours(x, 40)), np.array(theirs(x, 40)), atol=2e-5)


def test_dynamic_is_what_one_pass_of_the_full_length_gets():
    config = {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 32}
    x = inputs(length=100)
    theirs = initialize_rope(DIMS, 10000.0, False, config, max_position_embeddings=32)
    ours = RoPE(DIMS, options(scaling={**config, "max_position_embeddings": 100}))
    np.testing.assert_allclose(np.array(ours(x)), np.array(theirs(x)), atol=5e-5)
    assert rope_periods(options(scaling={**config, "max_position_embeddings": 32}), DIMS) == rope_periods(
        options(), DIMS
    )
    assert rope_periods(options(scaling=config), DIMS)[-1] > 1.9 * rope_periods(options(), DIMS)[-1]


def test_llama3_keeps_fast_pairs_and_stretches_slow_ones():
    plain, scaled = rope_periods(options(), DIMS), rope_periods(options(scaling=LLAMA3), DIMS)
    ratio = np.array(scaled) / np.array(plain)
    wavelength = 2 * math.pi * np.array(plain)
    np.testing.assert_allclose(ratio[wavelength < 512 / 3], 1.0)
    np.testing.assert_allclose(ratio[wavelength > 512], 8.0)
    between = ratio[(wavelength > 512 / 3) & (wavelength < 512)]
    assert len(between)
    assert ((between > 1) & (between < 8)).all()


def test_yarn_ramp_without_rounding():
    """The pair that turns `beta_fast` times is kept, the one that turns `beta_slow` times is stretched by `factor`."""
    dims, theta, original = 64, 10000.0, 4096
    scaling = {**YARN, "original_max_position_embeddings": original, "truncate": False}
    ratio = np.array(rope_periods(options(scaling=scaling), dims)) / np.array(rope_periods(options(), dims))
    pair = {t: dims * math.log(original / (2 * math.pi * t)) / (2 * math.log(theta)) for t in (32, 1)}
    stretched = np.clip((np.arange(32) - pair[32]) / (pair[1] - pair[32]), 0, 1)
    np.testing.assert_allclose(1 / ratio, 1 - stretched + stretched / 4.0, rtol=1e-12)


def test_gains():
    assert rope_gain(options()) == 1.0
    assert rope_gain(options(scaling=SCALINGS["linear"])) == 1.0
    assert rope_gain(options(scaling=YARN)) == pytest.approx(0.1 * math.log(4) + 1)
    assert rope_gain(options(scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 0.7})) == 1.0
    assert rope_gain(options(scaling=LONGROPE)) == pytest.approx(math.sqrt(1 + math.log(4) / math.log(64)))
    assert rope_gain(options(scaling={**LONGROPE, "attention_factor": 1.5})) == 1.5
    laid_out = {**LONGROPE, "factor": None, "max_position_embeddings": 640}
    assert rope_gain(options(scaling=laid_out)) == pytest.approx(math.sqrt(1 + math.log(10) / math.log(64)))
    assert rope_gain(options(scaling={**laid_out, "max_position_embeddings": 32})) == 1.0


def test_longrope_takes_the_factors_of_the_length_that_it_is_laid_out_for():
    plain = np.array(rope_periods(options(), DIMS))
    long = rope_periods(options(scaling=LONGROPE), DIMS)
    short = rope_periods(options(scaling={**LONGROPE, "max_position_embeddings": 64}), DIMS)
    np.testing.assert_allclose(long / plain, LONGROPE["long_factor"])
    np.testing.assert_allclose(short / plain, LONGROPE["short_factor"])


def test_gain_touches_rotated_dimensions_alone():
    x = inputs(width=24)
    rope = RoPE(24, options(dims=16, scaling=YARN))
    got = np.array(rope(x, 5))[0]
    want = reference.rotate(
        np.array(x[0]), rope_periods(rope_options := options(dims=16, scaling=YARN), 16), 5 + np.arange(20),
        gain=rope_gain(rope_options),
    )  # fmt: skip
    np.testing.assert_allclose(got, want, atol=5e-6)
    np.testing.assert_array_equal(got[..., 16:], np.array(x[0])[..., 16:])


@pytest.mark.parametrize("length", [1, 5])
def test_each_row_has_its_own_offset(length):
    x = inputs(length=length, batch=3)
    rope = RoPE(DIMS, options())
    rows = rope(x, mx.array([0, 7, -2]))
    for i, offset in enumerate([0, 7, -2]):
        np.testing.assert_allclose(np.array(rows[i]), np.array(rope(x[i : i + 1], offset)[0]), atol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scores_depend_on_distance_alone(scaling):
    q, k = inputs(length=1), mx.random.normal((1, 2, 1, DIMS), key=mx.random.key(4))
    rope = RoPE(DIMS, options(scaling=SCALINGS[scaling]))
    near, far = ((rope(q, at + 3) * rope(k, at)).sum(-1) for at in (0, 50))
    np.testing.assert_allclose(np.array(near), np.array(far), atol=5e-5)
    assert np.abs(np.array(near - (rope(q, 9) * rope(k, 0)).sum(-1))).max() > 1e-2


def test_keeps_the_dtype_and_has_no_parameters():
    rope = RoPE(DIMS, options(scaling=YARN))
    assert rope(inputs().astype(mx.bfloat16)).dtype == mx.bfloat16
    assert rope.parameters() == {}


@pytest.mark.parametrize(
    ("fields", "width", "fault"),
    [
        ({"dims": 32}, 16, "`rope.dims` (32) is more than `head_dim` (16)"),
        ({"fraction": 0.2}, 16, "rope needs an even number of dimensions to rotate, not 3 of `head_dim` 16"),
        ({}, 15, "not 15"),
        ({"scaling": LONGROPE}, 32, "`short_factor` has 8 entries; 32 rotated dimensions need 16"),
    ],
)
def test_widths_that_cannot_be(fields, width, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        options(**fields).rotated(width)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"dims": 8, "fraction": 0.5}, "give `dims` or `fraction`, not both"),
        ({"scaling": {"type": "linear"}}, "`linear` scaling needs `factor`"),
        (
            {"scaling": {**LONGROPE, "factor": None}},
            "`longrope` scaling needs `factor` or `max_position_embeddings`",
        ),
        ({"scaling": {"type": "yarn", "factor": 2.0}}, "`yarn` scaling needs `original_max_position_embeddings`"),
        (
            {"scaling": {"type": "linear", "factor": 2.0, "beta_fast": 3.0}},
            "`beta_fast` does not apply to `linear` scaling",
        ),
        ({"scaling": {**LLAMA3, "low_freq_factor": 5.0}}, "`high_freq_factor` (3) must be above `low_freq_factor` (5)"),
        (
            {"scaling": {"type": "ntk", "factor": 2.0}},
            "'linear', 'dynamic', 'llama3', 'yarn', 'longrope' or 'proportional'",
        ),
    ],
)
def test_options_that_do_not_fit(fields, fault):
    with pytest.raises(ValidationError) as raised:
        options(**fields)
    assert fault in str(raised.value)


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize(("fraction", "factor"), [(0.25, 1.0), (0.5, 4.0), (1.0, 2.0), (0.35, 2.0)])
def test_proportional_turns_the_fastest_pairs_of_the_whole_head(fraction, factor, traditional):
    """Of whole pairs, rounded down, as in transformers; a third of a pair more is a whole one to mlx-lm."""
    scaling = {"type": "proportional"} | ({"factor": factor} if factor != 1 else {})
    x = inputs()
    rope = RoPE(DIMS, options(theta=500.0, fraction=fraction, scaling=scaling, traditional=traditional))
    turning = int(DIMS * fraction // 2)
    periods = [factor * 500.0 ** (2 * i / DIMS) if i < turning else np.inf for i in range(DIMS // 2)]
    want = reference.rotate(np.array(x[0]), periods, 7 + np.arange(20), traditional)
    np.testing.assert_allclose(np.array(rope(x, 7)[0]), want, atol=1e-5)
    if fraction == 0.35:
        return
    other = initialize_rope(
        DIMS, 500.0, traditional, {"rope_type": "proportional", "factor": factor, "partial_rotary_factor": fraction}
    )
    np.testing.assert_allclose(np.array(rope(x, 7)), np.array(other(x, 7)), atol=1e-6)


@pytest.mark.parametrize("scaling", [None, {"type": "proportional", "factor": 2.0}])
def test_frequencies_that_have_learned_nothing_are_the_plain_ones(scaling):
    """Of a part of a head too, whose other pairs stand still."""
    chosen = RopeOptions.model_validate({"dims": 6, "theta": 50.0, "scaling": scaling})
    rope, x = RoPE(16, chosen), mx.random.normal((2, 3, 5, 16), key=mx.random.key(0))
    plain = rope(x, 7)
    np.testing.assert_allclose(np.array(rope(x, 7, rope.learned(mx.zeros((3,)), 7, 5))), np.array(plain), atol=1e-5)
    other = rope(x, 7, rope.learned(mx.array([0.0, 0.5, 0.0]), 7, 5))
    moved = np.abs(np.array(other - plain)).max(axis=(0, 1, 2)) > 1e-3
    assert moved.sum() == 2
