"""Transfers between all examples of built-in records: what is said to be exact is, and shapes are those declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from axon_compose.registry import ComponentSpec, Dims, Registry, Transfer, TransferExample
from axon_compose.testing import _transfers as kit

DIMS = Dims({"hidden_size": 64, "vocab_size": 97})
#: One pair in this number is tried; attention has thousands.
EVERY = {"attention": 9, "moe": 3}
#: Settings without which a transfer does not fit.
SETTINGS = {"latent_attention": {"reads": 1.0}}
NAMES = ("attention", "sliding_window_attention", "moe", "mlp", "rms_norm", "layer_norm", "latent_attention")


def widened(options: Mapping[str, Any]) -> dict[str, Any]:
    """Claims are those for texts within the window, and the kit's texts have five tokens."""
    return {**options, "window_size": 8} if options.get("window_size") == 1 else dict(options)


def pairs(spec: ComponentSpec, transfer: Transfer) -> Iterator[tuple[TransferExample, ComponentSpec]]:
    for type_name in transfer.sources:
        source = kit._source(type_name, spec, Registry.installed())
        assert source is not None
        for new, old in list(product(spec.examples, source.examples))[:: EVERY.get(spec.name, 1)]:
            settings = SETTINGS.get(spec.name, {})
            yield TransferExample(widened(new), widened(old), type_name, settings), source


@pytest.mark.parametrize("name", NAMES)
def test_every_pair_is_made_as_it_is_claimed_or_refused(name: str) -> None:
    spec = Registry.installed().component(name)
    fitting = 0
    for transfer in (each for each in spec.transfers if each.needs is None):
        for example, source in pairs(spec, transfer):
            if not isinstance(kit._pieces(spec, source, transfer, example, DIMS), str):
                kit._check(spec, source, transfer, example, DIMS, 0)
                fitting += 1
    assert fitting
