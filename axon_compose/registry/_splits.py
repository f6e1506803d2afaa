"""How a component is split over several devices: what each of them keeps of it, and how their outputs become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final, Literal

from axon_compose.record import record

__all__ = ["ONCE", "WHOLE", "Cut", "Gathered", "Role", "Segment", "Shard", "Split", "Summed", "columns", "rows"]


def _same(array: Any) -> Any:
    return array


@record
class Shard:
    """Which part of a model that is split over devices a component is made for: `dims.shard`, as factories see it.

    Attributes:
        rank: The device, from 0.
        size: Number of devices; 1 for a model that is not split.
        sum: `(array)` to the sum of the arrays that all devices call it with, for components that need one inside, such
            as a norm over channels that lie on several devices. The array itself where the model is not split.
        gather: `(array)` to the arrays of all devices side by side along the last axis, in the order of the devices.
    """

    rank: int = 0
    size: int = 1
    sum: Callable[[Any], Any] = field(default=_same, compare=False, repr=False)
    gather: Callable[[Any], Any] = field(default=_same, compare=False, repr=False)


@record
class Segment:
    """Entries that follow each other along the axis that is cut, such as the queries in a fused projection.

    Attributes:
        size: How many entries.
        units: How many pieces of equal size they consist of that stay whole, such as heads. Devices get the same number
            of them, in order; where there are fewer units than devices, neighbouring devices keep the same unit. None
            if every device keeps all entries.
        padded: Whether units are shared out as they come where they do not divide, as many to each device as the first
            one gets: the last ones keep fewer, and have zeros after them.
    """

    size: int
    units: int | None
    padded: bool = False

    def length(self, size: int) -> int:
        """Entries that each of a number of devices has, with those that are zeros."""
        if self.padded and self.units:
            return -(-self.units // size) * (self.size // self.units)
        first, end = self.kept(0, size)
        return end - first

    def kept(self, rank: int, size: int) -> tuple[int, int]:
        """The first entry that a device keeps, and the one after its last.

        Args:
            rank: The device.
            size: Number of devices.

        Raises:
            ValueError: If the devices cannot get equal parts.
        """
        if self.units is None:
            return 0, self.size
        width, rest = divmod(self.size, self.units)
        if self.padded and not rest:
            each = self.length(size)
            return min(rank * each, self.size), min((rank + 1) * each, self.size)
        if rest or (self.units % size and size % self.units):
            raise ValueError(f"{self.size} entries in {self.units} units cannot be split over {size} devices")
        if self.units < size:
            unit = rank * self.units // size
            return unit * width, (unit + 1) * width
        each = self.units // size
        return rank * each * width, (rank + 1) * each * width


@record
class Cut:
    """A parameter of which each device keeps a part.

    Attributes:
        axis: The axis that is cut, from 0: of a matrix (outputs, inputs) 0 for its rows and 1 for its columns.
        segments: What lies along that axis, in order; a padded one is the last.
    """

    axis: int
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if any(segment.padded for segment in self.segments[:-1]):
            raise ValueError("zeros are at the end of a part: only the last segment can be padded")

    def length(self, size: int) -> int:
        """Entries along the axis that each of a number of devices has.

        Raises:
            ValueError: If the devices cannot get equal parts.
        """
        return sum(segment.length(size) for segment in self.segments)

    def ranges(self, rank: int, size: int) -> tuple[tuple[int, int], ...]:
        """First entries and ends of what a device keeps, in order; zeros follow up to `length`.

        Raises:
            ValueError: If the devices cannot get equal parts.
        """
        found, start = [], 0
        for segment in self.segments:
            first, end = segment.kept(rank, size)
            found.append((start + first, start + end))
            start += segment.size
        return tuple(found)


#: Every device keeps the whole parameter.
WHOLE: Final = "whole"
#: The first device keeps the whole parameter and the others zeros, such as a bias that is added before a sum.
ONCE: Final = "once"
Role = Cut | Literal["whole", "once"]


def rows(size: int, units: int | None = None, *, padded: bool = False) -> Cut:
    """A cut along the first axis: of a matrix its outputs.

    Args:
        size: Length of the axis.
        units: Pieces that stay whole; every row by itself unless given.
        padded: See `Segment`.
    """
    return Cut(0, (Segment(size, size if units is None else units, padded),))


def columns(size: int, units: int | None = None) -> Cut:
    """A cut along the second axis: of a matrix its inputs; the devices' outputs are to be summed.

    Args:
        size: Length of the axis.
        units: Pieces that stay whole; every column by itself unless given.
    """
    return Cut(1, (Segment(size, size if units is None else units),))


@record
class Summed:
    """What a component sums over the devices itself, by `dims.shard.sum`, each time that it is called.

    Attributes:
        width: How many numbers, for each token.
        dtype: Their type; None follows the activations.
    """

    width: int
    dtype: str | None = None


@record
class Gathered:
    """What a component puts together of all devices itself, by `dims.shard.gather`, each time that it is called.

    Attributes:
        width: How many numbers of all devices, for each token.
        dtype: Their type; None follows the activations.
    """

    width: int
    dtype: str | None = None


@record
class Split:
    """What each of several devices has of a component. All get equal shapes.

    Attributes:
        options: Of the part, such as a share of the heads: an instance of the options' class, or a mapping as a file
            writes it. The record's own functions give the part's parameters, its cache and its costs.
        roles: Parameters to what each device keeps of them; those that are not named are whole on every device.
        output: What becomes of the parts' outputs: `sum`, `gather` (parts along the last axis; what is beyond the
            whole, of a padded part, is left out), or `whole` where each device computes the same.
        dims: Sizes of the model that are others for the part, such as the rows of an embedding's table.
        published: Values that the part publishes or reads of which each device has a part, such as keys of its heads.
        inside: What the part sums or gathers over the devices itself, besides its output.
        gathered: How many numbers the parts' outputs are together, for each token, where these are more than the
            whole's and what rounds them up to a multiple of the devices.
    """

    options: Any
    roles: Mapping[str, Role] = field(default_factory=dict)
    output: Literal["sum", "gather", "whole"] = "sum"
    dims: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    inside: tuple[Summed | Gathered, ...] = ()
    gathered: int | None = None
