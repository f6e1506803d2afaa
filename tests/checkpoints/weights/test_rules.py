"""Every kind of rule, against the same done by hand in NumPy."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_cases import Case, assert_same, numbers

from axon_compose.checkpoints.files import CheckpointError


def test_a_rename_takes_what_follows_along(tmp_path: Path) -> None:
    weights = {"model.layers.<l>.self_attn": "layers.<l>.attn", "lm_head": "head.lm_head?", "model.norm": "norm"}
    case = Case(
        tmp_path, weights, {"layers.1.attn.q.weight": (2, 3), "layers.1.attn.q.bias": (2,), "norm.weight": (3,)}
    )
    w, b, n = numbers(2, 3), numbers(2), numbers(3)
    case.write(
        {
            "model.layers.1.self_attn.q.weight": w,
            "model.layers.1.self_attn.q.bias": b,
            "model.norm.weight": n,
            "lm_head.weight": numbers(9, 3),
        }
    )
    assert_same(case.load(), {"layers.1.attn.q.weight": w, "layers.1.attn.q.bias": b, "norm.weight": n})
    assert case.plan().dropped == ("lm_head.weight",)


def test_rules_hold_in_the_order_of_the_page(tmp_path: Path) -> None:
    """`when`, then the whole name, then literal characters, then the later one."""
    weights = {
        "a.<x>": {"to": "when.<x>", "when": "=x == 0"},
        "a.1.weight": "whole",
        "a.<x>.weight": "long.<x>",
        "<z>.<x>": "short.<z>.<x>",
        "a.<y>": "later.<y>",
    }
    shapes = {"when.0.weight": (1,), "whole": (1,), "long.2": (1,), "later.3.bias": (1,), "short.b.0.weight": (1,)}
    case = Case(tmp_path, weights, shapes)
    names = ["a.0.weight", "a.1.weight", "a.2.weight", "a.3.bias", "b.0.weight"]
    case.write({name: np.float32([index]) for index, name in enumerate(names)})
    assert_same(case.load(), {name: np.float32([index]) for index, name in enumerate(shapes)})


def test_among_equals_the_later_rule_holds(tmp_path: Path) -> None:
    case = Case(tmp_path, {"a.<x>": "one.<x>", "a.<y>": "two.<y>"}, {"two.0": (1,)})
    case.write({"a.0": np.float32([5])})
    assert_same(case.load(), {"two.0": np.float32([5])})


def test_stacked_experts_come_in_numeric_order(tmp_path: Path) -> None:
    weights = {"layers.<l>.experts.<e>.w<n>": {"to": "layers.<l>.switch.w<n>", "stack": "e"}}
    shapes = {
        f"layers.{i}.switch.w1.{end}": shape
        for i in (0, 1)
        for end, shape in (("weight", (12, 2, 3)), ("bias", (12, 2)))
    }
    experts = {(i, e): (numbers(2, 3, seed=20 * i + e), numbers(2, seed=20 * i + e)) for i in (0, 1) for e in range(12)}
    case = Case(tmp_path, weights, shapes)
    tensors = {}
    for (i, e), (w, b) in reversed(experts.items()):
        tensors |= {f"layers.{i}.experts.{e}.w1.weight": w, f"layers.{i}.experts.{e}.w1.bias": b}
    case.write(tensors)
    expected = {}
    for i in (0, 1):
        expected[f"layers.{i}.switch.w1.weight"] = np.stack([experts[i, e][0] for e in range(12)])
        expected[f"layers.{i}.switch.w1.bias"] = np.stack([experts[i, e][1] for e in range(12)])
    assert_same(case.load(), expected)


@pytest.mark.parametrize(("lengths", "fits"), [([3, 3, 3, 2], True), ([11], True), ([3, 3, 2, 3], False)], ids=str)
def test_parts_of_one_table_follow_each_other(tmp_path: Path, lengths: list[int], fits: bool) -> None:
    """Whatever the file says of their number, which is for an export."""
    case = Case(tmp_path, {"t.shard_<s>": {"to": "t", "stack": "s", "parts": "=n"}}, {"t.weight": (11, 2)}, {"n": 5})
    table, starts = numbers(11, 2), np.cumsum([0, *lengths])
    case.write({f"t.shard_{s}.weight": table[start:end] for s, (start, end) in enumerate(pairwise(starts))})
    if fits:
        assert_same(case.load(), {"t.weight": table})
        return
    with pytest.raises(CheckpointError, match=r"it joins t\.shard_2\.weight as \[3, 2\], which is \[2, 2\]"):
        case.plan()


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    case = Case(tmp_path, {"e.<e>.w": {"to": "w", "stack": "e"}}, {"w.weight": (3, 2)})
    case.write({f"e.{e}.w.weight": numbers(2) for e in (0, 2)})
    with pytest.raises(CheckpointError, match=r"1 missing:\n +e\.1\.w\.weight, which the rule `e\.<e>\.w` stacks"):
        case.plan()


@pytest.mark.parametrize("order", ["gate up", "up gate"])
def test_fused_gate_and_up(tmp_path: Path, order: str) -> None:
    first, second = order.split()
    case = Case(
        tmp_path,
        {"mlp.gate_up_proj": {"split": {f"mlp.{first}_proj": "=size", f"mlp.{second}_proj": "=size"}}},
        {"mlp.gate_proj.weight": (4, 3), "mlp.up_proj.weight": (4, 3)},
        {"size": 4},
    )
    w = numbers(8, 3)
    case.write({"mlp.gate_up_proj.weight": w})
    assert_same(case.load(), {f"mlp.{first}_proj.weight": w[:4], f"mlp.{second}_proj.weight": w[4:]})


def test_each_head_has_its_query_key_and_value(tmp_path: Path) -> None:
    """GPT-NeoX: rows are (heads, 3, head_dim)."""
    heads, d, hidden = 3, 4, 5
    split = {"attn.q_proj": "=head_dim", "attn.k_proj": "=head_dim", "attn.v_proj": "=head_dim"}
    shapes = {
        f"attn.{p}_proj.{e}": s for p in "qkv" for e, s in (("weight", (heads * d, hidden)), ("bias", (heads * d,)))
    }
    case = Case(tmp_path, {"qkv": {"split": split, "groups": "=heads"}}, shapes, {"heads": heads, "head_dim": d})
    w, b = numbers(heads * 3 * d, hidden), numbers(heads * 3 * d)
    case.write({"qkv.weight": w, "qkv.bias": b})
    parts, biases = w.reshape(heads, 3, d, hidden), b.reshape(heads, 3, d)
    expected = {f"attn.{p}_proj.weight": parts[:, i].reshape(-1, hidden) for i, p in enumerate("qkv")}
    expected |= {f"attn.{p}_proj.bias": biases[:, i].reshape(-1) for i, p in enumerate("qkv")}
    assert_same(case.load(), expected)


def test_each_key_head_has_its_queries(tmp_path: Path) -> None:
    """InternLM2: rows are (kv_heads, queries of one + 2, head_dim)."""
    kv, per, d, hidden = 2, 3, 4, 5
    split = {"attn.q_proj": "=heads // kv * d", "attn.k_proj": "=d", "attn.v_proj": "=d"}
    shapes = {"attn.q_proj.weight": (24, hidden), "attn.k_proj.weight": (8, hidden), "attn.v_proj.weight": (8, hidden)}
    case = Case(tmp_path, {"wqkv": {"split": split, "groups": "=kv"}}, shapes, {"heads": 6, "kv": kv, "d": d})
    w = numbers(kv * (per + 2) * d, hidden)
    case.write({"wqkv.weight": w})
    g = w.reshape(kv, per + 2, d, hidden)
    parts = {"q": g[:, :per], "k": g[:, per], "v": g[:, per + 1]}
    assert_same(case.load(), {f"attn.{p}_proj.weight": x.reshape(-1, hidden) for p, x in parts.items()})


def test_interleaved_gate_and_up_of_experts(tmp_path: Path) -> None:
    """gpt_oss: (E, in, 2·I) with gate in the even columns."""
    E, D, I = 2, 3, 4  # noqa: E741
    part = {"size": 1, "transpose": True}
    weights = {
        "mlp.gate_up_proj": {"split": {"mlp.gate.weight": part, "mlp.up.weight": part}, "axis": 2, "groups": "=I"},
        "mlp.gate_up_proj_bias": {"split": {"mlp.gate.bias": 1, "mlp.up.bias": 1}, "axis": 1, "groups": "=I"},
    }
    shapes = {f"mlp.{p}.{e}": s for p in ("gate", "up") for e, s in (("weight", (E, I, D)), ("bias", (E, I)))}
    case = Case(tmp_path, weights, shapes, {"I": I})
    w, b = numbers(E, D, 2 * I), numbers(E, 2 * I)
    case.write({"mlp.gate_up_proj": w, "mlp.gate_up_proj_bias": b})
    expected = {"mlp.gate.weight": w[..., ::2].swapaxes(1, 2), "mlp.up.weight": w[..., 1::2].swapaxes(1, 2)}
    assert_same(case.load(), expected | {"mlp.gate.bias": b[:, ::2], "mlp.up.bias": b[:, 1::2]})


MLA = {
    "kv_b_proj": {
        "reshape": ["=heads", "=nope + v", -1],
        "split": {"embed_q": {"size": "=nope", "transpose": True}, "unembed_out": "=v"},
        "axis": 1,
    }
}


def test_latent_attention_is_split_by_head(tmp_path: Path) -> None:
    heads, nope, v, rank = 2, 3, 4, 5
    shapes = {"embed_q.weight": (heads, rank, nope), "unembed_out.weight": (heads, v, rank)}
    case = Case(tmp_path, MLA, shapes, {"heads": heads, "nope": nope, "v": v})
    w = numbers(heads * (nope + v), rank)
    case.write({"kv_b_proj.weight": w})
    h = w.reshape(heads, nope + v, rank)
    assert_same(case.load(), {"embed_q.weight": h[:, :nope].swapaxes(1, 2), "unembed_out.weight": h[:, nope:]})


@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("written", [True, [0, 2, 1]])
def test_convolutions_of_both_layouts(tmp_path: Path, kernel: int, written: object) -> None:
    case = Case(
        tmp_path, {"conv": {"to": "conv", "transpose": written}}, {"conv.weight": (4, kernel, 1), "conv.bias": (4,)}
    )
    w, b = numbers(4, 1, kernel), numbers(4)
    expected = {"conv.weight": w.swapaxes(1, 2), "conv.bias": b}
    case.write({"conv.weight": w, "conv.bias": b}, mark="pt")
    assert_same(case.load(), expected)
    case.write({"conv.weight": w, "conv.bias": b}, mark=None)
    assert_same(case.load(), expected)
    case.write({"conv.weight": expected["conv.weight"], "conv.bias": b}, mark="mlx")
    assert_same(case.load(), expected)
    case.write({"conv.weight": expected["conv.weight"], "conv.bias": b}, mark=None)
    assert_same(case.load(), expected)


def test_a_square_matrix_is_transposed_by_the_mark_alone(tmp_path: Path) -> None:
    case = Case(tmp_path, {"c": {"to": "c", "transpose": True}}, {"c.weight": (3, 3)})
    w = numbers(3, 3)
    case.write({"c.weight": w}, mark="pt")
    assert_same(case.load(), {"c.weight": w.T})
    case.write({"c.weight": w}, mark="mlx")
    assert_same(case.load(), {"c.weight": w})
    case.write({"c.weight": w}, mark=None)
    with pytest.raises(CheckpointError, match="1 undecided") as caught:
        case.plan()
    assert caught.value.code == "AX554"
    assert "--layout" in str(caught.value.help)
    assert_same(case.load(layout="huggingface"), {"c.weight": w.T})


def test_stretches_of_several_tensors_become_one(tmp_path: Path) -> None:
    rule = {"to": "layers.<l>.in", "join": {"p": {"q": 2, "v": 1}}, "groups": 3}
    case = Case(tmp_path, {"h.<l>.<p>_proj": rule, "h.<l>.g_proj": "layers.<l>.g"}, {
        "layers.7.in.weight": (9, 4), "layers.7.g.weight": (2, 2),
    })  # fmt: skip
    q, v, g = numbers(6, 4), numbers(3, 4), numbers(2, 2)
    tensors = {"h.7.v_proj.weight": v, "h.7.q_proj.weight": q, "h.7.g_proj.weight": g}
    case.write(tensors)
    heads = [np.concatenate([q[2 * h : 2 * h + 2], v[h : h + 1]]) for h in range(3)]
    assert_same(case.load(), {"layers.7.in.weight": np.concatenate(heads), "layers.7.g.weight": g})
    assert not case.plan().parameters["layers.7.in.weight"].plain
    case.write({key: value for key, value in tensors.items() if "v_proj" not in key})
    with pytest.raises(CheckpointError, match=r"h\.7\.v_proj\.weight, which the rule `h\.<l>\.<p>_proj` joins"):
        case.plan()
    case.write(tensors | {"h.7.v_proj.weight": numbers(2, 4)})
    with pytest.raises(CheckpointError, match=r"axis 0 of \[8, 4\] is not 3 · \(2 \+ 1\)"):
        case.plan()
    case.write(tensors | {"h.7.v_proj.weight": numbers(4, 4), "h.7.q_proj.weight": numbers(5, 4)})
    with pytest.raises(CheckpointError, match=r"it joins h\.7\.q_proj\.weight as \[6, 4\], which is \[5, 4\]"):
        case.plan()


def test_equal_parts_need_no_sizes(tmp_path: Path) -> None:
    case = Case(tmp_path, {"x": {"split": ["a", "b"], "axis": 1}}, {"a.weight": (3, 2), "b.weight": (3, 2)})
    w = numbers(3, 4)
    case.write({"x.weight": w})
    assert_same(case.load(), {"a.weight": w[:, :2], "b.weight": w[:, 2:]})
    case.write({"x.weight": numbers(3, 5)})
    with pytest.raises(CheckpointError, match=r"axis 1 of \[3, 5\] is not 2 equal parts"):
        case.plan()


def test_a_formula_gives_several_stretches(tmp_path: Path) -> None:
    rule = {"groups": 2, "split": {"a": {"sizes": ["=[1] * 2", 3]}}}
    case = Case(tmp_path, {"x": rule}, {"a.weight": (10, 2)})
    w = numbers(10, 2)
    case.write({"x.weight": w})
    assert_same(case.load(), {"a.weight": w[[0, 5, 1, 6, 2, 3, 4, 7, 8, 9]]})
    case = Case(tmp_path, {"x": {"split": {"a": {"sizes": ["=[1, 0.5]"]}}}}, {"a.weight": (10, 2)})
    case.write({"x.weight": w})
    with pytest.raises(CheckpointError, match=r"0\.5, not a positive integer"):
        case.plan()


@pytest.mark.parametrize("mark", ["pt", "mlx", None])
def test_what_may_be_transposed_is_taken_by_its_shape(mark: str | None, tmp_path: Path) -> None:
    rule = {"transpose": True, "if_needed": True, "split": {"a": {"size": 2, "transpose": True}, "b": 1}}
    case = Case(tmp_path, {"c": {"to": "c", "transpose": True, "if_needed": True}}, {"c.weight": (2, 3)})
    w = numbers(2, 3)
    for written in (w, w.T):
        case.write({"c.weight": written}, mark=mark)
        assert_same(case.load(), {"c.weight": w})
    square = Case(tmp_path, case.weights, {"c.weight": (3, 3)})
    square.write({"c.weight": numbers(3, 3)}, mark=mark)
    assert_same(square.load(), {"c.weight": numbers(3, 3)})
    parts = Case(tmp_path, {"c": rule}, {"a.weight": (4, 2), "b.weight": (1, 4)})
    parts.write({"c.weight": numbers(4, 3)}, mark=mark)
    whole = numbers(4, 3).T
    assert_same(parts.load(), {"a.weight": whole[:2].T, "b.weight": whole[2:]})


def test_rules_of_one_layout(tmp_path: Path) -> None:
    """A norm that Hugging Face stores without its 1, and mlx-lm with it."""
    case = Case(
        tmp_path,
        {"norm.w<x>": "norm.w<x>", "norm": {"to": "norm", "add": 1, "layout": "huggingface"}},
        {"norm.weight": (3,)},
    )
    case.weights = {"norm.weight": {"to": "norm.weight", "add": 1, "layout": "huggingface"}, "norm": "norm"}
    w = numbers(3)
    for mark, expected in (("pt", w + 1), ("mlx", w)):
        case.write({"norm.weight": w}, mark=mark)
        assert_same(case.load(), {"norm.weight": expected})
    case.write({"norm.weight": w}, mark=None)
    with pytest.raises(CheckpointError, match=r"norm\.weight: the rule `norm\.weight`"):
        case.plan()


def test_add_comes_before_scale_and_both_after_the_moves(tmp_path: Path) -> None:
    rule = {"to": "w", "reshape": [-1, "=n"], "transpose": True, "add": 0.5, "scale": "=n / 2"}
    case = Case(tmp_path, {"a": rule}, {"w.weight": (3, 4)}, {"n": 3})
    w = numbers(2, 6)
    case.write({"a.weight": w})
    assert_same(case.load(), {"w.weight": (w.reshape(4, 3).T + np.float32(0.5)) * np.float32(1.5)})


def test_numbers_change_in_the_wider_type(tmp_path: Path) -> None:
    """1 + w in bfloat16 would lose what float32 can hold."""
    case = Case(tmp_path, {"n": {"to": "n", "add": 1}}, {"n.weight": (4,)})
    w = mx.array(numbers(4) * 1e-3).astype(mx.bfloat16)
    case.write({"n.weight": w})
    exact = np.array(w.astype(mx.float32)) + np.float32(1)
    np.testing.assert_array_equal(np.array(case.load(dtype="float32")["n.weight"]), exact)
    assert case.load()["n.weight"].dtype == mx.bfloat16


def test_rows_become_as_long_as_one_where_a_rule_says_so(tmp_path: Path) -> None:
    case = Case(tmp_path, {"t": {"to": "table", "unit_rows": True}}, {"table": (3, 4)})
    rows = numbers(3, 4)
    rows[1] = 0.0
    case.write({"t": rows})
    found = case.load()["table"]
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(found), rows / np.maximum(lengths, 1e-7), rtol=1e-5)
    case.write({"t": mx.array(rows).astype(mx.bfloat16)})
    assert case.load()["table"].dtype == mx.bfloat16


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_become_numbers_where_a_rule_says_so(dtype: type, tmp_path: Path) -> None:
    table = np.array([[0, 7], [200, 3]], dtype)
    case = Case(tmp_path, {"t": {"to": "table", "integers": True}}, {"table": (2, 2)})
    case.write({"t": table})
    assert_same(case.load(), {"table": table.astype(np.float32)})
    case.write({"t": table.astype(np.float32)})
    with pytest.raises(CheckpointError, match="not an integer"):
        case.load()


def test_a_reshape_leaves_vectors_alone_unless_they_are_named_whole(tmp_path: Path) -> None:
    weights = {"a": {"to": "a", "reshape": [2, 2, -1]}, "d": {"to": "d", "reshape": [1, -1, 1]}}
    case = Case(tmp_path, weights, {"a.weight": (2, 2, 3), "a.bias": (4,), "d": (1, 5, 1)})
    w, b, d = numbers(4, 3), numbers(4), numbers(5)
    case.write({"a.weight": w, "a.bias": b, "d": d})
    assert_same(case.load(), {"a.weight": w.reshape(2, 2, 3), "a.bias": b, "d": d.reshape(1, 5, 1)})


def test_fused_experts_become_a_stack(tmp_path: Path) -> None:
    """dbrx: (E·I, D) is (E, I, D)."""
    case = Case(
        tmp_path, {"w1": {"to": "w1.weight", "reshape": ["=E", -1, "=D"]}}, {"w1.weight": (3, 4, 2)}, {"E": 3, "D": 2}
    )
    w = numbers(12, 2)
    case.write({"w1": w})
    assert_same(case.load(), {"w1.weight": w.reshape(3, 4, 2)})


def test_stacked_tensors_are_split(tmp_path: Path) -> None:
    rule = {"split": {"s.<l>.gate": 2, "s.<l>.up": 2}, "axis": 1, "stack": "e"}
    shapes = {f"s.7.{p}.weight": (3, 2, 5) for p in ("gate", "up")}
    case = Case(tmp_path, {"l.<l>.e.<e>.gate_up": rule}, shapes)
    w = numbers(3, 4, 5)
    case.write({f"l.7.e.{e}.gate_up.weight": w[e] for e in range(3)})
    assert_same(case.load(), {"s.7.gate.weight": w[:, :2], "s.7.up.weight": w[:, 2:]})


def test_a_target_takes_the_alternative_that_the_model_has(tmp_path: Path) -> None:
    case = Case(tmp_path, {"l.<l>.mixer": "l.<l>.(attn|ssm)"}, {"l.0.attn.w": (1,), "l.1.ssm.w": (1,)})
    case.write({"l.0.mixer.w": np.float32([0]), "l.1.mixer.w": np.float32([1])})
    assert_same(case.load(), {"l.0.attn.w": np.float32([0]), "l.1.ssm.w": np.float32([1])})


def test_a_pattern_matches_either_name(tmp_path: Path) -> None:
    case = Case(tmp_path, {"(h|layers).<l>.(ln_1|norm)": "layers.<l>.norm"}, {"layers.0.norm.weight": (1,)})
    for name in ("h.0.ln_1.weight", "layers.0.norm.weight"):
        case.write({name: np.float32([3])})
        assert_same(case.load(), {"layers.0.norm.weight": np.float32([3])})


def test_tensors_are_dropped(tmp_path: Path) -> None:
    weights = {
        "<*>.inv_freq": None,
        "m.<l>": "m.<l>",
        "m.<n>.extra": {"drop": True},
        "m.<k>.x": {"drop": True, "when": "=k >= layers"},
        "vision": None,
    }
    case = Case(tmp_path, weights, {"m.0.w": (1,), "m.0.x": (1,)}, {"layers": 1})
    one = np.float32([1])
    names = ["m.0.w", "m.0.x", "m.0.extra.w", "m.1.x", "m.0.rotary.inv_freq", "vision.tower.w", "inv.inv_freq"]
    case.write(dict.fromkeys(names, one))
    assert sorted(case.plan().dropped) == sorted(names[2:])


def test_prefixes_are_taken_off(tmp_path: Path) -> None:
    case = Case(tmp_path, {"model.w": "w"}, {"w.weight": (2, 2)}, prefixes=("language_model.", "other."))
    w = numbers(2, 2)
    for name in ("language_model.model.w.weight", "model.w.weight"):
        case.write({name: w})
        assert_same(case.load(), {"w.weight": w})
    case.write({"language_model.model.w.weight": w, "model.w.weight": w})
    with pytest.raises(CheckpointError, match="one name without their prefixes"):
        case.plan()


def test_a_part_of_a_split_may_be_dropped(tmp_path: Path) -> None:
    case = Case(tmp_path, {"f": {"split": {"a": 1, "b?": 2}}}, {"a.weight": (1, 2)})
    w = numbers(3, 2)
    case.write({"f.weight": w})
    assert_same(case.load(), {"a.weight": w[:1]})


def test_parameters_are_cast_but_for_those_that_stay(tmp_path: Path) -> None:
    case = Case(tmp_path, {"a": "a", "A_log": "A_log"}, {"a.weight": (2,), "A_log": (2,)})
    case.write({"a.weight": numbers(2), "A_log": numbers(2)})
    found = case.load(dtype="bfloat16")
    assert {name: value.dtype for name, value in found.items()} == {
        "a.weight": mx.bfloat16, "A_log": mx.float32
    }  # fmt: skip
