"""The title of each metric on the page, its unit and direction, and how to read it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Better = Literal["lower", "higher", "neither"]
CAPTION_PREFIX = "caption_"  # of a figure measured on the short prompt
FAR_FIRST_PREFIX = "far_first_"  # of a figure measured on the long prompt that asks for far things first
MINUS = "−"
PHOTOGRAPHS = "Photographs, "  # start of the titles of figures of photographs


class Metric(NamedTuple):
    """``unit`` %: a share, shown in percent. ``target``: a value to compare with that is neither 0 nor 1."""

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
        """8.1 for a share of 0.081; 92.4 for 92.41 characters; a dash if the figure is undefined."""
        return "–" if value is None else signed(self.scale * value, self.decimals).removeprefix("+")

    def change(self, value: float | None) -> str:
        """Like ``show``, with a sign."""
        return "–" if value is None else signed(self.scale * value, self.decimals)


def signed(value: float, decimals: int) -> str:
    """+0.5, −0.5, and 0.0 for a value that rounds to zero."""
    text = f"{value:+,.{decimals}f}"
    return text[1:] if not float(text.replace(",", "")) else text.replace("-", MINUS)


TEXT_METRICS = (
    Metric("chair_i", "CHAIR-i", "lower", "Of all objects mentioned, the share that is not in the picture."),
    Metric(
        "misnamed",
        "Misnamed",
        "lower",
        "Part of CHAIR-i: the stated position or colour fits an object of the same class that is not named otherwise.",
    ),
    Metric("hallucinated", "Hallucinated", "lower", "Part of CHAIR-i: all other mentions of absent objects."),
    Metric(
        "unsupported",
        "Absent kinds",
        "lower",
        "Kinds of object that a text names and that are not in the picture.",
        unit="a text",
        decimals=2,
    ),
    Metric(
        "chair_s",
        "CHAIR-s",
        "lower",
        "Of the texts that mention an object, the share that mentions one that is not in the picture.",
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
    Metric("repetition", "Repetition", "lower", "Share of the text that repeats earlier parts of it."),
)
_FIRST = "Of the first mentions of kinds"
DEPTH_METRICS = (
    Metric(
        "chair_i_opening",
        "CHAIR-i, first two sentences",
        "lower",
        f"{_FIRST} in the first two sentences, the share that is not in the picture.",
    ),
    Metric("chair_i_rest", "CHAIR-i, the rest", "lower", "The same after the first two sentences."),
    Metric("chair_i_rise", "CHAIR-i, rise", "lower", "The rest minus the first two sentences."),
    Metric(
        "unsupported_opening",
        "Absent kinds, first two sentences",
        "lower",
        "Of the text cut after its first two sentences.",
        unit="a text",
        decimals=2,
    ),
    Metric("recall_opening", "Recall, first two sentences", "higher", "Of the text cut after its first two sentences."),
    Metric(
        "length_opening",
        "Length, first two sentences",
        "neither",
        "Of the text cut after its first two sentences.",
        unit="characters",
    ),
)
_DISTANCE_READINGS = {
    "near": "in clauses that do not say that a thing is far away",
    "far": "in clauses that say that a thing is far away",
}
DISTANCE_METRICS = (
    *(
        Metric(
            f"recall_{distance}",
            f"Recall, {distance} things",
            "higher",
            f"Of the kinds of {size} things in the picture, the share that the text names.",
        )
        for distance, size in (("near", "large, near"), ("far", "small, far"))
    ),
    *(
        Metric(f"{key}_{distance}", f"{title}, {distance}", "lower", f"{_FIRST} {where}, the share that {what}.")
        for key, title, what in (
            ("chair_i", "CHAIR-i", "is not in the picture"),
            ("misnamed", "Misnamed", "is misnamed"),
            ("hallucinated", "Hallucinated", "is hallucinated"),
        )
        for distance, where in _DISTANCE_READINGS.items()
    ),
)
REFERENCE_METRICS = tuple(
    metric._replace(
        key=f"reference_{metric.key}",
        title=f"Training texts, {metric.title}",
        better="neither",
        reading="The same of descriptions of training scenes, cut to the mean number of sentences of the answers.",
    )
    for metric in DEPTH_METRICS[:3]
)
CLAIM_METRICS = (
    Metric(
        "colour_accuracy",
        "Colour",
        "higher",
        "Of the colours stated of objects in the picture, the share that is right.",
    ),
    Metric(
        "colour_accuracy_held_out",
        "Colour, unseen pairs",
        "higher",
        "The same for pairs of kind and colour that are not in the training data.",
    ),
    Metric(
        "count_accuracy", "Count", "higher", "Of the numbers stated of objects in the picture, the share that is right."
    ),
    Metric(
        "position_accuracy",
        "Position",
        "higher",
        "Of the positions stated of objects in the picture, the share that is right.",
    ),
    Metric(
        "relation_accuracy",
        "Relation",
        "higher",
        "Of the relations stated between objects in the picture, the share that is right.",
    ),
)
PRIOR_METRICS = (
    Metric(
        "wrong_on_favoured_background",
        "Wrong mentions that fit the background",
        "neither",
        "Of the mentions of absent objects, the share whose kind usually goes with the background of the scene.",
    ),
    Metric(
        "wrong_on_favoured_background_expected",
        "Expected from frequency",
        "neither",
        "The same share if kinds were mentioned as often as they occur in training, on any background.",
    ),
)
OVERLAP_METRICS = (
    Metric(
        "bleu", "BLEU", "higher", "Corpus BLEU against the reference texts, Chinese characters as tokens (sacrebleu)."
    ),
    Metric("chrf", "chrF", "higher", "F-score of character n-grams against the reference texts (sacrebleu)."),
    Metric("distinct_1", "Distinct-1", "neither", "Different characters, of all characters of all texts."),
    Metric("distinct_2", "Distinct-2", "neither", "Different pairs of characters, of all pairs."),
)
QUESTION_METRICS = (
    Metric(
        "pope_accuracy",
        "POPE accuracy",
        "higher",
        "Share of yes/no questions about objects that are answered correctly; chance is 50 %.",
    ),
    Metric("pope_f1", "POPE F1", "higher", "Harmonic mean of precision and recall of yes."),
    Metric(
        "pope_yes_ratio",
        "POPE yes-ratio",
        "neither",
        "Share of yes among the answers yes and no; yes is correct for half of the questions.",
        target=0.5,
    ),
    Metric("pope_invalid", "POPE invalid", "lower", "Share of answers that are neither yes nor no."),
    *(
        Metric(f"pope_{kind}_{figure}", f"POPE {kind}, {title}", better, reading, target=target)
        for kind, reading in (
            ("random", "The absent object is drawn at random."),
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
PICTURE_METRICS = (
    Metric(
        "two_alternative",
        "Two-alternative accuracy",
        "higher",
        "Of the first mentions of kinds that are in the own picture and not in another one of the same background, the "
        "share whose noun and measure word have the lower loss with the own picture; chance is 50 %.",
        target=0.5,
    ),
    *(
        Metric(
            f"two_alternative_{distance}",
            f"Two-alternative accuracy, {distance} things",
            "higher",
            f"The same for the kinds of {distance} things.",
            target=0.5,
        )
        for distance in _DISTANCE_READINGS
    ),
    Metric(
        "swap_gap",
        "Image-swap gap",
        "higher",
        "Loss of the reference text with another picture minus the loss with its own; 0: the picture has no effect.",
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
    Metric(
        "blind_gap",
        "Blind gap",
        "higher",
        "Loss of the reference text with the mean features of the training pictures minus the loss with its picture.",
        unit="nats",
        decimals=2,
    ),
    Metric(
        "blind_gap_object",
        "Blind gap, object words",
        "higher",
        "Loss of object words with the mean features of the training pictures minus the loss with their picture.",
        unit="nats",
        decimals=2,
    ),
)
PROBE_METRICS = (
    Metric(
        "probe_auc",
        "Probe of the hidden state",
        "higher",
        "Which objects are present, by a linear probe of the decoder's hidden state at the last position of the "
        "prompt: area under the ROC curve, mean over the layers.",
        unit="",
        target=0.5,
        decimals=3,
    ),
)
PHOTOGRAPH_METRICS = (
    Metric(
        "photograph_chair_i",
        "Photographs, CHAIR-i",
        "lower",
        "Of all things mentioned, the share that the manifest of the photographs does not list.",
    ),
    Metric(
        "photograph_chair_s",
        "Photographs, CHAIR-s",
        "lower",
        "Of the texts that mention a thing, the share that mentions one that the manifest does not list.",
    ),
    Metric(
        "photograph_unsupported",
        "Photographs, unsupported",
        "lower",
        "Mentions of things that the manifest does not list.",
        unit="a text",
        decimals=2,
    ),
    Metric(
        "photograph_recall",
        "Photographs, recall",
        "higher",
        "Of the things that the manifest lists as present, the share that the text names.",
    ),
    *(
        Metric(f"photograph_subject_{aspect}", f"Photographs, {aspect}", "higher", reading)
        for aspect, reading in (
            ("gender", "Of the texts that state the gender of the main subject, the share that is right."),
            ("colour", "The same for its colour."),
            ("count", "The same for its number."),
        )
    ),
    Metric("photograph_length", "Photographs, length", "neither", "Mean characters of a text.", unit="characters"),
    Metric("photograph_repetition", "Photographs, repetition", "lower", "Share of the text that repeats itself."),
)
LOSS = Metric("loss", "Test loss", "lower", "Mean cross-entropy per target token of the test rows.", "nats", decimals=3)

_ALONG = (*DEPTH_METRICS, *DISTANCE_METRICS)
_LONG = (LOSS, *TEXT_METRICS, *_ALONG, *CLAIM_METRICS, *PRIOR_METRICS, *OVERLAP_METRICS, *PICTURE_METRICS)
BY_KEY = {
    metric.key: metric
    for metric in (*_LONG, *REFERENCE_METRICS, *PROBE_METRICS, *QUESTION_METRICS, *PHOTOGRAPH_METRICS)
}
LENGTH = BY_KEY["length"]
# The figures by which curriculum and control are compared.
DECIDING = tuple(BY_KEY[key] for key in ("chair_i", "precision", "recall", "photograph_chair_i", "photograph_recall"))


class Named(NamedTuple):
    """A row of the table: a metric and its key in the metrics file."""

    key: str
    metric: Metric


def grouped(keys: set[str]) -> list[tuple[str, list[Named]]]:
    """All figures of a run, by group; unknown keys come last, in alphabetical order."""
    groups = [
        ("Long descriptions", (*_LONG[: -len(PICTURE_METRICS)], *REFERENCE_METRICS)),
        ("Photographs", PHOTOGRAPH_METRICS),
        ("Yes/no questions", QUESTION_METRICS),
        ("Use of the picture", (*PICTURE_METRICS, *PROBE_METRICS)),
    ]
    rows = [(title, [Named(metric.key, metric) for metric in metrics]) for title, metrics in groups]
    short = (*_LONG, *PHOTOGRAPH_METRICS)
    for place, (title, prefix) in enumerate(
        (("Short captions", CAPTION_PREFIX), ("Far things first", FAR_FIRST_PREFIX))
    ):
        prompted = [Named(prefix + metric.key, metric._replace(reading="")) for metric in short]
        rows.insert(1 + place, (title, prompted))
    known = {row.key for _, group in rows for row in group}
    others = [Named(key, Metric(key, key, "neither", "", unit="", decimals=3)) for key in sorted(keys - known)]
    rows.append(("Other figures", others))
    present = [(title, [row for row in group if row.key in keys]) for title, group in rows]
    return [(title, group) for title, group in present if group]
