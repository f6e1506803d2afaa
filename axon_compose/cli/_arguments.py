"""Arguments that several commands share, and texts to the numbers that they mean."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from axon_compose.learn.budget import Budget

__all__ = [
    "BITS",
    "PEERS",
    "as_json",
    "bandwidth",
    "budget",
    "cases",
    "chart",
    "common",
    "contexts",
    "devices",
    "dtype",
    "dtypes",
    "flops",
    "html_page",
    "latency",
    "layers",
    "layout",
    "length",
    "link",
    "machine",
    "names",
    "nbytes",
    "output",
    "peers",
    "picture",
    "quantize",
    "rates",
    "seed",
    "sequences",
    "sizes",
    "threads",
    "tokens",
    "tolerance",
]

#: Arguments of `cost`, `compare` and `page`, by their names on the command line.
_SIZES: Final = ("context", "batch", "dtype", "quantize", "memory", "bandwidth")
#: Widths of quantised weights; `axon_compose.analysis.cost.BITS`, which a parser need not import.
BITS: Final = (1, 2, 3, 4, 5, 6, 8)
#: What `verify` can compare with; `axon_compose.proof.check.PEERS`, which imports mlx.
PEERS: Final = ("mlx-lm", "transformers")


def common(parser: argparse.ArgumentParser) -> None:
    """Add `--set` and `--json`."""
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY.KEY=VALUE", help="lay a value over the file"
    )
    as_json(parser)


def output(parser: argparse.ArgumentParser, metavar: str, help_: str, *, dest: str = "output", **more: Any) -> None:
    """Where a command writes, by the same names everywhere."""
    action = parser.add_argument("-o", "--out", dest=dest, metavar=metavar, help=help_, **more)
    parser._option_string_actions["--output"] = action  # the long name of version 0.1: read, and not shown


def dtypes(parser: Any, help_: str, default: str | None = None) -> None:
    """Add `--dtype`."""
    parser.add_argument("--dtype", type=dtype, choices=("float32", "bfloat16", "float16"), default=default, help=help_)


def quantize(parser: Any) -> None:
    """Add `--quantize`."""
    parser.add_argument("--quantize", type=int, choices=BITS, metavar="BITS", help="1, 2, 3, 4, 5, 6 or 8")


def sizes(arguments: argparse.Namespace) -> dict[str, Any]:
    """How a model is stored and run, as far as it is said."""
    return {name: value for name in _SIZES if (value := getattr(arguments, name)) is not None}


def checkpoint(text: str) -> str:
    """The folder of a model, or one of the cache of huggingface_hub."""
    from axon_compose.checkpoints.hub_cache import snapshot_of

    return str(snapshot_of(Path(text)))


def picture(text: str) -> str:
    """A file whose name says in which form it is drawn."""
    return _ending(text, ".svg", ".html", ".png")


def _ending(text: str, *endings: str) -> str:
    if Path(text).suffix not in endings:
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of {', '.join(endings)}")
    return text


def html_page(text: str) -> str:
    """A file that is a page."""
    if Path(text).suffix != ".html":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .html")
    return text


def seed(text: str) -> int:
    """Of random numbers."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 2^64 - 1")
    return number


def cases(text: str) -> int:
    """How many cases to try."""
    return _from_to(text, 1, 10_000, "10000")


def threads(text: str) -> int:
    """How many devices to try as threads."""
    return _from_to(text, 2, 64, "64")


def names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def length(text: str) -> int:
    """How many tokens to try."""
    return _from_to(text, 2, 2**20, "2^20")


def _from_to(text: str, least: int, most: int, said: str) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {said}")
    return int(text)


