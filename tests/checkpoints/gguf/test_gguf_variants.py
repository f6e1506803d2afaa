"""Files that are not as today's converter writes those of their family."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import MODEL_ARCH

from axon_compose import load
from tests.checkpoints.gguf import converted, delta, experts, scaled
from tests.checkpoints.gguf.converted import LOST, write
from tests.checkpoints.gguf.writing import Conversion
from tests.families.models import difference, expected
from tests.families.test_equality import LIMIT

_OLDER = Conversion(MODEL_ARCH.DEEPSEEK2, experts.deepseek_older_keys, experts.deepseek_older)


@pytest.mark.parametrize(
    ("name", "conversion", "family"),
    [
        ("deepseek_v2_lite", _OLDER, "deepseek_v2"),
        ("deepseek_v3", _OLDER, "deepseek_v3"),
        (
            "glm4_moe_lite",
            Conversion(MODEL_ARCH.DEEPSEEK2, experts.glm_lite_keys, experts.deepseek, experts.predictor),
            "deepseek_v3",
        ),
        (
            "qwen3_next",
            Conversion(MODEL_ARCH.QWEN3NEXT, delta.qwen3_next_keys, delta.qwen3_next_older),
            "qwen3_next",
        ),
        (
            "mimo_v2_flash",
            Conversion(MODEL_ARCH.MIMO2, scaled.mimo2_keys, scaled.mimo2_fused, scaled.mimo2_qkv),
            "mimo_v2_flash",
        ),
    ],
)
def test_logits_are_those_of_the_reference(
    name: str, conversion: Conversion, family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without `expert_gating_func` a correction of the scores tells a sigmoid from a softmax."""
    path = tmp_path / "model.gguf"
    monkeypatch.setitem(converted.CONVERSIONS, name, conversion)
    write(name, path)
    tokens, reference = expected(name)
    settings = LOST.get(name, ["dims.attention_bias=true"] if name == "glm4_moe_lite" else [])
    found = load(checkpoint=path, settings=settings)
    assert found.name == family
    assert difference(found.build(weights=path)(tokens), reference) < LIMIT
