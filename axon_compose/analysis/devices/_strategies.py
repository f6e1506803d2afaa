"""What each way to spread a model costs: memory, messages, and how fast it can be at most.

With n devices of M bytes/s of memory, links of K bytes/s and messages of l seconds, one more token of b sequences takes

    tensor n     moved(rank) / M  +  sum over outputs that are joined of [ messages * l + bytes / K ]
    pipeline n   sum over stages of [ moved(stage) / M ]  +  h * [ l + b * D * width / K ]
                 +  2 (n - 1) * [ l + b * V * width / n / K ]
    data n       what one device takes for ceil(b / n) sequences

with h = n where the head reads the table of the embedding, which is on the first stage, and n - 1 otherwise: since
every sum has to be there before the next component begins, and since mlx-lm gives all sequences to one stage
after another. Operations take no time here: decoding is bound by memory.
"""

from __future__ import annotations

from axon_compose.analysis.balance import balanced_stages
from axon_compose.analysis.cost import Storage
from axon_compose.analysis.devices._hardware import Hardware
from axon_compose.analysis.devices._layout import Layout
from axon_compose.analysis.devices._pieces import Pieces
from axon_compose.analysis.devices._sheet import StrategyCost
from axon_compose.analysis.devices._spread import Spread
from axon_compose.devices import PipelinePlan, TensorPlan, pipeline_plan, split_plan
from axon_compose.plan import Plan

__all__ = ["Spreads"]


class Spreads:
    """Lays a model on devices in any way, and says what that costs; what ways have in common is counted once.

    Args:
        plan: The whole model.
        storage: How weights are stored.
        context: Tokens of each sequence.
    """

    def __init__(self, plan: Plan, storage: Storage, context: int) -> None:
        self.plan, self.storage, self.context = plan, storage, context
        self._ranks: dict[int, TensorPlan] = {}
        self._pieces: dict[int, Pieces] = {}
        self._spreads: dict[tuple[int, int], Spread] = {}

    def rank(self, tensor: int) -> TensorPlan:
        """The plan of one of several devices that share each layer.

        Raises:
            Refusal: `AX980`, nothing can be split.
        """
        if tensor not in self._ranks:
            self._ranks[tensor] = split_plan(self.plan, tensor, groups=self.storage.groups(self.plan))
        return self._ranks[tensor]

    def pieces(self, tensor: int) -> Pieces:
        """The pieces of such a plan."""
        if tensor not in self._pieces:
            rank = self.rank(tensor)
            self._pieces[tensor] = Pieces(rank.plan, self.storage, self.context, tensor, rank.splits)
        return self._pieces[tensor]

    def spread(self, layout: Layout) -> Spread:
        """One replica.

        Raises:
            Refusal: `AX980` or `AX990`, the model cannot be divided so.
        """
        key = (layout.tensor, layout.pipeline)
        if key not in self._spreads:
            pieces = self.pieces(layout.tensor)
            self._spreads[key] = Spread(pieces, self.stages(pieces.plan, layout.pipeline))
        return self._spreads[key]

    def stages(self, plan: Plan, number: int) -> PipelinePlan:
        """Who runs what: the stages that a built folder has."""
        if number == 1:
            return pipeline_plan(plan, [range(len(plan.layers))])
        return pipeline_plan(plan, balanced_stages(plan, number, dtype=self.storage.dtype, bits=self.storage.bits))

    def cost(self, layout: Layout, batch: int, hardware: Hardware) -> StrategyCost:
        """What a way costs.

        Raises:
            Refusal: The model cannot be divided so.
        """
        spread = self.spread(layout)
        each = -(-batch // layout.data)
        weights, caches, between = _largest(spread, each)
        one = spread.step_seconds(hardware, 1)
        return StrategyCost(
            layout=layout,
            layers=tuple(len(spread.layers(stage)) for stage in range(spread.stages)),
            weight_bytes=weights,
            cache_bytes=caches,
            activation_bytes=between,
            sent_per_token=spread.sent_bytes(1, scores=True),
            sent_per_prompt_token=spread.sent_bytes(1, scores=False),
            messages_per_token=sum(traffic.messages for traffic in spread.path(1)),
            one=1 / one,
            together=batch / spread.step_seconds(hardware, each),
            waiting=spread.waiting_seconds(hardware, 1) / one,
            whole=self.whole(layout.tensor),
            fits=hardware.fits(weights + caches + between),
        )

    def whole(self, tensor: int) -> dict[str, str]:
        """Components that could be split and are not, by name, with the reason."""
        if tensor == 1:
            return {}
        rank = self.rank(tensor)
        members = {use.path: use for use in rank.plan.uses() if use.spec.kind not in ("norm", "connection", "residual")}
        return {members[path].name: reason for path, reason in rank.whole.items() if path in members}


def _largest(spread: Spread, batch: int) -> tuple[int, int, int]:
    """Weights, caches and what comes in between, of the stage that needs most."""
    sizes = [
        (spread.weight_bytes(stage), spread.cache_bytes(stage, batch), spread.between_bytes(stage, batch))
        for stage in range(spread.stages)
    ]
    return max(sizes, key=sum)
