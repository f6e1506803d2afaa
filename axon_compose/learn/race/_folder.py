"""The folder of a race: one record of all that is known, and the states of runs that have not ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.race._result import Entrant, run_of
from axon_compose.machine.files import cannot_write, read_regular, write_output

__all__ = ["RECORD", "Kept", "kept", "make_folder", "write"]

RECORD: Final = "race.json"
_FORM: Final = 1


class Kept:
    """What a folder holds.

    Args:
        data: Of its record, or None where there is none.
    """

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        self.data = data
        self.terms: dict[str, Any] = data["terms"] if data else {}
        self.entrants = {each["name"]: Entrant(**each) for each in data["entrants"]} if data else {}
        runs = [run_of(each) for each in data["runs"]] if data else []
        self.runs = {(run.model, run.seed, run.rate): run for run in runs}


def kept(folder: Path, terms: dict[str, Any]) -> Kept:
    """What a folder knows of a race with these terms.

    Raises:
        CheckpointError: AX910 its record cannot be read; AX911 it is that of another race.
    """
    path = folder / RECORD
    if not path.exists():
        return Kept()
    try:
        data = json.loads(read_regular(path))
        if data["form"] != _FORM:
            raise ValueError(f"its form is {data['form']}, where {_FORM} is known")
        found = Kept(data)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError("AX910", f"`{path}` is no record of a race: {error}") from error
    changed = sorted(name for name in terms if name != "seeds" and found.terms.get(name) != terms[name])
    if changed:
        details = [f"`{name}` was {found.terms.get(name)}, and is {terms[name]}" for name in changed]
        hint = "go on with the same terms, or give another `--folder`; seeds and models may be added"
        raise CheckpointError("AX911", f"`{folder}` holds another race", hint, details)
    return found


def write(folder: Path, terms: dict[str, Any], entrants: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    """Write the record in one step.

    Raises:
        CheckpointError: AX503.
    """
    data = {"form": _FORM, "terms": terms, "entrants": entrants, "runs": runs}
    make_folder(folder)
    path = folder / RECORD
    try:
        write_output(path, (json.dumps(data, indent=1) + "\n").encode(), force=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        CheckpointError: AX503.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
