"""Weights & Biases: the one place that imports wandb.

A run there is a by-product: no output depends on it, and nothing that goes wrong with it ends a stage. Runs lie in
wandb/ of the project's own folder, also those of an experiment that DVC runs in a copy of it and then deletes.
"""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from stages.common.config.loop import LoopParams
from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.core.files import write_text
from stages.common.core.paths import PROJECT, WANDB_RUNS
from stages.common.core.processes import is_main_process
from stages.common.tracking.wandb_files import last_step

RUN_ID = "wandb_run_id"  # file in the folder of a stage's resumable states
UNFINISHED = "unfinished"  # file in the folder of an online run that is not all uploaded
_INIT_SECONDS = 15  # for the server to open a run; after that the run is kept here
_FINISH_SECONDS = 60  # for the rest of a run to be uploaded when its stage ends
_COLUMNS = ("checkpoint", "picture", "image", "task", "prompt", "answer", "reference", "wrong mentions", "missed")


class Run:
    """A W&B run; or none, and all it is told is forgotten. After a first failure of W&B it is none.

    What was ``logged`` by the process before, up to that step, is not logged again.
    """

    def __init__(self, run: Any | None, logged: int) -> None:
        self._run, self._logged = run, logged

    def log(self, values: Mapping[str, Any], step: int) -> None:
        if step > self._logged:
            self._try(lambda run: run.log(dict(values), step=step))

    def show(self, name: str, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> None:
        """A table of answers about pictures."""
        self._try(lambda run: run.log({"eval/answers": _table(name, rows, pictures)}, step=1))

    def summarise(self, values: Mapping[str, Any]) -> None:
        self._try(lambda run: run.summary.update(dict(values)))

    def finish(self, exit_code: int) -> None:
        self._try(lambda run: run.finish(exit_code=exit_code))

    def _try(self, call: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except TimeoutError:
            folder = Path(self._run.dir).parent
            (folder / UNFINISHED).touch()
            _warn(f"not all of {folder} is uploaded yet; `make wandb-sync` uploads the rest")
        except Exception as error:
            _warn(f"{_first_line(error)}; the stage goes on without it")
            self._run = None


@contextmanager
def start_run(
    name: str, job_type: str, params: Params, facts: Mapping[str, Any], state: Path | None = None
) -> Iterator[Run]:
    """A run with all params and ``facts`` as its config, ended with the block.

    With ``state``, a folder that outlives a killed stage, the stage that is started again goes on with the same run.
    """
    run = _open_run(name, job_type, params, facts, state)
    try:
        yield run
    except BaseException:
        run.finish(1)
        raise
    run.finish(0)


def training_name(name: str, loop: LoopParams) -> str:
    """The name of a training run, in MiniMind-V's own form."""
    stage, *phase = name.split("-", 1)
    parts = ["MiniMind-V", "SFT" if stage == "sft" else stage.capitalize(), *phase, f"Epoch-{loop.epochs}"]
    if (tokens := getattr(loop, "batch_tokens", None)) is not None:
        parts.append(f"BatchTokens-{tokens}")
    else:
        parts.append(f"BatchSize-{loop.batch_size}")
    return "-".join([*parts, f"LearningRate-{loop.learning_rate}"])


def experiment() -> str:
    """What the runs of one pipeline run are grouped by: DVC's name for the experiment; where none runs, the git branch
    and commit; without git, the folder."""
    if name := os.environ.get("DVC_EXP_NAME"):
        return name
    where = [_git("branch", "--show-current"), _git("rev-parse", "--short", "HEAD")]
    return "-".join(filter(None, where)) or PROJECT.resolve().name


def log_evaluation(
    name: str,
    params: Params,
    facts: Mapping[str, Any],
    intervals: Mapping[str, Mapping[str, float | None]],
    rows: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, bytes],
) -> None:
    """A run for the checkpoint ``name``: its metrics as summary; ``rows``, answers about ``pictures``, as a table."""
    if params.wandb.mode == "disabled":
        return
    label = name.replace("/", "-")
    with start_run(f"MiniMind-V-Evaluate-{label}", "evaluate", params, {"checkpoint": name, **facts}) as run:
        if rows:
            run.show(name, rows, pictures)
        run.summarise(summary_of(intervals))


def summary_of(intervals: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """eval/METRIC and the ends of its interval; without what is not defined."""
    return {
        f"eval/{metric}" if part == "value" else f"eval/{metric}_{part}": value
        for metric, interval in intervals.items()
        for part, value in interval.items()
        if value is not None
    }


def table_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the table shows of each answer, but for the picture."""
    for row in rows:
        wrong = [mention["word"] for mention in row["mentions"] if mention["supported"] is False]
        texts = {key: row[key] for key in ("task", "prompt", "answer", "reference")}
        found = {"wrong mentions": ", ".join(wrong), "missed": ", ".join(row["missed"])}
        yield {"checkpoint": name, "picture": row["id"], **texts, **found}


def account() -> tuple[str, str]:
    """(user, server) that uploads go to. Raises InputError where nobody is logged in, or no server answers."""
    import wandb

    server = wandb.setup().settings.base_url
    login = "run `wandb login`, or set WANDB_API_KEY"
    try:
        if not _logged_in(wandb):
            raise InputError(f"nobody is logged in to {server}: {login}")
        return wandb.Api(timeout=_INIT_SECONDS).viewer.username, server
    except (wandb.Error, ValueError) as error:
        raise InputError(f"{server}: {_first_line(error)}; check the network, or {login}") from None


def _open_run(name: str, job_type: str, params: Params, facts: Mapping[str, Any], state: Path | None) -> Run:
    mode = params.wandb.mode
    if mode == "disabled" or not is_main_process():
        return Run(None, 0)
    os.environ["WANDB_MODE"] = mode
    os.environ.setdefault("WANDB_SILENT", "true")
    # It would tell its makers of every start, offline too, and at the end wait for their answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # Pictures of a table wait there for their upload; wandb's own place for them is in the user's home.
    os.environ.setdefault("WANDB_DATA_DIR", str(WANDB_RUNS.resolve()))
    try:
        import wandb

        arguments = {
            "project": params.wandb.project,
            "name": name,
            "group": experiment(),
            "job_type": job_type,
            "config": params.model_dump() | {"dvc": {"stage": os.environ.get("DVC_STAGE")}} | dict(facts),
            "dir": PROJECT,
            "settings": wandb.Settings(
                init_timeout=_INIT_SECONDS, finish_timeout=_FINISH_SECONDS, finish_timeout_raises=True
            ),
        }
        if state is not None:
            arguments |= {"id": _kept_id(state), "resume": "allow"}
        run = _open_online(wandb, arguments) if mode == "online" else None
        logged = 0  # online, the server tells wandb what it has, and wandb leaves that out
        if run is None:
            logged = last_step(WANDB_RUNS, arguments["id"]) if state is not None else 0
            run = wandb.init(mode="offline", **arguments)
        run.define_metric("train/global_step")
        run.define_metric("train/*", step_metric="train/global_step")
        return Run(run, logged)
    except Exception as error:
        _warn(f"{_first_line(error)}; the stage goes on without it")
        return Run(None, 0)


def _open_online(wandb: Any, arguments: Mapping[str, Any]) -> Any | None:
    """None, and a warning, where nobody is logged in or no server answers in time."""
    try:
        if _logged_in(wandb):
            run = wandb.init(mode="online", **arguments)
            print(f"W&B: {run.url}", flush=True)
            return run
        reason = "nobody is logged in: `wandb login`, or WANDB_API_KEY"
    except Exception as error:
        reason = _first_line(error)
    _warn(f"no run online ({reason}); it is kept in {WANDB_RUNS}, and `make wandb-sync` uploads it later")
    return None


def _logged_in(wandb: Any) -> bool:
    """Whether there is a key, which the server knows; raises wandb's error where it does not. Never asks for one."""
    try:
        return wandb.login(prompt=False, verify=True)
    except Exception:
        # wandb and its helper process wait for each other for ever when one ends just as a request is given up.
        time.sleep(1)
        raise


def _kept_id(state: Path) -> str:
    path = state / RUN_ID
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")


def _table(name: str, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> Any:
    import wandb

    table = wandb.Table(columns=list(_COLUMNS))
    for row in table_rows(name, rows):
        image = wandb.Image(Image.open(io.BytesIO(pictures[row["picture"]])))
        table.add_data(*(image if column == "image" else row[column] for column in _COLUMNS))
    return table


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _warn(message: str) -> None:
    print(f"warning: W&B: {message}", file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
