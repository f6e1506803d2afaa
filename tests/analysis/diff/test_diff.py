"""Two models compared: what is said of a change, what counts as equal, and that nothing goes unsaid."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from axon_compose import Architecture, ArchitectureError, load
from axon_compose.analysis.diff import Difference
from axon_compose.cli import main
from axon_compose.language.layout import to_text
from axon_compose.plan import Plan, Use, active_parameters, cache_nbytes, total_parameters
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry
from axon_compose.report._diff import diff_html, diff_text
from tests.helpers import BASE, described
from tests.shipped import VARIED, shipped
from tests.strategies.documents import SOUND, mutated

GOLDEN = Path(__file__).parent / "golden"
REGISTRY = Registry.installed()


def said(a: Architecture, b: Architecture) -> list[str]:
    return [str(change) for change in a.diff(b).changes]


def between(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return said(load(described(**first)), load(described(**second)))


def components(**changed: Any) -> dict[str, Any]:
    return {"components": {**BASE["components"], **changed}}


ATTN = {"type": "attention", "num_heads": 2}
MLP = {"type": "mlp", "intermediate_size": 48}
MOE = {"type": "moe", "num_experts": 8, "top_k": 2, "intermediate_size": 16}
SWA = {"type": "sliding_window_attention", "num_heads": 2, "window_size": 4}
READER = {"type": "attention", "num_heads": 2, "kv_from": "attn"}
READING = {**components(reader=READER), "blocks": {**BASE["blocks"], "r": ["reader", "mlp"]}}

KEPT = [{"use": "attn", "as": "x"}, {"use": "mlp", "as": "y"}]
OTHERS = {
    **components(reader=READER, attn2=ATTN),
    "blocks": {**BASE["blocks"], "b": ["attn2", "mlp"], "r": ["reader", "mlp"]},
}

#: First description, second one (both laid over `BASE`, whose stack is `a s w`), and every sentence.
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": ({}, {}, []),
    "an option": ({}, components(swa=SWA), ["layer 2: swa.window_size 8 → 4"]),
    "an option in some layers": (
        {"stack": "a*6"},
        {"stack": "a*6", "overrides": [{"layers": "1..3, 5", "set": {"attn.window_size": 4}}]},
        ["layers 1..3, 5: attn.window_size none → 4"],
    ),
    "layers at equal distances": (
        {"stack": "a*8"},
        {"stack": "a*8", "overrides": [{"layers": "1,3,5,7", "set": {"attn.softcap": 30.0}}]},
        ["layers 1, 3, 5, 7: attn.softcap none → 30"],
    ),
    "one option of two components": (
        {"stack": "a a", "blocks": {"a": ["attn", "swa"]}, "components": {"attn": ATTN, "swa": {**SWA}}},
        {"stack": "a a", "blocks": {"a": ["attn", "swa"]},
         "components": {"attn": {**ATTN, "sinks": True}, "swa": {**SWA, "sinks": True}}},
        ["layers 0..1: attn, swa: sinks false → true"],
    ),
    "an option inside of another": (
        {},
        components(attn={**ATTN, "rope": {"theta": 500000.0}}),
        ["layer 0: attn.rope.theta 10000 → 500000"],
    ),
    "an option taken away": (
        {}, components(attn={**ATTN, "rope": False}),
        ["layer 0: attn.rope {theta: 10000, traditional: false, reverse: false} → none"],
    ),
    "a component more": (
        components(moe=MOE), {**components(moe=MOE), "blocks": {**BASE["blocks"], "s": ["ssm", "moe"]}},
        ["layer 1: moe added, 8 experts top 2, intermediate_size 16"],
    ),
    "a component less": (
        {}, {"blocks": {**BASE["blocks"], "w": ["swa"]}}, ["layer 2: mlp removed"],
    ),
    "another component": (
        {}, {**components(experts=MOE), "blocks": {**BASE["blocks"], "a": ["attn", "experts"]}},
        ["layer 0: mlp replaced by experts (moe), 8 experts top 2, intermediate_size 16"],
    ),
    "branches in another order": (
        {}, {"blocks": {**BASE["blocks"], "a": ["mlp", "attn"]}}, ["layer 0: mlp moved from branch 2 to branch 1"],
    ),
    "side by side": (
        {}, {"blocks": {**BASE["blocks"], "a": [{"parallel": ["attn", "mlp"]}]}},
        ["layer 0: mlp moved from branch 2 to branch 1"],
    ),
    "layers more": (
        {"stack": "a s w"}, {"stack": "a s*3 w"},
        ["layers 2..3: added: ssm (axon_ssm: d_state 4)"],
    ),
    "layers less": (
        {"stack": "a s*4 w*2"}, {"stack": "a s w*2"}, ["layers 2..4: removed: ssm (axon_ssm: d_state 4)"],
    ),
    "a layer at another place": (
        {"stack": "s a*3"}, {"stack": "a*3 s"}, ["layer 0 → 3: moved: ssm (axon_ssm: d_state 4)"],
    ),
    "layers that moved and changed": (
        {"stack": "a s*2 w"}, {"stack": "a s*4 w", **components(swa=SWA)},
        ["layers 3..4: added: ssm (axon_ssm: d_state 4)", "layer 3 → 5: swa.window_size 8 → 4"],
    ),
    "the place of a norm": (
        {}, {"blocks": {**BASE["blocks"], "a": [{"use": "attn", "norm": "sandwich"}, {"use": "mlp", "norm": "post"}]}},
        ["layer 0: norms after attn, mlp: added (rms_norm)", "layer 0: norm before mlp: removed (rms_norm)"],
    ),
    "another norm": (
        {"stack": "a a"}, {"stack": "a a", "norm": {"type": "layer_norm"}},
        ["layers 0..1: norms before attn, mlp: rms_norm → layer_norm", "final norm: rms_norm → layer_norm"],
    ),
    "the norms' eps": (
        {"stack": "a a"}, {"stack": "a a", "norm": {"eps": 1e-5}},
        ["layers 0..1: norms before attn, mlp: eps 1e-06 → 1e-05", "final norm: eps 1e-06 → 1e-05"],
    ),
    "a norm of one component": (
        {"blocks": {**BASE["blocks"], "a": [{"parallel": ["attn", "mlp"]}]}},
        {"blocks": {**BASE["blocks"], "a": [{"parallel": ["attn", {"use": "mlp", "norm": "post"}]}]}},
        ["layer 0: own norm after mlp: added (rms_norm)"],
    ),
    "scales": (
        {}, {"blocks": {**BASE["blocks"], "a": [{"use": "attn", "scale": 0.5}, "mlp"]}},
        ["layer 0: attn scaled by 1 → 0.5"],
    ),
    "a scale beside another component": (
        {"blocks": {**BASE["blocks"], "a": [{"parallel": ["attn", "mlp"]}]}},
        {"blocks": {**BASE["blocks"], "a": [{"parallel": ["attn", {"use": "mlp", "scale": 0.25}]}]}},
        ["layer 0: mlp scaled by 1 → 0.25"],
    ),
    "kept outputs in another order": (
        {"blocks": {**BASE["blocks"], "a": [*KEPT, {"add": "x"}, {"add": "y"}]}},
        {"blocks": {**BASE["blocks"], "a": [*KEPT, {"add": "y"}, {"add": "x"}]}},
        ["layer 0: branch 3 adds x → y", "layer 0: branch 4 adds y → x"],
    ),
    "an output that is kept": (
        {}, {"blocks": {**BASE["blocks"], "a": ["attn", {"use": "mlp", "as": "x"}, {"add": "x"}]}},
        ["layer 0: add x added", "layer 0: mlp is kept, not added"],
    ),
    "shared weights": (
        {"stack": "a a"}, {"stack": "a a", "blocks": {"a": {"branches": ["attn", "mlp"], "share": "one"}}},
        ["layer 1: weights: its own → those of layer 0"],
    ),
    "shared keys and values": (
        {**READING, "stack": "a r"}, {**READING, "stack": "a a"},
        ["layer 1: reader reads kv of layer 0 → nothing"],
    ),
    "keys and values of another layer": (
        {**OTHERS, "stack": "a b r"},
        {**OTHERS, "stack": "a b r", "overrides": [{"layers": 2, "set": {"reader.kv_from": "attn2"}}]},
        ["layer 2: reader reads kv of layer 0 → layer 1"],
    ),
    "sizes": (
        {"stack": "a"}, {"stack": "a", "dims": {"hidden_size": 64, "vocab_size": 128}},
        ["dims: hidden_size 32 → 64", "dims: vocab_size 64 → 128"],
    ),
    "ends": (
        {}, {"embedding": {"scale": 2.0}, "head": {"tied": False}, "final_norm": "none"},
        ["embedding: scale none → 2", "final norm: removed (rms_norm)", "head: tied true → false"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_what_is_said(pair: str) -> None:
    first, second, sentences = PAIRS[pair]
    assert between(first, second) == sentences


#: The same model, written in another way.
EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a generated stack": (
        {"stack": "(a s)*2 a"},
        {"stack": {"layers": 5, "block": ["=ssm if i % 2 else attn", "=null if i % 2 else mlp"]}},
    ),
    "names of components": (
        {"stack": "a*2"},
        {"components": {"x": ATTN, "y": MLP}, "blocks": {"z": ["x", "y"]}, "stack": "z*2"},
    ),
    "a name that is read from": (
        {**READING, "stack": "a r"},
        {
            "components": {"x": ATTN, "y": {**READER, "kv_from": "x"}, "mlp": MLP},
            "blocks": {"p": ["x", "mlp"], "q": ["y", "mlp"]},
            "stack": "p q",
        },
    ),
    "names of kept outputs": (
        {"blocks": {**BASE["blocks"], "a": [{"use": "attn", "as": "x"}, "mlp", {"add": "x"}]}},
        {"blocks": {**BASE["blocks"], "a": [{"use": "attn", "as": "y"}, "mlp", {"add": "y"}]}},
    ),
    "defaults that are written": ({}, components(attn={**ATTN, "sinks": False, "rope": {"theta": 10000}})),
    "formulas and dims": (
        {},
        {
            "dims": {"hidden_size": 32, "vocab_size": 64, "width": 24},
            **components(mlp={**MLP, "intermediate_size": "=width * 2"}),
        },
    ),
    "overrides": ({}, {"overrides": [{"layers": 2, "set": {"swa.window_size": 8}}]}),
    "a name": ({"name": "one"}, {"name": "two"}),
}  # fmt: skip


@pytest.mark.parametrize("pair", EQUAL)
def test_ways_of_writing_are_equal(pair: str) -> None:
    first, second = EQUAL[pair]
    assert between(first, second) == []


@pytest.mark.parametrize("name", VARIED)
def test_unrolled_files_are_equal(name: str, tmp_path: Path) -> None:
    architecture = shipped(name)
    path = tmp_path / "concrete.yaml"
    path.write_text(to_text(unroll(architecture.document, architecture.plan(), REGISTRY)))
    assert said(architecture, load(path)) == []


@pytest.mark.parametrize("name", VARIED)
def test_families_differ_from_the_next_one(name: str) -> None:
    other = VARIED[(VARIED.index(name) + 1) % len(VARIED)]
    there, back = shipped(name).diff(shipped(other)), shipped(other).diff(shipped(name))
    assert there
    assert back
    mirrored(there, back)


def mirrored(there: Difference, back: Difference) -> None:
    """Totals of one direction are those of the other with the sign changed."""
    for one, other in zip(there.totals, back.totals, strict=True):
        assert (one.name, one.before, one.after, one.change) == (other.name, other.after, other.before, -other.change)


# Nothing unsaid: an independent account of what decides the computation, with places for names.


def everything(plan: Plan) -> list[Any]:
    """What decides what a model computes, as in `tests/plan/concrete`, with names replaced by places."""
    names: dict[str, str] = {}
    kept: dict[tuple[int, str], str] = {}
    branches = []
    for layer in plan.layers:
        for number, branch in enumerate(layer.branches):
            for place, member in enumerate(branch.members):
                names[member.use.path] = f"{layer.index}.{number}.{place}"
                if member.keep:
                    kept[layer.index, member.keep] = names[member.use.path]
            shape = [(m.scale, bool(m.keep), bool(m.pre), bool(m.post)) for m in branch.members]
            added = kept.get((layer.index, branch.add or ""))
            branches.append((layer.index, layer.owner, branch.scale, branch.residual, added, shape))
            branches.append((bool(branch.pre), bool(branch.post)))
    outside = [plan.embedding, plan.final_norm, plan.head]
    uses = [use for use in outside if use] + [use for layer in plan.layers for use in layer.uses()]
    parts = [account(use, names) for use in uses]
    return [parts, branches, bool(plan.final_norm), plan.slots, plan.masks, plan.offset]


def account(use: Use, names: dict[str, str]) -> tuple[Any, ...]:
    reads = {}
    for value, source in use.reads.items():
        path = f"layers.{source.rpartition('.')[0]}"
        reads[value] = names.get(path, source)
    options = use.options.model_dump()
    for option in use.spec.reads.values():
        if option and isinstance(options.get(option), str):
            del options[option]
    return (use.type, options, use.slot, use.masks, reads, use.writes, use.params)


DESCRIPTIONS = st.sampled_from(SOUND) | mutated()


def compiled(data: dict[str, Any]) -> Architecture:
    """The architecture of a random description, if it has one that is small."""
    try:
        architecture = load(data)
    except ArchitectureError:
        assume(False)
    assume(len(architecture.plan().layers) < 70)
    return architecture


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_nothing_differs_from_itself(data: dict[str, Any]) -> None:
    assert not compiled(data).diff(compiled(data))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(DESCRIPTIONS, mutated())
def test_equal_is_what_computes_the_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    a, b = compiled(first), compiled(second)
    there, back = a.diff(b), b.diff(a)
    assert there.equal == back.equal == (everything(a.plan()) == everything(b.plan()))
    mirrored(there, back)
    json.dumps(there.to_dict(), allow_nan=False)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_small_changes_are_not_missed(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from(SOUND[:3]))
    changed = data.draw(mutated())
    key = data.draw(st.sampled_from(("components", "blocks", "stack", "norm", "embedding", "head", "overrides")))
    a = compiled(base)
    b = compiled({**base, key: changed.get(key, base.get(key, {}))} if key in changed else base)
    assert a.diff(b).equal == (everything(a.plan()) == everything(b.plan()))


def test_totals_are_those_of_the_plans() -> None:
    a, b = load("hybrid-demo"), load("shared-kv")
    found = {total.name: (total.before, total.after) for total in a.diff(b).totals}
    plans = a.plan(), b.plan()
    assert found == {
        "parameters": tuple(map(total_parameters, plans)),
        "active parameters": tuple(map(active_parameters, plans)),
        "cache at 4,096 tokens": tuple(cache_nbytes(plan, 4096) for plan in plans),
        "cache at 65,536 tokens": tuple(cache_nbytes(plan, 65536) for plan in plans),
    }


def test_stacks_of_the_largest_size() -> None:
    a = load(described(stack="(a s)*2000 w*90"))
    b = load(described(stack="(s a)*2000 w*90"))
    start = time.process_time()
    assert a.diff(b)
    assert time.process_time() - start < 20


def test_a_component_that_looks_at_another_dim() -> None:
    """Of a plugin: its options are the same, its shapes are not."""
    from dataclasses import replace

    plan = load(described()).plan()
    layer = plan.layers[0]
    (member,) = layer.branches[1].members
    larger = replace(member.use, params={"weight": (1, 2)})
    branch = replace(layer.branches[1], members=(replace(member, use=larger),))
    changed = replace(layer, branches=(layer.branches[0], branch))
    architecture = load(described())
    other = Architecture(architecture.document, _plan=replace(plan, layers=(changed, *plan.layers[1:])))
    (sentence,) = said(architecture, other)
    assert sentence.startswith("layer 0: mlp has different shapes: ")


# What people and programs read.

GOLDENS = [("bit-axon", "bit-axon-small"), ("llama", "mixtral"), ("llama", "gemma2"), ("mamba2", "nemotron_h")]


@pytest.mark.parametrize(("first", "second"), GOLDENS)
def test_text(first: str, second: str) -> None:
    found = diff_text(load(first).diff(load(second)))
    golden = GOLDEN / f"{first}-{second}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


def test_notebooks_get_tables() -> None:
    difference = load("llama").diff(load("mixtral"))
    html = difference._repr_html_()
    assert html == diff_html(difference)
    assert html.count("<tr>") == 2 + len(difference.changes) + len(difference.totals)
    hostile = Difference("<script>", "b", (1, 1), (), ())
    assert "<script>" not in hostile._repr_html_()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.yaml").write_text(json.dumps(described()))
    (tmp_path / "bad.yaml").write_text(json.dumps(described(stack="nobody")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("a.yaml", "a.yaml"), 0),
        (("a.yaml", "a.yaml", "--set-b", "stack=a"), 1),
        (("a.yaml", "a.yaml", "--set-a", "stack=a", "--set-b", "stack=a"), 0),
        (("a.yaml", "bad.yaml"), 2),
        (("bad.yaml", "a.yaml", "--json"), 2),
        (("a.yaml", "nowhere.yaml"), 2),
    ],
)
def test_exit_codes(folder: Path, arguments: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *arguments]) == code
    out, err = capsys.readouterr()
    assert bool(out) == (code < 2 or "--json" in arguments)
    assert bool(err) == (code == 2 and "--json" not in arguments)


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "a.yaml", "a.yaml", "--set-b", "components.swa.window_size=4", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["command"], answer["ok"], answer["result"]["equal"]) == ("diff", False, False)
    (change,) = answer["result"]["changes"]
    assert change == {
        "kind": "option",
        "place": "layers",
        "layers_a": [2],
        "layers_b": [2],
        "components": ["swa"],
        "option": "window_size",
        "before": 8,
        "after": 4,
        "text": "layer 2: swa.window_size 8 → 4",
    }
    assert answer["result"]["totals"]["parameters"]["change"] == 0
