"""What a strategy costs, against the cost sheets of the devices' plans and against sums made by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from axon_compose import load
from axon_compose.analysis.cost import Storage, cost
from axon_compose.analysis.devices import Hardware, Layout, layouts, spread, strategies
from axon_compose.analysis.devices._strategies import Spreads
from axon_compose.diagnostics import Refusal
from axon_compose.plan import Plan
from axon_compose.proof.check import shrink
from tests.helpers import described
from tests.shipped import VARIED, shipped

LLAMA = {"num_heads": 8, "num_kv_heads": 4}
HIDDEN, VOCABULARY, LAYERS, WIDTH = 64, 96, 3, 2


def llama() -> Plan:
    return load(
        described(
            dims={"hidden_size": HIDDEN, "vocab_size": VOCABULARY},
            components={
                "attn": {"type": "attention", **LLAMA},
                "mlp": {"type": "mlp", "intermediate_size": 128},
            },
            blocks={"a": ["attn", "mlp"]},
            stack=f"a*{LAYERS}",
        )
    ).plan()


def test_every_way_to_divide() -> None:
    assert len(list(layouts(256))) == 45
    assert len(set(layouts(12))) == len(list(layouts(12))) == 18
    assert all(layout.devices == 12 for layout in [*layouts(12), *strategies(12)])
    assert [str(layout) for layout in strategies(4)] == [
        "tensor 4", "pipeline 4", "tensor 2 x pipeline 2", "data 4"
    ]  # fmt: skip
    assert strategies(3) == [Layout(3), Layout(1, 3), Layout(1, 1, 3)]
    assert strategies(1) == [Layout()]
    assert Layout().name == "one device"


@pytest.mark.parametrize("name", VARIED[::2])
def test_pieces_add_up_to_the_sheet(name: str) -> None:
    """Of one device, stage by stage, nothing is lost and nothing counted twice."""
    plan = load(shrink(shipped(name).plan(), hidden_size=64)).plan()
    for batch, bits in ((1, None), (3, 4)):
        sheet = cost(plan, context=40, batch=batch, quantize=bits)
        spreads = Spreads(plan, Storage("bfloat16", bits), 40)
        pieces = spreads.pieces(1)
        (at,) = sheet.contexts
        assert spreads.spread(Layout()).weight_bytes(0) == sheet.weight_bytes
        own = [piece for piece in pieces.all() if piece.layer is None or piece.layer.owner is None]
        assert sum(map(pieces.weights, own)) == sheet.weight_bytes
        assert batch * sum(map(pieces.caches, pieces.layers)) == at.cache_bytes
        assert sum(pieces.moved(piece, batch) for piece in pieces.all()) == at.moved_bytes
        assert sum(map(pieces.decode_flops, pieces.all())) == at.decode_flops
        assert batch * sum(map(pieces.prompt_flops, pieces.all())) == at.prefill_flops


@pytest.mark.parametrize("name", VARIED[::3])
def test_saved_bytes_are_those_of_a_training_step(name: str) -> None:
    plan = load(shrink(shipped(name).plan(), hidden_size=64)).plan()
    step = cost(plan, context=24, batch=2, training=True).contexts[0].training
    pieces = Spreads(plan, Storage("bfloat16"), 24).pieces(1)
    assert step is not None
    assert sum(pieces.saved(piece, 2) for piece in pieces.all()) == step.activations


def test_replicas_are_one_device_each() -> None:
    plan = llama()
    sheet = cost(plan, context=64, batch=2, bandwidth=1e9)
    row = spread(plan, 4, context=64, batch=8, hardware=Hardware(bandwidth=1e9)).strategy("data 4")
    assert (row.weight_bytes, row.cache_bytes) == (sheet.weight_bytes, sheet.contexts[0].cache_bytes)
    assert row.sent_per_token == row.sent_per_prompt_token == row.messages_per_token == row.waiting == 0
    assert sheet.contexts[0].tokens_per_second is not None
    assert row.together == pytest.approx(4 * sheet.contexts[0].tokens_per_second)
    uneven = spread(plan, 4, context=64, batch=9, hardware=Hardware(bandwidth=1e9)).strategy("data 4")
    assert uneven.cache_bytes == row.cache_bytes * 3 // 2


def test_a_pipeline() -> None:
    plan = llama()
    sheet = cost(plan, context=64, batch=2)
    hardware = Hardware(bandwidth=1e9, link=1e8, latency=1e-4)
    row = spread(plan, 3, context=64, batch=2, hardware=hardware).strategy("pipeline 3")
    assert row.layers == (1, 1, 1)
    ends = plan.embedding.size + plan.head.size + HIDDEN
    assert row.weight_bytes == WIDTH * (ends + sum(use.size for use in plan.layers[0].uses()))
    assert row.cache_bytes == sheet.contexts[0].cache_bytes // LAYERS
    stream = HIDDEN * WIDTH
    assert row.sent_per_prompt_token == stream
    scores = 2 * 2 / 3 * VOCABULARY * WIDTH  # a sum of three devices, of which one has what is not zero
    assert row.sent_per_token == pytest.approx(stream + scores)
    assert row.messages_per_token == 3 + 4  # the last one tells the first what the head reads
    moved = sheet.contexts[0].moved_bytes / 1e9
    assert 2 / row.together == pytest.approx(moved + 7 * 1e-4 + 2 * (3 * stream + scores) / 1e8)


def test_speed_is_what_memory_and_link_leave() -> None:
    plan = llama()
    rows = [
        spread(plan, 3, hardware=Hardware(link=link, latency=latency)).strategy("pipeline 3")
        for link, latency in ((1e8, 1e-3), (1e9, 1e-3), (1e9, 1e-5))
    ]
    assert all(slow.one < fast.one and slow.waiting > fast.waiting for slow, fast in pairwise(rows))
    free = spread(plan, 3, hardware=Hardware(link=1e18, latency=0)).strategy("pipeline 3")
    alone = spread(plan, 1).strategy("one device")
    assert free.one == pytest.approx(alone.one)


def test_impossible_ways_are_rows_of_their_own() -> None:
    sheet = spread(llama(), 5)
    (stages,) = (row for row in sheet.impossible if row.layout.pipeline == 5)
    assert stages.fault.code == "AX990"
    assert sheet.recommended == "data 5"
    for devices in (0, 10**6):
        with pytest.raises(Refusal, match="AX403"):
            spread(llama(), devices)


def test_nothing_fits() -> None:
    sheet = spread(llama(), 2, hardware=Hardware(memory=10))
    assert sheet.recommended is None
    (fault,) = sheet.faults
    assert (fault.code, fault.severity) == ("AX402", "warning")
    assert fault.help is not None
    assert "--quantize" in fault.help


def test_the_hint_of_what_is_enough_is_true() -> None:
    plan = load(shrink(shipped("llama").plan(), hidden_size=64)).plan()
    rows = spread(plan, 2, context=4096, batch=16).strategies
    memory = min(row.memory_bytes for row in rows) - 1
    (fault,) = spread(plan, 2, context=4096, batch=16, hardware=Hardware(memory=memory)).faults
    assert fault.help is not None
    number = int(fault.help.split("`")[1].removeprefix("--devices "))
    enough = spread(plan, number, context=4096, batch=16, hardware=Hardware(memory=memory))
    assert enough.recommended
    assert not enough.faults


def test_training_memory() -> None:
    plan = llama()
    replicas, sharded = spread(plan, 4, context=32, batch=8, training=True, dtype="float32").training
    step = cost(plan, context=32, batch=2, training=True, dtype="float32").contexts[0].training
    assert step is not None
    assert replicas.memory_bytes == step.total + step.weights
    assert replicas.sent_per_step == pytest.approx(2 * 3 / 4 * step.weights)
    vectors = 4 * HIDDEN * (2 * LAYERS + 1)  # of the norms
    parted = step.weights - vectors
    assert sharded.weight_bytes == sharded.gradient_bytes == parted // 4 + vectors
    assert sharded.optimizer_bytes == 2 * sharded.weight_bytes
    assert sharded.gathered_bytes == parted
    assert sharded.sent_per_step == pytest.approx(3 / 4 * (3 * parted + 2 * vectors))
    segmented = spread(plan, 4, context=32, batch=8, training=True, segment=1, dtype="float32").training
    layer = 4 * sum(use.size for use in plan.layers[0].uses()) - 2 * 4 * HIDDEN
    assert segmented[1].gathered_bytes == parted - 3 * layer + 2 * layer
    assert segmented[1].sent_per_step == pytest.approx(sharded.sent_per_step + 3 / 4 * 3 * layer)
    narrow = spread(plan, 4, context=32, batch=8, training=True).training[1]
    assert narrow.sent_per_step == pytest.approx(3 / 4 * (parted / 2 + 2 * parted + vectors))
    (alone,) = (row for row in spread(plan, 1, training=True).training if row.name == "fully sharded")
    assert (alone.gathered_bytes, alone.sent_per_step) == (0, 0)


def test_tensor_groups() -> None:
    """Each device's bytes are those of the cost sheet of its plan; what is sent is what a ring sends of each output."""
    plan = llama()
    hardware = Hardware(bandwidth=1e9, link=1e8, latency=1e-4)
    row = spread(plan, 4, context=64, batch=2, hardware=hardware).strategy("tensor 4")
    part = Spreads(plan, Storage("bfloat16"), 64).rank(4).plan
    sheet = cost(part, context=64, batch=2)
    assert row.weight_bytes == sheet.weight_bytes < cost(plan).weight_bytes / 3
    assert (
        row.cache_bytes == sheet.contexts[0].cache_bytes == cost(plan, context=64, batch=2).contexts[0].cache_bytes / 4
    )
    assert not row.whole
    sums = 1 + 2 * LAYERS  # the table, and the output of every attention and MLP
    stream, scores = HIDDEN * WIDTH, VOCABULARY * WIDTH
    assert row.sent_per_prompt_token == pytest.approx(sums * 2 * 3 / 4 * stream)
    assert row.sent_per_token == pytest.approx(sums * 2 * 3 / 4 * stream + 3 / 4 * scores)
    assert row.messages_per_token == sums * 6 + 3
    seconds = sheet.contexts[0].moved_bytes / 1e9 + row.messages_per_token * 1e-4 + 2 * row.sent_per_token / 1e8
    assert 2 / row.together == pytest.approx(seconds)


