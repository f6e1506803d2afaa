"""A family file to start from, for a checkpoint that no family reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files import read_header
from axon_compose.checkpoints.files._safetensors import shown
from axon_compose.checkpoints.huggingface import field_names, read_config
from axon_compose.checkpoints.likeness import Likeness, kind
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config
from axon_compose.language.document import MODEL_NAME
from axon_compose.language.layout import flow_text
from axon_compose.language.source import scalar_text
from axon_compose.plan import compile_source

__all__ = ["draft_text"]

#: What a tensor's name says of an option that the base leaves out: a pattern, and where the option is.
_HINTS: Final = (
    (r"[qk]_(layer)?norm", "norms of queries and keys: `qk_norm` of attention"),
    (r"sinks?$", "attention sinks: `sinks` of attention"),
    (r"(q|k|v|o|qkv|out)_?proj\.bias", "biases: `bias` of attention, by projection where they differ"),
    (r"(gate|up|down)_proj\.bias", "biases: `bias` of the MLP or the experts"),
    (r"shared_expert", "a shared expert: `num_shared_experts` or `shared_intermediate_size` of moe"),
    (r"experts?\.", "experts: `moe`; tensors of each are stacked (`stack: e`), one of all is split"),
    (r"(router|\.gate)\.weight$", "the router: `layers.<l>.moe.gate`"),
    (r"correction_bias|expert_bias", "a bias that only chooses: `correction_bias` of moe"),
    (r"(pre|post)_(feedforward|ffn|mlp|attention)_?(layer)?norm", "norms around branches: `norm: {place: sandwich}`"),
    (r"norm\.bias", "norms with a bias: `norm: {type: layer_norm}`"),
    (r"lm_head", "a head of its own: `head: {tied: false}`"),
    (r"conv1d", "a short convolution: a recurrent component, see `axon-compose list state`"),
    (r"A_log|\.D$", "a state space: `mamba` or `mamba2`"),
)  # fmt: skip


def draft_text(folder: Path, likeness: Likeness) -> str:
    """Write a family file over the nearest family, with everything that is to be decided as a comment.

    The file is valid as it is: `import --family` reads the checkpoint with it as far as the base goes. Defaults of
    dims are the checkpoint's values.

    Args:
        folder: The checkpoint.
        likeness: The family to start from, which could be compiled.
    """
    config, compiled = read_config(folder, Problems()), likeness.compiled
    assert config is not None
    assert compiled is not None
    model_type = config.model_types[0] if config.model_types else "new"
    name = model_type if re.fullmatch(MODEL_NAME, model_type) else "draft"
    lines = [
        f"# {shown(model_type)}: a draft made from a checkpoint; what is left to decide is in the comments.",
        "version: 1",
        f"name: {name}",
        f"extends: {likeness.family.name}",
        *_dims(likeness, config),
        "",
        "huggingface:",
        f"  model_types: [{scalar_text(model_type)}]",
        *_only(likeness, config),
        *_tensors(likeness, _shapes(folder)),
    ]
    return "\n".join(lines) + "\n"


def _dims(likeness: Likeness, config: Config) -> Iterator[str]:
    known = dict(_values(likeness, config))
    unknown = {name: config.value(name) for name in likeness.unknown if "." not in name}
    if not known and not unknown:
        return
    yield from ("", "dims:")
    yield from (f"  {scalar_text(name)}: {_value(value)}" for name, value in known.items())
    if unknown:
        yield ""
        base = likeness.family.name
        yield f"  # Fields that `{base}` does not know, and that nothing uses yet. Use each in an option,"
        yield "  # or move it to `huggingface.only` (one value is supported) or to `ignore` (it changes nothing)."
        yield from (f"  {scalar_text(name)}: {_value(value)}" for name, value in unknown.items())


def _values(likeness: Likeness, config: Config) -> Iterator[tuple[str, Any]]:
    """Dims of the base with the checkpoint's values, where these are not what the base has."""
    assert likeness.compiled is not None
    document = likeness.compiled.document
    section = document.huggingface
    assert section is not None  # a family has it
    base = compile_source(likeness.family.path).document.envelope.dims
    for name, value in document.dims.items():
        given = any(config.find(field) is not None for field in field_names(section, name))
        if name in base and base[name] != value and (given or name in ("rope_theta", "rope_scaling")):
            yield name, value


def _value(value: Any) -> str:
    return "=null" if value is None else flow_text(value)


def _only(likeness: Likeness, config: Config) -> Iterator[str]:
    if likeness.unsupported:
        yield f"  # `{likeness.family.name}` supports other values of these; what they mean has to be described above."
        yield "  only:"
        yield from (f"    {scalar_text(name)}: {flow_text(config.value(name))}" for name in likeness.unsupported)
    nested = [name for name in likeness.unknown if "." in name]
    if nested:
        yield "  # Fields inside mappings that nothing reads; `fields: {dim: a.b}` reads one."
        yield f"  ignore: {flow_text(nested)}"


def _shapes(folder: Path) -> dict[str, str]:
    """The shape of each kind of tensor in a checkpoint, of several layers that of the first one."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in read_header(path).items():
            found.setdefault(kind(name), f" {list(entry.shape)}")
    return found


def _tensors(likeness: Likeness, shapes: dict[str, str]) -> Iterator[str]:
    parts = {
        "Tensors without a place, which need a rule under `weights` (null drops one).": likeness.unexpected,
        "Parameters that no tensor gives.": likeness.missing,
        "Parameters of another shape than their tensors.": likeness.misshaped,
    }
    if any(parts.values()):
        yield "  # weights:"
    for title, names in parts.items():
        if names:
            yield f"    # {title}"
            yield from (f"    #   {name}{shapes.get(name, '')}{_hint(name)}" for name in names)


def _hint(name: str) -> str:
    found = next((text for pattern, text in _HINTS if re.search(pattern, name)), None)
    return f"  ({found})" if found else ""
