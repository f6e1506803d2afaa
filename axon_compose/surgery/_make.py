"""The numbers of a plan, one component at a time: read, converted, drawn, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

import mlx.core as mx
import numpy as np

from axon_compose.checkpoints.weights import Parameters
from axon_compose.model import component_weights
from axon_compose.registry import DEBUG_HELP, Case, Guard, PluginFault, Raised, load_make, matching
from axon_compose.surgery._making import Kept, Made, Making
from axon_compose.surgery._plan import SurgeryPlan
from axon_compose.surgery._silent import require_silent

__all__ = ["Maker"]

#: Arrays up to this many bytes stay until they are asked for: a file holds wide numbers first, so that those of one
#: component are not asked for in a row.
_SMALL: Final = 1 << 20


class Maker:
    """Makes the tensors of a plan.

    Args:
        plan: The plan, with weights.
        measured: What its transfers need, by the paths of the source's components.
    """

    def __init__(self, plan: SurgeryPlan, measured: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.measured = measured or {}
        assert plan.load_plan is not None
        self.plan, self.parameters = plan, Parameters(plan.load_plan)
        self.steps = {step.name: step for step in plan.steps}
        self._made: dict[str, mx.array] = {}

    def take(self, path: str, name: str) -> mx.array | Iterator[mx.array]:
        """A parameter of a component of the new model; asked for once.

        Args:
            path: The component's path.
            name: The parameter's name in it.

        Returns:
            The array; of a large one that is kept, its pieces (rows, K) in order.
        """
        full, making = f"{path}.{name}", self.plan.makings[path]
        if isinstance(making, Kept):
            pieces = self.parameters.pieces(f"{making.use.path}.{name}", self.steps[full].dtype)
            if pieces is not None:
                return pieces
        if full not in self._made:
            small = {key: value for key, value in self._made.items() if value.nbytes <= _SMALL}
            self._made = {}
            mx.clear_cache()
            self._made = small | self._component(path, name)
        return self._made.pop(full)

    def _component(self, path: str, name: str) -> dict[str, mx.array]:
        """The parameters of a component; of one that is kept, the one that is asked for."""
        making = self.plan.makings[path]
        names = [name] if isinstance(making, Kept) else list(making.use.params)
        values = self.values(making, names)
        if isinstance(making, Made) and making.init == "zero_out":
            require_silent(making.use, values)
        return {f"{path}.{each}": value.astype(self._dtype(f"{path}.{each}")) for each, value in values.items()}

    def _dtype(self, full: str) -> mx.Dtype:
        return getattr(mx, self.steps[full].dtype)  # type: ignore[no-any-return]

    def values(self, making: Making, names: Iterable[str]) -> dict[str, mx.array]:
        """Parameters of a component, rounded to the types that a folder would have them in."""
        names = list(names)
        if isinstance(making, Kept):
            full = {f"{making.use.path}.{name}": name for name in names}
            read = self.parameters.read({each: self.plan.dtypes[each] for each in full})
            return {full[each]: value for each, value in read.items()}
        return {name: value for name, value in self._made_values(making, names).items() if name in set(names)}

    def _made_values(self, made: Made, names: Iterable[str]) -> dict[str, mx.array]:
        found: dict[str, mx.array] = {}
        if made.base is not None and made.transfer is None:
            wanted = [name for name in names if name in made.pieces and name not in made.zeroed]
            found = {name: rows for name in wanted if (rows := self._cut(made, name)) is not None}
            wanted = [name for name in wanted if name not in found]
            base = self.values(made.base, {source for name in wanted for source in made.pieces[name].sources})
            found |= {name: self._gathered(made, name, base[made.pieces[name].sources[0]]) for name in wanted}
        elif made.base is not None and made.transfer is not None:
            pieces = self._transferred(made)
            found = {name: self._rounded(made, name, mx.array(pieces.pop(name))) for name in list(pieces)}
        missing = [name for name in names if name not in found]
        if set(missing) - made.zeroed:
            seed = _number(f"{made.seed} {made.use.path}")
            drawn = component_weights(made.use, seed=seed, additions=made.additions)
            found |= {name: self._rounded(made, name, drawn[name]) for name in missing if name not in made.zeroed}
        for name in missing:
            if name in made.zeroed:
                found[name] = self._rounded(made, name, mx.zeros(made.use.params[name]))
        return {name: self._with_noise(made, name, found.pop(name)) for name in list(found)}

    def _cut(self, made: Made, name: str) -> mx.array | None:
        """The rows of the tokens that stay, out of the pieces of a large table; None of any other parameter."""
        base, (source, *_) = made.base, made.pieces[name].sources
        single = made.axes.get(name) == 0 and all(len(row) == 1 for row in made.rows)
        if not single or not isinstance(base, Kept) or len(base.use.params[source]) != 2:
            return None
        full = f"{base.use.path}.{source}"
        pieces = self.parameters.pieces(full, self.plan.dtypes[full])
        if pieces is None:
            return None
        wanted = np.array([row[0] for row in made.rows])
        order = np.argsort(wanted, kind="stable")
        found, first = [], 0
        for piece in pieces:
            begin, end = np.searchsorted(wanted[order], [first, first + len(piece)])
            if begin < end:
                found.append(piece[mx.array(wanted[order[begin:end]] - first)])
                mx.eval(found[-1])
            first += len(piece)
        return mx.concatenate(found)[mx.array(np.argsort(order))]

    @staticmethod
    def _gathered(made: Made, name: str, value: mx.array) -> mx.array:
        """The rows of other tokens, where a parameter has those."""
        if name not in made.axes:
            return value
        axis = made.axes[name]
        rows = mx.moveaxis(value, axis, 0)
        found = rows[mx.array([row[0] if row else 0 for row in made.rows])]
        several = [token for token, row in enumerate(made.rows) if len(row) != 1]
        if several:
            wide = rows.astype(mx.float32)
            whole = wide.mean(axis=0)
            means = [wide[mx.array(row)].mean(axis=0) if row else whole for row in (made.rows[t] for t in several)]
            found[mx.array(several)] = mx.stack(means).astype(found.dtype)
        return mx.contiguous(mx.moveaxis(found, 0, axis))

    def _rounded(self, made: Made, name: str, value: mx.array) -> mx.array:
        """What was computed, in the type that it is written in; at once, so that the wider numbers can go."""
        wide = name in made.use.spec.float32
        found = value.astype(mx.float32 if wide else getattr(mx, self.plan.dtype))
        mx.eval(found)
        return found

    def _with_noise(self, made: Made, name: str, value: mx.array) -> mx.array:
        if not made.noisy(name) or matching(name, made.use.spec.learning.adamw):
            return value
        wide = _numpy(value)
        drawn = _rng(f"{made.seed} {made.use.path}.{name}").standard_normal(wide.shape, np.float32)
        drawn *= np.float32(made.noise) * wide.std()
        drawn += wide
        del wide
        found = mx.array(drawn).astype(value.dtype)
        mx.eval(found)
        return found

    def _transferred(self, made: Made) -> dict[str, np.ndarray]:
        """What the transfer of a component's record makes of its source.

        Raises:
            PluginFault: AX208 its code cannot be imported; AX212 it raises, or gives other arrays than it declares.
        """
        assert made.transfer is not None
        assert made.base is not None
        wanted = sorted({source for piece in made.pieces.values() for source in piece.sources})
        arrays = {name: _numpy(value) for name, value in self.values(made.base, wanted).items()}
        make = load_make(made.transfer, made.use.who)
        rng = _rng(f"{made.seed} {made.use.path}")
        assert made.case is not None
        case = replace(made.case, measured=self.measured.get(made.base.use.path)) if made.transfer.needs else made.case
        found = _called(make, made, case, arrays, rng)
        shapes = {name: made.use.params[name] for name in made.pieces}
        given = {name: tuple(np.shape(value)) for name, value in found.items()}
        if given != shapes:
            odd = next(name for name in {**shapes, **given} if shapes.get(name) != given.get(name))
            message = f"the transfer `{made.transfer.name}` of {made.use.who} gives `{odd}` as {given.get(odd)}, "
            raise PluginFault("AX212", f"{message}declared {shapes.get(odd)}")
        return {name: np.asarray(value, np.float32) for name, value in found.items()}


def _called(
    make: Callable[..., Any], made: Made, case: Case, arrays: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Mapping[str, Any]:
    what = f"the transfer `{made.init}` of {made.use.who}"
    try:
        with Guard(None):
            found = make(case, arrays, rng)
    except Raised as raised:
        raise PluginFault("AX212", f"{what} raises {raised}", DEBUG_HELP) from raised
    if not isinstance(found, Mapping):
        raise PluginFault("AX212", f"{what} gives a {type(found).__name__}, not a mapping of names to arrays")
    return found


def _numpy(value: mx.array) -> np.ndarray:
    """An array in float32, which holds every number of the narrower types."""
    return np.array(value.astype(mx.float32))


def _number(text: str) -> int:
    """A seed out of a text, the same on every machine."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


def _rng(text: str) -> np.random.Generator:
    return np.random.default_rng(_number(text))
