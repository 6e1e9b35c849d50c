"""The files of the other stages, read once, checked and merged by checkpoint.

params.yaml decides which checkpoints there are, not the contents of a folder: files of a phase that has been removed
may still be there and must not appear in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.core.paths import PHASES
from stages.common.data.shards import SHARDS, read_rows
from stages.common.world.scene import Scene
from stages.report.run.input_files import read_answers, read_evaluation, read_json, read_loss, read_resamples
from stages.report.run.loss_diagnostics import LossDiagnostics, LossRow, jumps
from stages.report.run.records import DESCRIBING_TASKS, Answer, Evaluation, PhaseData, ProvenanceFile, SeriesPoint

REPORTS = Path("reports")
PRETRAIN = "pretrain"


class Picture(NamedTuple):
    """``scene``: what the picture shows; None for a photograph. ``data``: bytes of the image file."""

    id: str
    scene: Scene | None
    data: bytes


@dataclass(frozen=True)
class Checkpoint:
    """``answers``: for the fixed pictures, by (id, task). ``phase`` and ``data`` are set only at the end of a phase.

    A checkpoint of an earlier epoch, or an external checkpoint, has no ``loss`` of its own. ``validation_loss``: once
    before training and after every epoch, where it was measured.
    ``resamples``: metric, or series/point/metric -> its value in each bootstrap resample, NaN where undefined.
    ``provenance`` is None if it was not recorded.
    """

    name: str
    phase: str | None
    after: str | None
    loss: tuple[LossRow, ...]
    evaluation: Evaluation
    resamples: Mapping[str, np.ndarray]
    answers: Mapping[tuple[str, str], Answer]
    reference_lengths: Mapping[str, float]  # task -> mean characters of the references of the scored scenes
    data: PhaseData | None
    validation_loss: tuple[LossRow, ...] = ()
    provenance: ProvenanceFile | None = None

    @property
    def series(self) -> Mapping[str, tuple[SeriesPoint, ...]]:
        return self.evaluation.series

    @property
    def target_tokens(self) -> int:
        """Target tokens of this training run up to the last logged step."""
        return self.loss[-1].target_tokens if self.loss else 0


@dataclass(frozen=True)
class Run:
    """``diagnostics``: of each checkpoint that has a loss log."""

    params: Params
    checkpoints: Mapping[str, Checkpoint]
    pictures: tuple[Picture, ...]
    diagnostics: Mapping[str, LossDiagnostics]


def checkpoint_names(params: Params, root: Path = Path()) -> list[str]:
    """All checkpoints in the order of training; those of earlier epochs are found by their evaluation."""
    names = []
    for name in params.checkpoints:
        epochs = (root / REPORTS / "evaluation" / name).glob("epoch-*")
        found = sorted(epochs, key=lambda path: int(path.name.removeprefix("epoch-")))
        names += [*(f"{name}/{path.name}" for path in found), name]
    return names


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
        logged = phase is not None or name == PRETRAIN
        loss, validation_loss = read_loss(root / REPORTS / "loss" / f"{name}.csv") if logged else ((), ())
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
            loss=loss,
            validation_loss=validation_loss,
            evaluation=read_evaluation(folder / "metrics.json", name),
            resamples=read_resamples(folder / "resamples.parquet"),
            answers=fixed,
            reference_lengths=_reference_lengths(answers),
            data=None if phase is None else read_json(root / PHASES / phase / "summary.json", PhaseData),
            provenance=_provenance(folder / "provenance.json"),
        )
    diagnostics = {
        name: _diagnostics(params, checkpoint) for name, checkpoint in checkpoints.items() if checkpoint.loss
    }
    return Run(params, checkpoints, pictures, diagnostics)


def _provenance(path: Path) -> ProvenanceFile | None:
    return read_json(path, ProvenanceFile) if path.exists() else None


def _diagnostics(params: Params, checkpoint: Checkpoint) -> LossDiagnostics:
    shuffle = params.pretrain.shuffle if checkpoint.phase is None else params.sft.shuffle_of(checkpoint.phase)
    return LossDiagnostics(tuple(jumps(checkpoint.loss)), shuffle)


def _reference_lengths(answers: Sequence[Answer]) -> dict[str, float]:
    lengths = {
        task: [len(answer.reference) for answer in answers if answer.split != "fixed" and answer.task == task]
        for task in DESCRIBING_TASKS
    }
    return {task: sum(values) / len(values) for task, values in lengths.items() if values}
