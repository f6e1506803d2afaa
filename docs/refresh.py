"""Write what README and docs show: output of commands and of Python, and the pages made of data.

    python docs/refresh.py            # write every page anew
    python docs/refresh.py README.md  # one page

What the fenced blocks of a page mean, in order, all in one temporary folder, where the small checkpoints of the tests
lie as in a checkout (`tests/families/fixtures`):

* `yaml` that begins with `# NAME.yaml` (or `# wrong: NAME.yaml`) is a file; `# over NAME.yaml` marks a fragment of one.
* any language that begins with `# file: PATH` is a file too.
* `console`: each line that begins with `$ ` is run by bash; the lines below it are its output.
* `python` is run, the blocks of a page as one program; a `text` block right below is what it prints.
* `sh` is not run.

Output that differs in nothing but what `mask` hides stays as it is.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import conformance_page
import devices_page
import families_page
import imports_page
import mlx_lm_page
import orderings_page
import performance_page
import transfers_page
from components_page import page as components_page

ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = (
    "README.md",
    "docs/language.md",
    "docs/huggingface.md",
    "docs/cli.md",
    "docs/devices.md",
    "docs/pictures.md",
    "docs/planning.md",
    "docs/plugins.md",
    "docs/race.md",
    "docs/python.md",
    "docs/questions.md",
    "docs/training.md",
    "docs/surgery.md",
)
#: Pages made of data. What is measured is kept; `docs/families_page.py`, `docs/conformance_page.py` and `make bench`
#: measure it anew.
GENERATED: Final[Mapping[str, Callable[[], str]]] = {
    "docs/components.md": components_page,
    "docs/imports.md": imports_page.page,
    "docs/conformance.md": lambda: conformance_page.page(conformance_page.on_page()),
    "docs/families-on-devices.md": lambda: devices_page.page(devices_page.on_page()),
    "docs/families.md": lambda: families_page.page(families_page.on_page()),
    "docs/mlx-lm-commands.md": mlx_lm_page.page,
    "docs/orderings.md": orderings_page.page,
    "docs/performance.md": performance_page.page,
    "docs/transfers.md": transfers_page.page,
}
CHECKPOINTS: Final = "tests/families/fixtures"
#: Where commands are looked for first. The tests put theirs here, which need not import everything again.
PROGRAMS = Path(sys.executable).parent

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE: Final = re.compile(r"# file: (\S+)\n")
_YAML: Final = re.compile(r"# (?:(wrong): )?([\w-]+\.yaml)\n")
_FRAGMENT: Final = re.compile(r"# over ([\w-]+\.yaml)\n")
_COMMAND: Final = re.compile(r"^\$ (.*)$", re.MULTILINE)
_SEPARATOR: Final = "␟"

#: What differs from run to run or from machine to machine, and what stands for it in a comparison.
_MASKS: Final = (
    (re.compile(r"(?<=^={10}\n).*?(?=^={10}$)", re.MULTILINE | re.DOTALL), "generated text\n"),
    (re.compile(r"^Generation: \d+ tokens", re.MULTILINE), "Generation: N tokens"),
    (re.compile(r"\d[\d.]* tokens-per-sec"), "N tokens-per-sec"),
    (re.compile(r"^Peak memory: .*$", re.MULTILINE), "Peak memory: N GB"),
    (re.compile(r"(?<=at most )\d\.\de[-+]\d+"), "SMALL"),
    (re.compile(r"^( +ok +[\w-]+ +)[\d.e+-]+(?= +[≤≥])", re.MULTILINE), r"\1N"),
    (re.compile(r"[\d.]+ \w?B are available"), "N GB are available"),
    # What is measured: two speeds with their variation and a peak at the end of a row.
    (re.compile(r"(?: +[\d,.]+ ±\d+%){2} +[\d.]+ \w?B$", re.MULTILINE), "  SPEEDS"),
    # Two speeds and their ratio, or two amounts of memory; and how fast the machine multiplies.
    (
        re.compile(r"^(  (?:prefill|decode|training|memory) .*?(?:tokens|sequences?))  .*$", re.MULTILINE),
        r"\1  FIGURES",
    ),
    (re.compile(r"^ +axon-compose  +mlx-lm  +ratio$", re.MULTILINE), "  HEAD"),
    (re.compile(r"^  this BLAS is slow, whoever uses it: .*\n", re.MULTILINE), ""),
    (re.compile(r"^system  +.*?(?=^```$)", re.MULTILINE | re.DOTALL), "FINDINGS\n"),
    # What a run of training measures; what it writes differs with the texts that a version of Python carries.
    (re.compile(r"(?<=loss )[\d.]+|(?<=held out )[\d.]+|[\d.]+(?= bits per byte)"), "N"),
    (re.compile(r"[\d,.]+ tokens/s, [\d.]+ \w?B, [\d:]+ left"), "N tokens/s, N MB, N left"),
    (re.compile(r"(?<= tokens in )[\dmins ]+(?=, )|[\d.]+ \w?B(?= of memory)"), "N"),
    (re.compile(r"^  \|.*\n", re.MULTILINE), ""),
    # Versions of matplotlib differ in how many digits and marks a chart has.
    (re.compile(r"(?<=\.html: )(.*), [\d.]+ \w?B$", re.MULTILINE), r"\1, N kB"),
    # Versions of Python differ in how argparse writes an option with two spellings, and in where it breaks a line.
    (re.compile(r"(-\w) [A-Z]+, (--\w+ [A-Z]+)"), r"\1, \2"),
    (re.compile(r"\n {14,}"), "  "),
    (re.compile(r" {2,}"), "  "),
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the offsets of the text in the page."""

    language: str
    text: str
    start: int
    end: int


