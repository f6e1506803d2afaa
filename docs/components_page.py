"""The page of components: what the registry knows of every built-in one, written out as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axon_compose.registry import ComponentSpec, Registry
from axon_compose.report._component import describe, joins, option_rows

_INTRODUCTION: Final = """\
# Components

<!-- Written by `python docs/refresh.py` from the records of the built-in components; do not edit. -->

What a file can name as `type`, with every option. This page covers the built-in types;
`axon-compose plugins` lists the types of installed plugins, and `axon-compose schema` describes the options of all of
them for an editor.

A value may be a formula (see [language.md](language.md#formulas)). In the calls, `x` and `y` are arrays of shape
(B, L, D): sequences, tokens, hidden size. [plugins.md](plugins.md) explains how to write your own layer.
"""

_KINDS: Final = {
    "layer": "Layers: the parts of a block",
    "block": "Whole blocks: layers with their own norms and residual connections",
    "norm": "Norms: for `norm`, `final_norm` and branches",
    "embedding": "Embeddings: for `embedding`",
    "residual": "Residual schemes: for `residual`",
    "head": "Heads: for `head`",
}


def page() -> str:
    """The whole page."""
    registry = Registry.installed()
    parts, shown = [_INTRODUCTION], dict[str, str]()
    assert registry.components(), "the built-in components cannot be loaded"
    for kind, title in _KINDS.items():
        specs = [spec for name, spec in registry.components(kind).items() if name.startswith("core/")]  # type: ignore[arg-type]
        parts.append(f"## {title}\n")
        parts += ["\n".join(_component(spec, shown)) for spec in specs]
    return "\n".join(parts)


def _component(spec: ComponentSpec, shown: dict[str, str]) -> Iterator[str]:
    yield f"### `{spec.name}`\n"
    yield spec.summary + (" The default of its kind." if spec.default else "") + "\n"
    words = describe(spec)
    yield f"* Example: `{words.example}`"
    yield f"* Call: `{words.call}`"
    yield f"* Cache: {words.cache}"
    yield f"* Weights of the example: {words.weights}"
    for each in spec.connections:
        yield f"* Connection `{each.name}`, {joins(each)}"
    yield from _exceptions(spec)
    if spec.source:
        yield f"* Source: {spec.source}."
    yield "\n| option | type | default | |\n|---|---|---|---|"
    for option in option_rows(spec, shown):
        text = option.description + (
            f" Options as in [`{option.elsewhere}`](#{option.elsewhere})." * bool(option.elsewhere)
        )
        default = option.default if option.default in ("required", "none", "see below") else f"`{option.default}`"
        cells = (f"`{option.name}`", option.type, default, text.replace("|", "\\|"))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _exceptions(spec: ComponentSpec) -> Iterator[str]:
    """Parameters that keep their precision."""
    for names, one, several in (
        (spec.float32, "stays float32 when a model is cast", "stay float32 when a model is cast"),
        (spec.unquantized, "is never quantised", "are never quantised"),
    ):
        if names:
            yield f"* {' and '.join(f'`{name}`' for name in names)} {one if len(names) == 1 else several}."
