"""What a tokenizer is to a model's folder: files, the ids that the model's config needs, and remarks."""

from __future__ import annotations

from typing import Any

__all__ = ["TokenizerFiles"]


class TokenizerFiles(dict[str, bytes]):
    """File name to content, and what a model's config needs to know.

    Attributes:
        ids: `eos_token_id`, `bos_token_id`, `pad_token_id` where there are such tokens, and `vocab_size`, the highest
            token id plus one.
        added: Tokens beside the vocabulary that only their whole text gives, with their ids.
        notes: What the user should know of these files, a sentence each.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        ids: dict[str, Any],
        added: dict[str, int] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        super().__init__(files)
        self.ids = ids
        self.added = added or {}
        self.notes = notes or []
