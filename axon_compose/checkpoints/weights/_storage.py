"""How published checkpoints store matrices: plain, fp8 with scales of blocks, mxfp4, packed by MLX, or integers.

Files are looked through before the rules, so that a rule sees one tensor with one name, whatever it is stored as.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.files._safetensors import NOT_IN_MLX, shown
from axon_compose.checkpoints.gguf._tensors import shape_in_numbers
from axon_compose.checkpoints.weights._blocks import Blocks
from axon_compose.checkpoints.weights._headers import TensorHeader
from axon_compose.checkpoints.weights._integers import NOT_DECLARED, Declared, Unknown, integers
from axon_compose.checkpoints.weights._packed import Packed, packings
from axon_compose.checkpoints.weights._source import Form, Source

__all__ = ["Form", "Source", "check_sources", "gather", "is_activation_scale"]

#: The block of DeepSeek's fp8 files.
BLOCK: Final = (128, 128)
_FP8_SCALES: Final = ("_scale_inv", "_scale")
_FLOATS: Final = ("F32", "F16", "BF16")
_INTEGERS: Final = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8")
#: Scales of activations, of cached keys and values and of attention's probabilities, which weights do not need.
_ACTIVATION_SCALES: Final = (
    "input_scale", "output_scale", "q_scale", "k_scale", "v_scale", "kv_scale", "prob_scale",
)  # fmt: skip


def is_activation_scale(name: str) -> bool:
    """Whether a tensor only serves kernels that also quantise activations or caches."""
    return name.rpartition(".")[2] in _ACTIVATION_SCALES


@dataclass(frozen=True, slots=True)
class _Fp8(Source):
    """`x` in e4m3 and a scale for each block: DeepSeek-V3, technical report, section 3.3."""

    as_stored: ClassVar[bool] = False

    block: tuple[int, int]

    def read(self, arrays: Sequence[Any], form: Form) -> Any:
        """(..., M, N) bfloat16: each number times the scale of its block."""
        import mlx.core as mx

        weight, scale = arrays
        weight = mx.from_fp8(weight, dtype=mx.bfloat16)
        if scale.size == 1:
            return (weight * scale.reshape(())).astype(mx.bfloat16)
        rows, columns = form.shape[-2:]
        scale = mx.repeat(mx.repeat(scale, self.block[0], axis=-2), self.block[1], axis=-1)
        return (weight * scale[..., :rows, :columns]).astype(mx.bfloat16)


@dataclass(frozen=True, slots=True)
class _Mxfp4(Source):
    """`x_blocks` (..., rows, G, 16) and `x_scales` (..., rows, G): OCP Microscaling formats 1.0, MXFP4."""

    as_stored: ClassVar[bool] = False

    def forms(self) -> list[Form]:
        """(..., 32·G, rows): gpt_oss computes x @ W, and its unpacked files are transposed accordingly."""
        *lead, rows, groups, _ = self.tensors[0].shape
        return [Form((*lead, groups * 32, rows))]

    def read(self, arrays: Sequence[Any], form: Form) -> Any:
        """bfloat16; the low half of a byte is the number before the high half."""
        import mlx.core as mx

        blocks, scales = arrays
        words = blocks.reshape((*blocks.shape[:-2], -1)).view(mx.uint32)
        return mx.dequantize(words, scales, group_size=32, bits=4, mode="mxfp4").astype(mx.bfloat16).swapaxes(-1, -2)


@dataclass(frozen=True, slots=True)
class _MlxPacked(Source):
    """`x.weight` in 32-bit words with `x.scales`, and `x.biases` unless the format has none."""

    def forms(self) -> list[Form]:
        """Every packing that has these words and groups."""
        weight, scales, *biases = self.tensors
        found = packings(weight.shape[-1], scales.shape[-1], bool(biases))
        return [Form((*weight.shape[:-1], length), packing) for length, packing in found]

    @property
    def by_rows(self) -> bool:
        """Groups lie within rows."""
        return True

    def read(self, arrays: Sequence[Any], form: Form) -> Any:
        """It stays packed."""
        assert form.packing is not None
        weight, scales, *biases = arrays
        return Packed(weight, scales, biases[0] if biases else None, form.packing)


@dataclass(frozen=True, slots=True)
class _Unreadable(Source):
    """A tensor whose storage is not known: a fault only where the model needs it."""

    fault: CheckpointError


def gather(
    tensors: Mapping[str, TensorHeader],
    prefixes: Mapping[str, str] | None = None,
    block: tuple[int, int] = BLOCK,
    declared: Declared = NOT_DECLARED,
) -> dict[str, Source]:
    """What the tensors of a checkpoint are, by the names that rules see.

    One that is stored in an unknown way is a fault once it is needed: `check_sources`.

    Args:
        tensors: The headers by name.
        prefixes: Beginnings of names, and what stands in their place; the first that is there counts.
        block: Rows and columns that share a scale in fp8 files.
        declared: What config.json says of integer weights.

    Raises:
        CheckpointError: AX555 two tensors have one name without their prefixes, or are two forms of one.
    """
    named = _renamed(tensors, prefixes or {})
    members: set[str] = set()
    found: dict[str, Source] = {}
    for name, header in named.items():
        try:
            source = _stored(name, header, named, block, declared)
        except CheckpointError as fault:
            scales = [named[name + end] for end in _FP8_SCALES if name + end in named]
            source = _Unreadable(name, (header, *scales), fault)
        if source.name in found:
            other = found[source.name].tensors[0]
            raise _unreadable(header, f"and `{shown(other.name)}` are both stored for `{shown(source.name)}`")
        found[source.name] = source
        members.update(own for own in _names_of(source, name) if own != source.name)
    return {name: source for name, source in found.items() if name not in members}


def _names_of(source: Source, name: str) -> list[str]:
    """The names of a source's tensors without the prefix."""
    cut = len(source.tensors[0].name) - len(name)
    return [tensor.name[cut:] for tensor in source.members()]