def test_groups_inside_of_a_pipeline() -> None:
    plan = llama()
    both = spread(plan, 6, context=64, hardware=Hardware(bandwidth=1e9, link=1e8, latency=1e-4)).strategy(
        "tensor 2 x pipeline 3"
    )
    assert both.layers == (1, 1, 1)
    assert both.messages_per_token == (1 + 2 * LAYERS) * 2 + 1 + 3 + 4
    part = Spreads(plan, Storage("bfloat16"), 64).rank(2).plan
    assert both.cache_bytes == cost(part, context=64).contexts[0].cache_bytes // LAYERS


def test_what_stays_whole_is_named() -> None:
    plan = load(described(name="odd")).plan()
    sheet = spread(plan, 4)
    named = {name: why for row in sheet.strategies for name, why in row.whole.items()}
    assert {"attn", "swa"} <= set(named)  # of two heads each
    assert all(named.values())


def test_what_is_recommended_can_be_run() -> None:
    """Groups inside of a pipeline are shown, and said to be faster where they are; mlx_lm does not run them."""
    plan = load("llama").plan()
    sheet = spread(plan, 4)
    both = sheet.strategy("tensor 2 x pipeline 2")
    assert sheet.recommended == "tensor 4"
    assert both.one > sheet.strategy("tensor 4").one
    assert "tensor 2 x pipeline 2 would be " in sheet.reason
    small = spread(plan, 4, hardware=Hardware(memory=36 * 10**8), context=1024)
    assert "the only one that fits 3.60 GB per device" in small.reason


