"""The small checkpoints of families in real processes: logits of a split model against the whole one.

    mlx.launch -n 2 -- python benchmarks/families_on_ranks.py              # every checkpoint, a few minutes
    mlx.launch -n 2 -- python benchmarks/families_on_ranks.py rwkv7 zamba2

`docs/devices_page.py` measures more, with threads, which compute every sum at once. Here sums are lazy, so that devices
that do not ask for the same ones are found: they wait for each other, and all end with a message.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from axon_compose.diagnostics import Refusal
from axon_compose.model import with_folder_names
from tests.families.models import NAMES, expected, model

#: Ends of passes with caches.
ENDS = (0, 7, 22, 23, 24)


def passes(subject: Any, tokens: mx.array) -> list[mx.array]:
    """Logits of one pass, of chunks and of single tokens."""
    cache, found = subject.make_cache(), [subject(tokens)]
    mx.eval(found)
    for first, end in pairwise(ENDS):
        found.append(subject(tokens[:, first:end], cache))
        mx.eval(found[-1])
    return found


def difference(name: str, group: Any) -> float:
    """Largest difference of a logit, relative to the largest one."""
    whole, tokens = model(name), expected(name)[0][:, : ENDS[-1]]
    part = with_folder_names(whole)
    part.shard(group)
    pairs = zip(passes(part, tokens), passes(whole, tokens), strict=True)
    return max(float((mx.abs(one - other).max() / mx.abs(other).max()).item()) for one, other in pairs)


def main(names: list[str]) -> None:
    """Print a line for each checkpoint, by the first process."""
    group = mx.distributed.init()
    for name in names:
        try:
            found = f"{difference(name, group):.1e}"
        except Refusal as error:
            found = error.message
        if group.rank() == 0:
            print(f"{name} {found}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES)
