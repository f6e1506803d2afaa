"""An architecture as a subject: built with random weights, run as `mlx_lm` generates."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, Final

from axon_compose.bench._record import Run, Subject, Workload
from axon_compose.cost import cost
from axon_compose.plan import DTYPES, Plan

if TYPE_CHECKING:
    from axon_compose._api import Architecture

__all__ = ["make", "subject"]

#: Tokens of a prompt that go through the model at once, as in `mlx_lm`.
CHUNK: Final = 2048
#: Arrays of float32 that are there at once while a random weight is made.
_COPIES: Final = 3


def subject(
    architecture: Architecture,
    workload: Workload,
    *,
    name: str | None = None,
    dtype: str = "bfloat16",
    quantize: int | None = None,
) -> Subject:
    """An architecture with random weights, to be measured.

    Args:
        architecture: What `axon_compose.load` gave, with the installed plugins.
        workload: What it will be run with.
        name: What it is called; its own name unless given.
        dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
        quantize: Bits of quantised weights; not quantised unless given.
    """
    plan = architecture.plan()
    sheet = cost(plan, context=workload.prompt + workload.steps, dtype=dtype, batch=workload.batch, quantize=quantize)
    return Subject(
        name=name or architecture.name,
        make=f"{__name__}:make",
        arguments={"description": architecture.data, "dtype": dtype, "quantize": quantize},
        needs=sheet.contexts[0].memory_bytes + _widest(plan),
        largest=[(use.path, use.size * DTYPES[dtype]) for use in plan.uses()],
    )


def _widest(plan: Plan) -> int:
    """Bytes that the largest weight needs while it is made."""
    sizes = (prod(shape) for use in plan.uses() for shape in use.params.values())
    return _COPIES * 4 * max(sizes, default=0)


def make(arguments: Mapping[str, Any], workload: Workload) -> Run:
    """The other side of `subject`: build the model in this process."""
    from axon_compose._api import load
    from axon_compose.model import quantize

    model = load(arguments["description"]).build(dtype=arguments["dtype"], allow_large=True)
    if arguments["quantize"]:
        quantize(model, arguments["quantize"])
    return _Model(model, workload)


class _Model:
    """Runs a model of MLX with caches of mlx-lm, greedily, on random tokens."""

    def __init__(self, model: Any, workload: Workload) -> None:
        import mlx.core as mx
        from mlx.utils import tree_flatten

        for _, weight in tree_flatten(model.parameters()):
            mx.eval(weight)  # one at a time: what a random weight is made of goes before the next
        self.mx, self.model = mx, model
        self.device = str(mx.default_device().type).removeprefix("DeviceType.")
        shape = (workload.batch, workload.prompt)
        self.prompt = mx.random.randint(0, model.plan.dims.vocab_size, shape, key=mx.random.key(0))
        self.cache: list[Any] = []
        self.token = self.prompt[:, -1:]

    def prefill(self) -> None:
        """All but the last token fill the caches, whose logits nobody asks for; the last one is a step."""
        self.cache = self.model.make_cache()
        known, self.token = self.prompt[:, :-1], self.prompt[:, -1:]
        for start in range(0, known.shape[1], CHUNK):
            self.model(known[:, start : start + CHUNK], self.cache)
            self.mx.eval([entry.state for entry in self.cache])
            self.mx.clear_cache()
        self.step()

    def step(self) -> None:
        self.token = self.mx.argmax(self.model(self.token, self.cache)[:, -1:], axis=-1)
        self.mx.eval(self.token)

    def reset_peak(self) -> None:
        self.cache = []
        self.mx.clear_cache()
        self.mx.reset_peak_memory()

    def peak_bytes(self) -> int:
        found: int = self.mx.get_peak_memory()
        return found