def test_layers_that_share_weights_are_there_once() -> None:
    shared = {"a": {"branches": ["attn", "mlp"], "share": "all"}}
    plan = load(described(blocks=shared, stack="a*4")).plan()
    assert [layer.owner for layer in plan.layers] == [None, 0, 0, 0]
    row = spread(plan, 1).strategy("one device")
    assert row.weight_bytes == cost(plan).weight_bytes


def test_machines_with_several_devices() -> None:
    """Tensor groups that fit into a machine have its link; what goes between machines has the other one."""
    plan = llama()
    slow = {"bandwidth": 1e12, "link": 1e6, "latency": 0.0}
    alone, joined = Hardware(**slow), Hardware(**slow, machine=2, machine_link=1e9)
    assert spread(plan, 2, hardware=joined).strategy("tensor 2") == spread(
        plan, 2, hardware=Hardware(**slow | {"link": 1e9})
    ).strategy("tensor 2")
    for name in ("tensor 4", "pipeline 3"):
        devices = int(name[-1])
        assert spread(plan, devices, hardware=joined).strategy(name) == spread(plan, devices, hardware=alone).strategy(
            name
        )
    both = spread(plan, 6, hardware=joined).strategy("tensor 2 x pipeline 3")
    part = Spreads(plan, Storage("bfloat16"), 4096).spread(Layout(2, 3))
    inside, between = part.path(1)
    assert both.waiting / both.one == pytest.approx(inside.nbytes / 1e9 + between.nbytes / 1e6)
    with pytest.raises(ValueError, match="machine"):
        Hardware(machine=0)


def test_which_way_to_train() -> None:
    plan = llama()
    given = {"context": 32, "batch": 8, "training": True, "segment": 1}
    free = spread(plan, 4, **given)  # type: ignore[arg-type]
    assert free.training_reason.startswith("replicas, since less is sent in a step: ")
    needed = [way.memory_bytes for way in free.training]
    assert needed[0] > needed[1]
    for memory, words in (
        (needed[0] - 1, "fully sharded, the only way that fits "),
        (needed[1] - 1, "no step fits "),
        (needed[0], "replicas, since "),
    ):
        found = spread(plan, 4, hardware=Hardware(memory=memory), **given)  # type: ignore[arg-type]
        assert found.training_reason.startswith(words)
