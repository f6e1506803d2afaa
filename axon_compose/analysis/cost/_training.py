"""Memory of a training step: what stays, what the backward pass needs of the forward pass, and what is in flight.

The step is `mx.value_and_grad` of the cross entropy and an update by Adam, evaluated in one go, as a training loop does
that evaluates model and optimizer together. Gradients then do not stand side by side: each is used up by the update of
its weight while the backward pass goes on. What lives at the same time, measured on stacks of many sizes
(`benchmarks/training_memory.py`), are

* the weights and Adam's two moments,
* everything that the forward pass leaves for the backward pass, which is most when the backward pass begins,
* and what is in flight, for MLX runs ahead of what it has freed: four times the scores, for their loss; twice what a
  component saves, or what it computes again; four times the weights of the largest layer (gradient, both moments, new
  weight); or three times the table of embedding or head. Whichever is most.

The step of `axon-compose train` differs in two ways: scores are made of a few tokens at a time (`tokens_at_once`), and
layers may be computed again in segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from axon_compose.analysis.cost._answers import Answers
from axon_compose.analysis.cost._sheet import TrainingCost
from axon_compose.analysis.cost._weights import Storage
from axon_compose.plan import DTYPES, Layer, Plan, Use

__all__ = ["Training", "tokens_at_once"]

#: Scores that the loss of `axon-compose train` makes at once, and for how many tokens at least: with less, most time
#: would go into adding up the gradient of the table.
_AT_ONCE: Final = 2**21
_FEWEST: Final = 64
#: How many there are of each at the same time; of scores, in a loop of MLX's own functions and in `train`.
_SCORES: Final = 4
_SCORES_OF_TRAIN: Final = 3
_COMPONENT: Final = 2
_LAYERS: Final = 4
_TABLES: Final = 3


def tokens_at_once(vocabulary: int) -> int:
    """Tokens of which `axon-compose train` makes the scores at once."""
    return max(_FEWEST, _AT_ONCE // vocabulary)


class Training:
    """Counts the memory of a step, for any number of tokens.

    Args:
        plan: The model.
        kinds: Components that run, one of those that are alike, and how many there are.
        answers: What they say.
        dtype: Of weights and activations.
        batch: Sequences.
        segment: Of a step of `axon-compose train`: layers that keep their input alone and are computed again, 0 for
            none. None for a loop of MLX's own functions.
    """

    def __init__(
        self,
        plan: Plan,
        kinds: Sequence[tuple[Use, int]],
        answers: Answers,
        dtype: str,
        batch: int,
        segment: int | None = None,
    ) -> None:
        self.plan, self.kinds, self.answers, self.dtype, self.batch = plan, kinds, answers, dtype, batch
        self.segment = segment
        nbytes = Storage(dtype).nbytes
        self.weights = sum(map(nbytes, plan.uses()))
        largest = max((sum(map(nbytes, layer.uses())) for layer in plan.layers if layer.owner is None), default=0)
        self.moved = max(_LAYERS * largest, _TABLES * max(nbytes(plan.embedding), nbytes(plan.head)))

    def cost(self, tokens: int) -> TrainingCost:
        """The memory of a step on sequences of so many tokens."""
        saved, flying = 0, self.moved
        for use, number in self.kinds:
            size = self.saved(use, tokens)
            saved += number * size
            if use is not self.plan.head and self.answers.saved(use, tokens, self.dtype) is not None:
                flying = max(flying, _COMPONENT * size, self.answers.recomputed(use, self.batch, tokens))
        saved -= self.common(tokens)
        if self.segment:
            saved = self.segmented(tokens, saved, self.segment)
        vocabulary, scored = int(self.plan.dims.vocab_size), _SCORES * self.batch * tokens
        if self.segment is not None:
            scored = _SCORES_OF_TRAIN * min(self.batch * tokens, tokens_at_once(vocabulary))
        scores = scored * vocabulary * DTYPES[self.dtype]
        return TrainingCost(self.weights, 2 * self.weights, saved, max(flying, scores), self.segment)

    def segmented(self, tokens: int, saved: int, segment: int) -> int:
        """Bytes with gradient checkpoints: what goes into each segment, one segment's insides, and gradients.

        MLX begins to compute a segment again before it has freed the one before: one layer's more. The gradients of all
        weights are there until they are clipped.

        Args:
            tokens: Of each sequence.
            saved: Bytes without checkpoints.
            segment: Layers of one.
        """
        layers = [sum(self.saved(use, tokens) for use in layer.uses()) for layer in self.plan.layers]
        count = -(-len(layers) // segment)
        inputs = count * self.batch * tokens * int(self.plan.dims.hidden_size) * DTYPES[self.dtype]
        inside = min(segment + 1, len(layers)) * max(layers)
        return max(saved - sum(layers), 0) + inputs + inside + self.weights

    def saved(self, use: Use, tokens: int) -> int:
        """Bytes that a component leaves for the backward pass."""
        arrays = self.answers.saved(use, tokens, self.dtype)
        if arrays is None:
            return self.batch * tokens * _estimate(self.plan, use, self.answers, self.dtype)
        return sum(array.nbytes(self.dtype) * (1 if array.dtype == "bool" else self.batch) for array in arrays)

    def common(self, tokens: int) -> int:
        """Bytes of the arrays `input` that all but the first member of a branch declare: they read the same one."""
        return sum(self.shared_inputs(layer, tokens) for layer in self.plan.layers)

    def shared_inputs(self, layer: Layer, tokens: int) -> int:
        """What one layer has of `common`."""
        found = 0
        for branch in layer.branches:
            readers = [member.use for member in branch.members if member.pre is None]
            for use in readers[1:]:
                arrays = self.answers.saved(use, tokens, self.dtype) or ()
                found += sum(array.nbytes(self.dtype) for array in arrays if array.name == "input")
        return found * self.batch


def _estimate(plan: Plan, use: Use, answers: Answers, dtype: str) -> int:
    """Bytes of one token, where a component declares nothing: from the shapes of its matrices.

    Its input and output; of each of its matrices the input, and the output before and after what is done with it (an
    activation, a norm, a rotation), of experts for those that a token is sent to.
    """
    touched = answers.touched(use, 1)
    width = DTYPES[dtype]
    saved = 2 * int(plan.dims.hidden_size) * width
    for name, shape in use.params.items():
        if len(shape) < 2 or not name.endswith(".weight"):
            continue
        rows, stacked = touched.get(name), prod(shape[:-2])
        if shape[-1] == 1 and len(shape) == 3:
            saved += 4 * prod(shape)
        elif len(shape) == 2 and rows is not None:
            saved += shape[-1] * width  # a table: the vector that is looked up
        else:
            saved += (stacked if rows is None else min(rows, stacked)) * (shape[-1] + 2 * shape[-2]) * width
    return saved + (int(plan.dims.vocab_size) * width if use is plan.head else 0)
