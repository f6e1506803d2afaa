"""One residual stream and what is computed beside it: options and records."""

from typing import Any, Final, Literal

from axon_compose.registry import ComponentSpec, Options

__all__ = ["SPECS", "SideInputOptions"]


class SideInputOptions(Options):
    """A side branch is not added to the stream: the branch after it reads the sum of both."""


def _nothing(*_: Any) -> int:
    """Elementwise."""
    return 0


def _connection(name: str, factory: str, summary: str, around: Literal["branch", "aside"] = "branch") -> ComponentSpec:
    return ComponentSpec(
        name=name,
        kind="connection",
        around=around,
        options=SideInputOptions,
        module=f"axon_core.side_input:{factory}.from_options",
        summary=summary,
        params=lambda options, dims: {},
        flops=_nothing,
        saved=lambda options, dims, tokens, dtype: (),
    )


SPECS: Final = (
    ComponentSpec(
        name="side_input",
        kind="residual",
        options=SideInputOptions,
        module="axon_core.side_input:SideInput.from_options",
        summary="One stream; the output of a side branch is read by the next branch alone (Zamba2).",
        source='Glorioso et al. 2024, "The Zamba2 Suite" (arXiv:2411.15242)',
        params=lambda options, dims: {},
        flops=_nothing,
        saved=lambda options, dims, tokens, dtype: (),
        connections=(
            _connection("add", "Add", "A branch is added to the stream, as usual."),
            _connection("side", "Side", "A branch is kept beside the stream.", "aside"),
            _connection("beside", "Beside", "A branch reads the sum of both, and is added to the stream."),
        ),
        examples=({},),
    ),
)
