"""Callbacks of a training run: loss log, W&B, validation and checkpoints after epochs, and stopping on a signal."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from stages.common.core.errors import InputError
from stages.common.core.files import write_text
from stages.common.core.paths import LOSS_LOGS
from stages.common.core.provenance import Provenance
from stages.common.data.batches import BatchPlan
from stages.common.tracking.runs import Run
from stages.common.training.trainer import PlannedTrainer, TargetCounts

_COLUMNS = ("step", "epoch", "target_tokens", "loss", "learning_rate", "grad_norm", "validation_loss")
_NAMES = {"step": "train/global_step", "validation_loss": "eval/loss"}  # in W&B; of the other columns: train/...
Row = dict[str, float]
Weights = dict[str, torch.Tensor] | None  # None: those that the model holds
SaveEpoch = Callable[[Path, Weights, Provenance], None]


class LossLog(TrainerCallback):
    """Collects the loss curve and, in rows of their own, the validation losses. Both are saved with every state, so
    those of a resumed run have no gap.

    Raises InputError when the loss or the norm of its gradient is not finite.
    """

    def __init__(self, plan: BatchPlan, targets: TargetCounts) -> None:
        self.plan, self.targets = plan, targets
        self.rows: list[Row] = []

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            row = self._position(state.global_step) | {
                "loss": round(float(logs["loss"]), 6),
                "learning_rate": float(f"{logs['learning_rate']:.6g}"),
                "grad_norm": round(float(logs["grad_norm"]), 5),
            }
            if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                raise InputError(
                    f"params.yaml: {args.run_name.split('-')[0]}.learning_rate: training diverged: at step "
                    f"{row['step']} the loss is {row['loss']} and the gradient norm {row['grad_norm']}; lower the rate"
                )
            self.rows.append(row)
        elif logs and "eval_loss" in logs:
            row = self._position(state.global_step)
            self.rows.append(row | {"validation_loss": round(float(logs["eval_loss"]), 6)})

    def _position(self, step: int) -> Row:
        return {
            "step": step,
            "epoch": round(self.plan.epoch_at(step), 4),
            "target_tokens": int(self.targets.after[step]),
        }

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_text(folder / "loss_log.json", json.dumps({"rows": self.rows}))

    def restore(self, folder: Path) -> None:
        self.rows = json.loads((folder / "loss_log.json").read_text(encoding="utf-8"))["rows"]


class RunLog(TrainerCallback):
    """Logs each new row of the loss log to W&B; those of the training loss with the speed since the one before.

    A resumed run logs the curve from its start: the last points of a killed process may be lost.
    """

    def __init__(self, run: Run, log: LossLog) -> None:
        self._run, self._log = run, log

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        self._since = (time.perf_counter(), state.global_step)
        for row in self._log.rows:
            self._log_row(row)

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            row = self._log.rows[-1]
            started, step = self._since
            self._since = (time.perf_counter(), row["step"])
            tokens = row["target_tokens"] - int(self._log.targets.after[step])
            seconds = self._since[0] - started
            samples = sum(map(len, self._log.plan.batches[step : row["step"]]))
            speed = {
                "samples_per_second": samples / seconds,
                "target_tokens_per_second": tokens / seconds,
            }
            self._log_row(row | speed)
        elif logs and "eval_loss" in logs:
            started, step = self._since
            self._since = (started + logs["eval_runtime"], step)  # no time of training
            self._log_row(self._log.rows[-1])

    def _log_row(self, row: Row) -> None:
        values = {_NAMES.get(key, f"train/{key}"): value for key, value in row.items()}
        self._run.log(values, step=row["step"])


class EpochKeeper(TrainerCallback):
    """Writes a checkpoint after every epoch but the last. It stays beside the saved states until training has ended."""

    def __init__(self, plan: BatchPlan, root: Path, save_epoch: SaveEpoch | None, provenance: Provenance) -> None:
        self.trainer: PlannedTrainer | None = None
        self._save_epoch, self._provenance = save_epoch, provenance
        ends = {} if save_epoch is None else dict(enumerate(plan.epoch_ends[:-1], start=1))
        self._folders = {step: root / f"epoch-{epoch}" for epoch, step in ends.items()}

    @property
    def folders(self) -> list[Path]:
        return list(self._folders.values())

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self._folders:
            weights = self.trainer.gathered_state()
            if state.is_world_process_zero:
                self._save_epoch(self._folders[state.global_step], weights, self._provenance)


class EpochValidation(TrainerCallback):
    """Makes the Trainer compute the validation loss after every epoch."""

    def __init__(self, plan: BatchPlan) -> None:
        self._ends = set(plan.epoch_ends)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> Any:
        control.should_evaluate = state.global_step in self._ends
        return control


def write_loss_log(name: str, rows: Sequence[Row]) -> None:
    lines = [",".join(_COLUMNS)] + [",".join(str(row.get(c, "")) for c in _COLUMNS) for row in rows]
    write_text(LOSS_LOGS / f"{name}.csv", "\n".join(lines) + "\n")


class StopOnSignal(TrainerCallback):
    """On SIGINT or SIGTERM, saves the state after the current step and raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.stopping = False  # the same in all processes
        self.caught = False  # in this process
        self._handlers: dict[int, Any] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._note)

    def restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, *_: Any) -> None:
        self.caught = True

    def caught_anywhere(self, args: TrainingArguments) -> bool:
        """Whether any process has caught a signal. All processes must call it together."""
        caught = torch.tensor(int(self.caught), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(caught, torch.distributed.ReduceOp.MAX)
        return bool(caught)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.stopping = self.caught_anywhere(args)
        control.should_save = control.should_save or self.stopping
        control.should_log = control.should_log or state.global_step == state.max_steps
        return control

    def on_save(self, *_: Any, **__: Any) -> None:
        if self.stopping:
            raise KeyboardInterrupt
