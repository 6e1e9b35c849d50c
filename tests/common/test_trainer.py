"""What a step's loss is divided by, and which loss is logged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from stages.common.data.batches import BatchPlan
from stages.common.data.chat import IGNORED
from stages.common.data.packing import SampleDataset
from stages.common.training.trainer import PlannedTrainer, TargetCounts

# Ids and the number of targets at the end: a sample with few targets, one with many, and two in between.
SAMPLES = [([1, 5, 6, 7, 8, 9, 10, 11], 1), ([1, 9, 3, 4, 12, 13, 2, 6], 7), ([1, 3, 3, 7], 2), ([1, 8, 2, 5], 3)]
PLAN = BatchPlan([[0], [1, 2], [3], [0, 3]], [0])


def collate(items: list[dict]) -> dict[str, torch.Tensor]:
    longest = max(len(item["input_ids"]) for item in items)

    def rows(key: str, fill: int) -> torch.Tensor:
        return torch.tensor([[*item[key], *[fill] * (longest - len(item[key]))] for item in items])

    return {"input_ids": rows("input_ids", 0), "labels": rows("labels", IGNORED)}


def planned_trainer(folder: Path, equal_weights: bool) -> PlannedTrainer:
    dataset = SampleDataset([([], ids, [IGNORED] * (len(ids) - n) + ids[-n:]) for ids, n in SAMPLES], None, 0, -1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=14, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(PLAN),
        learning_rate=0.0,  # so that every step has the loss of the same model
        logging_steps=2,
        use_cpu=True,
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        save_strategy="no",
    )
    return PlannedTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=dataset,
        eval_plan=BatchPlan([[1], [3, 2]], [0]),
        data_collator=collate,
        plan=PLAN,
        targets=TargetCounts.of(PLAN, dataset.targets, equal_weights),
    )


def nats_of(model: LlamaForCausalLM, dataset: SampleDataset, batch: list[int]) -> tuple[torch.Tensor, int]:
    """The summed cross-entropy of the targets of a batch, and how many there are."""
    inputs = collate([dataset[index] for index in batch])
    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs["labels"][:, 1:].flatten(), reduction="sum")
    return loss, int((inputs["labels"][:, 1:] != IGNORED).sum())


def gradient_of_step(trainer: PlannedTrainer, batch: list[int]) -> torch.Tensor:
    trainer.model.zero_grad()
    inputs = collate([trainer.train_dataset[index] for index in batch])
    trainer.training_step(trainer.model, inputs, inputs["labels"][:, 1:].ne(IGNORED).sum())
    return trainer.model.lm_head.weight.grad.clone()


@pytest.mark.parametrize("batch", PLAN.batches)
@pytest.mark.parametrize("equal_weights", [True, False])
def test_gradient_of_a_step(tmp_path: Path, equal_weights: bool, batch: list[int]) -> None:
    """With equal weights the nats of every step are divided by the same number; else by the step's targets."""
    trainer = planned_trainer(tmp_path, equal_weights)
    found = gradient_of_step(trainer, batch)
    nats, count = nats_of(trainer.model, trainer.train_dataset, batch)
    trainer.model.zero_grad()
    nats.backward()
    normalizer = (1 + 7 + 2 + 3 + 1 + 3) / 4 if equal_weights else count
    assert torch.allclose(found, trainer.model.lm_head.weight.grad / normalizer, atol=1e-6)


def test_a_token_has_the_same_gradient_in_a_sparse_and_a_dense_batch(tmp_path: Path) -> None:
    """The first sample's only target, alone and beside the seven of another sample."""
    trainer = planned_trainer(tmp_path, True)
    alone = gradient_of_step(trainer, [0])
    beside = gradient_of_step(trainer, [0, 1]) - gradient_of_step(trainer, [1])
    assert alone.abs().max() > 1e-3
    assert torch.allclose(alone, beside, atol=1e-6)


@pytest.mark.parametrize("equal_weights", [True, False])
def test_logged_loss_is_nats_per_target_token(tmp_path: Path, equal_weights: bool) -> None:
    """Over all targets since the last point, or, without equal weights, the mean of the steps' means."""
    trainer = planned_trainer(tmp_path, equal_weights)
    with torch.no_grad():
        steps = [nats_of(trainer.model.eval(), trainer.train_dataset, batch) for batch in PLAN.batches]
    trainer.train()
    logged = [point["loss"] for point in trainer.state.log_history if "loss" in point]
    expected = []
    for pair in (steps[:2], steps[2:]):
        if equal_weights:
            expected.append(float(sum(nats for nats, _ in pair)) / sum(count for _, count in pair))
        else:
            expected.append(sum(float(nats) / count for nats, count in pair) / 2)
    assert logged == pytest.approx(expected, rel=1e-4)


def test_validation_loss_is_nats_per_target_token(tmp_path: Path) -> None:
    """Not the mean of the batches' means."""
    trainer = planned_trainer(tmp_path, False)
    with torch.no_grad():
        batches = [nats_of(trainer.model.eval(), trainer.eval_dataset, batch) for batch in ([1], [3, 2])]
    trainer.model.train()  # as between two epochs
    trainer.model.model.layers[0].self_attn.attention_dropout = 0.5
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(float(sum(nats for nats, _ in batches)) / 12, rel=1e-5)
    assert trainer.state.log_history[-1]["eval_loss"] == metrics["eval_loss"]


def test_target_counts() -> None:
    counts = TargetCounts.of(PLAN, [1, 7, 2, 3], True)
    assert counts.after.tolist() == [0, 1, 10, 13, 17] and counts.normalizer == 17 / 4
    assert TargetCounts.of(PLAN, [1, 7, 2, 3], False).normalizer is None


def test_without_labels_nothing_is_counted() -> None:
    """As in contrastive training of the vision encoder."""
    counts = TargetCounts.of(PLAN, (), True)
    assert counts.after.tolist() == [0] * 5 and counts.normalizer is None
