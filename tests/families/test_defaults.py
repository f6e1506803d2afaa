"""Fields that a config.json leaves out: every family means by them what transformers means.

Each configuration of the fixtures is read twice: as it is but for one field, and with every field written out by the
installed configuration class. Both must be the same model.
"""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import pytest

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.huggingface._harmless import is_harmless
from axon_compose.plan import Plan
from axon_compose.registry import Registry
from tests.families.models import BY_MLX_LM, FIXTURES, NAMES
from tests.families.reference_configs import Refused, explicit, fields_of


def config_of(name: str) -> dict[str, Any]:
    """The configuration of a fixture, of a wrapper that of its text model."""
    found: dict[str, Any] = json.loads((FIXTURES / name / "config.json").read_text())
    return found.get("text_config", found)


#: Those that transformers has.
KNOWN: Final = [name for name in NAMES if name not in BY_MLX_LM | {"rwkv7"}]
#: One of each model type.
TYPES: Final = {config_of(name)["model_type"]: name for name in reversed(KNOWN)}
#: Whatever the family, these decide what the rotation of a long context is.
_LENGTHS: Final = ("max_position_embeddings", "original_max_position_embeddings")
#: Of options that may be left to the component: its number is in the shapes of the parameters.
_DERIVED: Final = "dt_rank"
#: Computed by transformers whatever the configuration says; tensors of another width do not fit.
_SHAPED: Final = (
    ("mamba", "intermediate_size"),
    ("falcon_mamba", "intermediate_size"),
    ("bailing_hybrid", "head_dim"),
)
#: transformers 5 takes theta of DBRX from rope_parameters, which older files do not have.
_MOVED: Final = (("dbrx", "rope_parameters"),)


def matters(field: str) -> bool:
    # A model with an encoder is refused; of a text model inside another one only its own field counts.
    return field not in ("model_type", "is_encoder_decoder") and (field in _LENGTHS or not is_harmless(field))


class Reader:
    """Reads configurations with the family of their model type, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry.installed()
        self.known: dict[str, Any] = {}

    def model(self, config: dict[str, Any]) -> Any:
        """What decides what a model computes, or why there is none."""
        key = json.dumps(config, sort_keys=True)
        if key not in self.known:
            (self.folder / "config.json").write_text(json.dumps(config))
            try:
                self.known[key] = _parts(load(checkpoint=self.folder, registry=self.registry).plan())
            except ArchitectureError as error:
                self.known[key] = sorted(d.code for d in error.diagnostics if d.severity == "error")
        return self.known[key]


def _parts(plan: Plan) -> list[Any]:
    outside = [use for use in (plan.embedding, plan.residual, plan.final_norm, plan.head) if use]
    uses = [*outside, *(use for layer in plan.layers for use in layer.uses())]
    return [
        [(use.path, use.type, use.options.model_dump(exclude={_DERIVED}), use.params) for use in uses],
        [
            [(b.scale, b.skip, b.residual, [m.scale for m in b.members]) for b in layer.branches]
            for layer in plan.layers
        ],
        plan.slots,
        plan.masks,
    ]


def compare(config: dict[str, Any], read: Reader) -> None:
    """Both ways to read a configuration, unless transformers does not read it."""
    try:
        whole = explicit(config)
    except Refused:
        return
    assert read.model(config) == read.model(whole)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"defaults-{name}")) for name in TYPES.values()],
)
def name(request: pytest.FixtureRequest) -> str:
    """The fixture of a model type; all tests of one follow each other, since they come upon the same models."""
    return str(request.param)


@pytest.fixture(scope="module")
def read(name: str, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp(name))


def test_a_configuration_that_says_nothing(name: str, read: Reader) -> None:
    compare({"model_type": config_of(name)["model_type"]}, read)


def test_a_configuration_without_one_field(name: str, read: Reader) -> None:
    config = config_of(name)
    compare(config, read)
    for field in filter(matters, config):
        if (name, field) not in _MOVED:
            compare({key: value for key, value in config.items() if key != field}, read)


def test_a_configuration_with_null_for_one_field(name: str, read: Reader) -> None:
    config = config_of(name)
    for field in filter(matters, config):
        if (name, field) not in _MOVED:
            compare({**config, field: None}, read)


def test_two_names_for_one_field(name: str, read: Reader) -> None:
    """Where they differ, the one counts that transformers takes; or it is refused."""
    config = config_of(name)
    found = load(checkpoint=FIXTURES / name).document
    assert found.huggingface is not None
    for dim, fields in found.huggingface.fields.items():
        value = found.dims[dim]
        names = [field for field in fields if "." not in field] if isinstance(fields, list) else []
        if len(names) < 2 or isinstance(value, list) or (config["model_type"], dim) in _SHAPED:
            continue
        other = not value if isinstance(value, bool) else 2 * value
        rest = {key: of for key, of in config.items() if key not in (*names, "rope_parameters")}
        for first, second in permutations(names, 2):
            twice = {**rest, first: other, second: value}
            known = fields_of(twice)
            try:
                whole = {key: of for key, of in explicit(twice).items() if key in known or key not in names}
            except Refused:
                continue
            assert read.model(twice) in (read.model(whole), ["AX603"]), (first, second)


def test_a_configuration_with_one_truth_turned_around(name: str, read: Reader) -> None:
    """Fields that depend on each other, such as kinds of layers on whether there are windows at all."""
    config = config_of(name)
    without = {key: value for key, value in config.items() if key != "layer_types"}
    for field, value in explicit(config).items():
        if isinstance(value, bool) and matters(field):
            compare({**config, field: not value}, read)
            compare({**without, field: not value}, read)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"indexer_budget": 13}, "option `indexer.top_k`"), ({"ple_embed_dim": 26}, "option `width`")],
    ids=["blocks", "tables"],
)
def test_sizes_of_qwen4_exp_that_leave_a_remainder_are_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """As by transformers' configuration."""
    config = json.loads((FIXTURES / "qwen4_exp" / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=tmp_path).plan()
    assert all(f"{said} must be an integer" in d.message for d in caught.value.diagnostics)