def _renamed(tensors: Mapping[str, TensorHeader], prefixes: Mapping[str, str]) -> dict[str, TensorHeader]:
    if not prefixes:
        return dict(tensors)
    named: dict[str, TensorHeader] = {}
    for name, header in tensors.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        short = name if prefix is None else prefixes[prefix] + name[len(prefix) :]
        if short in named:
            raise _unreadable(header, f"and `{shown(named[short].name)}` have one name without their prefixes")
        named[short] = header
    return named


def _stored(
    name: str, header: TensorHeader, named: Mapping[str, TensorHeader], block: tuple[int, int], declared: Declared
) -> Source:
    """The source that a tensor is the first part of."""
    if header.blocks is not None:
        return Blocks(name, (header,), shape_in_numbers(header.shape, header.blocks))
    try:
        if (source := integers(name, header, named, declared)) is not None:
            return source
    except Unknown as unknown:
        return _Unreadable(unknown.name, unknown.tensors, _unreadable(header, str(unknown)))
    if header.dtype == "F8_E4M3":
        return _fp8(name, header, named, block)
    if header.dtype == "U8" and name.endswith("_blocks"):
        scales = named.get(f"{name.removesuffix('_blocks')}_scales")
        if scales is not None:
            return _mxfp4(name.removesuffix("_blocks"), header, scales)
    if header.dtype == "U32" and name.endswith(".weight"):
        base = name.removesuffix("weight")
        scales = named.get(f"{base}scales")
        if scales is not None:
            return _mlx_packed(name, header, scales, named.get(f"{base}biases"))
    return Source(name, (header,))


def _fp8(name: str, header: TensorHeader, named: Mapping[str, TensorHeader], block: tuple[int, int]) -> Source:
    scale = next((named[name + end] for end in _FP8_SCALES if name + end in named), None)
    if scale is None:
        raise _unreadable(header, f"is fp8 without `{shown(name)}_scale_inv`")
    if scale.dtype not in _FLOATS:
        raise _unreadable(scale, f"is {scale.dtype}, not a float")
    if scale.shape in ((), (1,)):
        return _Fp8(name, (header, scale), block)
    shape, scales = header.shape, scale.shape
    if len(shape) >= 2 and len(scales) == len(shape) and scales[:-2] == shape[:-2]:
        sides = [_side(length, count, side) for length, count, side in zip(shape[-2:], scales[-2:], block, strict=True)]
        if None not in sides:
            return _Fp8(name, (header, scale), (sides[0] or 1, sides[1] or 1))
    raise _unreadable(scale, f"has shape {list(scales)}, which is not one scale for each block of {list(shape)}")


def _side(length: int, count: int, side: int) -> int | None:
    """The side of a block if `count` blocks cover `length`: `side`, or one for all, or the next power of two."""
    if count == -(-length // side):
        return side
    if not 0 < count <= length:
        return None
    guess = 1 << (-(-length // count) - 1).bit_length() if count > 1 else length
    return guess if count == -(-length // guess) else None


def _mxfp4(name: str, blocks: TensorHeader, scales: TensorHeader) -> Source:
    if scales.dtype != "U8" or len(blocks.shape) < 3 or blocks.shape[-1] != 16 or blocks.shape[:-1] != scales.shape:
        raise _unreadable(blocks, f"{list(blocks.shape)} and its scales {list(scales.shape)} are not mxfp4")
    return _Mxfp4(name, (blocks, scales))


def _mlx_packed(name: str, weight: TensorHeader, scales: TensorHeader, biases: TensorHeader | None) -> Source:
    source = _MlxPacked(name, (weight, scales) if biases is None else (weight, scales, biases))
    same = len(weight.shape) >= 2 and weight.shape[:-1] == scales.shape[:-1] and scales.shape[-1] > 0
    kind = scales.dtype in (_FLOATS if biases else ("U8",))
    if not same or not kind or (biases and biases[1:3] != scales[1:3]) or not source.forms():
        raise _unreadable(weight, f"{list(weight.shape)} with scales {scales.dtype} {list(scales.shape)} is not packed")
    return source


def _unreadable(header: TensorHeader, what: str) -> CheckpointError:
    message = f"`{header.file.name}`: tensor `{shown(header.name)}` {what}"
    return CheckpointError("AX555", message, "the storage format is not known, or the file was changed")


def check_sources(sources: Iterable[Source], integers: bool = False) -> None:
    """Refuse what is needed and cannot be read: unknown storage, or plain tensors that are not floats.

    Args:
        sources: What a rule takes.
        integers: Whether the rule is for integers instead.

    Raises:
        CheckpointError: AX555.
    """
    kinds, what = (_INTEGERS, "an integer") if integers else (_FLOATS, "a float")
    for source in sources:
        if isinstance(source, _Unreadable):
            raise source.fault
        header = source.tensors[0]
        if type(source) is Source and header.dtype not in kinds:
            why = "a type that MLX does not have" if header.dtype in NOT_IN_MLX else f"not {what}"
            raise _unreadable(header, f"is {header.dtype}, {why}")
