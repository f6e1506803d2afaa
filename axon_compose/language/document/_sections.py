"""The sections of an architecture file as pydantic models: shape and spelling, no knowledge of any layer."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from axon_compose.language.document._models import MODEL_NAME, Count, Name, Number, OrFormula, Section
from axon_compose.language.document.formula import is_formula

__all__ = [
    "CHECKPOINTS",
    "Block",
    "BranchItem",
    "Component",
    "Envelope",
    "GeneratedStack",
    "InlineBlock",
    "Item",
    "NormChoice",
    "Override",
    "PartComponent",
    "Stack",
    "StackItem",
]

#: Sections that few files have, of `CheckpointEnvelope`: their models are as many as all others.
CHECKPOINTS: Final = ("huggingface", "gguf")

NormPlace = Literal["pre", "post", "sandwich", "none"]


def _type_alone(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) and not is_formula(value) else value


class Component(Section):
    """A type from the registry with its options: `{type: attention, num_heads: 8}`, or the type alone."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: str | None = Field(
        default=None, min_length=1, description="A component type: `name` if built in, else `plugin/name`."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_type_alone(cls, value: Any) -> Any:
        return _type_alone(value)

    @property
    def options(self) -> dict[str, Any]:
        """The options as written, formulas unresolved."""
        return dict(self.model_extra or {})


class PartComponent(Component):
    """A component that must name its type."""

    type: str = Field(description="A component type: `name` if built in, else `plugin/name`.")


class NormChoice(Component):
    """The norm of a branch or of a component in it: its position, and its type if not the file's."""

    place: NormPlace = Field(default="pre", description="`pre`, `post`, `sandwich` (both) or `none`.")

    @model_validator(mode="before")
    @classmethod
    def _accept_type_alone(cls, value: Any) -> Any:
        return {"place": value} if isinstance(value, str) else value


