"""The two sides of each item of `bench_layers.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
from bench_layers import WIDTH, WINDOW
from mlx_lm.models import jamba, mamba
from mlx_lm.models.bailing_moe_linear import recurrent_gla
from mlx_lm.models.cache import ArraysCache
from mlx_lm.models.gated_delta import gated_delta_ops
from mlx_lm.models.recurrent_gemma import rnn_scan
from mlx_lm.models.rwkv7 import _wkv7_step_ops
from mlx_lm.models.ssm import ssm_attn
from mlx_lm.models.switch_layers import SwitchGLU

from axon_compose.machine.blas import is_reference_blas, use_fast_blas
from axon_compose.model._arrange import arrange
from axon_compose.model._freed import keep_freed
from axon_compose.proof.bench import Workload
from axon_core.experts import ExpertGLU
from axon_core.gated_delta import gated_delta_rule
from axon_core.linear_scan import linear_scan
from axon_core.mamba import Mamba
from axon_core.scan import selective_scan
from axon_core.scores import attend
from axon_core.ssd import ssd_scan
from axon_core.ssm import AxonSSM, SSMConfig
from axon_core.window import banded_attention
from axon_core.wkv7 import wkv7

Side = Callable[..., Any]
Sides = tuple[Callable[[int], list[mx.array]], Side, Side]


class Layer:
    """A module, and how it is called."""

    def __init__(self, module: nn.Module, run: Side) -> None:
        self.module, self.run = module, run
        mx.eval(module.parameters())

    def __call__(self, *inputs: mx.array) -> Any:
        return self.run(self.module, *inputs)

    def with_weights(self, weights: dict[str, Any]) -> Layer:
        """Itself, with other weights from now on."""
        self.module.update(weights)
        return self

    def ready(self, *, column_major: bool, training: bool) -> None:
        """As a model of ours does for its parts; it changes nothing for mlx-lm's layers."""
        self.module.train(training)
        arrange(self.module, column_major=mx.default_device() == mx.cpu and column_major)
        mx.eval(self.module.parameters())


class Runner:
    """A function of arrays as a `Run`; a prompt is one call, a training step its gradient by everything."""

    def __init__(self, inputs: Callable[[int], list[mx.array]], side: Side, *, ours: bool) -> None:
        self.make_inputs, self.side, self.ours = inputs, side, ours
        self.device = str(mx.default_device().type).removeprefix("DeviceType.")
        self.inputs: list[mx.array] = []
        self.gradient: Any = None

    def begin(self, workload: Workload) -> None:
        mx.random.seed(0)
        self.inputs = self.make_inputs(workload.prompt)
        mx.eval(self.inputs)
        if self.ours:  # as a model of ours does
            use_fast_blas()
            keep_freed()
        if isinstance(self.side, Layer):
            column_major = self.ours and not workload.training and is_reference_blas()
            self.side.ready(column_major=column_major, training=workload.training)

        def loss(everything: list[Any]) -> mx.array:
            *inputs, weights = everything
            y = self.side.with_weights(weights)(*inputs) if isinstance(self.side, Layer) else self.side(*inputs)
            return mx.square(y if isinstance(y, mx.array) else y[0]).sum()

        self.gradient = mx.compile(mx.grad(loss))

    def prefill(self) -> None:
        mx.eval(self.side(*self.inputs))

    def decode(self, steps: int) -> None:
        """Nothing is decoded."""

    def train(self) -> None:
        weights = self.side.module.parameters() if isinstance(self.side, Layer) else {}
        mx.eval(self.gradient([*self.inputs, weights]))
        if isinstance(self.side, Layer):
            self.side.with_weights(weights)  # not those that the compiler has left there

    def reset_peak(self) -> None:
        mx.clear_cache()
        mx.reset_peak_memory()

    def peak_bytes(self) -> int:
        found: int = mx.get_peak_memory()
        return found


def _normal(*shapes: tuple[int, ...]) -> list[mx.array]:
    return [mx.random.normal(shape) for shape in shapes]


def _mamba() -> Sides:
    ours = AxonSSM(SSMConfig(WIDTH, 2 * WIDTH, 16, 4, 24))
    args = mamba.ModelArgs("mamba", 1, WIDTH, 2 * WIDTH, 16, 1, 4, False, True, 24)
    return _recurrent(ours, mamba.MambaBlock(args))


