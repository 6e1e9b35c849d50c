"""Charts of the page, each of one figure of all checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from stages.report.charts.dot_chart import DotChart, dot_chart
from stages.report.charts.line_chart import line_chart
from stages.report.comparison import DecidingFigure
from stages.report.run.figures import figure, measured
from stages.report.run.load_run import Run
from stages.report.run.metric_specs import BY_KEY, CAPTION_PREFIX, LENGTH, POPE_KINDS, TOKEN_CLASSES, Metric
from stages.report.run.records import UNDEFINED, Interval
from stages.report.statements import readable


class DotCard(NamedTuple):
    """``legend``: (shape, meaning); ``dashed``: meaning of the dashed line."""

    title: str
    metric: Metric
    chart: DotChart
    legend: tuple[tuple[str, str], ...]
    reading: str
    dashed: str = ""


class LineCard(NamedTuple):
    """``svg`` is empty if no checkpoint has this figure."""

    title: str
    unit: str
    svg: Markup
    reading: str


def dot_card(
    run: Run,
    metric: Metric,
    keys: dict[str, str],
    guides: Sequence[float] = (),
    dashed: str = "",
    title: str = "",
    reading: str = "",
) -> DotCard | None:
    """``keys``: meaning of a mark -> key of the figure. None if nothing of it was measured."""
    keys = {label: key for label, key in keys.items() if measured(run, key)}
    figures = {name: [figure(checkpoint, key) for key in keys.values()] for name, checkpoint in run.checkpoints.items()}
    return _card(title or metric.title, metric, figures, tuple(keys), reading or metric.reading, guides, dashed)


def _card(
    title: str,
    metric: Metric,
    figures: dict[str, list[Interval]],
    labels: tuple[str, ...],
    reading: str,
    guides: Sequence[float] = (),
    dashed: str = "",
) -> DotCard | None:
    shapes = ("full", "half", "hollow") if len(labels) > 2 else ("full", "hollow")
    chart = dot_chart(figures, metric, shapes, guides)
    legend = tuple(zip(shapes, labels, strict=False)) if len(labels) > 1 else ()
    return chart and DotCard(title, metric, chart, legend, reading, dashed)


_PROMPTS = ("long description", "short caption")


def prompts_card(run: Run, key: str, title: str = "", reading: str = "") -> DotCard | None:
    """A figure of the long descriptions and of the short captions."""
    metric = BY_KEY[key]
    keys = dict(zip(_PROMPTS, (key, CAPTION_PREFIX + key), strict=True))
    guides = [] if metric.target is None else [metric.target]
    return dot_card(run, metric, keys, guides, "chance" if guides else "", title, reading)


def length_card(run: Run) -> DotCard | None:
    guides = [length for length in next(iter(run.checkpoints.values())).reference_lengths.values() if length]
    keys = dict(zip(_PROMPTS, (LENGTH.key, CAPTION_PREFIX + LENGTH.key), strict=True))
    return dot_card(run, LENGTH, keys, guides, "length of the reference texts" if guides else "")


def wrong_mentions_card(run: Run) -> DotCard | None:
    """CHAIR-i split into misnamed and hallucinated objects, long descriptions."""
    reading = (
        "Of all objects mentioned in long descriptions; both add up to CHAIR-i. Misnamed: the stated position or "
        "colour fits an object of the same class that is not named otherwise. Hallucinated: all other absent objects."
    )
    keys = {"hallucinated": "hallucinated", "misnamed": "misnamed"}
    return dot_card(run, BY_KEY["hallucinated"], keys, title="Absent objects mentioned", reading=reading)


def gap_cards(run: Run) -> list[DotCard | None]:
    """Image-swap gaps by class of token, or of all tokens if no class is known; then the blind gap."""
    classes = measured(run, "swap_gap_object")
    blind = "blind_gap_object" if measured(run, "blind_gap_object") else "blind_gap"
    if not classes:
        return [prompts_card(run, "swap_gap"), prompts_card(run, blind)]
    reading = "Image-swap gap of these words alone, at their first mention."
    return [
        *(prompts_card(run, f"swap_gap_{name}", f"Gap, {words}", reading) for name, words in TOKEN_CLASSES.items()),
        prompts_card(run, blind),
    ]


def background_card(run: Run) -> DotCard | None:
    key = "wrong_on_favoured_background"
    return dot_card(run, BY_KEY[key], {"observed": key, "expected from frequency": f"{key}_expected"})


def pope_card(run: Run, part: str, title: str) -> DotCard | None:
    keys = {kind: f"pope_{kind}_{part}" for kind in POPE_KINDS}
    metric = BY_KEY[f"pope_{part}"]
    guides = [metric.target] if metric.target is not None else []
    return dot_card(run, metric, keys, guides, "unbiased" if guides else "", title)


_SERIES_READING = {
    "frequency": "Kinds of object in thirds, by the number of training scenes that show them; see below.",
    "background": "Kinds that favour the background of the scene, and all other kinds.",
}


def series_card(run: Run, series: str, key: str, title: str) -> DotCard | None:
    """A figure at each point of a series; None if no checkpoint has this series."""
    labels = series_points(run, series)
    if not labels:
        return None
    cells = zip(*(series_cells(run, series, at, key) for at in labels), strict=True)
    figures = {name: list(row) for name, row in zip(run.checkpoints, cells, strict=True)}
    return _card(title, BY_KEY[key], figures, tuple(labels), _SERIES_READING[series])


def series_points(run: Run, series: str) -> list[str]:
    """``at`` of the points, in order, of the checkpoint that has most of them."""
    return max(
        ([point.at for point in checkpoint.series.get(series, ())] for checkpoint in run.checkpoints.values()), key=len
    )


def series_cells(run: Run, series: str, at: str, key: str) -> list[Interval]:
    """A figure at one point of a series, of each checkpoint."""
    points = [
        {point.at: point.intervals for point in checkpoint.series.get(series, ())}
        for checkpoint in run.checkpoints.values()
    ]
    return [found.get(at, {}).get(key, UNDEFINED) for found in points]


def kinds_note(run: Run) -> str:
    """The kinds of object in each third of the series by frequency."""
    kinds = {
        point.at: point.kinds
        for checkpoint in run.checkpoints.values()
        for point in checkpoint.series.get("frequency", ())
    }
    return "".join(
        f"{at.capitalize()}: {', '.join(map(readable, names))}. " for at, names in kinds.items() if names
    ).strip()


def recall_by_sentence_card(run: Run) -> LineCard:
    reading = "Of the kinds in the picture, the share named up to this sentence."
    return _line_card(run, "sentence", "recall", "Recall up to this sentence", "sentence", reading)


def probe_card(run: Run) -> LineCard:
    reading = (
        "Which objects are present, predicted by a linear probe from the hidden state at the last position of the "
        "prompt. 0.5 is chance."
    )
    return _line_card(run, "layer", "probe_auc", "Probe per layer, ROC AUC", "layer of the decoder", reading)


def _line_card(run: Run, series: str, key: str, title: str, axis: str, reading: str) -> LineCard:
    metric = BY_KEY[key]
    return LineCard(title, metric.unit, Markup(line_chart(run, series, key, metric.scale, axis)), reading)


def arms_chart(item: DecidingFigure, names: Sequence[str]) -> DotChart | None:
    """Curriculum and control on one scale; ``names``: of their checkpoints."""
    return dot_chart({names[0]: [item.curriculum], names[1]: [item.control]}, item.metric)


def difference_chart(item: DecidingFigure) -> DotChart | None:
    """Curriculum minus control, and a dashed line at zero."""
    return dot_chart({"": [item.change]}, item.metric, guides=[0.0])
