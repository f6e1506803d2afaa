"""The second stage alone: sections, bases, settings and dims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_compose import ArchitectureError, load
from axon_compose.diagnostics import Problems
from axon_compose.language.document import CheckpointEnvelope, Envelope, merge
from axon_compose.language.document._sections import CHECKPOINTS
from axon_compose.language.source import Mapping, plain, read, to_source
from tests.helpers import codes, described, document_of


def node_of(data: dict[str, Any]) -> Mapping:
    node = to_source(data, "<dict>", Problems())
    assert isinstance(node, Mapping)
    return node


def merged(base: dict[str, Any], top: dict[str, Any]) -> Any:
    return plain(merge(node_of(base), node_of(top)))


# Merging.


@pytest.mark.parametrize(
    ("base", "top", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"x": 1}}, {"a": None}, {}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": None}}, {"a": {"y": 2}}),
        ({}, {"a": {"x": None}}, {"a": {"x": None}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"c": {"type": "mlp", "bias": True}}, {"c": {"bias": False}}, {"c": {"type": "mlp", "bias": False}}),
        ({"c": {"type": "mlp", "bias": True}}, {"c": {"type": "mlp"}}, {"c": {"type": "mlp", "bias": True}}),
        ({"c": {"type": "mlp", "bias": True}}, {"c": {"type": "moe"}}, {"c": {"type": "moe"}}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        # In dims null is a value, but not inside of one.
        ({"dims": {"x": 1, "y": 2}}, {"dims": {"x": None}}, {"dims": {"x": None, "y": 2}}),
        ({"dims": {"x": {"a": 1, "b": 2}}}, {"dims": {"x": {"a": None}}}, {"dims": {"x": {"b": 2}}}),
        ({"dims": {"x": 1}}, {"dims": None}, {}),
        ({"a": {"dims": {"x": 1}}}, {"a": {"dims": {"x": None}}}, {"a": {"dims": {}}}),
        # What is ignored adds up.
        (
            {"huggingface": {"ignore": ["a", "b"], "model_types": ["x"]}},
            {"huggingface": {"ignore": ["b", "c"], "model_types": ["y"]}},
            {"huggingface": {"ignore": ["a", "b", "c"], "model_types": ["y"]}},
        ),
        ({"huggingface": {"ignore": ["a"]}}, {"huggingface": {"ignore": None}}, {"huggingface": {}}),
        ({"huggingface": {"ignore": ["a"]}}, {"huggingface": {"ignore": "b"}}, {"huggingface": {"ignore": "b"}}),
        ({"ignore": ["a"]}, {"ignore": ["b"]}, {"ignore": ["b"]}),
    ],
)
def test_merge(base: dict[str, Any], top: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merged(base, top) == expected


leaves = st.integers() | st.text("abc", max_size=3) | st.booleans()
# "a" and "b" always hold values, "c" and "d" mappings: where one replaces the other, order matters by intention.
trees = st.recursive(
    st.dictionaries(st.sampled_from("ab"), leaves),
    lambda tree: st.builds(lambda flat, deep: flat | deep, tree, st.dictionaries(st.sampled_from("cd"), tree)),
    max_leaves=6,
)


@given(trees)
def test_merging_with_itself_or_nothing_changes_nothing(tree: dict[str, Any]) -> None:
    assert merged(tree, tree) == tree
    assert merged({}, tree) == tree
    assert merged(tree, {}) == tree


@given(trees, trees, trees)
def test_merging_is_associative(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    assert merged(merged(one, two), three) == merged(one, merged(two, three))


# extends


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


BASE_TEXT = """
version: 1
dims: {hidden_size: 32, vocab_size: 64}
components: {mlp: {type: mlp, intermediate_size: 48, bias: true}}
blocks: {a: [mlp]}
stack: a*2
"""


def test_extends_a_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE_TEXT)
    top = write(tmp_path, "top.yaml", "extends: base.yaml\ncomponents: {mlp: {intermediate_size: 16}}\nstack: a*3\n")
    plan = load(top).plan()
    assert len(plan.layers) == 3
    assert dict(next(plan.layers[0].uses()).params) == {"weight": (32,)}
    mlp = list(plan.layers[0].uses())[1]
    assert mlp.written == {"intermediate_size": 16, "bias": True}


@pytest.mark.parametrize("how", ["extends", "--set"])
def test_null_for_a_dim_is_a_value(how: str, tmp_path: Path) -> None:
    text = BASE_TEXT.replace("vocab_size: 64}", "vocab_size: 64, width: 48}").replace(
        "intermediate_size: 48", "intermediate_size: =width or 16"
    )
    base = write(tmp_path, "base.yaml", text)
    if how == "extends":
        found = load(write(tmp_path, "top.yaml", "extends: base.yaml\ndims: {width: null}\n"))
    else:
        found = load(base, settings=["dims.width=null"])
    assert found.document.dims["width"] is None
    assert list(found.plan().layers[0].uses())[1].written["intermediate_size"] == 16


def test_extends_a_chain_through_folders(tmp_path: Path) -> None:
    write(tmp_path, "deep/base.yaml", BASE_TEXT)
    write(tmp_path, "deep/middle.yaml", "extends: base.yaml\nname: middle\n")
    top = write(tmp_path, "top.yaml", "extends: deep/middle.yaml\nstack: a\n")
    plan = load(top).plan()
    assert (plan.name, len(plan.layers)) == ("middle", 1)


def test_a_base_may_not_leave_the_folder_of_the_first_file(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE_TEXT)
    top = write(tmp_path, "inner/top.yaml", "extends: ../base.yaml\n")
    with pytest.raises(ArchitectureError) as caught:
        load(top)
    assert [d.code for d in caught.value.diagnostics] == ["AX113"]


def test_a_symbolic_link_may_not_leave_it_either(tmp_path: Path) -> None:
    write(tmp_path, "secret.yaml", BASE_TEXT)
    top = write(tmp_path, "inner/top.yaml", "extends: link.yaml\n")
    (tmp_path / "inner" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(ArchitectureError) as caught:
        load(top)
    assert [d.code for d in caught.value.diagnostics] == ["AX113"]


def test_a_base_may_go_up_inside_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE_TEXT)
    write(tmp_path, "inner/middle.yaml", "extends: ../base.yaml\n")
    top = write(tmp_path, "top.yaml", "extends: inner/middle.yaml\n")
    assert len(load(top).plan().layers) == 2


def test_a_circle_shows_the_whole_chain(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    write(tmp_path, "b.yaml", "extends: c.yaml\n")
    write(tmp_path, "c.yaml", "extends: b.yaml\n")
    with pytest.raises(ArchitectureError) as caught:
        load(tmp_path / "a.yaml")
    assert "b.yaml → c.yaml → b.yaml" in caught.value.diagnostics[0].message


def test_a_chain_has_an_end(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"f{number}.yaml", f"extends: f{number + 1}.yaml\n")
    write(tmp_path, "f20.yaml", BASE_TEXT)
    with pytest.raises(ArchitectureError) as caught:
        load(tmp_path / "f0.yaml")
    assert [d.code for d in caught.value.diagnostics] == ["AX112"]
    assert len(load(tmp_path / "f13.yaml").plan().layers) == 2


# --set


def test_settings_are_laid_over_the_file() -> None:
    plan = load(
        described(), settings=["dims.hidden_size=64", "components.mlp.intermediate_size==hidden_size * 2"]
    ).plan()
    mlp = list(plan.layers[0].uses())[3]
    assert mlp.params["gate_proj.weight"] == (128, 64)


def test_a_setting_can_remove_a_key() -> None:
    data = described(overrides=[{"layers": 0, "set": {"attn.num_heads": 4}}])
    assert load(data, settings=["overrides=null"]).document.envelope.overrides == []


def test_a_setting_of_a_list_is_yaml() -> None:
    assert len(load(described(), settings=["stack=[a, {block: s, repeat: 2}]"]).plan().layers) == 3


# dims


def test_dims_may_use_one_another_in_any_order() -> None:
    document = document_of(described(dims={"hidden_size": "=heads * width", "heads": 4, "width": 8, "vocab_size": 64}))
    assert document.dims["hidden_size"] == 32


def test_a_faulty_dim_is_told_once() -> None:
    data = described(dims={"hidden_size": "=x", "x": "=y", "y": "=1 // 0", "vocab_size": 64})
    assert codes(data) == ["AX120"]


def test_lists_and_mappings_in_dims() -> None:
    dims = {"hidden_size": "=sizes[0]", "sizes": [32, "=sizes_of['b']"], "sizes_of": {"b": 5}, "vocab_size": 64}
    assert document_of(described(dims=dims)).dims["sizes"] == [32, 5]


# Reading back.


def test_the_printed_document_reads_back_to_the_same_plan() -> None:
    first = load("shared-kv")
    again = load(first.data)
    assert again.plan() == first.plan()


def test_private_sections_are_free() -> None:
    assert load(described(**{"x-notes": {"anything": ["goes"]}})).plan()


def test_only_files_with_sections_on_checkpoints_have_their_models() -> None:
    assert CheckpointEnvelope.model_fields.keys() - Envelope.model_fields.keys() == set(CHECKPOINTS)
    plain_file = document_of(described())
    assert type(plain_file.envelope) is Envelope
    assert plain_file.huggingface is plain_file.gguf is None
    for section in CHECKPOINTS:
        found = document_of(described(**{section: {"ignore": ["note"]}}))
        assert type(found.envelope) is CheckpointEnvelope
        assert getattr(found, section).ignore == ["note"]


def test_places_survive_the_merge(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE_TEXT)
    top = write(tmp_path, "top.yaml", "extends: base.yaml\ncomponents:\n  mlp: {bais: true}\n")
    with pytest.raises(ArchitectureError) as caught:
        load(top)
    (fault,) = caught.value.diagnostics
    assert fault.span
    assert (Path(fault.span.file).name, fault.span.start.line) == ("top.yaml", 3)


def test_read_accepts_text_and_bytes_alike() -> None:
    assert plain(read("a: [1, x]", "f", Problems())) == plain(read(b"a: [1, x]", "f", Problems())) == {"a": [1, "x"]}  # type: ignore[arg-type]


def test_faulty_overrides_do_not_move_the_places_of_the_others(tmp_path: Path) -> None:
    """Twelve of them, three faulty: the numbers of those that stay are not those of the file."""
    good, empty, wrong = (
        "{layers: 0, set: {mlp.bias: true}}",
        "{layers: 0, set: {}}",
        "{layers: 1, set: {mlp.bais: true}}",
    )
    lines = [good, empty, *[good] * 7, empty, empty, wrong]
    text = BASE_TEXT.lstrip() + "overrides:\n" + "".join(f"  - {line}\n" for line in lines)
    with pytest.raises(ArchitectureError) as caught:
        load(write(tmp_path, "a.yaml", text))
    found = [(fault.code, fault.span.start.line) for fault in caught.value.diagnostics if fault.span]
    assert found == [("AX102", 8), ("AX102", 16), ("AX102", 17), ("AX101", 18)]
