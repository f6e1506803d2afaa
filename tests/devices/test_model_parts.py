"""Models of which several devices have a part each give what the whole model gives, on every device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

import axon_compose
from axon_compose.analysis.devices import spread
from axon_compose.devices import split_plan
from axon_compose.diagnostics import Refusal
from axon_compose.model import LanguageModel, in_threads, random_weights, with_folder_names
from axon_compose.model._folder_model import modules_of
from axon_compose.model._shard import quantised_groups
from axon_compose.proof.check._batches import with_left_padding
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import Shard
from tests.devices.parts import VOCABULARY, far, part, small, together
from tests.helpers import described

#: With every component that is split, values that layers share, and arrays beside modules.
NAMES = (
    "bailing_moe_v3", "baichuan_m1", "bit-axon-small", "deepseek_v2", "deepseek_v4", "falcon_h1", "falcon_mamba",
    "gemma3n_text", "gemma4_text", "lfm3", "longcat_flash_ngram", "minimax", "olmo_hybrid", "plamo2", "recurrent_gemma",
    "rwkv7", "shared-kv", "talkie", "zamba2",
)  # fmt: skip
#: On four devices too.
ON_FOUR = ("bit-axon-small", "deepseek_v2", "gemma4_text", "lfm3", "shared-kv")
#: Of the largest logit; and how much more than one rounding of every weight sums in another order may move the logits.
ROUNDING, ROUNDINGS = 2e-6, 4
TOKENS = 13
#: Ends of passes with caches: chunks, and then single tokens.
ENDS = (5, 11, 12, TOKENS)
#: Tokens before the rows of a batch.
PADDING = [0, 3]


def tokens() -> mx.array:
    return mx.random.randint(0, VOCABULARY, (2, TOKENS), key=mx.random.key(3))


def passes(model: LanguageModel) -> list[mx.array]:
    """Logits of a plain pass, and of chunks and single tokens of rows that are padded on the left."""
    given, start, steps = tokens(), 0, list[mx.array]()
    cache = [with_left_padding(each, PADDING) for each in model.make_cache()]
    for end in ENDS:
        steps.append(model(given[:, start:end], cache))
        mx.eval(steps[-1])
        start = end
    padded = mx.arange(TOKENS)[None] < mx.array(PADDING)[:, None]
    return [model(given), mx.where(padded[..., None], 0, mx.concatenate(steps, axis=1))]


def assert_alike(model: LanguageModel, size: int, wanted: list[mx.array], limit: float = ROUNDING) -> None:
    for found in together(model, size, passes):
        assert max(map(far, found, wanted)) <= limit


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_whole_model(name: str) -> None:
    subject = small(name)
    wanted = passes(subject.model)
    limit = max(ROUNDING, ROUNDINGS * far(subject.roundly(tokens()), wanted[0]))
    assert limit < 5e-5
    for size in (2, 4) if name in ON_FOUR else (2,):
        assert_alike(subject.model, size, wanted, limit)


def test_outputs_side_by_side() -> None:
    """Kept ones and those behind a norm are whole by themselves, the others in one sum."""
    components = {name: {"type": "mlp", "intermediate_size": 48} for name in ("one", "two", "three", "four")}
    row = ["one", {"use": "two", "norm": "post"}, {"use": "three", "as": "kept"}, "four"]
    data = described(components=components, blocks={"b": [{"parallel": row}, {"add": "kept"}]}, stack="b*2")
    model = Subject(axon_compose.load(data | {"dims": {"hidden_size": 32, "vocab_size": VOCABULARY}}).plan()).model
    outputs = [use.shard_output for use in split_plan(model.plan, 2).plan.layers[0].uses() if use.spec.kind == "layer"]
    assert outputs == ["later", "sum", "sum", "sum"]
    assert_alike(model, 2, passes(model))


@pytest.mark.parametrize("tied", [True, False])
def test_rows_beyond_the_tokens_are_left_out_of_the_scores(tied: bool) -> None:
    """Of three devices the last one has more padding than tokens."""
    rows = VOCABULARY * 5 // 4
    data = described(components={"mlp": {"type": "mlp", "intermediate_size": 48}}, blocks={"b": ["mlp"]}, stack="b")
    data |= {"dims": {"hidden_size": 32, "vocab_size": VOCABULARY}, "embedding": {"padded_vocab_size": rows}}
    data |= {"head": {"bias": True} if tied else {"tied": False, "padded_vocab_size": rows + 7}}
    model = Subject(axon_compose.load(data).plan()).model
    for size in (2, 3):
        assert {"embedding", "head"} <= split_plan(model.plan, size).splits.keys()
        assert_alike(model, size, passes(model))


def test_parts_of_the_weights_are_a_share_of_them() -> None:
    model = small("falcon_h1").model
    whole = sum(value.nbytes for _, value in tree_flatten(model.parameters()))
    tensor = split_plan(model.plan, 2)
    parts = in_threads(2, lambda device: dict(tree_flatten(part(model, device).parameters())))
    sizes = [sum(value.nbytes for value in found.values()) for found in parts]
    kept = sum(4 * use.size for use in model.plan.uses() if use.path in tensor.whole)
    assert sizes[0] == sizes[1] == sum(4 * use.size for use in tensor.plan.uses())
    assert kept < sizes[0] < (whole + kept) / 2 + whole / 20


@pytest.mark.parametrize(
    ("name", "mode", "group_size", "bits"),
    [
        ("falcon_mamba", "affine", 64, 4),
        ("bit-axon-small", "affine", 32, 3),
        ("deepseek_v2", "mxfp4", 32, 4),
        ("bit-axon-small", "nvfp4", 16, 4),
        ("falcon_mamba", "mxfp8", 32, 8),
    ],
)
def test_quantised_weights_are_cut_at_their_groups(name: str, mode: str, group_size: int, bits: int) -> None:
    model = small(name).fresh("float32")
    may = model.quant_predicate

    def fits(path: str, module: Any) -> bool:
        return may(path, module) and module.weight.shape[-1] % group_size == 0

    nn.quantize(model, group_size, bits, mode=mode, class_predicate=fits)
    groups = quantised_groups(modules_of(model))
    cut = [path for path in split_plan(model.plan, 2, groups=groups).splits if any(g.startswith(path) for g in groups)]
    assert cut
    assert_alike(model, 2, passes(model))


def test_every_parameter_keeps_its_type() -> None:
    model = small("falcon_mamba").fresh("bfloat16")
    wanted = types(with_folder_names(model))
    assert set(wanted.values()) == {mx.bfloat16, mx.float32}
    assert in_threads(2, lambda device: types(part(model, device))) == [wanted, wanted]


def types(model: nn.Module) -> dict[str, mx.Dtype]:
    return {name: value.dtype for name, value in tree_flatten(model.parameters())}


def test_adapters_are_put_into_parts_and_are_not_cut() -> None:
    model = small("llama").fresh("float32")
    adapted = {"rank": 4, "scale": 2.0, "dropout": 0.0}

    def run(part: LanguageModel) -> list[mx.array]:
        linear_to_lora_layers(part, 1, adapted)
        return [part(tokens())]

    for (found,) in together(model, 2, run):
        assert far(found, model(tokens())) <= ROUNDING  # which begin as nothing
    whole = with_folder_names(model)
    linear_to_lora_layers(whole, 1, adapted)
    with pytest.raises(Refusal, match=r"AX981.*`q_proj.linear.weight`"):
        in_threads(2, whole.keep_part)


def test_a_part_is_taken_once() -> None:
    def twice(device: Shard) -> None:
        part(small("llama").model, device).keep_part(device)

    with pytest.raises(ValueError, match="a part already"):
        in_threads(2, twice)


@pytest.mark.parametrize("name", ["llama", "gemma3n_text", "zamba2", "deepseek_v4", "phixtral"])
def test_what_is_exchanged_is_what_the_cost_sheet_says(name: str) -> None:
    """Of a ring each device sends 2 (n - 1) / n of what is summed, and n - 1 times its part of what is gathered."""
    plan, size = small(name).plan, 4
    (sheet,) = (row for row in spread(plan, size).strategies if row.layout.tensor == size)
    given: Counter[str] = Counter()

    def summed(array: mx.array) -> mx.array:
        given["sum"] += array.nbytes
        return array

    def gathered(array: mx.array) -> mx.array:
        given["gather"] += array.nbytes
        return mx.concatenate([array] * size, axis=-1)

    model = with_folder_names(random_weights(plan, dtype="bfloat16"))
    model.eval()
    model.keep_part(Shard(0, size, summed, gathered))
    cache = model.make_cache()
    model(tokens()[:1], cache)
    given.clear()
    model(tokens()[:1, :1], cache)
    assert 2 * (size - 1) / size * given["sum"] + (size - 1) * given["gather"] == sheet.sent_per_token
