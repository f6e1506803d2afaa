"""What `docs/plugins.md` names as reusable is there, under these names and with these arguments."""

from __future__ import annotations

import re
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path

import pytest

#: Names that plugins may import, and their arguments in order; those with `=` can be left out.
STABLE = {
    "scan.selective_scan": "x dt A B C D= state= mask= chunk=",
    "ssd.ssd_scan": "x dt A B C D= state= mask= block=",
    "linear_scan.linear_scan": "x log_a state= mask= chunk=",
    "gated_delta.gated_delta_rule": "q k v log_g beta state= mask= chunk=",
    "wkv7.wkv7": "r log_w k v a b state= mask= chunk=",
    "conv.causal_conv": "conv x mask= state= dilation=",
    "token_shift.token_shift": "x mask= state=",
    "states.read_states": "cache mask length count=",
    "states.write_states": "cache states length",
    "experts.ExpertGLU": "dims hidden_dims num_experts activation= bias= limit=",
    "experts.ExpertMLP": "dims hidden_dims num_experts activation= bias=",
    "experts.ExpertLinear": "input_dims output_dims num_experts bias=",
    "routing.best": "scores k",
    "routing.within_groups": "scores num_groups top_k_groups group_score",
    "norms.RMSNorm": "dims eps= weight= num_groups= offset= center= scale_first= shard=",
    "norms.LayerNorm": "dims eps= weight= bias= offset=",
    "norms.GatedRMSNorm": "dims eps num_groups= before_gate= shard= activation=",
    "mlp.MLP": "dims hidden_dims activation= gated= bias= limit= gate_scale= sparsity= shard= outputs= gain=",
    "window.banded_attention": "queries keys values attend window left_padding=",
    "scores.attend": "queries keys values mask ahead= scale softcap= sinks= slopes= relative=",
}
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text("utf-8")


@pytest.mark.parametrize("name", STABLE)
def test_a_building_block_keeps_its_name_and_arguments(name: str) -> None:
    module, _, attribute = name.partition(".")
    found = import_module(f"axon_core.{module}")
    assert attribute in found.__all__
    arguments = signature(getattr(found, attribute)).parameters.values()
    written = " ".join(f"{one.name}{'' if one.default is Parameter.empty else '='}" for one in arguments)
    assert written == STABLE[name]


def test_the_page_names_them_all() -> None:
    table = PAGE.partition("## Building blocks\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"`(\w+\.\w+)\(([^`]*)\)`", table))
    assert shown.keys() == STABLE.keys()
    for name, arguments in shown.items():
        assert arguments == "…" or arguments.split(", ") == STABLE[name].replace("=", "").split(), name
