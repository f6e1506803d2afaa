"""A checkpoint finds the family that reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.huggingface import families
from axon_compose.registry import Registry


def test_no_model_type_is_claimed_twice() -> None:
    claimed = [model_type for family in families(Registry.installed()) for model_type in family.model_types]
    assert len(claimed) == len(set(claimed))


def test_every_family_reads_its_own_name() -> None:
    for family in families(Registry.installed()):
        assert family.model_types[0] == family.name


@pytest.mark.parametrize(
    ("config", "near"),
    [
        ('{"model_type": "qwen33"}', "did you mean `qwen3`? name the family (`import DIR --family qwen3`"),
        ("{}", "`axon-compose import --families`"),
        ('{"model_type": "x"}', "`axon-compose import --families`"),
    ],
)
def test_an_unknown_model_type(tmp_path: Path, config: str, near: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=tmp_path)
    (fault,) = caught.value.diagnostics
    assert fault.code == "AX606"
    assert (fault.help or "").startswith(near)


def test_a_wrapper_is_read_by_its_text_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "seeing", "text_config": {"model_type": "qwen3"}}')
    assert load(checkpoint=tmp_path).name == "qwen3"
