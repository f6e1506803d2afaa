"""A built folder as an export sees it: its weights by the names of the plan, and the config.json of its stock model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from axon_compose.analysis.diff import compare
from axon_compose.checkpoints.built import is_adapter, read_built
from axon_compose.checkpoints.files import (
    CheckpointError,
    TensorSpec,
    load_weights,
    read_header,
)
from axon_compose.checkpoints.files._copied_tokenizer import copied_tokenizer
from axon_compose.checkpoints.files._generation import GENERATION_FILE, read_generation
from axon_compose.checkpoints.files._record import dump_json
from axon_compose.checkpoints.files._trust import without_code
from axon_compose.checkpoints.folder_config import without_infinity
from axon_compose.checkpoints.huggingface import (
    family_of,
    model_type_of,
    original_config,
    overlay_of,
    whole_config,
    with_dims,
)
from axon_compose.checkpoints.huggingface._said import dims_that_say, other_model
from axon_compose.checkpoints.weights import SavePlan
from axon_compose.diagnostics import ArchitectureError, Problems
from axon_compose.language.config import make_config
from axon_compose.language.document import HuggingFace, Layout
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.language.source import to_source
from axon_compose.machine.files import read_regular
from axon_compose.model.names import CONFIG_KEY, FolderNames, description_in
from axon_compose.plan import Compiled, compile_source, compile_text
from axon_compose.registry import Registry

__all__ = ["Exported", "config_json"]

_FLOATS: Final = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_IDS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")


class Exported:
    """A folder of ours: its description, what its sizes came from, and the headers of its weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = _read(folder)
        described = description_in(self.written)
        self.source: Mapping[str, Any] | None = described.get("source")
        self.architecture: Compiled = compile_source(described["architecture"])
        self.plan = self.architecture.plan()
        section = self.architecture.document.huggingface
        if section is None or not section.weights:
            raise CheckpointError(
                "AX557",
                f"`{self.plan.name}` has no rules for tensors",
                "`huggingface.weights` says which tensor is which weight; the shipped families have it",
            )
        self.section = section
        self.stock: tuple[HuggingFace, Mapping[str, Any]] = section, {}
        headers = (read_header(path) for path in sorted(folder.glob("model*.safetensors")))
        self.names = FolderNames(self.plan, self.written)
        self.found = {self.names.in_plan(name): entry.shape for header in headers for name, entry in header.items()}

    def known(self, layout: Layout) -> list[str]:
        """The kinds of names of the checkpoint that the folder was built from, if it had this layout and this type."""
        if self.source is not None:
            written = original_config(self.source, self.section).get("model_type")
            if self.section.model_types and written not in self.section.model_types:
                return []  # the loader of another type, which has names of its own
        origin = self.written[CONFIG_KEY].get("tensors")
        same = isinstance(origin, dict) and origin.get("layout") == layout
        return list(map(str, origin.get("names", ()))) if same else []

    @property
    def quantised(self) -> bool:
        """Whether weights are packed."""
        return any(name.endswith(".scales") and name not in dict(self.plan.parameters()) for name in self.found)

    def weights(self) -> dict[str, Any]:
        """The lazy arrays of the folder, by the names of the plan."""
        expected = {self.names.in_folder(name): shape for name, shape in self.shapes().items()}
        return {self.names.in_plan(name): array for name, array in load_weights(self.folder, expected).items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every array that the folder must hold: the parameters, or the members of packed ones as they are."""
        expected: dict[str, tuple[int, ...]] = {}
        for name, shape in self.plan.parameters():
            base = name.removesuffix("weight")
            members = [f"{base}{end}" for end in ("weight", "scales", "biases") if f"{base}{end}" in self.found]
            packed = name.endswith(".weight") and f"{base}scales" in members
            expected |= {member: self.found[member] for member in members} if packed else {name: shape}
        return expected

    def config(self, save_plan: SavePlan, specs: list[TensorSpec]) -> dict[str, Any]:
        """The config.json of a stock model that is this one.

        Raises:
            CheckpointError: AX609 no model type; AX610 the stock model is another one.
        """
        names = frozenset(spec.name for spec in save_plan.specs)
        dims = self.architecture.document.dims
        dtype = _dtype(specs)
        if self.source is not None:
            config = original_config(without_code(self.source)[0], self.section)
            stock = self._stock(config, names)
            changed = {
                name: dims[name]
                for name, value in stock.document.dims.items()
                if name in dims and dims[name] != value and not _follows(stock, self.architecture, name)
            }
            config = with_dims(config, self.stock[0], changed)
            given = [name for name in ("dtype", "torch_dtype") if name in config]
            config |= {name: dtype for name in given if config[name] != dtype}
        else:
            if not self.section.model_types:
                message = f"`{self.plan.name}` names no model type that a stock loader knows"
                raise CheckpointError(
                    "AX609", message, "`huggingface.model_types` says it; the shipped families have it"
                )
            first = {"model_type": model_type_of(self.section, dims), "architectures": self.section.architectures}
            defaults = self._stock(first, names).document.dims
            config = whole_config(self.stock[0], dims, defaults) | {"torch_dtype": dtype}
            config |= {name: self.written[name] for name in _IDS if self.written.get(name) is not None}
        return self._settled(config, names)

    def _stock(self, config: Mapping[str, Any], tensors: frozenset[str]) -> Compiled:
        """What the shipped family makes of a configuration; the file's own rules where no family reads it."""
        problems, registry = Problems(), Registry.installed()
        node = to_source(without_infinity(dict(config)), "config.json", problems)
        assert isinstance(node, MappingNode)
        laid = make_config(self.folder, node, lambda: tensors)
        family = family_of(laid, registry, Problems())
        text = read_regular(family.path) if family else config_json(self.architecture.data)
        place = family.path.parent if family else self.folder
        name = family.name if family else self.plan.name
        ignored = f"huggingface.ignore={json.dumps(self.section.ignore)}"  # what a setting has let pass is in the file
        stock = compile_text(
            text,
            name,
            place,
            settings=[ignored],
            config=laid,
            overlay=overlay_of(laid),
            registry=registry,
            problems=problems,
        )
        self.stock = stock.document.huggingface or self.section, stock.document.dims
        return stock

    def _settled(self, config: dict[str, Any], tensors: frozenset[str]) -> dict[str, Any]:
        """The configuration of this model: options that were changed in its file go to the fields that say them.

        Raises:
            CheckpointError: AX610.
        """
        stock = self._stock(config, tensors)
        first = changes = compare(self.plan, stock.plan()).changes
        for said in dims_that_say(changes, stock):
            kept, better = self.stock, with_dims(config, self.stock[0], said)
            try:
                closer = self._stock(better, tensors)
            except ArchitectureError:  # no value for this field
                self.stock = kept
                continue
            left = compare(self.plan, closer.plan()).changes
            if len(left) < len(changes):
                config, stock, changes = better, closer, left
            else:
                self.stock = kept
        if changes:
            # What a field brought along is none of the file's: then all is shown that the file has otherwise.
            raise other_model(config["model_type"], [change for change in first if change in changes] or first, stock)
        return config

    def files(self) -> dict[str, bytes]:
        """What is taken over as it is: the tokenizer, and how text is generated."""
        has_tokenizer = (self.folder / "tokenizer.json").exists()
        found = dict(copied_tokenizer(self.folder)) if has_tokenizer else {}
        generation = read_generation(self.folder)
        return found | ({GENERATION_FILE: dump_json(generation)} if generation else {})


def _follows(stock: Compiled, ours: Compiled, name: str) -> bool:
    """Whether a dim is the same formula in both files: then it changes with those that it is made of."""
    written = [architecture.document.envelope.dims.get(name) for architecture in (stock, ours)]
    return isinstance(written[0], str) and written[0].startswith("=") and written[0] == written[1]


def _read(folder: Path) -> dict[str, Any]:
    """The config.json of a folder of ours.

    Raises:
        CheckpointError: AX560.
    """
    if is_adapter(folder):
        hint = f"`axon-compose build {folder} --out DIR` joins the two: export DIR"
        raise CheckpointError("AX560", f"`{folder}` holds adapters without their model", hint)
    return dict(read_built(folder).written)


def _dtype(specs: list[TensorSpec]) -> str:
    """The type that most numbers have, packed ones left aside."""
    sizes: Counter[str] = Counter()
    for spec in specs:
        if spec.code in _FLOATS:
            sizes[_FLOATS[spec.code]] += spec.nbytes
    return sizes.most_common(1)[0][0] if sizes else "float32"


def config_json(value: Any) -> bytes:
    """JSON in the order given; infinity as every reader of config.json in Python knows it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
