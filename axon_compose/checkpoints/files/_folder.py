"""The folder of a model: what the mlx_lm commands need, and `build.json`. Same inputs, same bytes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files import _disk
from axon_compose.checkpoints.files._atomic import atomic_folder, check_target
from axon_compose.checkpoints.files._card import CARD_FILE, model_card
from axon_compose.checkpoints.files._generation import GENERATION_FILE
from axon_compose.checkpoints.files._record import BUILD_FILE, dump_json, is_plain_name, record_of
from axon_compose.checkpoints.files._shards import (
    MAX_SHARD_BYTES,
    Progress,
    TensorSpec,
    drain,
    plan_shards,
    tensor_specs,
    write_shards,
)
from axon_compose.checkpoints.files._tokenizer import tokenizer_files
from axon_compose.checkpoints.files._tokenizer_files import TokenizerFiles
from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.units import human

__all__ = ["MODEL_FILE", "check_space", "model_file", "require_plain_name", "write_folder"]

MODEL_FILE: Final = "axon_model.py"
_DISTRIBUTION: Final = re.compile(r"[A-Za-z0-9._+!-]+")
_SLACK_BYTES: Final = 4 * 1024 * 1024

# mlx_lm runs this file as a module that is not in `sys.modules`, so nothing may be defined in it.
_MODEL_SOURCE: Final = '''\
"""Made by axon-compose; mlx_lm loads the model of this folder through it."""
try:
    from axon_compose.checkpoints.model_file import ModelArgs, model_in  # noqa: F401
except ImportError as error:
    raise ImportError(
        "this model needs {packages}: `pip install` a wheel or a checkout of each. "
        f"axon-compose is on no package index, its README says how to install it ({{error}})"
    ) from error

Model = model_in(__file__)
'''


def write_folder(
    target: Path,
    *,
    config: Mapping[str, Any],
    tensors: dict[str, Any] | Iterable[tuple[str, Any]],
    specs: Sequence[TensorSpec] | None = None,
    tokenizer: str | Path | TokenizerFiles,
    build_record: Mapping[str, Any],
    generation: Mapping[str, Any] | None = None,
    force: bool = False,
    more: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> dict[str, Any]:
    """Write a model folder, whole or not at all.

    Args:
        target: The folder.
        config: Content of `config.json`; `vocab_size` is required. `model_file` and the token ids (`eos_token_id`, …)
            are filled in unless given; a `model_file` of None leaves the Python file out (see
            `axon_compose.checkpoints.tools`).
        tensors: Name to lazy array. A dict is emptied on the way, so that each array is freed once it is written (drop
            the model that they come from); any other iterable of pairs needs `specs`. See `write_shards`.
        specs: Every tensor, in the order in which `tensors` hands them out.
        tokenizer: `bytes`, `bytes-chat`, `none`, or a folder with the files of a tokenizer; or those files, of which
            `tokenizer_files` has said that they fit.
        build_record: What `build.json` shall say; no times, so that the same build gives the same bytes. Its
            `plugins`, a mapping of namespace to `distribution version`, is what the advice to install is made of. The
            remarks on the tokenizer are added to its `notes`.
        generation: Content of `generation_config.json`, beside the token ids of the config.
        force: Replace an existing build.
        more: Writes further files into the folder, which build.json then lists with the others.
        progress: Called with the bytes of tensors written so far and in all.
        max_shard_bytes: Bytes of tensors in one file, 5 GB unless given.

    Returns:
        The content of `build.json`.

    Raises:
        CheckpointError: AX501-AX503 see `atomic_folder`; AX504 not enough room; AX505 a bad `model_file`; AX541, AX542
            see `write_tokenizer`.
        ValueError: The tensors are not those of `specs`, or a value cannot be written as JSON.
    """
    target = Path(target)
    check_target(target, force)
    specs, tensors = _announced(specs, tensors)
    tokens = tokenizer if isinstance(tokenizer, TokenizerFiles) else tokenizer_files(tokenizer, config["vocab_size"])
    ids = {key: value for key, value in tokens.ids.items() if key != "vocab_size"}
    full_config = {**ids, "model_file": MODEL_FILE, **config}
    code = {}
    if full_config["model_file"] is None:
        del full_config["model_file"]
    else:
        code[require_plain_name(full_config["model_file"])] = model_file(build_record.get("plugins", {}))
    generation = {key: full_config[key] for key in ids} | dict(generation or {})
    build_record = {**build_record, "notes": [*build_record.get("notes", ()), *tokens.notes]}
    small = {
        **tokens,
        # The description inside has an order that counts: that of the parts of a split.
        "config.json": dump_json(dict(sorted(full_config.items())), in_order=True),
        GENERATION_FILE: dump_json(generation),
        **code,
        CARD_FILE: model_card(str(build_record.get("name", "model")), model_file=bool(code)),
    }
    weights = sum(spec.nbytes for shard in plan_shards(specs, max_shard_bytes) for spec in shard.specs)
    check_space(target, weights + sum(map(len, small.values())))
    with atomic_folder(target, force) as folder:
        files = {name: _disk.write_file(folder / name, [small[name]]) for name in sorted(small)}
        files |= write_shards(folder, specs, tensors, max_shard_bytes=max_shard_bytes, progress=progress)
        if more is not None:
            more(folder)
            files |= {path.name: _disk.record(path) for path in sorted(folder.iterdir()) if path.name not in files}
        content = record_of(build_record, files)
        _disk.write_file(folder / BUILD_FILE, [dump_json(content)])
    return content


def _announced(
    specs: Sequence[TensorSpec] | None, tensors: dict[str, Any] | Iterable[tuple[str, Any]]
) -> tuple[Sequence[TensorSpec], Iterable[tuple[str, Any]]]:
    if isinstance(tensors, dict):
        return specs or tensor_specs(tensors), drain(tensors)
    if specs is None:
        raise ValueError("tensors that are not a dict need specs")
    return specs, tensors


def model_file(plugins: Mapping[str, str]) -> bytes:
    """The Python file of a model folder.

    Args:
        plugins: Namespace to `distribution version` of the plugins that the model uses.
    """
    needed = {"axon-compose": ""}
    for plugin in plugins.values():
        name, _, version = str(plugin).partition(" ")
        needed[name] = version
    if not all(_DISTRIBUTION.fullmatch(f"{name}{version}") for name, version in needed.items()):
        raise ValueError(f"not names and versions of distributions: {sorted(plugins.values())}")
    packages = " and ".join(f"{name}>={version}" if version else name for name, version in sorted(needed.items()))
    return _MODEL_SOURCE.format(packages=packages).encode()


def require_plain_name(name: Any) -> str:
    """Accept the `model_file` of a config: a Python file right in the folder, no path.

    Raises:
        CheckpointError: AX505.
    """
    if not isinstance(name, str) or not is_plain_name(name) or not name.endswith(".py"):
        raise CheckpointError("AX505", f"`model_file` is {name!r}", "it must name a Python file in the model's folder")
    return name


def check_space(target: Path, nbytes: int) -> None:
    """Refuse a build that the disk has no room for.

    Raises:
        CheckpointError: AX504.
    """
    place = Path(os.path.realpath(target)).parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if nbytes + _SLACK_BYTES > free:
        advice = (
            "the old folder is kept until the new one is complete"
            if target.exists()
            else "choose another disk with `--out`"
        )
        raise CheckpointError("AX504", f"the model takes {human(nbytes)}, `{place}` has {human(free)} free", advice)
