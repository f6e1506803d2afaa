"""Makes fixtures from recipes: small models with random weights, and what the reference computes with them.

    python tests/families/make_seeded.py NAME ...

`tests/families/recipes/NAME.yaml` has

    reference: transformers       # or mlx-lm, where transformers has no class for it
    class: Mistral4ForCausalLM    # optional: transformers' class, where its AutoModelForCausalLM does not find one
    config: {model_type: …, …}    # every field that changes the model has a value that is not its default
    computed: [slope_rate]        # optional: ends of names of tensors that the class computes where a file lacks them
    whole: {model_type: …, …}     # optional: the model of text and images whose text model `config` is; `class` is its
                                  # class, and the fixture a checkpoint of the text model alone
    published: {…}                # optional: fields that files before transformers 5 have instead; null takes one away
    rope_kind: type               # optional: the word for the kind in a published `rope_scaling`
    tokens: 40                    # optional: tokens in each of the two rows
    attention: sdpa               # optional: of transformers, where its eager one is wrong
    tensors: {pattern: shape}     # optional: names and shapes of the published files, where they are not those of the
                                  # reference's own model; "layers.{0..3}.a.{0,2}.weight" is eight names
    draws: {pattern: [normal, 0.0, 1.0]}   # optional: distributions for names that match a shell pattern
    margin: 2e-4                  # optional: by how much choices of experts or tokens are clear
    unused: {pattern: shape}      # optional: tensors that published files have and no model uses
    repairs: {path: factor}       # optional: of arrays of mlx-lm's loaded model, where a fault of it is known

and the folder `fixtures/NAME` gets `config.json`, `config.published.json` (where the recipe has `published`),
`tensors.json` and `expected.safetensors`. Weights are drawn by `seeded.py`, here as in the tests. Needs transformers,
and torch where that is the reference.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import json
import math
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.families import seeded  # noqa: E402  (run as a script)

RECIPES = Path(__file__).parent / "recipes"


# -- Distributions ------------------------------------------------------------------------------------------------


def distribution(name: str, shape: tuple[int, ...], config: dict[str, Any], initial: float) -> list[Any]:
    """Values of the scale that the tensor has in a trained model.

    Args:
        name: The tensor's published name.
        shape: Its shape.
        config: The whole config.
        initial: The mean of a new model's values, which tells norms that start at 0 from those that start at 1.
    """
    parent, leaf = ("." + name).split(".")[-2:]
    if leaf == "A_log":
        return ["log_uniform", 1.0, 16.0]
    if leaf == "dt_bias" or (parent == "dt_proj" and leaf == "bias"):
        return ["time_step", 1e-3, 1e-1]
    if leaf == "layer_scalar":
        return ["uniform", 0.5, 1.0]
    if "bias" in leaf:
        return ["normal", 0.0, 0.2]
    if len(shape) <= 1:
        return ["normal", 0.0, 1.0] if leaf == "sinks" else ["normal", 1.0 if initial else 0.0, 0.2]
    if "embed" in name or leaf == "wte":
        return ["normal", 0.0, 1 / math.sqrt(shape[-1]) if config.get("tie_word_embeddings") else 1.0]
    return ["normal", 0.0, (1.5 if parent in ("router", "gate") else 1.0) / math.sqrt(shape[-1])]


def expanded(patterns: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """Names for patterns with {0..3} or {0,2}."""
    found: dict[str, tuple[int, ...]] = {}
    for pattern, shape in patterns.items():
        pieces = re.split(r"\{([^}]*)\}", pattern)
        choices = [[piece] if at % 2 == 0 else _choices(piece) for at, piece in enumerate(pieces)]
        found |= {"".join(parts): tuple(shape) for parts in itertools.product(*choices)}
    return found


def _choices(text: str) -> list[str]:
    if ".." in text:
        first, last = map(int, text.split(".."))
        return [str(number) for number in range(first, last + 1)]
    return text.split(",")


def described(recipe: dict[str, Any], own: dict[str, tuple[tuple[int, ...], float]]) -> dict[str, list[Any]]:
    """The entry of each tensor in `tensors.json`.

    Args:
        recipe: The recipe.
        own: Shape and initial mean of the tensors of the reference's model, used where the recipe has none.
    """
    if "tensors" in recipe:
        own = {name: (shape, 1.0) for name, shape in expanded(recipe["tensors"]).items()}
    own |= {name: (shape, 1.0) for name, shape in expanded(recipe.get("unused", {})).items()}
    entries = {}
    for name, (shape, initial) in own.items():
        entry = distribution(name, shape, recipe["config"], initial)
        for pattern, other in recipe.get("draws", {}).items():
            entry = other if fnmatch.fnmatch(name, pattern) else entry
        entries[name] = [list(shape), *entry]
    return entries


# -- References ----------------------------------------------------------------------------------------------------


#: How the names of a text model begin in a model of text and images.
_OF_TEXT = "model.language_model."


def _is_of_text(name: str) -> bool:
    return name.startswith((_OF_TEXT, "lm_head."))


class Transformers:
    """transformers' own class, in float32, eager, without a cache."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        import make_fixtures as old
        import torch
        import transformers
        from transformers import AutoConfig

        self.reads = getattr(transformers, recipe.get("class", "AutoModelForCausalLM"))
        self.old, self.torch = old, torch
        self.options = {**old.EAGER, "attn_implementation": recipe.get("attention", "eager")}
        whole = recipe.get("whole")
        written = {**whole, "text_config": recipe["config"]} if whole else recipe["config"]
        fields = {key: value for key, value in written.items() if key != "model_type"}
        config = AutoConfig.for_model(written["model_type"], **fields)
        make = getattr(self.reads, "from_config", None) or self.reads._from_config
        self.model = make(config, dtype=torch.float32, **self.options).eval()
        with tempfile.TemporaryDirectory() as place:
            self.model.save_pretrained(place)
            from safetensors.numpy import load_file

            self.config = json.loads((Path(place) / "config.json").read_text())
            saved = load_file(Path(place) / "model.safetensors")
        self.computed = tuple(recipe.get("computed", ()))
        saved = {name: tensor for name, tensor in saved.items() if not name.endswith(self.computed)}
        self.written, self.prefix, self.other_parts = self.config, "", {}
        if whole:
            self.config = self.written["text_config"]
            self.prefix = _OF_TEXT
            self.other_parts = {name: saved.pop(name) for name in list(saved) if not _is_of_text(name)}
        self.own = {
            name.replace(self.prefix, "model.", 1) if self.prefix else name: (
                tensor.shape,
                float(np.abs(tensor).mean()),
            )
            for name, tensor in saved.items()
        }

    def logits(self, tensors: dict[str, np.ndarray], tokens: np.ndarray) -> tuple[np.ndarray, float]:
        """Logits of the checkpoint read back as published, and the smallest margin of a choice of experts."""
        if self.prefix:
            renamed = {name.replace("model.", self.prefix, 1): tensor for name, tensor in tensors.items()}
            tensors = self.other_parts | renamed
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "config.json").write_text(json.dumps(self.written))
            save_file(tensors, Path(place) / "model.safetensors", metadata={"format": "pt"})
            self.model, info = self.reads.from_pretrained(
                place, dtype=self.torch.float32, output_loading_info=True, **self.options
            )
        missing = [name for name in info["missing_keys"] if not name.endswith(self.computed)]
        assert not missing, missing
        self.unexpected = info["unexpected_keys"]
        return self.old.forward(self.model.eval(), self.torch.from_numpy(tokens.astype(np.int64)))

    def exact(self, tokens: np.ndarray) -> np.ndarray | None:
        """Logits in float64, of a class that can."""
        try:
            return self.old.forward(self.model.double(), self.torch.from_numpy(tokens.astype(np.int64)))[0]
        except RuntimeError:  # the mask of XGLM is a number of float32
            return None


