"""Small things that many tests need."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from axon_compose import ArchitectureError, Diagnostic, load
from axon_compose.diagnostics import Problems
from axon_compose.language.document import Document, read_document
from axon_compose.language.source import to_source
from axon_compose.plan import Plan
from axon_compose.registry import ComponentSpec, Dims, Registry, shrunken

#: A complete description with two layers; tests lay their own sections over it.
BASE: dict[str, Any] = {
    "version": 1,
    "dims": {"hidden_size": 32, "vocab_size": 64},
    "components": {
        "attn": {"type": "attention", "num_heads": 2},
        "swa": {"type": "sliding_window_attention", "num_heads": 2, "window_size": 8},
        "ssm": {"type": "axon_ssm", "d_state": 4},
        "mlp": {"type": "mlp", "intermediate_size": 48},
    },
    "blocks": {"a": ["attn", "mlp"], "s": ["ssm"], "w": ["swa", "mlp"]},
    "stack": "a s w",
}


def described(**sections: Any) -> dict[str, Any]:
    """`BASE` with sections replaced; None takes one away."""
    data = copy.deepcopy(BASE) | sections
    return {key: value for key, value in data.items() if value is not None}


def planned(**sections: Any) -> Plan:
    """The plan of `BASE` with sections replaced."""
    return load(described(**sections)).plan()


def faults(data: dict[str, Any]) -> list[Diagnostic]:
    """The diagnostics of a faulty description."""
    try:
        load(data)
    except ArchitectureError as error:
        return list(error.diagnostics)
    raise AssertionError("the description holds no fault")


def codes(data: dict[str, Any]) -> list[str]:
    """The codes of the diagnostics of a faulty description."""
    return [fault.code for fault in faults(data)]


def document_of(data: dict[str, Any]) -> Document:
    """The second stage alone."""
    problems = Problems()
    document = read_document(to_source(data, "<dict>", problems), problems, find=Registry.installed().architecture_path)
    problems.raise_if_any()
    assert document is not None
    return document


def shrunk(spec: ComponentSpec, written: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a component made small by its own `shrink`, and found valid."""
    return shrunken(spec, written, Dims({"hidden_size": 64, "vocab_size": 97}))
