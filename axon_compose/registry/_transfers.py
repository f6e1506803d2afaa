"""What the parameters of a component can be made from: those of another type, or of other options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from math import isfinite
from typing import Any, Final, Literal

from axon_compose.record import record
from axon_compose.registry._code import MODULE, load_code
from axon_compose.registry._dims import Dims
from axon_compose.registry._faults import Fault, Findings, bound
from axon_compose.registry._guard import DEBUG_HELP, Guard, PluginFault, Raised

__all__ = [
    "GENERIC_INITS",
    "NEEDS",
    "SAME",
    "Case",
    "Piece",
    "Setting",
    "Transfer",
    "TransferExample",
    "load_make",
    "pieces_of",
    "transfers_fault",
    "transfers_from",
]

#: What an edit can write without any record: no transfer may be called so.
GENERIC_INITS: Final = ("keep", "copy", "random", "zero_out", "noise")
#: What can be measured on a text for a transfer: how often each expert is chosen, how much each inner channel carries.
NEEDS: Final = ("usage", "importance")
#: The component's own type, as a source.
SAME: Final = "same"

_FREE: Final = f"none of {', '.join(GENERIC_INITS)}"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_TYPE: Final = re.compile(r"[a-z][a-z0-9_-]*/[a-z][a-z0-9_-]*")


@record
class Piece:
    """Where one parameter of the new component comes from.

    Attributes:
        sources: Parameters of the source component, named as in its `params`; empty for numbers that are set.
        rule: One line for people, such as "value rows of the source, head by head".
        exactness: `exact` where the parameter does what the source did, as far as the transfer's claim goes; `near`
            for an approximation.
    """

    sources: tuple[str, ...]
    rule: str
    exactness: Literal["exact", "near"] = "exact"


@record
class Case:
    """What a transfer knows of the two components; it holds no arrays of them.

    Attributes:
        options: Of the new component, as functions of its record get them.
        dims: Sizes of the new model.
        source_options: Of the source component.
        source_dims: Sizes of the source model.
        settings: Further keys of `init`, all that the transfer declares, with their defaults filled in.
        measured: What `needs` asks for, measured on a text: `{"usage": array}` with one number for each expert, or
            `{"importance": array}` with one for each inner channel. None before it is measured.
    """

    options: Any
    dims: Dims
    source_options: Any
    source_dims: Dims
    settings: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] | None = None


@record
class Setting:
    """A further key of `init` that a transfer takes.

    Attributes:
        default: Its value unless given; its type is that of every value, and whole numbers will do for fractions.
        summary: One line.
        least: The least number.
        most: The greatest number.
        choices: For texts: what may be written.
    """

    default: bool | int | float | str
    summary: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def expected(self) -> str:
        """What may be written, in a few words."""
        match self.default:
            case bool():
                return "true or false"
            case str():
                return f"one of {', '.join(self.choices)}" if self.choices else "a text"
        limits = [f"at least {bound(self.least)}"] if self.least is not None else []
        limits += [f"at most {bound(self.most)}"] if self.most is not None else []
        kind = "an integer" if isinstance(self.default, int) else "a number"
        return f"{kind} of {' and '.join(limits)}" if limits else kind

    def takes(self, value: object) -> bool:
        """Whether a value may be given."""
        if isinstance(self.default, bool) or isinstance(value, bool):
            return isinstance(self.default, bool) and isinstance(value, bool)
        if isinstance(self.default, str):
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if not isinstance(value, int | float if isinstance(self.default, float) else int) or not isfinite(value):
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@record
class TransferExample:
    """Two components that fit each other, tried by `axon_compose.testing`.

    Attributes:
        options: Of the new component, as a file writes them.
        source: Options of the source.
        type: Type of the source; the first that the transfer names unless given.
        settings: Further keys of `init`.
        measured: What `needs` asks for.
    """

    options: Mapping[str, Any]
    source: Mapping[str, Any]
    type: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] | None = None


@record
class Transfer:
    """One way to make a component's parameters from those of another.

    Attributes:
        name: What `init` calls it. `transfer` is the usual one of a pair of types; others have names of their own.
        sources: Full names of the types that it starts from, such as `core/attention`; `same` for its own type with
            other options.
        pieces: What it makes: parameters to where they come from. A text instead says why these options do not fit
            each other. What is not named begins as for training.
        make: `package.module:function`, imported when weights are written and called as
            `make(case, arrays, rng)`. Arrays are float32 NumPy of the source, by name; it returns those of `pieces`,
            in the shapes of `params`, and is a function of its arguments alone.
        claim: When the output is the same as before, and what is approximate else, in one sentence.
        paper: Where it was published.
        settings: Further keys of `init`.
        needs: What has to be measured on a text first, out of `NEEDS`.
        examples: Pairs that fit, tested by `axon_compose.testing`; unless given, it tries the examples of both records.
    """

    name: str
    sources: tuple[str, ...]
    pieces: Callable[[Case], Mapping[str, Piece] | str]
    make: str
    claim: str
    paper: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    needs: str | None = None
    examples: tuple[TransferExample, ...] = ()

    def settled(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
        """All settings, out of those that were written, and what is wrong with those."""
        findings = Findings(self.name, "key")
        for name in given:
            if name not in self.settings:
                findings.unknown((), name, self.settings)
        for name, setting in self.settings.items():
            if name in given and not setting.takes(given[name]):
                findings.mismatch((name,), given[name], "value", setting.expected(), setting.choices)
        return {name: given.get(name, setting.default) for name, setting in self.settings.items()}, findings.faults()

    def faults(self) -> Iterator[str]:
        """What is wrong with the declaration, in one line each."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in GENERIC_INITS:
            yield f"its name must be of the form {_NAME.pattern}, and {_FREE}"
        if not _are_types(self.sources):
            yield "`sources` must be a tuple of full type names such as `core/attention`, or `same`"
        if not callable(self.pieces):
            yield "`pieces` must be a function of a `Case`"
        if not isinstance(self.make, str) or not MODULE.fullmatch(self.make):
            yield f"make `{self.make}` is not of the form `package.module:function`"
        for name in ("claim", "paper"):
            if not isinstance(getattr(self, name), str):
                yield f"`{name}` must be a text"
        if not self.claim:
            yield "`claim` must say when the output is the same"
        if not isinstance(self.examples, tuple | list) or not all(
            isinstance(each, TransferExample) for each in self.examples
        ):
            yield "`examples` must be a tuple of records `TransferExample`"
        yield from self._setting_faults()
        if self.needs is not None and self.needs not in NEEDS:
            yield f"unknown `needs` `{self.needs}`; one of {', '.join(NEEDS)}"

    def _setting_faults(self) -> Iterator[str]:
        if not isinstance(self.settings, Mapping) or not all(
            isinstance(name, str) and isinstance(setting, Setting) for name, setting in self.settings.items()
        ):
            yield "`settings` must map names to records `Setting`"
            return
        for name, setting in self.settings.items():
            if not _NAME.fullmatch(name) or name in GENERIC_INITS:
                yield f"the setting `{name}` must be of the form {_NAME.pattern}, and {_FREE}"
            elif not setting.takes(setting.default):
                yield f"the default of the setting `{name}` is not {setting.expected()}"


