"""The flags of `train`: those of the recipe and of what comes between steps are made of their records."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from axon_compose.cli._arguments import checkpoint, common, output
from axon_compose.cli._commands import Command, lazily
from axon_compose.learn import Budget, Cadence, Recipe
from axon_compose.learn._options import range_of

__all__ = ["DATA", "SERVICES", "UNITS", "add_budget", "add_options", "add_training", "options_of"]

#: What `--data` takes.
DATA = "files, folders or patterns, .jsonl too; - is standard input, python-docs the texts that Python carries"
#: What reports can go to; `axon_compose.learn.reporting.SERVICES`, which imports mlx.
SERVICES = ("wandb", "swanlab")
#: What a budget may be given in, with an example.
UNITS = {"steps": "300", "tokens": "20M", "minutes": "5", "flops": "1e14"}


def add_training(command: Command) -> None:
    """Add the command."""
    train = command(
        "train",
        lazily("_train", "train"),
        "train a model on texts or a task, from the start or from weights, into a folder",
    )
    train.add_argument("file", metavar="FILE", help="of a folder, the weights are taken too")
    what = train.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--data",
        nargs="+",
        metavar="TEXT",
        help=DATA,
    )
    what.add_argument("--task", metavar="TASK", help="a skill instead, such as mqar:pairs=4,vocab=16; see `list tasks`")
    output(train, "DIR", "the folder to write, which mlx_lm runs", dest="out", required=True)
    train.add_argument("--field", default="text", metavar="NAME", help="where the text is in .jsonl (default: text)")
    train.add_argument(
        "--tokenizer",
        metavar="bytes|bpe:N|DIR",
        help="of bytes, one with N tokens that is trained on the texts, or that of a folder (default: that of --init, "
        "else bytes)",
    )
    train.add_argument(
        "--init", type=checkpoint, metavar="DIR", help="begin with the weights of a folder or checkpoint"
    )
    train.add_argument("--resume", action="store_true", help="continue the interrupted run in DIR, to the bit")
    train.add_argument("--force", action="store_true", help="replace a folder that an earlier run or build wrote")
    train.add_argument("--allow-large", action="store_true", help="train even if memory seems too small")
    train.add_argument(
        "--fully-shard",
        action="store_true",
        help="let each of several processes keep a part of the weights and of the optimiser's state alone",
    )
    add_budget(train, 1000)
    add_options(train.add_argument_group("recipe"), Recipe())
    add_options(train.add_argument_group("between the steps"), Cadence())
    _add_reporting(train)
    _add_teaching(train)
    common(train)


def add_budget(command: argparse.ArgumentParser, steps: int) -> None:
    """Add the flags of a budget, and say how many steps it is by default."""
    one = command.add_argument_group(f"until when (default: {steps} steps)").add_mutually_exclusive_group()
    for unit, example in UNITS.items():
        one.add_argument(
            f"--{unit}", type=_amount(unit), dest="budget", metavar="N", help=f"end after this many, such as {example}"
        )


def _amount(unit: Any) -> Callable[[str], Budget]:
    def amount(text: str) -> Budget:
        try:
            return Budget.parse(f"{text.strip()} {unit}" if unit != "minutes" else f"{text.strip()} min")
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit} such as {UNITS[unit]}") from None

    return amount


def add_options(group: Any, options: Any) -> None:
    """Add a flag for every field of a record, whose value is the default."""
    for each in fields(options):
        limits, default = range_of(type(options), each.name), getattr(options, each.name)
        flag, shown = f"--{each.name.replace('_', '-')}", default if default != "" else "nothing"
        help_ = f"{limits.summary} (default: {shown})"
        if isinstance(default, bool):
            group.add_argument(flag, action="store_true", default=None, help=limits.summary)
        elif isinstance(default, str):
            metavar = None if limits.choices else "TEXT"
            group.add_argument(flag, choices=limits.choices or None, metavar=metavar, help=help_)
        else:
            group.add_argument(
                flag,
                type=_number(type(options), each.name),
                metavar="N" if isinstance(default, int) else "X",
                help=help_,
            )


def _number(options: type, name: str) -> Callable[[str], int | float]:
    default = next(each.default for each in fields(options) if each.name == name)

    def number(text: str) -> int | float:
        try:
            value = int(text) if isinstance(default, int) else float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' * isinstance(default, int)}number") from None
        if fault := range_of(options, name).fault(value, default):
            raise argparse.ArgumentTypeError(f"{text!r} {fault}")
        return value

    return number


def options_of(arguments: argparse.Namespace, options: Any) -> Any:
    """The record with what was given in the place of its defaults.

    Raises:
        ValueError: If the options do not fit together.
    """
    names = (each.name for each in fields(options))
    return replace(options, **{name: value for name in names if (value := getattr(arguments, name)) is not None})


def _add_reporting(train: argparse.ArgumentParser) -> None:
    group = train.add_argument_group("reporting")
    group.add_argument(
        "--report-to", type=_services, metavar="wandb,swanlab", help="report to services, through mlx_lm's callbacks"
    )
    group.add_argument("--project", default="axon-compose", metavar="NAME", help="there (default: axon-compose)")


def _services(text: str) -> str:
    for name in text.split(","):
        if name not in SERVICES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SERVICES)}")
    return text


def _add_teaching(train: argparse.ArgumentParser) -> None:
    group = train.add_argument_group("parts and teachers")
    group.add_argument(
        "--freeze", action="append", default=[], metavar="PATTERN", help="keep parts as they are, such as layers.*.mlp"
    )
    group.add_argument("--teacher", type=checkpoint, metavar="DIR", help="learn from the predictions of another model")
    group.add_argument("--teacher-weight", type=float, metavar="X", help="of them, from 0 to 1 (default: 0.5)")
    group.add_argument("--temperature", type=float, metavar="X", help="that softens predictions of both (default: 2)")
    group.add_argument(
        "--teacher-layers",
        nargs="+",
        default=[],
        metavar="N=M",
        help="bring the hidden states after layer N near those after the teacher's layer M",
    )
