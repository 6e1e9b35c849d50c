"""A figure along a series, a line per checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from stages.report.charts.palette import variable
from stages.report.charts.vega import MUTED, render_svg
from stages.report.run.load_run import Run
from stages.report.run.records import UNDEFINED


def line_chart(
    run: Run,
    series: str,
    key: str,
    scale: float,
    title: str,
    size: tuple[int, int] = (360, 210),
    banded: Sequence[str] | None = None,
    steps: Sequence[tuple[float, float]] = (),
) -> str:
    """A figure along a series of numbered points: a line per checkpoint, with its intervals as a band.

    ``scale``: factor of the values; ``title``: of the horizontal axis; ``size``: width and height, pixels; ``banded``:
    checkpoints with a band, None for all; ``steps``: (first point, value) of the levels of a thin dashed line. Empty if
    no checkpoint has this figure.
    """
    names = list(run.checkpoints)
    rows = [
        {"checkpoint": name, "at": int(point.at)}
        | {part: None if end is None else scale * end for part, end in interval}
        for name, checkpoint in run.checkpoints.items()
        for point in checkpoint.series.get(series, ())
        for interval in [point.intervals.get(key, UNDEFINED)]
        if interval.value is not None
    ]
    if not rows:
        return ""
    colour = {
        "field": "checkpoint",
        "type": "nominal",
        "scale": {"domain": names, "range": [variable(names, name) for name in names]},
        "legend": None,
    }
    last = max(row["at"] for row in rows)
    x = {
        "field": "at",
        "type": "quantitative",
        "scale": {"domain": [0.7, max(last, 2) + 0.3], "nice": False},
        "axis": {"values": list(range(1, last + 1, max(1, last // 8))), "format": "d", "grid": False},
        "title": title,
    }
    y = {"type": "quantitative", "scale": {"zero": False, "nice": True}, "axis": {"tickCount": 5, "title": None}}
    value = {"x": x, "y": {**y, "field": "value"}, "color": colour}
    width, height = size
    edges = [*(at - 0.5 for at, _ in steps[1:]), last + 0.3][: len(steps)]
    levels = [
        {"at": at, "value": scale * value}
        for (start, value), end in zip(steps, edges, strict=True)
        for at in (max(start - 0.5, 0.7), end)
        if start <= last
    ]
    spec = {
        "autosize": {"type": "fit-x", "contains": "padding"},
        "width": width,
        "height": height,
        "data": {"values": rows},
        "layer": [
            {
                "transform": [{"filter": {"field": "checkpoint", "oneOf": names if banded is None else list(banded)}}],
                "mark": {"type": "area", "opacity": 0.13},
                "encoding": {**value, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "data": {"values": levels},
                "mark": {"type": "line", "strokeWidth": 1.2, "strokeDash": [5, 4], "color": MUTED},
                "encoding": {"x": x, "y": {**y, "field": "value"}},
            },
            {"mark": {"type": "line", "strokeWidth": 2, "strokeJoin": "round"}, "encoding": value},
            {"mark": {"type": "circle", "size": 30, "opacity": 1}, "encoding": value},
        ],
    }
    return render_svg(spec)
