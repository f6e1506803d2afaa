"""One built folder for all tests of this directory, whichever process they run in."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from commands import SMALL, axon, settings

VIVID = re.compile(r"\b(x|in|q|k)_proj\.weight")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of a parallel run have in common."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    (shared / "e2e").mkdir(exist_ok=True)
    return shared / "e2e"


@pytest.fixture(scope="session")
def built(shared_folder: Path) -> Path:
    """`hybrid-demo` of some 230k parameters, built by the command line once per run."""
    folder = shared_folder / "model"
    with (shared_folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            done = axon("build", "hybrid-demo", "--out", folder, "--tokenizer", "bytes-chat", *settings(*SMALL))
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def model(built: Path, shared_folder: Path) -> Path:
    """The same folder with weights that remember: some matrices four times as large.

    Freshly drawn ones forget a token within a few steps, and then a lost state or a shifted window shows in no answer.
    """
    folder = shared_folder / "vivid"
    with (shared_folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.copytree(built, folder)
            weights = mx.load(str(folder / "model.safetensors"))
            louder = {name: value * (4 if VIVID.search(name) else 1) for name, value in weights.items()}
            mx.save_safetensors(str(folder / "model.safetensors"), louder, metadata={"format": "mlx"})
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts to train and to measure on, in the form that mlx_lm reads."""
    folder = tmp_path_factory.mktemp("data")
    for part in ("train", "valid", "test"):
        lines = [json.dumps({"text": f"{part} {i}: describe, trust, run."}) + "\n" for i in range(8)]
        (folder / f"{part}.jsonl").write_text("".join(lines))
    return folder
