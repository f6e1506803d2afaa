"""The record of a skill task: what is asked of a model, before any of its code is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from axon_compose.record import record
from axon_compose.registry._code import MODULE
from axon_compose.registry._options import load_factory, option_names
from axon_compose.registry._records import options_fault

__all__ = ["TaskSpec", "load_task", "task_fault"]


@record
class TaskSpec:
    """A task that isolates a skill, generated from a seed. Cheap to import: nothing here may import mlx or NumPy.

    Attributes:
        name: Its name inside the plugin's namespace, e.g. `mqar`; on the command line `namespace/name`, and for the
            namespace `core` also just `name`.
        options: How difficult it is: a pydantic model class (strict, extra forbidden) or a JSON Schema of an object.
        module: `package.module:attribute`, imported when batches are drawn and called as `make(options, draw)`. `draw`
            has `rng`, a `numpy.random.Generator`; `batch`, how many sequences; and `held_out`, whether they are for
            evaluation. It returns tokens and targets, both (batch, L) of integers. The target of a position is what a
            model shall predict there, and -100 where it is not scored. It must be a function of these alone.
        summary: One line.
        vocabulary: `(options)` to the number of tokens, which becomes `vocab_size` of the models.
        length: `(options)` to the tokens of a sequence in training.
        chance: `(options)` to the accuracy of the best answer that is given without reading the sequence.
        source: Where it was published.
        head: `package.module:attribute`, called as `head(model)`; a module that is trained in the model's place and
            holds it, for tasks that read something else than its own logits. None for the model itself.
        examples: Valid option mappings; `describe` shows the first one.
    """

    name: str
    options: type | Mapping[str, Any]
    module: str
    summary: str
    vocabulary: Callable[[Any], int]
    length: Callable[[Any], int]
    chance: Callable[[Any], float]
    source: str = ""
    head: str | None = None
    examples: tuple[Mapping[str, Any], ...] = ()


def task_fault(spec: TaskSpec) -> str | None:
    """What is wrong with the record of a task, or None."""
    return next(_faults(spec), None)


def _faults(spec: TaskSpec) -> Iterator[str]:
    if fault := options_fault(spec.options):
        yield fault
    for place in (spec.module, *([] if spec.head is None else [spec.head])):
        if not isinstance(place, str) or not MODULE.fullmatch(place):
            yield f"module `{place}` is not of the form `package.module:attribute`"
    for name in ("vocabulary", "length", "chance"):
        if not callable(getattr(spec, name)):
            yield f"`{name}` must be a function of options"
    if not isinstance(spec.summary, str):
        yield "`summary` must be a text"
    for example in spec.examples:
        if not isinstance(example, Mapping):
            yield "`examples` must be a tuple of mappings"
        elif unknown := next((name for name in example if name not in option_names(spec)), None):
            yield f"an example has `{unknown}`, which is not an option"


def load_task(spec: TaskSpec) -> Callable[[Any, Any], Any]:
    """Import the code of a task: `make(options, draw)` gives tokens and targets.

    Raises:
        PluginFault: `AX208`, the code cannot be imported or is not there.
    """
    return load_factory(spec, f"the task `{spec.name}`")
