"""The section `huggingface`: how a published checkpoint becomes dims and weights of the architecture."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from axon_compose.language.document._models import Name, Number, OrFormula, Section

__all__ = ["HuggingFace", "Layout", "SplitPart", "WeightRule"]

Layout = Literal["huggingface", "mlx"]
Extent = Annotated[int, OrFormula]
#: Axes of a tensor, parts of a split, and rules of a file: far more than any model has.
MAX_AXES: Final = 32
MAX_PARTS: Final = 64
MAX_RULES: Final = 1000


class SplitPart(Section):
    """One target of a split: its share of the axis, and what is done with it."""

    size: Extent | None = Field(default=None, description="Entries of the axis, in each of the groups.")
    sizes: list[Extent] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PARTS,
        description="Several stretches in a row: those of all groups come before the next one's.",
    )
    transpose: bool | list[int] = Field(default=False, description="Swap the last two axes, or permute.")

    @model_validator(mode="before")
    @classmethod
    def _accept_size(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"size": value}

    @model_validator(mode="after")
    def _one_of(self) -> SplitPart:
        if (self.size is None) == (self.sizes is None):
            raise PydanticCustomError("split_part", "a part of a split has one of `size` and `sizes`")
        return self

    @property
    def extents(self) -> list[Any]:
        """Lengths of its stretches, in order; numbers or formulas."""
        return [self.size] if self.sizes is None else self.sizes


class WeightRule(Section):
    """What becomes of the tensors that a pattern matches: a target, null (dropped), or a mapping with the steps."""

    to: str | None = Field(default=None, min_length=1, description="Place in the model; one with `?` may be missing.")
    drop: bool = Field(default=False, description="Leave the tensor out.")
    stack: Name | None = Field(default=None, description="Capture whose tensors become one, on a new first axis.")
    reshape: list[Extent] | None = Field(
        default=None, min_length=1, max_length=MAX_AXES, description="New shape; -1 for what is left."
    )
    reshape_from: list[Extent] | None = Field(
        default=None, min_length=1, max_length=MAX_AXES, description="Shape before `reshape`, for export."
    )
    transpose: bool | list[int] = Field(default=False, description="Swap the last two axes, or permute.")
    add: Number | None = Field(default=None, description="Number that is added.")
    scale: Number | None = Field(
        default=None, description="Number that is multiplied, or a formula of one for each row."
    )
    split: dict[str, SplitPart] | None = Field(
        default=None, min_length=1, max_length=MAX_PARTS, description="Targets of an axis' parts."
    )
    axis: int = Field(default=0, ge=0, description="The axis of `split`.")
    groups: Extent = Field(default=1, description="Equal parts of the axis, each divided by the sizes.")
    when: Annotated[str, Field(pattern="^=")] | bool = Field(
        default=True, description="Formula over dims and captures: whether the rule exists."
    )
    layout: Layout | None = Field(default=None, description="Kind of checkpoint it is for; any unless given.")

    @model_validator(mode="before")
    @classmethod
    def _accept_target(cls, value: Any) -> Any:
        if value is None:
            return {"drop": True}
        return {"to": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of(self) -> WeightRule:
        given = [name for name, there in (("to", self.to), ("split", self.split), ("drop", self.drop)) if there]
        if len(given) != 1:
            what = " and ".join(f"`{key}`" for key in given) or "none of them"
            raise PydanticCustomError("rule", f"a rule has one of `to`, `split` and `drop`, this one has {what}")
        return self


class HuggingFace(Section):
    """Which checkpoints the file reads, and how."""

    model_types: list[str] = Field(
        default_factory=list,
        description="Values of `model_type` in config.json that the file is for; none for one model.",
    )
    fields: dict[Name, str | list[str]] = Field(
        default_factory=dict, description="Dims to the names of their fields in config.json, where they differ."
    )
    tensors: dict[Name, str] = Field(
        default_factory=dict, description="Dims that are true if the checkpoint has this tensor, else false."
    )
    only: dict[str, Any] = Field(
        default_factory=dict, description="Fields that may only have this value, or one of these."
    )
    ignore: list[str] = Field(default_factory=list, description="Fields that do not change the model.")
    write: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields that other readers of config.json need, for export: values, or formulas over dims.",
    )
    prefixes: dict[str, str] = Field(
        default_factory=dict,
        max_length=MAX_PARTS,
        description="Beginnings of names of tensors, and what is put in their place first.",
    )
    weights: dict[str, WeightRule] = Field(
        default_factory=dict, max_length=MAX_RULES, description="Patterns of tensors to places."
    )
