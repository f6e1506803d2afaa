"""Everything that a run is made of, put together: a description, texts and a recipe to a folder that has learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from axon_compose.analysis.cost import cost
from axon_compose.analysis.devices._training import training_strategies
from axon_compose.checkpoints.built import model_folder
from axon_compose.checkpoints.files import check_target
from axon_compose.checkpoints.folder import usual_tokenizer
from axon_compose.checkpoints.trained import build_trained, plan_trained
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn._checkpoint import STATE_FILE
from axon_compose.learn.budget import Budget
from axon_compose.learn.cadence import Cadence
from axon_compose.learn.data import Sources, prepare
from axon_compose.learn.distilling import Teaching, taught_objective
from axon_compose.learn.freezing import freeze as freeze_parameters
from axon_compose.learn.history import History
from axon_compose.learn.material import Material, TaskMaterial, TextMaterial, prepared_once
from axon_compose.learn.objective import NextTokens, Objective
from axon_compose.learn.ranks import Ranks
from axon_compose.learn.recipe import Recipe
from axon_compose.learn.reporting import CallbackListener, reporting_callback
from axon_compose.learn.run import Listener, Outcome, Run
from axon_compose.learn.tasks import Task
from axon_compose.learn.trainer import Trainer
from axon_compose.machine.memory import require
from axon_compose.model import LanguageModel, build, largest_parts
from axon_compose.model.ranks import differing, facts
from axon_compose.plan import Compiled, Plan

__all__ = ["require_memory", "require_place", "train"]


def train(
    architecture: Compiled,
    data: Sources | str | Path | Iterable[str | Path] | Task,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    budget: Budget | None = None,
    cadence: Cadence | None = None,
    tokenizer: str | Path | None = None,
    init: str | Path | None = None,
    freeze: Iterable[str] = (),
    teaching: Teaching | None = None,
    resume: bool = False,
    force: bool = False,
    allow_large: bool = False,
    fully_shard: bool = False,
    report_to: str | None = None,
    project: str = "axon-compose",
    listeners: Iterable[Listener] = (),
    pages: Callable[[History], Mapping[str, bytes]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Train a model on texts, or on a skill task, and write it as a folder that the mlx_lm commands run.

    Ctrl-C ends the run after the step that is under way; what was learned is saved and can be continued. Processes that
    were launched together, as by `mlx.launch`, train one model: each calls this with the same arguments.

    Args:
        architecture: What `load` gave.
        data: Files, folders or patterns, `python-docs`, or `Sources`; or what `axon_compose.learn.read_task` gave,
            which has a length and tokens of its own.
        out: The folder.
        recipe: The defaults of `Recipe` unless given.
        budget: 1,000 steps unless given.
        cadence: How often there is an evaluation, a sample, a checkpoint.
        tokenizer: `bytes`, `bpe:N`, or a folder; that of `init`, else `bytes`, unless given.
        init: A folder to take the weights from: built, trained or published. They are float32 from then on.
        freeze: Patterns of what stays as it is; see `axon_compose.learn.freezing`.
        teaching: A teacher, and what is learned from it.
        resume: Continue an interrupted run in `out`, to the bit; all other arguments are those of the beginning.
        force: Replace an earlier build.
        allow_large: Do not compare the memory of a step with what is free.
        fully_shard: Let each of several processes keep a part of the weights and the optimiser's state alone; see
            `axon_compose.learn.sharding`.
        report_to: `wandb`, `swanlab` or both, through mlx_lm's callbacks.
        project: What the run belongs to there.
        listeners: Called with every step, evaluation, sample and checkpoint.
        pages: Further files for the folder, made of the record at the end.
        progress: Called with the bytes of text that tokens were made of, and in all.

    Returns:
        How it ended.

    Raises:
        CheckpointError: With a code of AX4, AX5 or AX8 that says what is wrong.
        Diverged: AX803 the loss is not finite any more; the folder is the last checkpoint.
        OSError: If a text cannot be read.
        ValueError: If an argument is out of its range.
    """
    out, plan, recipe, ranks = Path(out), architecture.plan(), recipe or Recipe(), Ranks.launched()
    with ranks.together():
        if ranks.size > 1:
            _require_alike(ranks, plan, init, recipe)
        require_parts(recipe, ranks.size)
        if isinstance(data, Task):
            recipe = replace(recipe, length=data.length)
            _require_tokens(plan, TaskMaterial(data), trained=init is not None)
        if not resume and ranks.first:
            require_place(out, force)
        if not allow_large:
            require_memory(plan, recipe, ranks.size, sharded=fully_shard)
        if init is not None:
            plan_trained(architecture, Path(init), dtype="float32", allow_large=allow_large, unpack=True)
        material = _material(data, tokenizer or _usual(init), plan, init is not None, recipe.length, ranks, progress)
        text = material.prepared if isinstance(material, TextMaterial) else None
        model = _model(architecture, recipe, init)
        freeze_parameters(model, freeze)
        text_alone = NextTokens(model.plan, recipe, ranks)
        objective: Objective = text_alone
        if teaching is not None:
            teaching.require(model)
            objective = taught_objective(teaching, text_alone)
        learner = material.wrapped(model, recipe.seed)
        batches = material.batches(recipe.batch, recipe.seed)
        trainer = Trainer(learner, batches, recipe, budget, objective=objective, ranks=ranks, sharded=fully_shard)
        called = list(listeners) if ranks.first else []
        if report_to and ranks.first:
            config = {"architecture": plan.name, **asdict(recipe), "budget": str(trainer.budget)}
            called.append(CallbackListener(reporting_callback(report_to, project, out, config)))
        run = Run(
            trainer, out, text=text, tokenizer=text.maker.choice if text else "none", model=model,
            accuracy=text is None, cadence=cadence, listeners=called, pages=pages, force=force,
        )  # fmt: skip
        if resume:
            run.resume()
        else:
            run.start()
        return run.run()


