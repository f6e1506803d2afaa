"""Layers divided over processes: the logits of one process, bit for bit, however the model is called."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import mlx.core as mx
import models
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

from axon_compose import load
from axon_compose.diagnostics import Refusal
from axon_compose.model import LanguageModel, divided
from axon_compose.model._build import make_module
from axon_compose.model._folder_model import FolderModel
from axon_compose.model._post import Post
from axon_compose.model.names import CONFIG_KEY, FolderNames
from axon_compose.proof.check._batches import merged
from axon_compose.proof.check._subject import Subject
from tests.families.models import architecture

#: Values that cross layers, streams, shared weights, every kind of cache.
FAMILIES = [
    "bailing_moe_linear",
    "deepseek_v4",
    "falcon_h1",
    "gemma3n_text",
    "gemma4_text",
    "glm_moe_dsa",
    "gpt_oss",
    "hunyuan",
    "kimi_k3",
    "llama4_text",
    "longcat_flash_ngram",
    "mamba",
    "nanbeige",
    "opt",
    "qwen3_next",
    "recurrent_gemma",
    "rwkv7",
    "zamba2",
]
LENGTH = 29


def called(model: Any, vocabulary: int) -> list[mx.array]:
    """In one pass, in chunks and token by token, with caches and without."""
    tokens = mx.random.randint(0, vocabulary, (2, LENGTH), key=mx.random.key(3))
    cache, found = model.make_cache(), [model(tokens)]
    bounds = [0, 11, 18, *range(19, 23)]
    found += [model(tokens[:, first:last], cache) for first, last in itertools.pairwise(bounds)]
    mx.eval(found)
    return found


def ragged(model: Any, vocabulary: int) -> list[mx.array]:
    """Rows of unequal length that meet, go on in a padded chunk, and leave; padding is left out of the result."""
    rows = [mx.random.randint(0, vocabulary, (1, LENGTH), key=mx.random.key(row)) for row in range(3)]
    starts, caches, found = (5, 14, 9), [model.make_cache() for _ in rows], []
    for row, start, cache in zip(rows, starts, caches, strict=True):
        found.append(model(row[:, :start], cache))
    batch, both = merged(caches), mx.concatenate(rows)
    found.append(model(both[:, 14:15], batch))
    for leaf in batch:
        leaf.prepare(lengths=[4, 2, 3], right_padding=[0, 2, 1])
    chunk = model(both[:, 15:19], batch)
    found += [chunk[row, :length] for row, length in enumerate((4, 2, 3))]
    for leaf in batch:
        leaf.finalize()
    found.append(model(both[:, 19:20], batch))
    for leaf in batch:
        leaf.filter([0, 2])
    found.append(model(both[1:, 20:21], batch))
    alone = [leaf.extract(1) for leaf in batch]
    found.append(model(both[:1, 21:24], alone))
    mx.eval(found)
    return found


def same(one: mx.array, other: mx.array) -> bool:
    """Bit for bit, also zeros below zero."""
    return one.dtype == other.dtype and bool(mx.array_equal(one.view(mx.uint8), other.view(mx.uint8)).item())


def compare(model: LanguageModel, size: int, split: list[int] | None = None) -> None:
    vocabulary = int(model.plan.dims.vocab_size)
    parts = divided(model, size, split)
    for work in (called, ragged):
        expected = work(model, vocabulary)
        for rank, found in enumerate(parts.run(lambda part, work=work: work(part, vocabulary))):
            assert all(map(same, found, expected)), (work.__name__, rank)
    assert not any(queue.qsize() for queue in parts.rings[0].queues.values())


@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, 4) for name in FAMILIES), *((name, 2) for name in ("gemma3n_text", "nanbeige", "rwkv7"))],
)
def test_families(name: str, size: int) -> None:
    plan = architecture(name).plan()
    compare(Subject(plan).model, min(size, sum(layer.owner is None for layer in plan.layers)))


#: Stacks of the components in `models`, and layers of each process, the last ones first.
STACKS: dict[str, tuple[str, list[int], dict[str, Any]]] = {
    "keys far from their readers": (
        "a m n r",
        [1, 1, 1, 1],
        {"a": ["attn"], "m": ["mlp"], "n": ["near"], "r": ["reader"]},
    ),
    "nothing that counts tokens": ("s s s w", [1, 3], {"s": ["ssm"], "w": ["swa"]}),
    "nothing that is kept": ("m m s m a m", [1, 1, 2, 2], {"m": ["mlp"], "s": ["ssm"], "a": ["attn"]}),
    "shared weights far apart": (
        "s m s m w s",
        [1, 1, 3],  # up to the last layer with weights of its own
        {"s": {"branches": ["attn", "mlp"], "share": "one"}, "m": ["ssm"], "w": ["swa"]},
    ),
}


@pytest.mark.parametrize("what", STACKS)
def test_given_numbers_of_layers(what: str) -> None:
    stack, split, blocks = STACKS[what]
    compare(models.model(stack, **blocks), len(split), split)


def test_positions_that_only_the_embedding_asks_for() -> None:
    described = models.description("s a", s=["ssm"], a=["attn"]) | {"embedding": {"positions": 64}}
    compare(Subject(load(described).plan()).model, 2)


def test_streams_and_their_head() -> None:
    described = models.description("a m a m", a=["attn"], m=["mlp"]) | {"residual": "hyper_connections"}
    compare(Subject(load(described).plan()).model, 4)


def test_numbers_of_other_types() -> None:
    model = Subject(models.flagship().plan, 1).fresh("bfloat16")
    compare(model, 3)


def test_keys_and_values_that_are_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `mlx_lm.server --kv-bits 4 --pipeline` does, on processes that only count tokens too."""
    monkeypatch.setitem(models.COMPONENTS["attn"], "head_dim", 32)
    model, prompt = models.model("s s a", s=["ssm"], a=["attn"]), fixed(1, 9)[0]
    quantised: dict[str, Any] = {"kv_bits": 4, "kv_group_size": 32, "quantized_kv_start": 4, "prefill_step_size": 5}

    def written(part: Any) -> list[mx.array]:
        found, cache, stream = [], part.make_cache(), mx.default_stream(mx.default_device())
        for tokens in (prompt, prompt[:2]):
            steps = generate_step(tokens, part, stream, prompt_cache=cache, max_tokens=3, **quantised)
            found += [logprobs for _, logprobs in steps]
            cache = copy.deepcopy(cache)  # as the server's cache of prompts does
        mx.eval(found)
        return found

    expected = written(model)
    for found in divided(model, 2, [1, 2]).run(written):
        assert all(map(mx.array_equal, found, expected))


