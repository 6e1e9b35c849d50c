"""Runs of Weights & Biases.

No output depends on a run, and an error of wandb never ends a stage. Runs are kept in wandb/ of the project's own
folder, also those of an experiment that DVC runs in a temporary copy of it.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.core.files import write_text
from stages.common.core.paths import PROJECT, WANDB_RUNS
from stages.common.core.processes import is_main_process
from stages.common.tracking.names import experiment
from stages.common.tracking.wandb_files import NO_STEP, last_step

RUN_ID = "wandb_run_id"  # file in the folder of a stage's saved states
UNFINISHED = "unfinished"  # file in the folder of an online run that is not uploaded completely
_INIT_SECONDS = 15  # for the server to open a run; after that the run is kept offline
_FINISH_SECONDS = 60  # to upload the rest of a run when its stage ends


class Run:
    """A W&B run, or None, which drops everything that is logged. After an error of wandb it is None.

    Steps up to ``logged``, which an earlier process has logged, are not logged again.
    """

    def __init__(self, run: Any | None, logged: int) -> None:
        self._run, self._logged = run, logged

    def log(self, values: Mapping[str, Any], step: int) -> None:
        if step > self._logged:
            self._try(lambda run: run.log(dict(values), step=step))

    def log_table(self, key: str, build: Callable[[], Any]) -> None:
        """Log the wandb.Table that ``build`` returns."""
        self._try(lambda run: run.log({key: build()}, step=1))

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
            _warn(f"{_first_line(error)}; the stage continues without W&B")
            self._run = None


@contextmanager
def start_run(
    name: str, job_type: str, params: Params, facts: Mapping[str, Any], state: Path | None = None
) -> Iterator[Run]:
    """A run with all params and ``facts`` as its config; it ends with the block.

    With ``state``, a folder that is kept when a stage is killed, the stage that is started again continues the run.
    """
    run = _open_run(name, job_type, params, facts, state)
    try:
        yield run
    except BaseException:
        run.finish(1)
        raise
    run.finish(0)


def account() -> tuple[str, str]:
    """(user, server) that runs are uploaded to. Raises InputError without a login, or where no server answers."""
    import wandb

    server = wandb.setup().settings.base_url
    login = "run `wandb login`, or set WANDB_API_KEY"
    try:
        if not _logged_in(wandb):
            raise InputError(f"not logged in to {server}: {login}")
        return wandb.Api(timeout=_INIT_SECONDS).viewer.username, server
    except (wandb.Error, ValueError) as error:
        raise InputError(f"{server}: {_first_line(error)}; check the network, or {login}") from None


def _open_run(name: str, job_type: str, params: Params, facts: Mapping[str, Any], state: Path | None) -> Run:
    mode = params.wandb.mode
    if mode == "disabled" or not is_main_process():
        return Run(None, NO_STEP)
    os.environ["WANDB_MODE"] = mode
    os.environ.setdefault("WANDB_SILENT", "true")
    # wandb would report every start to its developers, offline too, and wait for an answer at the end.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # A table's pictures are kept there until they are uploaded; wandb's default is in the user's home.
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
        logged = NO_STEP  # online, wandb skips the steps that the server has
        if run is None:
            logged = last_step(WANDB_RUNS, arguments["id"]) if state is not None else NO_STEP
            run = wandb.init(mode="offline", **arguments)
        run.define_metric("train/global_step")
        for metrics in ("train/*", "eval/*"):
            run.define_metric(metrics, step_metric="train/global_step")
        return Run(run, logged)
    except Exception as error:
        _warn(f"{_first_line(error)}; the stage continues without W&B")
        return Run(None, NO_STEP)


def _open_online(wandb: Any, arguments: Mapping[str, Any]) -> Any | None:
    """None, after a warning, without a login or where no server answers in time."""
    try:
        if _logged_in(wandb):
            run = wandb.init(mode="online", **arguments)
            print(f"W&B: {run.url}", flush=True)
            return run
        reason = "not logged in: `wandb login`, or WANDB_API_KEY"
    except Exception as error:
        reason = _first_line(error)
    _warn(f"cannot log online ({reason}); the run is kept in {WANDB_RUNS}; `make wandb-sync` uploads it later")
    return None


def _logged_in(wandb: Any) -> bool:
    """Whether there is a valid key. Raises wandb's error where the server rejects it. Never asks the user for one."""
    try:
        return wandb.login(prompt=False, verify=True)
    except Exception:
        # wandb and its helper process can deadlock when the process ends right after a request has timed out.
        time.sleep(1)
        raise


def _kept_id(state: Path) -> str:
    path = state / RUN_ID
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")


def _warn(message: str) -> None:
    print(f"warning: W&B: {message}", file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
