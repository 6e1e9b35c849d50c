"""What the other stages left, read once, checked and merged by checkpoint.

Checkpoints are named by params.yaml, never by what lies in a folder: the files of a phase that has been removed
stay behind and must not come back into the report.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.core.paths import PHASES
from stages.common.core.timing import time_file
from stages.common.data.shards import SHARDS, read_rows
from stages.common.world.scene import Scene
from stages.report.loss_diagnostics import LossDiagnostics, LossRow, jumps

REPORTS = Path("reports")
PRETRAIN = "pretrain"
LOSS_COLUMNS = ("phase", "step", "timeline", "epoch", "loss")
METRIC_COLUMNS = ("checkpoint", "metric", "value", "low", "high")
DESCRIBING_TASKS = ("description", "caption")
_EPOCH_SLACK = 0.01  # a log that ends at epoch 2.004 has two epochs, not three
_DECIMALS = 4  # of figures in tables: finer than any interval
# What `dvc metrics` lists of a checkpoint: {column: figure}. With the jump of the loss it is as much as stands
# beside a file's name in 80 characters, so columns are short, and so are numbers. The page, the plots and
# reports/evaluation have every figure, with its interval.
_LISTED = {
    "chair_i": "chair_i",
    "recall": "recall",
    "pope": "pope_accuracy",
    "swap": "swap_gap_object",
    "length": "length",
}
_LISTED_OF_FILES = {"loss": "loss", "chair_i": "photograph_chair_i", "swap": "swap_gap_object", "length": "length"}
_LISTED_DECIMALS, _LISTED_DECIMALS_FROM_10 = 3, 1


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


class Place(Record):
    """One place of a series: figures of a part of the texts or of the kinds of object, which ``at`` names."""

    at: str
    texts: int
    intervals: dict[str, Interval]
    kinds: tuple[str, ...] = ()


class Evaluation(Record):
    """``series``: figures along a text (sentence), by frequency of the kinds, by whether the background is theirs."""

    checkpoint: str
    parameters: int
    parameters_vision: int
    scenes: int
    intervals: dict[str, Interval]
    series: dict[str, tuple[Place, ...]]


class Mention(Record):
    """An object word in an answer; ``start`` and ``end`` are character offsets."""

    kind: str
    word: str
    start: int
    end: int
    colour: str | None = None
    supported: bool
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
    """What a phase was taught, counted over one epoch. ``dropped``: answers that did not fit the limit."""

    phase: str
    samples: int
    target_tokens: int
    dropped: int
    max_len: int
    longest_answer: int


class StageTime(Record):
    """``seconds`` from the start of the stage's process; ``peak_memory`` in bytes."""

    started: str
    seconds: float
    peak_memory: int


class Picture(NamedTuple):
    """``scene`` is its truth; None for a photograph."""

    id: str
    scene: Scene | None
    data: bytes


@dataclass(frozen=True)
class Checkpoint:
    """``answers``: to the fixed pictures, by (id, task). ``phase`` and ``data`` are None but at the end of a phase.

    A checkpoint after an earlier epoch, or a finished model, has no ``loss`` of its own.
    ``resamples``: metric, or series/place/metric -> its value in each bootstrap resample, NaN where undefined.
    """

    name: str
    phase: str | None
    after: str | None
    loss: tuple[LossRow, ...]
    evaluation: Evaluation
    resamples: Mapping[str, np.ndarray]
    answers: Mapping[tuple[str, str], Answer]
    reference_lengths: Mapping[str, float]  # task -> mean characters of the references on the test scenes
    data: PhaseData | None

    @property
    def series(self) -> Mapping[str, tuple[Place, ...]]:
        return self.evaluation.series

    @property
    def target_tokens(self) -> int:
        """Target tokens seen in this training run, as far as the log goes."""
        return self.loss[-1].target_tokens if self.loss else 0


@dataclass(frozen=True)
class Run:
    """``story``: of each checkpoint that has a loss log."""

    params: Params
    checkpoints: Mapping[str, Checkpoint]
    pictures: tuple[Picture, ...]
    diagnostics: Mapping[str, LossDiagnostics]
    times: Mapping[str, StageTime]


def checkpoint_names(params: Params, root: Path = Path()) -> list[str]:
    """All checkpoints in the order of training; those after earlier epochs are the ones that the evaluation found."""
    names = []
    for name in params.checkpoints:
        epochs = (root / REPORTS / "evaluation" / name).glob("epoch-*")
        found = sorted(epochs, key=lambda path: int(path.name.removeprefix("epoch-")))
        names += [*(f"{name}/{path.name}" for path in found), name]
    return names


