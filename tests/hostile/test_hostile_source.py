"""Whatever stands in a file: faults that say so within a second, in little memory; never a traceback or a crash."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_texts import HOSTILE

from axon_compose.diagnostics import Problems
from axon_compose.language.source import read
from axon_compose.report._diagnostics import render

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
#: Of processor time, which neighbours on the same core can double: it tells bounded work (some tenths here, at most
#: 0.9) from work that does not end. How long things take is measured in `benchmarks/`.
SECONDS = 4.0
#: Begins a command with 256 MiB of address space, the interpreter and its libraries included; only Linux holds a
#: process to it. A function between fork and exec (`preexec_fn`) would fork this process, which has threads of MLX.
IN_LITTLE_MEMORY = ("sh", "-c", f'ulimit -v {256 << 10} && exec "$@"', "sh") if sys.platform == "linux" else ()


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.yaml")), ids=lambda file: file.stem)
def test_corpus(file: Path) -> None:
    """The name of a file begins with the fault that must be told, or with `ok`."""
    problems = Problems()
    node = read(file.read_bytes(), file.name, problems)
    codes = {d.code for d in problems}
    expected = file.name.partition("-")[0]
    if expected == "ok":
        assert (node is not None, codes) == (True, set())
    else:
        assert expected in codes
    assert not codes or render(problems, problems.sources)


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[list[str], bool, float, int]]:
    """What became of every generated text, in one process of its own, which a crash of the C parser would end."""
    begin = [*IN_LITTLE_MEMORY, sys.executable, str(HERE / "hostile_texts.py")]
    done = subprocess.run(begin, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.xdist_group("hostile-texts")  # one worker makes the results
@pytest.mark.parametrize("name", HOSTILE)
def test_generated(name: str, results: dict[str, tuple[list[str], bool, float, int]]) -> None:
    codes, usable, seconds, size = results[name]
    expected = HOSTILE[name][1]
    assert set(codes) == expected
    assert usable or expected
    assert size < 100_000
    assert seconds < SECONDS
