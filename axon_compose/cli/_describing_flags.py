"""The flags of the commands that say what a file is."""

from __future__ import annotations

from axon_compose.cli._arguments import as_json, common, devices, layers, output, picture, quantize
from axon_compose.cli._commands import Command, lazily
from axon_compose.cli._counting_flags import simulation, sizes
from axon_compose.report import FORMS

__all__ = ["add_catalogue", "add_looking", "add_reading"]


def add_reading(command: Command) -> None:
    """Add `validate` and `show`."""
    validate = command("validate", lazily("_describe", "validate"), "is it valid? every error of files, with its place")
    validate.add_argument("files", nargs="+", metavar="FILE")
    validate.add_argument("--format", choices=FORMS, default="text", help="how faults are printed (default: text)")
    common(validate)
    show = command("show", lazily("_describe", "show"), "draw the stack in characters, with totals and capabilities")
    show.add_argument("file", metavar="FILE")
    show.add_argument("--table", action="store_true", help="print the stack as a table instead")
    show.add_argument("--stage", choices=("document", "plan"), help="print the result of a stage as JSON instead")
    show.add_argument(
        "--devices", type=devices, metavar="N", help="print what each of N devices has of every component instead"
    )
    quantize(show)
    common(show)


def add_looking(command: Command) -> None:
    """Add `diff`, `draw` and `lint`."""
    diff = command("diff", lazily("_diff", "diff"), "compare what two models compute, whatever names their files use")
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
    draw = command("draw", lazily("_draw", "draw"), "draw the stack: a picture, or a page with tables and charts")
    draw.add_argument("file", metavar="FILE")
    output(draw, "PICTURE", "a .svg, .html or .png", required=True, type=picture)
    draw.add_argument("--force", action="store_true", help="replace the picture")
    sizes(draw.add_argument_group("for a page (.html)"))
    several = draw.add_argument_group("with --devices: schedules of a cluster")
    simulation(several)
    several.add_argument("--training", action="store_true", help="simulate a training step")
    several.add_argument("--segment", type=layers, metavar="N", help="compute N layers at a time again, 0 none")
    common(draw)
    lint = command("lint", lazily("_lint", "lint"), "is it sensible? what is valid but suspicious in a file")
    lint.add_argument("file", metavar="FILE")
    lint.add_argument("--format", choices=FORMS, default="text", help="how advice is printed (default: text)")
    lint.add_argument("--strict", action="store_true", help="exit with 1 if there is any")
    common(lint)


def add_catalogue(command: Command) -> None:
    """Add `list`, `describe` and `explain`."""
    listed = command("list", lazily("_catalogue", "list_all"), "list architectures, families, components and tasks")
    listed.add_argument(
        "search",
        nargs="?",
        metavar="SEARCH",
        help="only what has this in its name or summary, or `tasks`",
    )
    as_json(listed)
    described = command("describe", lazily("_catalogue", "describe"), "show a component or task with all its options")
    described.add_argument("type", metavar="TYPE", help="such as attention, mqar, or plugin/name")
    as_json(described)
    explain = command("explain", lazily("_describe", "explain_code"), "explain the code of a diagnostic")
    explain.add_argument("code", metavar="CODE", help="such as AX101")
    as_json(explain)
