"""Attention written out in float64 NumPy: one loop per row, head and query, nothing shared with the code under test."""

import numpy as np


def softmax_attention(queries, keys, values, scale, window=None, first=0, sinks=None):
    """(H, L, d), (G, S, d), (G, S, v) to (H, L, v); query i is at key S - L + i, keys before `first` are hidden."""
    heads, length, _ = queries.shape
    groups, total, _ = keys.shape
    out = np.zeros((heads, length, values.shape[-1]))
    for h in range(heads):
        g = h // (heads // groups)
        for i in range(length):
            at = total - length + i
            low = max(first, 0 if window is None else at - window + 1)
            if low > at:
                continue
            scores = keys[g, low : at + 1] @ queries[h, i] * scale
            weights = np.exp(scores - scores.max())
            sink = 0.0 if sinks is None else np.exp(sinks[h] - scores.max())
            out[h, i] = weights @ values[g, low : at + 1] / (weights.sum() + sink)
    return out


def rotate(x, periods, positions, traditional=False, gain=1.0):
    """Turn the first `2 * len(periods)` dimensions of `x` (H, L, d) by `positions / periods`."""
    n = len(periods)
    angle = np.asarray(positions)[:, None] / np.asarray(periods, dtype=np.float64)
    cos, sin = gain * np.cos(angle), gain * np.sin(angle)
    first, second = (slice(0, 2 * n, 2), slice(1, 2 * n, 2)) if traditional else (slice(0, n), slice(n, 2 * n))
    out = x.astype(np.float64).copy()
    a, b = x[..., first].astype(np.float64), x[..., second].astype(np.float64)
    out[..., first], out[..., second] = a * cos - b * sin, b * cos + a * sin
    return out


def layer(module, x, periods=None, window=None, scale=None, norm_eps=None, traditional=False):
    """A whole attention layer on `x` (L, D) with the weights of `module`."""
    weights = {name: np.array(array, dtype=np.float64) for name, array in flat(module).items()}

    def project(name, z):
        return z @ weights[f"{name}_proj.weight"].T + weights.get(f"{name}_proj.bias", 0.0)

    def heads(name, count):
        z = project(name, x).reshape(len(x), count, -1).transpose(1, 0, 2)
        if norm_eps is not None and name != "v":
            z = z / np.sqrt((z**2).mean(-1, keepdims=True) + norm_eps) * weights[f"{name}_norm.weight"]
        return z if periods is None or name == "v" else rotate(z, periods, np.arange(len(x)), traditional)

    queries, keys, values = (
        heads("q", module.num_heads),
        heads("k", module.num_kv_heads),
        heads("v", module.num_kv_heads),
    )
    scale = scale or queries.shape[-1] ** -0.5
    out = softmax_attention(queries, keys, values, scale, window)
    return project("o", out.transpose(1, 0, 2).reshape(len(x), -1))


def flat(module):
    from mlx.utils import tree_flatten

    return dict(tree_flatten(module.parameters()))
