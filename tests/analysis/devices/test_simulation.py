"""Simulated clusters, against closed forms, limits, and schedules that go from event to event."""

from __future__ import annotations

from typing import Any

import pytest
from test_schedule import Brute

from axon_compose import load
from axon_compose.analysis.cost import Storage, cost
from axon_compose.analysis.devices import SCHEDULES, Hardware, Layout, Simulated, simulate, spread
from axon_compose.analysis.devices._hardware import check_devices
from axon_compose.analysis.devices._pieces import Experts
from axon_compose.analysis.devices._schedule import decoding, training
from axon_compose.analysis.devices._simulation import Candidate
from axon_compose.analysis.devices._stage_times import StageTimes
from axon_compose.analysis.devices._strategies import Spreads
from axon_compose.diagnostics import Refusal
from axon_compose.plan import Plan
from tests.helpers import described

FREE = Hardware(link=1e30, latency=0.0)
SLOW = Hardware(flops=1e9, bandwidth=1e8, link=1e7, latency=1e-5)
HIDDEN, EXPERTS, CHOSEN, CONTEXT = 64, 8, 2, 32


def model(mlp: dict[str, Any] | None = None, layers: int = 4) -> Plan:
    parts = {
        "attn": {"type": "attention", "num_heads": 8, "num_kv_heads": 4},
        "mlp": mlp or {"type": "mlp", "intermediate_size": 128},
    }
    dims = {"hidden_size": HIDDEN, "vocab_size": 96}
    return load(described(dims=dims, components=parts, blocks={"a": ["attn", "mlp"]}, stack=f"a*{layers}")).plan()


def mixture() -> Plan:
    return model({"type": "moe", "num_experts": EXPERTS, "top_k": CHOSEN, "intermediate_size": 64})


def only(plan: Plan, layout: Layout, hardware: Hardware = SLOW, **more: Any) -> Simulated:
    more = {"context": CONTEXT, "batch": 16, "training": True} | more
    (found,) = simulate(plan, layout.devices, hardware=hardware, layout=layout, **more).runs
    return found


def test_one_device_with_nothing_to_wait_for() -> None:
    """A step is three forward passes of operations, and the rate of tokens is what its operations allow."""
    plan, flops = model(), 1e9
    found = only(plan, Layout(), Hardware(flops=flops, bandwidth=1e30), micro=4)
    operations = cost(plan, context=CONTEXT, batch=16).contexts[0].prefill_flops
    assert found.seconds == pytest.approx(3 * operations / flops)
    assert found.tokens_per_second == pytest.approx(16 * CONTEXT / found.seconds)
    assert (found.computing, found.bubble, found.gradients) == (pytest.approx(1), pytest.approx(0, abs=1e-9), 0)
    again = only(plan, Layout(), Hardware(flops=flops, bandwidth=1e30), micro=4, segment=1)
    assert again.seconds == pytest.approx(4 * operations / flops)
    assert again.memory_bytes < found.memory_bytes


@pytest.mark.parametrize("overlap", [True, False])
def test_replicas_sum_their_gradients(overlap: bool) -> None:
    plan, data = model(), 4
    alone = only(plan, Layout(), batch=4, micro=2)
    found = only(plan, Layout(data=data), micro=2, overlap=overlap)
    weights = cost(plan, context=CONTEXT).weight_bytes
    pieces = 2 + 4  # the table, the layers, and norm and head, each summed by itself
    summing = 2 * (data - 1) / data * weights / SLOW.link + pieces * 2 * (data - 1) * SLOW.latency
    assert found.timeline.seconds == pytest.approx(alone.seconds)
    if overlap:
        assert alone.seconds < found.seconds < alone.seconds + summing
    else:
        assert found.seconds == pytest.approx(alone.seconds + summing)
    assert found.gradients == pytest.approx((found.seconds - alone.seconds) / found.seconds)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_pipeline_is_what_its_events_are(schedule: Any) -> None:
    plan = model()
    spreads = Spreads(plan, Storage("bfloat16"), CONTEXT)
    times = StageTimes(spreads.spread(Layout(pipeline=4)), Layout(pipeline=4), SLOW, 2)
    candidate = Candidate(Layout(pipeline=4), 8, times, schedule)
    ends = Brute(
        training(schedule, 4, 8),
        lambda job: candidate.took(job).seconds,
        lambda job: times.handing(job.stage, decoding=False),
    ).run()
    found = only(plan, Layout(pipeline=4), schedule=schedule, micro=8)
    assert {done.job: done.end for done in found.timeline.runs} == ends
    assert found.seconds == max(ends.values())
    assert found.bubble + found.computing == pytest.approx(1)


def test_the_bubble_of_a_whole_model() -> None:
    """Near (p - 1) / (m + p - 1) where stages are nearly equal, and less of it with more micro-batches."""
    plan = model(layers=32)
    for micro in (4, 8, 16):
        found = only(plan, Layout(pipeline=4), FREE, micro=micro)
        assert found.bubble == pytest.approx(3 / (micro + 3), abs=0.02)


