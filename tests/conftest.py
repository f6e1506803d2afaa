"""What holds for the whole suite."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Machines that run the suite may be slow and shared: what a test tries is bounded by its examples, not by a clock.
# In CI the examples are always the same, so that a failure there can be repeated.
settings.register_profile(
    "suite", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
