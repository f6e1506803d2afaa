"""A process knows whether it was launched together with others, from what launchers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from axon_compose.machine.launched import launched_rank

NAMES = ("MLX_RANK", "MLX_HOSTFILE", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("variables", "rank"), [
    ({}, None), ({"MLX_RANK": "0"}, 0), ({"MLX_RANK": "3"}, 3), ({"OMPI_COMM_WORLD_RANK": "2"}, 2),
    ({"MLX_RANK": ""}, None), ({"PMI_RANK": "x"}, None),
])  # fmt: skip
def test_the_number_of_a_process(variables: dict[str, str], rank: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == rank


@pytest.mark.parametrize(("hosts", "rank"), [("\n", None), ('[["127.0.0.1:1"], ["127.0.0.1:2"]]', 1), (None, 1)])
def test_one_that_was_launched_alone_is_alone(
    hosts: str | None, rank: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `mlx.launch -n 1`, whose list of hosts is empty."""
    if hosts is not None:
        (tmp_path / "hosts").write_text(hosts)
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts"))
    monkeypatch.setenv("MLX_RANK", "1")
    assert launched_rank() == rank
