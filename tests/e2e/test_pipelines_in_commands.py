"""Built folders as pipelines of the unmodified mlx_lm: each process reads its files, and all say what one would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
import numpy as np
import pytest
from commands import environment
from mlx.utils import tree_flatten
from mlx_lm import load as load_folder

from axon_compose import load
from axon_compose.checkpoints.folder import write_model
from axon_compose.diagnostics import Refusal
from axon_compose.model._ring import Parts, ring_of
from tests.children import PATIENCE
from tests.helpers import described
from tests.ranks import launched

SIZE = 2
PROMPT = "state space, a window and experts: describe, trust, run. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers of unequal kinds with a file for each, readers among them, and a head that does not read the embedding."""
    components = {
        "attn": {"type": "attention", "num_heads": 2},
        "reader": {"type": "attention", "num_heads": 2, "kv_from": "attn"},
        "swa": {"type": "sliding_window_attention", "num_heads": 2, "window_size": 8},
        "ssm": {"type": "axon_ssm", "d_state": 4},
        "mlp": {"type": "mlp", "intermediate_size": 48},
    }
    blocks = {"s": ["ssm"], "w": ["swa", "mlp"], "a": ["attn", "mlp"], "r": ["reader", "mlp"]}
    sections = {"components": components, "blocks": blocks, "head": {"tied": False}}
    data = described(**sections, stack="s s w s a r r", dims={"hidden_size": 32, "vocab_size": 259})
    target = tmp_path_factory.mktemp("pipeline") / "model"
    write_model(load(data), target, max_shard_bytes=36_000, tokenizer="bytes-chat")
    return target


def spoken(model: Any) -> list[mx.array]:
    """Logits in one pass, in chunks and token by token."""
    tokens, cache = mx.array([list(PROMPT.encode())]), model.make_cache()
    found = [model(tokens), model(tokens[:, :20], cache), *(model(tokens[:, i : i + 1], cache) for i in range(20, 23))]
    mx.eval(found)
    return found


def test_each_process_downloads_its_files_and_what_all_need(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    whole, _ = load_folder(str(folder), tokenizer_config={}, trust_remote_code=True)
    expected = spoken(whole)
    parts, fetched = Parts([], ring_of(SIZE)), []
    for ring in parts.rings:
        home = tmp_path / str(ring.rank())
        home.mkdir()

        def download(repo: str, allow_patterns: Any, home: Path = home) -> Path:
            for pattern in allow_patterns:
                for path in folder.glob(pattern):
                    shutil.copy(path, home)
            return home

        monkeypatch.setattr(mlx_lm.utils, "_download", download)
        parts.models.append(mlx_lm.utils.sharded_load("a model", pipeline_group=ring, trust_remote_code=True)[0])
        fetched.append({path.name for path in home.glob("*.safetensors")})
    everybody = {file for name, file in index.items() if ".layers." not in name}
    assert fetched[0] & fetched[1] == everybody
    assert fetched[0] | fetched[1] == set(index.values())
    for found in parts.run(spoken):
        assert all(map(mx.array_equal, found, expected))


#: What each process of the next test does: it loads, speaks, and tells what it holds.
RANK = f"""
import json, sys
import mlx.core as mx, numpy as np
from mlx.utils import tree_flatten
from mlx_lm import generate
from mlx_lm.utils import sharded_load
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_pipelines_in_commands import PROMPT, spoken
folder, target = sys.argv[1:]
group = mx.distributed.init()
model, tokenizer = sharded_load(folder, pipeline_group=group, trust_remote_code=True)
held = sum(value.nbytes for _, value in tree_flatten(model.parameters()))
peak = mx.get_peak_memory()
logits = {{str(i): np.array(each) for i, each in enumerate(spoken(model))}}
text = generate(model, tokenizer, PROMPT, max_tokens=24)
said = {{"start": model.model.start_idx, "end": model.model.end_idx, "held": held, "peak": peak, "text": text}}
np.savez(f"{{target}}/{{group.rank()}}.npz", said=json.dumps(said), **logits)
"""


def test_processes_of_mlx_launch(folder: Path, tmp_path: Path) -> None:
    whole, tokenizer = load_folder(str(folder), trust_remote_code=True)
    expected, text = spoken(whole), mlx_lm.generate(whole, tokenizer, PROMPT, max_tokens=24)
    (tmp_path / "rank.py").write_text(RANK)
    with launched(SIZE, [str(tmp_path / "rank.py"), str(folder), str(tmp_path)], env=environment()) as process:
        out, _ = process.communicate(timeout=PATIENCE)
    ranks = []
    for rank in range(SIZE):
        assert (tmp_path / f"{rank}.npz").exists(), out
        found = np.load(tmp_path / f"{rank}.npz")
        assert all(np.array_equal(found[str(i)], np.array(each)) for i, each in enumerate(expected))
        ranks.append(json.loads(str(found["said"])))
    assert [rank["text"] for rank in ranks] == [text] * SIZE
    assert ranks[0]["start"] == ranks[1]["end"]
    total = sum(value.nbytes for _, value in tree_flatten(whole.parameters()))
    assert all(rank["peak"] <= 1.15 * rank["held"] < total for rank in ranks)


def test_shared_weights_between_other_layers_are_refused_and_loops_are_not(tmp_path: Path) -> None:
    for name, share, stack in (("between", "one", "s a s a s"), ("loop", "=i % 2", "a a a a")):
        blocks = {"a": {"branches": ["attn", "mlp"], "share": share}, "s": ["ssm"]}
        folder = tmp_path / name
        write_model(load(described(blocks=blocks, stack=stack, dims={"hidden_size": 32, "vocab_size": 259})), folder)
        rings = ring_of(SIZE)
        if name == "between":
            with pytest.raises(Refusal, match=r"layer 3 of .* uses the weights of an earlier one") as caught:
                mlx_lm.utils.sharded_load(str(folder), pipeline_group=rings[0], trust_remote_code=True)
            assert caught.value.code == "AX991"
            continue
        whole, _ = load_folder(str(folder), trust_remote_code=True)
        expected = spoken(whole)
        models = [
            mlx_lm.utils.sharded_load(str(folder), pipeline_group=ring, trust_remote_code=True)[0] for ring in rings
        ]
        for found in Parts(models, rings).run(spoken):
            assert all(map(mx.array_equal, found, expected))