def test_a_process_holds_its_layers_and_what_every_process_needs() -> None:
    described = models.description("a*4", a=["attn", "mlp"])
    for tied in (True, False):
        model = Subject(load(described | {"head": {"tied": tied}}).plan()).model
        last, first = divided(model, 2, [2, 2]).models
        names = [{name for name, _ in tree_flatten(part.parameters())} for part in (last, first)]
        layers = [{name.split(".")[2] for name in found if ".layers." in name} for found in names]
        assert layers == [{"2", "3"}, {"0", "1"}]
        assert [any("embed_tokens" in name for name in found) for found in names] == [False, True]
        assert ["lm_head.weight" in found for found in names] == [not tied, False]
        assert all("model.norm.weight" in found for found in names)
        assert (last.model.start_idx, last.model.end_idx) == (2, 4)
        assert (first.model.start_idx, first.model.end_idx) == (0, 2)
        assert [len(part.model.pipeline_layers) for part in (last, first)] == [2, 2]
        assert [len(part.layers) for part in (last, first)] == [2, 2]


def fixed(batch: int, length: int) -> mx.array:
    """Tokens that any thread can use."""
    tokens = models.tokens(batch, length)
    mx.eval(tokens)
    return tokens


def test_shapes_go_ahead_once() -> None:
    parts, tokens = divided(models.model("a*4", a=["attn", "mlp"]), 2), fixed(2, 5)
    for number in range(3):
        for ring in parts.rings:
            ring.sent.clear()
        parts.run(lambda part: [part(tokens)])
        last, first = (ring.sent for ring in parts.rings)
        assert (len(last), len(first)) == ((4, 6) if number == 0 else (2, 2))  # the first stage tells the logits' type
        assert first[-2 if number else 2] == last[-2] == 2 * 5 * 32 * 4  # the state, and what the head reads
        assert first[-1] == last[-1] == 2 * 5 * 97 * 4  # the logits, of two processes


