"""Runs the two checkpoints that decide whether a regime hallucinates as the notes' did, over several seeds.

    python -m benchmarks.regime run NAME --seeds 31,32,33 [-S key=value ...] [--phase long]
    python -m benchmarks.regime gate NAME
    python -m benchmarks.regime knobs --seeds 11,12

`run` clones the committed project into .regime/NAME-SEED for each seed, sets parameters there, and runs
`dvc repro score-pretrain score@direct`; with `--phase long`, the end of the curriculum, by which the regime grounded is
judged. DVC's cache is shared, so what two runs have in common is computed once. A finished seed is written at once to
benchmarks/results/regime/NAME/seed-SEED.json, and is skipped when `run` starts again. `gate` reads these files alone
and prints each condition with its interval over seeds (Student's t). `knobs` runs, in the same way, all combinations of
the settings in stages/report/knob_runs.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides
from tqdm import tqdm

from benchmarks.record import code_hash
from stages.common.core.errors import InputError
from stages.common.core.files import write_json
from stages.common.core.stage import run_stage
from stages.common.core.yaml_files import read_checked
from stages.report.knob_runs import combinations, knob_settings, run_name
from stages.report.recorded_runs import seed_mean
from stages.report.regime_runs import RESULTS, common_params, conditions_of, differences, holds, read_records

CLONES = Path(".regime")
TUNING_SEEDS = Path("benchmarks/tuning_seeds.yaml")
FEWEST_SEEDS = 5
_SERIES = ("sentence", "distance", "frequency")


def set_params(path: Path, settings: Sequence[str]) -> None:
    """Apply `dvc exp run -S` settings to a params.yaml. Raises InputError for one that does not fit."""
    try:
        apply_overrides(path, list(settings))
    except InvalidArgumentError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"{path}: {reason}; check -S {' -S '.join(settings)}") from None


def run_seed(root: Path, name: str, seed: int, settings: Sequence[str], threads: int, phase: str) -> None:
    """Run one seed up to ``phase`` in its own clone, and write its record. Raises InputError where a stage fails."""
    clone = root / CLONES / f"{name}-{seed}"
    if not clone.exists():
        clone.parent.mkdir(parents=True, exist_ok=True)
        _check(subprocess.run(["git", "clone", "-q", root, clone], check=False), "git clone")
    if (own := commit_of(clone)) != (current := commit_of(root)):
        raise InputError(f"{clone} is at commit {own[:10]} and the project at {current[:10]}: delete it to run it anew")
    subprocess.run(["git", "checkout", "-q", "params.yaml"], cwd=clone, check=True)
    set_params(clone / "params.yaml", [*settings, f"seed={seed}", "wandb.mode=disabled"])
    local = clone / ".dvc/config.local"
    local.write_text(f"[cache]\n    dir = {root / '.dvc/cache'}\n", encoding="utf-8")
    log = clone / "log.txt"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with log.open("a") as output:
        command = [sys.executable, "-m", "dvc", "repro", "score-pretrain", f"score@{phase}"]
        done = subprocess.run(command, cwd=clone, env=environment, stdout=output, stderr=output, check=False)
    _check(done, f"{' '.join(command[2:])} in {clone} (see {log})")
    write_json(root / RESULTS / name / f"seed-{seed}.json", _record(clone, seed, phase))


def commit_of(folder: Path) -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def _record(clone: Path, seed: int, phase: str) -> dict[str, Any]:
    checkpoints = {}
    for role, checkpoint in (("pretrain", "pretrain"), (phase, f"sft-{phase}")):
        folder = clone / "reports/evaluation" / checkpoint
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        checkpoints[role] = {
            "intervals": found["intervals"],
            "series": {along: found["series"].get(along, []) for along in _SERIES},
            "provenance": provenance,
        }
    seconds = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))["seconds"]
        for path in sorted((clone / "reports/time").glob("*.json"))
    }
    return {
        "commit": commit_of(clone),
        "code": code_hash(clone),
        "seed": seed,
        "params": common_params(clone),
        "seconds": seconds,
        "checkpoints": checkpoints,
    }


def _check(done: subprocess.CompletedProcess, what: str) -> None:
    if done.returncode:
        raise InputError(f"{what} failed with exit code {done.returncode}")


def gate(root: Path, name: str) -> bool:
    """Print every condition; whether all hold with intervals clear of zero, on at least five seeds that are not
    for tuning. Where only seeds for tuning are recorded, these are shown."""
    tuning = read_checked(root / TUNING_SEEDS, list[int])
    recorded = read_records(root, name)
    fresh = [record for record in recorded if record["seed"] not in tuning]
    records = fresh or recorded
    print(f"{name}: seeds {', '.join(str(record['seed']) for record in records)}")
    passed = len(fresh) >= FEWEST_SEEDS
    if not passed:
        print(f"{len(fresh)} seeds that are not in {TUNING_SEEDS}; {FEWEST_SEEDS} are needed")
    for condition in conditions_of(records[0]):
        found = differences(records, condition)
        mean = seed_mean(found)
        passed &= holds(mean)
        each = " ".join("?" if value is None else f"{value:+.3f}" for value in found)
        interval = f"[{mean.low:+.3f}, {mean.high:+.3f}]" if mean.low is not None else "(no interval)"
        value = "?" if mean.value is None else f"{mean.value:+.3f}"
        print(f"{'holds ' if holds(mean) else 'FAILS '} {condition.key:12} {value} {interval}  by seed: {each}")
    print("gate:", "passed" if passed else "not passed")
    return passed


def run_seeds(
    root: Path, attempts: Sequence[tuple[str, Sequence[str]]], seeds: Sequence[int], jobs: int, phase: str = "direct"
) -> None:
    """Run (name, settings) for each seed, if it has no record yet: seeds side by side, the attempts of one in turn.

    Raises InputError where one fails; what is under way then is finished, and nothing else is started.
    """
    left = {
        seed: [(name, own) for name, own in attempts if not (root / RESULTS / name / f"seed-{seed}.json").exists()]
        for seed in seeds
    }
    busy = sum(map(bool, left.values()))
    threads = max(1, (os.cpu_count() or 1) // max(1, min(jobs, busy)))
    failed = Event()
    with tqdm(total=sum(map(len, left.values())), unit="run") as progress, ThreadPoolExecutor(jobs) as pool:

        def run_all(seed: int) -> None:
            for name, own in left[seed]:
                if failed.is_set():
                    return
                try:
                    run_seed(root, name, seed, own, threads, phase)
                except BaseException:
                    failed.set()
                    raise
                progress.update()

        for _ in pool.map(run_all, seeds):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regime", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run seeds that have no record yet")
    run.add_argument("name")
    run.add_argument("-S", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    run.add_argument("--phase", choices=("direct", "long"), default="direct", help="the phase to judge (direct)")
    commands.add_parser("gate", help="print the conditions of recorded seeds").add_argument("name")
    knobs = commands.add_parser("knobs", help="run all combinations of a few settings")
    for command in (run, knobs):
        command.add_argument("--seeds", required=True, type=lambda text: [int(seed) for seed in text.split(",")])
        command.add_argument("--jobs", type=int, default=2, help="seeds at the same time (2)")
    arguments = parser.parse_args()
    root = Path.cwd()
    if arguments.command == "gate":
        gate(root, arguments.name)
        return
    if arguments.command == "run":
        attempts = [(arguments.name, arguments.settings)]
        run_seeds(root, attempts, arguments.seeds, arguments.jobs, arguments.phase)
    else:
        attempts = [(run_name(each), knob_settings(each)) for each in combinations()]
        run_seeds(root, attempts, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    run_stage(main)
