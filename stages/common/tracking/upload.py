"""`make wandb-sync`: upload the W&B runs that were kept offline.

python -m stages.common.tracking.upload
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stages.common.core.errors import InputError
from stages.common.core.paths import LOCKS, RESUME_ROOT, WANDB_RUNS
from stages.common.core.stage import run_stage
from stages.common.tracking.runs import RUN_ID, UNFINISHED, account
from stages.common.tracking.wandb_files import records


def waiting(root: Path) -> list[tuple[Path, Any]]:
    """(folder, its run record) of offline runs, and of online ones that were not uploaded completely.

    wandb writes a file beside a run that is uploaded completely. A folder without a record is left by a process that
    was killed before it wrote one; the process that resumed the run has logged everything again.
    """
    found = []
    for folder in sorted(root.glob("*run-*")):
        file = next(folder.glob("run-*.wandb"), None)
        not_uploaded = folder.name.startswith("offline-") or (folder / UNFINISHED).exists()
        if file is None or folder.is_symlink() or not not_uploaded or file.with_suffix(".wandb.synced").exists():
            continue
        run = next((record.run for record in records(file) if record.HasField("run")), None)
        if run is not None:
            found.append((folder, run))
    return found


def training_now(root: Path) -> Iterator[str]:
    """Ids of runs that a process is writing at this moment: it holds the lock of their states."""
    for path in (root / LOCKS).glob("*.lock"):
        id_file = root / path.stem / RUN_ID
        try:
            with FileLock(path, blocking=False):
                pass
        except Timeout:
            if id_file.exists():
                yield id_file.read_text(encoding="utf-8")


def main() -> None:
    busy = set(training_now(RESUME_ROOT))
    found = waiting(WANDB_RUNS)
    runs = [(folder, run) for folder, run in found if run.run_id not in busy]
    if len(runs) < len(found):
        print(f"folders of runs that are still training, skipped: {len(found) - len(runs)}; upload them afterwards")
    if not runs:
        print(f"nothing to upload: {WANDB_RUNS.resolve()} has no run that is not on the server")
        return
    print(f"not uploaded yet (folders: {len(runs)}, runs: {len({run.run_id for _, run in runs})}):")
    for folder, run in runs:
        print(f"  {folder.name}  {run.display_name}  (project {run.project}, group {run.run_group})")
    user, server = account()
    print(f"uploading to {server} as {user}: losses and params, of evaluations also pictures and answers", flush=True)
    folders = [str(folder) for folder, _ in runs]
    subprocess.run([sys.executable, "-m", "wandb", "sync", "--include-online", *folders], check=False)
    if left := [folder.name for folder, _ in waiting(WANDB_RUNS) if str(folder) in folders]:
        raise InputError(f"not uploaded: {', '.join(left)}; see above, then run the same command again")


if __name__ == "__main__":
    run_stage(main)
