"""Training and validation loss of all phases over target tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stages.report.charts.palette import variable
from stages.report.charts.vega import GRID, INK, render_svg
from stages.report.run.load_run import Run
from stages.report.run.loss_diagnostics import LossRow
from stages.report.run.token_axis import epoch_boundaries, timeline_starts

_TOKENS = "datum.value == 0 ? '0' : format(datum.value, '~s')"
_LOG_FROM = 6.0  # ratio of the largest to the smallest loss from which on the axis is logarithmic
_MAX_POINTS = 300  # drawn per training run, so that the page stays small after a long run
_LANE = 24  # height of a lane of training runs above the loss plot, pixels
_CHARACTER = 6.4  # upper bound of the width of a character of lane labels, pixels


def loss_chart(run: Run, width: int, height: int) -> str:
    """Loss of all training runs over target tokens since the start of pretraining, as SVG ``width`` pixels wide.

    Empty if no loss was logged.
    """
    names = list(run.checkpoints)
    starts = timeline_starts(run)
    spans = {name: (starts[name], starts[name] + c.target_tokens) for name, c in run.checkpoints.items() if c.loss}
    if not spans:
        return ""
    plot_width = width - 52
    end = max(stop for _, stop in spans.values())
    raw, smooth, rules, validated = [], [], [], []
    for name in spans:
        rows = [row for row in run.checkpoints[name].loss if math.isfinite(row.loss)]
        kept = range(0, len(rows), math.ceil(len(rows) / _MAX_POINTS) or 1)
        means = smoothed(rows)
        for index in kept:
            point = {"phase": name, "timeline": starts[name] + rows[index].target_tokens}
            raw.append({**point, "loss": rows[index].loss})
            # A curve ends with its epoch, so that smoothing does not hide a jump there.
            smooth.append({**point, "loss": means[index], "epoch": f"{name}/{_epoch(rows[index])}"})
        for tokens in epoch_boundaries(run.checkpoints[name].loss):
            rules.append({"phase": name, "timeline": starts[name] + tokens})
        for row in run.checkpoints[name].validation_loss:
            validated.append({"phase": name, "timeline": starts[name] + row.target_tokens, "loss": row.loss})
    lanes = []
    for name, lane in assign_lanes(spans).items():
        start, stop = spans[name]
        top = -_LANE * (lane + 1)
        label = name if len(name) * _CHARACTER <= (stop - start) / end * plot_width else name.removeprefix("sft-")
        fits = len(label) * _CHARACTER <= (stop - start) / end * plot_width
        lanes.append({"phase": name, "start": start, "stop": stop, "label": label if fits else "", "top": top})
    losses = [row["loss"] for row in (*raw, *validated)]
    colour = {
        "field": "phase",
        "type": "nominal",
        "scale": {"domain": names, "range": [variable(names, name) for name in names]},
        "legend": None,
    }
    x = {
        "type": "quantitative",
        "scale": {"domain": [0, end], "nice": False},
        "title": "target tokens since the start of pretraining",
        "axis": {
            "labelExpr": _TOKENS,
            "grid": False,
            "tickCount": max(3, plot_width // 110),
            "ticks": True,
            "tickColor": GRID,
        },
    }
    y = {"field": "loss", "type": "quantitative", "title": "loss per target token, nats", **_loss_scale(losses)}
    gap = end / plot_width  # a pixel between neighbouring lanes
    spec = {
        "width": plot_width,
        "height": height,
        "layer": [
            {
                "data": {"values": rules},
                "mark": {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1, "opacity": 0.8},
                "encoding": {"x": {**x, "field": "timeline"}, "color": colour},
            },
            {
                "data": {"values": raw},
                "mark": {"type": "circle", "size": 12, "opacity": 0.35},
                "encoding": {"x": {**x, "field": "timeline"}, "y": y, "color": colour},
            },
            {
                "data": {"values": smooth},
                "mark": {"type": "line", "strokeWidth": 2.2, "strokeCap": "round", "strokeJoin": "round"},
                "encoding": {
                    "x": {**x, "field": "timeline"},
                    "y": y,
                    "color": colour,
                    "detail": {"field": "epoch", "type": "nominal"},
                },
            },
            {
                "data": {"values": validated},
                "mark": {"type": "point", "shape": "diamond", "size": 70, "strokeWidth": 1.6, "opacity": 1},
                "encoding": {
                    "x": {**x, "field": "timeline"},
                    "y": y,
                    "stroke": colour,
                    "fill": {"value": "var(--card)"},
                },
            },
            *(
                {
                    "data": {"values": [{**lane, "stop": max(lane["stop"] - gap, lane["start"])}]},
                    "mark": {"type": "bar", "height": 4, "cornerRadius": 2},
                    "encoding": {
                        "x": {**x, "field": "start"},
                        "x2": {"field": "stop"},
                        "y": {"value": lane["top"] + 16},
                        "color": colour,
                    },
                }
                for lane in lanes
            ),
            *(
                {
                    "name": f"lane{names.index(lane['phase'])}",  # a class of the text; the page hides it by this
                    "data": {"values": [lane]},
                    "mark": {"type": "text", "align": "left", "baseline": "bottom", "fontSize": 11, "color": INK},
                    "encoding": {
                        "x": {**x, "field": "start"},
                        "y": {"value": lane["top"] + 11},
                        "text": {"field": "label"},
                    },
                }
                for lane in lanes
            ),
        ],
    }
    return render_svg(spec)


def _epoch(row: LossRow) -> int:
    """The epoch that a step belongs to, counted from 1; the last step of an epoch belongs to that epoch."""
    return max(1, math.ceil(row.epoch))


def smoothed(rows: Sequence[LossRow]) -> list[float]:
    """Centred moving means over about a twentieth of the rows, never across the end of an epoch."""
    reach = min(10, len(rows) // 40 + 1)
    means = []
    for index, row in enumerate(rows):
        window = [
            other.loss for other in rows[max(0, index - reach) : index + reach + 1] if _epoch(other) == _epoch(row)
        ]
        means.append(sum(window) / len(window))
    return means


def assign_lanes(spans: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """{training run: the lowest lane in which it overlaps no run before it}; ``spans``: first and last target token."""
    occupied: list[list[tuple[int, int]]] = []
    lanes = {}
    for name, (start, stop) in spans.items():
        free = (i for i, lane in enumerate(occupied) if all(stop <= other[0] or start >= other[1] for other in lane))
        lane = next(free, len(occupied))
        if lane == len(occupied):
            occupied.append([])
        occupied[lane].append((start, stop))
        lanes[name] = lane
    return lanes


def _loss_scale(losses: Sequence[float]) -> dict[str, Any]:
    low, high = min(losses), max(losses)
    if low <= 0 or high / low < _LOG_FROM:
        return {"scale": {"zero": False}, "axis": {"tickCount": 5}}
    ticks = [step * 10.0**power for power in range(-4, 4) for step in (1, 2, 5)]
    return {
        "scale": {"type": "log", "domain": [low * 0.93, high * 1.05], "nice": False},
        "axis": {"values": [tick for tick in ticks if low * 0.93 <= tick <= high * 1.05], "format": "~g"},
        "title": "loss per target token, nats (log scale)",
    }
