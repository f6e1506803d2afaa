"""The commands and their arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from axon_compose.cli._arguments import (
    PEERS,
    as_json,
    bandwidth,
    cases,
    checkpoint,
    common,
    contexts,
    dtype,
    html_page,
    length,
    names,
    nbytes,
    output,
    peers,
    picture,
    seed,
    sequences,
    tokens,
    tolerance,
)
from axon_compose.cli._imports import kept
from axon_compose.cli._streams import note, put
from axon_compose.cli._terminal import OK, Terminal
from axon_compose.cli._training_flags import add_training
from axon_compose.diagnostics import nearest
from axon_compose.report import FORMS

__all__ = ["make_parser"]

Run = Callable[[argparse.Namespace, Terminal], int]

_EPILOG = """\
FILE is a YAML file, the name of a shipped architecture such as `hybrid-demo`, a folder with a model, or `-` for
standard input.
A folder that has the name of a shipped architecture is written with its path: `./hybrid-demo`.
Exit codes: 0 ok, 1 the file has errors or a check failed, 2 wrong usage or a file that cannot be read or written.
"""


#: Widths of quantised weights; `axon_compose.analysis.cost.BITS`, which a parser need not import.
BITS = (1, 2, 3, 4, 5, 6, 8)
#: What `export` writes; `axon_compose.checkpoints.export.KINDS`, which imports mlx.
_KINDS = ("mlx-lm", "huggingface")


def _lazily(module: str, name: str) -> Run:
    """The function of a command, its module imported when it runs: each command pays for itself alone."""

    def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
        with kept():
            command: Run = getattr(import_module(f"axon_compose.cli.{module}"), name)
        return command(arguments, terminal)

    return run


class _Parser(argparse.ArgumentParser):
    """Help and versions are results: that they cannot be written is not passed over."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            put(message, now=True)
        else:
            note(message)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `axon-compose`; each command leaves its function in `run`, and in `error` that of wrong usage."""
    from axon_compose import __version__

    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="axon-compose",
        description="Compile a YAML file to a working MLX language model.",
        epilog=_EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.suggest_on_error = True  # type: ignore[attr-defined]  # older interpreters ignore it
    parser.add_argument("--version", action="version", version=f"axon-compose {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Run, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=summary, description=summary, formatter_class=formatter, allow_abbrev=False
        )
        added.set_defaults(run=run, error=added.error)
        return added

    _add_describing(command)
    _add_building(command)
    add_training(command, _lazily("_train", "train"))
    _add_plugin_commands(command)
    command("help", _help(parser, commands.choices), "show this text, or that of a command").add_argument(
        "about", nargs="?", metavar="COMMAND"
    )
    return parser


def _help(parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]) -> Run:
    def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
        about = arguments.about
        if about is not None and about not in commands:
            near = nearest(about, commands)
            arguments.error(f"there is no command `{about}`" + (f"; did you mean `{near}`?" if near else ""))
        terminal.part((commands[about] if about else parser).format_help())
        return OK

    return run


def _add_describing(command: Callable[..., argparse.ArgumentParser]) -> None:
    validate = command(
        "validate", _lazily("_describe", "validate"), "is it valid? every error of files, with its place"
    )
    validate.add_argument("files", nargs="+", metavar="FILE")
    validate.add_argument("--format", choices=FORMS, default="text", help="how faults are printed (default: text)")
    common(validate)
    show = command("show", _lazily("_describe", "show"), "draw the stack in characters, with totals and capabilities")
    show.add_argument("file", metavar="FILE")
    show.add_argument("--table", action="store_true", help="print the stack as a table instead")
    show.add_argument("--stage", choices=("document", "plan"), help="print the result of a stage as JSON instead")
    common(show)
    _add_counting(command)
    diff = command("diff", _lazily("_diff", "diff"), "compare what two models compute, whatever names their files use")
    diff.add_argument("a", metavar="A", help="a FILE")
    diff.add_argument("b", metavar="B", help="the FILE that is compared with it")
    for side in "ab":
        diff.add_argument(
            f"--set-{side}",
            dest=f"settings_{side}",
            action="append",
            default=[],
            metavar="KEY.KEY=VALUE",
            help=f"lay a value over {side.upper()}",
        )
    as_json(diff)
    draw = command("draw", _lazily("_draw", "draw"), "draw the stack: a picture, or a page with tables and charts")
    draw.add_argument("file", metavar="FILE")
    output(draw, "PICTURE", "a .svg, .html or .png", required=True, type=picture)
    draw.add_argument("--force", action="store_true", help="replace the picture")
    _sizes(draw.add_argument_group("for a page (.html)"))
    common(draw)
    lint = command("lint", _lazily("_lint", "lint"), "is it sensible? what is valid but suspicious in a file")
    lint.add_argument("file", metavar="FILE")
    lint.add_argument("--format", choices=FORMS, default="text", help="how advice is printed (default: text)")
    lint.add_argument("--strict", action="store_true", help="exit with 1 if there is any")
    common(lint)
    listed = command("list", _lazily("_catalogue", "list_all"), "list architectures, families, components and tasks")
    listed.add_argument(
        "search",
        nargs="?",
        metavar="SEARCH",
        help="only what has this in its name or summary, or `tasks`",
    )
    as_json(listed)
    described = command("describe", _lazily("_catalogue", "describe"), "show a component or task with all its options")
    described.add_argument("type", metavar="TYPE", help="such as attention, mqar, or plugin/name")
    as_json(described)
    explain = command("explain", _lazily("_describe", "explain_code"), "explain the code of a diagnostic")
    explain.add_argument("code", metavar="CODE", help="such as AX101")
    as_json(explain)


def _add_counting(command: Callable[..., argparse.ArgumentParser]) -> None:
    cost = command("cost", _lazily("_cost", "cost"), "count weights, caches, operations and memory, without building")
    cost.add_argument("file", metavar="FILE")
    cost.add_argument("--weights", type=checkpoint, metavar="DIR", help="take the sizes of a checkpoint or a folder")
    _sizes(cost)
    cost.add_argument("--training", action="store_true", help="count the memory of a training step too")
    cost.add_argument("--layers", action="store_true", help="list every layer")
    common(cost)
    compare = command(
        "compare", _lazily("_compare", "compare"), "put models side by side: size, caches, operations, and speed"
    )
    compare.add_argument("files", nargs="+", metavar="FILE")
    _sizes(compare)
    compare.add_argument("--sort", metavar="COLUMN", help="such as parameters, cache, longest or decode-speed")
    compare.add_argument("--reverse", action="store_true", help="reverse the order")
    compare.add_argument(
        "--measure", action="store_true", help="run each model with random weights, in a process of its own"
    )
    for name, default, what in (
        ("prompt", 512, "tokens of the prompt that is measured"),
        ("steps", 32, "tokens decoded after the prompt"),
        ("rounds", 3, "how often everything is measured"),
    ):
        compare.add_argument(
            f"--{name}",
            type=sequences if name == "rounds" else tokens,
            metavar="N",
            help=f"{what} (default: {default})",
        )
    output(compare, "PAGE.html", "write a page with charts too", type=html_page)
    compare.add_argument("--force", action="store_true", help="replace the page")
    common(compare)
    _add_bench(command)


def _add_bench(command: Callable[..., argparse.ArgumentParser]) -> None:
    bench = command("bench", _lazily("_bench", "bench"), "time a model here, optionally against mlx-lm and others")
    bench.add_argument("file", metavar="FILE")
    bench.add_argument(
        "--against", type=peers, default=(), metavar="NAMES", help="out of mlx-lm,transformers (default: none)"
    )
    bench.add_argument(
        "--prompt", type=contexts, default=(128, 512, 2048), metavar="N,N", help="tokens (default: 128,512,2048)"
    )
    bench.add_argument(
        "--batch",
        type=contexts,
        default=(1, 8),
        metavar="N,N",
        help="sequences that are decoded together (default: 1,8)",
    )
    bench.add_argument("--steps", type=tokens, default=32, metavar="N", help="tokens that are decoded (default: 32)")
    bench.add_argument("--rounds", type=sequences, default=5, metavar="N", help="how often (default: 5)")
    bench.add_argument("--training", action="store_true", help="time a training step on each prompt too")
    bench.add_argument(
        "--dtype",
        type=dtype,
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of weights and caches (default: float32)",
    )
    bench.add_argument("--quantize", type=int, choices=BITS, metavar="BITS", help="1, 2, 3, 4, 5, 6 or 8")
    common(bench)
    doctor = command("doctor", _lazily("_bench", "doctor"), "say what this machine lacks to run models fast")
    as_json(doctor)


def _sizes(parser: Any) -> None:
    """How a model is stored and run; what is not given is None."""
    parser.add_argument(
        "--context", type=contexts, metavar="N,N", help="tokens of each sequence, 4k is 4096 (default: 4096,65536)"
    )
    parser.add_argument("--batch", type=sequences, metavar="N", help="sequences together (default: 1)")
    parser.add_argument(
        "--dtype",
        type=dtype,
        choices=("float32", "bfloat16", "float16"),
        help="of weights and caches (default: bfloat16)",
    )
    parser.add_argument("--quantize", type=int, choices=BITS, metavar="BITS", help="1, 2, 3, 4, 5, 6 or 8")
    parser.add_argument("--memory", type=nbytes, metavar="16GB", help="say whether it fits, and the longest context")
    parser.add_argument(
        "--bandwidth", type=bandwidth, metavar="GB/s", help="of the memory: bounds the tokens per second"
    )


def _add_building(command: Callable[..., argparse.ArgumentParser]) -> None:
    build = command("build", _lazily("_build", "build"), "build a model, in memory or as a folder that mlx_lm runs")
    build.add_argument("file", metavar="FILE", help="of a folder, the weights are taken too")
    output(build, "DIR", "write a folder; without it the model is built in memory and tried", dest="out")
    build.add_argument(
        "--weights",
        type=checkpoint,
        metavar="DIR",
        help="take the weights of a folder, checkpoint or GGUF file (default: random)",
    )
    build.add_argument("--layout", choices=("huggingface", "mlx"), help="who wrote it (default: the mark in its files)")
    build.add_argument(
        "--dtype",
        type=dtype,
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: float32, or as in the checkpoint)",
    )
    build.add_argument("--seed", type=seed, default=0, metavar="N", help="of the random weights (default: 0)")
    build.add_argument("--quantize", type=int, choices=BITS, metavar="BITS", help="1, 2, 3, 4, 5, 6 or 8")
    build.add_argument(
        "--tokenizer",
        metavar="bytes|bytes-chat|none|DIR",
        help="of bytes, the same with a chat template, none, or that of a folder (default: that of the weights if they "
        "come from a folder, else bytes)",
    )
    build.add_argument(
        "--no-model-file",
        action="store_true",
        help="for tools without --trust-remote-code, where axon-compose is installed",
    )
    build.add_argument("--dry-run", action="store_true", help="say what would be built and write nothing")
    build.add_argument("--force", action="store_true", help="replace a folder that an earlier build wrote")
    build.add_argument("--allow-large", action="store_true", help="build even if memory seems too small")
    common(build)
    imported = command(
        "import", _lazily("_import", "import_checkpoint"), "write the architecture of a checkpoint as a file"
    )
    imported.add_argument(
        "checkpoint",
        nargs="?",
        type=checkpoint,
        metavar="DIR",
        help="a folder with config.json and safetensors, or a GGUF file",
    )
    output(imported, "FILE", "write it to a file (default: print it)")
    imported.add_argument(
        "--family", dest="file", metavar="FILE", help="read it as this family file instead of its own"
    )
    imported.add_argument(
        "--draft", metavar="FILE", help="write a family file to start from, over the nearest family or that of --family"
    )
    imported.add_argument(
        "--families", nargs="?", const="", metavar="SEARCH", help="list the families that are known, and read nothing"
    )
    imported.add_argument("--force", action="store_true", help="replace the file")
    common(imported)
    exported = command(
        "export", _lazily("_export", "export_folder"), "write a built folder as stock loaders read it, without own code"
    )
    exported.add_argument("folder", metavar="DIR", help="a folder that `build --out` wrote, fine-tuned since or not")
    exported.add_argument("--to", required=True, choices=_KINDS, help="who shall read it")
    output(exported, "DIR", "the new folder (default: beside DIR)")
    exported.add_argument("--force", action="store_true", help="replace an earlier export")
    as_json(exported)
    _add_check(command)
    verify = command(
        "verify", _lazily("_verify", "verify"), "is it the published model? against mlx-lm and transformers"
    )
    verify.add_argument(
        "checkpoint", type=checkpoint, metavar="DIR", help="a folder with config.json and safetensors, or a GGUF file"
    )
    verify.add_argument("--family", dest="file", metavar="FILE", help="read it as this family file instead of its own")
    verify.add_argument("--tokens", type=length, default=64, metavar="N", help="how many random ones (default: 64)")
    verify.add_argument("--seed", type=seed, default=0, metavar="N", help="of the tokens (default: 0)")
    verify.add_argument(
        "--tolerance",
        type=tolerance,
        default=1e-4,
        metavar="X",
        help="largest difference, relative to the largest logit (default: 1e-4)",
    )
    verify.add_argument(
        "--against", type=peers, default=PEERS, metavar="NAMES", help="out of mlx-lm,transformers (default: both)"
    )
    verify.add_argument("--allow-large", action="store_true", help="run it even if memory seems too small")
    common(verify)


def _add_check(command: Callable[..., argparse.ArgumentParser]) -> None:
    check = command(
        "check", _lazily("_check", "check"), "does it run right? caches, masks and gradients of a small copy"
    )
    check.add_argument("file", metavar="FILE", nargs="?")
    check.add_argument("--layer", metavar="TYPE", help="check one component instead of a file, with generated options")
    check.add_argument("--options", metavar="JSON", help="with --layer: these options instead of generated ones")
    check.add_argument("--cases", type=cases, metavar="N", help="with --layer: how many (default: 5)")
    check.add_argument("--truth", type=names, metavar="NAME,NAME", help="only these checks (default: all)")
    check.add_argument("--as-is", action="store_true", help="try the model itself, which has to be small")
    check.add_argument("--seed", type=seed, default=0, metavar="N", help="of weights and tokens (default: 0)")
    common(check)


def _add_plugin_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    schema = command("schema", _lazily("_plugins", "schema"), "print the JSON Schema of everything installed")
    output(schema, "FILE", "write it to a file")
    schema.add_argument("--force", action="store_true", help="replace the file")
    schema.add_argument("--check", action="store_true", help="compare the file with what would be written")
    schema.add_argument("--published", action="store_true", help="only the built-in components, as shipped")
    plugins = command("plugins", _lazily("_plugins", "plugins"), "list the installed plugins and what became of them")
    as_json(plugins)
    shell = command("completion", _lazily("_completion", "completion"), "print a script that completes commands")
    shell.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that reads it")
    new = command("new-plugin", _lazily("_plugins", "new_plugin"), "write a package with a layer of your own")
    new.add_argument("name", metavar="NAME", help="its namespace, such as `acme`")
    new.add_argument("--directory", default=".", metavar="DIR", help="where its folder is made (default: here)")
    as_json(new)
