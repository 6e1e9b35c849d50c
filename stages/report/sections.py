"""Which figures the page draws, in which order and beside what; and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from stages.report.charts import Dots, dots, series_chart
from stages.report.comparison import DecidingFigure
from stages.report.figures import figure, measured
from stages.report.load_run import UNDEFINED, Interval, Run
from stages.report.metric_specs import BY_KEY, CAPTION_PREFIX, LENGTH, POPE_KINDS, TOKEN_CLASSES, Metric, grouped


class Card(NamedTuple):
    """A figure of all checkpoints. ``legend``: (shape, what it stands for); ``dashed``: what the dashed line is."""

    title: str
    metric: Metric
    dots: Dots
    legend: tuple[tuple[str, str], ...]
    reading: str
    dashed: str = ""


class Lines(NamedTuple):
    title: str
    svg: Markup
    reading: str


class Section(NamedTuple):
    key: str
    title: str
    lead: str
    lines: list[Lines]
    cards: list[Card]
    note: str = ""


def sections(run: Run) -> list[Section]:
    """The charts worth a look, by question; those without any figure are left out."""
    world = run.params.data.source == "world"
    counted = world or measured(run, "photograph_chair_i")
    if world:
        texts = [*(_prompts_card(run, key) for key in ("chair_i", "precision", "recall")), _length_card(run)]
    elif counted:
        keys = "photograph_chair_i", "photograph_recall", "photograph_length", "loss"
        texts = [_prompts_card(run, key) for key in keys]
    else:
        texts = [_prompts_card(run, "loss"), _prompts_card(run, "repetition"), _length_card(run)]
    every = [
        Section(
            "hallucinated",
            "How much is hallucinated, and how much is said" if counted else "The texts",
            "Read them together: a text that says little has few chances to be wrong." if counted else "",
            [],
            texts,
        ),
        Section(
            "where",
            "Where it is hallucinated",
            "Long descriptions, cut after their first, second, ... sentence; then by kind of object.",
            _sentence_lines(run),
            [
                _series_card(run, "frequency", "chair_i", "CHAIR-i by frequency"),
                _series_card(run, "frequency", "recall", "Recall by frequency"),
                _series_card(run, "background", "chair_i", "CHAIR-i by background"),
                _expected_card(run),
            ],
            _kinds_note(run),
        ),
        Section(
            "picture",
            "What the words take from the picture",
            "Image-swap gap: the rise of the loss of a reference text when another picture takes the place of its "
            "own. 0: the picture does not matter.",
            [],
            [*_gap_cards(run), _probe_card(run)],
        ),
        Section(
            "claims",
            "Is what is said of an object right?",
            "Of objects that are in the picture.",
            [],
            [_prompts_card(run, f"{claim}_accuracy") for claim in ("colour", "count", "position", "relation")],
        ),
        Section(
            "questions",
            "Is there a ...? Yes/no questions (POPE)",
            "About objects that are there, and absent ones: any, frequent ones, or at home on the background.",
            [],
            [
                _pope_card(run, "accuracy", "Accuracy"),
                _pope_card(run, "f1", "F1"),
                _pope_card(run, "yes_ratio", "Yes-ratio"),
                _answer_card(run),
            ],
        ),
    ]
    kept = [
        section._replace(
            lines=[line for line in section.lines if line.svg], cards=[card for card in section.cards if card]
        )
        for section in every
    ]
    return [section for section in kept if section.lines or section.cards]


def _card(
    run: Run,
    metric: Metric,
    keys: dict[str, str],
    guides: Sequence[float] = (),
    dashed: str = "",
    title: str = "",
    reading: str = "",
) -> Card | None:
    """``keys``: what a mark stands for -> key of the figure."""
    keys = {label: key for label, key in keys.items() if measured(run, key)}
    figures = {name: [figure(checkpoint, key) for key in keys.values()] for name, checkpoint in run.checkpoints.items()}
    return _figures_card(title or metric.title, metric, figures, tuple(keys), reading or metric.reading, guides, dashed)


def _figures_card(
    title: str,
    metric: Metric,
    figures: dict[str, list[Interval]],
    labels: tuple[str, ...],
    reading: str,
    guides: Sequence[float] = (),
    dashed: str = "",
) -> Card | None:
    shapes = ("full", "half", "hollow") if len(labels) > 2 else ("full", "hollow")
    drawn = dots(figures, metric, shapes, guides)
    legend = tuple(zip(shapes, labels, strict=False)) if len(labels) > 1 else ()
    return drawn and Card(title, metric, drawn, legend, reading, dashed)


_PROMPTS = ("long description", "short caption")


def _prompts_card(run: Run, key: str, title: str = "", reading: str = "") -> Card | None:
    keys = dict(zip(_PROMPTS, (key, CAPTION_PREFIX + key), strict=True))
    return _card(run, BY_KEY[key], keys, title=title, reading=reading)


def _length_card(run: Run) -> Card | None:
    guides = [length for length in next(iter(run.checkpoints.values())).reference_lengths.values() if length]
    keys = dict(zip(_PROMPTS, (LENGTH.key, CAPTION_PREFIX + LENGTH.key), strict=True))
    return _card(run, LENGTH, keys, guides, "the references' length" if guides else "")


def _gap_cards(run: Run) -> list[Card | None]:
    """By class of token; of all tokens where no class is known."""
    if not measured(run, "swap_gap_object"):
        return [_prompts_card(run, "swap_gap")]
    return [
        _prompts_card(run, f"swap_gap_{name}", f"Gap on {words}", "On these words alone, at their first mention.")
        for name, words in TOKEN_CLASSES.items()
    ]


def _probe_card(run: Run) -> Card | None:
    encoder = [figure(checkpoint, "probe_vision_auc").value for checkpoint in run.checkpoints.values()]
    guides = [value for value in encoder if value is not None][:1]  # the encoder is frozen: it is the same for all
    dashed = "the same off the frozen encoder's own features" if guides else ""
    return _card(run, BY_KEY["probe_auc"], {"": "probe_auc"}, guides, dashed)


def _expected_card(run: Run) -> Card | None:
    keys = {"hallucinated": "hallucinated_at_home", "if drawn by frequency": "hallucinated_at_home_expected"}
    return _card(run, BY_KEY["hallucinated_at_home"], keys)


def _pope_card(run: Run, part: str, title: str) -> Card | None:
    keys = {kind: f"pope_{kind}_{part}" for kind in POPE_KINDS}
    metric = BY_KEY[f"pope_{part}"]
    guides = [metric.target] if metric.target is not None else []
    return _card(run, metric, keys, guides, "unbiased" if guides else "", title)


def _answer_card(run: Run) -> Card | None:
    keys = {"by its words": "pope_accuracy", "by likelihood": "pope_likelihood_accuracy"}
    reading = "All kinds together; by the answer's words, or by which of 有 and 没有 is likelier. A guess gets 50 %."
    return _card(run, BY_KEY["pope_accuracy"], keys, title="Accuracy in all", reading=reading)


_SERIES_READING = {
    "frequency": "Kinds of object in thirds, by how many training scenes show them; see below.",
    "background": "Kinds that usually go with the scene's background, and the others.",
}


def _series_card(run: Run, series: str, key: str, title: str) -> Card | None:
    labels = _series_places(run, series)
    if not labels:
        return None
    cells = zip(*(_series_cells(run, series, at, key) for at in labels), strict=True)
    figures = {name: list(row) for name, row in zip(run.checkpoints, cells, strict=True)}
    return _figures_card(title, BY_KEY[key], figures, tuple(labels), _SERIES_READING[series])


def _kinds_note(run: Run) -> str:
    """Which kinds the parts of a series are of."""
    kinds = {
        place.at: place.kinds
        for checkpoint in run.checkpoints.values()
        for place in checkpoint.series.get("frequency", ())
    }
    return "".join(f"{at.capitalize()}: {', '.join(names)}. " for at, names in kinds.items() if names).strip()


def _series_places(run: Run, series: str) -> list[str]:
    """Of all checkpoints, in order: the longest has them all."""
    return max(
        ([place.at for place in checkpoint.series.get(series, ())] for checkpoint in run.checkpoints.values()), key=len
    )


def _sentence_lines(run: Run) -> list[Lines]:
    charts = (
        (
            "chair_i",
            "chair_i",
            "CHAIR-i of the text so far",
            "Of all objects mentioned up to here, the share hallucinated.",
        ),
        ("chair_i_here", "chair_i", "CHAIR-i of this sentence", "Of the objects mentioned in this sentence alone."),
        ("recall", "recall", "Recall of the text so far", "Of the kinds in the picture, the share named up to here."),
    )
    return [
        Lines(title, Markup(series_chart(run, "sentence", key, BY_KEY[metric].scale, "sentence")), reading)
        for key, metric, title, reading in charts
    ]


def beside(item: DecidingFigure, names: Sequence[str]) -> Dots | None:
    """Both arms on one scale."""
    return dots({names[0]: [item.curriculum], names[1]: [item.control]}, item.metric)


def against(item: DecidingFigure) -> Dots | None:
    """Their difference, and zero."""
    return dots({"": [item.change]}, item.metric, guides=[0.0])


# The table.


class TableRow(NamedTuple):
    metric: Metric
    cells: list[Interval]


def figure_table(run: Run) -> list[tuple[str, list[TableRow]]]:
    """Everything that was measured, by group."""
    every = [checkpoint.evaluation.intervals for checkpoint in run.checkpoints.values()]
    table = [
        (title, [TableRow(metric, [intervals.get(key, UNDEFINED) for intervals in every]) for key, metric in rows])
        for title, rows in grouped({key for intervals in every for key in intervals})
    ]
    titles = {"sentence": "Along the long descriptions", "frequency": "By frequency", "background": "By background"}
    for series, title in titles.items():
        rows = [
            TableRow(_at(series, place, key), _series_cells(run, series, place, key))
            for key in ("chair_i", "chair_i_here", "recall")
            for place in _series_places(run, series)
        ]
        table.append((title, [row for row in rows if any(cell.value is not None for cell in row.cells)]))
    return [(title, rows) for title, rows in table if rows]


def _at(series: str, place: str, key: str) -> Metric:
    metric = BY_KEY[key.removesuffix("_here")]
    where = f"sentence {place} alone" if key.endswith("_here") else f"up to sentence {place}"
    return metric._replace(title=f"{metric.title}, {where if series == 'sentence' else place}", reading="")


def _series_cells(run: Run, series: str, at: str, key: str) -> list[Interval]:
    places = [
        {place.at: place.intervals for place in checkpoint.series.get(series, ())}
        for checkpoint in run.checkpoints.values()
    ]
    return [found.get(at, {}).get(key, UNDEFINED) for found in places]
