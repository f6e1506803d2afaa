"""What a message between devices costs: bytes that one device sends, and messages that wait for each other.

The figures are those of the ring algorithms, which MLX's ring backend and NCCL use for arrays that are not tiny. With n
devices, a sum of all is n - 1 steps in which each device sends an n-th of the array and adds what it receives, and
n - 1 in which the sums go round (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
workstations": no algorithm sends less). All devices send at the same time, so that bytes of one device are the time.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOTHING", "Traffic", "all_gather", "all_reduce", "all_to_all", "reduce_scatter", "send"]


@dataclass(frozen=True)
class Traffic:
    """What one device sends.

    Attributes:
        nbytes: Bytes.
        messages: Messages that wait for each other, each of which takes the latency of the link.
    """

    nbytes: float = 0.0
    messages: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.nbytes + other.nbytes, self.messages + other.messages)

    def times(self, number: int) -> Traffic:
        """The same several times, one after another."""
        return Traffic(number * self.nbytes, number * self.messages)

    def seconds(self, link: float, latency: float) -> float:
        """How long it takes.

        Args:
            link: Bytes per second that a device sends, while it receives as many.
            latency: Seconds of each message, whatever its size.
        """
        return self.messages * latency + self.nbytes / link


NOTHING = Traffic()


def all_reduce(nbytes: int, devices: int) -> Traffic:
    """Every device ends with the sum of all devices' arrays of `nbytes` bytes: 2 (n - 1) / n of one is sent."""
    return reduce_scatter(nbytes, devices) + all_gather(nbytes, devices)


def reduce_scatter(nbytes: int, devices: int) -> Traffic:
    """Every device ends with an n-th of the sum of arrays of `nbytes` bytes: (n - 1) / n is sent."""
    return Traffic((devices - 1) / devices * nbytes, devices - 1)


def all_gather(nbytes: int, devices: int) -> Traffic:
    """Every device ends with the whole of `nbytes` bytes, of which each had an n-th: (n - 1) / n is sent."""
    return Traffic((devices - 1) / devices * nbytes, devices - 1)


def all_to_all(nbytes: int, devices: int) -> Traffic:
    """Every device sends each other one its n-th of `nbytes` bytes, such as tokens to where their experts are."""
    return Traffic((devices - 1) / devices * nbytes, devices - 1)


def send(nbytes: int) -> Traffic:
    """One message to one device."""
    return Traffic(float(nbytes), 1)