def test_what_schedules_keep() -> None:
    plan = model()
    turns, all_first = (only(plan, Layout(pipeline=4), schedule=name, micro=16) for name in ("1f1b", "gpipe"))
    assert turns.memory_bytes < all_first.memory_bytes
    assert [turns.timeline.kept(stage) for stage in range(4)] == [4, 3, 2, 1]
    assert [all_first.timeline.kept(stage) for stage in range(4)] == [16] * 4
    for found in (turns, all_first):
        candidate = Candidate(found.layout, 16, None, found.schedule)  # type: ignore[arg-type]
        assert [candidate.kept(stage) for stage in range(4)] == [found.timeline.kept(stage) for stage in range(4)]


def test_decoding_goes_round() -> None:
    """With as many groups as stages, none waits: a token of all takes the slowest stage once for each group."""
    plan = model(layers=8)
    rates = [only(plan, Layout(pipeline=4), FREE, training=False, micro=n).tokens_per_second for n in (1, 2, 4)]
    assert rates[0] < rates[1] < rates[2]
    spreads = Spreads(plan, Storage("bfloat16"), CONTEXT)
    spread = spreads.spread(Layout(pipeline=4))
    times = StageTimes(spread, Layout(pipeline=4), SLOW, 4)
    found = only(plan, Layout(pipeline=4), training=False, micro=4)
    ends = Brute(
        decoding(4, 4, 40),
        lambda job: times.decode(job.stage).seconds,
        lambda job: times.handing(job.stage, decoding=True),
    ).run()
    last = sorted(end for job, end in ends.items() if job.stage == 3)
    assert found.seconds == pytest.approx((last[-1] - last[-81]) / 20)
    assert found.tokens_per_second == pytest.approx(16 / found.seconds)


def test_the_last_stage_reads_a_tied_table() -> None:
    """It computes with as many weights as with a matrix of its own for the head."""
    stages = []
    for tied in (True, False):
        plan = load(described(stack="a*4", head={"tied": tied})).plan()
        assert bool(plan.head.params) != tied
        spread = Spreads(plan, Storage("bfloat16"), CONTEXT).spread(Layout(pipeline=2))
        stages.append([spread.used_bytes(stage) for stage in range(2)])
    assert stages[0] == stages[1]


def test_layers_that_are_computed_again_send_again() -> None:
    """A backward pass sends as much as the forward pass; with segments, the forward pass is done once more."""
    plan, layout = mixture(), Layout(tensor=2, data=4)
    spread = Spreads(plan, Storage("bfloat16"), CONTEXT).spread(layout)
    for again in (False, True):
        times = StageTimes(spread, layout, SLOW, 2, by_rank=True, recomputed=again)
        ahead, back = times.forward(0), times.backward(0)
        assert ahead.experts > 0
        assert (back.experts, back.tensor) == ((1 + again) * ahead.experts, (1 + again) * ahead.tensor)
        assert back.computing == (2 + again) * ahead.computing


def test_experts_by_rank() -> None:
    """Replicas that share experts have a part of them each, and send tokens there and back."""
    plan, data = mixture(), 4
    spreads = Spreads(plan, Storage("bfloat16"), CONTEXT)
    pieces = spreads.pieces(1)
    (experts,) = pieces.experts(pieces.layers[0])
    assert experts == Experts(EXPERTS, CHOSEN, EXPERTS * 3 * HIDDEN * 64 * 2)
    assert not list(spreads.pieces(1).experts(pieces.first))
    layout = Layout(data=data)
    own, shared = (StageTimes(spreads.spread(layout), layout, SLOW, 2, by_rank=rank) for rank in (False, True))
    assert own.weight_bytes(0) - shared.weight_bytes(0) == 4 * experts.nbytes * 3 // 4
    tokens = 2 * CONTEXT
    each = (data - 1) / data * tokens * CHOSEN * HIDDEN * 2 / SLOW.link + (data - 1) * SLOW.latency
    assert shared.forward(0).experts == pytest.approx(4 * 2 * each)
    assert shared.backward(0).experts == pytest.approx(4 * 2 * each)
    assert (own.forward(0).experts, own.forward(0).computing) == (0, shared.forward(0).computing)
    # One token of one sequence reads two experts of each layer; of four replicas all eight, of which each has two.
    single = [StageTimes(spreads.spread(layout), layout, SLOW, 1, by_rank=rank).decode(0) for rank in (False, True)]
    assert single[0].computing == pytest.approx(single[1].computing)
    eight = [StageTimes(spreads.spread(layout), layout, SLOW, 8, by_rank=rank).decode(0) for rank in (False, True)]
    saved = 4 * experts.nbytes * 3 // 4 / SLOW.bandwidth
    assert eight[0].computing - eight[1].computing == pytest.approx(saved)
    assert sum(t.nbytes for t in own.gradients(0)) > sum(t.nbytes for t in shared.gradients(0))


