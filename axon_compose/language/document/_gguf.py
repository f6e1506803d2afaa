"""The section `gguf`: how a GGUF file of llama.cpp becomes dims and weights of the architecture."""

from typing import Any

from pydantic import Field

from axon_compose.language.document._huggingface import MAX_RULES, WeightRule
from axon_compose.language.document._models import Name, Section

__all__ = ["Gguf"]


class Gguf(Section):
    """Which GGUF files the file reads, and how."""

    architectures: list[str] = Field(
        default=[],
        description="Values of `general.architecture` in the metadata that the file reads; empty for a single model.",
    )
    when: str | None = Field(
        default=None,
        pattern="^=",
        description="Formula over the metadata: whether a file is of this family, where several have its architecture.",
    )
    fields: dict[Name, str | list[str]] = Field(
        default={},
        description="Dim to its metadata key, without the name of the architecture; to several, the first that is "
        "there; or to a formula over the metadata, `.` written as `_`. An empty list: the dim has no key.",
    )
    only: dict[str, Any] = Field(
        default={},
        description="Keys that must have this value, or one of these; a value may be a formula over dims.",
    )
    ignore: list[str] = Field(default=[], description="Keys that do not change the model; added to those of a base.")
    weights: dict[str, WeightRule] = Field(
        default={}, max_length=MAX_RULES, description="Tensor name patterns to parameter paths."
    )
