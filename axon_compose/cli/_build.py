"""`build`: a description to a model, in memory or as a folder."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from shlex import quote

from axon_compose.architecture import Architecture
from axon_compose.checkpoints.built import model_folder
from axon_compose.checkpoints.tools import MODULE, tools
from axon_compose.cli._source import load_file, weights_of
from axon_compose.cli._terminal import Terminal
from axon_compose.machine.units import count, human
from axon_compose.plan import total_parameters, weight_nbytes

__all__ = ["build"]


def build(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Build a model: in memory and tried at once, or as a folder."""
    arguments.weights = weights_of(arguments)
    architecture = load_file(arguments.file, arguments)
    run = _dry_run if arguments.dry_run else _in_memory if arguments.out is None else _to_folder
    return run(architecture, arguments, terminal)


def _dry_run(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Refuse whatever the build would refuse, then say what it would make."""
    from axon_compose.checkpoints.folder import check_write
    from axon_compose.checkpoints.trained import plan_trained

    plan = architecture.plan()
    dtype = arguments.dtype or "float32"
    nbytes = weight_nbytes(plan, dtype)
    if arguments.weights:
        settings = {name: getattr(arguments, name) for name in ("dtype", "layout", "allow_large", "unpack")}
        load_plan = plan_trained(architecture, Path(arguments.weights), **settings)
        nbytes = nbytes if arguments.dtype or arguments.unpack else load_plan.nbytes
    where = "in memory"
    if arguments.out is None:
        _check_vocabulary(architecture, arguments)
        if not arguments.weights:
            architecture.build(dtype=dtype, seed=arguments.seed, allow_large=arguments.allow_large)
    else:
        check_write(
            plan,
            Path(arguments.out),
            dtype=dtype,
            bits=arguments.quantize,
            tokenizer=_tokenizer(arguments),
            force=arguments.force,
            allow_large=arguments.allow_large or arguments.weights is not None,
            trained=arguments.weights is not None,
        )
        where = f"in `{arguments.out}`"
    data = {
        "name": plan.name,
        "parameters": total_parameters(plan),
        "weight_bytes": nbytes,
        "dtype": arguments.dtype or (None if arguments.weights else dtype),
        "out": arguments.out,
    }
    stored = "as stored" if arguments.weights and not (arguments.dtype or arguments.unpack) else f"in {dtype}"
    what = f"{count(total_parameters(plan))} parameters, {human(nbytes)} {stored}"
    what += f", then quantised to {arguments.quantize} bits" if arguments.quantize else ""
    text = f"would build {plan.name} {where}: {what}\n"
    return terminal.result(text, data)


def _in_memory(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from axon_compose.checkpoints.folder import quantised_anew
    from axon_compose.checkpoints.gguf._path import is_gguf
    from axon_compose.model import try_out

    _check_vocabulary(architecture, arguments)
    model = architecture.build(
        weights=arguments.weights,
        layout=arguments.layout,
        dtype=arguments.dtype,
        seed=arguments.seed,
        allow_large=arguments.allow_large,
        unpack=arguments.unpack or (arguments.quantize is not None and is_gguf(arguments.weights)),
        progress=partial(terminal.progress, what="reading weights"),
    )
    for note in quantised_anew(model, arguments.quantize, arguments.weights) if arguments.quantize else ():
        terminal.note(f"note: {note}")
    trial = try_out(model, seed=arguments.seed)
    plan = architecture.plan()
    size = f"{count(total_parameters(plan))} parameters, {human(trial.weight_bytes)}"
    finite = "all finite" if trial.finite else "not all finite"
    apart = "" if trial.difference is None else f", at most {trial.difference:.1e} from the forward pass"
    lines = [
        f"{plan.name}: {len(plan.layers)} layers, {size}",
        f"forward pass   {trial.prompt} tokens, logits {trial.shape} {trial.dtype}, {finite}",
        f"cached decode  {trial.steps} tokens one by one{apart}",
    ]
    text = "\n".join(lines) + "\n"
    return terminal.result(text, trial.to_dict(), ok=trial.finite)


def _to_folder(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from axon_compose.checkpoints.folder import write_model

    record = write_model(
        architecture,
        Path(arguments.out),
        weights=Path(arguments.weights) if arguments.weights else None,
        layout=arguments.layout,
        dtype=arguments.dtype,
        seed=arguments.seed,
        quantize_bits=arguments.quantize,
        unpack=arguments.unpack,
        model_file=not arguments.no_model_file,
        tokenizer=arguments.tokenizer,
        force=arguments.force,
        allow_large=arguments.allow_large,
        progress=terminal.progress,
    )
    size = sum(entry["bytes"] for entry in record["files"].values())
    plan = architecture.plan()
    layers = len(plan.layers)
    text = f"wrote {arguments.out}: {plan.name}, {count(total_parameters(plan))} parameters, {human(size)}\n"
    code = terminal.result(text, {"out": arguments.out, **record})
    for note in record["notes"]:
        terminal.note(f"note: {note}")
    folder = quote(arguments.out) + ("" if arguments.no_model_file else " --trust-remote-code")
    if "tokenizer.json" not in record["files"]:
        terminal.note("without a tokenizer, the folder is for `axon_compose.load_model` and `export`")
        return code
    if arguments.weights:
        learn = f"  mlx_lm.lora --model {folder} --train --data DIR --num-layers {min(layers, 16)}\n"
    else:  # adapters on random weights learn little
        out = quote(arguments.out.rstrip("/") + "-trained")
        learn = f"  axon-compose train {quote(arguments.out)} --data python-docs --out {out}\n"
    terminal.note(
        f"run it:\n  mlx_lm.generate --model {folder} --prompt 'Hello'\n{learn}"
        f"runs with: {tools(architecture, model_file=not arguments.no_model_file)}"
    )
    if arguments.no_model_file and not _registered():
        terminal.note(f"here it does not run yet: `{MODULE}` is missing, which `pip install` of axon-compose brings")
    return code


def _check_vocabulary(architecture: Architecture, arguments: argparse.Namespace) -> None:
    """Refuse a tokenizer whose ids the model has no rows for; without one named or beside the weights, none is meant.

    Raises:
        CheckpointError: AX541, AX542.
    """
    from axon_compose.checkpoints.files._copied_tokenizer import has_tokenizer
    from axon_compose.checkpoints.files._tokenizer import tokenizer_files

    beside = arguments.weights and has_tokenizer(model_folder(Path(arguments.weights)))
    if arguments.tokenizer or beside:
        tokenizer_files(_tokenizer(arguments), architecture.plan().dims.vocab_size)


def _registered() -> bool:
    """Whether mlx_lm finds our classes by itself."""
    from importlib.util import find_spec

    return find_spec(MODULE) is not None


def _tokenizer(arguments: argparse.Namespace) -> str | Path:
    """What `write_model` takes unless told otherwise."""
    from axon_compose.checkpoints.folder import usual_tokenizer

    if arguments.tokenizer or not arguments.weights:
        return arguments.tokenizer or "bytes"
    return usual_tokenizer(model_folder(Path(arguments.weights)))
