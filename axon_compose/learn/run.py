"""A run: steps, and between them evaluation, samples, the record and the folder, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from math import log
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from axon_compose.checkpoints.files import check_target
from axon_compose.checkpoints.saved import save
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn._outcome import Outcome
from axon_compose.learn._stop import Stop
from axon_compose.learn.cadence import Cadence
from axon_compose.learn.data import Prepared
from axon_compose.learn.history import History
from axon_compose.learn.metrics import Metrics
from axon_compose.learn.sampling import sample
from axon_compose.learn.trainer import Diverged, Trainer
from axon_compose.model import LanguageModel

__all__ = ["Listener", "Outcome", "Run"]


class Listener(Protocol):
    """What is called with the events of a run."""

    def step(self, metrics: Metrics, part: float) -> None:
        """A step is done, and with it a part of the budget, from 0 to 1."""

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """What is held out was evaluated; `loss`, `bits_per_byte` of texts, and `accuracy` of a task."""

    def sample(self, line: Mapping[str, Any]) -> None:
        """The model wrote a `text`."""

    def checkpoint(self, folder: Path, steps: int) -> None:
        """The folder was written, after this number of steps."""


class Run:
    """One run of a trainer, into one folder; of several ranks the first one writes it, and all end together.

    The folder is a model that mlx_lm runs, from the first checkpoint on. Until the run is finished it also has
    `training.safetensors`, from which it can be continued; always it has `metrics.jsonl`.

    Args:
        trainer: What is trained.
        out: The folder.
        text: What the tokens were made of, for samples and bits per byte; None for other data.
        tokenizer: What the folder's tokenizer is made from; see `axon_compose.save`.
        model: What is written, if the trainer's model has more than it: the head of a task.
        accuracy: Whether an evaluation counts right answers, as of a task.
        cadence: How often what is done.
        listeners: Called with every step, evaluation, sample and checkpoint.
        pages: Further files for the folder, made of the record at the end: name to content.
        judge: What an evaluation finds, its `loss` above all; what the trainer finds on what is held out unless given.
        more: Writes further files into the folder, each time it is written anew.
        last: Whether the folder is done when the budget is spent; if not, another run goes on from its state.
        force: Replace an earlier build.
    """

    def __init__(
        self,
        trainer: Trainer,
        out: Path,
        *,
        text: Prepared | None = None,
        tokenizer: str | Path | None = None,
        model: LanguageModel | None = None,
        accuracy: bool = False,
        cadence: Cadence | None = None,
        listeners: Iterable[Listener] = (),
        pages: Callable[[History], Mapping[str, bytes]] | None = None,
        judge: Callable[[], Mapping[str, float]] | None = None,
        more: Callable[[Path], None] | None = None,
        last: bool = True,
        force: bool = False,
    ) -> None:
        self.judge, self.more, self.last = judge, more, last
        self.trainer, self.out, self.text, self.tokenizer = trainer, out, text, tokenizer
        self.model, self.accuracy = model or trainer.model, accuracy
        self.cadence, self.listeners, self.pages = cadence or Cadence(), tuple(listeners), pages
        self.history, self._force = History(), force
        self._kept: int | None = None  # steps of the last checkpoint

    def resume(self) -> None:
        """Take up what an earlier run has left in the folder.

        Raises:
            CheckpointError: AX801, AX802, AX804; AX502 the folder has files of somebody else, and AX503 it cannot be
                written.
        """
        with self._by_the_first() as first:
            if first:
                check_target(self.out, force=True)
        self.trainer.restore(self.out)
        self._kept, self._force = self.trainer.spent.steps, True
        with self._by_the_first() as first:
            if first:
                self.history = History.read(self.out, self._kept)
                self.history.replace(self.out)

    def start(self) -> None:
        """Write the folder as it is before the first step, and look at the model.

        Raises:
            CheckpointError: AX501 to AX504 the folder cannot be written.
            Diverged: AX803 the model has no finite loss as it is.
        """
        with self._by_the_first() as first:
            if first:
                check_target(self.out, self._force)
        self._evaluate()
        self.checkpoint(done=False)

    def run(self) -> Outcome:
        """Train until the budget is spent or somebody asks for an end (Ctrl-C).

        Raises:
            Diverged: AX803; the folder is the last checkpoint.
        """
        last = float("nan")
        with Stop() as stop, self.trainer.ranks.stepping(Diverged), self._telling_what_is_kept():
            while not (self.trainer.done or self._asked(stop)):
                before = self._part()
                metrics = self.trainer.step()
                last = metrics.loss
                self.history.add("step", **metrics.to_dict())
                for listener in self.listeners:
                    listener.step(metrics, min(self._part(), 1.0))
                self._between(before, self._part())
            asked = self._asked(stop)
            written = self._ended(asked)
        finished = self.trainer.done and (self.last or not asked)
        return self._outcome(last, written, finished=finished)

    def _asked(self, stop: Stop) -> bool:
        """Whether somebody asks for an end, in any rank: then all of them end after the same step."""
        return self.trainer.ranks.any(stop.asked)

    @contextmanager
    def _by_the_first(self) -> Iterator[bool]:
        """What only the first rank does, while the others wait for it; an error there ends all."""
        ranks = self.trainer.ranks
        with ranks.together():
            yield ranks.first
            ranks.exchanged(None)

    @contextmanager
    def _telling_what_is_kept(self) -> Iterator[None]:
        try:
            yield
        except Diverged as error:
            kept = f"`{self.out}` is the checkpoint from before step {self._kept:,}"
            raise Diverged(error.code, error.message, error.help, [kept]) from error

    def checkpoint(self, *, done: bool) -> None:
        """Write the folder anew, whole or not at all; with what is needed to continue unless `done`.

        Raises:
            CheckpointError: AX501 to AX504 the folder cannot be written. If it has files of somebody else by now, the
                state of the run is written all the same.
            Diverged: AX803 the weights are good for nothing; the folder is what it was.
        """
        self.trainer.require_finite()

        def more(folder: Path) -> None:
            self.history.write(folder)
            if self.more:
                self.more(folder)
            if not done:
                self.trainer.write(folder)
            for name, content in (self.pages(self.history) if done and self.pages else {}).items():
                (folder / name).write_bytes(content)

        with self.trainer.state.collected(None if done else self.out), self._by_the_first() as first:
            if first:
                self._save(more)
        self._force, self._kept = True, self.trainer.spent.steps
        for listener in self.listeners:
            listener.checkpoint(self.out, self.trainer.spent.steps)

    def _save(self, more: Callable[[Path], None]) -> None:
        try:
            save(self.model, self.out, tokenizer=self.tokenizer, force=self._force, more=more)
        except CheckpointError as error:
            if error.code != "AX502" or self._kept is None:
                raise
            self.trainer.save(self.out)  # somebody has put a file there since: what was learned is not lost
            hint = "move those files, and continue with `--resume`"
            raise CheckpointError(error.code, error.message, hint) from error
        self.history.follow(self.out)

    def _part(self) -> float:
        return self.trainer.budget.part(self.trainer.spent)

    def _between(self, before: float, after: float) -> None:
        """What comes after a step; the end has it all once more, so the last time is left to that."""
        if after >= 1:
            return
        due = self.cadence.due
        if due(self.cadence.evaluations, before, after):
            self._evaluate()
        if due(self.cadence.samples, before, after):
            self._sample()
        if due(self.cadence.checkpoints, before, after):
            self.checkpoint(done=False)

    def _ended(self, asked: bool) -> str | None:
        """Evaluate and write a text where the run is finished, and the folder in any case."""
        if self.trainer.done and not asked:
            self._evaluate()
        written = self._sample() if self.trainer.done and not asked and self.cadence.samples else None
        self.checkpoint(done=self.trainer.done and self.last)
        return written

    def _evaluate(self) -> None:
        began, line = time.perf_counter(), self._place()
        found = dict(self.judge() if self.judge else self.trainer.evaluate(accuracy=self.accuracy))
        if not found.pop("tokens"):
            return
        line |= found | {"duration": time.perf_counter() - began}
        if self.text is not None and self.text.bytes_per_token:
            line["bits_per_byte"] = line["loss"] / log(2) / self.text.bytes_per_token
        self.history.add("evaluation", **line)
        for listener in self.listeners:
            listener.evaluation(line)

    def _sample(self) -> str | None:
        """What the model writes, if its tokens are those of a text; the first rank lets it write."""
        if self.text is None:
            return None
        with self.trainer.state.collected():
            return self._written(self.text) if self.trainer.ranks.first else None

    def _written(self, text: Prepared) -> str:
        maker, cadence = text.maker, self.cadence
        (prompt,) = maker.encode([cadence.prompt])
        begin = [] if maker.end is None else [maker.end]
        tokens = sample(
            self.trainer.model, [*begin, *prompt.tolist()] or [0], cadence.sample_tokens, end=maker.end,
            seed=self.trainer.recipe.seed % 2**32,
        )  # fmt: skip
        found = cadence.prompt + maker.decode(tokens)
        line = self._place() | {"text": found}
        self.history.add("sample", **line)
        for listener in self.listeners:
            listener.sample(line)
        return found

    def _place(self) -> dict[str, Any]:
        spent: dict[str, Any] = asdict(self.trainer.spent)
        return {"step": spent.pop("steps")} | spent

    def _outcome(self, loss: float, written: str | None, *, finished: bool) -> Outcome:
        spent = self.trainer.spent
        evaluated = self.history.last("evaluation") or {}
        if evaluated.get("step") != spent.steps:  # of weights that are others by now
            evaluated = {}
        return Outcome(
            out=self.out,
            finished=finished,
            **asdict(spent),
            loss=loss,
            held_out=evaluated.get("loss"),
            bits_per_byte=evaluated.get("bits_per_byte"),
            accuracy=evaluated.get("accuracy"),
            sample=written,
            peak_memory=int(mx.get_peak_memory()),
            history=self.history,
        )
