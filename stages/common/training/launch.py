"""Starts a stage that trains or encodes in several processes, by torchrun, or accelerate launch with a config file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stages import VISIBLE_GPUS
from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.processes import is_distributed

if TYPE_CHECKING:  # importing torch takes seconds, and most stages do without
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

_LAUNCHED = "VLM_CURRICULUM_LAUNCHED"  # accelerate launch sets no RANK for a single process


def run_distributed(main: Callable[[], object], module: str) -> Callable[[], object]:
    """``main`` of the stage ``module``, in ``train.processes`` processes.

    A stage that torchrun or accelerate launch has started, on one machine or several, starts no more processes.
    """

    def launch() -> None:
        if is_distributed() or _LAUNCHED in os.environ:
            _report_errors(main)
            return
        params = load_params()
        if params.train.processes == 1 and params.train.accelerate_config is None:
            main()
        else:
            _launch(params, module, sys.argv[1:])

    return launch


def _report_errors(main: Callable[[], object]) -> None:
    """Run ``main``. Write bad input to torchrun's error file, so that the launcher prints it once for all processes."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    try:
        main()
    except InputError as error:
        if file is None:
            raise
        message = {"message": str(error), "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")
        sys.exit(2)
    except KeyboardInterrupt:
        if file is None:
            raise
        sys.exit(130)


def cause(error: ChildFailedError) -> ProcessFailure:
    """The failure to report: bad input if there is any, else the first failure of a process that no signal ended.

    ``get_first_failure`` compares times in whole seconds, and a process that was ended because of the first failure
    often has the same one.
    """

    def order(failure: ProcessFailure) -> tuple[bool, bool, int]:
        return not _is_bad_input(failure), failure.exitcode < 0, failure.timestamp

    return min(error.failures.values(), key=order)


def _is_bad_input(failure: ProcessFailure) -> bool:
    return failure.exitcode == 2 and isinstance(failure.message, dict)


def _launch(params: Params, module: str, arguments: list[str]) -> None:
    """Raises InputError if one of the processes has; if one fails otherwise, ends with its code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the failed process has printed its error
    processes, config = params.train.processes, params.train.accelerate_config
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    os.environ[_LAUNCHED] = "1"
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if VISIBLE_GPUS is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = VISIBLE_GPUS
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else DDP warns that every parameter was used
    try:
        if config is None:
            from torch.distributed import run

            own = ["--standalone", "--nproc-per-node", str(processes)]
            run.run(run.parse_args([*own, "--module", module, *arguments]))
        else:
            from accelerate.commands.launch import launch_command, launch_command_parser

            if not os.path.isfile(config):
                raise InputError(
                    f"params.yaml: train.accelerate_config: there is no file {config}; write it with "
                    f"`accelerate config --config_file {config}`"
                )
            own = ["--config_file", config, "--num_processes", str(processes)]
            launch_command(launch_command_parser().parse_args([*own, "--module", module, *arguments]))
    except ChildFailedError as error:
        failure = cause(error)
        if _is_bad_input(failure):
            raise InputError(failure.message["message"]) from None
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
    except subprocess.CalledProcessError as error:  # from accelerate launch with one process
        sys.exit(error.returncode if error.returncode > 0 else 1)
    except SignalException:
        raise KeyboardInterrupt from None
