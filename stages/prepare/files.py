"""Reads data files into shards, on any number of processes, with the same bytes every time."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from math import floor
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
from tqdm import tqdm

from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.data.shards import write_shard
from stages.prepare.archive import index_archive
from stages.prepare.picture import stored_picture
from stages.prepare.processes import end_with_parent
from stages.prepare.quarantine import BadRow, PutAside, Quarantine, open_quarantine
from stages.prepare.rows import Rules, hash_fraction, make_row
from stages.prepare.sources import Images, Job, Role, plan, raw_rows

Counts = dict[str, Any]

_STRADDLING = "straddling"
_AHEAD = 2  # jobs per process that are handed out before the first one's result is read


class RowSource(NamedTuple):
    """A data file, jsonl or parquet, and the folder or zip of its images; parquet brings its own."""

    data: Path
    images: Path | None


class Part(NamedTuple):
    """A job with all that a process needs for it; ``shares`` are those of test and validation."""

    job: Job
    role: Role
    images: Images | None
    shard: int
    shares: tuple[float, float]
    most_bad: int
    shard_rows: int
    rules: Rules
    folder: Path


class Done(NamedTuple):
    """What became of a job's rows: how many were read, and went where."""

    read: int
    kept: Counter[str]
    bad: list[PutAside]


def write_files(
    pretrain: RowSource | None,
    sft: RowSource,
    photographs: Sequence[Path],
    params: Params,
    folder: Path,
    quarantine: Path,
) -> Counts:
    """Write all shards to ``folder``, and the rows put aside to ``quarantine``. Memory: a few rows per process.

    Returns, for "sft" and for "pretrain" if there is one, {"file": name, "rows": rows read, "kept": {split: rows},
    "put_aside": {reason: rows}, "held_out": rows}, and the number of "photographs". Rows are held out of every split
    where their pictures belong to several, or those of pretraining to validation or test. Raises InputError for files
    that cannot be used, and for too many bad rows.
    """
    sources: dict[Role, RowSource] = {"sft": sft} | ({"pretrain": pretrain} if pretrain else {})
    for source in sources.values():
        _check(source, params.data.source)
    counts: Counts = {
        role: {"file": source.data.name, "rows": 0, "kept": {}, "put_aside": {}, "held_out": 0}
        for role, source in sources.items()
    }
    fraction = params.data.max_bad_fraction
    with _one_sentence(folder):
        _write_photographs(photographs, Rules.of(params), folder)
        plans = {
            role: plan(source.data, params.data.shard_scenes, params.data.max_rows) for role, source in sources.items()
        }
        rows = {role: sum(job.rows for job in jobs) for role, jobs in plans.items()}
        shares = _shares(sft.data, rows["sft"], params)
        # The indices lie in the folder, which is removed with all that is in it whatever ends the run.
        with TemporaryDirectory(dir=folder, prefix=".index-") as indices, open_quarantine(quarantine) as put_aside:
            parts = [
                part
                for role, source in sources.items()
                for part in _parts(role, source, Path(indices), plans[role], shares, params, folder)
            ]
            # Closed, for nothing may write to the folder any more when an error leaves here.
            with closing(_run(parts, params.machine.processes or os.cpu_count() or 1)) as results:
                for part, done in results:
                    _note(counts[part.role], done, part, put_aside)
                    _check_bad(counts[part.role], rows[part.role], fraction, quarantine)
    for of_role in counts.values():
        _check_bad(of_role, of_role["rows"], fraction, quarantine)  # now without blank lines
        of_role["put_aside"] = dict(Counter(of_role["put_aside"]).most_common())
    _check_splits(counts["sft"])
    return counts | {"photographs": len(photographs)}


def split_of(hash_fractions: Sequence[float], shares: tuple[float, float]) -> str:
    """train, validation or test, by the hash_fractions of a row's pictures; "straddling" where they belong to several.

    A picture belongs to one split alone, in whatever rows it is shown.
    """
    test, validation = shares
    splits = {
        "test" if hash_fraction < test else "validation" if hash_fraction < test + validation else "train"
        for hash_fraction in hash_fractions
    }
    return splits.pop() if len(splits) == 1 else _STRADDLING


# ------------------------------------------------------------------------------------------------------- in a process

_stop: Event | None = None


