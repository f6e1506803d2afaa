"""`verify`: a checkpoint in our model and in other implementations."""

from __future__ import annotations

import argparse

from axon_compose.cli._terminal import Terminal

__all__ = ["verify"]


def verify(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Compare what is built from a checkpoint with mlx-lm and transformers."""
    from axon_compose.proof.verify import verify as run
    from axon_compose.report._verify import verify_text

    found = run(
        arguments.checkpoint,
        family=arguments.file,
        tokens=arguments.tokens,
        seed=arguments.seed,
        tolerance=arguments.tolerance,
        against=arguments.against,
        settings=arguments.settings,
        allow_large=arguments.allow_large,
    )
    return terminal.result(verify_text(found, terminal.style), found.to_dict(), ok=found.passed)
