"""Pictures of a plan: the stack as SVG, a page around it, a bitmap; imports no mlx."""

from typing import TYPE_CHECKING

from axon_compose.machine.lazy import importing

if TYPE_CHECKING:
    from axon_compose.report.draw._bitmap import bitmap, require_renderer
    from axon_compose.report.draw._characters import characters
    from axon_compose.report.draw._comparison import comparison_page
    from axon_compose.report.draw._healed import healed_page
    from axon_compose.report.draw._matplotlib import apart, require_charts
    from axon_compose.report.draw._notebook import embedded
    from axon_compose.report.draw._page import page
    from axon_compose.report.draw._picture import picture
    from axon_compose.report.draw._race import race_page, race_picture
    from axon_compose.report.draw._receipt import receipt_page, receipt_picture
    from axon_compose.report.draw._training import training_page, training_picture

__all__ = [
    "apart",
    "bitmap",
    "characters",
    "comparison_page",
    "embedded",
    "healed_page",
    "page",
    "picture",
    "race_page",
    "race_picture",
    "receipt_page",
    "receipt_picture",
    "require_charts",
    "require_renderer",
    "training_page",
    "training_picture",
]

# The characters that `show` prints need no page, chart or bitmap.
__getattr__ = importing(
    __name__,
    {
        "apart": "_matplotlib",
        "bitmap": "_bitmap",
        "characters": "_characters",
        "comparison_page": "_comparison",
        "embedded": "_notebook",
        "healed_page": "_healed",
        "page": "_page",
        "picture": "_picture",
        "race_page": "_race",
        "race_picture": "_race",
        "receipt_page": "_receipt",
        "receipt_picture": "_receipt",
        "require_charts": "_matplotlib",
        "require_renderer": "_bitmap",
        "training_page": "_training",
        "training_picture": "_training",
    },
)