def _start_process(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent answers it
    pa.set_cpu_count(1)
    end_with_parent()


def _work(part: Part) -> Done:
    """Write the shards of a part: one for each split, and for each ``shard_rows`` rows."""
    done = Done(0, Counter(), [])
    rows = raw_rows(part.job, part.images)
    for number in range(part.shard, part.shard + _shards(part)):
        main = "train" if part.role == "sft" else "pretrain"
        held_out: dict[str, list[dict[str, Any]]] = {"validation": [], "test": []}

        def rows_of_main(main: str = main, held_out: dict = held_out) -> Iterator[dict[str, Any]]:
            nonlocal done
            for line, raw in islice(rows, part.shard_rows):
                if _stop is not None and _stop.is_set():
                    return
                done = done._replace(read=done.read + 1)
                try:
                    made = make_row(f"{part.job.data.name}:{line}", raw(), part.rules)
                except BadRow as bad:
                    done.bad.append(PutAside(line, bad.reason, bad.image))
                    if len(done.bad) > part.most_bad:
                        return
                    continue
                split = _split(part, made.row["id"], made.hash_fractions)
                done.kept[split] += 1
                if split == main:
                    yield made.row
                elif split in held_out:
                    held_out[split].append(made.row)

        write_shard(part.folder / f"{main}-{number:05d}.parquet", rows_of_main())
        for split, kept in held_out.items():
            write_shard(part.folder / f"{split}-{number:05d}.parquet", kept)
        if len(done.bad) > part.most_bad:
            break
    return done


def _split(part: Part, identity: str, hash_fractions: list[float]) -> str:
    if part.role == "sft":
        return split_of(hash_fractions or [hash_fraction(part.rules.seed, identity.encode())], part.shares)
    return "pretrain" if not hash_fractions or split_of(hash_fractions, part.shares) == "train" else _STRADDLING


def _shards(part: Part) -> int:
    return -(-part.job.rows // part.shard_rows)


# ------------------------------------------------------------------------------------------------------ in the parent


def _parts(
    role: Role,
    source: RowSource,
    indices: Path,
    jobs: list[Job],
    shares: tuple[float, float],
    params: Params,
    folder: Path,
) -> Iterator[Part]:
    images = None
    if source.images is not None and source.data.suffix != ".parquet":
        images = Images(source.images, None if source.images.is_dir() else indices / f"{role}.sqlite")
        if images.index is not None:
            index_archive(images.path, images.index)
    shard = 0
    most_bad = _most_bad(sum(job.rows for job in jobs), params.data.max_bad_fraction)
    for job in jobs:
        part = Part(job, role, images, shard, shares, most_bad, params.data.shard_scenes, Rules.of(params), folder)
        yield part
        shard += _shards(part)


def _run(parts: list[Part], processes: int) -> Iterator[tuple[Part, Done]]:
    """The results, in the order of ``parts``; few are under way at a time."""
    context = get_context("spawn")  # not fork: the parent has threads (pyarrow), and a forked copy can hang
    stop = context.Event()
    processes = min(processes, len(parts))
    with (
        ProcessPoolExecutor(processes, context, _start_process, (stop,)) as pool,
        tqdm(total=sum(part.job.rows for part in parts), unit="row", desc="prepare") as bar,
    ):
        left = iter(parts)
        under_way: deque[tuple[Part, Future[Done]]] = deque()
        try:
            while True:
                for part in islice(left, processes * _AHEAD - len(under_way)):
                    under_way.append((part, pool.submit(_work, part)))
                if not under_way:
                    break
                part, future = under_way.popleft()
                done = future.result()
                yield part, done
                bar.update(part.job.rows)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    """What is no fault of the data: it has been turned into an InputError, or a bad row, where it was read."""
    try:
        yield
    except BrokenProcessPool:
        raise InputError(
            "a process of stage prepare was killed, perhaps for want of memory: set machine.processes lower"
        ) from None
    except (OSError, sqlite3.Error) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{folder} cannot be written: {said}") from None


def _note(counts: Counts, done: Done, part: Part, quarantine: Quarantine) -> None:
    quarantine.add(part.job.data.name, done.bad)
    counts["rows"] += done.read
    for split, rows in done.kept.items():
        if split == _STRADDLING:
            counts["held_out"] += rows
        else:
            counts["kept"][split] = counts["kept"].get(split, 0) + rows
    for row in done.bad:
        counts["put_aside"][row.reason] = counts["put_aside"].get(row.reason, 0) + 1


def _most_bad(rows: int, fraction: float) -> int:
    return floor(rows * fraction + 1e-9)


def _check_bad(counts: Counts, rows: int, fraction: float, quarantine: Path) -> None:
    """Raises InputError as soon as more rows are bad than may be bad of all ``rows``."""
    bad = sum(counts["put_aside"].values())
    if bad > _most_bad(rows, fraction):
        reason = Counter(counts["put_aside"]).most_common(1)[0][0]
        raise InputError(
            f"{counts['file']}: {bad} of the first {counts['rows']} rows cannot be used, and data.max_bad_fraction "
            f"({fraction}) allows for no more than {_most_bad(rows, fraction)} of all {rows}; "
            f"most often: {reason}; {quarantine} lists them"
        )


def _check(source: RowSource, kind: str) -> None:
    suffixes = (".jsonl", ".parquet") if kind == "minimind" else (f".{kind}",)
    if source.data.suffix not in suffixes:
        raise InputError(f"{source.data} does not end in {' or '.join(suffixes)}, as data.source: {kind} demands")
    if not source.data.is_file():
        raise InputError(f"{source.data} is missing: fetch it, or correct its name in section fetch of params.yaml")
    if source.images is not None and not source.images.exists():
        raise InputError(f"{source.images} is missing: fetch it, or correct its name in section fetch of params.yaml")


def _shares(data: Path, rows: int, params: Params) -> tuple[float, float]:
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
                f"{counts['file']}: none of its {counts['rows']} rows fell to split {split}, for rows are divided by "
                f"chance; {remedy}, or give more rows"
            )


def _write_photographs(photographs: Sequence[Path], rules: Rules, folder: Path) -> None:
    paths = sorted(photographs, key=lambda path: path.name)
    stems = [path.stem for path in paths]
    for path in paths:
        if stems.count(path.stem) > 1:
            raise InputError(f"{path}: two photographs are called {path.stem}; rename one")
    write_shard(folder / "fixed-00000.parquet", (_photograph(path, rules) for path in paths))


def _photograph(path: Path, rules: Rules) -> dict[str, Any]:
    try:
        data = stored_picture(path.read_bytes(), rules.max_pixels, rules.image_size, rules.resize)
    except OSError as error:
        raise InputError(f"photograph {path} cannot be read: {error.strerror}") from None
    except BadRow as bad:
        raise InputError(f"photograph {path} cannot be used: {bad.reason}; replace it or leave it out") from None
    return {"id": path.stem, "images": [{"bytes": data, "path": path.name}], "scene": "", "texts": []}
