"""Converts data files to shards, on any number of processes, with the same bytes for the same input."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from math import floor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.prepare.archive import index_archive
from stages.prepare.images import Images
from stages.prepare.jobs import Job
from stages.prepare.photographs import write_photographs
from stages.prepare.quarantine import open_quarantine
from stages.prepare.rows import Rules
from stages.prepare.sources import plan_jobs
from stages.prepare.splits import HELD_OUT
from stages.prepare.workers import Role, Task, TaskResult, run_tasks

Counts = dict[str, Any]


class RowSource(NamedTuple):
    """A data file, JSON lines or Parquet, and the folder or zip of its images; Parquet contains its images."""

    data: Path
    images: Path | None


def write_files(
    pretrain: RowSource | None,
    sft: RowSource,
    photographs: Sequence[Path],
    params: Params,
    folder: Path,
    quarantine: Path,
) -> Counts:
    """Write all shards to ``folder``, and list the rows that cannot be used in ``quarantine``.

    Memory: a few rows per process. Returns, for "sft" and for "pretrain" if there is one, {"file": name, "rows": rows
    read, "kept": {split: rows}, "quarantined": {reason: rows}, "held_out": rows}, and the number of "photographs". Held
    out of all splits are rows whose pictures are in several splits, and rows for pretraining with a picture that is in
    validation or test. Raises InputError for files that cannot be used, and for too many bad rows.
    """
    sources: dict[Role, RowSource] = {"sft": sft} | ({"pretrain": pretrain} if pretrain else {})
    for source in sources.values():
        _check_source(source, params.data.source)
    counts: Counts = {
        role: {"file": source.data.name, "rows": 0, "kept": {}, "quarantined": {}, "held_out": 0}
        for role, source in sources.items()
    }
    fraction = params.data.max_bad_fraction
    with _write_errors(folder):
        write_photographs(photographs, Rules.of(params), folder)
        jobs = {
            role: plan_jobs(source.data, params.data.shard_scenes, params.data.max_rows)
            for role, source in sources.items()
        }
        rows = {role: sum(job.rows for job in of_role) for role, of_role in jobs.items()}
        shares = _evaluation_shares(sft.data, rows["sft"], params)
        # Inside ``folder``, which the caller removes whatever ends the run.
        with TemporaryDirectory(dir=folder, prefix=".index-") as indices, open_quarantine(quarantine) as bad_rows:
            tasks = [
                task
                for role, source in sources.items()
                for task in _tasks(role, source, Path(indices), jobs[role], shares, params, folder)
            ]
            # Closed here, so that no process writes to the folder any more when an error leaves this block.
            with closing(run_tasks(tasks, params.machine.processes or os.cpu_count() or 1)) as results:
                for task, result in results:
                    bad_rows.add(task.job.data.name, result.bad)
                    _count(counts[task.role], result)
                    _check_bad(counts[task.role], rows[task.role], fraction, quarantine)
    for of_role in counts.values():
        _check_bad(of_role, of_role["rows"], fraction, quarantine)  # again, as ``rows`` includes blank lines
        of_role["quarantined"] = dict(Counter(of_role["quarantined"]).most_common())
    _check_splits(counts["sft"])
    return counts | {"photographs": len(photographs)}


def _tasks(
    role: Role,
    source: RowSource,
    indices: Path,
    jobs: list[Job],
    shares: tuple[float, float],
    params: Params,
    folder: Path,
) -> Iterator[Task]:
    images = None
    if source.images is not None and source.data.suffix != ".parquet":
        images = Images(source.images, None if source.images.is_dir() else indices / f"{role}.sqlite")
        if images.index is not None:
            index_archive(images.path, images.index)
    shard = 0
    max_bad = _max_bad(sum(job.rows for job in jobs), params.data.max_bad_fraction)
    for job in jobs:
        task = Task(job, role, images, shard, shares, max_bad, params.data.shard_scenes, Rules.of(params), folder)
        yield task
        shard += task.shards


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Errors of writing and of processes become InputErrors; those of reading have become InputErrors before."""
    try:
        yield
    except BrokenProcessPool:
        raise InputError(
            "a process of stage prepare was killed, perhaps because memory ran out: set machine.processes lower"
        ) from None
    except (OSError, sqlite3.Error) as error:
        message = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{folder} cannot be written: {message}") from None


def _count(counts: Counts, result: TaskResult) -> None:
    counts["rows"] += result.rows
    for split, rows in result.kept.items():
        if split == HELD_OUT:
            counts["held_out"] += rows
        else:
            counts["kept"][split] = counts["kept"].get(split, 0) + rows
    for row in result.bad:
        counts["quarantined"][row.reason] = counts["quarantined"].get(row.reason, 0) + 1


def _max_bad(rows: int, fraction: float) -> int:
    return floor(rows * fraction + 1e-9)


def _check_bad(counts: Counts, rows: int, fraction: float, quarantine: Path) -> None:
    """Raises InputError if more rows are bad already than ``fraction`` allows of all ``rows``."""
    bad = sum(counts["quarantined"].values())
    if bad > _max_bad(rows, fraction):
        reason = Counter(counts["quarantined"]).most_common(1)[0][0]
        raise InputError(
            f"{counts['file']}: {bad} of the first {counts['rows']} rows cannot be used, and data.max_bad_fraction "
            f"({fraction}) allows no more than {_max_bad(rows, fraction)} of all {rows}; "
            f"most often: {reason}; {quarantine} lists them"
        )


def _check_source(source: RowSource, kind: str) -> None:
    suffixes = (".jsonl", ".parquet") if kind == "minimind" else (f".{kind}",)
    if source.data.suffix not in suffixes:
        raise InputError(f"{source.data} does not end in {' or '.join(suffixes)}, as data.source: {kind} requires")
    if not source.data.is_file():
        raise InputError(f"{source.data} is missing: fetch it, or correct its name in section fetch of params.yaml")
    if source.images is not None and not source.images.exists():
        raise InputError(f"{source.images} is missing: fetch it, or correct its name in section fetch of params.yaml")


def _evaluation_shares(data: Path, rows: int, params: Params) -> tuple[float, float]:
    """The shares of all ``rows`` that go to test and to validation."""
    test, validation = params.data.test_scenes, params.data.validation_scenes
    if test + validation >= rows:
        raise InputError(
            f"{data} has {rows} rows, and data.validation_scenes ({validation}) and data.test_scenes ({test}) leave "
            "none to train on; set them lower"
        )
    return test / rows, validation / rows


def _check_splits(counts: Counts) -> None:
    for split in ("train", "validation", "test"):
        if not counts["kept"].get(split):
            remedy = f"set data.{split}_scenes higher" if split != "train" else "hold fewer rows out"
            raise InputError(
                f"{counts['file']}: none of its {counts['rows']} rows is in split {split}, because rows are assigned "
                f"at random; {remedy}, or add more rows"
            )
