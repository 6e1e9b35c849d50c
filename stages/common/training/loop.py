"""What all training stages share: one call around transformers.Trainer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from stages.common.config.loop import LoopParams
from stages.common.config.params import Params
from stages.common.core.memory import reuse_memory
from stages.common.core.processes import broadcast, is_main_process, rank_and_world_size
from stages.common.data.batches import BatchPlan
from stages.common.tracking.runs import start_run, training_name
from stages.common.training.callbacks import EpochKeeper, LossLog, RunLog, Save, StopOnSignal, Weights, write_loss_log
from stages.common.training.compilation import compile_decoder, should_compile
from stages.common.training.precision import use_bf16
from stages.common.training.resumption import fingerprint_of, last_state, resume_folder

_ROOT = Path(__file__).parents[3]

Collate = Callable[[list[Any]], dict[str, Any]]


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
    reuse_memory()
    bf16 = broadcast(use_bf16(params.train.precision))  # each may have measured another one as the faster
    tokens = loop.epochs * sum(getattr(dataset, "lengths", ()))  # pictures alone: none, and nothing to gain
    compiled = broadcast(tokens > 0 and should_compile(params.train.compile, model, tokens))
    if compiled:
        compile_decoder(model)
    if loss_of is not None:
        # In forward's place, because that is where accelerate puts what belongs around it.
        model.forward = lambda **batch: {"loss": loss_of(model, batch)}
    engine = rank_and_world_size()[1], params.train.accelerate_config  # these decide what files a state has
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
        last = last_state(folder)
        done = 0
        if last is not None:
            log.restore(last)
            done = int(last.name.removeprefix("checkpoint-"))
            if is_main_process():
                print(f"{name}: resuming from step {done}", flush=True)
        started = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        finally:
            stop.restore_handlers()
        if stop.caught_anywhere(arguments):  # after the last state was saved
            raise KeyboardInterrupt
        weights = trainer.gathered_state()
        if is_main_process():
            seconds = time.perf_counter() - started
            samples = sum(len(batch) for batch in plan.batches[done:])
            rate = f"{samples / seconds:.0f} samples/s, {seconds:.0f} s"
            print(f"{name}: {len(plan) - done} steps, {samples} samples, {rate}")
            save(keeper.folders, weights)
            write_loss_log(name, log.rows)


def _scheduler_arguments(loop: LoopParams, steps: int) -> dict[str, Any]:
    if loop.lr_scheduler_type == "cosine_with_min_lr":
        return {"min_lr_rate": 0.1}
    if loop.lr_scheduler_type == "warmup_stable_decay":
        return {"num_decay_steps": max(1, steps // 3)}
    return {}
