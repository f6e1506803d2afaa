"""Reading a checkpoint into a model, tensor by tensor: never two copies of the weights."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._tensors import Tensors, open_tensors
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.gguf._tensors import GgufTensors
from axon_compose.checkpoints.weights._packed import Packed, Packing
from axon_compose.checkpoints.weights._pieces import decoded_by_rows, in_pieces, put_together
from axon_compose.checkpoints.weights._plan_load import LoadPlan
from axon_compose.checkpoints.weights._storage import Form, Source
from axon_compose.checkpoints.weights._transfer import Output, Transfer

__all__ = ["Progress", "load_checkpoint"]

Progress = Callable[[int, int], None]

#: Parameters read concurrently; more are not faster.
_AHEAD: Final = 8


def load_checkpoint(
    model: Any, load_plan: LoadPlan, *, dtype: str | None = None, progress: Progress | None = None
) -> None:
    """Read the weights of a model.

    The tensors are read in the order of the files. What is taken as it is is read ahead; the rest is computed one by
    one, and what it is made of is let go before the next.

    Modules whose weights come quantised are quantised first, each with its own bits and group size. A weight that comes
    quantised to a module that cannot be is unpacked.

    Args:
        model: What `build` gave for the plan of `load_plan`, its weights not computed yet.
        load_plan: What `plan_load` gave.
        dtype: `float32`, `bfloat16` or `float16` for parameters that the model allows to be cast (`cast_predicate`);
            None leaves every tensor in its own type.
        progress: Called with the bytes read so far and in all.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    _quantize(model, load_plan.quantized)
    names = {name for name, _ in tree_flatten(model.parameters())}
    cast = _Cast(getattr(mx, dtype) if dtype else None, model.cast_predicate)
    files = _Files(load_plan)
    reading = _Reading(load_plan.nbytes, progress)
    weights: list[tuple[str, Any]] = []
    for transfer in load_plan.transfers:
        made = _made(transfer, files, names, cast)
        weights += made
        # what is neither computed nor cast has no second copy that must be let go
        reading.add(transfer.nbytes, [value for _, value in made], ahead=transfer.plain and not cast.dtype)
        if not transfer.plain:
            mx.clear_cache()
    reading.finish()
    model.load_weights(weights, strict=True)
    mx.clear_cache()


def _made(transfer: Transfer, files: _Files, names: set[str], cast: _Cast) -> list[tuple[str, Any]]:
    """The parameters of one transfer, not computed yet."""
    import mlx.core as mx

    first = next(output for output in transfer.outputs if output).parameter
    made: list[tuple[str, Any]] = []
    for output, value in _values(transfer, first, files, names, cast):
        base = output.parameter.removesuffix("weight")
        members = value.members if isinstance(value, Packed) else {output.parameter.removeprefix(base): value}
        made += [(base + name, member) for name, member in members.items()]
    if not transfer.plain:
        made = [(name, mx.contiguous(value)) for name, value in made]
    return made


def _values(
    transfer: Transfer, first: str, files: _Files, names: set[str], cast: _Cast
) -> Iterator[tuple[Output, Any]]:
    """The outputs of a transfer as the model has them, packed or plain."""

    def fitted(output: Output, value: Any) -> Any:
        packed = isinstance(value, Packed)
        cast_here = cast if packed or cast.dtype else cast.by(transfer.sources[0].unasked)
        place = output.parameter.removesuffix("weight") + "scales"
        if packed and place not in names:
            value = value.dense(cast_here.dtype if cast_here.may_change(output.parameter) else None)
        return cast_here(output.parameter, value)

    only = transfer.outputs[0]
    if only and decoded_by_rows(transfer):
        pieces = (fitted(only, piece) for piece in files.pieces(transfer.sources[0], transfer.form))
        yield only, put_together(pieces, transfer.form.shape)
        return
    values = [files.read(source, form) for source, form in zip(transfer.sources, transfer.forms(), strict=True)]
    if transfer.computes:
        values = [cast.wider(first, value) for value in values]
    for output, value in transfer.apply(values):
        yield output, fitted(output, value)


class _Reading:
    """Parameters on their way into memory; progress reports those that have arrived."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress = total, progress
        self.done = 0
        self.under_way: deque[tuple[int, list[Any]]] = deque()

    def add(self, nbytes: int, values: list[Any], ahead: bool) -> None:
        """Begin to read; `ahead`: do not wait until it is there."""
        import mlx.core as mx

        mx.async_eval(values)  # type: ignore[no-untyped-call]
        self.under_way.append((nbytes, values))
        self.finish(_AHEAD if ahead else 0)

    def finish(self, left: int = 0) -> None:
        """Wait until no more than these are under way."""
        import mlx.core as mx

        while len(self.under_way) > left:
            nbytes, values = self.under_way.popleft()
            mx.eval(values)
            self.done += nbytes
            if self.progress:
                self.progress(self.done, self.total)


class _Cast:
    """Casts what the model allows to be cast."""

    def __init__(self, dtype: Any, may_change: Callable[[str], bool]) -> None:
        self.dtype, self.may_change = dtype, may_change

    def __call__(self, parameter: str, value: Any) -> Any:
        import mlx.core as mx

        if self.dtype is None or not self.may_change(parameter):
            return value
        if isinstance(value, Packed) or mx.issubdtype(value.dtype, mx.floating):
            return value.astype(self.dtype)
        return value

    def by(self, dtype: str | None) -> _Cast:
        """The same for what has a usual type, where none was asked for."""
        import mlx.core as mx

        return _Cast(getattr(mx, dtype), self.may_change) if dtype else self

    def wider(self, parameter: str, value: Any) -> Any:
        """The same before numbers change, if the wanted type holds more than the one of the file."""
        if self.dtype is None or isinstance(value, Packed) or self.dtype.size <= value.dtype.size:
            return value
        return self(parameter, value)


class _Files:
    """Lazy arrays of the files; each array is handed out and forgotten, each file closed after its last."""

    def __init__(self, load_plan: LoadPlan) -> None:
        headers = (
            tensor for transfer in load_plan.transfers for source in transfer.sources for tensor in source.tensors
        )
        self.left = Counter(header.file for header in headers)
        self.open: dict[Path, Tensors] = {}

    def read(self, source: Source, form: Form) -> Any:
        """The tensor of a source, not computed yet."""
        arrays = []
        for header in source.tensors:
            arrays.append(self._file(header.file).pop(header.name))
            self._taken(header.file)
        return source.read(arrays, form)

    def pieces(self, source: Source, form: Form) -> Iterator[Any]:
        """A tensor of a GGUF file in pieces; see `in_pieces`."""
        yield from in_pieces(source, form, self._file)
        self._taken(source.tensors[0].file)

    def _file(self, path: Path) -> Any:
        if path not in self.open:
            self.open[path] = _opened(path)
        return self.open[path]

    def _taken(self, path: Path) -> None:
        """One tensor less that is wanted of a file."""
        self.left[path] -= 1
        if not self.left[path]:
            del self.open[path]


def _opened(path: Path) -> Tensors:
    return GgufTensors(path) if is_gguf(path) else open_tensors(path)


def _quantize(model: Any, packings: dict[str, Packing]) -> None:
    """Quantise the modules whose weights come so; lazily, since the weights are replaced."""
    import mlx.nn as nn

    def packing_of(path: str, module: Any) -> bool | dict[str, Any]:
        found = packings.get(path)
        return found.to_dict() if found and hasattr(module, "to_quantized") else False

    if packings:
        nn.quantize(model, class_predicate=packing_of)
