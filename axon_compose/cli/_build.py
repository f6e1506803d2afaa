"""`build`: a description to a model, in memory or as a folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shlex import quote

from axon_compose.architecture import Architecture
from axon_compose.checkpoints.tools import MODULE, tools
from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import Terminal
from axon_compose.diagnostics import ArchitectureError, Diagnostic
from axon_compose.machine.units import count, human
from axon_compose.plan import total_parameters, weight_nbytes
from axon_compose.registry import LookupFailure

__all__ = ["build", "faults_of_plugins"]


def build(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Build a model: in memory and tried at once, or as a folder."""
    architecture = load_file(arguments.file, arguments)
    run = _dry_run if arguments.dry_run else _in_memory if arguments.out is None else _to_folder
    with faults_of_plugins():
        return run(architecture, arguments, terminal)


@contextmanager
def faults_of_plugins() -> Iterator[None]:
    """Only here does code of components run: what it lacks or builds otherwise is reported as a diagnostic."""
    from axon_compose.model import BuildError

    try:
        yield
    except LookupFailure as error:
        described = Diagnostic(error.code, f"{error.message}: {error.label}", help=error.help)
        raise ArchitectureError([described]) from error
    except BuildError as error:
        raise ArchitectureError([Diagnostic("AX211", str(error))]) from error


def _dry_run(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Refuse whatever the build would refuse, then say what it would make."""
    from axon_compose.checkpoints.folder import check_write

    plan = architecture.plan()
    dtype = arguments.dtype or "float32"
    nbytes = architecture.load_plan(arguments.weights, layout=arguments.layout).nbytes if arguments.weights else None
    nbytes = weight_nbytes(plan, dtype) if nbytes is None or arguments.dtype else nbytes
    where = "in memory"
    if arguments.out is None:
        architecture.build(dtype=dtype, seed=arguments.seed, allow_large=arguments.allow_large)
    else:
        check_write(
            plan,
            Path(arguments.out),
            dtype=dtype,
            bits=arguments.quantize,
            tokenizer=_tokenizer(arguments),
            force=arguments.force,
            allow_large=arguments.allow_large,
        )
        where = f"in `{arguments.out}`"
    data = {
        "name": plan.name,
        "parameters": total_parameters(plan),
        "weight_bytes": nbytes,
        "dtype": arguments.dtype or (None if arguments.weights else dtype),
        "out": arguments.out,
    }
    stored = "as stored" if arguments.weights and not arguments.dtype else f"in {dtype}"
    what = f"{count(total_parameters(plan))} parameters, {human(nbytes)} {stored}"
    what += f", then quantised to {arguments.quantize} bits" if arguments.quantize else ""
    text = f"would build {plan.name} {where}: {what}\n"
    return terminal.result(text, data)


def _in_memory(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from axon_compose.model import quantize, try_out

    model = architecture.build(
        weights=arguments.weights,
        layout=arguments.layout,
        dtype=arguments.dtype,
        seed=arguments.seed,
        allow_large=arguments.allow_large,
        progress=partial(terminal.progress, what="reading weights"),
    )
    if arguments.quantize:
        quantize(model, arguments.quantize)
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
        model_file=not arguments.no_model_file,
        tokenizer=_tokenizer(arguments),
        force=arguments.force,
        allow_large=arguments.allow_large,
        progress=terminal.progress,
    )
    size = sum(entry["bytes"] for entry in record["files"].values())
    plan = architecture.plan()
    layers = len(plan.layers)
    text = f"wrote {arguments.out}: {plan.name}, {count(total_parameters(plan))} parameters, {human(size)}\n"
    code = terminal.result(text, {"out": arguments.out, **record})
    folder = quote(arguments.out) + ("" if arguments.no_model_file else " --trust-remote-code")
    terminal.note(
        "run it:\n"
        f"  mlx_lm.generate --model {folder} --prompt 'Hello'\n"
        f"  mlx_lm.lora --model {folder} --train --data DIR --num-layers {min(layers, 16)}\n"
        f"runs with: {tools(architecture, model_file=not arguments.no_model_file)}"
    )
    if arguments.no_model_file and not _registered():
        terminal.note(f"here it does not run yet: `{MODULE}` is missing, which `pip install` of axon-compose brings")
    return code


def _registered() -> bool:
    """Whether mlx_lm finds our classes by itself."""
    from importlib.util import find_spec

    return find_spec(MODULE) is not None


def _tokenizer(arguments: argparse.Namespace) -> str | Path:
    if arguments.tokenizer is None and arguments.weights and (Path(arguments.weights) / "tokenizer.json").exists():
        return Path(arguments.weights)
    return "bytes" if arguments.tokenizer in (None, "bytes") else Path(arguments.tokenizer)
