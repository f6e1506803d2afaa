"""The page of transfers: what built-in components can be made from, out of their records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axon_compose.registry import ComponentSpec, Registry, Setting, Transfer
from axon_compose.report._catalogue import starts

_INTRODUCTION: Final = """\
# Transfers

<!-- Written by `python docs/refresh.py` from the records of the built-in components; do not edit. -->

When the architecture of a trained model is changed, a component that takes the place of another begins best with what
can be kept of it. A *transfer* says how: which parameters are made of which, and when the output stays the same. It is
declared by the record of the new component, so plugins bring their own ([plugins.md](plugins.md#transfers)), and each
claim is tested: against the source model or a formula in float64, in float32 and bfloat16.

`transfer` is the usual one of a pair of types; other names are further ways. What does not fit is refused with the
reason. A component that keeps its type and shapes keeps its weights as they are, unless an `init` is written:
`init: transfer` then makes up for what has no weights, such as the offset of a norm or the factor of a gate.
"""

#: Recipe, what it begins with, and what the transfers here do.
_RECIPES: Final = (
    (
        "Ainslie et al. 2023, GQA (arXiv:2305.13245)",
        "means of key/value heads, then 5 % of the training",
        "`mean`, the same",
    ),
    (
        "Jin et al. 2024, aligned heads (arXiv:2412.20677)",
        "heads turned towards each other before their mean, by orthogonal matrices found on a text",
        "`align`, without a text: any map of values, a turn and factor of each rotated pair of keys, the "
        "best of both by singular vectors",
    ),
    (
        "Komatsuzaki et al. 2022, sparse upcycling (arXiv:2212.05055)",
        "experts that are copies, a random router",
        "the same; exact for every router where weights sum to one, else by a router of zeros",
    ),
    (
        "He et al. 2024, upcycling (arXiv:2410.07524)",
        "parts of the layer as experts, one router row for all parts of a copy",
        "the same, exact where `top_k` is a multiple of the parts",
    ),
    (
        "Wang et al. 2024, MambaInLlama (arXiv:2408.15237)",
        "values, keys, queries and output as x, B, C and output of Mamba; gate, steps and decays random",
        "the same projections; steps of one, slow decays and a gate that adds nothing yet; `gate: random` is theirs",
    ),
    (
        "Ostapenko et al. 2025, Apriel-H1 (arXiv:2511.02651) with Fast-LLM",
        "for the delta rule: a gate of zeros, halves as write strengths, convolutions of the current "
        "token, slow decays",
        "the same, with half-lives that are spread over the heads, and key/value heads repeated as "
        "the queries share them, not one after the other",
    ),
    (
        "Goldstein et al. 2025, RADLADS (arXiv:2505.03005)",
        "for an RWKV-7 of their own: the matrices that have a counterpart, all else as for training from the start",
        "for RWKV-7 as published, the same matrices; no part of the token before, slow decays, a gate of one",
    ),
    (
        "Gu et al. 2025, Jet-Nemotron (arXiv:2508.15884)",
        "all but the attention kept and frozen, the layers that keep attention found by search",
        "layers are chosen by their rank, all else is kept",
    ),
    (
        "Ji et al. 2025, MHA2MLA (arXiv:2502.14837)",
        "keys and values in one decomposition, a part of each head rotated",
        "the same decomposition; evenly spaced pairs stay rotated, with one key for all heads, what theirs "
        "have in common",
    ),
    (
        "Meng et al. 2025, TransMLA (arXiv:2502.07864)",
        "heads turned so that positions gather in one of them, keys and values brought to one size",
        "the balance alone",
    ),
    (
        "Kim et al. 2023, SOLAR (arXiv:2312.15166)",
        "layers repeated",
        "no transfer is needed: their weights are kept",
    ),
    (
        "Wu et al. 2024, LLaMA Pro (arXiv:2401.02415)",
        "copies of layers whose output matrices are zero",
        "no transfer is needed: `init: zero_out`",
    ),
    (
        "Muralidharan et al. 2024, Minitron (arXiv:2407.14679)",
        "the channels and heads that carry most on a text",
        "`slice`, for inner channels alone",
    ),
)


def page() -> str:
    """The whole page."""
    found = Registry.installed().components()
    specs = [spec for name, spec in found.items() if name.startswith("core/") and spec.transfers]
    recipes = "\n".join(f"| {' | '.join(row)} |" for row in _RECIPES)
    parts = [
        _INTRODUCTION,
        f"## What published recipes do\n\n| recipe | begins with | here |\n|---|---|---|\n{recipes}\n",
        "## What components can be made from\n",
        *("\n".join(_component(spec)) for spec in specs),
    ]
    return "\n".join(parts)


def _component(spec: ComponentSpec) -> Iterator[str]:
    yield f"### `{spec.name}`\n"
    yield "| `init` | from | when the output stays the same | published |\n|---|---|---|---|"
    for transfer in spec.transfers:
        sources = ", ".join(f"`{source}`" for source in starts(spec.name, transfer))
        needs = f" It needs a text, on which it measures the {transfer.needs}." if transfer.needs else ""
        yield f"| `{transfer.name}` | {sources} | {transfer.claim}{needs} | {transfer.paper} |"
    yield ""
    yield from _settings(spec.transfers)


def _settings(transfers: tuple[Transfer, ...]) -> Iterator[str]:
    settings: dict[str, Setting] = {}
    for transfer in transfers:
        settings |= transfer.settings
    for name, setting in settings.items():
        yield f"* `{name}`, `{setting.default}` unless given. {setting.summary}"
    if settings:
        yield ""
