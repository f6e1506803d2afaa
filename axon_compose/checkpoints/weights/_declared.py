"""What `quantization_config` of config.json says of the weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.checkpoints.weights._integers import NOT_DECLARED, Declared
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.config import Config

__all__ = ["declared_in"]

#: Formats of compressed-tensors that are read.
_COMPRESSED: Final = ("dense", "float-quantized", "int-quantized", "naive-quantized", "pack-quantized")
_FLOATS: Final = ("fp8", "mxfp4")


def declared_in(config: Config | None) -> Declared:
    """How integer weights are meant, in the words of transformers' `quantization_config`.

    Raises:
        CheckpointError: AX555 the weights are stored by a method that is not read; names it.
    """
    written = config.value("quantization_config") if config else None
    if not isinstance(written, Mapping):
        return NOT_DECLARED
    method = written.get("quant_method")
    if method is None or method in _FLOATS:
        return NOT_DECLARED
    if method == "gptq":
        version_2 = written.get("checkpoint_format") == "gptq_v2"
        return Declared(method, bool(written.get("sym", True)), 0 if version_2 else 1, bool(written.get("desc_act")))
    if method == "awq" and str(written.get("version", "gemm")).lower() == "gemm":
        return Declared(method, symmetric=not written.get("zero_point", True))
    if method == "compressed-tensors" and written.get("format", "dense") in _COMPRESSED:
        return Declared(method)
    raise CheckpointError(
        "AX555",
        f"the weights are stored by `{method}`{_details(written)}, which is not read",
        "take a checkpoint in bfloat16, GPTQ, AWQ, fp8, mxfp4 or MLX's own packing; or have transformers unpack it: "
        "`AutoModelForCausalLM.from_pretrained(…).dequantize().save_pretrained(DIR)`",
    )


def _details(written: Mapping[str, Any]) -> str:
    """The words that tell the kinds of a method apart."""
    names = ("format", "version", "bnb_4bit_quant_type", "quant_algo", "quant_type")
    found = [str(written[name])[:40] for name in names if isinstance(written.get(name), str)]
    found += [f"{bits} bits" for bits in (8, 4) if written.get(f"load_in_{bits}bit") is True]
    return f" ({', '.join(found)})" if found else ""
