"""The page's charts: Vega-Lite specifications, rendered to SVG that takes its colours from the page's CSS.

Colours are CSS variables (``var(--c2)``), which Vega passes through as it finds them, so that one drawing serves
light and dark. Text keeps its size only where an SVG is shown at its own width; hence several widths of a wide chart.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stages.common.params import Params
from stages.report.catalogue import CAPTION_PREFIX, Metric
from stages.report.merge import LossRow, Run, epoch_boundaries, timeline_starts

_INK, _MUTED, _GRID = "var(--ink)", "var(--muted)", "var(--grid)"
_FONT = 'system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif'
_CONFIG: dict[str, Any] = {
    "aria": False,  # each figure is labelled as a whole
    "background": None,
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": _GRID,
        "labelColor": _MUTED,
        "titleColor": _MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "labelPadding": 6,
    },
}
_TOKENS = "datum.value == 0 ? '0' : format(datum.value, '~s')"
_LOG_FROM = 6.0  # ratio of the largest to the smallest loss above which a straight axis would hide the end
_MAX_POINTS = 300  # drawn per training run; a page must stay small after a long run
_LANE = 24  # pixels a lane of training runs takes above the loss plot
_CHARACTER = 6.4  # pixels, generously, of a character of lane labels


class Colour(NamedTuple):
    light: str
    dark: str


def palette(params: Params, names: Sequence[str]) -> dict[str, Colour]:
    """A colour per checkpoint: grey for pretraining, a ramp of blues along the curriculum, warm ones for controls,
    green for finished models. Those after earlier epochs have the colour of the last."""
    controls = list(dict.fromkeys(f"sft-{control}" for _, control in params.sft.comparisons))
    others = [f"sft-{name}" for name in params.sft.phases if f"sft-{name}" not in controls]
    warm = (Colour("#d4680c", "#ff9b4a"), Colour("#b0308c", "#ee82cf"), Colour("#8a6d00", "#dcbb3c"))
    colours = {"pretrain": Colour("#858b96", "#8b919c")}
    for place, name in enumerate(others):
        share = place / (len(others) - 1) if len(others) > 1 else 1.0
        colours[name] = Colour(
            _hex(0.49 + 0.17 * share, 0.55 - 0.20 * share, 0.62), _hex(0.64 - 0.12 * share, 0.62 + 0.14 * share, 0.75)
        )
    for place, name in enumerate(controls):
        colours[name] = warm[place % len(warm)]
    for name in params.fetch.models:
        colours[name] = Colour("#2f8f4e", "#5fc983")
    return {name: colours[name.split("/")[0]] for name in names}


def _hex(hue: float, lightness: float, saturation: float) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, saturation))


def variable(names: Sequence[str], name: str) -> str:
    """The CSS variable that holds a checkpoint's colour."""
    return f"var(--c{names.index(name)})"


def _svg(spec: Mapping[str, Any]) -> str:
    import vl_convert  # late: it starts a JavaScript engine

    svg = vl_convert.vegalite_to_svg({"config": _CONFIG, "padding": 2, **spec})
    return re.sub(r' font-family="[^"]*"', "", svg)  # the page's own font