def _jamba() -> Sides:
    ours = Mamba(SSMConfig(WIDTH, 2 * WIDTH, 16, 4, 24), "learned")
    args = SimpleNamespace(
        hidden_size=WIDTH,
        mamba_d_state=16,
        mamba_d_conv=4,
        mamba_expand=2,
        mamba_dt_rank=24,
        mamba_conv_bias=True,
        mamba_proj_bias=False,
        rms_norm_eps=1e-6,
    )
    return _recurrent(ours, jamba.JambaMambaMixer(args))


def _recurrent(ours: nn.Module, theirs: nn.Module) -> Sides:
    def inputs(n: int) -> list[mx.array]:
        return _normal((1, n, WIDTH))

    return inputs, Layer(ours, lambda layer, x: layer(x)[0]), Layer(theirs, lambda layer, x: layer(x, ArraysCache(2)))


def _scan(channels: int, states: int) -> Sides:
    A = -mx.broadcast_to(mx.arange(1.0, states + 1), (channels, states)) + 0.0

    def inputs(n: int) -> list[mx.array]:
        x, B, C = _normal((1, n, channels), (1, n, states), (1, n, states))
        return [x, mx.random.uniform(0.001, 0.1, x.shape), B, C]

    def ours(x: mx.array, dt: mx.array, B: mx.array, C: mx.array) -> Any:
        return selective_scan(x, dt, A, B, C)

    def theirs(x: mx.array, dt: mx.array, B: mx.array, C: mx.array) -> Any:
        state, rows = None, []
        for t in range(x.shape[1]):  # as in MambaBlock.ssm_step
            new = mx.expand_dims(dt[:, t] * x[:, t], -1) * mx.expand_dims(B[:, t], 1)
            if state is not None:
                new = new + state * mx.exp(mx.expand_dims(dt[:, t], -1) * A)
            rows.append((new @ mx.expand_dims(C[:, t], -1)).squeeze(2))
            state = new
        return mx.stack(rows, axis=1), state

    return inputs, ours, theirs


def _ssd() -> Sides:
    heads, width, states = 12, 64, 64
    A_log, D, bias = mx.log(mx.arange(1.0, heads + 1)), mx.ones((heads,)), mx.zeros((heads,))

    def inputs(n: int) -> list[mx.array]:
        return _normal((1, n, heads, width), (1, n, 1, states), (1, n, 1, states), (1, n, heads))

    def ours(x: mx.array, B: mx.array, C: mx.array, dt: mx.array) -> Any:
        return ssd_scan(x, mx.clip(nn.softplus(dt + bias), 0.001, 100.0), -mx.exp(A_log), B, C, D)

    def theirs(x: mx.array, B: mx.array, C: mx.array, dt: mx.array) -> Any:
        return ssm_attn(x, A_log, B, C, D, dt, bias)

    return inputs, ours, theirs


def _unit(x: mx.array) -> mx.array:
    return x / mx.linalg.norm(x, axis=-1, keepdims=True)


def _delta(by_channel: bool) -> Sides:
    heads, width = 6, 64

    def inputs(n: int) -> list[mx.array]:
        q, k, v, beta = _normal(*[(1, n, heads, width)] * 3, (1, n, heads))
        gates = (1, n, heads, width) if by_channel else (1, n, heads)
        return [_unit(q), _unit(k), v, -mx.random.uniform(0.01, 1.0, gates), mx.sigmoid(beta)]

    def theirs(q: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array) -> Any:
        return gated_delta_ops(q, k, v, mx.exp(log_g), beta)

    return inputs, gated_delta_rule, theirs


def _rwkv7() -> Sides:
    heads, width = 6, 64

    def inputs(n: int) -> list[mx.array]:
        r, k, v, kappa, rate = _normal(*[(1, n, heads, width)] * 5)
        kappa = _unit(kappa)
        return [r, -mx.random.uniform(0.01, 0.6, r.shape), k, v, -kappa, kappa * mx.sigmoid(rate)]

    def theirs(r: mx.array, w: mx.array, k: mx.array, v: mx.array, a: mx.array, b: mx.array) -> Any:
        w = mx.exp(w)
        state, rows = mx.zeros((1, heads, width, width)), []
        for t in range(r.shape[1]):
            y, state = _wkv7_step_ops(r[:, t], w[:, t], k[:, t], v[:, t], a[:, t], b[:, t], state)
            rows.append(y.squeeze(-1))
        return mx.stack(rows, axis=1), state

    return inputs, wkv7, theirs


