"""The flags of the commands that count and time."""

from __future__ import annotations

from typing import Any

from axon_compose.cli._arguments import (
    as_json,
    bandwidth,
    checkpoint,
    common,
    contexts,
    devices,
    dtypes,
    flops,
    html_page,
    latency,
    layers,
    layout,
    link,
    machine,
    nbytes,
    output,
    peers,
    quantize,
    sequences,
    tokens,
)
from axon_compose.cli._commands import Command, lazily

__all__ = ["add_counting", "add_timing", "simulation", "sizes"]


def add_counting(command: Command) -> None:
    """Add `cost` and `compare`."""
    cost = command("cost", lazily("_cost", "cost"), "count weights, caches, operations and memory, without building")
    cost.add_argument("file", metavar="FILE")
    cost.add_argument("--weights", type=checkpoint, metavar="DIR", help="take the sizes of a checkpoint or a folder")
    sizes(cost)
    cost.add_argument("--training", action="store_true", help="count the memory of a training step too")
    cost.add_argument(
        "--segment",
        type=layers,
        metavar="N",
        help="with --training: the step of train --segment N, which computes N layers at a time again, 0 none",
    )
    cost.add_argument("--layers", action="store_true", help="list every layer")
    simulation(cost.add_argument_group("with --devices: schedules of a cluster"))
    common(cost)
    compare = command(
        "compare", lazily("_compare", "compare"), "put models side by side: size, caches, operations, and speed"
    )
    compare.add_argument("files", nargs="+", metavar="FILE")
    sizes(compare)
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


def simulation(parser: Any) -> None:
    """Add the flags of a simulation of several devices."""
    parser.add_argument(
        "--simulate", action="store_true", help="simulate decoding, or with --training steps, by every layout"
    )
    parser.add_argument("--layout", type=layout, metavar="4x8x8", help="this tensor x pipeline x data alone")
    parser.add_argument(
        "--schedule", choices=("1f1b", "gpipe"), help="of a training step: turns, or all forward first (default: 1f1b)"
    )
    parser.add_argument(
        "--micro-batches", type=sequences, metavar="N", help="of each replica (default: what is fastest)"
    )
    parser.add_argument("--flops", type=flops, metavar="30TFLOPS", help="of a device (default: 30TFLOPS)")
    parser.add_argument(
        "--no-overlap", action="store_true", help="sum gradients after the last backward pass, not meanwhile"
    )


def add_timing(command: Command) -> None:
    """Add `bench` and `doctor`."""
    bench = command("bench", lazily("_bench", "bench"), "time a model here, optionally against mlx-lm and others")
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
    dtypes(bench, "of weights and caches (default: float32)", "float32")
    quantize(bench)
    common(bench)
    doctor = command("doctor", lazily("_bench", "doctor"), "say what this machine lacks to run models fast")
    as_json(doctor)


def sizes(parser: Any) -> None:
    """How a model is stored and run; what is not given is None."""
    parser.add_argument(
        "--context", type=contexts, metavar="N,N", help="tokens of each sequence, 4k is 4096 (default: 4096,65536)"
    )
    parser.add_argument("--batch", type=sequences, metavar="N", help="sequences together (default: 1)")
    dtypes(parser, "of weights and caches (default: bfloat16)")
    quantize(parser)
    parser.add_argument("--memory", type=nbytes, metavar="16GB", help="say whether it fits, and the longest context")
    parser.add_argument(
        "--bandwidth", type=bandwidth, metavar="GB/s", help="of the memory: bounds the tokens per second"
    )
    parser.add_argument(
        "--devices", type=devices, metavar="N", help="spread it over N devices, each with --memory and --bandwidth"
    )
    parser.add_argument("--link", type=link, metavar="10GB/s", help="what a device sends to another (default: 10GB/s)")
    parser.add_argument(
        "--machine", type=machine, metavar="8x400GB/s", help="devices of one machine, and the link between those"
    )
    parser.add_argument("--latency", type=latency, metavar="50us", help="of a message (default: 50us)")
