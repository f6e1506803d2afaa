"""The kit for authors of plugins: the truths that the built-in components pass, for yours."""

from axon_compose.testing._choices import Choices, Seeded
from axon_compose.testing._layer import check_layer, check_plugin
from axon_compose.testing._model import DIMS, component_model
from axon_compose.testing._stacks import drawn_stack

__all__ = ["DIMS", "Choices", "Seeded", "check_layer", "check_plugin", "component_model", "drawn_stack"]
