"""`build` and `check`: the commands that run the model."""

from __future__ import annotations

import argparse
from pathlib import Path

from axon_compose._api import Architecture
from axon_compose.checkpoint import check_target
from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import Terminal
from axon_compose.memory import count, human
from axon_compose.plan import total_parameters, weight_nbytes

__all__ = ["build", "check"]


def build(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Build a model: in memory and tried at once, or as a folder."""
    architecture = load_file(arguments.file, arguments)
    if arguments.dry_run:
        return _dry_run(architecture, arguments, terminal)
    return (
        _to_folder(architecture, arguments, terminal)
        if arguments.out
        else _in_memory(architecture, arguments, terminal)
    )


def _dry_run(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = architecture.plan()
    data = {
        "name": plan.name,
        "parameters": total_parameters(plan),
        "weight_bytes": weight_nbytes(plan, arguments.dtype),
        "dtype": arguments.dtype,
        "out": arguments.out,
    }
    where = "in memory"
    if arguments.out:
        check_target(Path(arguments.out), arguments.force)
        where = f"in `{arguments.out}`"
    size = human(weight_nbytes(plan, arguments.dtype))
    what = f"{count(total_parameters(plan))} parameters, {size} in {arguments.dtype}"
    what += f", then quantised to {arguments.quantize} bits" if arguments.quantize else ""
    text = f"would build {plan.name} {where}: {what}\n"
    return terminal.result(text, data)


def _in_memory(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from axon_compose.model import quantize, try_out

    model = architecture.build(dtype=arguments.dtype, seed=arguments.seed, allow_large=arguments.allow_large)
    if arguments.quantize:
        quantize(model, arguments.quantize)
    trial = try_out(model, seed=arguments.seed)
    plan = architecture.plan()
    size = f"{count(total_parameters(plan))} parameters, {human(trial.weight_bytes)}"
    lines = [
        f"{plan.name}: {len(plan.layers)} layers, {size}",
        f"forward pass   {trial.prompt} tokens, logits {trial.shape} {trial.dtype}, all finite",
        f"cached decode  {trial.steps} tokens one by one, at most {trial.difference:.1e} from the forward pass",
    ]
    text = "\n".join(lines) + "\n"
    return terminal.result(text, trial.to_dict())


def _to_folder(architecture: Architecture, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from axon_compose.integrations.folder import write_model

    tokenizer = arguments.tokenizer if arguments.tokenizer == "bytes" else Path(arguments.tokenizer)
    record = write_model(
        architecture,
        Path(arguments.out),
        dtype=arguments.dtype,
        seed=arguments.seed,
        quantize_bits=arguments.quantize,
        tokenizer=tokenizer,
        force=arguments.force,
        allow_large=arguments.allow_large,
        progress=terminal.progress,
    )
    size = sum(entry["bytes"] for entry in record["files"].values())
    plan = architecture.plan()
    layers = len(plan.layers)
    text = f"wrote {arguments.out}: {plan.name}, {count(total_parameters(plan))} parameters, {human(size)}\n"
    code = terminal.result(text, {"out": arguments.out, **record})
    terminal.note(
        "run it:\n"
        f"  mlx_lm.generate --model {arguments.out} --trust-remote-code --prompt 'Hello'\n"
        f"  mlx_lm.lora --model {arguments.out} --trust-remote-code --train --data DIR --num-layers {min(layers, 16)}"
    )
    return code


def check(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Prove the truths of the wiring on a small copy."""
    from axon_compose.analysis import check as run_checks
    from axon_compose.report._check import check_text

    report = run_checks(load_file(arguments.file, arguments), seed=arguments.seed)
    return terminal.result(check_text(report, terminal.style), report.to_dict(), ok=report.passed)