def stages_in_order(params: Params) -> list[str]:
    """As they run one after another; the report itself is not among them."""
    phases, models = (
        [f"sft-{phase}" for phase in params.sft.phases],
        [f"convert-{name}" for name in params.fetch.models],
    )
    made = ["fetch", "prepare", "tokenizer", "vision", "language", "encode", "pretrain", "curriculum", *phases, *models]
    return [*made, *(f"evaluate-{name}" for name in params.checkpoints)]


def load_times(params: Params, root: Path = Path()) -> dict[str, StageTime]:
    """Of the stages that have left theirs. Raises InputError that names a file with something else in it."""
    files = {stage: time_file(stage, root) for stage in stages_in_order(params)}
    return {stage: read_json(file, StageTime) for stage, file in files.items() if file.exists()}


def load_run(params: Params, root: Path = Path()) -> Run:
    """All inputs of the report. Raises InputError that names the file that is missing or wrong."""
    pictures = tuple(
        Picture(row["id"], Scene.from_json(row["scene"]) if row["scene"] else None, row["images"][0]["bytes"])
        for row in read_rows("fixed", ("id", "images", "scene"), root=root / SHARDS)
    )
    checkpoints = {}
    for name in checkpoint_names(params, root):
        own = name.removeprefix("sft-")
        phase = own if own != name and own in params.sft.phases else None
        folder = root / REPORTS / "evaluation" / name
        answers = read_answers(folder / "answers.jsonl")
        fixed = {(answer.id, answer.task): answer for answer in reversed(answers) if answer.split == "fixed"}
        for picture in pictures:
            for task in DESCRIBING_TASKS:
                if (picture.id, task) not in fixed:
                    raise InputError(f"{folder / 'answers.jsonl'} has no {task} of scene {picture.id}")
        checkpoints[name] = Checkpoint(
            name=name,
            phase=phase,
            after=None if phase is None else params.sft.phases[phase].after,
            loss=read_loss(root / REPORTS / "loss" / f"{name}.csv") if phase or name == PRETRAIN else (),
            evaluation=_read_evaluation(folder / "metrics.json", name),
            resamples=_read_resamples(folder / "resamples.parquet"),
            answers=fixed,
            reference_lengths=_reference_lengths(answers),
            data=None if phase is None else read_json(root / PHASES / phase / "summary.json", PhaseData),
        )
    diagnostics = {
        name: _diagnostics(params, checkpoint) for name, checkpoint in checkpoints.items() if checkpoint.loss
    }
    return Run(params, checkpoints, pictures, diagnostics, load_times(params, root))


def _diagnostics(params: Params, checkpoint: Checkpoint) -> LossDiagnostics:
    shuffle = params.pretrain.shuffle if checkpoint.phase is None else params.sft.shuffle_of(checkpoint.phase)
    return LossDiagnostics(tuple(jumps(checkpoint.loss)), shuffle)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro` to make it") from None


RecordType = TypeVar("RecordType", bound=Record)


def _checked(record: type[RecordType], text: str, where: str) -> RecordType:
    try:
        return record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {f'{name}: ' if name else ''}{first['msg']}") from None


def read_json(path: Path, record: type[RecordType]) -> RecordType:
    return _checked(record, _read(path), str(path))


def _read_evaluation(path: Path, name: str) -> Evaluation:
    evaluation = read_json(path, Evaluation)
    if evaluation.checkpoint != name:
        raise InputError(f"{path} belongs to checkpoint '{evaluation.checkpoint}', not '{name}'")
    return evaluation


def _read_resamples(path: Path) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro` to make it") from None
    except (OSError, ValueError) as error:  # pyarrow's own are among them
        raise InputError(f"{path} cannot be read: {error}") from None
    return {name: table[name].to_numpy() for name in table.column_names}


def difference(run: Run, one: str, other: str, metric: str) -> Interval:
    """A figure of one checkpoint minus that of another."""
    pair = [run.checkpoints[name] for name in (one, other)]
    values = [checkpoint.evaluation.intervals.get(metric, UNDEFINED).value for checkpoint in pair]
    columns = [checkpoint.resamples.get(metric) for checkpoint in pair]
    sizes = [len(column) for column in columns if column is not None]
    if len(set(sizes)) > 1:
        raise InputError(f"{one} and {other} have {sizes[0]} and {sizes[1]} resamples of {metric}: run `dvc repro`")
    return paired(values, columns, run.params.evaluate.confidence)


def paired(values: Sequence[float | None], columns: Sequence[np.ndarray | None], confidence: float) -> Interval:
    """The first of two figures minus the second, by a paired bootstrap: row r of both columns draws the same scenes.

    Undefined where either figure is; without ends where one has no interval.
    """
    if None in values:
        return UNDEFINED
    value = values[0] - values[1]
    if any(column is None for column in columns):
        return Interval(value=value, low=None, high=None)
    differences = columns[0] - columns[1]
    known = differences[np.isfinite(differences)]
    low, high = np.percentile(known, [50 * (1 - confidence), 50 * (1 + confidence)]) if len(known) else (None, None)
    return Interval(value=value, low=low, high=high)


