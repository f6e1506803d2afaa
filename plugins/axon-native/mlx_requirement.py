"""What a wheel of axon-native needs: the MLX that it is built for, whose arrays differ from version to version."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any


def dynamic_metadata(field: str, settings: Mapping[str, Any], project: Mapping[str, Any]) -> list[str]:
    """The dependencies, for scikit-build-core."""
    return [f"mlx=={version('mlx').partition('+')[0]}"]
