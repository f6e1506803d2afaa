"""The bitmap has letters where the picture has text, and the same ones whatever fonts the system has."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont  # comes with matplotlib

import axon_compose
from axon_compose.report.draw._bitmap import ZOOM, _fonts, bitmap
from axon_compose.report.draw._picture import picture

pytestmark = pytest.mark.skipif(find_spec("resvg_py") is None, reason="needs resvg-py (the extra `png`)")

#: Brightness between that of quiet text and of every fill that text stands on.
DARK = 0.6
WRITES = """\
import sys
import axon_compose
from axon_compose.report.draw._bitmap import bitmap
sys.stdout.buffer.write(bitmap(axon_compose.load("hybrid-demo").plan()))
"""


def pixels(data: bytes) -> np.ndarray:
    """The brightness of each pixel, from 0 to 1."""
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(data), format="png"))[..., :3].mean(axis=-1)


@pytest.mark.parametrize("name", ["hybrid-demo", "nemotron_h"])
def test_letters_stand_where_the_picture_has_text(name: str) -> None:
    plan = axon_compose.load(name).plan()
    shown = pixels(bitmap(plan))
    texts = [node for node in ET.fromstring(picture(plan, theme="light")).iter() if node.tag.endswith("}text")]
    assert len(texts) > 20
    without = []
    for node in texts:
        x, y = float(node.attrib["x"]), float(node.attrib["y"])
        classes = node.attrib["class"].split()
        left = x - 12 if "end" in classes else x - 6 if "middle" in classes else x
        # The lower part of the first or last letters, above the base line: 12 pixels wide, 6 high.
        place = shown[round((y - 6) * ZOOM) : round(y * ZOOM), round(left * ZOOM) : round((left + 12) * ZOOM)]
        share = (place < DARK).mean()
        if not 0.03 < share < 0.8:
            without.append(("".join(node.itertext()), share))
    assert not without


@pytest.mark.parametrize("arial", [False, True])
def test_a_bitmap_is_the_same_whatever_fonts_the_system_has(arial: bool, tmp_path: Path) -> None:
    """With the fonts of this machine, and those of a home that has none, or one with the name Arial."""
    folders = [tmp_path / name for name in (".fonts", ".local/share/fonts", "Library/Fonts")]
    for folder in folders:
        folder.mkdir(parents=True)
        if arial:
            serif_called("Arial", folder / "arial.ttf")
    places = "".join(f"<dir>{folder}</dir>" for folder in folders)
    (tmp_path / "fonts.conf").write_text(f"<?xml version='1.0'?><fontconfig>{places}</fontconfig>", encoding="utf-8")
    home = {"HOME": str(tmp_path), "FONTCONFIG_FILE": str(tmp_path / "fonts.conf"), "FONTCONFIG_PATH": str(tmp_path)}
    home |= {"XDG_DATA_HOME": str(tmp_path / ".local/share"), "XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-c", WRITES]
    elsewhere = subprocess.run(command, env=os.environ | home, capture_output=True, timeout=300, check=True).stdout
    assert elsewhere == bitmap(axon_compose.load("hybrid-demo").plan())


def serif_called(family: str, target: Path) -> None:
    """Write a font with serifs under another's name."""
    font = TTFont(Path(_fonts()[0]).with_name("DejaVuSerif.ttf"))
    for record in font["name"].names:
        if record.nameID in (1, 4, 6, 16):
            record.string = family
    font.save(target)