def require_parts(recipe: Recipe, processes: int) -> None:
    """Refuse a batch that cannot be divided evenly over processes.

    Raises:
        CheckpointError: AX805.
    """
    parts = processes * recipe.accumulate
    if recipe.batch % parts:
        over = f"{processes} processes" + (f" with `accumulate` {recipe.accumulate}" if recipe.accumulate > 1 else "")
        near = parts * max(1, round(recipe.batch / parts))
        hint = f"the batch is that of all processes together: choose a multiple of {parts}, such as `--batch {near}`"
        raise CheckpointError("AX805", f"`batch` ({recipe.batch}) cannot be divided over {over}", hint)


def _require_alike(ranks: Ranks, plan: Plan, init: str | Path | None, recipe: Recipe) -> None:
    """Refuse to train what is not the same in all processes: AX971."""
    mine = facts(plan, None if init is None else Path(init)) | {f"`{k}`": str(v) for k, v in asdict(recipe).items()}
    if fault := differing(ranks.exchanged(mine)):
        raise fault


def _material(
    data: Sources | str | Path | Iterable[str | Path] | Task,
    tokenizer: str | Path,
    plan: Plan,
    trained: bool,
    length: int,
    ranks: Ranks,
    progress: Callable[[int, int], None] | None,
) -> Material:
    """What is learned; tokens of texts are made by the first rank, and found by the others."""
    if isinstance(data, Task):
        return TaskMaterial(data)
    text = prepared_once(
        ranks,
        lambda: prepare(
            Sources.of(data),
            tokenizer,
            vocabulary=int(plan.dims.vocab_size),
            trained=trained,
            progress=progress if ranks.first else None,
        ),
    )
    return TextMaterial("", text, length)


def _require_tokens(plan: Plan, task: Material, *, trained: bool) -> None:
    """Refuse a task that has more tokens than the model.

    Raises:
        CheckpointError: AX813.
    """
    if task.vocab_size > plan.dims.vocab_size:
        hint = (
            "choose a task with fewer" if trained else f"give it as many with `--set dims.vocab_size={task.vocab_size}`"
        )
        message = f"the task `{task.name}` has {task.vocab_size} tokens, the model {plan.dims.vocab_size}"
        raise CheckpointError("AX813", message, hint)


def _usual(init: str | Path | None) -> str | Path:
    """The tokenizer of the weights that a run begins with, else one token for each byte."""
    chosen = usual_tokenizer(model_folder(Path(init))) if init else "bytes"
    return "bytes" if chosen == "none" else chosen


def _model(architecture: Compiled, recipe: Recipe, init: str | Path | None) -> LanguageModel:
    if init is not None:
        return build_trained(architecture, init, dtype="float32", unpack=True)
    model = build(architecture.plan(), seed=recipe.seed)
    model.compiled = architecture
    return model


def require_place(out: Path, force: bool) -> None:
    """Refuse what must not be replaced, a run that can be continued above all.

    Raises:
        CheckpointError: AX501, AX502.
    """
    if not force and (out / STATE_FILE).exists():
        hint = "`--resume` continues it, `--force` replaces it"
        raise CheckpointError("AX501", f"`{out}` has a run that is not finished", hint)
    check_target(out, force)


def require_memory(plan: Plan, recipe: Recipe, processes: int = 1, *, sharded: bool = False) -> None:
    """Refuse what does not fit: on the CPU, MLX kills the process instead of raising.

    Args:
        plan: The model.
        recipe: How it is trained.
        processes: How many divide a batch; the others may be on other machines.
        sharded: Whether each of them keeps a part of the weights alone.

    Raises:
        CheckpointError: AX401.
    """
    sequences = max(recipe.batch // (recipe.accumulate * processes), 1)
    (sheet,) = cost(
        plan, context=recipe.length, batch=sequences, dtype="float32", training=True, segment=recipe.segment
    ).contexts
    what = f"training `{plan.name}` on {sequences} sequences of {recipe.length} tokens at once"
    hint = "compute a step in parts with `--accumulate`, keep less with `--segment 1`, or choose a smaller `--batch`"
    needed = _of_parts(plan, recipe, processes) if sharded and processes > 1 else sheet.needed_bytes
    require(needed, what, largest_parts(plan, "float32"), hint)


def _of_parts(plan: Plan, recipe: Recipe, processes: int) -> int:
    """Bytes of the first of several processes that keep parts: in a step, or where it has all weights to write them."""
    batch = recipe.batch // recipe.accumulate
    copied, found = training_strategies(
        plan, processes, context=recipe.length, dtype="float32", batch=batch, segment=recipe.segment
    )
    return max(found.memory_bytes, found.weight_bytes + found.optimizer_bytes + copied.weight_bytes)
