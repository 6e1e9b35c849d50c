"""Keep the results of a run as a small committed file: ``python -m benchmarks.record NAME``, after `dvc repro`.

Writes benchmarks/results/NAME.json: the command that repeats the run, the commit, the date (UTC), the machine, the
parameters that differ from the commit, and the metrics of every checkpoint with their intervals. The tables of the
README and of docs/ are made from these files (``python -m stages.report.readme``).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import write_json
from stages.report.recorded_metrics import METRICS, RESULTS

SHARED = ("torch", "transformers", "processor")  # of a provenance: what training and answering have in common
CODE = ("stages", "model", "dvc.yaml")  # what a commit must contain for its hash to identify the code of a run


class Change(NamedTuple):
    """Of a parameter: = for another value, + for one that was added, ~ for one that was removed."""

    kind: Literal["=", "+", "~"]
    value: Any


def _run(root: Path, *command: str) -> str:
    """Standard output of ``command``. Raises InputError with the last line of its errors where it fails."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(f"`{' '.join(command)}` failed: {lines[-1] if lines else 'no message'}")
    return done.stdout


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro` first") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def changed_params(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, Change]:
    """{"sft.max_len": Change("=", 256)}: what has another value in ``after`` than in ``before``."""
    changed: dict[str, Change] = {}
    for key in dict.fromkeys([*before, *after]):
        name = f"{prefix}{key}"
        if key not in after:
            changed[name] = Change("~", None)
        elif key not in before:
            changed[name] = Change("+", after[key])
        elif isinstance(before[key], Mapping) and isinstance(after[key], Mapping):
            changed |= changed_params(before[key], after[key], f"{name}.")
        elif before[key] != after[key]:
            changed[name] = Change("=", after[key])
    return changed


def command(changed: Mapping[str, Change]) -> str:
    """The command that repeats the run at its commit."""
    settings = []
    for name, change in changed.items():
        if change.kind == "~":
            settings.append(f"-S '~{name}'")
        else:
            # As Hydra's grammar has it: true, null and lists as in JSON, strings and keys without quotes.
            value = json.dumps(change.value, ensure_ascii=False, separators=(",", ":")).replace('"', "")
            settings.append(f"-S '{change.kind.replace('=', '')}{name}={value}'")
    return " ".join(["dvc exp run", *settings]) if settings else "dvc repro"


def checkpoint_folders(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """{checkpoint: folder of its evaluation}, checkpoints kept after earlier epochs (NAME/epoch-N) included."""
    folders = {}
    for name in names:
        folder = root / "reports/evaluation" / name
        epochs = sorted(folder.glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")))
        folders |= {f"{name}/{path.name}": path for path in epochs}
        folders[name] = folder
    return folders


def code_hash(root: Path) -> str:
    """Of the committed code of the pipeline: runs with the same one can be compared, whatever else was committed."""
    return hashlib.sha256(_run(root, "git", "ls-tree", "HEAD", "--", *CODE).encode()).hexdigest()[:12]


def _metrics(path: Path) -> dict[str, dict[str, float | None]]:
    intervals = _read_json(path)["intervals"]
    return {key: dict(intervals[key]) for key in METRICS if key in intervals}


def machine(provenances: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Processor and versions of a run; number format, compilation and processes of training and of answering.

    A list stands where its checkpoints differ.
    """
    found: dict[tuple[str, str], list[Any]] = {}
    for provenance in provenances:
        for stage in ("training", "answer"):
            for key, value in (provenance.get(stage) or {}).items():
                values = found.setdefault(("" if key in SHARED else stage, key), [])
                if value not in values:
                    values.append(value)
    merged: dict[str, Any] = {}
    for (stage, key), values in found.items():
        part = merged.setdefault(stage, {}) if stage else merged
        part[key] = values[0] if len(values) == 1 else values
    return merged


def _seconds(root: Path) -> int | None:
    """Of all stages but the report, which has no time; None where one has left none.

    dvc.lock has their commands, also those of stages that have been removed from dvc.yaml.
    """
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    stages = _run(root, sys.executable, "-m", "dvc", "stage", "list", "--name-only").split()
    commands = [shlex.split(lock[stage]["cmd"])[2:] for stage in stages if stage in lock]  # without python -m
    names = ["-".join([module.rpartition(".")[2], *arguments]) for module, *arguments in commands]
    files = [root / "reports/time" / f"{name}.json" for name in names if name != "report"]
    if not all(file.exists() for file in files):
        return None
    return round(sum(_read_json(file)["seconds"] for file in files))


def target_tokens(root: Path, params: Params) -> dict[str, int]:
    """{checkpoint: target tokens of its chain of phases after pretraining, all epochs}"""
    counted = {
        phase: _read_json(root / "data/sft" / phase / "summary.json")["target_tokens"] for phase in params.sft.phases
    }
    return {
        f"sft-{phase}": params.sft.epochs * sum(counted[link] for link in params.sft.chain(phase))
        for phase in params.sft.phases
    }


def _jumps(path: Path) -> dict[str, float]:
    """{checkpoint: change of the loss at epoch ends, nats}, from the table of stage report."""
    try:
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro` first") from None
    return {row["checkpoint"]: float(row["value"]) for row in rows if row["metric"] == "jump"}


def record(root: Path, params: Params) -> dict[str, Any]:
    """The record of the run whose outputs lie under ``root``.

    Raises InputError where code differs from the commit, or where a file that `dvc repro` makes is missing.
    """
    dirty = _run(root, "git", "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    if dirty:
        raise InputError(f"{dirty.split()[1]} differs from the commit: commit the code first, then run `dvc repro`")
    before = yaml.safe_load(_run(root, "git", "show", "HEAD:params.yaml"))
    after = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    changed = changed_params(before, after)
    folders = checkpoint_folders(root, params.checkpoints)
    checkpoints, jumps = {}, _jumps(root / "reports/checkpoints.csv")
    for name, folder in folders.items():
        checkpoints[name] = _metrics(folder / "metrics.json")
        if name in jumps:
            checkpoints[name]["jump"] = {"value": jumps[name], "low": None, "high": None}
    return {
        "command": command(changed),
        "commit": _run(root, "git", "rev-parse", "HEAD").strip(),
        "code": code_hash(root),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count()}
        | machine(_read_json(folder / "provenance.json") for folder in folders.values()),
        "seconds": _seconds(root),  # of all stages; None without their times
        "seed": after["seed"],
        "params": {name: change.value for name, change in changed.items()},  # null: removed
        "scenes": _read_json(folders["pretrain"] / "metrics.json").get("scenes"),
        "target_tokens": target_tokens(root, params),
        "checkpoints": checkpoints,
        "metrics_diff": json.loads(_run(root, sys.executable, "-m", "dvc", "metrics", "diff", "--json") or "{}"),
    }


def require_up_to_date(root: Path) -> None:
    """Raises InputError where `dvc status` reports that a stage has to run again."""
    status = json.loads(_run(root, sys.executable, "-m", "dvc", "status", "--json") or "{}")
    if status:
        raise InputError(f"stage '{next(iter(status))}' is not up to date: run `dvc repro` first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the file, e.g. seed-1: letters, digits, '-' and '_'")
    name = parser.parse_args().name
    root = Path()
    try:
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(f"'{name}' is not a name of letters, digits, '-' and '_': choose another, e.g. seed-1")
        params = load_params()
        require_up_to_date(root)
        path = root / RESULTS / f"{name}.json"
        write_json(path, record(root, params))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"wrote {path}; run `python -m stages.report.readme`, then commit both")


if __name__ == "__main__":
    main()
