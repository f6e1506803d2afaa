"""The section `huggingface`: how a published checkpoint becomes dims and weights of the architecture."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from axon_compose.language.document._models import Name, Number, OrFormula, Section

__all__ = ["HuggingFace", "KnownFault", "Layout", "ModelType", "SplitPart", "WeightRule"]

Layout = Literal["huggingface", "mlx"]
Extent = Annotated[int, OrFormula]
#: Axes of a tensor, parts of a split, and rules of a file: far more than any model has.
MAX_AXES: Final = 32
MAX_PARTS: Final = 64
MAX_RULES: Final = 1000
FAULT_NAME: Final = "^[a-z0-9]+(-[a-z0-9]+)*$"


class SplitPart(Section):
    """One target of a split: its share of the axis, and the steps applied to it."""

    size: Extent | None = Field(default=None, description="Entries along the axis, per group.")
    sizes: list[Extent] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PARTS,
        description="Several slices: slice k of every group comes before slice k + 1; a formula may give several.",
    )
    transpose: bool | list[int] = Field(default=False, description="Swap the last two axes, or permute.")

    @model_validator(mode="before")
    @classmethod
    def _accept_size(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"size": value}

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.size is not None and self.sizes is not None:
            raise PydanticCustomError("split_part", "a part of a split has one of `size` and `sizes`")
        return self

    @property
    def extents(self) -> list[Any]:
        """Lengths of its stretches, in order; numbers or formulas; none where all parts are equal."""
        if self.sizes is not None:
            return self.sizes
        return [] if self.size is None else [self.size]


class WeightRule(Section):
    """What to do with the tensors that a pattern matches: a target, null (drop them), or a mapping of steps."""

    to: str | None = Field(
        default=None, min_length=1, description="Parameter path in the model; with `?` it may be missing."
    )
    drop: bool = Field(default=False, description="Drop the tensor.")
    buffer: str | None = Field(
        default=None,
        min_length=1,
        description="Path in the model of integers that it computes itself: the tensor is not read, but has to hold "
        "the same.",
    )
    stack: Name | None = Field(default=None, description="Capture over which tensors are stacked, on a new first axis.")
    parts: Extent | None = Field(
        default=None,
        description="Those of `stack` follow each other along the first axis instead; an export writes this "
        "number, of equal lengths but the last.",
    )
    join: dict[Name, dict[str, Extent | None]] | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="Capture, and its texts in the order in which their tensors are joined along `axis`, with sizes.",
    )
    reshape: list[Extent] | None = Field(
        default=None, min_length=1, max_length=MAX_AXES, description="New shape; one -1 is inferred."
    )
    reshape_from: list[Extent] | None = Field(
        default=None, min_length=1, max_length=MAX_AXES, description="Shape before `reshape`, for export."
    )
    transpose: bool | list[int] = Field(default=False, description="Swap the last two axes, or permute.")
    if_needed: bool = Field(
        default=False, description="Leave `reshape` and `transpose` out for tensors that have the shape already."
    )
    add: Number | None = Field(default=None, description="Constant to add.")
    scale: Number | None = Field(default=None, description="Factor, or a formula giving one factor per row.")
    pairs_to_halves: Extent | None = Field(
        default=None,
        description="Number of heads whose rows are rotary pairs, x0 y0 x1 y1, and become halves, x0 x1 y0 y1.",
    )
    tiles_to_groups: list[Extent] | None = Field(
        default=None,
        min_length=3,
        max_length=3,
        description="Heads in a group, groups, length of a head: the last heads along `axis` lie as a0 b0 a1 b1, and "
        "become a0 a1 b0 b1.",
    )
    negative_exp: bool = Field(
        default=False, description="The tensor is -exp of the parameter, so the logarithm of its negative is taken."
    )
    unit_rows: bool = Field(
        default=False, description="Rows are divided by their lengths, as the published code does before each use."
    )
    integers: bool = Field(
        default=False, description="The tensor holds integers, such as indices; the parameter has them as numbers."
    )
    split: dict[str, SplitPart] | None = Field(
        default=None, min_length=1, max_length=MAX_PARTS, description="Targets of the parts of `axis`."
    )
    axis: int = Field(default=0, ge=0, description="The axis of `split`, `join` or `tiles_to_groups`.")
    groups: Extent = Field(default=1, description="Equal groups along the axis, each made of parts of these sizes.")
    when: Annotated[str, Field(pattern="^=")] | bool = Field(
        default=True, description="Formula over dims and captures: whether the rule applies."
    )
    layout: Layout | None = Field(default=None, description="Checkpoint layout it applies to; all by default.")
    alternative: bool = Field(
        default=False,
        description="Another form of weights that other rules read; exported only if the checkpoint had it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_target(cls, value: Any) -> Any:
        if value is None:
            return {"drop": True}
        return {"to": value} if isinstance(value, str) else value

    @field_validator("split", mode="before")
    @classmethod
    def _accept_targets(cls, value: Any) -> Any:
        return {name: {} for name in value} if _are_texts(value) else value

    @field_validator("join", mode="before")
    @classmethod
    def _accept_order(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: dict.fromkeys(texts) if _are_texts(texts) else texts for name, texts in value.items()}

    @model_validator(mode="after")
    def _equal_or_not(self) -> Self:
        split = [bool(part.extents) for part in (self.split or {}).values()]
        join = [size is not None for size in self.members.values()]
        for key, given in (("split", split), ("join", join)):
            if any(given) and not all(given):
                raise PydanticCustomError("sizes", f"`{key}` has sizes for all parts, or for none if they are equal")
        together = [key for key, there in (("stack", self.stack), ("split", self.split)) if there and self.join]
        if together:
            raise PydanticCustomError("join", f"a rule has `join` or `{together[0]}`, not both")
        return self

    @property
    def members(self) -> dict[str, Any]:
        """Texts of the capture of `join`, in order, with the sizes of their tensors, or None where all are equal."""
        return next(iter((self.join or {}).values()), {})

    @property
    def gathers(self) -> str | None:
        """The capture in which tensors differ that become one, by `stack` or `join`."""
        return next(iter(self.join), None) if self.join else self.stack

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [name for name in ("to", "split", "buffer", "drop") if getattr(self, name)]
        if len(given) != 1:
            what = " and ".join(f"`{key}`" for key in given) or "none of them"
            raise PydanticCustomError(
                "rule", f"a rule has one of `to`, `split`, `buffer` and `drop`, this one has {what}"
            )
        return self


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class ModelType(Section):
    """What is particular to checkpoints of one `model_type`."""

    defaults: dict[Name, Any] = Field(
        default={}, description="Dim to its value where config.json does not have its field."
    )
    ignore: list[str] = Field(
        default=[], description="Fields that are without effect in such checkpoints, dims included."
    )
    export_as: str | None = Field(
        default=None, min_length=1, description="Model type that an export has instead, since no loader knows this one."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_null(cls, value: Any) -> Any:
        return {} if value is None else value


class KnownFault(Section):
    """Where another implementation computes something else from the same checkpoint, and how both agree without it."""

    name: str = Field(pattern=FAULT_NAME, description="A short name, `words-with-hyphens`, shown by `verify`.")
    peer: Literal["mlx-lm", "transformers"] = Field(default="mlx-lm", description="Whose result differs.")
    owner: str | None = Field(default=None, description="Whose fault it is; that of the peer by default.")
    what: str = Field(min_length=1, description="What is wrong, in a line.")
    right: str = Field(min_length=1, description="What is right, in a line.")
    when: Annotated[str, Field(pattern="^=")] | bool = Field(
        default=True, description="Formula over dims and `tokens`, the length compared: whether it matters."
    )
    settings: dict[str, Any] = Field(
        default={},
        max_length=MAX_PARTS,
        description="Keys and values of `--set` with which this model does the same; formulas over dims too.",
    )
    fields: dict[str, Any] = Field(
        default={},
        max_length=MAX_PARTS,
        description="Fields laid over config.json, with which the peer does what is right; formulas over dims too.",
    )
    error: str | None = Field(default=None, min_length=1, description="Part of the error that loading ends in.")

    @model_validator(mode="after")
    def _has_a_proof(self) -> Self:
        if not (self.settings or self.fields or self.error):
            raise PydanticCustomError("fault", "a fault has `settings`, `fields` or `error`, or it explains nothing")
        return self


class HuggingFace(Section):
    """Which checkpoints the file reads, and how."""

    model_types: list[str] = Field(
        default=[],
        description="Values of `model_type` in config.json that the file reads; empty for a single model.",
    )
    architectures: list[str] = Field(
        default=[],
        description="Values of `architectures` in config.json by which the file is chosen where another one reads the "
        "same model type.",
    )
    per_type: dict[str, ModelType] = Field(default={}, description="What is particular to some of the model types.")
    fields: dict[Name, str | list[str]] = Field(
        default={}, description="Dim to its field in config.json, where the names differ."
    )
    tensors: dict[Name, str] = Field(
        default={}, description="Dims that are true if the checkpoint has this tensor, else false."
    )
    only: dict[str, Any] = Field(
        default={},
        description="Fields that must have this value, or one of these; a value may be a formula over dims. An empty "
        "list is a value.",
    )
    ignore: list[str] = Field(
        default=[],
        description="Fields that do not change the model, `a.b` inside a mapping; added to those of a base.",
    )
    write: dict[str, Any] = Field(
        default={},
        description="Extra fields of config.json for export: values, or formulas over dims.",
    )
    prefixes: dict[str, str] = Field(
        default={},
        max_length=MAX_PARTS,
        description="Prefixes of tensor names and their replacements, applied first.",
    )
    weights: dict[str, WeightRule] = Field(
        default={}, max_length=MAX_RULES, description="Tensor name patterns to parameter paths."
    )
    faults: list[KnownFault] = Field(
        default=[],
        max_length=MAX_PARTS,
        description="Known differences of mlx-lm and transformers, for `verify` and `export`.",
    )