def _lightning() -> Sides:
    heads, width = 6, 64
    log_decay = -mx.power(2.0, -mx.arange(1.0, heads + 1))

    def inputs(n: int) -> list[mx.array]:
        return _normal(*[(1, n, heads, width)] * 3)

    def ours(q: mx.array, k: mx.array, v: mx.array) -> Any:
        return ssd_scan(v, mx.ones(q.shape[:3]), log_decay, k, width**-0.5 * q)

    def theirs(q: mx.array, k: mx.array, v: mx.array) -> Any:
        y, state = recurrent_gla(*(x.swapaxes(1, 2) for x in (q, k, v)), log_decay, width**-0.5)
        return y.swapaxes(1, 2), state

    return inputs, ours, theirs


def _rg_lru(channels: int) -> Sides:
    def inputs(n: int) -> list[mx.array]:
        x = mx.random.normal((1, n, channels))
        return [x, -mx.random.uniform(0.01, 1.0, x.shape)]

    def theirs(x: mx.array, log_a: mx.array) -> Any:
        return rnn_scan(x, mx.exp(log_a), None)

    return inputs, linear_scan, theirs


def _attention(window: int | None) -> Sides:
    heads, width = 8, 64
    scale = width**-0.5

    def ours(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return banded_attention(q, k, v, partial(attend, scale=scale), window)

    def theirs(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        mask: Any = "causal"
        if window is not None:
            query, key = mx.arange(q.shape[2])[:, None], mx.arange(q.shape[2])
            mask = (key <= query) & (key > query - window)
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)

    return lambda n: _normal(*[(1, heads, n, width)] * 3), ours, theirs


def _experts(dtype: mx.Dtype = mx.float32) -> Sides:
    width, hidden, experts = 512, 1024, 8
    ours, theirs = ExpertGLU(width, hidden, experts), SwitchGLU(width, hidden, experts)
    for layer in (ours, theirs):
        layer.set_dtype(dtype)

    def inputs(n: int) -> list[mx.array]:
        return [mx.random.normal((1, n, width)).astype(dtype)]

    def chosen(x: mx.array) -> mx.array:
        return mx.argpartition(-mx.stop_gradient(x[..., :experts]), 1, axis=-1)[..., :2]

    def run(layer: nn.Module, x: mx.array) -> mx.array:
        return layer(x, chosen(x))

    return inputs, Layer(ours, run), Layer(theirs, run)


SIDES: Final[dict[str, Callable[[], Sides]]] = {
    "axon_ssm layer": _mamba,
    "mamba layer with norms": _jamba,
    "selective scan, 1536 x 16": partial(_scan, 1536, 16),
    "selective scan, 512 x 4": partial(_scan, 512, 4),
    "selective scan, 512 x 16": partial(_scan, 512, 16),
    "Mamba-2 scan, 12 x 64 x 64": _ssd,
    "gated delta rule, 6 x 64": partial(_delta, False),
    "Kimi delta rule, 6 x 64": partial(_delta, True),
    "RWKV-7, 6 x 64": _rwkv7,
    "lightning attention, 6 x 64": _lightning,
    "RG-LRU, 512": partial(_rg_lru, 512),
    f"window attention, {WINDOW} tokens": partial(_attention, WINDOW),
    "causal attention": partial(_attention, None),
    "experts, 2 of 8 of 1024": _experts,
    "experts in bfloat16": partial(_experts, mx.bfloat16),
}


def make(arguments: Mapping[str, Any]) -> Runner:
    """What `bench_layers.measured` runs, in a process that may import mlx."""
    inputs, ours, theirs = SIDES[arguments["item"]]()
    is_ours = arguments["side"] == "ours"
    return Runner(inputs, ours if is_ours else theirs, ours=is_ours)
