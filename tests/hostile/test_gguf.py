"""Whatever is in a GGUF file: a fault that can be shown, or a model, in bounded time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_descriptions import assert_told_well

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.weights import checkpoint_plan
from axon_compose.diagnostics import Refusal
from tests.checkpoints.gguf.converted import write

#: Of processor time, which neighbours can double.
SECONDS = 15.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write("qwen2", path, "Q8_0")
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "m.gguf"


def plans_or_tells(path: Path) -> None:
    begin = time.process_time()
    try:
        found = load(checkpoint=path)
        checkpoint_plan(found.plan(), found.document, path)
    except ArchitectureError as error:
        assert_told_well(error)
    except Refusal:
        pass  # in words of its own
    assert time.process_time() - begin < SECONDS


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_bytes(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    plans_or_tells(place)
    place.write_bytes(b"GGUF\3\0\0\0" + data)
    plans_or_tells(place)


def test_any_changed_byte_of_the_header(place: Path, whole: bytes) -> None:
    """Small changes, so that what a count says stays near what it was."""
    rng = random.Random(0)
    for _ in range(150):
        content = bytearray(whole)
        for at in rng.sample(range(1200), rng.choice([1, 1, 2, 5])):
            content[at] ^= 1 << rng.randrange(8)
        place.write_bytes(content)
        plans_or_tells(place)


def test_any_truncation(place: Path, whole: bytes) -> None:
    rng = random.Random(1)
    for _ in range(60):
        place.write_bytes(whole[: rng.randrange(len(whole))])
        plans_or_tells(place)
