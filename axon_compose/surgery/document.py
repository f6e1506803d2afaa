"""The edit file: which layers and parts of a model change, and what the changed parts begin with."""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from axon_compose.diagnostics import Flood, Problems, Span, nearest
from axon_compose.language.document import MODEL_NAME, VERSION, PartComponent, place
from axon_compose.language.document import Path as Steps
from axon_compose.language.document._formulas import check_formulas
from axon_compose.language.document._models import Count, Name, Section
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.language.source import Node, plain, read, read_file, to_source
from axon_compose.plan import Text
from axon_compose.registry import Fault, pydantic_faults

__all__ = [
    "ACTIONS",
    "Drop",
    "Edit",
    "EditFile",
    "EditText",
    "Insert",
    "Repeat",
    "Vocabulary",
    "read_edits",
]

#: What an edit does: it has exactly one of these keys.
ACTIONS: Final = ("replace", "set", "insert", "drop", "repeat", "vocabulary")
#: Where an action says which layers it is about by itself.
_OWN_LAYERS: Final = ("insert", "drop", "repeat", "vocabulary")

_LAYERS: Final = (
    "Layers: a number, `8..22` with both ends, `8..22 step 2`, several between commas or in a list, `all`, or a "
    "formula; -1 is the last layer. They are counted as the edits before have left the model."
)
_LAYER: Final = "A layer by its number; -1 is the last one."


class Insert(Section):
    """New layers after a layer."""

    after: int | str = Field(description=f"{_LAYER[:-1]}, or `start` for the beginning of the stack.")
    block: Name | None = Field(
        default=None, description="A block of the model that the new layers have; that of the layer before them."
    )
    count: Count = Field(default=1, description="How many layers.")


class Repeat(Section):
    """Layers again, with their weights."""

    layers: Any = Field(description=_LAYERS)
    after: int | str | None = Field(default=None, description=f"{_LAYER} The last of the repeated ones unless given.")
    times: Count = Field(default=1, description="How often.")


class Drop(Section):
    """The layers that change the stream least, measured on a text."""

    least: Count = Field(description="How many layers.")
    by: Literal["influence"] = Field(
        default="influence",
        description="`influence`: 1 minus the cosine of what a layer reads and what it gives, on average.",
    )
    among: Any = Field(default="all", description=_LAYERS)


class Vocabulary(Section):
    """Other tokens: those of a text, or of another tokenizer."""

    corpus: str | list[str] | None = Field(
        default=None, description="Texts: only tokens that occur in them are kept, and those that every text needs."
    )
    tokenizer: str | None = Field(default=None, description="Folder of another tokenizer.")


class Edit(Section):
    """One edit: an action, the layers that it is about, and what new parts begin with."""

    model_config = ConfigDict(serialize_by_alias=True)

    layers: Any = Field(default=None, description=f"{_LAYERS} All that have the part unless given.")
    replace: Annotated[dict[Name, PartComponent], Field(min_length=1)] | None = Field(
        default=None,
        description="Components by name, and what takes their place; formulas know the options of the replaced one.",
    )
    set: Annotated[dict[str, Any], Field(min_length=1)] | None = Field(
        default=None, description="`component.option: value`; the component stays what it is."
    )
    insert: Insert | None = Field(default=None, description="New layers.")
    drop: int | str | list[int | str] | Drop | None = Field(
        default=None, description=f"Layers that go, or `{{least: 3}}`. {_LAYERS}"
    )
    repeat: Repeat | None = Field(default=None, description="Layers again, as in depth up-scaling.")
    vocabulary: Vocabulary | None = Field(default=None, description="Other tokens.")
    init: str | dict[str, Any] | None = Field(
        default=None,
        description="What new parts begin with: keep, copy, random, zero_out, or a transfer of the component such as "
        "transfer, mean, split; as a mapping with its settings: {copy: mlp, noise: 0.01}.",
    )

    @property
    def action(self) -> str:
        """What it does."""
        return next(name for name in ACTIONS if getattr(self, name) is not None)


class EditFile(Section):
    """An edit file, version 1."""

    version: Literal[1] = Field(description="Version of the edit language.")
    source: str = Field(
        min_length=1,
        description="The model: a YAML file, a folder with a model or a GGUF file, beside this file, or a known name.",
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        pattern=MODEL_NAME,
        description="Name of the new model; that of the source unless given.",
    )
    description: str = Field(default="", description="A description for readers.")
    edits: list[Edit] = Field(min_length=1, description="Edits in order; each sees what those before have left.")


