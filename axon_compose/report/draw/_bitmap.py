"""A picture as PNG, by resvg where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from axon_compose.diagnostics import Refusal
from axon_compose.machine.libraries import require_library
from axon_compose.plan import Plan
from axon_compose.report.draw._picture import picture

__all__ = ["bitmap", "require_renderer"]

#: Pixels of the bitmap for one of the picture.
ZOOM: Final = 2
#: The letters of a bitmap, whatever fonts the system has: those that matplotlib brings along.
FAMILY: Final = "DejaVu Sans"
_FILES: Final = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")


def require_renderer() -> None:
    """Refuse if there is nothing that makes a bitmap, or no font for it.

    Raises:
        Refusal: AX506 with what to install.
    """
    instead = "write a `.svg`"
    require_library("resvg_py", "resvg-py", "a PNG", instead)
    require_library("matplotlib", "matplotlib", "the font of a PNG", instead)


def bitmap(plan: Plan) -> bytes:
    """The light picture of a model as PNG, at twice its natural size.

    Raises:
        Refusal: AX506 if the library is missing.
    """
    require_renderer()
    import resvg_py

    svg = picture(plan, theme="light")
    # resvg leaves out text whose font it does not find, and by default takes Arial for the generic sans-serif.
    data: bytes = bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg, zoom=ZOOM, skip_system_fonts=True, font_files=_fonts(), sans_serif_family=FAMILY
        )
    )
    return data


def _fonts() -> list[str]:
    """The font files, found without importing matplotlib.

    Raises:
        Refusal: AX506 if this matplotlib was installed without them.
    """
    spec = find_spec("matplotlib")
    places = spec.submodule_search_locations if spec else None
    for place in places or ():
        files = [Path(place, "mpl-data", "fonts", "ttf", name) for name in _FILES]
        if all(file.is_file() for file in files):
            return [str(file) for file in files]
    message = f"a PNG needs {FAMILY}, which this installation of matplotlib lacks"
    raise Refusal("AX506", message, "`pip install --force-reinstall matplotlib`, or write a `.svg`")
