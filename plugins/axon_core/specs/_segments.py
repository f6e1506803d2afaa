"""How many tokens of a recurrence are worked on at a time, between two states that the backward pass starts from."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BLOCK",
    "CHANNELS_RECOMPUTED",
    "RECOMPUTED",
    "SCAN_ALONE",
    "SSD_BLOCK",
    "delta_chunk",
    "delta_chunks",
    "scan_tokens",
    "ssd_blocks",
    "ssd_cut",
]

#: Queries in a block of attention. Smaller wastes fewer scores outside the band, larger makes fewer calls; 64 to 128 is
#: flat.
BLOCK: Final = 64
#: One temporary of a segment, of which some four to ten live at once. Above 32 MiB every operation on the CPU pays page
#: faults.
_BYTES: Final = 8 * 2**20
#: Temporaries of a segment of the selective scan that live at once in its backward pass: measured, 13 to 22.
RECOMPUTED: Final = 18
_SCAN_RANGE: Final = (32, 256)
#: Numbers of a state from which on one step for each token is faster than blocks that are worked on side by side.
SCAN_ALONE: Final = 8192
#: Tokens of a block of state space duality.
SSD_BLOCK: Final = 32
#: The same for the delta rules, and chunks at most: the memory of the backward pass grows with their square.
_DELTA_BYTES: Final = 2 * 2**20
_DELTA_CHUNKS: Final = 16
#: Temporaries of a segment of the delta rule with decays of channels that live at once in its backward pass: measured.
CHANNELS_RECOMPUTED: Final = 44


def scan_tokens(elements: int) -> int:
    """Tokens of a segment of a selective scan, a power of two, for states of this number of elements."""
    low, high = _SCAN_RANGE
    if elements >= SCAN_ALONE:
        return low  # nothing is gained by more
    fitting = max(1, _BYTES // (4 * elements))
    return min(high, max(low, 1 << (fitting.bit_length() - 1)))


def ssd_cut(tokens: int, block: int = SSD_BLOCK) -> tuple[int, int]:
    """Number of blocks of state space duality, and tokens of each: at most `block`, with the fewest padded ones.

    65 tokens become three blocks of 22, not three of 32.
    """
    blocks = -(-tokens // block)
    return blocks, -(-tokens // blocks)


def ssd_blocks(heads: int, steps: int, width: int, states: int) -> int:
    """Blocks of `steps` tokens in a segment of state space duality; heads of all sequences count."""
    elements = heads * max(steps * steps, steps * width, width * states)
    return max(1, _BYTES // (4 * elements))


def delta_chunk(tokens: int, most: int = 32) -> int:
    """Tokens that a delta rule solves together, a power of two: no more than hold the sequence."""
    return min(most, 1 << (tokens - 1).bit_length())


def delta_chunks(numbers: int) -> int:
    """Chunks in a segment of a delta rule whose largest temporary has this number of entries for each."""
    return min(_DELTA_CHUNKS, max(1, _DELTA_BYTES // (4 * numbers)))
