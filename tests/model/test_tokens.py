"""What the model's call takes, and a tokenizer that the model has no rows for."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlx.core as mx
import models
import numpy as np
import pytest

from axon_compose.checkpoints.files import write_tokenizer
from axon_compose.cli import main

FIXTURES = Path(__file__).resolve().parents[1] / "families" / "fixtures"


@pytest.mark.parametrize("shape", [(0, 4), (1, 0), (0, 0), (4,), (), (1, 2, 3)])
@pytest.mark.parametrize("cached", [False, True])
def test_shapes_that_are_no_tokens(shape: tuple[int, ...], cached: bool) -> None:
    model = models.model("a", a=["attn", "mlp"])
    cache = model.make_cache() if cached else None
    with pytest.raises(ValueError, match=r"tokens must be \(B, L\) with at least one token, not \("):
        model(mx.zeros(shape, dtype=mx.int32), cache)
    assert cache is None or all(entry.offset == 0 for entry in cache)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bool_, mx.bfloat16])
def test_numbers_that_are_no_tokens(dtype: mx.Dtype) -> None:
    with pytest.raises(ValueError, match="tokens must be integers, not "):
        models.model("a", a=["mlp"])(mx.zeros((1, 3), dtype=dtype))


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32, mx.uint8, mx.int64])
def test_every_kind_of_integer(dtype: mx.Dtype) -> None:
    model = models.model("a", a=["attn", "mlp"])
    tokens = models.tokens(2, 5)
    expected = model(tokens)
    assert models.close(model(tokens.astype(dtype)), expected)
    for wrong in (np.array(tokens), tokens.tolist()):
        with pytest.raises(TypeError, match=r"tokens must be an mlx\.core\.array, not "):
            model(wrong)  # type: ignore[arg-type]


def test_the_check_needs_no_values() -> None:
    """It works where a function is traced, and waits for nothing."""
    model = models.model("a", a=["mlp"])
    tokens = models.tokens(1, 4)
    assert models.close(mx.compile(model)(tokens), model(tokens))


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["trial", "dry run"])
@pytest.mark.parametrize("where", ["named", "beside the weights"])
def test_a_vocabulary_that_does_not_fit_the_tokenizer(
    where: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "m"
    shutil.copytree(FIXTURES / "llama", checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink(missing_ok=True)
    write_tokenizer(checkpoint if where != "named" else tmp_path, "bytes", 259)
    command = ["build", "llama", "--weights", str(checkpoint), *options]
    command += ["--tokenizer", str(tmp_path)] if where == "named" else []
    assert main(command) == 2
    assert "error[AX541]: the tokenizer has 259 tokens, the model 96" in capsys.readouterr().err


def test_a_trial_without_a_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes are the default of a folder; a model that is only tried has no tokenizer."""
    assert main(["build", "llama", "--weights", str(FIXTURES / "llama")]) == 0
    assert main(["build", "llama", "--weights", str(FIXTURES / "llama"), "--tokenizer", "bytes"]) == 2
    assert "AX541" in capsys.readouterr().err
