"""Elements of SVG and HTML as text: escaped, in a fixed order, so that the same picture gives the same bytes."""

from __future__ import annotations

from typing import Final

__all__ = ["element", "number", "svg", "text", "void"]

#: What would begin markup; `html.escape` writes the same, with a table of all entities beside it.
_IN_TEXT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
#: What would end an attribute, or what a reader of one takes for a space.
_IN_ATTRIBUTES: Final = str.maketrans({'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})


def number(value: float) -> str:
    """A coordinate with at most one decimal: `12`, `12.5`."""
    return f"{value:.1f}".removesuffix(".0")


def text(value: str) -> str:
    """Text between tags."""
    return value.translate(_IN_TEXT)


def element(tag: str, *children: str, **attributes: str | float) -> str:
    """An element with attributes in the order given; `_` in a name stands for `-`, one at its end for nothing.

    Args:
        tag: Its name.
        children: Markup; plain text goes through `text` first.
        attributes: Texts, escaped here, or coordinates.
    """
    opened = _opened(tag, attributes)
    return f"<{opened}>{''.join(children)}</{tag}>" if children else f"<{opened}/>"


def svg(title: str, width: float, height: float, *children: str) -> str:
    """A picture, of a page or by itself.

    Args:
        title: What a screen reader says; plain text.
        width: In pixels.
        height: In pixels.
        children: Markup of its shapes.
    """
    return element(
        "svg",
        element("title", text(title)),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=height,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
    )


def void(tag: str, **attributes: str | float) -> str:
    """An element of HTML that has no end tag."""
    return f"<{_opened(tag, attributes)}>"


def _opened(tag: str, attributes: dict[str, str | float]) -> str:
    written = "".join(f" {_name(name)}={_value(value)}" for name, value in attributes.items())
    return tag + written


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    written = text(value if isinstance(value, str) else number(value)).translate(_IN_ATTRIBUTES)
    return f'"{written}"'
