"""Keys of the mapping about positions that a family reads by name, whatever the mapping is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axon_compose import Architecture, ArchitectureError, load
from axon_compose.checkpoints.huggingface._written import original_config, whole_config, with_dims

FAMILY = """
version: 1
name: stretched
extends: llama
dims: {stretch: 1.0, kind: null, step: 8192}
components: {attn: {rope: {theta: =rope_theta * stretch, scaling: =null if stretch > 1 else rope_scaling}}}
huggingface:
  model_types: [stretched]
  fields:
    stretch: rope_parameters.alpha
    step: rope_parameters.original_max_position_embeddings
    KIND
  ignore: [rope_scaling.mscale]
"""
SIZES: dict[str, Any] = {
    "model_type": "stretched", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 97, "max_position_embeddings": 256,
}  # fmt: skip
OWN = {"factor": 1.0, "alpha": 30.0, "mscale": 0.7}


def read(folder: Path, config: dict[str, Any], *, kind: str = "kind: []") -> Architecture:
    (folder / "config.json").write_text(json.dumps({**SIZES, **config}, indent=1))
    path = folder / "stretched.yaml"
    path.write_text(FAMILY.replace("KIND", kind))
    return load(path, checkpoint=folder)


def theta(found: Architecture) -> float:
    use = next(use for use in found.plan().layers[0].uses() if use.type == "core/attention")
    value: float = use.options.rope.theta
    return value


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 1e4, "rope_scaling": {"type": "dynamic", **OWN}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "dynamic", **OWN}},
        {"rope_parameters": {}, "rope_scaling": {"rope_theta": 1e4, "type": "dynamic", **OWN}},
    ],
)
def test_a_key_is_read_under_either_name_of_the_mapping(config: dict[str, Any], tmp_path: Path) -> None:
    found = read(tmp_path, config)
    assert (found.document.dims["stretch"], theta(found), found.warnings) == (30.0, 3e5, ())


def test_a_wrapper_is_not_asked_for_a_key_that_the_text_model_lacks(tmp_path: Path) -> None:
    inner = {**SIZES, "rope_scaling": {"type": "linear", "factor": 2.0}}
    outer = {"model_type": "seeing", "text_config": inner, "rope_scaling": {"type": "dynamic", **OWN}}
    assert read(tmp_path, outer).document.dims["stretch"] == 1.0


def test_a_key_may_also_belong_to_the_scaling(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    dims = read(tmp_path, {"rope_scaling": yarn}).document.dims
    assert (dims["step"], dims["rope_scaling"]["original_max_position_embeddings"]) == (64, 64)


def test_a_key_that_no_dim_reads_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError) as caught:
        read(tmp_path, {"rope_scaling": {"type": "dynamic", **OWN, "beta": 3.0}})
    (fault,) = caught.value.diagnostics
    assert (fault.code, "`rope_scaling.beta`" in fault.message) == ("AX602", True)


def test_a_type_is_refused_unless_the_family_reads_the_type(tmp_path: Path) -> None:
    config = {"rope_parameters": {"rope_type": "ntk_alpha", "rope_theta": 1e4, "alpha": 30.0}}
    with pytest.raises(ArchitectureError, match="AX604"):
        read(tmp_path, config)
    found = read(tmp_path, config, kind="kind: rope_parameters.rope_type")
    assert (found.document.dims["kind"], found.document.dims["rope_scaling"], theta(found)) == ("ntk_alpha", None, 3e5)
    config["rope_parameters"]["beta"] = 3.0
    with pytest.raises(ArchitectureError, match="AX602"):
        read(tmp_path, config, kind="kind: rope_parameters.rope_type")


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_the_way_back_keeps_the_keys(name: str, tmp_path: Path) -> None:
    mapping = {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 1.0, "alpha": 30.0}
    found = read(tmp_path, {name: mapping})
    section, dims = found.document.huggingface, dict(found.document.dims)
    assert section is not None
    for written in (
        with_dims(original_config({**SIZES, name: mapping}, section), section, {**dims, "stretch": 40.0}),
        whole_config(section, {**dims, "stretch": 40.0}, dims),
    ):
        again = read(tmp_path, written)
        assert (again.document.dims["stretch"], theta(again)) == (40.0, 4e5)
        assert again.document.dims["rope_scaling"] == dims["rope_scaling"]


def test_a_key_without_a_value_is_not_written(tmp_path: Path) -> None:
    found = read(tmp_path, {"rope_theta": 1e4})
    section, dims = found.document.huggingface, dict(found.document.dims)
    assert section is not None
    written = with_dims({**SIZES, "rope_theta": 1e4}, section, {**dims, "stretch": None, "step": None})
    assert (written["rope_scaling"], "rope_parameters" in written) == (None, False)
