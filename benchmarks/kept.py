"""What the benchmarks have measured, for `docs/performance_page.py`: `results.json`, a line for each result."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

__all__ = ["keep"]

RESULTS: Final = Path(__file__).parent / "results.json"


def keep(part: str, name: str, result: dict[str, Any]) -> None:
    """Put a result beside the others, with the day, at once: measuring may be stopped at any time."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(part, {})[name] = {"day": datetime.now(UTC).date().isoformat(), **result}
    RESULTS.write_text(_dumped(results))


def _dumped(results: dict[str, Any]) -> str:
    """JSON with a line for each result, for a change of one should be a change of a line."""
    parts = []
    for part, entries in results.items():
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        parts.append(f"{json.dumps(part)}: {{\n{rows}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