class Item(Section):
    """One component of a parallel branch."""

    use: Annotated[Name, OrFormula] = Field(description="A component, or a formula that gives one.")
    norm: NormChoice = Field(
        default=NormChoice.model_construct(place="none"),
        description="Norm of this component alone, inside the branch's norm; none by default.",
    )
    scale: Number = Field(default=1.0, description="Factor of the output.")
    keep: Name | None = Field(
        default=None, alias="as", description="Keep the output under this name instead of adding it."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_name(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value


class BranchItem(Section):
    """One residual branch: a component's name, or a mapping with `use`, `parallel` or `add`."""

    use: Annotated[Name, OrFormula] | None = Field(
        default=None, description="A component, or a formula that gives one (or null: no branch)."
    )
    parallel: list[Item] | None = Field(
        default=None, min_length=1, description="Components that share an input; their outputs are summed."
    )
    add: Name | None = Field(default=None, description="Add an output kept with `as`.")
    norm: NormChoice = Field(
        default=NormChoice.model_construct(), description="`pre`, `post`, `sandwich`, `none`, or a norm of its own."
    )
    scale: Number = Field(default=1.0, description="Factor of the branch before it is added.")
    skip: Number = Field(default=1.0, description="Factor of the stream that the branch is added to.")
    residual: Annotated[Name, OrFormula] | None = Field(
        default=None, description="A connection of the file's `residual`, or a formula that gives one; its first one."
    )
    keep: Name | None = Field(
        default=None, alias="as", description="Keep the output under this name instead of adding it."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_name(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [key for key in ("use", "parallel", "add") if getattr(self, key) is not None]
        if len(given) != 1:
            what = " and ".join(f"`{key}`" for key in given) or "none of them"
            raise PydanticCustomError("branch", f"a branch has one of `use`, `parallel` and `add`, this one has {what}")
        if self.keep and self.use is None:
            raise PydanticCustomError("branch", f"`as` belongs to a component, not to `{given[0]}`")
        return self


class Block(Section):
    """How a layer is built: a list of branches, or `{branches: […], share: name}`."""

    branches: list[BranchItem] = Field(min_length=1, description="Residual branches in order.")
    share: Annotated[Name, OrFormula] | None = Field(
        default=None,
        description="All layers with this name share one set of weights; a formula gives one for each layer, or null.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, value: Any) -> Any:
        return {"branches": value} if isinstance(value, list) else value


class InlineBlock(Section):
    """A block in the stack: its name (or a formula that gives one), or inline branches."""

    name: str | None = None
    branches: list[BranchItem] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _accept_name_or_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, list):
            return {"branches": value}
        raise PydanticCustomError("inline_block", "expected the name of a block, or a list of branches")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The short form: a name or a list."""
        branches = handler(schema)["properties"]["branches"]["anyOf"][0]
        return {"anyOf": [{"type": "string"}, branches]}


class StackItem(Section):
    """One run of layers in the list form of `stack`: a name, stack text, or a mapping."""

    text: str | None = None
    block: InlineBlock | None = Field(default=None, description="A block's name, or inline branches.")
    repeat: Count = Field(default=1, description="How many layers.")

    @model_validator(mode="before")
    @classmethod
    def _accept_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"text": value}
        if isinstance(value, dict) and "text" in value:
            raise PydanticCustomError("extra_forbidden", "`text` is not a key of a stack item")
        if isinstance(value, dict) and value.get("block") is None:
            raise PydanticCustomError("stack_item", "a stack item needs a `block`")
        return value


class GeneratedStack(Section):
    """A stack generated by formulas over `i`, the layer index."""

    layers: Count = Field(description="Number of layers.")
    block: InlineBlock = Field(description="A block's name, or inline branches; formulas may use `i`.")


class Stack(Section):
    """The order of the layers: stack text, a list of items, or a generated stack."""

    items: list[StackItem] | None = Field(default=None, min_length=1)
    generated: GeneratedStack | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"items": [value]}
        if isinstance(value, list):
            return {"items": value}
        if isinstance(value, dict):
            return {"generated": value}
        raise PydanticCustomError("stack", "expected stack text, a list, or a mapping with `layers` and `block`")


def _as_text(value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    if all(isinstance(part, int | str) and not isinstance(part, bool) for part in parts):
        return ",".join(str(part) for part in parts)
    return value


class Override(Section):
    """Component options that differ in some layers."""

    layers: Annotated[str, BeforeValidator(_as_text)] = Field(
        description="A layer, a range `8..15` with both ends, or a list of them."
    )
    set: dict[str, Any] = Field(min_length=1, description="`component.option: value`.")


def _no_truth_value(value: Any) -> Any:
    if value is True:  # which is equal to 1
        raise PydanticCustomError("version", "the version must be an integer")
    return value


class Envelope(Section):
    """An architecture file, version 1; a `CheckpointEnvelope` if it has one of the sections on checkpoints."""

    version: Annotated[Literal[1], BeforeValidator(_no_truth_value)] = Field(description="Version of the language.")
    name: str = Field(
        default="model",
        min_length=1,
        max_length=100,
        pattern=MODEL_NAME,
        description="Name of the model.",
    )
    description: str = Field(default="", description="A description for readers.")
    extends: str | None = Field(
        default=None, description="A file beside this one, or a shipped architecture, to extend."
    )
    dims: dict[Name, Any] = Field(default={}, description="Sizes that formulas and components use.")
    components: dict[Name, PartComponent] = Field(default={}, description="Components by name.")
    blocks: dict[Name, Block] = Field(default={}, description="Kinds of layers: the branches of each.")
    stack: Stack = Field(description="The order of the layers.")
    layers: Count | None = Field(default=None, description="Number of layers that the stack must have.")
    overrides: list[Override] = Field(default=[], description="Options that differ in some layers.")
    norm: Component = Field(
        default=Component.model_construct(), description="The norm of branches and of the end of the stack."
    )
    embedding: Component = Field(default=Component.model_construct(), description="Tokens to vectors.")
    residual: Component | None = Field(
        default=None, description="How layers read and change what runs through the stack; one stream unless given."
    )
    final_norm: Component = Field(
        default=Component.model_construct(), description="The norm before the head: `none`, or a norm."
    )
    head: Component = Field(default=Component.model_construct(), description="Vectors to logits.")
