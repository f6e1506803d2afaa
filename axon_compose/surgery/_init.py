"""What new parts begin with: `init` of an edit, and the way to each component's parameters that it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from axon_compose.diagnostics import Problems, Span
from axon_compose.plan import Use
from axon_compose.registry import (
    Case,
    Guard,
    Normal,
    Piece,
    PluginFault,
    Raised,
    Transfer,
    matching,
    pieces_of,
    transfers_from,
)
from axon_compose.surgery._component import Faulty
from axon_compose.surgery._making import COPIED, Kept, Made, Making

__all__ = ["GENERIC", "Beginning", "Init", "read_init"]

#: Ways that need no record of a component.
GENERIC: Final = ("keep", "copy", "random", "zero_out")
#: Keys beside them and beside any transfer.
_COMMON: Final = ("noise", "seed")


@dataclass(frozen=True)
class Init:
    """An `init` as written.

    Attributes:
        name: The way; None for the usual one.
        source: Another component that the parameters come from, by its name; None for the one that is replaced.
        noise: Of each matrix's standard deviation.
        seed: Of random numbers; None for the one of the command.
        settings: Further keys, for a transfer.
        span: Where it is written, or what it is missing from.
    """

    name: str | None
    source: str | None
    noise: float
    seed: int | None
    settings: Mapping[str, Any]
    span: Span


def read_init(written: str | Mapping[str, Any] | None, span: Span, problems: Problems) -> Init:
    """An `init` out of its text or mapping.

    Raises:
        Faulty: It is neither; reported.
    """
    if written is None or isinstance(written, str):
        return Init(written, None, 0.0, None, {}, span)
    keys = iter(written.items())
    name, value = next(keys, ("", None))
    settings = dict(keys)
    noise, seed = settings.pop("noise", 0.0), settings.pop("seed", None)
    hint = "the way comes first, then its settings: `{copy: mlp, noise: 0.01}`"
    if not name or name in _COMMON or not isinstance(value, str | None):
        problems.error("AX927", "this `init` does not begin with a way to begin", span, help=hint)
    elif isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 10:
        problems.error("AX927", f"`noise` is {noise!r:.40}, not a number from 0 to 10", span, help=hint)
    elif isinstance(seed, bool) or not isinstance(seed, int | None) or not 0 <= (seed or 0) < 2**64:
        problems.error("AX927", f"`seed` is {seed!r:.40}, not a number from 0 to 2^64 - 1", span, help=hint)
    else:
        return Init(name, value, float(noise), seed, settings, span)
    raise Faulty


@dataclass(frozen=True)
class Beginning:
    """Decides how a new component begins.

    Attributes:
        init: As the edit has it.
        problems: Collects faults.
        seed: Where the edit has none.
        additions: Outputs that are added to the residual stream.
        reported: Faults of this edit that were reported already; layers are often alike.
    """

    init: Init
    problems: Problems
    seed: int
    additions: int
    reported: set[str] = field(default_factory=set)

    def of(self, new: Use, old: Use | None, making: Making | None) -> Making:
        """How a component comes about.

        Args:
            new: The component.
            old: What it is made from; None if there is nothing.
            making: How that one comes about.

        Raises:
            Faulty: There is no such way; reported.
        """
        name = self.init.name
        known = transfers_from(new.spec.transfers, new.type, old.type) if old else {}
        usual = name is None or (name == "transfer" and name not in known)
        if usual and old is not None and making is not None and _alike(new, old):
            if "transfer" in known:  # its record says which options may differ: equal shapes can hold other heads
                self._transferred(known["transfer"], new, old, making)
            return making
        if name is None:
            name = "transfer"
            if name not in known:
                self._no_way(new, old, known)
        if name in known:
            return self._transferred(known[name], new, old, making)
        from_other = name == "copy" and old is not None and new.type != old.type and "transfer" in known
        if self.init.settings and name in GENERIC and not from_other:
            unknown = next(iter(self.init.settings))
            self._fail("AX927", f"`{name}` has no setting `{unknown}`", "it takes `noise` and `seed`")
        match name:
            case "random":
                return self._made(new, "random")
            case "zero_out":
                kept = old is not None and making is not None and _alike(new, old)
                return self._made(new, name, making if kept else None, zeroed=frozenset(self._added(new)))
            case "keep" | "copy":
                if old is not None and making is not None:
                    if from_other:
                        return self._transferred(known["transfer"], new, old, making)
                    return self._copied(new, name, old, making)
                self._fail("AX926", f"`{new.name}` has nothing to {name}", "write `init: random`")
        return self._unknown(name, new, old, known)

    def _unknown(self, name: str, new: Use, old: Use | None, known: Mapping[str, Transfer]) -> NoReturn:
        ways = [*known, *GENERIC]
        near = self.problems.nearest(name, ways)
        hint = f"did you mean `{near}`?" if near else f"`{_short(new)}` can begin by {', '.join(ways)}"
        source = f" from `{_short(old)}`" if old else ""
        self._fail("AX927", f"there is no way `{name}` to make `{_short(new)}`{source}", hint)

    def _no_way(self, new: Use, old: Use | None, known: Mapping[str, Transfer]) -> NoReturn:
        ways = [*known, "random", "zero_out"]
        source = f"`{_short(old)}`" if old else "nothing"
        message = f"`{_short(new)}` cannot be made from {source} unless `init` says how"
        self._fail("AX925", message, f"write `init:` with one of {', '.join(ways)}")

    def _transferred(self, transfer: Transfer, new: Use, old: Use | None, making: Making | None) -> Made:
        assert old is not None
        if transfer.needs and not isinstance(making, Kept):
            message = f"`{transfer.name}` needs the {transfer.needs} of `{old.name}`, which an edit before has made"
            self._fail("AX931", message, "only what the source has can be measured: edit it first, into a folder")
        settings, faults = transfer.settled(self.init.settings)
        for fault in faults:
            self._report("AX927", fault.message, fault.help or fault.label)
        if faults:
            raise Faulty
        case = Case(new.options, new.dims, old.options, old.dims, settings)
        try:
            pieces = pieces_of(transfer, case, new.who, new.params, old.params)
        except PluginFault as fault:
            self._fail(fault.code, fault.message, fault.help)
        if isinstance(pieces, str):
            self._fail("AX926", f"`{new.name}` cannot be made from `{old.name}`: {pieces}", self._other(new, old))
        return self._made(new, transfer.name, making, pieces=pieces, transfer=transfer, case=case)

    def _copied(self, new: Use, name: str, old: Use, making: Making) -> Making:
        """The parameters of another component as they are; all of them must be there, in the same shapes."""
        if _alike(new, old) and not self.init.noise:
            return making
        pieces = dict(_pairs(new, old))
        lost = [each for each in new.params if each not in pieces]
        if lost:
            shape = list(new.params[lost[0]])
            other = f", there it is {list(old.params[lost[0]])}" if lost[0] in old.params else ""
            message = f"`{new.name}` cannot {name} `{old.name}`: `{lost[0]}` is {shape}{other}"
            self._fail("AX926", message, self._other(new, old))
        return self._made(new, name, making, pieces=pieces)

    def _other(self, new: Use, old: Use) -> str:
        ways = [*transfers_from(new.spec.transfers, new.type, old.type), "random", "zero_out"]
        used = self.init.name or "transfer"
        return f"other ways are {', '.join(way for way in ways if way != used)}"

    def _made(self, new: Use, init: str, base: Making | None = None, **more: Any) -> Made:
        if base is not None and "pieces" not in more:
            more["pieces"] = {name: Piece((name,), COPIED) for name in new.params}
        seed = self.seed if self.init.seed is None else self.init.seed
        return Made(new, init, base, noise=self.init.noise, seed=seed, additions=self.additions, **more)

    def _added(self, new: Use) -> Iterator[str]:
        """Parameters of the matrices whose output is added to the residual stream, biases included."""
        declared = new.spec.learning.initial
        try:
            with Guard():
                rules = declared(new.options, new.dims) if declared else {}
        except Raised as raised:
            self._fail("AX926", f"`learning.initial` of {new.who} raises {raised}", None)
        adding = [pattern for pattern, rule in rules.items() if isinstance(rule, Normal) and rule.residual]
        modules = {name.rpartition(".")[0] for name in new.params if matching(name, adding)}
        if not modules:
            message = f"`{_short(new)}` does not say which of its matrices add to the stream, so it cannot add nothing"
            self._fail("AX926", message, "write `init: random`, or insert a block without it")
        yield from (name for name in new.params if name.rpartition(".")[0] in modules)

    def _report(self, code: str, message: str, hint: str | None) -> None:
        if message not in self.reported:
            self.reported.add(message)
            self.problems.error(code, message, self.init.span, help=hint)

    def _fail(self, code: str, message: str, hint: str | None) -> NoReturn:
        self._report(code, message, hint)
        raise Faulty


def _alike(new: Use, old: Use) -> bool:
    """Whether a component has the parameters of another of its type."""
    return new.type == old.type and dict(new.params) == dict(old.params)


def _pairs(new: Use, old: Use) -> Iterator[tuple[str, Piece]]:
    """Parameters with the same name and shape; of others, those of a shape that is only once on both sides."""
    left: list[str] = []
    for name, shape in new.params.items():
        if old.params.get(name) == shape:
            yield name, Piece((name,), COPIED)
        else:
            left.append(name)
    for name in left:
        shape = new.params[name]
        here = [each for each in left if new.params[each] == shape]
        there = [each for each, other in old.params.items() if other == shape and each not in new.params]
        if len(here) == len(there) == 1:
            yield name, Piece((there[0],), COPIED)


def _short(use: Use) -> str:
    """A type as files write it."""
    return use.type.removeprefix("core/")
