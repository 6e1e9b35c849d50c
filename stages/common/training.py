"""What all training stages share: one call around transformers.Trainer, with a loss log and exact resumption."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from stages.common.batches import BatchPlan
from stages.common.compilation import compile_decoder, pays
from stages.common.errors import InputError
from stages.common.files import write_text
from stages.common.launch import from_first, is_first, rank_of
from stages.common.memory import keep_memory
from stages.common.params import LoopParams, Params
from stages.common.paths import LOSS_LOGS, RESUME_ROOT
from stages.common.precision import use_bf16
from stages.common.tracking import Run, start_run, training_name

_ROOT = Path(__file__).parents[2]
_COLUMNS = ("step", "epoch", "target_tokens", "loss", "learning_rate", "grad_norm")

Collate = Callable[[list[Any]], dict[str, Any]]
Weights = dict[str, torch.Tensor] | None  # None: those that the model holds
Save = Callable[[Path, Weights], None]


class PlannedTrainer(Trainer):
    """A Trainer that walks through a BatchPlan; ``max_steps`` is the plan's length, so one pass is the whole run."""

    def __init__(self, *args: Any, plan: BatchPlan, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plan = plan
        self.target_tokens = 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Without the Trainer's closing summary: it counts samples by a batch size that a plan does not have."""
        if "train_runtime" not in logs:
            super().log(logs, *args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        # Cached features are read faster than a process is asked; but decoding is slow, and a step on a GPU short.
        busy = getattr(self.train_dataset, "decodes", False) or torch.cuda.is_available()
        cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(max(cores, 1), 8) if busy else 0
        plan, processes = self._plan, self.accelerator.num_processes
        if processes > 1 and not getattr(self.train_dataset, "whole_batches", False):
            plan = plan.part(self.train_dataset.lengths, self.accelerator.process_index, processes)
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=plan,
            collate_fn=self.data_collator,
            num_workers=workers,
            worker_init_fn=_leave_signals,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # Ours are shared out already: for accelerate there is one process.
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As the Trainer's, which looks for weights by the names that they have in the model. Files of LLaVA's have
        older names, and it would go on with what the model started from, without an error."""
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, local_files_only=True)
        self.model.load_state_dict(saved.state_dict())

    def gathered_state(self) -> dict[str, torch.Tensor] | None:
        """All weights, on the first process, where FSDP has spread them over all; else None: the model has them."""
        if self.accelerator.distributed_type != DistributedType.FSDP:
            return None
        return self.accelerator.get_state_dict(self.model_wrapped)

    def compute_loss(
        self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ):
        if num_items_in_batch is not None:
            self.target_tokens += int(num_items_in_batch)  # of all processes
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def _leave_signals(_: int) -> None:
    """In a worker: signals go to all processes, and are answered by the one that trains, which ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class LossLog(TrainerCallback):
    """Collects the loss curve; it is part of the resumable state, so a resumed run has no gap in it.

    Raises InputError when the loss or its gradient is no number any more.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.trainer: PlannedTrainer | None = None
        self.rows: list[dict[str, float]] = []

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            row = {
                "step": state.global_step,
                "epoch": round(self.plan.epoch_at(state.global_step), 4),
                "target_tokens": self.trainer.target_tokens,
                "loss": round(float(logs["loss"]), 6),
                "learning_rate": float(f"{logs['learning_rate']:.6g}"),
                "grad_norm": round(float(logs["grad_norm"]), 5),
            }
            if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                raise InputError(
                    f"params.yaml: {args.run_name.split('-')[0]}.learning_rate: training has come apart, at step "
                    f"{row['step']} the loss is {row['loss']} and its gradient {row['grad_norm']}; lower the rate"
                )
            self.rows.append(row)

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_text(
            folder / "loss_log.json", json.dumps({"rows": self.rows, "target_tokens": self.trainer.target_tokens})
        )

    def restore(self, folder: Path) -> None:
        saved = json.loads((folder / "loss_log.json").read_text(encoding="utf-8"))
        self.rows, self.trainer.target_tokens = saved["rows"], saved["target_tokens"]


class RunLog(TrainerCallback):
    """Tells W&B each new point of the loss curve, and how fast training went since the one before.

    When training is resumed, the whole curve is told again: what a killed process had logged last may be lost.
    """

    def __init__(self, run: Run, log: LossLog) -> None:
        self._run, self._log = run, log

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        self._since = (time.perf_counter(), state.global_step, self._log.trainer.target_tokens)
        for row in self._log.rows:
            self._tell(row)

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            row = self._log.rows[-1]
            then, step, tokens = self._since
            self._since = (time.perf_counter(), row["step"], row["target_tokens"])
            seconds = self._since[0] - then
            samples = sum(map(len, self._log.plan.batches[step : row["step"]]))
            speed = {
                "samples_per_second": samples / seconds,
                "target_tokens_per_second": (row["target_tokens"] - tokens) / seconds,
            }
            self._tell(row | speed)

    def _tell(self, row: dict[str, float]) -> None:
        values = {"train/global_step" if key == "step" else f"train/{key}": value for key, value in row.items()}
        self._run.log(values, step=row["step"])


class EpochKeeper(TrainerCallback):
    """Writes a checkpoint after every epoch but the last, beside the resumable states: outputs appear at the end."""

    def __init__(self, plan: BatchPlan, root: Path, save_epoch: Save | None) -> None:
        self.trainer: PlannedTrainer | None = None
        self._save_epoch = save_epoch
        ends = {} if save_epoch is None else dict(enumerate(plan.epoch_starts[1:], start=1))
        self._folders = {step: root / f"epoch-{epoch}" for epoch, step in ends.items()}

    @property
    def folders(self) -> list[Path]:
        return list(self._folders.values())

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self._folders:
            weights = self.trainer.gathered_state()
            if state.is_world_process_zero:
                self._save_epoch(self._folders[state.global_step], weights)


def write_loss_log(name: str, rows: Sequence[dict[str, float]]) -> None:
    lines = [",".join(_COLUMNS)] + [",".join(str(row[c]) for c in _COLUMNS) for row in rows]
    write_text(LOSS_LOGS / f"{name}.csv", "\n".join(lines) + "\n")


def train(
    name: str,
    model: PreTrainedModel,
    dataset: Dataset,
    collate: Collate,
    plan: BatchPlan,
    loop: LoopParams,
    params: Params,
    inputs: Sequence[Any],
    save: Callable[[Sequence[Path], Weights], None],
    loss_of: Callable | None = None,
    save_epoch: Save | None = None,
) -> None:
    """Train ``model`` in place through ``plan``, then ``save`` it and write its loss curve to LOSS_LOGS/name.csv.

    Under torchrun or accelerate launch every process takes a share of each batch; the first one writes.

    ``loss_of(model, batch)`` stands in for the model's own loss; the batch holds ``num_items_in_batch``, too, the
    targets of all processes, where it has labels.
    ``save_epoch`` writes a folder after every epoch but the last; ``save`` is given these folders, in order.

    Interrupted, in ``save`` as well, and called again with the same ``inputs`` (params, files and folders: all that
    goes in), code, number format and number of processes, it goes on from the last saved state and ends with the same
    weights as an undisturbed run.
    """
    set_seed(params.seed)
    transformers_logging.set_verbosity_warning()
    keep_memory()
    bf16 = from_first(use_bf16(params.train.precision))  # each may have measured another one as the faster
    tokens = loop.epochs * sum(getattr(dataset, "lengths", ()))  # pictures alone: none, and nothing to gain
    compiled = from_first(tokens > 0 and pays(params.train.compile, model, tokens))
    if compiled:
        compile_decoder(model)
    if loss_of is not None:
        # In forward's place, because that is where accelerate puts what belongs around it.
        model.forward = lambda **batch: {"loss": loss_of(model, batch)}
    engine = rank_of()[1], params.train.accelerate_config  # these decide what files a state has
    code = sorted([*_ROOT.glob("stages/**/*.py"), *_ROOT.glob("model/*.py")])
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    parameters = {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, learns in sizes if learns)}
    with (
        resume_folder(name, fingerprint_of(*inputs, plan.batches, bf16, compiled, *engine, *code)) as folder,
        start_run(training_name(name, loop), name.split("-")[0], params, {"parameters": parameters}, folder) as run,
    ):
        arguments = TrainingArguments(
            output_dir=str(folder),
            run_name=name,
            max_steps=len(plan),
            learning_rate=loop.learning_rate,
            warmup_steps=int(loop.warmup_ratio * len(plan)),
            lr_scheduler_type=loop.lr_scheduler_type,
            lr_scheduler_kwargs=_scheduler_arguments(loop, len(plan)),
            weight_decay=loop.weight_decay,
            optim="adamw_torch_fused",
            adam_beta2=loop.adam_beta2,
            max_grad_norm=1.0,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=min(params.train.logging_steps, max(1, len(plan) // 4)),
            logging_nan_inf_filter=False,
            save_steps=params.train.save_steps,
            save_total_limit=2,  # the newest one counts only once its loss log is there, too
            seed=params.seed,
            report_to=[],  # see RunLog
            remove_unused_columns=False,
            disable_tqdm=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        log, stop = LossLog(plan), StopOnSignal()
        keeper = EpochKeeper(plan, folder, save_epoch)
        trainer = PlannedTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=collate,
            callbacks=[log, RunLog(run, log), stop, keeper],
            plan=plan,
        )
        log.trainer = keeper.trainer = trainer
        last = _last_state(folder)
        done = 0
        if last is not None:
            log.restore(last)
            done = int(last.name.removeprefix("checkpoint-"))
            if is_first():
                print(f"{name}: resuming from step {done}", flush=True)
        started = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        finally:
            stop.restore_handlers()
        if stop.caught_anywhere(arguments):  # after the last state was saved
            raise KeyboardInterrupt
        weights = trainer.gathered_state()
        if is_first():
            seconds = time.perf_counter() - started
            samples = sum(len(batch) for batch in plan.batches[done:])
            rate = f"{samples / seconds:.0f} samples/s, {seconds:.0f} s"
            print(f"{name}: {len(plan) - done} steps, {samples} samples, {rate}")
            save(keeper.folders, weights)
            write_loss_log(name, log.rows)


class StopOnSignal(TrainerCallback):
    """SIGINT and SIGTERM save the state and end the process with a code other than 0."""

    def __init__(self) -> None:
        self.stopping = False  # what all processes have agreed on
        self.caught = False
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
        """In any of the processes, all of which have to ask."""
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


def _scheduler_arguments(loop: LoopParams, steps: int) -> dict[str, Any]:
    if loop.lr_scheduler_type == "cosine_with_min_lr":
        return {"min_lr_rate": 0.1}
    if loop.lr_scheduler_type == "warmup_stable_decay":
        return {"num_decay_steps": max(1, steps // 3)}
    return {}


def fingerprint_of(*parts: Any) -> str:
    """A digest of params (as JSON), files and folders: what must be equal for a resumption to be right."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
                if file.is_file():
                    digest.update(file.name.encode())
                    with file.open("rb") as stream:
                        digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


@contextmanager
def resume_folder(stage: str, fingerprint: str) -> Iterator[Path]:
    """A folder for a stage's saved states: kept when the block fails, removed when it succeeds.

    It is no output of DVC's (which deletes outputs before a re-run), and it is locked: when dvc is killed, its
    child trains on, and a second one must not write beside it. Raises InputError if another process holds it.
    """
    RESUME_ROOT.mkdir(parents=True, exist_ok=True)
    folder = RESUME_ROOT / f"{stage}-{fingerprint}"
    if not is_first():  # the first process holds it for all
        yield folder
        return
    with (RESUME_ROOT / f"{stage}-{fingerprint}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is already training {stage} here: wait for it, or stop it first"
            ) from None
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder)
        Path(lock.name).unlink()


def _last_state(folder: Path) -> Path | None:
    """The newest complete state; the trainer's state file is written last but for our log."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    complete = [
        state for state in states if (state / "loss_log.json").exists() and (state / "trainer_state.json").exists()
    ]
    return complete[-1] if complete else None
