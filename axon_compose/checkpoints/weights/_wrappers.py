"""The text model inside a model of text and images or sound: one rule for all, whatever the other parts are called.

transformers 5 saves `model.language_model.layers.0…` with `lm_head`, transformers 4 and most others
`language_model.model.layers.0…` with `language_model.lm_head`; some have no prefix at all. Towers and projectors are
beside it, under names of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from axon_compose.checkpoints.weights._source import Source
from axon_compose.language.document import HuggingFace

__all__ = ["other_parts", "prefixes_of"]

#: Beginnings of the names of a text model, and what they are in the model alone; the first that is there counts.
PREFIXES: Final[Mapping[str, str]] = {
    "model.language_model.": "model.",
    "language_model.": "",
    "model.text_model.": "model.",
}


def prefixes_of(section: HuggingFace, *, wrapped: bool) -> Mapping[str, str]:
    """The prefixes that a file names, else in a larger model those that all have."""
    return section.prefixes or (PREFIXES if wrapped else {})


def other_parts(sources: Mapping[str, Source], matches: Callable[[str], bool]) -> set[str]:
    """The tensors that belong to other parts than the text model.

    Where the text model has a prefix, those are the tensors without it that no rule matches. Where nothing has one,
    they are those in places where no rule matches anything, such as `visual` beside `layers` and `embed_tokens`.

    Args:
        sources: The tensors by the names that rules see, prefixes taken off.
        matches: Whether a rule matches a name.
    """
    unmatched = {name for name in sources if not matches(name)}
    prefixed = {name for name, source in sources.items() if _began(source, name)}
    if prefixed:
        return unmatched - prefixed
    text = set(map(_place, sources.keys() - unmatched))
    return {name for name in unmatched if _place(name) not in text}


def _began(source: Source, name: str) -> bool:
    """Whether a prefix was taken off a tensor's name."""
    written = source.tensors[0].name
    return written != name and any(written.startswith(prefix) for prefix in PREFIXES)


def _place(name: str) -> str:
    return name.removeprefix("model.").partition(".")[0]
