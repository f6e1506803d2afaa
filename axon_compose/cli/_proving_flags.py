"""The flags of the commands that tell by running whether a model is right."""

from __future__ import annotations

from axon_compose.cli._arguments import PEERS, cases, checkpoint, common, length, names, peers, seed, threads, tolerance
from axon_compose.cli._commands import Command, lazily

__all__ = ["add_proving"]


def add_proving(command: Command) -> None:
    """Add `check` and `verify`."""
    check = command(
        "check", lazily("_check", "check"), "does it run right? caches, masks and gradients of a small copy"
    )
    check.add_argument("file", metavar="FILE", nargs="?")
    check.add_argument("--layer", metavar="TYPE", help="check one component instead of a file, with generated options")
    check.add_argument("--options", metavar="JSON", help="with --layer: these options instead of generated ones")
    check.add_argument("--cases", type=cases, metavar="N", help="with --layer: how many (default: 5)")
    check.add_argument("--truth", type=names, metavar="NAME,NAME", help="only these checks (default: all)")
    check.add_argument("--as-is", action="store_true", help="try the model itself, which has to be small")
    check.add_argument("--devices", type=threads, metavar="N", help="also split over N devices, in this process")
    check.add_argument("--seed", type=seed, default=0, metavar="N", help="of weights and tokens (default: 0)")
    common(check)
    verify = command(
        "verify", lazily("_verify", "verify"), "is it the published model? against mlx-lm and transformers"
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
