"""A difference between implementations whose cause is known.

A fault explains a disagreement only if both sides agree once it is out of the way: it says how to do that, by other
fields of config.json for theirs, by a repair of their loaded model, or by settings that make ours do the same. What
keeps a checkpoint from being loaded is recognised by the text of the error instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Config", "UpstreamFault"]

Config = Mapping[str, Any]


@dataclass(frozen=True)
class UpstreamFault:
    """Where one implementation deviates from the original model.

    Attributes:
        name: Stable name.
        peer: Whom the comparison is with, `mlx-lm` or `transformers`.
        owner: Whose fault it is; that of the peer unless given.
        model_types: The families that have it; all of them if empty.
        what: What is wrong, in one line.
        right: What is right, in one line.
        when: Whether it matters, given config.json and the number of tokens.
        fields: What to lay over config.json for theirs.
        settings: Texts of `--set` with which ours does the same.
        repair: Puts their loaded model right; called with it and `config`.
        error: A piece of the error that it leads to while loading.
    """

    name: str
    peer: str
    what: str
    right: str
    model_types: tuple[str, ...] = ()
    owner: str = ""
    when: Callable[[Config, int], bool] = lambda config, tokens: True
    fields: Callable[[Config], dict[str, Any]] | None = None
    settings: Callable[[Config], list[str]] | None = None
    repair: Callable[..., None] | None = None
    error: str = ""

    def applies(self, peer: str, config: Config, tokens: int) -> bool:
        """Whether it can matter in this comparison; `config` is the whole config.json."""
        inner = {**config, **(config.get("text_config") or {})}
        known = not self.model_types or {config.get("model_type"), inner["model_type"]} & set(self.model_types)
        return self.peer == peer and bool(known) and self.when(inner, tokens)

    def to_dict(self) -> dict[str, str]:
        """Its words, as JSON-ready data."""
        return {
            "name": self.name,
            "owner": self.owner or self.peer,
            "what": self.what,
            "right": self.right,
        }
