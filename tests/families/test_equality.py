"""Families against transformers' logits (RWKV-7: those of a float64 reference) from the same small checkpoints."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import load
from axon_compose.language.layout import to_text
from axon_compose.plan.concrete import unroll
from axon_compose.proof.check import check_plan
from axon_compose.proof.check._shrink import small_architecture
from axon_compose.registry import Registry
from tests.families.models import FIXTURES, NAMES, SETTINGS, architecture, decoded, difference, expected, model
from tests.plan.concrete.test_unroll import everything

#: Float32 in another order of summation: the worst family is at 8e-6 (a recurrence over 40 tokens), most below 1e-6.
#: Whatever is forgotten or misplaced costs a thousandth or more.
LIMIT = 2e-5


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"family-{name}")) for name in NAMES]
)
def name(request: pytest.FixtureRequest) -> str:
    """A fixture of a family; all tests of one follow each other, since they share its model."""
    return str(request.param)


def test_logits_are_those_of_the_reference(name: str) -> None:
    tokens, reference = expected(name)
    assert difference(model(name)(tokens), reference) < LIMIT


def test_decoding_gives_the_same(name: str) -> None:
    tokens, reference = expected(name)
    assert difference(decoded(model(name), tokens, 29), reference) < LIMIT


def test_older_configurations_mean_the_same(name: str, tmp_path: Path) -> None:
    """`config.published.json` says it in the words of transformers 4, as most published checkpoints do."""
    older = FIXTURES / name / "config.published.json"
    if not older.exists():
        pytest.skip("there is no other way to say it")
    (tmp_path / "config.json").write_bytes(older.read_bytes())
    again = load(checkpoint=tmp_path, settings=SETTINGS.get(name, []))
    assert everything(again.plan()) == everything(architecture(name).plan())


def test_the_imported_file_is_the_same_model(name: str, tmp_path: Path) -> None:
    whole = architecture(name)
    path = tmp_path / "imported.yaml"
    path.write_text(to_text(unroll(whole.document, whole.plan(), Registry.installed())))
    imported = load(path)
    assert everything(imported.plan()) == everything(whole.plan())
    tokens, _ = expected(name)
    logits = imported.build(weights=FIXTURES / name)(tokens)
    np.testing.assert_array_equal(np.array(logits), np.array(model(name)(tokens)))


@pytest.mark.slow
def test_every_truth_holds(name: str) -> None:
    """Caches, masks, ragged batches, saved caches, gradients: the kit on one layer of each kind of the family.

    That two layers of a kind keep apart is a matter of their components, which are checked on their own.
    """
    report = check_plan(small_architecture(architecture(name).plan(), alike=1).plan())
    assert report.passed, [truth for truth in report.truths if not truth.passed]


def test_every_fixture_is_of_a_family_and_every_family_has_one() -> None:
    from axon_compose.checkpoints.huggingface import families as all_families

    found = {architecture(name).name for name in NAMES}
    assert found == {family.name for family in all_families(Registry.installed())}
    mx.clear_cache()
