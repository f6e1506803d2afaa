"""`check` notices: what passes as it is fails with any one fault, and in the truth that names it."""

from __future__ import annotations

import pytest
from mutations import FOUND, MODELS, Mutation

import axon_compose
from axon_compose.proof.check import TRUTHS, check_plan
from axon_core.kernels import _native


@pytest.mark.parametrize("model", MODELS)
def test_as_it_is(model: str) -> None:
    report = check_plan(axon_compose.load(MODELS[model]).plan())
    assert report.passed, report.failed


@pytest.mark.parametrize("mutation", FOUND, ids=lambda mutation: mutation.name)
def test_planted(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "installed", lambda: None)  # faults are planted into what MLX computes
    mutation.plant(monkeypatch)
    plan = axon_compose.load(MODELS[mutation.model]).plan()
    report = check_plan(plan, truths=mutation.noticed_by)
    assert [truth.name for truth in report.failed] == list(mutation.noticed_by)
    # The fault itself is what is noticed, not that planting it broke the code; a packed matrix has another shape.
    raised = [
        truth for truth in report.failed if truth.figure is None and truth.name not in ("parameters", "quantized")
    ]
    assert not raised
    assert all(truth.detail for truth in report.failed)


def test_every_truth_has_a_fault() -> None:
    assert {name for mutation in FOUND for name in mutation.noticed_by} == set(TRUTHS)


def test_thirds_that_do_not_come_out() -> None:
    description = {**MODELS["hybrid"], "layers": 4}
    with pytest.raises(axon_compose.ArchitectureError) as caught:
        axon_compose.load(description)
    (found,) = caught.value.diagnostics
    assert found.code == "AX133"
    assert "3 layers, `layers` says 4" in found.message
