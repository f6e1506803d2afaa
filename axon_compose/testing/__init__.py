"""The kit for authors of plugins: the checks that the built-in components pass, for yours.

In the tests of a plugin::

    import pytest
    from hypothesis import given
    from axon_compose.testing import check_layer, examples
    from axon_compose.testing.strategies import options


    @pytest.mark.parametrize(("layer", "chosen"), examples("acme"))
    def test_examples(layer, chosen):
        check_layer(layer, chosen)


    @given(options("acme/hyena"))
    def test_any_options(chosen):
        check_layer("acme/hyena", chosen)

A component is put into a small model with random weights, and the model has to pass every check of `axon-compose
check`: with a cache as without, in chunks, token by token, in batches padded on either side, saved and loaded, causal,
trained, quantised, in every type, and of the sizes that its record declares. Split over devices, its parts have to give
what it gives.

`axon_compose.testing.strategies` needs hypothesis, and `axon_compose.testing.fixtures` is a plugin of pytest; both come
with the extra `testing`.
"""

from axon_compose.testing._cases import Case, layer_cases
from axon_compose.testing._layer import check_layer, check_plugin, examples
from axon_compose.testing._model import DIMS, component_model
from axon_compose.testing._options import Unmakeable
from axon_compose.testing._splits import assert_splits
from axon_compose.testing._transfers import check_transfers

__all__ = [
    "DIMS",
    "Case",
    "Unmakeable",
    "assert_splits",
    "check_layer",
    "check_plugin",
    "check_transfers",
    "component_model",
    "examples",
    "layer_cases",
]