def blocks(page: str) -> list[Block]:
    """Every fenced block with a language, in order."""
    return [Block(m[1], m[2], m.start(2), m.end(2)) for m in _BLOCK.finditer(page)]


def mask(text: str) -> str:
    """The text with what cannot be the same twice hidden."""
    for pattern, stand_in in _MASKS:
        text = pattern.sub(stand_in, text)
    return text


def yaml_file(block: Block) -> tuple[str, bool] | None:
    """Name of the file that a block shows, and whether it is right; None if it is no named file."""
    match = _YAML.match(block.text) if block.language == "yaml" else None
    return (match[2], match[1] is None) if match else None


def fragment_of(block: Block) -> str | None:
    """Name of the file that a fragment is laid over, or None."""
    match = _FRAGMENT.match(block.text) if block.language == "yaml" else None
    return match[1] if match else None


def refreshed(page: str) -> str:
    """A page with everything that it shows run again."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        (folder / CHECKPOINTS).parent.mkdir(parents=True)
        (folder / CHECKPOINTS).symlink_to(ROOT / CHECKPOINTS)
        changes = list(_run_page(page, folder))
    for block, text in sorted(changes, key=lambda change: -change[0].start):
        if mask(text) != mask(block.text):
            page = page[: block.start] + text + page[block.end :]
    return page


def _run_page(page: str, folder: Path) -> Iterator[tuple[Block, str]]:
    found = blocks(page)
    programs: list[tuple[Block, Block | None]] = []
    for number, block in enumerate(found):
        named = _FILE.match(block.text)
        file = named[1] if named else (yaml_file(block) or (None,))[0]
        if file:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            yield block, _transcript(block.text, folder)
        elif block.language == "python":
            below = found[number + 1] if number + 1 < len(found) else None
            adjacent = below and below.language == "text" and page[block.end : below.start] == "```\n\n```text\n"
            programs.append((block, below if adjacent else None))
    yield from _outputs(programs, folder)


def _transcript(text: str, folder: Path) -> str:
    """A console block with the output of its commands."""
    return "".join(f"$ {each}\n{run(['bash', '-c', _on_free_ports(each)], folder)}" for each in _COMMAND.findall(text))


def _on_free_ports(command: str) -> str:
    """A command whose processes meet at ports that nobody has, where `mlx.launch` would take the same for all."""
    if not command.startswith("mlx.launch "):
        return command
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return command.replace("mlx.launch", f"mlx.launch -p {one.getsockname()[1]}", 1)


def _outputs(programs: list[tuple[Block, Block | None]], folder: Path) -> Iterator[tuple[Block, str]]:
    """What the Python blocks of a page print, run as one program."""
    if not programs:
        return
    source = f"print({_SEPARATOR!r}, end='')\n".join(block.text for block, _ in programs)
    (folder / "program.py").write_text(source, encoding="utf-8")
    printed = run([sys.executable, "program.py"], folder).split(_SEPARATOR)
    if len(printed) != len(programs):
        raise SystemExit("".join(printed))
    for (block, below), output in zip(programs, printed, strict=True):
        if below:
            yield below, output
        elif output:
            raise SystemExit(f"this prints, and no `text` block is below it:\n{block.text}\n{output}")


def run(command: list[str], folder: Path) -> str:
    """Both streams of a command, as a newcomer in that folder would see them without colours.

    `pip install` puts packages into a folder of their own, builds without the network, and later commands see them.
    """
    site = str(folder / ".site")
    paths = [site, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AXON_COMPOSE", "PIP_"))}
    environment = kept | {
        "PATH": os.pathsep.join([str(PROGRAMS), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb", "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1", "AXON_NATIVE": "0", "XDG_CACHE_HOME": str(folder / ".cache"),
        "PIP_TARGET": site, "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1", "PIP_QUIET": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode("utf-8").replace(f"{folder}/", "")
    text = "".join(c if c.isprintable() or c == "\n" else "·" for c in text)
    if "Traceback (most recent call last)" in text or "\n```" in text:  # a fault, or the end of the fence it goes into
        raise SystemExit(f"{' '.join(command)}\n{text}")
    return text


def make(name: str) -> str:
    """What the page `name` should hold."""
    return GENERATED[name]() if name in GENERATED else refreshed((ROOT / name).read_text(encoding="utf-8"))


def main(names: list[str], write: Callable[[str], object] = print) -> None:
    """Write the named pages, or all."""
    for name in names or (*PAGES, *GENERATED):
        path, text = ROOT / name, make(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            write(f"wrote {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