def test_all_layouts_are_looked_at() -> None:
    sheet = simulate(mixture(), 8, context=CONTEXT, batch=16, training=True, hardware=SLOW)
    rates = [row.tokens_per_second for row in sheet.runs]
    assert rates == sorted(rates, reverse=True)
    for row in sheet.runs:
        assert row.layout.devices == 8
        assert row.micro * row.sequences * row.layout.data == 16
        parts = row.computing + row.bubble + row.tensor + row.experts + row.gradients
        assert parts == pytest.approx(1)
        assert row.fits is None
    assert any("layers" in reason for reason in sheet.impossible)
    assert sheet.best is sheet.runs[0]


def test_more_devices_are_never_slower_for_free() -> None:
    """With free messages, the rate is at most what operations allow, and replicas reach it."""
    plan = model()
    operations = cost(plan, context=CONTEXT, batch=16).contexts[0].prefill_flops / 16 / CONTEXT
    for layout in (Layout(data=4), Layout(2, 1, 2), Layout(1, 2, 2), Layout(4)):
        found = only(plan, layout, Hardware(flops=1e6, bandwidth=1e30, link=1e30, latency=0), micro=4)
        bound = 4 * 1e6 / 3 / operations
        assert found.tokens_per_second <= bound * (1 + 1e-9)
        if layout.data == 4:
            assert found.tokens_per_second == pytest.approx(bound)


def test_a_large_cluster() -> None:
    sheet = simulate(load("llama").plan(), 256, batch=256, training=True, hardware=Hardware(memory=64 * 10**9))
    assert sheet.best.fits
    assert all(row.layout.devices == 256 for row in sheet.runs)
    assert sheet.best.tokens_per_second < 256 * 30e12 / 6 / 6.5e9


def test_what_cannot_be() -> None:
    plan = model()
    for layout, devices, batch, words in (
        (Layout(2, 2, 2), 4, 8, "a layout of 2 x 2 x 2 is one of 8 devices, not of 4"),
        (Layout(1, 8), 8, 8, "AX990"),
        (Layout(data=4), 4, 6, "a batch of 6 is no multiple of the replicas"),
    ):
        with pytest.raises(Refusal, match=words):
            simulate(plan, devices, batch=batch, layout=layout, training=True)
    with pytest.raises(Refusal, match="too many to simulate"):
        simulate(plan, 4, batch=10**9, micro=10**9, layout=Layout(1, 4))
    assert simulate(plan, 4, batch=2**40, training=True).best.micro > 0  # in a moment
    with pytest.raises(Refusal, match="AX403"):
        check_devices(-1)
    with pytest.raises(Refusal, match="runs in no way on 251 devices"):
        simulate(plan, 251)
    (fault,) = simulate(plan, 4, batch=4, hardware=Hardware(memory=5)).faults
    assert (fault.code, fault.severity) == ("AX402", "warning")


def test_a_tensor_group() -> None:
    """Each pass of a micro-batch sums every output that the plan of a device says, forwards and backwards."""
    plan, tokens = model(), 4 * CONTEXT
    found = only(plan, Layout(tensor=4), micro=4)
    sums, stream, scores = 1 + 2 * 4, tokens * HIDDEN * 2, tokens * 96 * 2
    each = sums * (2 * 3 / 4 * stream / SLOW.link + 6 * SLOW.latency) + 3 / 4 * scores / SLOW.link + 3 * SLOW.latency
    assert found.tensor * found.seconds == pytest.approx(4 * 2 * each)
    part = Spreads(plan, Storage("bfloat16"), CONTEXT).rank(4).plan
    operations = cost(part, context=CONTEXT, batch=16).contexts[0].prefill_flops
    assert found.computing * found.seconds == pytest.approx(3 * operations / SLOW.flops)


def test_machines_keep_tensor_groups_together() -> None:
    """With a fast link inside of machines, wider groups win; between machines nothing changes."""
    plan = load("llama").plan()
    flat = Hardware(flops=3e14, bandwidth=3e12, link=25e9)
    inside = Hardware(flops=3e14, bandwidth=3e12, link=25e9, machine=8, machine_link=4e11)
    for layout, better in ((Layout(8, 1, 2), True), (Layout(16), False)):
        slow, fast = (only(plan, layout, hardware, context=1024) for hardware in (flat, inside))
        assert (fast.seconds < slow.seconds / 2) == better
        assert fast.seconds == slow.seconds or better


@pytest.mark.parametrize(
    "wrong",
    [
        {"context": 0},
        {"batch": 0},
        {"batch": -4},
        {"dtype": "int8"},
        {"quantize": 7},
        {"micro": 0},
        {"schedule": "zigzag", "training": True},
        {"segment": -1, "training": True},
    ],
    ids=str,
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    """As of `cost` and `spread`: no figure is made of what cannot be."""
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=f"`{name}`"):
        simulate(model(), 2, **wrong)
    if name not in ("micro", "schedule"):
        with pytest.raises(ValueError, match=f"`{name}`"):
            spread(model(), 2, **wrong)
