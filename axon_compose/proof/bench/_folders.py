"""The same weights for several implementations: a folder of ours, and copies of it that stock loaders read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, cast

from axon_compose.analysis.measurement import Workload
from axon_compose.plan import Compiled, compile_source
from axon_compose.proof.bench._ours import subject
from axon_compose.proof.bench._process import Process
from axon_compose.proof.bench._record import Run, Subject

__all__ = ["Peer", "make", "same_weights", "write"]

Peer = Literal["mlx-lm", "transformers"]
_OURS: Final = "axon-compose"


@contextmanager
def same_weights(
    architecture: Compiled,
    peers: Sequence[Peer],
    workload: Workload,
    *,
    dtype: str = "float32",
    quantize: int | None = None,
) -> Iterator[list[Subject]]:
    """An architecture and other implementations of it with the same random weights, as long as the folders are there.

    Args:
        architecture: What `axon_compose.load` gave; a family that the peers know.
        peers: `mlx-lm`, or `transformers` on torch.
        workload: The largest that they will run.
        dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
        quantize: Bits of quantised weights; not quantised unless given.

    Yields:
        Subjects: `axon-compose`, then the peers.

    Raises:
        Refusal: If no rules say how the weights are called there, or the stock model is another one.
        Failed: If it fails in another way.
    """
    ours = subject(architecture, workload, name=_OURS, dtype=dtype, quantize=quantize)
    if not peers:
        yield [ours]
        return
    ours.require()
    with TemporaryDirectory(prefix="axon-compose-") as name:
        folders = {peer: str(Path(name, peer)) for peer in (_OURS, *peers)}
        with Process(Subject("weights", f"{__name__}:write", {**ours.arguments, "folders": folders})):
            pass
        common = {"dtype": dtype, "vocabulary": architecture.plan().dims.vocab_size}
        made = {"transformers": "axon_compose.proof.bench._torch:make"}
        yield [
            replace(ours, name=peer, make=made.get(peer, f"{__name__}:make"), arguments={"folder": folder, **common})
            for peer, folder in folders.items()
        ]


def write(arguments: Mapping[str, Any]) -> None:
    """Write all folders."""
    from axon_compose.checkpoints.export import Kind, export
    from axon_compose.checkpoints.folder import write_model

    ours, *others = arguments["folders"].items()
    folder = Path(ours[1])
    architecture = compile_source(arguments["description"])
    write_model(architecture, folder, dtype=arguments["dtype"], quantize_bits=arguments["quantize"], allow_large=True)
    kinds: dict[str, str] = {"mlx-lm": "mlx-lm", "transformers": "huggingface"}
    for peer, target in others:
        export(folder, Path(target), cast("Kind", kinds[peer]))


def make(arguments: Mapping[str, Any]) -> Run:
    """Load a folder as `mlx_lm` does: with code of ours where it is ours, with its own where not."""
    from mlx_lm.utils import load_model

    from axon_compose.proof.bench._mlx import MLXModel

    model, _ = load_model(Path(arguments["folder"]), lazy=True, trust_remote_code=True)
    return MLXModel(model, arguments["vocabulary"])
