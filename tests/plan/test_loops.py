"""Layers passed several times: weights shared by a formula, and a norm that stands in a block by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import Architecture, ArchitectureError, load
from axon_compose.language.layout import to_text
from axon_compose.plan import total_parameters
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry

SIZES = {"hidden_size": 64, "vocab_size": 96, "n": 2}
COMPONENTS = {
    "attn": {"type": "attention", "num_heads": 4},
    "mlp": {"type": "mlp", "intermediate_size": 48},
    "between": {"type": "rms_norm", "eps": 1e-5},
}


def model(branches: list[Any], share: Any, layers: int = 6, **more: Any) -> Architecture:
    blocks = {"layer": {"branches": branches, "share": share}}
    stack = {"layers": layers, "block": "layer"}
    return load({"version": 1, "dims": SIZES, "components": COMPONENTS, "blocks": blocks, "stack": stack, **more})


def test_a_formula_says_which_layers_share() -> None:
    found = model(["attn", "mlp"], "=i % n").plan()
    assert [layer.owner for layer in found.layers] == [None, None, 0, 1, 0, 1]
    assert len(found.slots) == 6  # caches of their own
    once = model(["attn", "mlp"], None, layers=2).plan()
    assert total_parameters(found) == total_parameters(once)
    some = model(["attn", "mlp"], "='ends' if i in [0, 5] else null").plan()
    assert [layer.owner for layer in some.layers] == [None, None, None, None, None, 0]


def test_loops_are_the_layers_one_after_the_other() -> None:
    """The same numbers as six layers of which each third one has equal weights."""
    loop = model(["attn", "mlp"], "=i % 3").build()
    plain = model(["attn", "mlp"], None).build()
    for index in range(6):
        plain.layers[index].update(loop.layers[index % 3].parameters())
    for part in ("embedding", "norm"):
        getattr(plain, part).update(getattr(loop, part).parameters())
    tokens = mx.array([[5, 7, 1, 90, 3]])
    np.testing.assert_array_equal(np.array(loop(tokens)), np.array(plain(tokens)))


def test_the_file_without_formulas_names_the_weights(tmp_path: Path) -> None:
    found = model(["attn", "mlp"], "=i % n")
    path = tmp_path / "plain.yaml"
    path.write_text(to_text(unroll(found.document, found.plan(), Registry.installed())))
    assert [layer.owner for layer in load(path).plan().layers] == [None, None, 0, 1, 0, 1]


@pytest.mark.parametrize("share", ["=i / 4", "='Not a name'", "=i == 0", "=[i]", "=-1 * i"])
def test_what_is_no_name_is_refused(share: str) -> None:
    with pytest.raises(ArchitectureError, match="`share` must be a name, a number or null") as caught:
        model(["attn", "mlp"], share)
    assert caught.value.diagnostics[0].code == "AX102"


def test_a_norm_by_itself_replaces_what_it_reads() -> None:
    """At the end of the last layer it is the norm before the head."""
    inside = model(["attn", "=between if i else null"], None, layers=2, final_norm="none")
    outside = model(["attn"], None, layers=2, final_norm={"type": "rms_norm", "eps": 1e-5})
    assert [use.path for use in inside.plan().layers[1].uses()][-1] == "layers.1.between"
    one, other, tokens = inside.build(), outside.build(), mx.array([[5, 7, 1]])
    one.layers[1].between.weight = other.norm.weight = mx.arange(64, dtype=mx.float32) / 32
    for name in ("attn", "attn_norm"):
        for a, b in zip(one.layers, other.layers, strict=True):
            b[name].update(a[name].parameters())
    other.embedding.update(one.embedding.parameters())
    np.testing.assert_array_equal(np.array(one(tokens)), np.array(other(tokens)))


@pytest.mark.parametrize("branch", [{"use": "between", "scale": 0.5}, {"parallel": ["attn", "between"]}])
def test_a_norm_by_itself_stands_alone(branch: Any) -> None:
    with pytest.raises(ArchitectureError, match="`between` is a norm") as caught:
        model([branch, "attn"], None)
    assert caught.value.diagnostics[0].code == "AX147"
