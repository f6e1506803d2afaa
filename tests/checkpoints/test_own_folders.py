"""A folder that `build`, `save` or an mlx_lm command wrote is a model: its weights come back, whoever changed them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load as load_both
from mlx_lm.utils import load_model as load_with_mlx_lm
from own_folders import (
    KINDS,
    add_adapters,
    answer,
    answer_of_mlx_lm,
    arrays,
    description,
    tokens,
    trained,
    write_adapters,
)

from axon_compose import ArchitectureError, load, load_model, save
from axon_compose.checkpoints.built import is_adapter, is_built, read_built
from axon_compose.checkpoints.export import export
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.files import verify as verify_record
from axon_compose.checkpoints.folder import write_model
from axon_compose.checkpoints.places import is_model_folder
from axon_compose.model import quantize, random_weights
from tests.families.models import FIXTURES, NAMES, SETTINGS, difference, expected


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.array_equal(one, other))


# ---- trained weights come back


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_comes_back(kind: str, tmp_path: Path) -> None:
    architecture = load(description(kind))
    fresh = architecture.build(seed=1)
    before = answer(fresh)
    model = trained(fresh)
    after = answer(model)
    assert np.abs(after - before).max() > 0.1
    save(model, tmp_path / "m")
    verify_record(tmp_path / "m")
    for again in (
        load_model(tmp_path / "m"),
        architecture.build(weights=tmp_path / "m"),
        load(tmp_path / "m").build(weights=tmp_path / "m"),
    ):
        assert arrays(again).keys() == arrays(model).keys()
        assert equal(answer(again), after)
    assert equal(answer_of_mlx_lm(tmp_path / "m"), after)
    assert load(tmp_path / "m").plan() == load(str(tmp_path / "m")).plan() == architecture.plan()


def test_a_saved_model_can_be_trained_and_saved_again(tmp_path: Path) -> None:
    save(trained(load(description()).build()), tmp_path / "m")
    model = trained(load_model(tmp_path / "m"))
    after = answer(model)
    with pytest.raises(CheckpointError, match="AX501"):
        save(model, tmp_path / "m")
    save(model, tmp_path / "m", force=True)  # into the folder that its weights were read from
    assert equal(answer(load_model(tmp_path / "m")), after)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    architecture = load(description())
    write_model(architecture, tmp_path / "built", seed=4)
    save(architecture.build(seed=4), tmp_path / "saved")
    save(load_model(tmp_path / "built"), tmp_path / "again")
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "axon_model.py"):
        assert len({(tmp_path / f / name).read_bytes() for f in ("built", "saved", "again")}) == 1, name


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_stay_as_they_are(bits: int, tmp_path: Path) -> None:
    model = trained(load(description()).build(dtype="bfloat16"))
    quantize(model, bits)
    after = answer(model.eval())
    record = save(model, tmp_path / "q")
    assert record["quantize_bits"] == bits
    again = load(description()).build(weights=tmp_path / "q")
    assert equal(answer(again), after)
    assert equal(answer_of_mlx_lm(tmp_path / "q"), after)
    wanted, found = arrays(model), arrays(again)
    assert wanted.keys() == found.keys()
    assert all(np.array_equal(wanted[name], found[name]) for name in wanted)


def test_a_dtype_is_a_cast_of_the_weights(tmp_path: Path) -> None:
    save(trained(load(description()).build()), tmp_path / "m")
    model = load_model(tmp_path / "m", dtype="bfloat16")
    assert model.layers[0].ssm.in_proj.weight.dtype == mx.bfloat16
    assert model.layers[0].ssm.A_log.dtype == mx.float32
    assert np.abs(answer(model) - answer(load_model(tmp_path / "m"))).max() < 0.2


def test_a_model_that_mlx_lm_loaded_can_be_saved(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    model, _ = load_both(str(tmp_path / "m"), trust_remote_code=True)
    after = answer(trained(model))
    with pytest.raises(ValueError, match="pass `tokenizer`"):
        save(model, tmp_path / "t")
    save(model, tmp_path / "t", tokenizer=tmp_path / "m")
    assert equal(answer(load_model(tmp_path / "t")), after)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()


# ---- checkpoints that were built


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_every_family_survives(name: str, tmp_path: Path) -> None:
    inputs, logits = expected(name)
    settings = SETTINGS.get(name, [])
    save(load_model(FIXTURES / name, settings=settings), tmp_path / "m", tokenizer="none")
    model, published = load_model(tmp_path / "m"), load(checkpoint=FIXTURES / name, settings=settings)
    assert difference(model(inputs), logits) < 2e-5
    assert model.plan == published.plan()
    if not settings:
        assert load(published.name, checkpoint=tmp_path / "m").plan() == model.plan  # the family takes its sizes
        assert load(checkpoint=tmp_path / "m").config.model_types == published.config.model_types


def test_a_folder_that_was_built_twice_can_still_be_exported(tmp_path: Path) -> None:
    inputs, logits = expected("qwen3_moe")
    architecture = load(checkpoint=FIXTURES / "qwen3_moe")
    write_model(architecture, tmp_path / "m", weights=FIXTURES / "qwen3_moe", tokenizer="none")
    again = load("qwen3_moe", checkpoint=tmp_path / "m")
    write_model(again, tmp_path / "again", weights=tmp_path / "m")
    export(tmp_path / "again", tmp_path / "back", "huggingface")
    assert difference(load_model(tmp_path / "back")(inputs), logits) < 2e-5
    config = json.loads((FIXTURES / "qwen3_moe" / "config.json").read_text())
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config


def test_stop_tokens_and_sampling_survive(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    generation = {"eos_token_id": [256, 258, 7], "temperature": 0.6}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(generation))
    config = json.loads((tmp_path / "m" / "config.json").read_text()) | {"eos_token_id": [256, 258]}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    save(load_model(tmp_path / "m"), tmp_path / "s")
    write_model(load(description()), tmp_path / "w", weights=tmp_path / "m")
    for folder in ("s", "w"):
        written = json.loads((tmp_path / folder / "generation_config.json").read_text())
        assert generation.items() <= written.items()
        assert json.loads((tmp_path / folder / "config.json").read_text())["eos_token_id"] == [256, 258]


# ---- what mlx_lm makes of a folder


def test_adapters_are_joined_with_their_model(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    model, _ = load_with_mlx_lm(tmp_path / "m", trust_remote_code=True)
    adapters = write_adapters(model, tmp_path / "a", tmp_path / "m")
    assert is_adapter(adapters)
    joined = load_model(adapters)
    assert load(adapters).plan() == load(description()).plan()
    np.testing.assert_allclose(answer(joined), answer(model), atol=2e-5 * float(np.abs(answer(model)).max()))
    assert np.abs(answer(joined) - answer(load_model(tmp_path / "m"))).max() > 0.1
    assert arrays(joined).keys() == arrays(load_model(tmp_path / "m")).keys()
    write_model(load(description()), tmp_path / "j", weights=adapters)
    assert equal(answer(load_model(tmp_path / "j")), answer(joined))
    assert (tmp_path / "j" / "tokenizer.json").read_bytes() == (tmp_path / "m" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("bits", [None, 4])
def test_adapters_of_a_quantised_model_are_joined_with_a_note(bits: int | None, tmp_path: Path) -> None:
    """What a step of 4 bits swallows is lost, which only `mlx_lm.fuse --dequantize` avoids."""
    architecture = load(description("its own head"))
    write_model(architecture, tmp_path / "m", quantize_bits=bits)
    model, _ = load_with_mlx_lm(tmp_path / "m", trust_remote_code=True)
    adapters = write_adapters(model, tmp_path / "a", tmp_path / "m")
    notes = write_model(architecture, tmp_path / "j", weights=adapters)["notes"]
    added = np.abs(answer(model) - answer(load_model(tmp_path / "m"))).max()
    lost = np.abs(answer(model) - answer(load_model(tmp_path / "j"))).max() / added
    assert bool(lost > 0.1) is bool(bits)
    assert [note[:46] for note in notes] == (["the adapters are rounded to the 4 bits of the "] if bits else [])


def test_adapters_without_their_model_or_of_another_one_are_refused(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    save(load(description(hidden_size=32)).build(), tmp_path / "other")
    model, _ = load_with_mlx_lm(tmp_path / "m", trust_remote_code=True)
    gone = write_adapters(model, tmp_path / "gone", tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"AX560.*adapters of `.*nothing`(?s:.*)mlx_lm.fuse"):
        load(gone)
    model, _ = load_with_mlx_lm(tmp_path / "m", trust_remote_code=True)
    wrong = write_adapters(model, tmp_path / "wrong", tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"AX512.*not those of this model(?s:.*)lora_a: adapter shape"):
        load_model(wrong)


def test_weights_of_a_full_fine_tuning_take_the_place_of_the_old(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    network = trained(load_with_mlx_lm(tmp_path / "m", trust_remote_code=True)[0])
    (tmp_path / "a").mkdir()
    config = {"model": str(tmp_path / "m"), "fine_tune_type": "full", "num_layers": 1}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    last = {name: value for name, value in tree_flatten(network.parameters()) if ".layers.2." in f".{name}"}
    assert len(last) > 8
    mx.save_safetensors(str(tmp_path / "a" / "adapters.safetensors"), last)
    reference = load_adapters(load_with_mlx_lm(tmp_path / "m", trust_remote_code=True)[0], str(tmp_path / "a"))
    assert equal(answer(load_model(tmp_path / "a")), answer(reference))


# ---- weights of another model


def test_another_size_or_stack_is_named_with_shapes(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    larger = description(vocab_size=272) | {"stack": "a b*2"}
    with pytest.raises(CheckpointError) as caught:
        load(larger).build(weights=tmp_path / "m")
    said = str(caught.value)
    assert caught.value.code == "AX512"
    assert "embedding.embed_tokens.weight is [264, 64], the model has [272, 64]" in said
    assert "missing" in said
    assert "layers.1.attn.q_proj.weight" in said
    assert "unexpected" in said
    assert "layers.1.ssm.A_log" in said
    assert f"axon-compose diff {tmp_path / 'm'} FILE" in said


def test_a_model_that_was_changed_in_python_is_not_saved_as_what_it_is_not(tmp_path: Path) -> None:
    model = load(description()).build()
    table = model.embedding.embed_tokens
    table.weight = mx.concatenate([table.weight, table.weight[:8]])
    with pytest.raises(CheckpointError, match=r"AX512(?s:.*)weight is \[272, 64\], the model has \[264, 64\]"):
        save(model, tmp_path / "m")
    model = load(description()).build()
    add_adapters(
        model, {"num_layers": 1, "fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 1.0, "dropout": 0.0}}
    )
    with pytest.raises(CheckpointError, match=r"AX512(?s:.*)q_proj.lora_a(?s:.*)fuse the adapters first"):
        save(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    with pytest.raises(ValueError, match="no description"):
        save(random_weights(load(description()).plan()), tmp_path / "m")


# ---- tokenizers


def test_a_model_with_a_small_vocabulary_is_saved_without_a_tokenizer(tmp_path: Path) -> None:
    small = load(description(vocab_size=40))
    model = small.build()
    save(model, tmp_path / "m")
    assert not (tmp_path / "m" / "tokenizer.json").exists()
    save(load_model(tmp_path / "m"), tmp_path / "again")
    write_model(small, tmp_path / "built", weights=tmp_path / "again")
    assert arrays(load_model(tmp_path / "built")).keys() == arrays(model).keys()
    with pytest.raises(CheckpointError, match=r"AX541(?s:.*)dims.vocab_size.*`--tokenizer none`"):
        write_model(small, tmp_path / "bytes")
    with pytest.raises(CheckpointError) as caught:
        write_model(small, tmp_path / "bytes", weights=tmp_path / "m", tokenizer="bytes")
    assert caught.value.code == "AX541"
    assert "vocab_size" not in str(caught.value)
    assert "`--tokenizer none`" in str(caught.value)
    write_model(small, tmp_path / "none", weights=tmp_path / "m", tokenizer="none")


# ---- what a path is


def test_names_are_names_and_folders_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(load(description()).build(), "hybrid-demo")
    assert not is_model_folder("hybrid-demo")
    assert is_model_folder("./hybrid-demo")
    assert is_model_folder(Path("hybrid-demo"))
    assert is_model_folder(str(tmp_path / "hybrid-demo"))
    assert not is_model_folder("nothing")
    assert not is_model_folder(description())
    assert load("hybrid-demo").name == "hybrid-demo"
    assert load("./hybrid-demo").name == "own"
    assert load(checkpoint="hybrid-demo").name == "own"
    published = load(FIXTURES / "qwen3_moe")
    assert published.plan() == load(checkpoint=FIXTURES / "qwen3_moe").plan()


def test_a_description_may_be_a_folder_and_the_weights_another(tmp_path: Path) -> None:
    architecture = load(description())
    save(architecture.build(seed=1), tmp_path / "one")
    save(architecture.build(seed=2), tmp_path / "two")
    model = load(tmp_path / "one", checkpoint=tmp_path / "two").build(weights=tmp_path / "two")
    assert equal(answer(model), answer(architecture.build(seed=2)))


@pytest.mark.parametrize("described", [3, {"architecture": "llama"}, {"architecture": {}, "source": []}, {}])
def test_a_folder_that_is_none_of_ours_is_named(described: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "axon_compose", "axon_compose": described}))
    assert is_built(tmp_path)
    with pytest.raises(CheckpointError, match="AX560"):
        load(tmp_path)


def test_what_no_file_is_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert not is_built(tmp_path)
    with pytest.raises(CheckpointError, match="AX560"):
        read_built(tmp_path)


def test_faults_of_a_description_name_the_folder(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["axon_compose"]["architecture"]["components"]["ssm"]["type"] = "acme/hyena"
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError) as caught:
        load(tmp_path / "m")
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.span.file) == ("AX201", f"<description in {tmp_path / 'm' / 'config.json'}>")


def test_a_copy_of_a_folder_is_as_good(tmp_path: Path) -> None:
    save(load(description()).build(), tmp_path / "m")
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    shutil.rmtree(tmp_path / "m")
    model = load_model(tmp_path / "copy")
    assert model(tokens()).shape == (2, 24, 264)
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(CheckpointError, match="AX542"):
        save(model, tmp_path / "m")  # its tokenizer is gone, and none takes its place unasked
    save(model, tmp_path / "m", tokenizer="bytes")