def _member(owner: Any, key: str) -> Any:
    return owner[int(key)] if key.isdigit() else getattr(owner, key)


class MlxLm:
    """mlx-lm's own model, read from the folder as its commands read it."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        from mlx.utils import tree_flatten
        from mlx_lm.utils import _get_classes

        self.config, self.repairs = recipe["config"], recipe.get("repairs", {})
        model_class, args_class = _get_classes(self.config)
        model = model_class(args_class.from_dict(self.config))
        self.own = {
            name: (tuple(value.shape), float(np.abs(np.array(value)).mean()))
            for name, value in tree_flatten(model.parameters())
        }

    def logits(self, tensors: dict[str, np.ndarray], tokens: np.ndarray) -> tuple[np.ndarray, float]:
        import mlx.core as mx
        from mlx_lm.utils import load_model

        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "config.json").write_text(json.dumps(self.config))
            save_file(tensors, Path(place) / "model.safetensors", metadata={"format": "pt"})
            model, _ = load_model(Path(place), strict=True)
        for path, factor in self.repairs.items():
            *parents, leaf = path.split(".")
            owner = functools.reduce(_member, parents, model)
            setattr(owner, leaf, getattr(owner, leaf) * factor)
        logits = np.array(model(mx.array(tokens.astype(np.int32))).astype(mx.float32))
        return logits, math.inf

    def exact(self, tokens: np.ndarray) -> np.ndarray | None:
        return None


# -- Files ----------------------------------------------------------------------------------------------------------


def write(name: str) -> str:
    """Write the folder of one recipe; the answer is a line about it."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    reference = {"transformers": Transformers, "mlx-lm": MlxLm}[recipe["reference"]](recipe)
    entries = described(recipe, reference.own)
    vocab_size = _anywhere(recipe["config"], "vocab_size")
    for seed in range(100):
        tensors = {key: seeded.draw(key, entry, seed) for key, entry in entries.items()}
        tokens = np.random.RandomState([seed, 1]).randint(3, vocab_size, (2, recipe.get("tokens", 40)))
        logits, margin = reference.logits(tensors, tokens)
        if margin > recipe.get("margin", 2e-3):
            break
    else:
        raise RuntimeError("no seed keeps the choices apart")
    folder = seeded.FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
    (folder / "tensors.json").write_text(f'{{"seed": {seed}, "tensors": {{\n{lines}\n}}}}\n')
    _write_json(folder / "config.json", reference.config)
    if "published" in recipe:
        import make_fixtures as old

        family = old.Family(
            recipe["config"]["model_type"], recipe["config"], recipe["published"], recipe.get("rope_kind", "rope_type")
        )
        _write_json(folder / "config.published.json", old.published_config(dict(reference.config), family))
    save_file({"tokens": tokens.astype(np.int32), "logits": logits}, folder / "expected.safetensors")
    seeded.complete()
    exact = reference.exact(tokens)
    rounding = "" if exact is None else f", {np.abs(logits - exact).max() / np.abs(exact).max():.0e} from float64"
    unexpected = getattr(reference, "unexpected", None) or "none"
    return f"{name}: seed {seed}, deviation {logits.std():.2f}{rounding}, margin {margin:.0e}, unused: {unexpected}"


def _anywhere(config: dict[str, Any], field: str) -> Any:
    return config[field] if field in config else config["text_config"][field]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        sys.stdout.write(write(each) + "\n")
