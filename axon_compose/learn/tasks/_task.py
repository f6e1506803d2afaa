"""A task with its options: from the text of a command line, to arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from axon_compose.diagnostics import Refusal
from axon_compose.registry import DEBUG_HELP, Guard, PluginFault, Raised, Registry, TaskSpec, check_options, load_task

if TYPE_CHECKING:
    from axon_compose.learn.tasks._draw import Drawn, Integers

__all__ = ["Task", "parse_task", "read_task"]

_FORM: Final = "write it as `mqar:pairs=32,vocab=64`"


@dataclass(frozen=True)
class Task:
    """A skill task, ready to draw.

    Attributes:
        name: As it is written: `mqar`, or `plugin/name`.
        spec: Its record.
        options: Checked: an instance of its model, or a dict with the defaults of its schema filled in.
        given: The options that were written.
    """

    name: str
    spec: TaskSpec
    options: Any
    given: Mapping[str, Any]

    def __str__(self) -> str:
        """As the command line has it."""
        written = ",".join(f"{name}={json.dumps(value).strip(chr(34))}" for name, value in self.given.items())
        return f"{self.name}:{written}" if written else self.name

    @property
    def vocab_size(self) -> int:
        """Tokens that it needs."""
        return int(self._asked("vocabulary", lambda value: value == int(value) >= 1))

    @property
    def length(self) -> int:
        """Tokens of a sequence in training."""
        return int(self._asked("length", lambda value: value == int(value) >= 1))

    @property
    def chance(self) -> float:
        """The accuracy of the best answer that is given without reading the sequence."""
        return float(self._asked("chance", lambda value: 0 <= value <= 1))

    def draw(self, batch: int, *, seed: int, step: int, held_out: bool = False) -> Drawn:
        """Tokens and targets, both (batch, L) int32; targets are -100 where nothing is scored.

        Args:
            batch: How many sequences.
            seed: Of the whole run.
            step: Which batch; the same arguments give the same arrays.
            held_out: Draw from those that evaluation uses, which no step of training sees.

        Raises:
            PluginFault: `AX904`, the code of the task raises, or gives something else than tokens and targets.
        """
        import numpy as np

        from axon_compose.learn.tasks._draw import Draw

        make = load_task(self.spec)
        draw = Draw(np.random.default_rng([seed, int(held_out), step]), batch, held_out)
        try:
            with Guard(None):
                tokens, targets = (np.asarray(each) for each in make(self.options, draw))
                fault = next(self._faults(tokens, targets, batch, None if held_out else self.length), None)
        except Raised as raised:
            raise PluginFault("AX904", f"the task `{self.name}` cannot be drawn: {raised}", DEBUG_HELP) from raised
        if fault:
            raise PluginFault("AX904", f"the task `{self.name}` gives wrong arrays: {fault}")
        return tokens.astype(np.int32), targets.astype(np.int32)

    def _faults(self, tokens: Integers, targets: Integers, batch: int, length: int | None) -> Iterator[str]:
        if tokens.shape != targets.shape or tokens.ndim != 2 or len(tokens) != batch or not tokens.size:
            yield f"tokens are {tokens.shape} and targets {targets.shape}, where both must be ({batch}, L)"
        elif length is not None and tokens.shape[1] != length:
            yield f"sequences have {tokens.shape[1]} tokens, where its record says {length}"
        elif tokens.dtype.kind not in "iu" or targets.dtype.kind not in "iu":
            yield f"tokens are {tokens.dtype} and targets {targets.dtype}, where both must be integers"
        elif tokens.min() < 0 or tokens.max() >= self.vocab_size or targets.max() >= self.vocab_size:
            yield f"a token is not from 0 to {self.vocab_size - 1}, though its vocabulary is {self.vocab_size}"
        elif ((targets < 0) & (targets != -100)).any():
            yield "a target is below 0 and not -100"
        elif (targets < 0).all():
            yield "no position is scored"

    def _asked(self, name: str, right: Callable[[Any], bool]) -> Any:
        """What the record says of the options, if that can be."""
        try:
            with Guard():
                value = getattr(self.spec, name)(self.options)
        except Raised as raised:
            raise PluginFault("AX904", f"`{name}` of the task `{self.name}` raises {raised}", DEBUG_HELP) from raised
        try:
            fits = right(value)
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise PluginFault("AX904", f"`{name}` of the task `{self.name}` cannot be {value!r}")
        return value


def read_task(text: str | Task, registry: Registry | None = None) -> Task:
    """The task that a text names: `mqar:pairs=32,vocab=64`.

    Args:
        text: Name and options; a task is given back as it is.
        registry: The plugins to use; the installed ones unless given.

    Raises:
        LookupFailure: `AX901` for an unknown task, and what registries say of unknown plugins.
        Refusal: `AX902`, an option is unknown or its value does not fit; `AX903`, the text has another form.
    """
    if isinstance(text, Task):
        return text
    registry = registry or Registry.installed()
    name, given = parse_task(text)
    spec = registry.task(name)
    options, faults = check_options(spec, given)
    if faults:
        fault, *more = faults
        details = [": ".join(filter(None, (each.message, each.label))) for each in more]
        message = ": ".join(filter(None, (fault.message, fault.label)))
        raise Refusal("AX902", f"the task `{name}`: {message}", fault.help or _described(name), details)
    return Task(name.removeprefix("core/"), spec, options, given)


def parse_task(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a task as written; values are numbers, true, false, null or text.

    Raises:
        Refusal: `AX903`, the text has another form.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    given: dict[str, Any] = {}
    for part in rest.split(",") if rest or colon else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option or not equals or not value:
            raise Refusal("AX903", f"`{part.strip()}` in `{text}` is not an option and its value", _FORM)
        if option in given:
            raise Refusal("AX903", f"`{option}` is given twice in `{text}`", "give it once")
        given[option] = _value(value)
    if not name:
        raise Refusal("AX903", f"`{text}` names no task", _FORM)
    return name, given


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, dict | list) else value


def _described(name: str) -> str:
    return f"`axon-compose describe {name}` lists its options"
