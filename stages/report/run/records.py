"""Records in the files of other stages, as far as the report needs them."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, field_validator

DESCRIBING_TASKS = ("description", "caption")


class Record(BaseModel):
    """A record of another stage; fields that the report does not need may be there."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Interval(Record):
    """A figure with its bootstrap interval; all three are None where the figure is undefined."""

    value: float | None
    low: float | None
    high: float | None

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, number: float | None) -> float | None:
        return number if number is not None and math.isfinite(number) else None

    @property
    def defined(self) -> bool:
        return self.value is not None and self.low is not None and self.high is not None


UNDEFINED = Interval(value=None, low=None, high=None)


class SeriesPoint(Record):
    """Figures of one part of the texts, of the kinds of object or of the model, which ``at`` names.

    ``kinds``: the kinds of object that this point covers; empty for other series.
    """

    at: str
    texts: int
    intervals: dict[str, Interval]
    kinds: tuple[str, ...] = ()


class Evaluation(Record):
    """``split``: of the scored scenes, validation for checkpoints of earlier epochs. ``series``: figures by sentence of
    the text (sentence), by frequency of the kinds of object (frequency), by whether these usually go with the
    background (background), by distance (distance), and by layer of the decoder (layer)."""

    checkpoint: str
    parameters: int
    parameters_vision: int
    scenes: int
    split: str = "test"
    intervals: dict[str, Interval]
    series: dict[str, tuple[SeriesPoint, ...]]


class Mention(Record):
    """An object word in an answer; ``start`` and ``end`` are character offsets.

    ``supported``: such an object is in the picture. ``misnamed``: it is not, but the stated position or colour fits
    an object of the same class that is in the picture and not named otherwise.
    """

    kind: str
    word: str
    start: int
    end: int
    colour: str | None = None
    supported: bool
    misnamed: bool = False
    colour_right: bool | None = None


class Answer(Record):
    id: str
    split: str
    task: str
    prompt: str
    answer: str
    reference: str
    mentions: tuple[Mention, ...]
    missed: tuple[str, ...]


class PhaseData(Record):
    """The training data of a phase, counted over one epoch. ``dropped``: answers that did not fit the limit."""

    phase: str
    samples: int
    target_tokens: int
    dropped: int
    max_len: int
    longest_answer: int


class Provenance(Record):
    """Software and hardware that computed something. ``precision``: bf16 or fp32."""

    torch: str
    transformers: str
    processor: str
    precision: str
    compiled: bool
    processes: int


class ProvenanceFile(Record):
    """``training`` is None for an external checkpoint, which this pipeline has not trained."""

    training: Provenance | None
    answer: Provenance


class StageTime(Record):
    """``seconds`` from the start of the stage's process; ``peak_memory`` in bytes."""

    started: str
    seconds: float
    peak_memory: int
