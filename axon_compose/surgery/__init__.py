"""The architecture of a trained model changed, and what that does to it.

What comes in: edit files, models with weights, and texts. What goes out: `plan_edit`, what every tensor of the new
model is made from; `perform`, its folder; `receipt`, how an edited model differs from its source; `heal`, a model that
has learned to be its source again. mlx is imported where numbers are made or a model runs.
"""

from typing import TYPE_CHECKING

from axon_compose.machine.lazy import importing
from axon_compose.surgery.recipe import RECIPE

if TYPE_CHECKING:
    from axon_compose.surgery._comparing import receipt_of
    from axon_compose.surgery._heal import heal
    from axon_compose.surgery._healing import Healed
    from axon_compose.surgery._measure import block_influence, channel_importance, expert_usage, measured
    from axon_compose.surgery._perform import perform
    from axon_compose.surgery._plan import Step, SurgeryPlan, plan_edit
    from axon_compose.surgery._rank import Ranking, rank
    from axon_compose.surgery._receipt import receipt
    from axon_compose.surgery._records import Receipt

__all__ = [
    "RECIPE",
    "Healed",
    "Ranking",
    "Receipt",
    "Step",
    "SurgeryPlan",
    "block_influence",
    "channel_importance",
    "expert_usage",
    "heal",
    "measured",
    "perform",
    "plan_edit",
    "rank",
    "receipt",
    "receipt_of",
]

# What runs a model is imported when it is asked for.
__getattr__ = importing(
    __name__,
    {
        "Healed": "_healing",
        "Ranking": "_rank",
        "Receipt": "_records",
        "Step": "_plan",
        "SurgeryPlan": "_plan",
        "block_influence": "_measure",
        "channel_importance": "_measure",
        "expert_usage": "_measure",
        "heal": "_heal",
        "measured": "_measure",
        "perform": "_perform",
        "plan_edit": "_plan",
        "rank": "_rank",
        "receipt": "_receipt",
        "receipt_of": "_comparing",
    },
)