def test_logits_of_a_part_of_a_prompt_wait_until_somebody_looks_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, started = divided(models.model("a*4", a=["attn", "mlp"]), 2), list[bool]()
    total = Post.total
    monkeypatch.setattr(Post, "total", lambda post, array, *, lazy: (started.append(lazy), total(post, array))[1])
    for length, cached, lazy in ((5, True, True), (1, True, False), (5, False, False)):
        started.clear()
        tokens = fixed(2, length)
        parts.run(lambda part, cached=cached, tokens=tokens: [part(tokens, part.make_cache() if cached else None)])
        assert started == [lazy] * 2


def test_logits_arrive_to_the_bit() -> None:
    parts = divided(models.model("a a", a=["attn"]), 2)
    bits = mx.array([[[-0.0, 0.0, float("nan"), float("-inf"), 1e-45]]])
    mx.eval(bits)

    def scores(part: Any) -> list[mx.array]:
        pipeline = part._pipeline
        return [pipeline._told("scores", bits if pipeline.scores else None, bits.shape, 1, lazy=False)]

    for (found,) in parts.run(scores):
        assert same(found, bits)


def test_shared_matrices_go_once() -> None:
    model = Subject(architecture("zamba2").plan()).model
    parts, tokens, sizes = divided(model, 2), fixed(1, 3), []
    for _ in range(2):
        parts.rings[1].sent.clear()
        parts.run(lambda part: [part(tokens)])
        sizes.append(sum(parts.rings[1].sent[:-1]))  # without the logits
    hidden = 3 * int(model.plan.dims.hidden_size) * 4
    assert sizes[1] < 4 * hidden  # the state and the embedding, with their announcement
    assert sizes[0] > 10 * sizes[1]


def test_caches_of_all_processes_can_be_trimmed_or_none() -> None:
    parts = divided(models.model("a s", a=["attn"], s=["ssm"]), 2)
    assert not any(can_trim_prompt_cache(part.make_cache()) for part in parts.models)
    parts, tokens = divided(models.model("a m w", a=["attn"], m=["mlp"], w=["swa"]), 3), fixed(1, 12)

    def trimmed(part: Any) -> list[mx.array]:
        cache = part.make_cache()
        part(tokens[:, :6], cache)
        can = [can_trim_prompt_cache(cache)]
        trim_prompt_cache(cache, 3)
        logits = part(tokens[:, 3:4], cache)
        part(tokens[:, :8], cache)
        return [logits, mx.array([*can, can_trim_prompt_cache(cache)])]

    whole = models.model("a m w", a=["attn"], m=["mlp"], w=["swa"])
    for logits, can in parts.run(trimmed):
        assert mx.array_equal(logits, trimmed(whole)[0])
        assert can.tolist() == [True, False]  # the window is full


def test_a_state_of_another_type_than_announced_is_refused() -> None:
    parts = divided(models.model("a a", a=["attn"]), 2)
    post = parts.models[1]._pipeline.post
    post.carry(mx.zeros((2, 2)), [1, 0], "key")
    with pytest.raises(ValueError, match=r"what goes to device 0 was .*float32.* and is .*float16"):
        post.carry(mx.zeros((2, 2), mx.float16), [1, 0], "key")
    with pytest.raises(TypeError, match="a str cannot go"):
        post.carry("text", [1, 0], None)


def test_what_cannot_be_divided() -> None:
    model = models.model("a a", a=["attn"])
    for size, split in ((3, None), (2, [2, 1])):
        with pytest.raises(Refusal) as caught:
            divided(model, size, split)
        assert caught.value.code == "AX990"
    parts = divided(model, 2)
    with pytest.raises(ValueError, match="divided already"):
        parts.models[0].model.pipeline(parts.rings[0])


def test_folders_of_the_first_version_have_no_pipeline() -> None:
    plan = models.model("a a", a=["attn"]).plan
    first = FolderNames(plan, {CONFIG_KEY: {}})
    assert not hasattr(FolderModel(plan, make_module, first), "model")
    assert hasattr(FolderModel(plan, make_module, FolderNames(plan)).model, "pipeline")
