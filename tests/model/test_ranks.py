"""Processes that run one model together begin only if they run the same, and end with one message if not."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import mlx.core as mx
import pytest

from axon_compose import load
from axon_compose.model.ranks import differing, facts
from tests.ranks import ended, one, ports, ring

LLAMA = Path(__file__).parents[2] / "architectures" / "llama.yaml"
RANK = """
import sys
import mlx.core as mx
from axon_compose.diagnostics import CheckpointError
from axon_compose.model.ranks import joined
group = mx.distributed.init()
for fault in ("", sys.argv[2]):
    with joined(group, lambda: {"version of mlx": sys.argv[1]}):
        if fault:
            raise CheckpointError("AX503", fault)
    print(mx.distributed.all_sum(mx.array(group.rank() + 1)).item(), flush=True)
"""
OTHER = """
import mlx.core as mx
mx.eval(mx.distributed.all_gather(mx.full((1, 16), 255, mx.uint8)))
"""
#: What is on its way on mlx-lm's stream when something is exchanged on another one. Rank 1 gets to it later.
AHEAD = """
import time
import mlx.core as mx
from mlx_lm.generate import generation_stream
from axon_compose.model import joining
from axon_compose.model._post import Post
from axon_compose.model.ranks import messages

group = mx.distributed.init()
rank, device, post = group.rank(), joining(group), Post(group)
exchanges = [
    lambda array: device.sum(array),
    lambda array: device.gather(array),
    lambda array: post.total(array),
    lambda array: post.carry(array, [0, 1], "key") if rank == 0 else post.carry(None, [0, 1], "key"),
]

def ahead(exchange):
    with mx.stream(generation_stream):
        array = mx.ones((400, 400))
        for _ in range(40 * rank):
            array = mx.sin(array)
        mx.async_eval(exchange(array[0, :64]))
    time.sleep(0.03)  # rank 0 has sent its part

for exchange in [*exchanges, lambda array: mx.distributed.all_sum(array)]:
    ahead(exchange)
    print(*(text.decode() for text in messages(group, b"rank %d" % rank)))
for exchange in exchanges:
    for then in (device.sum, post.total):
        ahead(exchange)
        print(then(mx.full((2,), rank + 1.0)).tolist())
    ahead(exchange)
    print(device.gather(mx.full((1, 1), rank + 1.0)).tolist())
    ahead(exchange)
    received = post.carry(mx.full((2,), 5.0), [0, 1], "other")
    print((received if rank == 1 else mx.full((2,), 5.0)).tolist())
"""


def outcome(folder: Path, *ranks: tuple[str, str]) -> list[tuple[int, str, str]]:
    with ring(folder, [["-c", RANK, *rank] for rank in ranks]) as processes:
        return ended(processes)


def test_another_version_ends_all_with_one_message(tmp_path: Path) -> None:
    (first, out, told), *others = outcome(tmp_path, ("1", ""), ("1", ""), ("2", ""))
    assert (first, out) == (1, "")
    assert told.startswith("error[AX971]: rank 2 has another version of mlx than rank 0: 2, not 1\n")
    assert others == [(1, "", "")] * 2


def test_those_that_agree_begin_and_a_fault_ends_all_with_the_message_of_the_lowest_rank(tmp_path: Path) -> None:
    said = outcome(tmp_path, ("1", ""), ("1", "no room"), ("1", "no room either"))
    assert said == [(1, "6\n", ""), (1, "6\n", "error[AX503]: no room\n"), (1, "6\n", "")]


def test_a_rank_that_ends_before_is_noticed(tmp_path: Path) -> None:
    early = ["-c", "import mlx.core as mx; mx.distributed.init()"]
    with ring(tmp_path, [["-c", RANK, "1", ""], early]) as processes:
        (code, _, told), _ = ended(processes)
    assert code == 1
    assert told.count("error[") == 1
    assert "error[AX970]: another rank has ended before all had agreed\n" in told


def test_what_was_begun_on_another_stream_is_over_before_the_next_exchange(tmp_path: Path) -> None:
    """mlx-lm's generators leave a token on its way that they computed ahead."""
    with ring(tmp_path, [["-c", AHEAD]] * 2) as processes:
        said = ended(processes)
    exchanged = ["[3.0, 3.0]"] * 2 + ["[[1.0, 2.0]]", "[5.0, 5.0]"]
    assert [(code, out.splitlines()) for code, out, _ in said] == [(0, ["rank 0 rank 1"] * 5 + 4 * exchanged)] * 2, said


def test_what_is_no_message_ends_the_process(tmp_path: Path) -> None:
    agreeing, other = ["-c", RANK, "1", ""], ["-c", OTHER]
    with ring(tmp_path, [agreeing, other]) as processes:
        (code, out, told), _ = ended(processes)
    assert (code, out) == (1, "")
    assert told.startswith("error[AX974]: rank 1 sends something else than this process waits for\n")


def test_two_runs_on_the_same_ports_are_noticed(tmp_path: Path) -> None:
    """Two pairs that have become one ring: each process is connected with one of the other pair."""
    with ports(4) as first, ExitStack() as stack:
        processes = []
        for number, (rank, own, next_) in enumerate([(0, 0, 1), (1, 1, 2), (0, 2, 3), (1, 3, 0)]):
            hosts = tmp_path / f"{number}.json"
            hosts.write_text(
                json.dumps([[f"127.0.0.1:{first + port}"] for port in ((own, next_) if rank == 0 else (next_, own))])
            )
            processes.append(stack.enter_context(one(hosts, rank, ["-c", RANK, "1", ""])))
        said = ended(processes)
    assert [code for code, _, _ in said] == [1] * 4
    assert [err.startswith("error[AX972]: processes of two runs are connected") for _, _, err in said] == [
        True,
        False,
    ] * 2


def test_the_first_difference_is_told() -> None:
    same = {"version": "1", "weights": "a"}
    assert differing([same, same]) is None
    assert differing([same, {"version": "1"}]) is None  # of a pipeline each rank has its own files
    fault = differing([same, same, {"version": "2", "weights": "b"}])
    assert fault is not None
    assert fault.message == "rank 2 has another version than rank 0: 2, not 1"


@pytest.mark.parametrize("name", ["x.weight", "y.weight"])
@pytest.mark.parametrize("place", [0, -1])
def test_samples_see_other_weights(tmp_path: Path, name: str, place: int) -> None:
    plan = load(LLAMA).plan()
    weights = {"x.weight": mx.zeros((64, 64)), "y.weight": mx.zeros((300,))}
    file = tmp_path / "model.safetensors"
    mx.save_safetensors(str(file), weights)
    before = facts(plan, tmp_path)
    assert facts(plan, tmp_path) == before
    weights[name] = weights[name].at[place].add(1)
    mx.save_safetensors(str(file), weights)
    assert [key for key, value in facts(plan, tmp_path).items() if value != before[key]] == [
        "content of `model.safetensors`"
    ]


def test_facts_name_packages_plugins_and_the_description() -> None:
    plan = load(LLAMA).plan()
    said, other = facts(plan), facts(load(LLAMA, settings=["dims.num_hidden_layers=3"]).plan())
    packages = [f"version of {name}" for name in ("axon-compose", "mlx", "mlx-lm")]
    plugins = [f"plugin `{name}`" for name in plan.plugins]
    assert [*said] == [*packages, *plugins, "description of the model"]
    assert [name for name in said if other[name] != said[name]] == ["description of the model"]
