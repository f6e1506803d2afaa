"""The front door from Python."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

import axon_compose
from axon_compose import Architecture, ArchitectureError, load
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.model import BuildError, random_weights
from axon_compose.plan import Plan
from axon_compose.registry import ComponentSpec, Registry
from axon_core.specs.norms import RMSNormOptions
from tests.children import PATIENCE, child
from tests.helpers import described


def test_exported_members() -> None:
    for name in axon_compose.__all__:
        member = getattr(axon_compose, name)
        if inspect.isclass(member) or inspect.isfunction(member):
            assert inspect.getdoc(member), name
    assert axon_compose.__all__ == sorted(axon_compose.__all__, key=str)


def test_completion_offers_every_public_name() -> None:
    code = (
        "import axon_compose as a; print({n for n in dir(a) if n[0] != '_'} == {n for n in a.__all__ if n[0] != '_'})"
    )
    with child([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=PATIENCE)[0] == "True\n"


def test_results_are_short_in_a_prompt() -> None:
    """One line says what a result is, however large the model."""
    model = load("bit-axon")
    folder = Path(__file__).parents[1] / "families" / "fixtures" / "llama"
    family = load("llama", checkpoint=folder)
    plan = model.plan()
    layer = plan.layers[8]
    member = layer.branches[0].members[0]
    compared = axon_compose.compare(["bit-axon", "hybrid-demo"])
    results = [
        (model, "<Architecture bit-axon: 24 layers, 5,766,781,440 parameters>"),
        (plan, "<Plan bit-axon: 24 layers, 5,766,781,440 parameters>"),
        (layer, "<Layer 8: reason, 2 branches, 309,358,080 parameters>"),
        (layer.branches[0], "<Branch swa>"),
        (member, "<Member swa>"),
        (member.use, "<Use layers.8.swa: core/sliding_window_attention, 26,214,400 parameters>"),
        (model.document, "<Document bit-axon: 3 components, 3 blocks>"),
        (
            model.cost(quantize=4),
            "<CostSheet bit-axon: 5,766,781,440 parameters, 3,252,912,640 bytes in 4 bits and bfloat16>",
        ),
        (compared, "<Comparison of 2 models in bfloat16>"),
        (compared.rows[1], "<Row hybrid-demo: 1,035,520 parameters>"),
        (model.diff(model), "<Difference bit-axon → bit-axon: 0 changes>"),
        (model.lint(), "<Advice: AX708>"),
        (load("hybrid-demo").check(truths=["steps"]), "<CheckReport hybrid-demo: 0 of 1 checks failed>"),
        (family.load_plan(folder), "<LoadPlan: 67 transfers, 0 tensors dropped, 320,448 bytes>"),
    ]
    assert [repr(result) for result, _ in results] == [line for _, line in results]


def test_a_name_a_path_and_a_mapping_are_the_same() -> None:
    by_name = load("hybrid-demo")
    path = Path(__file__).parents[2] / "architectures" / "hybrid-demo.yaml"
    assert load(path).plan() == load(str(path)).plan() == load(by_name.data).plan() == by_name.plan()
    assert isinstance(by_name, Architecture)
    assert isinstance(by_name.plan(), Plan)


def test_a_missing_file_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        load("no-such-architecture")
    with pytest.raises(FileNotFoundError):
        load("no/such/file.yaml")


def test_faults_are_an_exception_with_data() -> None:
    with pytest.raises(ArchitectureError) as caught:
        load(described(stack="nothing"))
    (fault,) = caught.value.diagnostics
    assert fault.code == "AX132"
    assert "AX132" in str(caught.value)


def test_plan_build_run() -> None:
    model = load(described()).build()
    tokens = mx.array([[1, 2, 3]])
    assert model(tokens).shape == (1, 3, 64)
    cache = model.make_cache()
    assert model(tokens, cache).shape == (1, 3, 64)
    assert [type(entry).__name__ for entry in cache] == ["KVCache", "ArraysCache", "RotatingKVCache"]
    with pytest.raises(ValueError, match="2 slots, the model has 3"):
        model(tokens, cache[:2])


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_numbers_alone() -> None:
    architecture = load(described())
    mx.random.seed(7)
    expected = mx.random.uniform(shape=(3,)).tolist()
    mx.random.seed(7)
    one = architecture.build(seed=1)
    assert mx.random.uniform(shape=(3,)).tolist() == expected
    two, other = architecture.build(seed=1), architecture.build(seed=2)
    flat = [dict(tree_flatten(model.parameters())) for model in (one, two, other)]
    assert all(mx.array_equal(flat[0][name], flat[1][name]).item() for name in flat[0])
    assert not mx.array_equal(flat[0]["embedding.embed_tokens.weight"], flat[2]["embedding.embed_tokens.weight"]).item()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes(dtype: str) -> None:
    model = load(described()).build(dtype=dtype)
    kinds = {name: value.dtype for name, value in tree_flatten(model.parameters())}
    assert kinds["layers.1.ssm.A_log"] == mx.float32
    assert kinds["layers.1.ssm.in_proj.weight"] == getattr(mx, dtype)
    assert model(mx.array([[1, 2]])).dtype == getattr(mx, dtype)


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    huge = load(described(dims={"hidden_size": 2**20, "vocab_size": 2**20}))
    before = mx.get_active_memory()
    with pytest.raises(CheckpointError) as caught:
        huge.build()
    assert caught.value.code == "AX401"
    assert "layers.0.attn" in str(caught.value)
    assert mx.get_active_memory() == before


def test_a_plugin_that_builds_other_parameters_than_it_declares_is_named() -> None:
    wrong = ComponentSpec(
        name="liar",
        kind="layer",
        options=RMSNormOptions,
        module="axon_core.norms:RMSNorm.from_options",
        summary="A norm that says that it has no weight.",
    )
    registry = Registry.with_plugins({"acme": [wrong]})
    data = described(components={"x": {"type": "acme/liar"}}, blocks={"a": ["x"]}, stack="a")
    with pytest.raises(BuildError, match=r"undeclared layers\.0\.x\.weight"):
        random_weights(load(data, registry=registry).plan())


def test_weights_are_lazy() -> None:
    before = mx.get_active_memory()
    model = load("bit-axon").build(allow_large=True)
    assert len(model.layers) == 24
    assert mx.get_active_memory() - before < 2**20
