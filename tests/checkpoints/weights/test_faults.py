"""What does not fit is told at once, with the rules that have to do with it, before a tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_cases import Case, numbers

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.weights import read_checkpoint


def refused(case: Case, **options: object) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        case.plan(**options)
    return caught.value


def test_all_kinds_are_told_together(tmp_path: Path) -> None:
    weights = {
        "m.<l>.q": "l.<l>.q",
        "m.<l>.k": "l.<l>.k",
        "m.<l>.qkv": {"split": {"l.<l>.x": 1, "l.<l>.y": 1}},
        "twin": "l.0.q",
    }
    shapes = {
        "l.0.q.w": (2, 2),
        "l.0.k.w": (2, 2),
        "l.0.x.w": (1, 2),
        "l.0.y.w": (2, 2),
        "l.1.q.w": (2, 2),
        "odd": (1,),
    }
    case = Case(tmp_path, weights, shapes)
    tensors = ["m.0.q.w", "m.0.k.w", "m.0.qkv.w", "m.7.q.w", "twin.w", "stranger"]
    case.write({name: numbers(2, 2) for name in tensors} | {"m.0.k.w": numbers(3, 2)})
    error = refused(case)
    assert error.code == "AX553"
    for line in (
        "the tensors of the checkpoint do not match `case`",
        "2 missing:",
        "l.1.q.w, of m.1.q.w by the rule `m.<l>.q`",
        "odd, which no rule produces",
        "2 unexpected:",
        "stranger, which no rule matches",
        "m.7.q.w: the rule `m.<l>.q` gives `l.7.q.w`, which the model does not have",
        "2 of the wrong shape:",
        "l.0.k.w, of m.0.k.w by the rule `m.<l>.k`: it gives [3, 2], the model has [2, 2]",
        "l.0.x.w, of m.0.qkv.w by the rule `m.<l>.qkv`: "
        "it produces [1, 2] from [2, 2] for l.0.y.w, the model has [2, 2]",
        "1 assigned twice:",
    ):
        assert line in str(error)
    assert "l.0.q.w, of m.0.q.w and twin.w" in str(error)


def test_of_alternatives_the_one_that_the_layer_has_is_named(tmp_path: Path) -> None:
    shapes = {"l.0.local.q.w": (2, 2), "l.1.full.q.w": (2, 2)}
    case = Case(tmp_path, {"m.<l>.attn": "l.<l>.(local|full)"}, shapes)
    case.write({name: numbers(2, 2) for name in ("m.0.attn.q.w", "m.1.attn.q.w", "m.0.attn.z.w", "m.1.attn.z.w")})
    text = str(refused(case))
    assert "m.0.attn.z.w: the rule `m.<l>.attn` gives `l.0.local.z.w`, which the model does not have" in text
    assert "m.1.attn.z.w: the rule `m.<l>.attn` gives `l.1.full.z.w`, which the model does not have" in text


def test_the_first_ten_of_a_kind_are_told(tmp_path: Path) -> None:
    case = Case(tmp_path, {}, {})
    case.write({f"t{i:02}": numbers(1) for i in range(13)})
    message = str(refused(case))
    assert "13 unexpected:" in message
    assert message.count("which no rule matches") == 10
    assert "… and 3 more" in message


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"to": "w", "reshape": [3, -1]}, "[2, 4] cannot be reshaped to [3, -1]"),
        ({"to": "w", "reshape": [3, 3]}, "[2, 4] cannot be reshaped to [3, 3]"),
        ({"split": {"w": 1, "v?": 3}}, "axis 0 of [2, 4] is not 1 + 3"),
        ({"split": {"w": 1, "v?": 1}, "groups": 2}, "axis 0 of [2, 4] is not 2 · (1 + 1)"),
        ({"split": {"w": 1, "v?": 1}, "axis": 2}, "[2, 4] has no axis 2"),
        ({"to": "w", "transpose": True}, "it produces [4, 2] from [2, 4], the model has [5, 5]"),
    ],
)
def test_steps_that_do_not_fit(tmp_path: Path, rule: dict[str, object], reason: str) -> None:
    case = Case(tmp_path, {"a": rule}, {"w.weight": (5, 5)})
    case.write({"a.weight": numbers(2, 4)})
    assert reason in str(refused(case))


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"to": "w", "scale": "=1 / n"}, "the rule `a`: `=1 / n` has no value: division by zero"),
        ({"to": "w", "scale": "=n"}, "`=n` is 0, which cannot be inverted"),
        ({"to": "w", "add": "='x'"}, "is x, not a number"),
        ({"split": {"w": "=n"}}, "is 0, not a positive integer"),
        ({"to": "w", "when": "=half[3]"}, "`=half[3]` has no value"),
    ],
)
def test_formulas_without_a_value(tmp_path: Path, rule: dict[str, object], reason: str) -> None:
    case = Case(tmp_path, {"a": rule}, {"w.weight": (1,)}, {"n": 0, "half": [0.5]})
    case.write({"a.weight": numbers(1)})
    error = refused(case)
    assert error.code == "AX556"
    assert reason in str(error)


def test_experts_of_different_shapes(tmp_path: Path) -> None:
    case = Case(tmp_path, {"e.<e>": {"to": "w", "stack": "e"}}, {"w.weight": (2, 3)})
    case.write({"e.0.weight": numbers(3), "e.1.weight": numbers(4)})
    assert "e.1.weight is [4], e.0.weight is [3], and the rule `e.<e>` stacks them" in str(refused(case))
    case.write({"e.x.weight": numbers(3)})
    assert "e.x.weight: the rule `e.<e>` stacks by number, and this is not a number" in str(refused(case))


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match=r"pickled: `pytorch_model\.bin`") as caught:
        read_checkpoint(tmp_path)
    assert caught.value.code == "AX551"
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_checkpoint(tmp_path / "none")


def index(folder: Path, content: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    case = Case(tmp_path, {"a": "a", "b": "b"}, {"a": (1,), "b": (1,)})
    case.write({"a": numbers(1)}, name="model-00001-of-00002.safetensors")
    index(tmp_path, {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
    with pytest.raises(CheckpointError, match=r"lacks the file `model-00002-of-00002\.safetensors`") as caught:
        read_checkpoint(tmp_path)
    assert caught.value.code == "AX552"
    case.write({"b": numbers(1)}, name="model-00002-of-00002.safetensors")
    case.write({"c": numbers(1)}, name="consolidated.safetensors")
    assert set(read_checkpoint(tmp_path).tensors) == {"a", "b"}
    assert set(case.load()) == {"a", "b"}


@pytest.mark.parametrize(
    "content",
    [[], {}, {"weight_map": 3}, {"weight_map": {}}, {"weight_map": {"a": "../x.safetensors"}}, {"weight_map": {"a": 1}},
     {"weight_map": {"a": "model.bin"}}],
)  # fmt: skip
def test_a_bad_index_is_refused(tmp_path: Path, content: object) -> None:
    index(tmp_path, content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.code == "AX511"


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    case = Case(tmp_path, {"a": "a"}, {"a": (1,)})
    for number in (1, 2):
        case.write({"a": np.float32([number])}, name=f"model-0000{number}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"is also in `model-00001-of-00002\.safetensors`"):
        read_checkpoint(tmp_path)


def test_marks(tmp_path: Path) -> None:
    case = Case(tmp_path, {}, {})
    for mark, layout in (("mlx", "mlx"), ("pt", "huggingface"), ("np", "huggingface"), (None, None)):
        case.write({"a": numbers(1)}, mark=mark, name="model-1.safetensors")
        assert read_checkpoint(tmp_path).layout == layout
    case.write({"b": numbers(1)}, mark="mlx", name="model-2.safetensors")
    assert read_checkpoint(tmp_path).layout is None
