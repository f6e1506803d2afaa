"""Makes fixtures from recipes: small models with random weights, and what the reference computes with them.

    python tests/families/make_seeded.py NAME ...

`tests/families/recipes/NAME.yaml` has

    reference: transformers       # or mlx-lm, where transformers has no class for it
    class: Mistral4ForCausalLM    # optional: transformers' class, where its AutoModelForCausalLM does not find one
    config: {model_type: …, …}    # every field that changes the model has a value that is not its default
    computed: [slope_rate]        # optional: ends of names of tensors that the class computes where a file lacks them
    whole: {model_type: …, …}     # optional: the model of text and images whose text model `config` is; `class` is its
                                  # class, and the fixture a checkpoint of the text model alone
    beside: [vision_encoder.]     # optional: how names of the other parts begin, where those of the text have no prefix
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

import functools
import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.families import seeded  # noqa: E402  (run as a script)
from tests.families.distributions import entry_for  # noqa: E402
from tests.families.fixture_files import published_config, temporary, write_json  # noqa: E402

RECIPES = Path(__file__).parent / "recipes"


# -- Tensors -------------------------------------------------------------------------------------------------------


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
        own: Shape and mean size of the tensors of the reference's new model, used where the recipe has none.
    """
    if "tensors" in recipe:
        own = {name: (shape, 1.0) for name, shape in expanded(recipe["tensors"]).items()}
    own |= {name: (shape, 1.0) for name, shape in expanded(recipe.get("unused", {})).items()}
    tied, draws = bool(recipe["config"].get("tie_word_embeddings")), recipe.get("draws", {})
    return {
        name: [list(shape), *entry_for(name, shape, tied=tied, initial=initial, draws=draws)]
        for name, (shape, initial) in own.items()
    }


# -- References ----------------------------------------------------------------------------------------------------


def reference_of(recipe: dict[str, Any]) -> Any:
    """What computes the logits of a recipe."""
    if recipe["reference"] == "mlx-lm":
        return MlxLm(recipe)
    from tests.families.torch_reference import Transformers

    return Transformers(recipe)


def _member(owner: Any, key: str) -> Any:
    return owner[int(key)] if key.isdigit() else getattr(owner, key)


class MlxLm:
    """mlx-lm's own model, read from the folder as its commands read it; attributes as of `Transformers`."""

    unexpected = ()

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

        with temporary(self.config, tensors) as folder:
            model, _ = load_model(folder, strict=True)
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
    reference = reference_of(recipe)
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
    write_json(folder / "config.json", reference.config)
    if "published" in recipe:
        published = published_config(reference.config, recipe["published"], recipe.get("rope_kind", "rope_type"))
        write_json(folder / "config.published.json", published)
    logits = np.ascontiguousarray(logits)  # of others safetensors 0.8.0 writes something else
    save_file({"tokens": tokens.astype(np.int32), "logits": logits}, folder / "expected.safetensors")
    seeded.complete()
    exact = reference.exact(tokens)
    rounding = "" if exact is None else f", {np.abs(logits - exact).max() / np.abs(exact).max():.0e} from float64"
    unused = reference.unexpected or "none"
    return f"{name}: seed {seed}, deviation {logits.std():.2f}{rounding}, margin {margin:.0e}, unused: {unused}"


def _anywhere(config: dict[str, Any], field: str) -> Any:
    return config[field] if field in config else config["text_config"][field]


if __name__ == "__main__":
    for each in sys.argv[1:]:
        sys.stdout.write(write(each) + "\n")
