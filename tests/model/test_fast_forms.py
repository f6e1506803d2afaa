"""Forms made for one device against those that run on every device: the same numbers, however a prompt is cut."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_unflatten

from axon_compose import load
from axon_compose.model import LanguageModel
from axon_compose.model._build import build
from axon_compose.proof.check import check_plan
from axon_compose.proof.check._batches import with_left_padding
from axon_compose.proof.check._shrink import small_architecture
from axon_core.cpu import reference_implementations
from axon_core.kernels import _native
from tests.helpers import described
from tests.shipped import VARIED

pytestmark = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="on a GPU the kernels have tests of their own")

#: Every component that has a form for the CPU, in sizes at which it takes it.
COMPONENTS: dict[str, dict[str, Any]] = {
    "ssm": {"type": "axon_ssm", "d_state": 16},
    "mamba": {"type": "mamba", "d_state": 4, "norm": "learned"},
    "mamba2": {"type": "mamba2", "num_heads": 4, "head_dim": 32, "d_state": 16},
    "swa": {"type": "sliding_window_attention", "num_heads": 4, "num_kv_heads": 2, "window_size": 9, "rope": {}},
    "attention": {"type": "attention", "num_heads": 4, "sinks": True, "softcap": 20.0, "qk_norm": {"type": "rms_norm"}},
    "delta": {"type": "gated_delta_net", "num_k_heads": 2, "num_v_heads": 4, "head_k_dim": 16, "head_v_dim": 16},
    "kda": {"type": "kimi_delta_attention", "num_heads": 2, "head_dim": 32},
    "rglru": {"type": "rg_lru", "num_heads": 2},
    "moe": {"type": "shared_expert_moe", "num_experts": 4, "top_k": 2, "intermediate_size": 96},
}
LONGEST = 150
ROUNDING = {"float32": 5e-6, "bfloat16": 0.06}


@cache
def model(name: str, dtype: str) -> LanguageModel:
    block = [name] if name != "moe" else ["swa", "moe"]
    components = {part: COMPONENTS[part] for part in block}
    data = described(
        dims={"hidden_size": 64, "vocab_size": 96}, components=components, blocks={"b": block}, stack="b*2"
    )
    return load(data).build(dtype=dtype)


def logits(net: LanguageModel, tokens: mx.array, cuts: list[int], padding: list[int]) -> np.ndarray:
    """Of all tokens, fed in pieces to caches."""
    caches = net.make_cache()
    if any(padding):
        caches = [with_left_padding(leaf, padding) for leaf in caches]
    edges = [0, *cuts, tokens.shape[1]]
    found = mx.concatenate([net(tokens[:, a:b], caches) for a, b in pairwise(edges)], axis=1)
    return np.array(found.astype(mx.float32))


@st.composite
def runs(draw: st.DrawFn) -> tuple[str, str, int, list[int], list[int], bool]:
    name = draw(st.sampled_from(sorted(COMPONENTS)))
    # In bfloat16 a rounding may send a token to another expert, and then nothing is close.
    dtype = "float32" if name == "moe" else draw(st.sampled_from(sorted(ROUNDING)))
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, LONGEST))
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=3))) if length > 1 else []
    # Padding that ends within the first piece, as mlx-lm has it.
    most = (cuts or [length])[0] - 1
    padding = [draw(st.integers(0, most)) for _ in range(batch)]
    padding[0] = 0
    return name, dtype, length, cuts, padding, draw(st.booleans())


@pytest.fixture(scope="module", params=["MLX", "axon-native"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without axon-native and with it, whatever is installed."""
    found = request.getfixturevalue("module") if request.param == "axon-native" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "installed", lambda: found)
        yield


@pytest.mark.usefixtures("kernels")
@settings(max_examples=120, deadline=None)
@given(runs())
def test_fast_paths_and_reference_implementations_agree(run: tuple[str, str, int, list[int], list[int], bool]) -> None:
    name, dtype, length, cuts, padding, training = run
    net = model(name, dtype)
    net.train(training)
    tokens = mx.random.randint(0, 96, (len(padding), length), key=mx.random.key(length))
    fast = logits(net, tokens, cuts, padding)
    with reference_implementations():
        plain = logits(net, tokens, cuts, padding)
    for row, before in enumerate(padding):
        scale = np.abs(plain[row, before:]).max()
        np.testing.assert_allclose(fast[row, before:], plain[row, before:], rtol=0, atol=ROUNDING[dtype] * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hybrid-demo", "qwen3_next", "rwkv7", "gpt_oss", "falcon_h1", "deepseek_v3"])
def test_every_truth_holds_in_the_reference_implementations(name: str) -> None:
    """In the fast ones they hold in the tests of families and architectures."""
    with reference_implementations():
        report = check_plan(small_architecture(load(name).plan()).plan())
    assert [truth.name for truth in report.truths if not truth.passed] == []


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", VARIED)
def test_shipped_architectures_token_by_token(name: str) -> None:
    """A prompt and single tokens after it, beyond small windows; of one sequence, and of more than layers take."""
    plan = small_architecture(load(name).plan()).plan()
    net = build(plan)
    moved = [
        (key, value + 0.05 * mx.random.normal(value.shape, key=mx.random.key(i)))
        for i, (key, value) in enumerate(tree_flatten(net.parameters()))
        if mx.issubdtype(value.dtype, mx.floating)
    ]
    net.update(tree_unflatten(moved))
    for batch in (1, 3, 5):
        tokens = mx.random.randint(0, plan.dims.vocab_size, (batch, 20), key=mx.random.key(7))
        cuts = [4, *range(5, 20)]
        fast = logits(net, tokens, cuts, [0])
        with reference_implementations():
            plain = logits(net, tokens, cuts, [0])
        np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-4 * np.abs(plain).max())
