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

from stages.common.config.params import Params
from stages.report.figures import shown
from stages.report.load_run import UNDEFINED, Interval, LossRow, Run, epoch_boundaries, timeline_starts
from stages.report.metric_specs import MINUS, Metric

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
_TICK_CHARACTERS = 11  # of all labels of a narrow scale
_ROUNDING = 1e-9
_CHARACTER = 6.4  # pixels, generously, of a character of lane labels


class Colour(NamedTuple):
    light: str
    dark: str


_WARM = (
    *(Colour("#d4680c", "#ff9b4a"), Colour("#b0308c", "#ee82cf"), Colour("#8a6d00", "#dcbb3c")),
    *(Colour("#c0392b", "#ff7a6b"), Colour("#7a4a2b", "#c99a78"), Colour("#6b7a12", "#b9c94f")),
)


def palette(params: Params, names: Sequence[str]) -> dict[str, Colour]:
    """A colour per checkpoint: grey for pretraining, a ramp of blues along the curriculum, warm ones for the phases
    beside it, green for finished models. Those after earlier epochs have the colour of the last."""
    sft = params.sft
    curricula = {link for curriculum, _ in sft.comparisons for link in sft.chain(curriculum)} or set(sft.phases)
    cool = sorted((name for name in sft.phases if name in curricula), key=lambda name: len(sft.chain(name)))
    colours = {"pretrain": Colour("#858b96", "#8b919c")}
    for place, name in enumerate(cool):
        share = place / (len(cool) - 1) if len(cool) > 1 else 1.0
        colours[f"sft-{name}"] = Colour(
            _hex(0.49 + 0.17 * share, 0.55 - 0.20 * share, 0.62), _hex(0.64 - 0.12 * share, 0.62 + 0.14 * share, 0.75)
        )
    for place, name in enumerate(name for name in sft.phases if name not in curricula):
        colours[f"sft-{name}"] = _WARM[place % len(_WARM)]
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
                    "name": f"lane{names.index(lane['phase'])}",  # a class of the text, which the page hides it by
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


def series_chart(run: Run, series: str, key: str, scale: float, title: str) -> str:
    """A figure along the places of a series, which are numbered: a line a checkpoint, its intervals as a band."""
    names = list(run.checkpoints)
    rows = [
        {"checkpoint": name, "at": int(place.at)}
        | {part: None if end is None else scale * end for part, end in interval}
        for name, checkpoint in run.checkpoints.items()
        for place in checkpoint.series.get(series, ())
        for interval in [place.intervals.get(key, UNDEFINED)]
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
    spec = {
        "autosize": {"type": "fit-x", "contains": "padding"},
        "width": 360,
        "height": 210,
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.13},
                "encoding": {**value, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {"mark": {"type": "line", "strokeWidth": 2, "strokeJoin": "round"}, "encoding": value},
            {"mark": {"type": "circle", "size": 30, "opacity": 1}, "encoding": value},
        ],
    }
    return _svg(spec)


# Figures with their intervals, a row a checkpoint: drawn by the page itself, so that they are as wide as it has room.


class Mark(NamedTuple):
    """Places in percent of the scale; ``span``: of the interval, its left end and its width."""

    at: float
    span: tuple[float, float] | None
    shape: str
    text: str


class DotRow(NamedTuple):
    """``text``: the first figure, a dash where it is undefined."""

    checkpoint: str
    marks: tuple[Mark, ...]
    text: str


class Dots(NamedTuple):
    """``ticks``: place in percent and label, at equal distances from 0 to 100; ``guides``: places of dashed lines."""

    rows: tuple[DotRow, ...]
    ticks: tuple[tuple[float, str], ...]
    guides: tuple[float, ...]


SHAPES = ("full", "hollow", "half")  # two figures differ most in the first two


def dots(
    figures: Mapping[str, Sequence[Interval]],
    metric: Metric,
    shapes: Sequence[str] = SHAPES,
    guides: Sequence[float] = (),
) -> Dots | None:
    """Figures of each checkpoint on one scale, which need not start at 0. None if all are undefined."""
    known = [interval for row in figures.values() for interval in row if interval.value is not None]
    if not known:
        return None
    ends = [end for interval in known for end in (interval.value, interval.low, interval.high) if end is not None]
    ticks = _readable_ticks([metric.scale * end for end in (*ends, *guides)])

    def place(value: float) -> float:
        return round(100 * (metric.scale * value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    def mark(interval: Interval, shape: str) -> Mark:
        span = (place(interval.low), round(place(interval.high) - place(interval.low), 1)) if interval.defined else None
        return Mark(place(interval.value), span, shape, shown(metric, interval))

    rows = tuple(
        DotRow(
            name,
            tuple(mark(i, shape) for i, shape in zip(intervals, shapes, strict=False) if i.value is not None),
            metric.show(intervals[0].value),
        )
        for name, intervals in figures.items()
    )
    places = [round(100 * number / (len(ticks) - 1), 1) for number in range(len(ticks))]
    return Dots(rows, tuple(zip(places, map(_tick_label, ticks), strict=True)), tuple(place(guide) for guide in guides))


def _readable_ticks(values: Sequence[float]) -> list[float]:
    """As many as have room for their labels."""
    choices = [nice_ticks(values, most) for most in (5, 4, 3)]
    return next((ticks for ticks in choices if len("".join(map(_tick_label, ticks))) <= _TICK_CHARACTERS), choices[-1])


def _tick_label(tick: float) -> str:
    return f"{tick:.6g}".replace("-", MINUS)


def nice_ticks(values: Sequence[float], most: int) -> list[float]:
    """At most ``most`` round numbers at equal distances that take in all values."""
    low, high = min(values), max(values)
    if low == high:
        low -= abs(low) / 10
    power = math.floor(math.log10(high - low or 1.0)) - 1
    steps = [step * 10.0**power for power in range(power, power + 4) for step in (1, 2, 2.5, 5)]

    def ends(step: float) -> tuple[int, int]:
        first = math.floor(low / step + _ROUNDING)
        return first, max(math.ceil(high / step - _ROUNDING), first + 1)

    step = next(step for step in steps if ends(step)[1] - ends(step)[0] < most)
    first, last = ends(step)
    return [number * step for number in range(first, last + 1)]
