"""Processes train together only if they train the same."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.ranks import ended, one, ring

MODEL = """
version: 1
name: tiny
dims:
  hidden_size: 16
  vocab_size: 259
components:
  attn:
    type: attention
    num_heads: 2
    head_dim: 8
blocks:
  layer: [attn]
stack: layer
"""


def train(folder: Path) -> list[str]:
    file, text = folder / "tiny.yaml", folder / "text.txt"
    file.write_text(MODEL)
    text.write_text("describe, trust, run. " * 50)
    command = ["-m", "axon_compose", "train", str(file), "--data", str(text), "--out", str(folder / "out")]
    return [*command, "--steps", "1", "--batch", "2", "--length", "16", "--learning-rate", "0.1"]


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """By a program that does not share it, as most do not."""
    hosts = tmp_path / "hosts.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hosts.write_text(json.dumps([[f"127.0.0.1:{taken.getsockname()[1]}"], ["127.0.0.1:1"]]))
        with one(hosts, 0, train(tmp_path)) as process:
            ((code, _, said),) = ended([process])
    assert code == 2
    assert said.startswith("error[AX973]: the processes of the run cannot be connected: [ring] Couldn't bind socket: ")
    assert "Address already in use" in said


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (["--learning-rate", "0.01"], r"rank 1 has another `\w+` than rank 0: 0.01, not 0.1"),
        (["--set", "components.attn.head_dim=4"], "rank 1 has another description of the model than rank 0: "),
    ],
)
def test_what_differs_is_named(tmp_path: Path, other: list[str], what: str) -> None:
    common = train(tmp_path)
    with ring(tmp_path, [common, [*common, *other]]) as processes:
        said = ended(processes)
    assert [code for code, _, _ in said] == [2, 2]
    assert not (tmp_path / "out").exists()
    (message,) = re.findall(r"error\[AX971\]: .*", "".join(err for _, _, err in said))
    assert re.search(what, message)
