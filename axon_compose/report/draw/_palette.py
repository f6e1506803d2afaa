"""Colours of the families in light and dark, and the style sheet of a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from axon_compose.report.draw._family import FAMILIES, Family

__all__ = ["TONES", "Theme", "Tone", "style_sheet", "variables"]

Theme = Literal["both", "light", "dark"]
#: Colours that a page has as variables: `var(--ink)`, and the strong colour of a family.
Tone = Literal["ink", "quiet", "paper", "panel", "line"] | Family

#: Fill, line and strong colour (bars, lines of a chart) of each family: light, then dark.
_FAMILIES: Final = {
    "embedding": (("#fbe3ec", "#b8487a", "#cf5c8e"), ("#46243a", "#d983ad", "#dd86b0")),
    "attention": (("#ffe3c4", "#b8660a", "#cf7a14"), ("#4a3114", "#e5a155", "#eaa75b")),
    "window": (("#fff2bf", "#917304", "#a88a08"), ("#3f3812", "#d9c04f", "#ddc556")),
    "recurrent": (("#dceaff", "#2f69bd", "#4a87dc"), ("#1b3355", "#7cb0f2", "#7fb2f3")),
    "mixed": (("#d4f1f2", "#1a7d85", "#2a9ba4"), ("#123c40", "#5fc3cb", "#63c6ce")),
    "feed-forward": (("#dbf2df", "#2f7d43", "#4aa562"), ("#1c3d27", "#79c98f", "#7dcc93")),
    "experts": (("#e8e1fb", "#6a4bbd", "#8a6ad8"), ("#33285a", "#b39df0", "#b7a2f2")),
    "block": (("#eceef1", "#5d6672", "#858e9a"), ("#2d333b", "#a3adb9", "#a8b1bd")),
    "norm": (("#dde2e8", "#8b94a1", "#8b94a1"), ("#37404a", "#7c8794", "#8a95a3")),
    "head": (("#f8dcd6", "#b04532", "#cf6350"), ("#4a251e", "#e08f7e", "#e39382")),
}

#: Ink, quiet ink, paper, panel, line of panels, track of bars: light, then dark.
_GROUND: Final = (
    ("#1d232b", "#5a6472", "#ffffff", "#f7f8fa", "#dde1e7", "#000"),
    ("#e8ecf1", "#a4aebb", "#14181d", "#1c2229", "#343c46", "#fff"),
)

_FONT: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


#: All of them.
TONES: Final[tuple[Tone, ...]] = ("ink", "quiet", "paper", "panel", "line", *FAMILIES)


def variables() -> str:
    """The tones of a page, light or dark as the reader's system prefers."""
    light, dark = (":root{" + ";".join(f"--{name}:{colour}" for name, colour in _tones(n)) + "}" for n in (0, 1))
    return f"{light}@media (prefers-color-scheme:dark){{{dark}}}"


def _tones(dark: int) -> Iterator[tuple[str, str]]:
    yield from zip(TONES, _GROUND[dark][:5], strict=False)
    yield from ((name, colours[dark][2]) for name, colours in _FAMILIES.items())


def style_sheet(theme: Theme = "both") -> str:
    """The style of a picture; `both` follows what the reader's system prefers."""
    if theme == "dark":
        return _fixed() + _rules(1)
    light = _fixed() + _rules(0)
    return light if theme == "light" else f"{light}@media (prefers-color-scheme:dark){{{_rules(1)}}}"


def _fixed() -> str:
    """What does not depend on the theme."""
    sizes = {"title": 20, "lead": 13, "name": 13, "small": 11}
    texts = "".join(f".{name}{{font-size:{size}px}}" for name, size in sizes.items())
    return (
        f"text{{font-family:{_FONT};font-variant-numeric:tabular-nums}}{texts}"
        ".title,.name,.times{font-weight:600}.times{font-size:13px}.light{font-weight:400}.end{text-anchor:end}.middle{text-anchor:middle}"
        ".flow,.arc,.bracket{fill:none}.flow{stroke-width:1.5}.arc{stroke-width:1.6}"
        ".bracket{stroke-width:1.5}.dashed{stroke-dasharray:4 3}"
    )


def _rules(dark: int) -> str:
    ink, quiet, paper, panel, line, track = _GROUND[dark]
    rules = [
        f"text,.ink{{fill:{ink}}}.quiet{{fill:{quiet}}}.paper{{fill:{paper}}}.track{{fill:{track};fill-opacity:.1}}",
        f".panel{{fill:{panel};stroke:{line}}}.bracket{{stroke:{quiet}}}",
        f".flow{{stroke:{ink}}}.plus{{fill:{paper};stroke:{ink}}}.arc{{stroke:{quiet}}}.tip{{fill:{quiet}}}",
        f".glyph{{fill:none;stroke:{quiet}}}.glyph-full{{fill:{quiet}}}",
    ]
    for name, colours in _FAMILIES.items():
        fill, stroke, strong = colours[dark]
        rules.append(f".{name}{{fill:{fill};stroke:{stroke}}}.{name}-bar{{fill:{strong}}}")
    return "".join(rules)
