"""What the sheet of several devices says is sent for a token, against what the kernel has counted on their sockets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commands import SMALL, axon, settings

from axon_compose import load
from tests.ranks import ended, ring

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads counters of Linux"),
    pytest.mark.xdist_group("several"),
]

#: Each rank answers a prompt and decodes, as mlx-lm does, and prints the bytes that went out meanwhile. All sockets of
#: the process are those of MLX's ring and of the watch, which says nothing. 120 is the offset of `tcpi_bytes_acked`.
RANK = """
import contextlib, os, socket, struct, sys
import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import sharded_load

def sent():
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(number))) as each:
            if each.family == socket.AF_INET and each.type == socket.SOCK_STREAM:
                found += struct.unpack_from("<Q", each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128), 120)[0]
    return found

group = mx.distributed.init()
folder, way, prompt, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model, _ = sharded_load(folder, **{way: group}, trust_remote_code=True)
cache = make_prompt_cache(model)
mx.eval(model(mx.ones((1, prompt), mx.int32), cache=cache))
mx.eval(mx.distributed.all_sum(mx.zeros(2)))  # all has arrived
before = sent()
for _ in range(steps):
    mx.eval(model(mx.ones((1, 1), mx.int32), cache=cache))
mx.eval(mx.distributed.all_sum(mx.zeros(2)))
print((sent() - before) / steps)
"""
STEPS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a vocabulary that is split as well."""
    folder = tmp_path_factory.mktemp("wire") / "model"
    done = axon("build", "hybrid-demo", "--out", folder, "--tokenizer", "bytes-chat", *settings(*SMALL[2:]),
                "--set", "dims.hidden_size=64", "--set", "dims.vocab_size=260")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("way", "name"), [("tensor_group", "tensor 2"), ("pipeline_group", "pipeline 2")])
def test_a_token_sends_what_the_sheet_says(folder: Path, tmp_path: Path, way: str, name: str) -> None:
    with ring(tmp_path, [["-c", RANK, str(folder), way, "24", str(STEPS)]] * 2) as processes:
        said = ended(processes)
    counted = [float(json.loads(out)) for _, out, _ in said]
    expected = load(folder).spread(2, dtype="float32")
    (row,) = (row for row in expected.strategies if row.name == name)
    assert max(counted) == pytest.approx(row.sent_per_token, rel=0.05)
