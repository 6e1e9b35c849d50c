"""Vega-Lite specifications rendered to SVG that takes its colours from the page's CSS.

Colours are CSS variables (``var(--c2)``), which Vega passes through unchanged, so that one drawing serves the light and
the dark page. Text keeps its size only where an SVG is shown at its own width: a wide chart is drawn in several widths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
_FONT = 'system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif'
_CONFIG: dict[str, Any] = {
    "aria": False,  # the page labels each chart
    "background": None,
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": GRID,
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "labelPadding": 6,
    },
}


def render_svg(spec: Mapping[str, Any]) -> str:
    """A Vega-Lite specification as SVG, in the font of the page."""
    import vl_convert  # imported here because it starts a JavaScript engine

    svg = vl_convert.vegalite_to_svg({"config": _CONFIG, "padding": 2, **spec})
    return re.sub(r' font-family="[^"]*"', "", svg)
