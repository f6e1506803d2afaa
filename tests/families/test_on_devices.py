"""Checkpoints of families on several devices give the logits of one; `docs/families-on-devices.md` has all families."""

from __future__ import annotations

import pytest

from axon_compose.proof.check._devices import shared
from axon_compose.proof.check._subject import Subject
from tests.families.models import expected, model

#: A checkpoint with every kind of recurrent layer, numbers of devices among which its heads can be divided, and the
#: components that nevertheless stay whole.
MIXERS = [
    ("falcon_mamba", 2, set()),
    ("mamba2", 2, set()),
    ("plamo2", 3, {"attn"}),
    ("olmo_hybrid", 2, set()),
    ("kimi_linear", 3, {"mla", "moe"}),
    ("rwkv7", 3, {"channel"}),
    ("bailing_moe_linear", 4, set()),
    ("recurrent_gemma", 4, set()),
    ("lfm2", 4, set()),
    ("gear", 2, set()),
    ("longcat_flash_ngram", 2, {"mla_0", "mla_1"}),
    ("zamba2", 2, set()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "whole"), MIXERS, ids=[f"{name}-{size}" for name, size, _ in MIXERS])
def test_logits_are_those_of_one_device(name: str, size: int, whole: set[str]) -> None:
    tokens, _ = expected(name)
    found = shared(Subject(model(name).plan, model=model(name), sample=tokens), size)
    assert found.differences[found.worst] <= found.limit, (found.worst, found.where)
    assert found.differences[found.worst] < 1e-5  # whatever the roundings of a weight allow
    layers = {path.rpartition(".")[2] for path, reason in found.tensor.whole.items() if "devices" in reason}
    assert layers == whole
