"""A picture as PNG, by resvg where it is installed."""

from __future__ import annotations

from typing import Final

from axon_compose.diagnostics import Refusal
from axon_compose.plan import Plan
from axon_compose.report.draw._picture import picture

__all__ = ["EXTRA", "bitmap", "require_renderer"]

#: The extra of the package that brings the library.
EXTRA: Final = "axon-compose[png]"
#: Pixels of the bitmap for one of the picture.
ZOOM: Final = 2


def require_renderer() -> None:
    """Refuse if there is nothing that makes a bitmap.

    Raises:
        Refusal: AX506 with what to install.
    """
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        message = "a PNG needs a library that is not installed"
        help_ = f"`pip install '{EXTRA}'`, or write a `.svg` or `.html`"
        raise Refusal("AX506", message, help_) from None


def bitmap(plan: Plan) -> bytes:
    """The light picture of a model as PNG, at twice its natural size.

    Raises:
        Refusal: AX506 if the library is missing.
    """
    require_renderer()
    import resvg_py

    data: bytes = bytes(resvg_py.svg_to_bytes(svg_string=picture(plan, theme="light"), zoom=ZOOM))
    return data
