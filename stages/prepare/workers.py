"""The processes that read data files and write shards."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from tqdm import tqdm

from stages.common.data.shards import write_shard
from stages.prepare.images import Images
from stages.prepare.jobs import Job
from stages.prepare.processes import end_with_parent
from stages.prepare.quarantine import BadRow, QuarantinedRow
from stages.prepare.rows import Rules, hash_fraction, make_row
from stages.prepare.sources import raw_rows
from stages.prepare.splits import pretrain_split_of, split_of

Role = Literal["sft", "pretrain"]

_TASKS_AHEAD = 2  # tasks per process that are submitted before the first one's result is read


class Task(NamedTuple):
    """A job with everything that a process needs for it."""

    job: Job
    role: Role
    images: Images | None
    first_shard: int  # number of its first shard
    shares: tuple[float, float]  # of test and of validation
    max_bad: int  # bad rows after which the task ends early
    shard_rows: int
    rules: Rules
    folder: Path

    @property
    def shards(self) -> int:
        return -(-self.job.rows // self.shard_rows)


class TaskResult(NamedTuple):
    rows: int  # that were read
    kept: Counter[str]  # rows by split; also those that are held out
    bad: list[QuarantinedRow]


def run_tasks(tasks: list[Task], processes: int) -> Iterator[tuple[Task, TaskResult]]:
    """Run ``tasks`` and yield their results in the same order; only a few run or wait at a time."""
    context = get_context("spawn")  # not fork: the parent has threads (pyarrow), and a forked copy can hang
    stop = context.Event()
    processes = min(processes, len(tasks))
    with (
        ProcessPoolExecutor(processes, context, _start_process, (stop,)) as pool,
        tqdm(total=sum(task.job.rows for task in tasks), unit="row", desc="prepare") as bar,
    ):
        remaining = iter(tasks)
        running: deque[tuple[Task, Future[TaskResult]]] = deque()
        try:
            while True:
                for task in islice(remaining, processes * _TASKS_AHEAD - len(running)):
                    running.append((task, pool.submit(run_task, task)))
                if not running:
                    break
                task, future = running.popleft()
                yield task, future.result()
                bar.update(task.job.rows)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


_stop: Event | None = None  # in a worker process: set when the parent ends early


def _start_process(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is sent to all processes; the parent handles it
    pa.set_cpu_count(1)
    end_with_parent()


def run_task(task: Task) -> TaskResult:
    """Read the task's rows and write its shards: one for each split and each ``shard_rows`` rows."""
    result = TaskResult(0, Counter(), [])
    rows = raw_rows(task.job, task.images)
    main = "train" if task.role == "sft" else "pretrain"
    for number in range(task.first_shard, task.first_shard + task.shards):
        evaluation: dict[str, list[dict[str, Any]]] = {"validation": [], "test": []}

        def rows_of_main(evaluation: dict = evaluation) -> Iterator[dict[str, Any]]:
            nonlocal result
            for line, read in islice(rows, task.shard_rows):
                if _stop is not None and _stop.is_set():
                    return
                result = result._replace(rows=result.rows + 1)
                try:
                    row, hash_fractions = make_row(f"{task.job.data.name}:{line}", read(), task.rules)
                except BadRow as bad:
                    result.bad.append(QuarantinedRow(line, bad.reason, bad.image))
                    if len(result.bad) > task.max_bad:
                        return
                    continue
                split = _split(task, row["id"], hash_fractions)
                result.kept[split] += 1
                if split == main:
                    yield row
                elif split in evaluation:
                    evaluation[split].append(row)

        write_shard(task.folder / f"{main}-{number:05d}.parquet", rows_of_main())
        for split, kept in evaluation.items():
            write_shard(task.folder / f"{split}-{number:05d}.parquet", kept)
        if len(result.bad) > task.max_bad:
            break
    return result


def _split(task: Task, identity: str, hash_fractions: list[float]) -> str:
    if task.role == "pretrain":
        return pretrain_split_of(hash_fractions, task.shares)
    # A row without pictures is split by a hash of its id.
    return split_of(hash_fractions or [hash_fraction(task.rules.seed, identity.encode())], task.shares)
