"""Quantising says what it leaves, and does not pretend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from axon_compose import load
from axon_compose.analysis.cost import BITS
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.folder import write_model
from axon_compose.cli import _arguments, main
from axon_compose.model import quantize
from tests.helpers import described


def model(hidden: int, inner: int = 64) -> Any:
    parts = {
        "attn": {"type": "attention", "num_heads": 2, "head_dim": 32},
        "mlp": {"type": "mlp", "intermediate_size": inner},
    }
    dims = {"hidden_size": hidden, "vocab_size": 320}
    return load(described(dims=dims, components=parts, blocks={"a": ["attn", "mlp"]}, stack="a"))


def test_nothing_to_quantise_is_an_error() -> None:
    parts = {"mlp": {"type": "mlp", "intermediate_size": 24}}
    odd = load(
        described(dims={"hidden_size": 48, "vocab_size": 320}, components=parts, blocks={"a": ["mlp"]}, stack="a")
    )
    with pytest.raises(CheckpointError, match=r"nothing is quantised: groups of 64 do not divide rows of 48") as caught:
        quantize(odd.build(), 4)
    assert caught.value.code == "AX561"


def test_quantising_twice_is_an_error() -> None:
    built = model(64).build()
    assert quantize(built, 4) == []
    with pytest.raises(CheckpointError, match="quantised already") as caught:
        quantize(built, 4)
    assert "multiples" not in str(caught.value.help)


def test_what_stays_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = model(64, inner=24).build()
    (note,) = quantize(built, 4)
    packed = sum(name.endswith(".scales") for name, _ in tree_flatten(built.parameters()))
    assert note.startswith(f"1 of {packed + 1} matrices are not quantised: groups of 64 do not divide rows of 24 (`")
    assert "mlp.down_proj" in note
    assert write_model(model(64, inner=24), tmp_path / "out", quantize_bits=4)["notes"] == [note]
    (tmp_path / "a.json").write_text(json.dumps(model(64, inner=24).data))
    assert main(["build", str(tmp_path / "a.json"), "--quantize", "4"]) == 0
    assert f"note: {note}" in capsys.readouterr().err


@pytest.mark.parametrize("bits", BITS)
def test_every_width_runs_and_comes_back(bits: int, tmp_path: Path) -> None:
    """A folder is what was quantised; numbers are what MLX unpacks."""
    architecture = model(64)
    built = architecture.build()
    quantize(built, bits)
    tokens = mx.array([[1, 2, 3]])
    write_model(architecture, tmp_path / "out", quantize_bits=bits)
    again = load(tmp_path / "out").build(weights=tmp_path / "out")
    assert np.array_equal(np.array(again(tokens)), np.array(built(tokens)))
    assert {module.bits for _, module in again.named_modules() if hasattr(module, "bits")} == {bits}


def test_the_command_line_takes_what_mlx_has() -> None:
    assert _arguments.BITS == BITS
    for bits in BITS:
        mx.eval(mx.quantize(mx.zeros((2, 64)), bits=bits, group_size=64))
