"""What models learn from, and how it is scored: a skill task or text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import log
from typing import TYPE_CHECKING, Any, Protocol

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.tasks import Task, read_task
from axon_compose.registry import DEBUG_HELP, Guard, PluginFault, Raised, load_factory

if TYPE_CHECKING:
    from axon_compose.learn.batches import Batches
    from axon_compose.learn.data import Prepared
    from axon_compose.learn.ranks import Ranks
    from axon_compose.model import LanguageModel

__all__ = ["Material", "TaskMaterial", "TextMaterial", "prepared_once"]


class Material(Protocol):
    """What models learn, and how it is scored.

    Attributes:
        name: As the command line has it.
        vocab_size: Tokens that the models need.
        length: Tokens of a sequence.
        chance: The accuracy of a blind answer; None where the loss is the score.
        digest: Of text and tokenizer, for a race that goes on; None for a task, whose name says it all.
    """

    name: str
    vocab_size: int
    length: int
    chance: float | None
    digest: str | None

    def batches(self, batch: int, seed: int) -> Batches:
        """What a run with this seed learns from."""

    def wrapped(self, model: LanguageModel, seed: int) -> LanguageModel:
        """The model, or what is trained in its place; what that adds begins with a seed."""

    def scored(self, batch: int) -> int:
        """Held-out targets of an evaluation."""

    def bits(self, loss: float) -> float | None:
        """A loss in nats a token as bits a byte, for text."""


@dataclass
class TaskMaterial:
    """A skill task, scored by accuracy.

    Args:
        task: What is asked.
    """

    task: Task
    name: str = field(init=False)
    vocab_size: int = field(init=False)
    length: int = field(init=False)
    chance: float | None = field(init=False)
    digest: str | None = None

    def __post_init__(self) -> None:
        """Ask the record once."""
        self.name, self.vocab_size = str(self.task), self.task.vocab_size
        self.length, self.chance = self.task.length, self.task.chance

    @classmethod
    def of(cls, text: str | Task) -> TaskMaterial:
        """The task that a text names."""
        return cls(read_task(text))

    def batches(self, batch: int, seed: int) -> Batches:
        """What a run with this seed learns from."""
        from axon_compose.learn.tasks._batches import TaskBatches

        return TaskBatches(self.task, batch=batch, seed=seed)

    def wrapped(self, model: LanguageModel, seed: int) -> LanguageModel:
        """The model, or the head of the task that holds it."""
        spec = self.task.spec
        if spec.head is None:
            return model
        import mlx.core as mx

        mx.random.seed(seed)
        factory: Any = load_factory(replace(spec, module=spec.head), f"the task `{self.task.name}`")
        try:
            with Guard(None):
                made: LanguageModel = factory(model)
        except Raised as raised:
            message = f"the head of the task `{self.task.name}` raises {raised}"
            raise PluginFault("AX904", message, DEBUG_HELP) from raised
        return made

    def scored(self, batch: int) -> int:
        """Held-out targets of an evaluation."""
        return _counted(self.batches(batch, 0))

    def bits(self, loss: float) -> float | None:
        """None: there are no bytes."""
        return None


@dataclass
class TextMaterial:
    """Text, scored by the loss on documents that are held out.

    Args:
        name: As the command line has it.
        prepared: Its tokens.
        length: Tokens of a sequence.
    """

    name: str
    prepared: Prepared
    length: int
    vocab_size: int = field(init=False)
    chance: float | None = None
    digest: str | None = field(init=False)

    def __post_init__(self) -> None:
        """The vocabulary is the tokenizer's."""
        self.vocab_size, self.digest = self.prepared.maker.size, self.prepared.digest

    @classmethod
    def of(cls, data: Any, tokenizer: str = "bytes", length: int = 128) -> TextMaterial:
        """The text that names of files, folders or `python-docs` stand for; several processes have the same."""
        from axon_compose.learn.data import Sources, prepare
        from axon_compose.learn.ranks import Ranks

        names = (data,) if isinstance(data, str) else tuple(data)
        prepared = prepared_once(Ranks.launched(), lambda: prepare(Sources(names), tokenizer))
        return cls(" ".join(map(str, names)), prepared, length)

    def batches(self, batch: int, seed: int) -> Batches:
        """What a run with this seed learns from."""
        from axon_compose.learn.data import TextBatches

        return TextBatches(self.prepared, batch=batch, length=self.length, seed=seed)

    def wrapped(self, model: LanguageModel, seed: int) -> LanguageModel:
        """The model."""
        return model

    def scored(self, batch: int) -> int:
        """Held-out targets of an evaluation."""
        return _counted(self.batches(batch, 0))

    def bits(self, loss: float) -> float | None:
        """Bits a byte of the held-out text."""
        return loss / log(2) / self.prepared.bytes_per_token


def prepared_once(ranks: Ranks, work: Callable[[], Prepared]) -> Prepared:
    """Texts that the first process prepares before the others, who find its tokens where they share a disk.

    Raises:
        CheckpointError: AX806 two processes have other texts.
    """
    with ranks.together():
        found: Prepared = ranks.in_turn(work)
        if ranks.broadcast(found.digest) != found.digest:
            hint = "give all processes the same texts and the same tokenizer"
            raise CheckpointError("AX806", f"process {ranks.rank} has other texts than process 0", hint)
        ranks.exchanged(None)
    return found


def _counted(batches: Batches) -> int:
    return sum(int((targets >= 0).sum()) for _, targets in batches.held_out())
