"""The delta rules in float64, forward and backward, with decays of heads or of channels."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from axon_core.gated_delta import gated_delta_rule

NAMES = ("q", "k", "v", "log_g", "beta", "state")
SEQUENCES = NAMES[:5]


def draw(batch=2, length=40, key_heads=2, heads=4, key_dim=8, value_dim=6, low=-4.0, high=1.0, seed=0, channels=False):
    """Inputs whose decays are exp(-exp(u)), u from `low` to `high`; one for each head, or for each channel of a key."""
    rng = np.random.default_rng(seed)
    k = rng.normal(size=(batch, length, key_heads, key_dim))
    values = {
        "q": rng.normal(size=k.shape) / key_dim**0.5,
        "k": k / np.linalg.norm(k, axis=-1, keepdims=True),
        "v": rng.normal(size=(batch, length, heads, value_dim)),
        "log_g": -np.exp(rng.uniform(low, high, (batch, length, heads, *[key_dim] * channels))),
        "beta": rng.uniform(size=(batch, length, heads)),
        "state": rng.normal(size=(batch, heads, value_dim, key_dim)),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def widened(values):
    """In float64, with the keys, queries and decays (B, L, H, Dk or 1) of every value head."""
    values = {name: np.asarray(value, np.float64) for name, value in values.items()}
    if values["log_g"].ndim == 3:
        values["log_g"] = values["log_g"][..., None]
    repeats = values["v"].shape[2] // values["k"].shape[2]
    return values | {name: np.repeat(values[name], repeats, axis=2) for name in ("q", "k")}


def reference(values):
    """One token after the other in float64: outputs, and the state before the first token and after every token."""
    q, k, v, log_g, beta, state = (widened(values)[name] for name in NAMES)
    y, states = np.zeros_like(v), [state]
    identity = np.eye(k.shape[-1])
    for t in range(v.shape[1]):
        kt, write = k[:, t, :, None, :], beta[:, t, :, None, None]
        # The formula of the paper, unchanged.
        state = np.exp(log_g[:, t])[..., None, :] * state @ (identity - write * kt.swapaxes(-1, -2) * kt)
        state = state + write * v[:, t, ..., None] * kt
        states.append(state)
        y[:, t] = (state @ q[:, t, ..., None])[..., 0]
    return y, states


def reference_gradient(values, gy, gs):
    """Gradients of `sum(gy * y) + sum(gs * last state)`, by the recurrence run backwards in float64."""
    q, k, v, log_g, beta, _ = (widened(values)[name] for name in NAMES)
    _, states = reference(values)
    g = {name: np.zeros(value.shape) for name, value in widened(values).items()}
    carry = np.array(gs, np.float64)
    for t in reversed(range(v.shape[1])):
        decay = np.exp(log_g[:, t])[..., None, :]
        decayed, kt, write = decay * states[t], k[:, t, ..., None], beta[:, t, :, None, None]
        g["q"][:, t] = (states[t + 1].swapaxes(-1, -2) @ gy[:, t, ..., None])[..., 0]
        carry = carry + gy[:, t, ..., None] * q[:, t, :, None, :]
        # state = decayed + write * error k^T with error = v - decayed k
        error, along = v[:, t, ..., None] - decayed @ kt, carry @ kt
        g["beta"][:, t] = (error * along).sum((-1, -2))
        g["v"][:, t] = (write * along)[..., 0]
        g["k"][:, t] = (write * (carry.swapaxes(-1, -2) @ error - decayed.swapaxes(-1, -2) @ along))[..., 0]
        d_decayed = carry - write * along @ kt.swapaxes(-1, -2)
        through = (d_decayed * decayed).sum(-2)
        g["log_g"][:, t] = through if log_g.shape[-1] > 1 else through.sum(-1, keepdims=True)
        carry = decay * d_decayed
    g["state"], g["log_g"] = carry, g["log_g"].reshape(values["log_g"].shape)
    batch, length, key_heads, key_dim = values["k"].shape
    return g | {name: g[name].reshape(batch, length, key_heads, -1, key_dim).sum(3) for name in ("q", "k")}


def arrays(values):
    return [mx.array(values[name]) for name in NAMES]


def run(values, **options):
    y, state = gated_delta_rule(*arrays(values), **options)
    return np.array(y), np.array(state)


def relative(found, expected):
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


def close(values, limit=1e-6, **options):
    y, states = reference(values)
    found, state = run(values, **options)
    assert found.shape == values["v"].shape
    assert relative(found, y) < limit
    assert relative(state, states[-1]) < limit
