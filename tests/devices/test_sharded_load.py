"""Built folders in mlx-lm's `sharded_load`, in processes of their own: the text is that of one process."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load, load_model

import axon_compose
from axon_compose.cli import main
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.source import to_yaml
from axon_compose.registry import Shard
from tests.devices import sharded_script
from tests.ranks import ended, ring

SCRIPT = Path(__file__).with_name("sharded_script.py")
PROMPT = json.dumps([5, 17, 200, 3, 99, 41, 8])
#: Attention with fewer key/value heads than queries, a recurrence, experts and an MLP; groups of 64 divide all parts.
#: The vocabulary is odd: the part of the last process is padded.
HYBRID = {
    "version": 1,
    "name": "hybrid",
    "dims": {"hidden_size": 128, "vocab_size": 511},
    "components": {
        "attn": {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "head_dim": 64},
        "mamba": {"type": "mamba2", "num_heads": 8, "head_dim": 32, "d_state": 16},
        "mlp": {"type": "mlp", "intermediate_size": 256},
        "moe": {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 128},
    },
    "blocks": {"a": ["attn", "moe"], "m": ["mamba", "mlp"]},
    "stack": "m a m",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The model in float32, and quantised."""
    place = tmp_path_factory.mktemp("built")
    file = place / "hybrid.yaml"
    file.write_text(to_yaml(HYBRID))
    found = []
    for number, more in enumerate(([], ["--quantize", "4"])):
        found.append(str(place / str(number)))
        assert main(["build", str(file), "--out", found[-1], *more]) == 0
    return found


def said(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_text_and_memory(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(SCRIPT), PROMPT, *folders]
    with ring(tmp_path, [arguments, arguments]) as two:
        capsys.readouterr()
        sharded_script.main(PROMPT, *folders)
        parts = ended(two)
    assert [code for code, *_ in parts] == [0, 0], parts
    whole = said(capsys.readouterr().out)
    assert len(whole) == len(folders)
    for index, one in enumerate(whole):
        for rank, (_, out, _) in enumerate(parts):
            part = said(out)[index]
            assert part["rank"] == rank
            assert part["tokens"] == one["tokens"]
            assert part["dtypes"] == one["dtypes"]
            assert part["share"] < 0.53 * one["share"]
            assert part["peak"] < 1.15 * part["share"]


def test_without_its_folder_the_largest_tensors_are_cut_first(folders: list[str]) -> None:
    """Whole ones are read then, and one whole tensor beside all parts would be too much."""
    model, _ = load_model(Path(folders[0]), lazy=True, trust_remote_code=True)
    model._unchanged = None
    gc.collect()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model.keep_part(Shard(0, 2, lambda array: array, lambda array: array))
    share = sum(value.nbytes for _, value in tree_flatten(model.parameters()))
    assert mx.get_active_memory() - before < 1.01 * share
    assert mx.get_peak_memory() - before < 1.15 * share
    with pytest.raises(CheckpointError, match=r"AX512.*the part of one of 2 devices"):
        axon_compose.save(model, folders[0] + "-part", tokenizer="bytes")


def test_what_was_changed_after_loading_is_not_read_again(folders: list[str]) -> None:
    model, _ = load_model(Path(folders[0]), lazy=True, trust_remote_code=True)
    reader, read = model._unchanged.reader, list[str]()

    class Noting:
        def part(self, name: str, *arguments: Any) -> Any:
            read.append(name)
            return reader.part(name, *arguments)

    model._unchanged.reader = Noting()
    mlp = model.model.layers[0].mlp
    mlp.up_proj.weight = 2 * mlp.up_proj.weight
    wanted = mlp.up_proj.weight[128:]
    model.keep_part(Shard(1, 2, lambda array: array, lambda array: array))
    assert mx.array_equal(model.model.layers[0].mlp.up_proj.weight, wanted).item()
    assert "model.layers.0.mlp.gate_proj.weight" in read
    assert "model.layers.0.mlp.up_proj.weight" not in read


def test_weights_that_are_loaded_later_are_cut_and_not_those_of_the_folder(folders: list[str], tmp_path: Path) -> None:
    """As `mlx_lm.utils.load` does with what `mlx_lm.lora --fine-tune-type full` has trained."""
    model, _ = load_model(Path(folders[0]), lazy=True, trust_remote_code=True)
    other = model.model.layers[0].mlp.up_proj.weight + 1
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), {"model.layers.0.mlp.up_proj.weight": other})
    settings = {"fine_tune_type": "full", "num_layers": 1, "lora_parameters": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    del model
    model, _ = load(folders[0], adapter_path=str(tmp_path), lazy=True, trust_remote_code=True)
    model.keep_part(Shard(1, 2, lambda array: array, lambda array: array))
    assert mx.array_equal(model.model.layers[0].mlp.up_proj.weight, other[128:]).item()
