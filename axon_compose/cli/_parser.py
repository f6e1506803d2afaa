"""The commands and their arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from axon_compose.cli._imports import kept
from axon_compose.cli._terminal import Terminal
from axon_compose.report import FORMS

__all__ = ["make_parser"]

Run = Callable[[argparse.Namespace, Terminal], int]

_EPILOG = """\
FILE is a YAML file, the name of a shipped architecture such as `hybrid-demo`, or `-` for standard input.
Exit codes: 0 ok, 1 the file has errors or a check failed, 2 wrong usage or a file that cannot be read or written.
"""


#: What `verify` can compare with; `axon_compose.analysis.PEERS`, which imports mlx.
_PEERS = ("mlx-lm", "transformers")
#: What `export` writes; `axon_compose.integrations.export.KINDS`, which imports mlx.
_KINDS = ("mlx-lm", "huggingface")


def _lazily(module: str, name: str) -> Run:
    """The function of a command, its module imported when it runs: each command pays for itself alone."""

    def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
        with kept():
            command: Run = getattr(import_module(f"axon_compose.cli.{module}"), name)
        return command(arguments, terminal)

    return run


def make_parser() -> argparse.ArgumentParser:
    """The parser of `axon-compose`; each command leaves its function in `run`."""
    from axon_compose import __version__

    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
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
        added.set_defaults(run=run)
        return added

    _add_describing(command)
    _add_building(command)
    _add_plugin_commands(command)
    return parser


def _add_describing(command: Callable[..., argparse.ArgumentParser]) -> None:
    validate = command("validate", _lazily("_describe", "validate"), "say precisely what is wrong with files")
    validate.add_argument("files", nargs="+", metavar="FILE")
    validate.add_argument("--format", choices=FORMS, default="text", help="how faults are printed (default: text)")
    _common(validate)
    show = command("show", _lazily("_describe", "show"), "draw the stack in characters, with totals and capabilities")
    show.add_argument("file", metavar="FILE")
    show.add_argument("--table", action="store_true", help="print the stack as a table instead")
    show.add_argument("--stage", choices=("document", "plan"), help="print the result of a stage as JSON instead")
    _common(show)
    _add_cost(command)
    diff = command("diff", _lazily("_diff", "diff"), "say in what two models differ, whatever their files call it")
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
    _json(diff)
    draw = command("draw", _lazily("_draw", "draw"), "draw the stack: a picture, or a page with tables and charts")
    draw.add_argument("file", metavar="FILE")
    draw.add_argument("-o", "--output", required=True, type=_picture, metavar="PICTURE", help="a .svg, .html or .png")
    draw.add_argument("--force", action="store_true", help="replace the picture")
    _sizes(draw.add_argument_group("for a page (.html)"))
    _common(draw)
    lint = command("lint", _lazily("_lint", "lint"), "give advice on a file: what is legal and seldom meant")
    lint.add_argument("file", metavar="FILE")
    lint.add_argument("--format", choices=FORMS, default="text", help="how advice is printed (default: text)")
    lint.add_argument("--strict", action="store_true", help="end with 1 if there is any")
    _common(lint)
    explain = command("explain", _lazily("_describe", "explain_code"), "explain the code of a diagnostic")
    explain.add_argument("code", metavar="CODE", help="such as AX101")
    _json(explain)


def _add_cost(command: Callable[..., argparse.ArgumentParser]) -> None:
    cost = command("cost", _lazily("_cost", "cost"), "count weights, caches, operations and memory, without building")
    cost.add_argument("file", metavar="FILE")
    cost.add_argument("--weights", metavar="DIR", help="take the sizes of a checkpoint")
    _sizes(cost)
    cost.set_defaults(context=(4096, 65536), batch=1, dtype="bfloat16")
    cost.add_argument("--training", action="store_true", help="count the memory of a training step too")
    cost.add_argument("--layers", action="store_true", help="list every layer")
    _common(cost)


def _sizes(parser: Any) -> None:
    """How a model is stored and run; what is not given is None."""
    parser.add_argument(
        "--context", type=_contexts, metavar="N,N", help="tokens of each sequence (default: 4096,65536)"
    )
    parser.add_argument("--batch", type=_sequences, metavar="N", help="sequences together (default: 1)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of weights and caches (default: bfloat16)"
    )
    parser.add_argument("--quantize", type=int, choices=(2, 3, 4, 5, 6, 8), metavar="BITS", help="2, 3, 4, 5, 6 or 8")
    parser.add_argument("--memory", type=_bytes, metavar="16GB", help="say whether it fits, and the longest context")
    parser.add_argument(
        "--bandwidth", type=_bandwidth, metavar="GB/s", help="of the memory: bounds the tokens per second"
    )


def _add_building(command: Callable[..., argparse.ArgumentParser]) -> None:
    build = command("build", _lazily("_build", "build"), "build a model, in memory or as a folder that mlx_lm runs")
    build.add_argument("file", metavar="FILE")
    build.add_argument("--out", metavar="DIR", help="write a folder; without it the model is built in memory and tried")
    build.add_argument("--weights", metavar="DIR", help="take sizes and weights of a checkpoint (default: random)")
    build.add_argument("--layout", choices=("huggingface", "mlx"), help="who wrote it (default: the mark in its files)")
    build.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: float32, or as in the checkpoint)",
    )
    build.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the random weights (default: 0)")
    build.add_argument("--quantize", type=int, choices=(2, 3, 4, 5, 6, 8), metavar="BITS", help="2, 3, 4, 5, 6 or 8")
    build.add_argument(
        "--tokenizer",
        metavar="bytes|DIR",
        help="`bytes`, or a folder (default: that of the checkpoint if it has one, else bytes)",
    )
    build.add_argument("--dry-run", action="store_true", help="say what would be built and write nothing")
    build.add_argument("--force", action="store_true", help="replace a folder that an earlier build wrote")
    build.add_argument("--allow-large", action="store_true", help="build even if memory seems too small")
    _common(build)
    imported = command(
        "import", _lazily("_import", "import_checkpoint"), "write the architecture of a checkpoint as a file"
    )
    imported.add_argument("checkpoint", metavar="DIR", help="a folder with config.json and safetensors")
    imported.add_argument("-o", "--output", metavar="FILE", help="write it to a file (default: print it)")
    imported.add_argument(
        "--family", dest="file", metavar="FILE", help="read it as this family file instead of its own"
    )
    imported.add_argument("--force", action="store_true", help="replace the file")
    _common(imported)
    exported = command(
        "export", _lazily("_export", "export_folder"), "write a built folder as stock loaders read it, without own code"
    )
    exported.add_argument("folder", metavar="DIR", help="a folder that `build --out` wrote, fine-tuned since or not")
    exported.add_argument("--to", required=True, choices=_KINDS, help="who shall read it")
    exported.add_argument("-o", "--output", metavar="DIR", help="the new folder (default: beside DIR)")
    exported.add_argument("--force", action="store_true", help="replace an earlier export")
    _json(exported)
    check = command("check", _lazily("_build", "check"), "prove caches, masks and gradients on a small float32 copy")
    check.add_argument("file", metavar="FILE")
    check.add_argument("--seed", type=_seed, default=0, metavar="N", help="of weights and tokens (default: 0)")
    _common(check)
    verify = command(
        "verify", _lazily("_verify", "verify"), "compare the model of a checkpoint with mlx-lm and transformers"
    )
    verify.add_argument("checkpoint", metavar="DIR", help="a folder with config.json and safetensors")
    verify.add_argument("--family", dest="file", metavar="FILE", help="read it as this family file instead of its own")
    verify.add_argument("--tokens", type=_length, default=64, metavar="N", help="how many random ones (default: 64)")
    verify.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the tokens (default: 0)")
    verify.add_argument(
        "--tolerance",
        type=_tolerance,
        default=1e-4,
        metavar="X",
        help="largest difference, relative to the largest logit (default: 1e-4)",
    )
    verify.add_argument(
        "--against", type=_peers, default=_PEERS, metavar="NAMES", help="out of mlx-lm,transformers (default: both)"
    )
    verify.add_argument("--allow-large", action="store_true", help="run it even if memory seems too small")
    _common(verify)


def _add_plugin_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    schema = command("schema", _lazily("_plugins", "schema"), "print the JSON Schema of everything installed")
    schema.add_argument("-o", "--output", metavar="FILE", help="write it to a file")
    schema.add_argument("--check", action="store_true", help="compare the file with what would be written")
    schema.add_argument("--published", action="store_true", help="of the built-in components alone, as shipped")
    plugins = command("plugins", _lazily("_plugins", "plugins"), "list the installed plugins and what became of them")
    _json(plugins)
    new = command("new-plugin", _lazily("_plugins", "new_plugin"), "write a package with a layer of your own")
    new.add_argument("name", metavar="NAME", help="its namespace, such as `acme`")
    new.add_argument("--directory", default=".", metavar="DIR", help="where its folder is made (default: here)")
    _json(new)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY.KEY=VALUE", help="lay a value over the file"
    )
    _json(parser)


def _picture(text: str) -> str:
    if Path(text).suffix not in (".svg", ".html", ".png"):
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of .svg, .html, .png")
    return text


def _seed(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 2^64 - 1")
    return number


def _length(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 2 <= int(text) <= 2**20:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 to 2^20")
    return int(text)


def _tolerance(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in _PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_PEERS)}")
    return names


#: Tokens and sequences at most.
_MANY: Final = 2**40
_UNITS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def _contexts(text: str) -> tuple[int, ...]:
    return tuple(_sequences(part) for part in text.split(","))


def _sequences(text: str) -> int:
    if not re.fullmatch("[0-9]{1,13}", text) or not 1 <= int(text) <= _MANY:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 2^40")
    return int(text)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMGTP]?)(i?)B?", text, re.IGNORECASE)
    if not match or (match[3] and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory such as 16GB or 24GiB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].upper()])


def _bandwidth(text: str) -> float:
    number = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else 0.0
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB/s such as 400")
    return number


def _json(parser: argparse.ArgumentParser) -> Any:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
