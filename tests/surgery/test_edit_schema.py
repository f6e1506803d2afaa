"""The schema of edit files: up to date, and of one mind with what reads them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from axon_compose.diagnostics import Problems
from axon_compose.diagnostics.codes import CODES
from axon_compose.language.schema import dumps
from axon_compose.language.source import plain, read
from axon_compose.registry import Registry
from axon_compose.registry._data_files import data_dir
from axon_compose.surgery.document import Edit, EditFile, read_edits
from axon_compose.surgery.schema import EDIT_SCHEMA_NAME, edit_schema

PATH = data_dir("schemas") / EDIT_SCHEMA_NAME
SCHEMA: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
PUBLISHED = Draft202012Validator(SCHEMA)
EXAMPLE = re.compile(r"^```yaml\n# (?:wrong|right)\n(edits:.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    text for code, entry in CODES.items() if code.startswith("AX9") for text in EXAMPLE.findall(entry.explanation)
]
MLP = {"type": "mlp", "intermediate_size": 8}


def test_the_published_file_is_what_the_code_generates() -> None:
    made = dumps(edit_schema(Registry.installed(), published=True))
    assert made == PATH.read_text(encoding="utf-8"), "run `make schema`"
    Draft202012Validator.check_schema(SCHEMA)


def test_every_key_is_described() -> None:
    assert SCHEMA["properties"].keys() == EditFile.model_fields.keys()
    assert SCHEMA["$defs"]["edit"]["properties"].keys() == Edit.model_fields.keys()


@pytest.mark.parametrize("edits", EXAMPLES)
def test_examples_that_can_be_read_fit(edits: str) -> None:
    data = plain_of(f"version: 1\nsource: model.yaml\n{edits}")
    selects = "1-2" not in edits  # text that only its meaning shows to be no selection
    if read_edits(data, Problems()) is not None and selects:
        assert not list(PUBLISHED.iter_errors(data))


def plain_of(text: str) -> dict[str, Any]:
    node = read(text, "edit.yaml", Problems())
    assert node is not None
    return dict(plain(node))


@pytest.mark.parametrize(
    ("edit", "fits"),
    [
        ({"layers": "8..22 step 2", "set": {"attn.window_size": 512}}, True),
        ({"layers": [1, "3..4", -1], "replace": {"mlp": MLP}, "init": {"copy": "mlp", "noise": 0.01}}, True),
        ({"layers": "=[0, 1]", "replace": {"mlp": "rms_norm"}}, True),
        ({"replace": {"mlp": MLP | {"intermediate_size": "=intermediate_size"}}}, True),
        ({"insert": {"after": 15, "block": "layer"}, "init": "zero_out"}, True),
        ({"insert": {"after": "start", "count": "=2"}}, True),
        ({"drop": "27..28"}, True),
        ({"drop": {"least": 3}}, True),
        ({"repeat": {"layers": "8..23", "after": 23}}, True),
        ({"vocabulary": {"corpus": ["a.txt"]}}, True),
        ({"layers": "8-22", "set": {"attn.window_size": 512}}, False),
        ({"drop": 1, "insert": {"after": 1}}, False),
        ({"insert": {"block": "layer"}}, False),
        ({"set": {"attn": 3}}, False),
        ({"replace": {"mlp": {"type": "mlp", "intermediat_size": 8}}}, False),
        ({"vocabulary": {}}, False),
        ({}, False),
    ],
)
def test_what_fits(edit: dict[str, Any], fits: bool) -> None:
    data = {"version": 1, "source": "model.yaml", "edits": [edit]}
    assert (not list(PUBLISHED.iter_errors(data))) == fits
