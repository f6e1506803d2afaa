"""A built folder to one that stock loaders read without code of ours: original names, original config.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from axon_compose.checkpoints.exported import Exported, config_json
from axon_compose.checkpoints.files import (
    BUILD_FILE,
    MAX_SHARD_BYTES,
    CheckpointError,
    Unchanged,
    atomic_folder,
    check_space,
    check_target,
    tensor_specs,
)
from axon_compose.checkpoints.files import _disk as disk
from axon_compose.checkpoints.files._record import dump_json, record_of
from axon_compose.checkpoints.files._tokenizer_class import forced_class
from axon_compose.checkpoints.huggingface import (
    with_missing,
)
from axon_compose.checkpoints.upstream import (
    UpstreamFault,
    faults_of,
    require_loadable,
    with_older_fields,
    written_faults,
)
from axon_compose.checkpoints.weights import SavePlan, plan_save, save_checkpoint
from axon_compose.language.document import Layout

__all__ = ["KINDS", "Kind", "export"]

Kind = Literal["mlx-lm", "huggingface"]
#: What can be written, and how tensors are laid out there.
KINDS: Final[Mapping[Kind, Layout]] = {"mlx-lm": "mlx", "huggingface": "huggingface"}

#: Faults that come with the names of Hugging Face alone.
_OF_OTHER_LAYOUT: Final = ("packed-experts-only",)


def export(
    folder: Path,
    target: Path,
    kind: Kind,
    *,
    force: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a folder that stock loaders read, whole or not at all; weights go from file to file one by one.

    Args:
        folder: What `write_model` wrote, or what mlx_lm made of that.
        target: The new folder.
        kind: Who shall read it: `mlx-lm`, or `huggingface` and all that reads its checkpoints.
        force: Replace an earlier export.
        max_shard_bytes: Largest weight file.
        progress: Called with bytes written and bytes in all.

    Returns:
        The content of the new build.json.

    Raises:
        ArchitectureError: The description in the folder does not hold, such as without a plugin that it names.
        CheckpointError: AX557, AX558 the rules do not lead back; AX559 quantised weights for `huggingface`; AX560 the
            folder is not of ours; AX513 it changes meanwhile; AX609, AX610, AX620 no stock model is this one; and what
            `atomic_folder` raises.
    """
    if target.resolve() == folder.resolve():
        raise CheckpointError("AX502", f"`{target}` is the folder that is exported", "choose another path with `-o`")
    check_target(target, force)
    unchanged = Unchanged(folder)
    with unchanged:
        built = Exported(folder)
        weights = built.weights()
    specs = tensor_specs(weights)
    if kind == "huggingface" and built.quantised:
        message = f"`{folder}` is quantised, which Hugging Face's layout cannot express"
        raise CheckpointError("AX559", message, "use `--to mlx-lm`, or export a build without `--quantize`")
    known = built.known(KINDS[kind])
    save_plan = plan_save(built.plan, built.section, built.architecture.document.dims, specs, KINDS[kind], known=known)
    config = built.config(save_plan, specs)
    if kind == "mlx-lm":
        config = with_missing(with_older_fields(config), *built.stock)
        config |= _quantization(save_plan)
    faults = written_faults(built.architecture)
    small = built.files() | {"config.json": config_json(config)}
    check_space(target, sum(spec.nbytes for spec in save_plan.specs) + sum(map(len, small.values())))
    record = {
        "name": built.plan.name,
        "exported": kind,
        "model_type": config["model_type"],
        "upstream_faults": [*_upstream_faults(kind, config, faults), *_split_otherwise(small, config["model_type"])],
        "versions": {name: version(name) for name in ("axon-compose", "mlx")},
    }
    with atomic_folder(target, force) as place, unchanged:
        written = {name: disk.write_file(place / name, [small[name]]) for name in sorted(small)}
        written |= save_checkpoint(place, save_plan, weights, max_shard_bytes=max_shard_bytes, progress=progress)
        if kind == "mlx-lm":
            require_loadable(place, config, faults)
        content = record_of(record, written)
        disk.write_file(place / BUILD_FILE, [dump_json(content)])
    return content


def _upstream_faults(kind: Kind, config: Mapping[str, Any], written: tuple[UpstreamFault, ...]) -> list[dict[str, str]]:
    """What the readers are known to compute differently in such a model, at any length."""
    peer = "mlx-lm" if kind == "mlx-lm" else "transformers"
    found = faults_of(peer, config, config.get("max_position_embeddings") or 1, written)
    return [fault.to_dict() for fault in found if fault.name not in _OF_OTHER_LAYOUT]


def _split_otherwise(files: Mapping[str, bytes], model_type: str) -> Iterator[dict[str, str]]:
    """That a tokenizer which is not the stock model's splits text as that one's class does."""
    described = json.loads(files.get("tokenizer_config.json", b"{}"))
    if "tokenizer.json" in files and (name := forced_class(described, model_type)):
        what = f"text is split as `{name}` does, which takes vocabulary and merges alone of tokenizer.json"
        yield {"name": "tokenizer-class", "owner": "transformers", "what": what, "right": "what tokenizer.json says"}


def _quantization(save_plan: SavePlan) -> dict[str, Any]:
    """How mlx-lm's modules are quantised: the usual way, and each module that differs."""
    modules = dict(_packed(save_plan))
    if not modules:
        return {}
    usual = json.loads(Counter(json.dumps(how) for how in modules.values()).most_common(1)[0][0])
    return {"quantization": usual | {path: how for path, how in modules.items() if how != usual}}


def _packed(save_plan: SavePlan) -> Iterator[tuple[str, dict[str, Any]]]:
    for transfer in save_plan.transfers:
        if packing := transfer.form.packing:
            how = {"group_size": packing.group_size, "bits": packing.bits, "mode": packing.mode}
            for source in transfer.sources:
                yield source.name.removesuffix(".weight"), how
