"""An edited model learns from the one that it was made of: its changed layers by themselves, then its predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from axon_compose.diagnostics import CheckpointError, Diagnostic
from axon_compose.learn import Budget, Cadence, Listener, Recipe, Sources, Teaching
from axon_compose.learn._checkpoint import state_options
from axon_compose.learn._train import require_memory, require_place
from axon_compose.learn.data import Prepared, TextBatches, prepare
from axon_compose.learn.distilling import taught_objective
from axon_compose.learn.freezing import freeze_rest
from axon_compose.learn.history import History
from axon_compose.learn.objective import NextTokens, Objective
from axon_compose.learn.ranks import Ranks
from axon_compose.learn.run import Outcome, Run
from axon_compose.learn.trainer import Trainer
from axon_compose.surgery._changed import changed_components, edited_from, size_of_learners
from axon_compose.surgery._comparing import load_pair, names_of
from axon_compose.surgery._healing import NEAR, Healed, Monitor, measured_of
from axon_compose.surgery._kept_tokens import of_tokens
from axon_compose.surgery._matching import LayerMatching, matched_layers
from axon_compose.surgery.recipe import RECIPE, STEPS, recipe_of

__all__ = ["heal"]


def heal(
    edited: str | Path,
    teacher: str | Path,
    data: Sources | str | Path | Sequence[str],
    out: str | Path,
    *,
    recipe: Recipe = RECIPE,
    budget: Budget | None = None,
    first: float = 0.5,
    learn: Iterable[str] = (),
    weight: float = 1.0,
    temperature: float = 1.0,
    by_divergence: bool = True,
    cadence: Cadence | None = None,
    measured: int | None = None,
    tokenizer: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    allow_large: bool = False,
    listeners: Iterable[Listener] = (),
    pages: Callable[[Healed], Mapping[str, bytes]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[Diagnostic], None] | None = None,
) -> Healed:
    """Let an edited model learn to be the one that it was made of, and write it as a folder.

    First each changed layer learns by itself to give what the teacher's layer gives (`LayerMatching`), then the whole
    model to predict what the teacher predicts (`axon_compose.learn.Teaching`). What was not changed stays as it is.
    A model with fewer tokens learns what the teacher predicts over these (`of_tokens`).
    Ctrl-C ends it after the step that is under way; what was learned is saved and can be continued.

    Args:
        edited: The folder that `edit` wrote.
        teacher: The source of the edit: a folder or a GGUF file.
        data: Texts, as for `axon_compose.learn.train`.
        out: The folder to write.
        recipe: Of both stages.
        budget: Of both together; 300 steps unless given.
        first: The part of it for the first stage, from 0 to 1.
        learn: Patterns of what learns beside what was changed, such as `layers.*.mlp`.
        weight: Of the teacher in the second stage; the rest is the text's.
        temperature: Of its predictions there.
        by_divergence: Make the learning rate of each stage of the recipe's, of how far the edit is from its source, and
            of the size of the weights (`axon_compose.surgery.recipe.recipe_of`), and refuse a model that is within a
            thousandth of a nat of its source; else it is the recipe's in both.
        cadence: How often there is an evaluation with its receipt, a sample, a checkpoint, in each stage.
        measured: About how many tokens of held-out text each evaluation reads, with both models, in whole sequences;
            2,048 unless given, but no more than a quarter of the tokens that are learned from, where the budget says
            these.
        tokenizer: That of the edited model unless given.
        resume: Continue an interrupted run in `out`, to the bit; all other arguments are those of the beginning.
        force: Replace an earlier build.
        allow_large: Do not compare the memory of a step with what is free.
        listeners: Called with every step, evaluation, sample and checkpoint.
        pages: Further files for the folder, made of the result.
        progress: Called with the bytes of text that tokens were made of, and in all.
        warn: Called with what does not stop it, once that is known: AX957 the sequences are too short to show what was
            changed; AX958 the divergence has risen.

    Returns:
        Receipts on held-out text before and after, and how the divergence fell.

    Raises:
        CheckpointError: AX807 several processes were launched; AX953 there is nothing to heal; AX954 the edited model
            has tokens that are not one of the teacher each; else as `axon_compose.learn.train` and `receipt_of`.
        Diverged: AX803 the loss is not finite any more.
        ValueError: An argument is out of its range.
    """
    if Ranks.launched().size > 1:
        raise CheckpointError("AX807", "`heal` runs in one process", "start it without a launcher")
    if not 0 <= first <= 1:
        raise ValueError(f"the part of the first stage is from 0 to 1, not {first}")
    out = Path(out)
    if not resume:
        require_place(out, force)
    source, model, record = load_pair(teacher, edited, allow_large=allow_large)
    if not allow_large:
        require_memory(model.plan, recipe)
    record = edited_from(record, source.plan, model.plan)
    if record.vocabulary is not None:
        source = of_tokens(source, record.vocabulary)
    changed = changed_components(record, source.plan, model.plan)
    if not freeze_rest(model, [*changed, *learn]):
        message = f"nothing in `{model.plan.name}` is other than in `{source.plan.name}`, but for layers that are gone"
        raise CheckpointError("AX953", message, "say what shall learn, such as `--learn 'layers.*'`")
    size = size_of_learners(model)
    text = prepare(
        Sources.of(data),
        tokenizer or edited,
        vocabulary=int(model.plan.dims.vocab_size),
        trained=True,
        progress=progress,
    )
    batches = TextBatches(text, batch=recipe.batch, length=recipe.length, seed=recipe.seed)
    budget = budget or Budget("steps", STEPS)
    monitor = Monitor(source, model, record, batches, names_of(teacher, edited), measured_of(budget, recipe, measured))
    told = warn or (lambda warning: None)
    for warning in monitor.unreached:
        told(warning)
    _require_distance(monitor, asked=not by_divergence or weight < 1)
    stages = list(_stages(monitor, changed, recipe, budget, first, weight, temperature))
    if resume:
        began = state_options(out).get("stage")
        stages = stages[-1:] if began == stages[-1].name else stages
        monitor.take_up(out, stages[0].name)
    runs = _Runs(
        monitor,
        text,
        batches,
        lambda stage: recipe_of(recipe, stage, monitor.before.divergence, size) if by_divergence else recipe,
        out,
        cadence,
        tuple(listeners),
        pages,
        force=force or resume,
        resume=resume,
    )
    for number, stage in enumerate(stages):
        outcome, history = runs.run(stage, first=not number, last=stage is stages[-1])
        if not outcome.finished:
            break
    found = monitor.result(outcome, history)
    for warning in found.warnings[len(monitor.unreached) :]:
        told(warning)
    return found


def _require_distance(monitor: Monitor, asked: bool) -> None:
    """AX953 where a model predicts what its source does and nobody asks for more: short steps would do it harm."""
    found = monitor.before.divergence
    if found < NEAR and not asked and not monitor.unreached:
        message = f"the divergence from the source is {found:.2g} nats a token, and below {NEAR:g} learning does harm"
        hint = "keep the model as it was edited; `--learning-rate` lets it learn all the same"
        raise CheckpointError("AX953", message, hint)


@dataclass(frozen=True)
class _Stage:
    """A part of healing: `layers` or `logits`."""

    name: str
    objective: Objective
    budget: Budget


@dataclass(frozen=True)
class _Runs:
    """What all stages have in common."""

    monitor: Monitor
    text: Prepared
    batches: TextBatches
    recipe: Callable[[str], Recipe]
    out: Path
    cadence: Cadence | None
    listeners: tuple[Listener, ...]
    pages: Callable[[Healed], Mapping[str, bytes]] | None
    force: bool
    resume: bool

    def run(self, stage: _Stage, *, first: bool, last: bool) -> tuple[Outcome, History]:
        """One stage, into the folder that the one before it has left."""
        monitor, pages = self.monitor, self.pages
        monitor.begin(stage.name)
        recipe = self.recipe(stage.name)
        trainer = Trainer(monitor.model, self.batches, recipe, stage.budget, objective=stage.objective)

        def judge() -> Mapping[str, float]:
            found = monitor.measure()
            # The trainer says where a number ceases to be finite; a perplexity can be none where the loss is.
            return found if isfinite(found["loss"]) else {**found, **trainer.evaluate()}

        run = Run(
            trainer,
            self.out,
            text=self.text,
            tokenizer=self.text.maker.choice,
            cadence=self.cadence,
            listeners=self.listeners,
            pages=lambda history: pages(monitor.result(None, history)) if pages else {},
            judge=judge,
            more=monitor.write,
            last=last,
            force=self.force or not first,
        )
        if not first:
            run.checkpoint(done=False)  # what was measured at the end of the stage before is its beginning
        elif self.resume:
            run.resume()
        else:
            run.start()
        outcome = run.run()
        monitor.end(run.history)
        return outcome, run.history


def _stages(
    monitor: Monitor,
    changed: Sequence[str],
    recipe: Recipe,
    budget: Budget,
    first: float,
    weight: float,
    temperature: float,
) -> Iterator[_Stage]:
    source, model = monitor.source, monitor.model
    others = [path for path in changed if path not in monitor.reach]  # what windows hide, no layer finds by itself
    layers = matched_layers(model, source, monitor.record.origins, others)
    part = first if layers else 0.0
    if part:
        yield _Stage(
            "layers", LayerMatching(source, monitor.record.origins, layers), Budget(budget.unit, budget.amount * part)
        )
    if part < 1:
        teaching = Teaching(source, weight, temperature)
        teaching.require(model)
        taught: Any = taught_objective(teaching, NextTokens(model.plan, recipe))
        taught.options = taught.options | {"stage": "logits"}
        yield _Stage("logits", taught, Budget(budget.unit, budget.amount * (1 - part)))
