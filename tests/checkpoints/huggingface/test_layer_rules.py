"""Every rule by which configurations of published models tell the kinds of their layers, as a generated stack.

The rules are those of 110 architectures: one list, several conventions of counting, texts, and conditions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axon_compose import load

N = 8
A, B = "a", "b"

# What it is called; dims besides the number of layers; the kind of layer `i`; fields of config.json; the layers.
RULES: list[tuple[str, dict[str, Any], str, dict[str, Any], str]] = [
    ("uniform", {}, "a", {}, "aaaaaaaa"),
    ("named list", {"kinds": []}, "={'full': a, 'slide': b}[kinds[i]]", {"kinds": ["full", "slide"] * 4}, "abababab"),
    (
        "named list with a default",
        {"kinds": None},
        "=(a if kinds[i] == 'full' else b) if kinds else (a if i % 4 == 3 else b)",
        {},
        "bbbabbba",
    ),
    (
        "short list, cycled",
        {"kinds": []},
        "={'x': a, 'y': b}[kinds[i % len(kinds)]]",
        {"kinds": list("xxy")},
        "aabaabaa",
    ),
    ("characters", {"pattern": ""}, "={'M': a, '*': b}[pattern[i]]", {"pattern": "MM*MMM*M"}, "aabaaaba"),
    (
        "characters, cycled",
        {"pattern": ""},
        "=a if pattern[i % len(pattern)] == 'L' else b",
        {"pattern": "LLLG"},
        "aaabaaab",
    ),
    ("every n-th, the last of n", {"n": 1}, "=b if (i + 1) % n == 0 else a", {"n": 4}, "aaabaaab"),
    ("every n-th, the first of n", {"n": 1}, "=b if i % n == 0 else a", {"n": 4}, "baaabaaa"),
    (
        "every n-th, what is left over is of the other kind",
        {"n": 1},
        "=b if (i + 1) % n == 0 or i >= num_hidden_layers // n * n else a",
        {"n": 3},
        "aabaabbb",
    ),
    ("period and offset", {"p": 1, "o": 0}, "=b if i % p == o else a", {"p": 4, "o": 2}, "aabaaaba"),
    ("half a step", {"s": 2}, "=b if i % s == s // 2 else a", {"s": 4}, "aabaaaba"),
    ("indices from 0", {"ids": []}, "=b if i in ids else a", {"ids": [0, 7]}, "baaaaaab"),
    ("indices from 1", {"ids": []}, "=b if i + 1 in ids else a", {"ids": [1, 8]}, "baaaaaab"),
    ("flags", {"flags": []}, "=b if flags[i] else a", {"flags": [0, 1, 0, 0, 1, 0, 0, 1]}, "abaabaab"),
    ("indices in a text", {"ids": ""}, "=b if i in ints(ids) else a", {"ids": "3,4,5"}, "aaabbbaa"),
    ("the first k", {"k": 0}, "=a if i < k else b", {"k": 3}, "aaabbbbb"),
    ("a range", {"start": 0, "end": 0}, "=b if start <= i <= end else a", {"start": 2, "end": 4}, "aabbbaaa"),
    (
        "a range of lists",
        {"start": 0, "end": 0},
        "=b if min(start) <= i <= max(end) else a",
        {"start": [2, 3], "end": [4, 5]},
        "aabbbbaa",
    ),
    (
        "exceptions and a step",
        {"only": [], "step": 1},
        "=a if i in only or (i + 1) % step else b",
        {"only": [3], "step": 2},
        "abaaabab",
    ),
    ("the last n", {"n": 0}, "=b if i >= num_hidden_layers - n else a", {"n": 2}, "aaaaaabb"),
    ("null stands for all", {"pattern": None}, "=a if pattern == null else b", {"pattern": None}, "aaaaaaaa"),
    (
        "a list of mappings",
        {"parts": []},
        "=b if parts[i]['no_op'] else a",
        {"parts": [{"no_op": i == 2} for i in range(8)]},
        "aabaaaaa",
    ),
]


def planned(tmp_path: Path, dims: dict[str, Any], kind: str, config: dict[str, Any], **options: Any) -> list[Any]:
    part = {"type": "mlp", "intermediate_size": 8, **options}
    description = {
        "version": 1,
        "dims": {"hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 2, **dims},
        "components": {"part": part},
        "blocks": {A: ["part"], B: ["part"]},
        "stack": {"layers": "=num_hidden_layers", "block": kind},
        "huggingface": {"model_types": ["rule"]},
    }
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rule", "num_hidden_layers": N, **config}))
    return list(load(description, checkpoint=tmp_path).plan().layers)


@pytest.mark.parametrize(
    ("dims", "kind", "config", "expected"), [rule[1:] for rule in RULES], ids=[r[0] for r in RULES]
)
def test_kinds_of_layers(
    dims: dict[str, Any], kind: str, config: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    assert "".join(layer.block for layer in planned(tmp_path, dims, kind, config)) == expected


@pytest.mark.parametrize(
    ("dims", "width", "config", "expected"),
    [
        ({"widths": []}, "=widths[i]", {"widths": [8, 16] * 4}, [8, 16] * 4),
        ({"width": 8}, "=width", {"width": 24}, [24] * 8),
        (
            {"by_kind": {}},
            "=by_kind['even' if i % 2 == 0 else 'odd']",
            {"by_kind": {"even": 8, "odd": 32}},
            [8, 32] * 4,
        ),
        (
            {"parts": []},
            "=parts[i]['ffn']['mult'] * 8",
            {"parts": [{"ffn": {"mult": i + 1}} for i in range(8)]},
            list(range(8, 72, 8)),
        ),
        ({"m": 1.0}, "=32 * ceil(round(8 * m * hidden_size / 3) / 32)", {"m": 3.0}, [64] * 8),
    ],
    ids=["a list", "one for all", "by kind", "a list of mappings", "made divisible"],
)
def test_values_of_layers(
    dims: dict[str, Any], width: str, config: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    layers = planned(tmp_path, dims, A, config, intermediate_size=width)
    assert [use.options.intermediate_size for layer in layers for use in layer.uses() if use.name == "part"] == expected
