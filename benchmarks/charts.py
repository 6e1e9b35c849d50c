"""Plots of the benchmarks, drawn by the report's library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLOURS = ["#9aa0a6", "#e08a2e", "#1f6fb4", "#6b7a12"]

Bar = tuple[str, str, float, float, float]  # group, series, median, minimum, maximum


def bars(panels: Sequence[tuple[str, Sequence[Bar], str]], series: Sequence[str]) -> dict[str, Any]:
    """A panel per (title, bars, scale): medians with whiskers from minimum to maximum, and the number at each bar."""
    return {"hconcat": [_panel(title, rows, scale, series) for title, rows, scale in panels]}


def _panel(title: str, rows: Sequence[Bar], scale: str, series: Sequence[str]) -> dict[str, Any]:
    names = ("group", "series", "value", "least", "most")
    values = [dict(zip(names, row, strict=True)) for row in rows]
    places = {
        "x": {"field": "group", "type": "nominal", "title": None, "axis": {"labelAngle": 0}},
        "xOffset": {"field": "series", "sort": list(series)},
    }
    axis = {"field": "value", "type": "quantitative", "title": title}
    floor = min(row[3] for row in rows) / 2
    if scale == "log":
        axis["scale"] = {"type": "log", "nice": False, "domain": [floor, 2 * max(row[4] for row in rows)]}
    colour = {"field": "series", "sort": list(series), "scale": {"range": _COLOURS}, "title": None}
    low = {"y2": {"datum": floor}} if scale == "log" else {}
    text = "format(datum.value, datum.value < 1 ? '.2f' : '.1f')"
    return {
        "width": 300,
        "height": 260,
        "data": {"values": values},
        "transform": [{"calculate": text, "as": "label"}],
        "encoding": places,
        "layer": [
            {"mark": "bar", "encoding": {"y": axis, "color": colour, **low}},
            {"mark": "rule", "encoding": {"y": {"field": "least", "type": "quantitative"}, "y2": {"field": "most"}}},
            {
                "mark": {"type": "text", "dy": -10, "fontSize": 11},
                "encoding": {"y": {"field": "most", "type": "quantitative"}, "text": {"field": "label"}},
            },
        ],
    }


def lines(panels: Sequence[tuple[str, str, str, Sequence[tuple[float, float, str]]]]) -> dict[str, Any]:
    """A panel per (title, x title, y title, (x, y, series)): both axes logarithmic, so that a power law is a line."""
    drawn = []
    for title, x_title, y_title, points in panels:
        values = [{"x": x, "y": y, "series": series} for x, y, series in points]
        ticks = {"values": sorted({x for x, _, _ in points})}
        across = {"type": "log", "nice": False, "domain": [ticks["values"][0] / 1.2, ticks["values"][-1] * 1.2]}
        heights = [y for _, y, _ in points]
        up = {"type": "log", "nice": False, "domain": [min(heights) / 2, max(heights) * 2]}
        drawn.append(
            {
                "title": title,
                "width": 230,
                "height": 200,
                "data": {"values": values},
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "x": {"field": "x", "type": "quantitative", "scale": across, "title": x_title, "axis": ticks},
                    "y": {"field": "y", "type": "quantitative", "scale": up, "title": y_title},
                    "color": {"field": "series", "scale": {"range": _COLOURS[2:] + _COLOURS[:2]}, "title": None},
                },
            }
        )
    return {"concat": drawn, "columns": 2, "resolve": {"scale": {"color": "independent"}}}


def save_png(spec: dict[str, Any], path: Path) -> None:
    import vl_convert

    whole = {"background": "white", "padding": 12, "config": {"view": {"stroke": None}, "axis": {"grid": True}}}
    path.write_bytes(vl_convert.vegalite_to_png({**whole, **spec}, scale=2))
