"""MLX's number of tasks, after some were lost."""

import mlx.core as mx
import pytest

from tests import mlx_tasks

needs_number = pytest.mark.skipif(mlx_tasks._count() is None, reason="needs the number of tasks of MLX")


@needs_number
def test_lost_tasks_are_taken_off() -> None:
    count = mlx_tasks._count()
    assert mlx_tasks.settle() == 0
    count.value += 3
    assert mlx_tasks.settle() == 3
    assert count.value == 0


@needs_number
def test_tasks_on_their_way_are_waited_for() -> None:
    x = mx.ones((64, 64))
    for _ in range(200):
        x = x @ x / 64
    mx.async_eval(x)
    assert mlx_tasks.settle() == 0
    assert mlx_tasks._count().value == 0
    assert x[0, 0].item() == 1