def read_answers(path: Path) -> list[Answer]:
    """The captions and descriptions in an answers file, in its order; answers to questions are left out."""
    answers = []
    for number, line in enumerate(_read(path).removesuffix("\n").split("\n"), start=1):
        where = f"{path}, line {number}"
        try:
            task = json.loads(line).get("task")
        except (json.JSONDecodeError, AttributeError):
            raise InputError(f"{where}: not a JSON object") from None
        if task in DESCRIBING_TASKS:
            answers.append(_checked(Answer, line, where))
    return answers


def _reference_lengths(answers: Sequence[Answer]) -> dict[str, float]:
    lengths = {
        task: [len(answer.reference) for answer in answers if answer.split == "test" and answer.task == task]
        for task in DESCRIBING_TASKS
    }
    return {task: sum(values) / len(values) for task, values in lengths.items() if values}


def read_loss(path: Path) -> tuple[LossRow, ...]:
    """A loss log. Raises InputError for a missing column or a value that is no number."""
    rows = []
    for number, row in enumerate(csv.DictReader(io.StringIO(_read(path))), start=2):
        try:
            values = int(row["step"]), float(row["epoch"]), round(float(row["target_tokens"])), float(row["loss"])
        except KeyError as error:
            raise InputError(f"{path}: no column {error}") from None
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {number}: a value is missing or no number") from None
        rows.append(LossRow(*values))
    return tuple(rows)


def timeline_starts(run: Run) -> dict[str, int]:
    """Target tokens that each training run starts at: where the checkpoint it continues ended.

    Two arms that branch off one checkpoint start at the same place.
    """

    def start(name: str) -> int:
        parent = run.checkpoints[name].after
        return 0 if parent is None else start(parent) + run.checkpoints[parent].target_tokens

    return {name: start(name) for name in run.checkpoints}


def epoch_boundaries(rows: Sequence[LossRow]) -> list[float]:
    """Target tokens, within this training run, at which one epoch ends and another begins.

    The log has no row at the very boundary, so its place is interpolated between its neighbours.
    """
    if not rows:
        return []
    boundaries = []
    for epoch in range(1, math.ceil(rows[-1].epoch - _EPOCH_SLACK)):
        before = max((r for r in rows if r.epoch <= epoch), key=lambda r: r.epoch, default=LossRow(0, 0.0, 0, 0.0))
        after = min((r for r in rows if r.epoch > epoch), key=lambda r: r.epoch)
        share = (epoch - before.epoch) / (after.epoch - before.epoch)
        boundaries.append(before.target_tokens + share * (after.target_tokens - before.target_tokens))
    return boundaries


def loss_table(run: Run) -> list[dict[str, Any]]:
    """All loss logs on one time line, target tokens from the start of pretraining; long form."""
    starts = timeline_starts(run)
    return [
        {
            "phase": name,
            "step": row.step,
            "timeline": starts[name] + row.target_tokens,
            "epoch": row.epoch,
            "loss": row.loss,
        }
        for name, checkpoint in run.checkpoints.items()
        for row in checkpoint.loss
    ]


def metric_values(run: Run) -> dict[str, dict[str, float | None]]:
    """{checkpoint: {column: value}} for `dvc metrics`; None where a figure is undefined.

    ``swap`` is the image-swap gap at object words; ``jump`` the change of the loss where an epoch ends, mean over these
    places.
    """
    listed = _LISTED if run.params.data.source == "world" else _LISTED_OF_FILES
    values: dict[str, dict[str, float | None]] = {}
    for name, checkpoint in run.checkpoints.items():
        intervals = checkpoint.evaluation.intervals
        values[name] = {column: intervals[key].value for column, key in listed.items() if key in intervals}
        told = run.diagnostics.get(name)
        if told is not None and told.jumps:
            values[name]["jump"] = sum(jump.size for jump in told.jumps) / len(told.jumps)
    return {name: {column: _listed(value) for column, value in row.items()} for name, row in values.items()}


def _listed(value: float | None) -> float | None:
    if value is None:
        return None
    return round(value, _LISTED_DECIMALS if abs(value) < 10 else _LISTED_DECIMALS_FROM_10)


def metric_table(run: Run) -> list[dict[str, Any]]:
    """Figures with intervals in long form, for `dvc plots`; an undefined figure has no row."""
    return [
        {
            "checkpoint": name,
            "metric": metric,
            "value": _rounded(interval.value),
            "low": _rounded(interval.low),
            "high": _rounded(interval.high),
        }
        for name, checkpoint in run.checkpoints.items()
        for metric, interval in checkpoint.evaluation.intervals.items()
        if interval.value is not None
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
