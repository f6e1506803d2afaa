"""RWKV-7 in float64, token by token, as its paper writes it (Peng et al. 2025, arXiv 2503.14456, section 4).

With x_t the normed input of a layer and x_{t-1} the one before it (0 before the first token), each of the six inputs of
time mixing is a mixture of both,

    x^i_t = x_t + (x_{t-1} - x_t) * mu_i                                i in r, w, k, v, a, g

and with sigma the logistic function, lora_i(x) = B_i f(A_i x) + b_i,

    r_t = W_r x^r_t          k'_t = W_k x^k_t          v'_t = W_v x^v_t
    w_t = exp(-e^{-1/2} sigma(lora_w(x^w_t)))          f = tanh         the decay, in (0.545, 1)
    a_t = sigma(lora_a(x^a_t))                         f = identity     the learning rate in the context
    g_t = B_g sigma(A_g x^g_t)                                          the gate of the output
    v_t = v'_t + (v^0_t - v'_t) * sigma(lora_v(x^v_t))                  v^0: the v' of layer 0, which has no lora_v

The key that is removed and the key that is written, and in each head a state S (values x keys) with a generalised delta
rule:

    kappa_t = k'_t * k_k, of length 1 in each head      k_t = k'_t * (1 + (a_t - 1) * k_a)
    S_t = S_{t-1} (diag(w_t) - kappa_t (a_t * kappa_t)^T) + v_t k_t^T
    o_t = S_t r_t

    y_t = W_o ((norm(o_t) + (sum_d r_t k_t r_k) v_t) * g_t)

where the norm is a group norm with the heads as groups and eps = head_dim * norm_eps (the constant of
flash-linear-attention, whose names the checkpoint has). Channel mixing is V relu(K (x_t + (x_{t-1} - x_t) mu))^2.
Layers are x + time(norm(x)), then x + channel(norm(x)); layer 0 has a norm before it, and a norm follows the last. All
norms are layer norms with a bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + np.exp(-x))


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Layer norm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


class Weights:
    """The weights under a prefix, in float64."""

    def __init__(self, tensors: dict[str, np.ndarray], prefix: str = "") -> None:
        self.tensors, self.prefix = tensors, prefix

    def __call__(self, name: str) -> np.ndarray:
        return self.tensors[self.prefix + name].astype(np.float64).squeeze()

    def below(self, name: str) -> Weights:
        """The weights of a part."""
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def norm(self, name: str, x: np.ndarray, eps: float) -> np.ndarray:
        """The layer norm of that name."""
        return layer_norm(x, self(f"{name}.weight"), self(f"{name}.bias"), eps)

    def lora(self, name: str, x: np.ndarray, inner: Any = lambda hidden: hidden) -> np.ndarray:
        """B f(A x) + b, the bias where there is one."""
        y = inner(x @ self(f"{name}.lora.0.weight").T) @ self(f"{name}.lora.2.weight").T
        bias = f"{name}.lora.2.bias"
        return y + self(bias) if self.prefix + bias in self.tensors else y


class Layer:
    """One layer with its state, for one sequence."""

    def __init__(self, weights: Weights, config: dict[str, Any], index: int, group_eps: float) -> None:
        self.weights, self.index, self.eps, self.group_eps = weights, index, config["norm_eps"], group_eps
        self.head_dim = config["head_dim"]
        heads = config["hidden_size"] // self.head_dim
        self.state = np.zeros((heads, self.head_dim, self.head_dim))
        self.before = {"attn": np.zeros(config["hidden_size"]), "ffn": np.zeros(config["hidden_size"])}

    def __call__(self, x: np.ndarray, v_first: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """x: (D,); the value of layer 0 goes along."""
        if self.index == 0:
            x = self.weights.norm("pre_norm", x, self.eps)
        mixed, v_first = self.time_mixing(self.weights.norm("attn_norm", x, self.eps), v_first)
        x = x + mixed
        return x + self.channel_mixing(self.weights.norm("ffn_norm", x, self.eps)), v_first

    def shifted(self, part: str, x: np.ndarray) -> np.ndarray:
        """x_{t-1} - x_t, and x_t is kept for the next token."""
        difference, self.before[part] = self.before[part] - x, x
        return difference

    def time_mixing(self, x: np.ndarray, v_first: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The recurrence of one token."""
        w_ = self.weights.below("attn")
        difference = self.shifted("attn", x)
        xr, xw, xk, xv, xa, xg = (x + difference * w_(f"x_{name}") for name in "rwkvag")
        r, k, v = w_("r_proj.weight") @ xr, w_("k_proj.weight") @ xk, w_("v_proj.weight") @ xv
        decay = np.exp(-np.exp(-0.5) * sigmoid(w_.lora("w_lora", xw, np.tanh)))
        rate = sigmoid(w_.lora("a_lora", xa))
        gate = w_.lora("g_lora", xg, sigmoid)
        if v_first is None:
            v_first = v
        else:
            v = v + (v_first - v) * sigmoid(w_.lora("v_lora", xv))
        kappa = (k * w_("k_k")).reshape(-1, self.head_dim)
        kappa = kappa / np.linalg.norm(kappa, axis=-1, keepdims=True)
        k = k * (1.0 + (rate - 1.0) * w_("k_a"))
        r, k, v, decay, rate = (each.reshape(-1, self.head_dim) for each in (r, k, v, decay, rate))
        out = np.empty_like(v)
        for head in range(len(out)):
            transition = np.diag(decay[head]) - np.outer(kappa[head], rate[head] * kappa[head])
            self.state[head] = self.state[head] @ transition + np.outer(v[head], k[head])
            out[head] = self.state[head] @ r[head]
        heads = out.shape
        out = layer_norm(out, w_("g_norm.weight").reshape(heads), w_("g_norm.bias").reshape(heads), self.group_eps)
        out = out + (r * k * w_("r_k").reshape(heads)).sum(axis=-1, keepdims=True) * v
        return w_("o_proj.weight") @ (out.reshape(-1) * gate), v_first

    def channel_mixing(self, x: np.ndarray) -> np.ndarray:
        """The MLP of one token."""
        w_ = self.weights.below("ffn")
        x = x + self.shifted("ffn", x) * w_("x_k")
        return w_("value.weight") @ np.maximum(w_("key.weight") @ x, 0.0) ** 2


def rwkv7_logits(
    tensors: dict[str, np.ndarray], config: dict[str, Any], tokens: np.ndarray, group_eps: float | None = None
) -> np.ndarray:
    """Logits (B, L, V) of tokens (B, L); `group_eps` is another eps for the norm of the heads."""
    weights = Weights(tensors)
    group_eps = config["head_dim"] * config["norm_eps"] if group_eps is None else group_eps
    embeddings, head = weights("model.embeddings.weight"), weights("lm_head.weight")
    logits = np.empty((*tokens.shape, config["vocab_size"]))
    for row, sequence in enumerate(tokens):
        layers = [
            Layer(weights.below(f"model.layers.{index}"), config, index, group_eps)
            for index in range(config["num_hidden_layers"])
        ]
        for position, token in enumerate(sequence):
            x, v_first = embeddings[token], None
            for layer in layers:
                x, v_first = layer(x, v_first)
            logits[row, position] = head @ weights.norm("model.norm", x, config["norm_eps"])
    return logits
