"""Reads the files of other stages; an InputError names the file and what is wrong in it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from stages.common.core.errors import InputError
from stages.report.run.loss_diagnostics import LossRow
from stages.report.run.records import DESCRIBING_TASKS, Answer, Evaluation, Record


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


def read_evaluation(path: Path, name: str) -> Evaluation:
    """The figures of a checkpoint. Raises InputError if the file belongs to another one."""
    evaluation = read_json(path, Evaluation)
    if evaluation.checkpoint != name:
        raise InputError(f"{path} belongs to checkpoint '{evaluation.checkpoint}', not '{name}'")
    return evaluation


def read_resamples(path: Path) -> dict[str, np.ndarray]:
    """{figure: its value in each bootstrap resample}; NaN where undefined."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro` to make it") from None
    except (OSError, ValueError) as error:  # includes pyarrow's own errors
        raise InputError(f"{path} cannot be read: {error}") from None
    return {name: table[name].to_numpy() for name in table.column_names}


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


def read_loss(path: Path) -> tuple[tuple[LossRow, ...], tuple[LossRow, ...]]:
    """The training losses and the validation losses of a loss log.

    Raises InputError for a missing column or a value that is no number.
    """
    training, validation = [], []
    for number, row in enumerate(csv.DictReader(io.StringIO(_read(path))), start=2):
        validated = bool(row.get("validation_loss"))  # such a row has no training loss
        loss = "validation_loss" if validated else "loss"
        try:
            values = int(row["step"]), float(row["epoch"]), round(float(row["target_tokens"])), float(row[loss])
        except KeyError as error:
            raise InputError(f"{path}: no column {error}") from None
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {number}: a value is missing or no number") from None
        (validation if validated else training).append(LossRow(*values))
    return tuple(training), tuple(validation)
