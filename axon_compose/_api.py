"""The front door from Python: `load` a description, look at it, build it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from axon_compose.diagnostics import Diagnostic, Problems
from axon_compose.document import Document, read_document
from axon_compose.plan import Plan, resolve_plan
from axon_compose.registry import LookupFailure, Registry
from axon_compose.source import MAX_BYTES, Node, read, to_source

if TYPE_CHECKING:
    from axon_compose.cost import CostSheet
    from axon_compose.diff import Difference
    from axon_compose.document import Layout
    from axon_compose.huggingface import Config
    from axon_compose.model import LanguageModel
    from axon_compose.weights import LoadPlan, Progress

__all__ = ["Architecture", "compile_text", "load"]


@dataclass(frozen=True)
class Architecture:
    """A description that holds together: read, validated and planned.

    Attributes:
        document: The file with its bases merged in.
        warnings: What was noticed and does not stop a build.
        config: The config.json that the sizes come from, or None.
        sources: Name to text of the files that diagnostics point into.
    """

    document: Document
    warnings: tuple[Diagnostic, ...] = ()
    config: Config | None = None
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    _plan: Plan = field(kw_only=True, repr=False)

    @property
    def name(self) -> str:
        """The file's `name`."""
        return self._plan.name

    def plan(self) -> Plan:
        """The model layer by layer: names, shapes, cache slots and masks. Imports no mlx."""
        return self._plan

    def cost(
        self,
        *,
        context: int | Iterable[int] | None = None,
        dtype: str = "bfloat16",
        batch: int = 1,
        quantize: int | None = None,
        training: bool = False,
        memory: int | None = None,
        bandwidth: float | None = None,
    ) -> CostSheet:
        """What the model costs, counted from the plan; builds nothing and imports no mlx. See `axon_compose.cost`.

        Args:
            context: Tokens of each sequence, one number or several; 4096 and 65536 unless given.
            dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
            batch: Sequences that run together.
            quantize: Bits of quantised weights; not quantised unless given.
            training: Count the memory of a training step too.
            memory: Bytes that there are: does it fit, and how far?
            bandwidth: Bytes that memory moves in a second.

        Raises:
            ValueError: If a number is out of its range.
        """
        from axon_compose.cost import CONTEXTS, cost

        return cost(
            self._plan,
            context=CONTEXTS if context is None else context,
            dtype=dtype,
            batch=batch,
            quantize=quantize,
            training=training,
            memory=memory,
            bandwidth=bandwidth,
        )

    def build(
        self,
        *,
        weights: str | Path | None = None,
        dtype: str | None = None,
        seed: int = 0,
        allow_large: bool = False,
        layout: Layout | None = None,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """The model, with random weights or with those of a checkpoint; see `axon_compose.model.build`.

        Args:
            weights: Folder of a checkpoint that the file's rules can read; random weights unless given.
            dtype: `float32`, `bfloat16` or `float16`; random weights are float32 unless given, those of a checkpoint as
                they come.
            seed: Of the random weights.
            allow_large: Do not compare the size with the memory that is free.
            layout: Who wrote the checkpoint, `huggingface` or `mlx`; the mark in its files unless given.
            progress: Called with the bytes read so far and in all.

        Raises:
            CheckpointError: If the weights do not fit into memory, or are not those of this model.
        """
        from axon_compose.model import build

        if weights is None:
            return build(self._plan, dtype=dtype or "float32", seed=seed, allow_large=allow_large)
        from axon_compose.checkpoint import require
        from axon_compose.model import largest_parts, random_weights
        from axon_compose.weights import load_checkpoint

        load_plan = self.load_plan(weights, layout=layout)
        if not allow_large:
            require(load_plan.nbytes, f"`{self.name}` as it is stored", largest_parts(self._plan))
        model = random_weights(self._plan, seed=seed)
        load_checkpoint(model, load_plan, dtype=dtype, progress=progress)
        model.eval()
        return model

    def load_plan(self, weights: str | Path, *, layout: Layout | None = None) -> LoadPlan:
        """Which tensor of a checkpoint becomes which weight; reads headers alone and imports no mlx.

        Args:
            weights: Folder of the checkpoint.
            layout: Who wrote it, `huggingface` or `mlx`; the mark in its files unless given.

        Raises:
            CheckpointError: With what is missing, unexpected or of another shape, and the rules to blame.
        """
        from axon_compose.weights import checkpoint_plan

        return checkpoint_plan(self._plan, self.document, Path(weights), layout)

    def diff(self, other: Architecture) -> Difference:
        """In what another model differs from this one: what it computes counts, not how the files say it."""
        from axon_compose.diff import compare

        return compare(self._plan, other.plan())

    def lint(self) -> tuple[Diagnostic, ...]:
        """Advice: what is legal and seldom meant, as warnings with codes AX7xx."""
        from axon_compose.lint import advise

        return advise(self.document, self._plan)

    @cached_property
    def data(self) -> dict[str, Any]:
        """The merged description as plain data; `load` reads it back."""
        return self.document.to_dict()


def load(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    checkpoint: str | Path | None = None,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Architecture:
    """Read, validate and plan a description.

    Args:
        source: Path of a YAML file, name of a shipped architecture, or the description as a mapping. With a checkpoint
            it may be left out: the family that reads its model type is taken.
        checkpoint: Folder with a config.json, from which a family file takes its sizes.
        settings: `key.key=value` texts, laid over the file as `--set` does.
        registry: The plugins to use; the installed ones unless given.

    Returns:
        The architecture.

    Raises:
        ArchitectureError: With every fault that was found.
        OSError: If the file cannot be read.
    """
    registry = registry or Registry.installed()
    problems = Problems()
    config = _config(Path(checkpoint), problems) if checkpoint is not None else None
    if source is None:
        source = _family(config, registry, problems)
    given: _Given = {"settings": settings, "config": config, "registry": registry, "problems": problems}
    if isinstance(source, Mapping):
        return _compiled(to_source(dict(source), "<dict>", problems), Path.cwd(), **given)
    path = _find(source, registry)
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    return compile_text(data, str(source), path.parent, **given)


class _Given(TypedDict):
    settings: Iterable[str]
    config: Config | None
    registry: Registry
    problems: Problems


def _config(folder: Path, problems: Problems) -> Config | None:
    from axon_compose.huggingface import read_config  # only checkpoints need it

    return read_config(folder, problems)


def _family(config: Config | None, registry: Registry, problems: Problems) -> str:
    """The name of the family of a checkpoint."""
    from axon_compose.huggingface import family_of

    family = family_of(config, registry, problems) if config else None
    problems.raise_if_any()
    if family is None:
        raise TypeError("give a source, or a checkpoint")
    return family.name


def _find(source: str | Path, registry: Registry) -> Path:
    path = Path(source)
    if isinstance(source, str) and not path.exists() and path.suffix not in (".yaml", ".yml"):
        try:
            return registry.architecture_path(source)
        except LookupFailure:
            pass  # the OSError of the missing file says it better
    return path


def compile_text(
    data: bytes,
    file: str,
    directory: Path,
    *,
    settings: Iterable[str] = (),
    config: Config | None = None,
    registry: Registry,
    problems: Problems,
) -> Architecture:
    """Run the stages up to the plan on the bytes of a file.

    Args:
        data: YAML.
        file: Name for diagnostics.
        directory: Folder in which `extends` may look.
        settings: Texts of `--set`.
        config: The config.json of a checkpoint, for a family file.
        registry: The plugins.
        problems: Collects faults and warnings.

    Raises:
        ArchitectureError: With every fault that was found.
    """
    node = read(data, file, problems)
    return _compiled(node, directory, settings=settings, config=config, registry=registry, problems=problems)


def _compiled(
    node: Node | None,
    directory: Path,
    *,
    settings: Iterable[str],
    config: Config | None,
    registry: Registry,
    problems: Problems,
) -> Architecture:
    overlay = None
    if config is not None:
        from axon_compose.huggingface import overlay_of

        overlay = overlay_of(config)
    document = read_document(
        node, problems, find=registry.architecture_path, directory=directory, settings=settings, overlay=overlay
    )
    plan = resolve_plan(document, registry, problems) if document else None
    problems.raise_if_any()
    assert document is not None
    assert plan is not None
    return Architecture(document, tuple(problems), config, dict(problems.sources), _plan=plan)
