"""What `show` promises of caches, against what mlx-lm's caches do."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from axon_compose.plan import capabilities
from tests.helpers import planned


def quantisable(width: int, group_size: int) -> bool:
    """Whether mlx-lm's cache of such keys can be quantised in groups of this size."""
    from mlx_lm.models.cache import KVCache

    cache: Any = KVCache()
    cache.update_and_fetch(mx.zeros((1, 1, 4, width)), mx.zeros((1, 1, 4, width)))
    try:
        mx.eval(cache.to_quantized(group_size=group_size, bits=4).state)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("width", [8, 32, 48, 64, 80, 96, 128])
def test_keys_and_values_are_quantised_where_groups_divide_them(width: int) -> None:
    part = {"type": "attention", "num_heads": 2, "head_dim": width}
    plan = planned(components={"attn": part}, blocks={"a": ["attn"]}, stack="a*2")
    promised = capabilities(plan).quantizable
    assert (promised == "yes") == quantisable(width, 64)
    assert (promised == "yes, with `--kv-group-size 32`") == (quantisable(width, 32) and not quantisable(width, 64))
    assert (promised == "no") == (not quantisable(width, 32))