def tolerance(text: str) -> float:
    """A number from 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def rates(text: str) -> tuple[float, ...]:
    """Learning rates between commas."""
    found = tuple(tolerance(part) for part in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different numbers above 0, such as 1e-3,3e-3")
    return found


def budget(text: str) -> Budget:
    """How long something runs; read here, so that a wrong one is a usage error."""
    from axon_compose.learn.budget import Budget

    try:
        return Budget.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def chart(text: str) -> str:
    """A file that is a page or a picture with charts."""
    return _ending(text, ".html", ".svg")


def peers(text: str) -> tuple[str, ...]:
    """Names of other implementations."""
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PEERS)}")
    return names


#: Tokens and sequences at most.
_MANY: Final = 2**40
_UNITS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
#: A number without a unit is meant as bytes from here on: less memory than this holds no model.
_BYTES: Final = 1_000_000
#: Short names of dtypes, as people write them.
_DTYPES: Final = {
    "fp32": "float32", "f32": "float32", "bf16": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16",
}  # fmt: skip


def contexts(text: str) -> tuple[int, ...]:
    """Numbers of tokens."""
    return tuple(tokens(part) for part in text.split(","))


def tokens(text: str) -> int:
    """A number of tokens; `4k` is 4096, as contexts are named."""
    match = re.fullmatch("([0-9]{1,13})([kKmM]?)", text.strip())
    number = int(match[1]) * 1024 ** _UNITS[match[2].upper()] if match else 0
    if not 1 <= number <= _MANY:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens from 1 to 2^40, such as 4096 or 4k")
    return number


def dtype(text: str) -> str:
    """The name of a dtype, or the name as it is where it is none."""
    return _DTYPES.get(text.lower(), text)


def sequences(text: str) -> int:
    """A count."""
    if not re.fullmatch("[0-9]{1,13}", text) or not 1 <= int(text) <= _MANY:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 2^40")
    return int(text)


def layers(text: str) -> int:
    """A number of layers, none allowed."""
    if not re.fullmatch("[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of layers")
    return int(text)


def nbytes(text: str) -> int:
    """An amount of memory: `16GB`, `24GiB`."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMGTP]?)(i?)(B?)", text, re.IGNORECASE)
    if not match or (match[3] and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory such as 16GB or 24GiB")
    if not match[2] and not match[4] and float(text) < _BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} has no unit: is {text}GB meant, or {text}GiB?")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].upper()])


def bandwidth(text: str) -> float:
    """GB a second to bytes; the unit may be named: `400`, `400GB/s`, `1.6TB/s`."""
    number, unit = _quantity(text, "(?i:GB/s|TB/s|)", "a number of GB/s such as 400")
    return number * (1e12 if unit == "TB/S" else 1e9)


def _quantity(text: str, units: str, said: str, *, zero: bool = False) -> tuple[float, str]:
    """A number and its unit in capitals; `units` is a pattern."""
    match = re.fullmatch(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?) ?({units})", text)
    if match is None or not (zero or float(match[1])):
        raise argparse.ArgumentTypeError(f"{text!r} is not {said}")
    return float(match[1]), match[2].upper()


def devices(text: str) -> int:
    """A number of devices; whether a model can run on them is not decided here."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of devices")
    return int(text)


def flops(text: str) -> float:
    """Operations a second: `30TFLOPS`, `30T`."""
    number, unit = _quantity(text, "(?i:[GTP](?:FLOPS|FLOP/s)?)", "a number of operations a second such as 30TFLOPS")
    return number * 1000.0 ** _UNITS[unit[0]]


def layout(text: str) -> tuple[int, int, int]:
    """Devices that share a layer, stages and replicas: `4x8x8`."""
    match = re.fullmatch("([1-9][0-9]{0,5})x([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, tensor x pipeline x data, such as 4x8x8")
    return int(match[1]), int(match[2]), int(match[3])


def link(text: str) -> float:
    """Bytes a second of a link: `10GB/s`, or in bits as networks are named, `100Gbit/s`."""
    units = "(?!Gb/s)(?i:GB/s|MB/s|Gbit/s|)"  # Gb/s may be meant in bits
    number, unit = _quantity(text, units, "the speed of a link such as 10GB/s or 100Gbit/s")
    return number * {"MB/S": 1e6, "GBIT/S": 1e9 / 8}.get(unit, 1e9)


def machine(text: str) -> tuple[int, float]:
    """Devices of one machine and the link between them: `8x400GB/s`."""
    number, cross, speed = text.partition("x")
    if not cross or not re.fullmatch("[1-9][0-9]{0,4}", number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of devices and the speed of their link: 8x400GB/s")
    return int(number), link(speed)


def latency(text: str) -> float:
    """Seconds of a message: `50us`, `0.2ms`."""
    number, unit = _quantity(text, "us|µs|ms|s", "the time of a message such as 50us or 0.2ms", zero=True)
    return number * {"MS": 1e-3, "S": 1.0}.get(unit, 1e-6)


def as_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
