"""The flags of `race`."""

from __future__ import annotations

from axon_compose.cli._arguments import budget, chart, common, length, names, output, rates, sequences
from axon_compose.cli._commands import Command, lazily

__all__ = ["MATCHES", "add_race"]

#: What `race` makes equal; `axon_compose.learn.race._match.MATCHES`.
MATCHES = ("params", "flops", "state")


def add_race(command: Command) -> None:
    """Add the command."""
    race = command("race", lazily("_race", "race"), "which of these learns it better? several models, same terms")
    race.add_argument("files", nargs="+", metavar="FILE", help="the first one is what others are made equal to")
    race.add_argument("--task", metavar="TASK", help="such as mqar:pairs=32,vocab=64; see `list tasks` (default: mqar)")
    race.add_argument("--data", action="append", metavar="TEXT", help="text instead: files, folders or python-docs")
    race.add_argument("--tokenizer", metavar="bytes|bpe:N|DIR", help="of the text (default: bytes)")
    race.add_argument("--length", type=length, metavar="N", help="tokens of a sequence of the text (default: 128)")
    race.add_argument(
        "--budget",
        type=budget,
        default="300steps",
        metavar="AMOUNT",
        help="of each run: 300steps, 20Mtok, 5min or 1e14flop (default: 300steps)",
    )
    race.add_argument("--seeds", type=sequences, metavar="N", help="runs of each model (default: 3)")
    race.add_argument(
        "--rates", type=rates, metavar="X,X", help="learning rates that all try first (default: 1e-3,3e-3,1e-2)"
    )
    race.add_argument("--batch", type=sequences, metavar="N", help="sequences of a step (default: 32)")
    race.add_argument("--match", choices=MATCHES, help="change widths until this is equal")
    race.add_argument(
        "--scale", type=names, metavar="DIM,DIM", help="the widths (default: hidden_size,intermediate_size)"
    )
    race.add_argument("--folder", metavar="DIR", help="where to keep it: go on after a stop, add models or seeds")
    output(race, "PAGE.html", "write a page, or the main charts as .svg", type=chart)
    race.add_argument("--force", action="store_true", help="replace the page")
    common(race)
