"""The training loop of all stages: one call around transformers.Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from stages.common.config.loop import LoopParams
from stages.common.config.params import Params
from stages.common.core.memory import reuse_memory
from stages.common.core.processes import broadcast, is_main_process, rank_and_world_size
from stages.common.core.provenance import Provenance, provenance
from stages.common.data.batches import BatchPlan, plan_validation
from stages.common.data.packing import SampleDataset
from stages.common.tracking.names import training_name
from stages.common.tracking.runs import start_run
from stages.common.training.callbacks import (
    EpochKeeper,
    EpochValidation,
    LossLog,
    RunLog,
    SaveEpoch,
    StopOnSignal,
    Weights,
    write_loss_log,
)
from stages.common.training.compilation import compile_decoder, should_compile
from stages.common.training.precision import use_bf16
from stages.common.training.resumption import fingerprint_of, last_state, resume_folder
from stages.common.training.trainer import PlannedTrainer, TargetCounts

_ROOT = Path(__file__).parents[3]

Collate = Callable[[list[Any]], dict[str, Any]]


def train(
    name: str,
    model: PreTrainedModel,
    dataset: Dataset,
    collate: Collate,
    plan: BatchPlan,
    loop: LoopParams,
    params: Params,
    inputs: Sequence[Any],
    save: Callable[[Sequence[Path], Weights, Provenance], None],
    loss_of: Callable | None = None,
    save_epoch: SaveEpoch | None = None,
    validation: SampleDataset | None = None,
) -> None:
    """Train ``model`` in place through ``plan``, then ``save`` it and write its loss curve to LOSS_LOGS/name.csv.

    Under torchrun or accelerate launch every process takes a share of each batch; the main process writes.

    Where ``loop`` has ``batch_tokens``, a target token has the same weight in every batch: the summed loss is divided
    by the mean number of targets of a batch. Where it has ``batch_size``, the loss is the mean over a batch's targets.

    ``loss_of(model, batch)`` stands in for the model's own loss. Where a batch has labels, it also has
    ``num_items_in_batch``, which is what the sum over its targets must be divided by.
    ``save_epoch(folder, weights, provenance)`` writes a folder after every epoch but the last;
    ``save(epochs, weights, provenance)`` is given these folders, in order. ``weights`` None: those of ``model``.

    The loss on ``train.validation_samples`` random samples of ``validation``, if it has any, is logged before the first
    epoch and after each.

    After an interruption, also one during ``save``, a call with the same ``inputs`` (params, files and folders that
    the result depends on), code, number format and number of processes resumes from the last saved state, and ends
    with the same weights as an uninterrupted run.

    Raises InputError where the loss is not finite, KeyboardInterrupt after a signal.
    """
    set_seed(params.seed)
    transformers_logging.set_verbosity_warning()
    reuse_memory()
    bf16 = broadcast(use_bf16(params.train.precision))  # processes may measure different ones as faster
    tokens = loop.epochs * sum(getattr(dataset, "lengths", ()))  # none in the vision stage, which is not compiled
    compiled = broadcast(tokens > 0 and should_compile(params.train.compile, model, tokens))
    if compiled:
        compile_decoder(model)
    if loss_of is not None:
        # As forward, because accelerate wraps forward (mixed precision, DDP).
        model.forward = lambda **batch: {"loss": loss_of(model, batch)}
    processes = rank_and_world_size()[1]
    engine = processes, params.train.accelerate_config  # a saved state's files depend on these
    record = provenance("bf16" if bf16 else "fp32", compiled, processes)
    stage = f"stages/{name.split('-')[0]}"
    folders = ("model", "stages/common/data", "stages/common/training", "stages/common/world", stage)
    code = sorted([*_ROOT.glob(f"{stage}.py"), *(file for path in folders for file in (_ROOT / path).rglob("*.py"))])
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    parameters = {
        "total": sum(count for count, _ in counts),
        "trainable": sum(count for count, trainable in counts if trainable),
    }
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
            save_total_limit=2,  # the newest one is complete only once its loss log is written
            seed=params.seed,
            report_to=[],  # see RunLog
            remove_unused_columns=False,
            disable_tqdm=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        equal_weights = getattr(loop, "batch_tokens", None) is not None
        targets = TargetCounts.of(plan, getattr(dataset, "targets", ()), equal_weights)
        last = last_state(folder)
        done = 0 if last is None else int(last.name.removeprefix("checkpoint-"))
        log, stop = LossLog(plan, targets), StopOnSignal()
        keeper = EpochKeeper(plan, folder, save_epoch, record)
        callbacks = [log, RunLog(run, log), stop, keeper]
        eval_plan = None
        if validation:
            sizes = getattr(loop, "batch_tokens", None), getattr(loop, "batch_size", None)
            eval_plan = plan_validation(validation.lengths, *sizes, params.train.validation_samples, params.seed)
            callbacks.append(EpochValidation(plan))
            arguments.eval_on_start = done == 0
        trainer = PlannedTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=collate,
            callbacks=callbacks,
            eval_dataset=validation,
            plan=plan,
            targets=targets,
            first_step=done,
            eval_plan=eval_plan,
        )
        keeper.trainer = trainer
        if last is not None:
            log.restore(last)
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
            save(keeper.folders, weights, record)
            write_loss_log(name, log.rows)


def _scheduler_arguments(loop: LoopParams, steps: int) -> dict[str, Any]:
    if loop.lr_scheduler_type == "cosine_with_min_lr":
        return {"min_lr_rate": 0.1}
    if loop.lr_scheduler_type == "warmup_stable_decay":
        return {"num_decay_steps": max(1, steps // 3)}
    return {}
