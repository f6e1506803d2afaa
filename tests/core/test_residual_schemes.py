"""Residual schemes: against float64 NumPy, as a plan wires them, and one that a stranger brings."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import grad_checkpoint

from axon_compose import load
from axon_compose.model import build
from axon_compose.plan.concrete import unroll
from axon_compose.proof.check import check_plan, small_architecture
from axon_compose.registry import ComponentSpec, Dims, Options, PluginFault, Registry
from axon_core.altup import AltUp, AltUpLayer, AltUpOthers
from axon_core.gated_streams import GatedStreams, StreamGates
from axon_core.hyper_connections import AllStreams, HyperConnection, HyperConnections
from axon_core.specs.altup import AltUpOptions
from axon_core.specs.gated_streams import GatedStreamsOptions
from axon_core.specs.hyper_connections import HyperConnectionsOptions
from tests.helpers import codes, faults

DIMS = Dims({"hidden_size": 8, "vocab_size": 11})
TINY = {
    "version": 1,
    "dims": {"hidden_size": 32, "vocab_size": 97},
    "components": {
        "attn": {"type": "attention", "num_heads": 2},
        "mlp": {"type": "mlp", "intermediate_size": 48},
        "factor": {"type": "layer_scale"},
    },
    "blocks": {"layer": ["attn", "mlp"]},
    "stack": "layer*2",
}
HYPER = {"type": "hyper_connections", "streams": 3}
GATED = {"type": "gated_streams", "streams": 3, "rank": 5, "norm_offset": 1.0}
ALTUP = {"type": "altup", "streams": 3}
NORMED = {**TINY["components"], "last": {"type": "rms_norm"}}
KEPT = {
    "layer": [
        {"parallel": ["attn", {"use": "mlp", "as": "kept"}]},
        {"add": "kept", "residual": "all"},
    ]
}
OTHERS = {"layer": ["attn", "mlp", {"use": "mlp", "residual": "others"}]}


def array(x):
    return np.array(x, dtype=np.float64)


def moved(module):
    for number, (name, value) in enumerate(tree_flatten(module.parameters())):
        module.load_weights([(name, value + mx.random.normal(value.shape, key=mx.random.key(number)))], strict=False)
    return module


def drawn(*shape):
    return mx.random.normal(shape, key=mx.random.key(sum(shape)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(x, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


# -- Hyper-connections -----------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", ["sinkhorn", "none"])
def test_a_hyper_connection_is_what_its_formula_says(mixing):
    options = HyperConnectionsOptions(
        streams=3, mixing=mixing, iterations=7, output_scale=1.5, output_eps=0.1, eps=0.01, norm_eps=0.02
    )
    connection = moved(HyperConnection.from_options(options, DIMS))
    streams, y = drawn(2, 4, 3, 8), drawn(2, 4, 8)
    x, held = connection.read((streams, None))
    after, given = connection.write(held, y)
    assert given is None

    fn, base, scale, s = (array(value) for value in (connection.fn, connection.base, connection.scale, streams))
    raw = unit(s.reshape(2, 4, 24), 0.02) @ fn.T
    reading = sigmoid(raw[..., :3] * scale[0] + base[:3]) + 0.01
    writing = 1.5 * sigmoid(raw[..., 3:6] * scale[1] + base[3:6]) + 0.1
    np.testing.assert_allclose(array(x), (reading[..., None] * s).sum(-2), rtol=1e-5, atol=1e-5)
    matrix = np.broadcast_to(np.eye(3), (2, 4, 3, 3))
    if mixing == "sinkhorn":
        logits = (raw[..., 6:] * scale[2] + base[6:]).reshape(2, 4, 3, 3)
        matrix = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) + 0.01
        matrix = matrix / (matrix.sum(-2, keepdims=True) + 0.01)
        for _ in range(6):
            matrix = matrix / (matrix.sum(-1, keepdims=True) + 0.01)
            matrix = matrix / (matrix.sum(-2, keepdims=True) + 0.01)
    want = writing[..., None] * array(y)[:, :, None] + np.einsum("blij,blid->bljd", matrix, s)
    np.testing.assert_allclose(array(after), want, rtol=1e-5, atol=1e-5)


def test_the_ends_of_hyper_connections():
    ends = moved(HyperConnections.from_options(HyperConnectionsOptions(streams=3, norm_eps=0.02, eps=0.01), DIMS))
    h, streams = drawn(2, 4, 8), drawn(2, 4, 3, 8)
    np.testing.assert_array_equal(np.array(ends.expand(h)[0]), np.repeat(np.array(h)[:, :, None], 3, axis=2))
    raw = unit(array(streams).reshape(2, 4, 24), 0.02) @ array(ends.fn).T
    gates = sigmoid(raw * array(ends.scale) + array(ends.base)) + 0.01
    want = (gates[..., None] * array(streams)).sum(-2)
    np.testing.assert_allclose(array(ends.collapse((streams, None))), want, rtol=1e-5, atol=1e-5)
    mean = HyperConnections.from_options(HyperConnectionsOptions(streams=3, end="mean"), DIMS)
    assert not tree_flatten(mean.parameters())
    np.testing.assert_allclose(array(mean.collapse((streams, None))), array(streams).mean(-2), atol=1e-6)


def test_gates_of_the_branch_before_read_the_first_stream_first():
    options = HyperConnectionsOptions(streams=3, gates="previous")
    connection, ends = moved(HyperConnection.from_options(options, DIMS)), HyperConnections.from_options(options, DIMS)
    h = drawn(2, 4, 8)
    state = ends.expand(h)
    x, held = connection.read(state)
    np.testing.assert_allclose(np.array(x), np.array(h), atol=1e-6)
    own, _ = HyperConnection.read(connection, (state[0], None))
    later = connection.write(held, mx.zeros((2, 4, 8)))
    assert mx.allclose(ends.collapse((state[0], later[1])), own, atol=1e-5)


@pytest.mark.parametrize("given", [None, drawn(2, 4, 3)], ids=["own", "previous"])
def test_a_branch_may_read_all_streams_and_add_to_each(given):
    streams, y = drawn(2, 4, 3, 8), drawn(2, 4, 24)
    connection = AllStreams.from_options(HyperConnectionsOptions(streams=3), DIMS)
    x, held = connection.read((streams, given))
    np.testing.assert_array_equal(np.array(x), np.array(streams).reshape(2, 4, 24))
    after, left = connection.write(held, y)
    np.testing.assert_allclose(np.array(after), np.array(streams) + np.array(y).reshape(2, 4, 3, 8), atol=1e-6)
    assert left is given


# -- Gated streams ---------------------------------------------------------------------------------


def test_gated_streams_are_what_their_formulas_say():
    options = GatedStreamsOptions(streams=3, rank=5, norm_eps=0.02, norm_offset=0.5)
    connection, ends = moved(StreamGates.from_options(options, DIMS)), moved(GatedStreams.from_options(options, DIMS))
    streams, y = drawn(2, 4, 3, 8), drawn(2, 4, 8)

    def mean(p):
        z = (unit(array(streams), 0.02) * (0.5 + p["norm.weight"]).reshape(3, 8)).reshape(2, 4, 24)
        narrow = z @ p["down_proj.weight"].T / 3
        gates = sigmoid(narrow * sigmoid(narrow) @ p["up_proj.weight"].T)
        return (gates * z).reshape(2, 4, 3, 8).mean(-2), z

    x, held = connection.read((streams, None))
    after, given = connection.write(held, y)
    assert given is None
    p = {name: array(value) for name, value in tree_flatten(connection.parameters())}
    want, z = mean(p)
    np.testing.assert_allclose(array(x), want, rtol=1e-5, atol=1e-5)
    writing = 2 * sigmoid(z @ p["inject_proj.weight"].T / 3)
    want = array(streams) + writing[..., None] * array(y)[:, :, None]
    np.testing.assert_allclose(array(after), want, rtol=1e-5, atol=1e-5)

    h = drawn(2, 4, 8)
    np.testing.assert_array_equal(np.array(ends.expand(h)[0]), np.repeat(np.array(h)[:, :, None], 3, axis=2))
    p = {name: array(value) for name, value in tree_flatten(ends.parameters())}
    np.testing.assert_allclose(array(ends.collapse((streams, None))), mean(p)[0], rtol=1e-5, atol=1e-5)


# -- Alternating updates ---------------------------------------------------------------------------


def test_alternating_updates_are_what_their_formulas_say():
    options = AltUpOptions(streams=3, active=1, norm_eps=0.1)
    layer, streams, y = moved(AltUpLayer.from_options(options, DIMS)), drawn(2, 4, 3, 8), drawn(2, 4, 8)
    p = {name: array(value) for name, value in tree_flatten(layer.parameters())}

    def routed(x):
        return np.tanh(unit(x, 0.1) * p["router_norm.weight"] / 8 @ p["router.weight"].T)

    s = array(streams)
    matrix = (routed(s[:, :, 1]) @ p["predict.weight"].T).reshape(2, 4, 3, 3)
    predicted = s + matrix @ s
    x, held = layer.read(streams)
    np.testing.assert_allclose(array(x), predicted[:, :, 1], rtol=1e-4, atol=1e-5)
    factors = 1 + routed(array(y)) @ p["correct.weight"].T
    want = predicted + factors[..., None] * (array(y) - predicted[:, :, 1])[:, :, None]
    np.testing.assert_allclose(array(layer.write(held, y)), want, rtol=1e-4, atol=1e-4)

    others = moved(AltUpOthers.from_options(options, DIMS))
    x, held = others.read(streams)
    np.testing.assert_allclose(array(x), s[:, :, 1] * array(others.scale), rtol=1e-5, atol=1e-6)
    want = s + array(y)[:, :, None] * np.array([0, 1, 1])[:, None]
    np.testing.assert_allclose(array(others.write(held, y)), want, atol=1e-6)


def test_projected_streams_have_the_length_of_the_first():
    ends = moved(AltUp.from_options(AltUpOptions(streams=3), DIMS))
    h = drawn(2, 4, 8)
    lengths = np.sqrt((array(ends.expand(h)) ** 2).mean(-1))
    np.testing.assert_allclose(lengths, np.repeat(lengths[..., :1], 3, axis=-1), rtol=1e-5)
    streams, p = drawn(2, 4, 3, 8), [array(ends[f"out_proj_{number}"].weight) for number in range(2)]
    first = array(streams)[:, :, 0]
    length = np.sqrt((first**2).mean(-1, keepdims=True))
    parts = [first]
    for number, weight in enumerate(p):
        turned = array(streams)[:, :, number + 1] @ weight.T
        parts.append(turned * length / np.sqrt((turned**2).mean(-1, keepdims=True)))
    np.testing.assert_allclose(array(ends.collapse(streams)), np.mean(parts, axis=0), rtol=1e-4, atol=1e-5)


def test_projected_streams_are_finite_in_float16_beyond_256():
    ends = moved(AltUp.from_options(AltUpOptions(streams=3), DIMS))
    ends.set_dtype(mx.float16)
    h = (1000 * drawn(2, 4, 8)).astype(mx.float16)
    streams = ends.expand(h)
    assert streams.dtype == mx.float16
    lengths = np.sqrt((array(streams) ** 2).mean(-1))
    np.testing.assert_allclose(lengths, np.repeat(lengths[..., :1], 3, axis=-1), rtol=2e-3)


# -- As a plan wires them --------------------------------------------------------------------------


def test_connections_have_weights_named_after_what_they_are_around():
    paths = {use.path for use in load(TINY | {"residual": HYPER}).plan().uses()}
    assert {"residual", "layers.0.attn_residual", "layers.1.mlp_residual"} <= paths
    plan = load(TINY | {"residual": ALTUP, "blocks": OTHERS}).plan()
    first, second, third = plan.layers[0].branches
    assert first.connection.path == "layers.0.residual"
    assert (first.closes, second.connection, second.closes) == (False, None, True)
    assert (third.connection.path, third.closes, third.residual) == ("layers.0.mlp_2_residual", True, False)
    assert first.adds
    assert third.adds


ENGRAM = {"type": "engram", "rows": 20, "longest": 2, "tables": 2}
WIDE = {
    "components": {**TINY["components"], "memory": ENGRAM},
    "blocks": {"layer": [{"use": "memory", "residual": "all"}, "attn", "mlp"]},
}


@pytest.mark.parametrize("residual", [HYPER, {**HYPER, "gates": "previous"}, GATED], ids=str)
def test_components_that_read_all_streams_are_as_wide_as_these(residual):
    plan = load(TINY | WIDE | {"residual": residual}).plan()
    memory, attention = plan.layers[0].branches[:2]
    use = memory.members[0].use
    assert (use.dims.hidden_size, use.dims.streams, memory.pre.params["weight"]) == (96, 3, (96,))
    assert use.params["value_proj.weight"] == (32, 32)
    assert (attention.members[0].use.dims.hidden_size, attention.members[0].use.dims.streams) == (32, 1)
    report = check_plan(plan, truths=["parameters", "steps", "left-padded", "gradients", "every-layer"])
    assert report.passed, [truth for truth in report.truths if not truth.passed]


def test_what_only_fits_all_streams_is_checked_where_it_is_as_wide():
    components = {**TINY["components"], "heads": {"type": "rwkv7_time_mix", "head_dim": 48}}
    branch = {"use": "heads", "norm": {"num_groups": 3}, "residual": "all"}
    wide = TINY | {"residual": HYPER, "components": components, "blocks": {"layer": [branch, "mlp"]}}
    use = load(wide).plan().layers[0].branches[0].members[0].use
    assert use.params["r_proj.weight"] == (96, 96)
    plain = {"use": "heads", "norm": {"num_groups": 3}}
    assert set(codes(wide | {"blocks": {"layer": [branch, plain, "mlp"]}})) == {"AX145"}
    assert set(codes(wide | {"blocks": {"layer": ["attn", "mlp"]}})) == {"AX145"}


def test_a_component_without_several_streams_has_one():
    plain = {"layer": [{"use": "memory", "norm": "none"}, "attn", "mlp"]}
    plan = load(TINY | WIDE | {"blocks": plain}).plan()
    use = plan.layers[0].branches[0].members[0].use
    assert (use.dims.hidden_size, use.dims.streams) == (32, 1)


def test_a_block_that_begins_a_layer_replaces_what_the_connection_reads():
    plan = load(TINY | {"residual": ALTUP, "blocks": {"layer": ["factor", "attn"]}}).plan()
    block, branch = plan.layers[0].branches
    assert (block.connection.path, block.adds, branch.adds) == ("layers.0.residual", False, True)
    small = small_architecture(plan).plan()
    assert [branch.adds for branch in small.layers[0].branches] == [False, True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks": {"layer": ["attn", {"use": "mlp", "residual": "others"}]}}, "no residual scheme"),
        ({"residual": ALTUP, "blocks": {"layer": ["attn", {"use": "mlp", "residual": "other"}]}}, "no connection"),
        ({"residual": HYPER, "blocks": {"layer": ["attn", "factor"]}}, "whole block"),
        ({"residual": HYPER, "components": NORMED, "blocks": {"layer": ["attn", "last"]}}, "is a norm"),
        ({"residual": HYPER, "blocks": {"layer": ["attn", {"use": "mlp", "skip": 0.5}]}}, "`skip`"),
        ({"residual": HYPER, "blocks": {"layer": ["attn", {"use": "mlp", "as": "kept"}, {"add": "kept"}]}}, "keeps"),
        ({"blocks": {"layer": ["attn", {"use": "mlp", "residual": "=i"}]}, "residual": HYPER}, "not the name"),
        ({"blocks": KEPT, "residual": HYPER}, "another number of streams"),
    ],
)
def test_branches_that_cannot_be_joined_are_reported(changes, words):
    found = faults(TINY | changes)
    assert {fault.code for fault in found} == {"AX150"}
    assert words in found[0].message


def test_a_scheme_needs_a_type_of_its_kind():
    assert codes(TINY | {"residual": {"type": "mlp", "intermediate_size": 4}}) == ["AX206"]
    assert codes(TINY | {"residual": {"streams": 3}}) == ["AX207"]


@pytest.mark.parametrize(
    "changes", [{"residual": HYPER}, {"residual": ALTUP, "blocks": OTHERS}, WIDE | {"residual": GATED}]
)
def test_small_and_written_copies_have_the_same_scheme(changes):
    whole = load(TINY | changes)
    again = load(unroll(whole.document, whole.plan(), Registry.installed()))
    assert [use.path for use in again.plan().uses()] == [use.path for use in whole.plan().uses()]
    small = small_architecture(whole.plan()).plan()
    assert [b.connection and b.connection.name for b in small.layers[0].branches] == [
        b.connection and b.connection.name for b in whole.plan().layers[0].branches
    ]


@pytest.mark.parametrize("residual", [HYPER, {**HYPER, "gates": "previous"}, GATED, ALTUP])
def test_a_gradient_checkpoint_around_layers_changes_nothing(residual):
    plan = load(TINY | {"residual": residual}).plan()
    tokens = mx.array([[3, 5, 7, 2]])

    def gradients(model):
        def loss(model):
            return nn.losses.cross_entropy(model(tokens), tokens, reduction="mean")

        return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))

    plain = gradients(build(plan))
    model = build(plan)
    before = type(model.layers[0]).__call__
    try:
        grad_checkpoint(model.layers[0])
        found = gradients(model)
    finally:
        type(model.layers[0]).__call__ = before
    for name, value in plain.items():
        np.testing.assert_allclose(np.array(found[name]), np.array(value), rtol=1e-4, atol=1e-6)


# -- A stranger's ----------------------------------------------------------------------------------


class Weighted(Options):
    """The state is the list of all outputs, and a branch reads a learned sum of them."""


class Ends(nn.Module):
    def __init__(self, options, dims):
        super().__init__()

    def expand(self, h):
        return (h,)

    def collapse(self, state):
        return sum(state)


class Attending(nn.Module):
    def __init__(self, options, dims):
        super().__init__()
        self.query = mx.random.normal((dims.hidden_size,))

    def read(self, state, offset):
        stacked = mx.stack(state, axis=-2)
        weights = mx.sigmoid(mx.fast.rms_norm(stacked, None, 1e-6) @ self.query)
        return (weights[..., None] * stacked).sum(-2), state

    def write(self, state, y):
        return (*state, y)


def stranger(**changes):
    connection = ComponentSpec(
        name="attending",
        kind="connection",
        options=Weighted,
        module=f"{__name__}:Attending",
        summary="Reads a learned sum of all that came before.",
        params=lambda options, dims: {"query": (dims.hidden_size,)},
        reads={"offset": None},
    )
    fields = {"kind": "residual", "options": Weighted, "module": f"{__name__}:Ends", "summary": "All outputs."}
    return ComponentSpec(**({"name": "all", "connections": (connection,), "examples": ({},)} | fields | changes))


def test_a_plugin_brings_a_scheme_whose_state_grows():
    registry = Registry.with_plugins({"acme": [stranger()]})
    plan = load(TINY | {"residual": "acme/all"}, registry=registry).plan()
    report = check_plan(plan, truths=["parameters", "steps", "causal", "left-padded", "gradients", "every-layer"])
    assert report.passed, [truth for truth in report.truths if not truth.passed]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"connections": ()}, "if it is of kind residual"),
        ({"kind": "layer"}, "if it is of kind residual"),
        ({"connections": (stranger(),)}, "records of kind connection"),
    ],
)
def test_records_of_schemes_that_are_wrong_are_refused(changes, words):
    registry = Registry.with_plugins({"acme": [stranger(**changes)]})
    assert words in str(next(status.cause for status in registry.statuses() if status.namespace == "acme"))


class Bare(nn.Module):
    def __init__(self, options, dims):
        super().__init__()


class Opening(Bare):
    expand = Ends.expand


@pytest.mark.parametrize(
    ("ends", "connection", "lacks"),
    [("Bare", "Attending", "expand"), ("Ends", "Bare", "read"), ("Opening", "Attending", "collapse")],
)
def test_a_scheme_without_one_of_its_methods_is_reported_as_a_fault_of_the_plugin(ends, connection, lacks):
    scheme = stranger(module=f"{__name__}:{ends}")
    if connection == "Bare":
        bare = replace(scheme.connections[0], module=f"{__name__}:Bare", params=lambda options, dims: {})
        scheme = replace(scheme, connections=(bare,))
    model = load(TINY | {"residual": "acme/all"}, registry=Registry.with_plugins({"acme": [scheme]})).build()
    with pytest.raises(PluginFault, match=f"forward pass of `acme/all` .* raises AttributeError: .*{lacks}"):
        model(mx.array([[1, 2]]))