def transfers_fault(transfers: object) -> str | None:
    """What is wrong with the transfers of a record, or None."""
    if not isinstance(transfers, tuple | list) or not all(isinstance(each, Transfer) for each in transfers):
        return "`transfers` must be a tuple of records `Transfer`"
    taken: set[tuple[str, str]] = set()
    for transfer in transfers:
        if fault := next(transfer.faults(), None):
            return f"transfer `{transfer.name}`: {fault}"
        pairs = {(transfer.name, source) for source in transfer.sources}
        if pairs & taken:
            return f"two transfers `{transfer.name}` start from {min(pairs & taken)[1]}"
        taken |= pairs
    return None


def transfers_from(transfers: Iterable[Transfer], own: str, source: str) -> dict[str, Transfer]:
    """The transfers of a record that start from a type, by name, the usual one first.

    Args:
        transfers: Of the record of the new component.
        own: Full name of the new component's type.
        source: Full name of the source's type.
    """
    found = [each for each in transfers if source in each.sources or (own == source and SAME in each.sources)]
    return {each.name: each for each in sorted(found, key=lambda each: each.name != "transfer")}


def pieces_of(
    transfer: Transfer, case: Case, who: str, params: Iterable[str], source_params: Iterable[str]
) -> Mapping[str, Piece] | str:
    """What a transfer makes in a case, or why it does not fit, by the plugin's own function.

    Args:
        transfer: The transfer.
        case: Both components.
        who: What messages call the new component, with its distribution.
        params: Names of the new component's parameters.
        source_params: Names of the source's.

    Raises:
        PluginFault: `AX212`, the function raises, or names what is no parameter.
    """
    name = f"`pieces` of the transfer `{transfer.name}` of {who}"
    try:
        with Guard():
            pieces = transfer.pieces(case)
    except Raised as raised:
        if isinstance(raised.error, ValueError):  # sizes that fit nowhere, as in `params`
            return raised.reason
        raise PluginFault("AX212", f"{name} raises {raised}", DEBUG_HELP) from raised
    if isinstance(pieces, str):
        return pieces
    if not isinstance(pieces, Mapping) or not all(isinstance(piece, Piece) for piece in pieces.values()):
        raise PluginFault("AX212", f"{name} gives neither a mapping of `Piece` nor a text")
    known, given = set(params), set(source_params)
    if wrong := next((each for each in pieces if each not in known), None):
        raise PluginFault("AX212", f"{name} makes `{wrong}`, which is no parameter of the component")
    read = (each for piece in pieces.values() for each in piece.sources)
    if wrong := next((each for each in read if each not in given), None):
        raise PluginFault("AX212", f"{name} reads `{wrong}`, which is no parameter of the source")
    return pieces


def load_make(transfer: Transfer, who: str) -> Callable[..., Mapping[str, Any]]:
    """Import the code of a transfer: `make(case, arrays, rng)` gives arrays by name.

    Raises:
        PluginFault: `AX208`, it cannot be imported or is not there.
    """
    return load_code(transfer.make, f"the transfer `{transfer.name}` of {who}")


def _are_types(sources: object) -> bool:
    return (
        isinstance(sources, tuple | list)
        and bool(sources)
        and all(isinstance(each, str) and (each == SAME or _TYPE.fullmatch(each)) for each in sources)
    )
