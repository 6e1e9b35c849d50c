"""What each figure is called on the page and how to read it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Better = Literal["lower", "higher", "neither"]
CAPTION_PREFIX = "caption_"  # of a figure measured on the short prompt
MINUS = "−"


class Metric(NamedTuple):
    """``unit`` %: a share of one, in percent. ``target``: a value to compare with, where it is neither 0 nor 1."""

    key: str
    title: str
    better: Better
    reading: str
    unit: Literal["%", "characters", "nats", "a text", ""] = "%"
    target: float | None = None
    decimals: int = 1

    @property
    def arrow(self) -> str:
        return {"lower": "↓", "higher": "↑", "neither": ""}[self.better]

    @property
    def scale(self) -> float:
        return 100.0 if self.unit == "%" else 1.0

    def show(self, value: float | None) -> str:
        """8.1 for a share of 0.081; 92.4 for 92.41 characters; 2.345 nats; a dash where the figure is undefined."""
        return "–" if value is None else signed(self.scale * value, self.decimals).removeprefix("+")

    def change(self, value: float | None) -> str:
        """As ``show``, with a sign."""
        return "–" if value is None else signed(self.scale * value, self.decimals)


def signed(value: float, decimals: int) -> str:
    """+0.5, −0.5, and 0.0 for what rounds to it."""
    text = f"{value:+.{decimals}f}"
    return text[1:] if not float(text) else text.replace("-", MINUS)


TEXT_METRICS = (
    Metric("chair_i", "CHAIR-i", "lower", "Of all objects mentioned, the share that is not in the picture."),
    Metric(
        "chair_s", "CHAIR-s", "lower", "Share of texts that mention at least one object that is not in the picture."
    ),
    Metric(
        "precision", "Precision", "higher", "Of the kinds of object named in a text, the share that is in the picture."
    ),
    Metric("recall", "Recall", "higher", "Of the kinds of object in the picture, the share that the text names."),
    Metric("f1", "F1", "higher", "Harmonic mean of precision and recall."),
    Metric(
        "length",
        "Length",
        "neither",
        "Mean characters of a text. Compare other figures at similar length.",
        unit="characters",
    ),
    Metric("repetition", "Repetition", "lower", "Share of the text that repeats what it has said before."),
)
CLAIM_METRICS = (
    Metric("colour_accuracy", "Colour", "higher", "Of the objects rightly named with a colour, that colour is right."),
    Metric(
        "colour_accuracy_held_out",
        "Colour, unseen pairs",
        "higher",
        "The same for pairs of kind and colour never trained on.",
    ),
    Metric("count_accuracy", "Count", "higher", "Of the numbers stated of objects that are there, the share right."),
    Metric("position_accuracy", "Position", "higher", "Of the places in the picture stated of them, the share right."),
    Metric("relation_accuracy", "Relation", "higher", "Of the relations stated between them, the share right."),
)
PRIOR_METRICS = (
    Metric(
        "hallucinated_at_home",
        "Invented, of this background",
        "neither",
        "Of the hallucinated mentions, the share whose kind favours the background of the scene.",
    ),
    Metric(
        "hallucinated_at_home_expected",
        "The same, if drawn by frequency",
        "neither",
        "That share if hallucinated objects were drawn by how often training shows them, whatever the background.",
    ),
)
OVERLAP_METRICS = (
    Metric("bleu", "BLEU", "higher", "Against the reference texts, characters as tokens."),
    Metric("chrf", "chrF", "higher", "F-score of character n-grams against the reference texts."),
    Metric("cider", "CIDEr", "higher", "n-grams weighted by how rare they are, 0 to 10.", unit="", decimals=2),
    Metric("distinct_1", "Distinct-1", "neither", "Different characters, of all characters of all texts."),
    Metric("distinct_2", "Distinct-2", "neither", "Different pairs of characters, of all pairs."),
)
QUESTION_METRICS = (
    Metric(
        "pope_accuracy", "POPE accuracy", "higher", "Yes/no questions about objects, answered right; a guess gets 50 %."
    ),
    Metric("pope_f1", "POPE F1", "higher", "Harmonic mean of precision and recall of yes."),
    Metric(
        "pope_yes_ratio",
        "POPE yes-ratio",
        "neither",
        "Of the answers that say yes or no, the share that says yes; right for half of them.",
        target=0.5,
    ),
    Metric("pope_invalid", "POPE invalid", "lower", "Answers that say neither yes nor no."),
    Metric(
        "pope_likelihood_accuracy",
        "POPE by likelihood",
        "higher",
        "Right when the likelier of 有 and 没有 counts as the answer.",
    ),
    *(
        Metric(f"pope_{kind}_{figure}", f"POPE {kind}, {title}", better, reading, target=target)
        for kind, reading in (
            ("random", "The absent object is any."),
            ("popular", "The absent object is a frequent one."),
            ("adversarial", "The absent object usually goes with the background."),
        )
        for figure, title, better, target in (
            ("accuracy", "accuracy", "higher", None),
            ("f1", "F1", "higher", None),
            ("yes_ratio", "yes-ratio", "neither", 0.5),
        )
    ),
)
POPE_KINDS = ("random", "popular", "adversarial")
TOKEN_CLASSES = {"object": "object words", "colour": "colour words", "rest": "all other words"}
GROUNDING_METRICS = (
    Metric(
        "swap_gap",
        "Image-swap gap",
        "higher",
        "Loss of the reference text with another picture minus with its own; 0: the picture does not matter.",
        unit="nats",
        decimals=2,
    ),
    *(
        Metric(
            f"swap_gap_{key}",
            f"Image-swap gap, {words}",
            "higher",
            f"The same on {words} alone.",
            unit="nats",
            decimals=2,
        )
        for key, words in TOKEN_CLASSES.items()
    ),
)
PROBE_METRICS = (
    Metric(
        "probe_auc",
        "Probe of image tokens",
        "higher",
        "Which objects are there, read off the projected image tokens by a linear probe: area under the ROC curve.",
        unit="",
        target=0.5,
        decimals=4,
    ),
    Metric(
        "probe_vision_auc",
        "Probe of the encoder",
        "higher",
        "The same off the frozen encoder's own features: what there is to be read.",
        unit="",
        target=0.5,
        decimals=4,
    ),
)
PHOTOGRAPH_METRICS = (
    Metric(
        "photograph_chair_i", "Photographs, CHAIR-i", "lower", "Of all things mentioned, the share it does not show."
    ),
    Metric("photograph_chair_s", "Photographs, CHAIR-s", "lower", "Share of texts that mention at least one of these."),
    Metric(
        "photograph_unsupported",
        "Photographs, hallucinated",
        "lower",
        "Mentions of what the photograph does not show.",
        unit="a text",
        decimals=2,
    ),
    Metric("photograph_recall", "Photographs, recall", "higher", "Of what the photograph shows, the share named."),
    *(
        Metric(f"photograph_subject_{aspect}", f"Photographs, {aspect}", "higher", reading)
        for aspect, reading in (
            ("gender", "Of the texts that state the main subject's gender, the share that is right."),
            ("colour", "The same for its colour."),
            ("count", "The same for its number."),
        )
    ),
    Metric("photograph_length", "Photographs, length", "neither", "Mean characters of a text.", unit="characters"),
    Metric("photograph_repetition", "Photographs, repetition", "lower", "Share of the text that repeats itself."),
)
LOSS = Metric(
    "loss", "Test loss", "lower", "Mean cross-entropy of a target token of the test rows.", "nats", decimals=3
)

_LONG = (LOSS, *TEXT_METRICS, *CLAIM_METRICS, *PRIOR_METRICS, *OVERLAP_METRICS, *GROUNDING_METRICS)
BY_KEY = {metric.key: metric for metric in (*_LONG, *PROBE_METRICS, *QUESTION_METRICS, *PHOTOGRAPH_METRICS)}
LENGTH = BY_KEY["length"]
# The figures that answer the page's question.
DECIDING = tuple(BY_KEY[key] for key in ("chair_i", "precision", "recall", "photograph_chair_i", "photograph_recall"))


class Named(NamedTuple):
    """A row of the table: a metric under the name that it has in the metrics file."""

    key: str
    metric: Metric


def grouped(keys: set[str]) -> list[tuple[str, list[Named]]]:
    """All figures of a run, by group; unknown ones come last, by name."""
    groups = [
        ("Long descriptions", _LONG[: -len(GROUNDING_METRICS)]),
        ("Photographs", PHOTOGRAPH_METRICS),
        ("Yes/no questions", QUESTION_METRICS),
        ("Grounding in the picture", (*GROUNDING_METRICS, *PROBE_METRICS)),
    ]
    rows = [(title, [Named(metric.key, metric) for metric in metrics]) for title, metrics in groups]
    short = (*_LONG, *PHOTOGRAPH_METRICS)
    captions = [Named(CAPTION_PREFIX + metric.key, metric._replace(reading="")) for metric in short]
    rows.insert(1, ("Short captions", captions))
    known = {row.key for _, group in rows for row in group}
    others = [Named(key, Metric(key, key, "neither", "", unit="", decimals=3)) for key in sorted(keys - known)]
    rows.append(("Other figures", others))
    present = [(title, [row for row in group if row.key in keys]) for title, group in rows]
    return [(title, group) for title, group in present if group]
