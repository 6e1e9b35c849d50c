"""A transformers.Trainer that takes its batches from a plan."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import DistributedType
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer

from stages.common.data.batches import BatchPlan


class TargetCounts(NamedTuple):
    """Target tokens in a plan of batches."""

    after: np.ndarray  # [steps + 1]: of the first 0, 1, ... batches together
    normalizer: float | None  # what a step's summed loss is divided by; None: by the targets of the step

    @classmethod
    def of(cls, plan: BatchPlan, targets: Sequence[int], equal_weights: bool) -> TargetCounts:
        """``targets``: of each sample; none where the dataset has no labels. With ``equal_weights`` the normalizer is
        the mean number of targets of a step."""
        counts = [sum(targets[index] for index in batch) if targets else 0 for batch in plan.batches]
        after = np.cumsum([0, *counts])
        return cls(after, float(after[-1]) / len(plan) if targets and equal_weights else None)


class PlannedTrainer(Trainer):
    """A Trainer that takes the batches of a BatchPlan in order; ``max_steps`` is the number of batches.

    Where ``targets`` has a normalizer, the loss of a step is the sum over its target tokens divided by it, so that a
    token has the same weight in every step, however many targets the step has. Else it is their mean. What is logged
    is the mean over the target tokens since the last point, or the mean of the steps' means.

    ``evaluate`` takes the batches of ``eval_plan`` from ``eval_dataset``.
    """

    def __init__(
        self,
        *args: Any,
        plan: BatchPlan,
        targets: TargetCounts,
        first_step: int = 0,
        eval_plan: BatchPlan | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._plan, self._targets, self._eval_plan = plan, targets, eval_plan
        self._logged_step = first_step

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Without the Trainer's closing summary: it counts samples by a batch size that a plan does not have."""
        if "train_runtime" in logs:
            return
        if "loss" in logs and self._targets.normalizer is not None:
            since, step = self._logged_step, self.state.global_step
            targets = self._targets.after[step] - self._targets.after[since]
            nats = logs["loss"] * (step - since) * self._targets.normalizer
            logs = logs | {"loss": nats / max(1, int(targets))}
            self._logged_step = step
        super().log(logs, *args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        # Reading cached features takes less time than passing them between processes. Worker processes save time where
        # pictures are decoded, and on a GPU, where steps are short.
        use_workers = getattr(self.train_dataset, "decodes", False) or torch.cuda.is_available()
        cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(max(cores, 1), 8) if use_workers else 0
        plan = self._own_part(self._plan, self.train_dataset)
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=plan,
            collate_fn=self.data_collator,
            num_workers=workers,
            worker_init_fn=_ignore_signals,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # Batches are divided between processes already: for accelerate there is one process.
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
        )

    def _own_part(self, plan: BatchPlan, dataset: Dataset) -> BatchPlan:
        """What this process computes of ``plan``."""
        processes = self.accelerator.num_processes
        if processes == 1 or getattr(dataset, "needs_complete_batches", False):
            return plan
        return plan.part(dataset.lengths, self.accelerator.process_index, processes)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """``eval_loss``: nats per target token, whatever the batches; ``eval_runtime``: seconds. All processes call it
        together. It draws no random numbers, so that training is the same with and without it."""
        started = time.perf_counter()
        dataset, model = self.eval_dataset, self.model_wrapped
        nats = torch.zeros((), dtype=torch.float64, device=self.args.device)
        model.eval()
        # Compiling the layers once more, without gradients, would take longer than these few batches.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for batch in self._own_part(self._eval_plan, dataset):
                inputs = self._prepare_inputs(self.data_collator([dataset[index] for index in batch]))
                nats += model(**inputs, num_items_in_batch=1)["loss"]
        targets = sum(dataset.targets[index] for batch in self._eval_plan for index in batch)
        nats = self.accelerator.reduce(nats, "sum").item()
        metrics = {"eval_loss": nats / max(1, targets), "eval_runtime": time.perf_counter() - started}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load weights through from_pretrained, which renames them. The Trainer looks for the names that weights have
        in the model; LLaVA's files have older names, and the Trainer would silently keep the initial weights."""
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, local_files_only=True)
        self.model.load_state_dict(saved.state_dict())

    def gathered_state(self) -> dict[str, torch.Tensor] | None:
        """All weights, in the main process, where FSDP has sharded them; None where the model itself holds them."""
        if self.accelerator.distributed_type != DistributedType.FSDP:
            return None
        return self.accelerator.get_state_dict(self.model_wrapped)

    def compute_loss(
        self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ):
        if num_items_in_batch is not None and self._targets.normalizer is not None:
            num_items_in_batch = self._targets.normalizer
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def _ignore_signals(_: int) -> None:
    """In a loading worker. A terminal sends a signal to all processes; the one that trains ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
