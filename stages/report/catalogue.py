"""What each figure is called on the page and how to read it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Better = Literal["lower", "higher", "neither"]
CAPTION_PREFIX = "caption_"  # of a figure measured on the short prompt


class Metric(NamedTuple):
    """``unit`` %: a share of one, in percent. ``target``: a perfect model's value, where it is neither 0 nor 1."""

    key: str
    title: str
    better: Better
    reading: str
    unit: Literal["%", "characters", "nats", ""] = "%"
    target: float | None = None

    @property
    def arrow(self) -> str:
        return {"lower": "↓", "higher": "↑", "neither": ""}[self.better]

    @property
    def share(self) -> bool:
        return self.unit == "%"

    def show(self, value: float | None) -> str:
        """8.1 for a share of 0.081; 92.4 for 92.41 characters; 2.345 nats; a dash where the figure is undefined."""
        if value is None:
            return "–"
        if self.unit == "nats":
            return f"{value:.3f}"
        return f"{100 * value:.1f}" if self.share else f"{value:.1f}"


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
        "colour_accuracy",
        "Colour",
        "higher",
        "Of the objects rightly named with a colour, the share whose colour is right.",
    ),
    Metric(
        "length",
        "Length",
        "neither",
        "Mean characters of a text. Compare other figures at similar length.",
        unit="characters",
    ),
    Metric("repetition", "Repetition", "lower", "Share of the text that repeats what it has said before."),
)
HELD_OUT = Metric(
    "colour_accuracy_held_out",
    "Colour, unseen pairs",
    "higher",
    "The same for pairs of kind and colour never trained on.",
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
    Metric("pope_random_accuracy", "POPE random", "higher", "Accuracy where the absent object is any."),
    Metric("pope_popular_accuracy", "POPE popular", "higher", "Accuracy where the absent object is a frequent one."),
    Metric(
        "pope_adversarial_accuracy",
        "POPE adversarial",
        "higher",
        "Accuracy where the absent object usually goes with the background.",
    ),
)
BY_KEY = {metric.key: metric for metric in (*TEXT_METRICS, HELD_OUT, *QUESTION_METRICS)}

LENGTH = BY_KEY["length"]
LOSS = Metric("loss", "Test loss", "lower", "Mean cross-entropy of a target token of the test rows.", unit="nats")

# The charts, in the order in which to read them.
CHARTED = (
    LOSS,
    *(
        BY_KEY[key]
        for key in (
            *("chair_i", "chair_s", "precision", "recall"),
            *("f1", "colour_accuracy", "colour_accuracy_held_out", "pope_accuracy"),
            *("pope_likelihood_accuracy", "pope_yes_ratio", "length", "repetition"),
        )
    ),
)
# The figures that answer the page's question.
DECIDING = tuple(BY_KEY[key] for key in ("chair_i", "precision", "recall"))


def grouped(keys: set[str]) -> list[tuple[str, list[tuple[str, Metric]]]]:
    """All figures of a run as (group, [(key in the metrics file, metric), ...]); unknown ones come last, by name."""
    groups = [
        ("Test rows", [(LOSS.key, LOSS)]),
        ("Long descriptions", [(metric.key, metric) for metric in (*TEXT_METRICS, HELD_OUT)]),
        ("Short captions", [(CAPTION_PREFIX + metric.key, metric._replace(reading="")) for metric in TEXT_METRICS]),
        ("Yes/no questions", [(metric.key, metric) for metric in QUESTION_METRICS]),
    ]
    known = {key for _, rows in groups for key, _ in rows}
    groups.append(("Other figures", [(key, Metric(key, key, "neither", "", unit="")) for key in sorted(keys - known)]))
    present = [(title, [row for row in rows if row[0] in keys]) for title, rows in groups]
    return [(title, rows) for title, rows in present if rows]


# What `dvc metrics` and `dvc exp show` list per checkpoint: a terminal has room for no more. The page, the plots and
# reports/evaluation have every figure, with its interval.
MERGED = (LOSS.key, *(metric.key for metric in TEXT_METRICS), "pope_accuracy", "pope_yes_ratio")
