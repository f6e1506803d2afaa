"""Recurrences that have a kernel, with arguments and references for each, and a device as the components see it."""

from __future__ import annotations

from functools import partial

import delta_reference
import mlx.core as mx
import numpy as np
import test_scan
import test_wkv7

from axon_core.gated_delta import gated_delta_rule
from axon_core.kernels import _device
from axon_core.scan import selective_scan
from axon_core.wkv7 import wkv7

RECURRENCES = {"scan": selective_scan, "delta": gated_delta_rule, "channels": gated_delta_rule, "wkv7": wkv7}
SEQUENCES = {
    "scan": ("x", "dt", "B", "C"),
    "delta": delta_reference.SEQUENCES,
    "channels": delta_reference.SEQUENCES,
    "wkv7": test_wkv7.SEQUENCES,
}


def draw(kind, **options):
    """Arguments for which there is a kernel."""
    if kind == "scan":
        return test_scan.draw(**{"states": 4} | options)
    drawn = {
        "delta": delta_reference.draw,
        "channels": partial(delta_reference.draw, channels=True),
        "wkv7": test_wkv7.draw,
    }
    return drawn[kind](**{"key_dim": 32, "value_dim": 3} | options)


def reference(kind, values):
    """Outputs and last state in float64."""
    if kind == "wkv7":
        return test_wkv7.reference(values)
    y, states = test_scan.reference(**values) if kind == "scan" else delta_reference.reference(values)
    return y, states[-1]


def arrays(values):
    return {name: mx.array(value) for name, value in values.items()}


def relative(found, expected):
    expected = np.asarray(expected, np.float64)
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


def install(monkeypatch, spoken, kernel):
    """Make a GPU the default device, as far as the components see."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx.metal, "is_available", lambda: spoken == "metal")
    monkeypatch.setattr(mx.cuda, "is_available", lambda: spoken == "cuda")
    monkeypatch.setattr(mx.fast, f"{spoken}_kernel", kernel)
    _device._built.cache_clear()
