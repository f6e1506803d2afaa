"""How a stack becomes layers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers import codes, described, faults, planned


def blocks_of(**sections: Any) -> list[str]:
    return [layer.block for layer in planned(**sections).layers]


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ("a", "a"),
        ("a*2 s", "a a s"),
        ("(s*2 w)*2 a", "s s w s s w a"),
        (["a*2", "s"], "a a s"),
        ([{"block": "a", "repeat": 2}, "s"], "a a s"),
        ([{"block": "a", "repeat": "=depth"}], "a a a"),
        ([{"block": "=a if depth > 2 else s"}], "a"),
        ("='a*2 ' + 's'", "a a s"),
        ("=['a', 's', 's']", "a s s"),
        ({"layers": "=depth", "block": "=a if i % 2 else s"}, "s a s"),
        ({"layers": 4, "block": "={'A': a, 'S': s}[pattern[i]]"}, "a s s a"),
        ({"layers": 2, "block": ["attn", "mlp"]}, "= ="),
        ([{"block": ["ssm"], "repeat": 2}, "a"], "= = a"),
    ],
)
def test_forms(stack: Any, expected: str) -> None:
    dims = {"hidden_size": 32, "vocab_size": 64, "depth": 3, "pattern": "ASSA"}
    assert blocks_of(stack=stack, dims=dims) == expected.split()


def test_two_independent_axes() -> None:
    """Full attention every third layer, experts after the first two: the patterns do not multiply."""
    plan = planned(
        dims={"hidden_size": 32, "vocab_size": 64, "interval": 3, "first_k": 2},
        components={
            "full": {"type": "attention", "num_heads": 2},
            "local": {"type": "sliding_window_attention", "num_heads": 2, "window_size": 4},
            "mlp": {"type": "mlp", "intermediate_size": 16},
            "moe": {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 16},
        },
        blocks=None,
        stack={
            "layers": 6,
            "block": ["=full if (i + 1) % interval == 0 else local", "=mlp if i < first_k else moe"],
        },
    )
    names = [[b.members[0].use.name for b in layer.branches] for layer in plan.layers]
    assert names == [
        ["local", "mlp"],
        ["local", "mlp"],
        ["full", "moe"],
        ["local", "moe"],
        ["local", "moe"],
        ["full", "moe"],
    ]


def test_a_formula_can_leave_a_branch_out() -> None:
    plan = planned(stack={"layers": 3, "block": ["attn", "=mlp if i else null"]})
    assert [len(layer.branches) for layer in plan.layers] == [1, 2, 2]


def test_options_may_differ_by_layer() -> None:
    plan = planned(
        dims={"hidden_size": 32, "vocab_size": 64, "heads": [1, 2, 4]},
        components={"attn": {"type": "attention", "num_heads": "=heads[i]", "head_dim": 8}},
        blocks={"a": ["attn"]},
        stack="a*3",
    )
    shapes = [next(b.members[0].use.params["q_proj.weight"] for b in layer.branches) for layer in plan.layers]
    assert shapes == [(8, 32), (16, 32), (32, 32)]


@pytest.mark.parametrize(
    ("stack", "count"),
    [("a*4096", 4096), ("(a*64)*64", 4096)],
)
def test_the_limit_is_allowed(stack: str, count: int) -> None:
    assert len(planned(stack=stack, blocks={"a": ["mlp"]}).layers) == count


TOO_MANY = [
    "a*4097",
    "((a*1000)*1000)*1000000",
    [{"block": "a", "repeat": 10**12}],
    {"layers": 10**12, "block": "a"},
]


@pytest.mark.parametrize("stack", TOO_MANY)
def test_beyond_the_limit_nothing_is_expanded(stack: Any) -> None:
    assert codes(described(stack=stack)) == ["AX135"]


def test_the_assertion_prints_the_count_of_every_term() -> None:
    (fault,) = faults(described(stack="a*3 (s w)*2", layers=8))
    assert fault.code == "AX133"
    assert fault.message == "the stack has 7 layers, `layers` says 8"
    assert fault.help == "`a*3` gives 3, `(s w)*2` gives 4"


def test_four_layers_do_not_fall_into_thirds() -> None:
    """A file says which layers it has; nothing is rounded without a word."""
    data = described(stack="s a w", layers=4)
    assert codes(data) == ["AX133"]


def test_every_wrong_name_is_told_once() -> None:
    found = faults(described(stack="x*3 a y x"))
    assert [(f.code, "x" in f.message or "y" in f.message) for f in found] == [("AX132", True)] * 2
