"""Random descriptions: sound ones with anything in them changed, and trees that only look like one."""

# ruff: noqa: E501 (tables are read more easily with long rows)

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from axon_compose.diagnostics import Problems
from axon_compose.language.source import plain, read
from tests.helpers import BASE
from tests.strategies import checkpoints as huggingface

__all__ = ["SOUND", "descriptions", "mutated", "trees"]

SHIPPED: Final = Path(__file__).parents[2] / "architectures"
WORDS: Final = (
    "version", "name", "extends", "dims", "components", "blocks", "stack", "layers", "overrides", "norm", "embedding",
    "final_norm", "head", "huggingface", "hidden_size", "vocab_size", "type", "use", "parallel", "as", "add", "scale",
    "share", "branches", "block", "repeat", "set", "place", "pre", "post", "none", "num_heads", "kv_from", "attn", "a",
    "attention", "mlp", "moe", "axon_ssm", "rms_norm", "core/mlp", "nobody/layer", "i", "x-free", "", "Ω", "\0", "\x1b[31m",
    "a" * 150, "a*3", "(a s)*2", "a*99999999", "0..1", "2..1", "attn.num_heads", "attn.rope.type", "../x.yaml", "llama-small",
)  # fmt: skip
FORMULAS: Final = (
    "=i", "=hidden_size", "=hidden_size // 2", "=1 / 0", "=", "==", "=attn", "=[a, s][i % 2]", "=-1", "=10 ** 60", "=1.5",
    "=[1] * 90000", "=null", "=true", "='x' * 1000", "=unknown", "=(((", "={'a': mlp}['a']", "=sqrt(-1)", "=2 ** 31", "=a if i else s",
)  # fmt: skip
NUMBERS: Final = (
    0,
    1,
    2,
    3,
    -1,
    7,
    64,
    2**31 - 1,
    2**31,
    2**63,
    10**39,
    1e308,
    5e-324,
    0.5,
    float("inf"),
    float("-inf"),
    float("nan"),
)


@cache
def scalars() -> st.SearchStrategy[Any]:
    """Values without parts, most of them out of place wherever they stand."""
    return st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(FORMULAS),
        st.sampled_from(NUMBERS),
        st.none(),
        st.booleans(),
        st.integers(-5, 200),
        st.floats(),
        st.text(max_size=12),
    )


@cache
def trees(leaves: int = 25) -> st.SearchStrategy[Any]:
    """Nested lists and mappings whose keys are words of the language."""
    keys = st.one_of(st.sampled_from(WORDS), st.text(max_size=6))
    return st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=leaves,
    )


def _shipped() -> list[dict[str, Any]]:
    texts = {file.name: file.read_bytes() for file in sorted(SHIPPED.glob("*.yaml"))}
    nodes = [read(text, name, Problems()) for name, text in texts.items()]
    return [plain(node) for node in nodes if node]


#: More of the language in one file than any shipped one has.
RICH: Final[dict[str, Any]] = {
    **BASE,
    "dims": {"hidden_size": 32, "vocab_size": 64, "sizes": [48, "=16 * 2", 24, 48], "half": "=hidden_size // 2"},
    "components": {
        **BASE["components"],
        "reader": {"type": "attention", "num_heads": 2, "kv_from": "attn"},
        "moe": {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": "=sizes[i % 4]"},
    },
    "blocks": {
        "a": ["attn", {"use": "mlp", "norm": "sandwich", "scale": 0.5}],
        "s": {"branches": ["ssm", {"use": "mlp", "norm": {"place": "post", "type": "layer_norm"}}], "share": "one"},
        "p": [{"parallel": ["ssm", {"use": "swa", "scale": "=1 / 2", "norm": "sandwich"}]}, {"use": "mlp", "as": "kept"}, "moe", {"add": "kept"}],
        "r": ["reader", "moe"],
    },
    "stack": ["a s*2", {"block": "p", "repeat": 2}, {"block": ["swa", "mlp"]}, "(r s)*2"],
    "layers": 10,
    "overrides": [{"layers": "3..4", "set": {"mlp.intermediate_size": 24}}, {"layers": [5, "3..4"], "set": {"swa.num_heads": 4}}],
    "embedding": {"scale": 2.0},
    "head": {"softcap": 30.0},
}  # fmt: skip
GENERATED: Final[dict[str, Any]] = {
    **RICH,
    "stack": {"layers": "=len(sizes) * 2", "block": ["=attn if i % 2 == 0 else ssm", "=moe if i else null"]},
    "layers": 8,
    "overrides": [],
}
SOUND: Final = [BASE, RICH, GENERATED, *_shipped()]


@st.composite
def mutated(draw: DrawFn) -> dict[str, Any]:
    """A sound description with one to four changes: values replaced, retyped, wrapped, moved, doubled or removed."""
    data = copy.deepcopy(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 4)))):
        places = list(_places(data))
        if places:
            holder, key = draw(st.sampled_from(places))
            draw(st.sampled_from(_CHANGES))(draw, data, holder, key)
    return data


def descriptions() -> st.SearchStrategy[dict[str, Any]]:
    """Sound descriptions with changes, and sections full of anything."""
    sections = st.dictionaries(st.sampled_from(WORDS), trees(8), max_size=6)
    full = sections.map(lambda drawn: {**BASE, **drawn})
    checkpoints = huggingface.sections().map(lambda drawn: {**BASE, "huggingface": drawn})
    return st.one_of(mutated(), mutated(), mutated(), full, checkpoints, sections)


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every collection with each of its keys or indices."""
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _replace(draw: DrawFn, data: Any, holder: Any, key: Any) -> None:
    holder[key] = draw(scalars())


def _nudge(draw: DrawFn, data: Any, holder: Any, key: Any) -> None:
    """Another value of the same kind, which often leaves the description sound."""
    match holder[key]:
        case bool() as value:
            holder[key] = not value
        case int() | float():
            holder[key] = draw(st.sampled_from((1, 2, 3, 4, 8, 16, "=2 * 4", "=half", "=4 if i % 2 else 8")))
        case str():
            holder[key] = draw(
                st.sampled_from([*BASE["components"], *BASE["blocks"], "moe", "r", "none", "post", "a r*2"])
            )
        case list() as items if items:
            holder[key] = draw(st.permutations(items))
        case _:
            holder[key] = copy.deepcopy(holder[key])


def _grow(draw: DrawFn, data: Any, holder: Any, key: Any) -> None:
    holder[key] = draw(trees(6))


def _remove(draw: DrawFn, data: Any, holder: Any, key: Any) -> None:
    del holder[key]


def _wrap(draw: DrawFn, data: Any, holder: Any, key: Any) -> None:
    holder[key] = draw(st.sampled_from([[holder[key]], {"use": holder[key]}, {"a": holder[key]}, str(holder[key])]))


def _rename(draw: DrawFn, data: Any, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[draw(st.sampled_from(WORDS))] = holder.pop(key)
    else:
        holder.append(copy.deepcopy(holder[key]))


def _transplant(draw: DrawFn, data: Any, holder: Any, key: Any) -> None:
    other, there = draw(st.sampled_from(list(_places(data))))
    holder[key] = copy.deepcopy(other[there])


_CHANGES: Final[list[Callable[[DrawFn, Any, Any, Any], None]]] = [
    *[_nudge] * 5, _replace, _replace, _grow, _remove, _wrap, _rename, _transplant,
]  # fmt: skip