@dataclass(frozen=True)
class EditText:
    """An edit file that was read.

    Attributes:
        file: Its content, validated.
        node: The source, for places.
        directory: Folder that paths in it start from.
    """

    file: EditFile
    node: MappingNode
    directory: Path

    def beside(self, name: str) -> Path | str:
        """A path in the file: from the folder of the file where there is one, else a name or a path as it is."""
        path = self.directory / name
        return path if path.exists() or (glob.has_magic(name) and not Path(name).is_absolute()) else name

    def place(self, *path: str | int, key: bool = False) -> Span:
        """Where a path of keys and indices is in the file."""
        return place(self.node, path, key=key)

    def node_at(self, *path: str | int) -> Node | None:
        """The node at a path of keys and indices, or None."""
        node: Any = self.node
        for step in path:
            if isinstance(node, MappingNode):
                node = node.get(str(step))
            else:
                node = node.items[step] if node is not None and hasattr(node, "items") else None
        return node  # type: ignore[no-any-return]


def read_edits(source: str | Path | Mapping[str, Any] | Text, problems: Problems) -> EditText | None:
    """Read and validate an edit file.

    Args:
        source: Its path, its content, or its text.
        problems: Collects faults.

    Returns:
        The file, or None if it has faults.

    Raises:
        OSError: If it cannot be read.
    """
    if isinstance(source, Mapping):
        node, directory = to_source(dict(source), "<edits>", problems), Path.cwd()
    elif isinstance(source, Text):
        node, directory = read(source.data, source.file, problems), source.directory
    else:
        node, directory = read_file(Path(source), problems, str(source)), Path(source).parent
    if node is None:
        return None
    if not isinstance(node, MappingNode):
        problems.error("AX920", "an edit file is a mapping", node.span, help="begin with `version: 1` and `source:`")
        return None
    try:
        return _read(node, directory, problems)
    except Flood:
        return None


def _read(node: MappingNode, directory: Path, problems: Problems) -> EditText | None:
    data = plain(node)
    if not _right_version(node, problems):
        return None
    try:
        file = EditFile.model_validate(data)
    except ValidationError as error:
        for fault in pydantic_faults(error, data, model=EditFile, owner=node.span.file, noun="key"):
            _report(fault, node, problems)
        return None
    check_formulas(node, problems)
    found = EditText(file, node, directory)
    for number, edit in enumerate(file.edits):
        _check_action(found, number, edit, problems)
    return None if problems.failed else found


def _right_version(node: MappingNode, problems: Problems) -> bool:
    version = node.get("version")
    if version is None or (plain(version) == VERSION and plain(version) is not True):
        return True  # a missing one is reported with the other keys
    message = f"this axon-compose reads version {VERSION} of edit files"
    problems.error("AX105", message, version.span, help=f"write `version: {VERSION}`")
    return False


def _check_action(text: EditText, number: int, edit: Edit, problems: Problems) -> None:
    """Exactly one action, and no `layers` or `init` beside one that they say nothing about."""
    place = text.place("edits", number)
    given = [name for name in ACTIONS if getattr(edit, name) is not None]
    if len(given) != 1:
        what = f"this one has {' and '.join(f'`{name}`' for name in given)}" if given else "this one has none"
        hint = "write each as an edit of its own" if given else "such as `drop: 27..28`"
        problems.error("AX920", f"an edit has one of {', '.join(ACTIONS)}; {what}", place, help=hint)
        return
    action = given[0]
    if edit.layers is not None and action in _OWN_LAYERS:
        where = text.place("edits", number, "layers", key=True)
        hint = "such as `drop: 27..28`" if action == "drop" else f"`{action}` says by itself where"
        problems.error("AX920", f"`layers` does not go with `{action}`", where, help=hint)
    if edit.init is not None and action == "drop":
        where = text.place("edits", number, "init", key=True)
        problems.error("AX920", "`init` does not go with `drop`", where, help="nothing new comes of it")


def _report(fault: Fault, node: MappingNode, problems: Problems) -> None:
    path: Steps = fault.path
    if fault.kind == "missing":
        where = place(node, path[:-1], key=True)
        problems.error("AX103", fault.message, where, label=fault.label, help=fault.help)
        return
    code = "AX101" if fault.kind == "unknown" else "AX102"
    where = place(node, path, key=fault.at_key)
    help_ = fault.help
    if fault.kind == "unknown" and len(path) == 3 and (near := nearest(str(path[-1]), Edit.model_fields)):
        help_ = f"did you mean `{near}`?"
    problems.error(code, fault.message, where, label=fault.label, help=help_)
