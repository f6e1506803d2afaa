"""Values that a config.json should not have, and sections `huggingface` that are nearly sound."""

from __future__ import annotations

import copy
from typing import Any, Final

from hypothesis import strategies as st

__all__ = ["RULE_WORDS", "rules", "sections", "values"]

#: Words of configurations and of rules, so that what is drawn often means something.
RULE_WORDS: Final = (
    "hidden_size", "num_hidden_layers", "layer_types", "rope_scaling", "rope_parameters", "head_dim", "model_type",
    "type", "rope_type", "factor", "full_attention", "sliding_attention", "text_config", "quantization_config",
)  # fmt: skip
_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2, 3, 4, 7, 10**9, 10**18, 10**40, -(10**9), 1e308, -1.5, 0.5, float("inf"),
    float("nan"), "", "x", "=1", "=hidden_size", "auto", "silu", "gelu", "M-*E", "full_attention", "mamba", "linear",
    "yarn", "llama3", "longrope", "Infinity", {"__float__": "Infinity"}, {"__float__": 3}, "a\nb\x1b[31m", "\ud800",
    {"rope_type": "yarn"}, {"type": "linear", "factor": "x"}, {"rope_type": "llama3", "factor": 0},
    {"rope_type": [1]}, {"full_attention": {"rope_type": "linear", "factor": -1}}, {"full_attention": 3},
    ["mamba"] * 3, ["full_attention"] * 4, [0.0, None], list(range(300)),
)  # fmt: skip


def values() -> st.SearchStrategy[Any]:
    """One value, alone or in small lists and mappings."""
    leaves = st.sampled_from(_ODD).map(copy.deepcopy) | st.integers(-4, 4)
    words = st.sampled_from(RULE_WORDS)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=4
    )


_EXTENTS: Final = st.sampled_from(
    (1, 2, 4, -1, 0, 16, 10**30, "=hidden_size", "=e", "=2 * 2", "=1 / 0", "=[1]", "=x", True)
)
_TARGETS: Final = st.sampled_from(
    ("w", "w?", "w.<e>", "w.<e>?", "(w|v)", "v.<x>", "<*>", "w.", "(w", "", "layers.0.attn_norm")
)
_NUMBERS: Final = st.sampled_from(
    (0, 1, 2.0, -1, 1e308, 10**40, "=1 / e", "=[1, 2]", "=[0]", "='a'", "=hidden_size", None, "x")
)
_AXES: Final = st.sampled_from((True, False, [1, 0], [0, 1], [2, 0, 1], [0, 0], [-1], [], list(range(40))))
_PARTS: Final = _EXTENTS | st.fixed_dictionaries(
    {}, optional={"size": _EXTENTS, "sizes": st.lists(_EXTENTS, max_size=3), "transpose": _AXES}
)
_RULE: Final = st.fixed_dictionaries(
    {},
    optional={
        "to": _TARGETS,
        "drop": st.booleans(),
        "stack": st.sampled_from(("e", "x", "E", None)),
        "parts": _EXTENTS,
        "reshape": st.lists(_EXTENTS, max_size=3),
        "reshape_from": st.lists(_EXTENTS, max_size=3),
        "transpose": _AXES,
        "add": _NUMBERS,
        "scale": _NUMBERS,
        "split": st.dictionaries(_TARGETS, _PARTS, max_size=3),
        "axis": st.sampled_from((0, 1, 3, -1, 10**18)),
        "groups": _EXTENTS,
        "when": st.sampled_from(("=e < 1", "=x == 'a'", "=true", "=1 / 0", "=e", True, False, "yes")),
        "layout": st.sampled_from(("huggingface", "mlx", "torch", None)),
    },
)
#: Steps one by one on a sound target, which often holds together.
_SOUND: Final = st.builds(
    lambda keys, rule: {"to": "w", **{key: rule[key] for key in keys if key in rule and key not in ("drop", "split")}},
    st.sets(st.sampled_from(("reshape", "transpose", "add", "scale", "when", "layout")), max_size=2),
    _RULE,
)
_PATTERNS: Final = st.sampled_from(
    (
        "a", "a.<e>", "<e>", "<*>", "<x>.<e>", "b.<x>.<e>", "(a|b)", "(a|b).<e>.weight", "a_<x>", "<x>a<e>", "a.",
        "<E>", "", "(",
    )
)  # fmt: skip
_FIELDS: Final = st.sampled_from(("n_embd", "a.b", "*.x", "", [], ["a", "b"], [3], None)).map(copy.deepcopy)
_PREFIXES: Final = st.dictionaries(st.sampled_from(("model.", "", "<a>")), st.sampled_from(("", "m.", 3)), max_size=2)

_PER_TYPE: Final = st.sampled_from(
    (None, {}, {"ignore": ["a"]}, {"defaults": {"vocab_size": 3, "B": "=1"}}, {"ignore": [None]}, {"defaults": [1]}, 3)
)


def rules() -> st.SearchStrategy[Any]:
    """A section `weights`."""
    return st.dictionaries(_PATTERNS, st.none() | _TARGETS | _RULE | _SOUND | _SOUND, max_size=4)


def sections() -> st.SearchStrategy[Any]:
    """A section `huggingface`, or anything."""
    names = st.sampled_from((*RULE_WORDS, "a", "B", "vocab_size"))
    sound = st.fixed_dictionaries(
        {},
        optional={
            "model_types": st.lists(names, max_size=2),
            "per_type": st.dictionaries(names, _PER_TYPE, max_size=2),
            "fields": st.dictionaries(names, _FIELDS, max_size=3),
            "tensors": st.dictionaries(names, st.sampled_from(("lm_head.weight", "", 3)), max_size=2),
            "only": st.dictionaries(names, values(), max_size=2),
            "ignore": st.lists(names, max_size=3),
            "prefixes": _PREFIXES,
            "weights": rules(),
        },
    )  # fmt: skip
    return sound | values()