def loss_chart(run: Run, width: int, height: int) -> str:
    """Loss of all training runs over target tokens seen since pretraining began. SVG ``width`` pixels wide."""
    names = list(run.checkpoints)
    starts = timeline_starts(run)
    spans = {name: (starts[name], starts[name] + c.target_tokens) for name, c in run.checkpoints.items() if c.loss}
    if not spans:
        return ""
    plot_width = width - 52
    end = max(stop for _, stop in spans.values())
    raw, smooth, rules = [], [], []
    for name in spans:
        rows = [row for row in run.checkpoints[name].loss if math.isfinite(row.loss)]
        kept = range(0, len(rows), math.ceil(len(rows) / _MAX_POINTS) or 1)
        means = smoothed(rows)
        for index in kept:
            point = {"phase": name, "timeline": starts[name] + rows[index].target_tokens}
            raw.append({**point, "loss": rows[index].loss})
            # A curve is cut where an epoch ends, so that a jump there stays a jump.
            smooth.append({**point, "loss": means[index], "epoch": f"{name}/{_epoch(rows[index])}"})
        for tokens in epoch_boundaries(run.checkpoints[name].loss):
            rules.append({"phase": name, "timeline": starts[name] + tokens})
    lanes = []
    for name, lane in place_in_lanes(spans).items():
        start, stop = spans[name]
        top = -_LANE * (lane + 1)
        label = name if len(name) * _CHARACTER <= (stop - start) / end * plot_width else name.removeprefix("sft-")
        fits = len(label) * _CHARACTER <= (stop - start) / end * plot_width
        lanes.append({"phase": name, "start": start, "stop": stop, "label": label if fits else "", "top": top})
    losses = [row["loss"] for row in raw]
    colour = {
        "field": "phase",
        "type": "nominal",
        "scale": {"domain": names, "range": [variable(names, name) for name in names]},
        "legend": None,
    }
    x = {
        "type": "quantitative",
        "scale": {"domain": [0, end], "nice": False},
        "title": "target tokens since pretraining began",
        "axis": {
            "labelExpr": _TOKENS,
            "grid": False,
            "tickCount": max(3, plot_width // 110),
            "ticks": True,
            "tickColor": _GRID,
        },
    }
    y = {"field": "loss", "type": "quantitative", "title": "loss per target token, nats", **_loss_scale(losses)}
    gap = end / plot_width  # a pixel of daylight between neighbouring lanes
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
                    "data": {"values": [lane]},
                    "mark": {"type": "text", "align": "left", "baseline": "bottom", "fontSize": 11, "color": _INK},
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
    return _svg(spec)


def _epoch(row: LossRow) -> int:
    """The epoch that a step belongs to, counted from 1; a step at the very end belongs to the epoch it ends."""
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


def place_in_lanes(spans: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """The lowest lane per training run in which it overlaps no run before it."""
    ends: list[list[tuple[int, int]]] = []
    lanes = {}
    for name, (start, stop) in spans.items():
        free = (i for i, taken in enumerate(ends) if all(stop <= other[0] or start >= other[1] for other in taken))
        lane = next(free, len(ends))
        if lane == len(ends):
            ends.append([])
        ends[lane].append((start, stop))
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


def metric_chart(run: Run, metric: Metric, width: int = 290) -> str:
    """A figure of every checkpoint with its interval: filled dots for long descriptions, hollow ones for captions."""
    names = list(run.checkpoints)
    scale = 100.0 if metric.share else 1.0
    keys = {"description": metric.key, "caption": CAPTION_PREFIX + metric.key}
    rows = []
    for name, checkpoint in run.checkpoints.items():
        for prompt, key in keys.items():
            interval = checkpoint.evaluation.intervals.get(key)
            if interval is not None and interval.value is not None:
                low = interval.value if interval.low is None else interval.low
                high = interval.value if interval.high is None else interval.high
                rows.append(
                    {
                        "checkpoint": name,
                        "prompt": prompt,
                        "value": scale * interval.value,
                        "low": scale * low,
                        "high": scale * high,
                    }
                )
    if not rows:
        return ""
    both = len({row["prompt"] for row in rows}) > 1
    guides = [{"at": scale * metric.target}] if metric.target is not None else []
    if metric.unit == "characters":
        lengths = next(iter(run.checkpoints.values())).reference_lengths
        guides += [{"at": length} for length in lengths.values()]
    extent = [*(row["low"] for row in rows), *(row["high"] for row in rows), *(guide["at"] for guide in guides)]
    margin = 0.06 * (max(extent) - min(extent)) or 1.0
    domain = [max(0.0, min(extent) - margin), max(extent) + margin]
    if metric.share:
        domain[1] = min(100.0, domain[1])
    colour = {
        "field": "checkpoint",
        "type": "nominal",
        "scale": {"domain": names, "range": [variable(names, name) for name in names]},
        "legend": None,
    }
    x = {
        "type": "quantitative",
        "scale": {"domain": domain, "nice": True, "zero": False},
        "axis": {"tickCount": 4, "title": None, "labelFlush": False},
    }
    y = {
        "field": "checkpoint",
        "type": "nominal",
        "sort": names,
        "scale": {"domain": names, "paddingInner": 0.35, "paddingOuter": 0.2},
        # A fixed width: fonts differ between the machine that draws and the one that shows.
        "axis": {"title": None, "grid": False, "labelColor": _INK, "labelLimit": 140, "labelPadding": 10}
        | dict.fromkeys(("minExtent", "maxExtent"), min(140, 10 + _CHARACTER * max(map(len, names)))),
    }
    offset = {"field": "prompt", "type": "nominal", "scale": {"domain": list(keys)}} if both else None
    place = {"y": y} | ({"yOffset": offset} if offset else {})
    drawn = {"data": {"values": rows}, "encoding": {**place, "color": colour}}
    described = {row["checkpoint"] for row in rows if row["prompt"] == "description"}
    undefined = [{"checkpoint": name, "text": "undefined"} for name in names if name not in described]
    spec = {
        "autosize": {"type": "fit-x", "contains": "padding"},
        "width": width,
        "height": {"step": 33, "for": "position"} if both else {"step": 33},
        "layer": [
            {
                "data": {"values": guides},
                "mark": {"type": "rule", "strokeDash": [4, 3], "color": _MUTED},
                "encoding": {"x": {**x, "field": "at"}},
            },
            {
                "data": {"values": undefined},
                "mark": {"type": "text", "align": "left", "fontSize": 11, "color": _MUTED},
                "encoding": {"y": y, "x": {"value": 0}, "text": {"field": "text"}},
            },
            {
                **drawn,
                "mark": {"type": "rule", "strokeWidth": 2, "strokeCap": "round", "opacity": 0.75},
                "encoding": {**drawn["encoding"], "x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                **drawn,
                "mark": {"type": "point", "size": 52, "strokeWidth": 2, "opacity": 1},
                "encoding": {
                    **drawn["encoding"],
                    "x": {**x, "field": "value"},
                    "fill": {
                        "condition": {"test": "datum.prompt == 'description'", **_fill(colour)},
                        "value": "var(--card)",
                    },
                },
            },
        ],
    }
    return _svg(spec)


def _fill(colour: Mapping[str, Any]) -> dict[str, Any]:
    return {key: colour[key] for key in ("field", "type", "scale", "legend")}
