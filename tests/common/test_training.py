"""Interrupted training resumes from its last saved state, and ends with the weights of an uninterrupted run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.common.core.provenance import provenance

ROOT = Path(__file__).parents[2]

# A tiny decoder on random tokens, trained by the real loop; each step waits, so that a signal arrives during training.
SCRIPT = """
import shutil, signal, sys, time
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from model.vlm.modeling import Targets, target_loss
from stages.common.data.batches import plan_batches
from stages.common.core.provenance import write_provenance
from stages.common.core.stage import run_stage
from stages.common.config.params import load_params
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.training.loop import train

def main():
    params = load_params(Path(sys.argv[1]) / "tests/params.yaml")
    params = params.model_copy(update={
        "train": params.train.model_copy(update={"save_steps": 10, "logging_steps": 2, "precision": "fp32"}),
        "wandb": params.wandb.model_copy(update={"mode": "disabled"})})
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, 50, (8,), generator=generator).tolist() for _ in range(140)]
    parts = rows[:120], rows[120:]
    dataset, validation = (SampleDataset([([], row, row) for row in part], None, 0, -1) for part in parts)
    if sys.argv[3] == "workers":
        SampleDataset.decodes = True
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16, attention_dropout=0.1))
    steps = []
    def loss_of(model, batch):
        if sys.argv[3] == "nan":
            return (model.model.embed_tokens.weight * float("nan")).sum()
        time.sleep(float(sys.argv[2]))
        steps.append(None)
        while sys.argv[3] == "held" and len(steps) == 15 and not Path("go on").exists():
            time.sleep(0.05)
        hidden = model.model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
        targets = Targets.of(batch["labels"])
        hidden = hidden.flatten(0, 1)[targets.positions]
        return target_loss(hidden, targets, model.lm_head, batch["num_items_in_batch"])[0]
    plan = plan_batches(dataset.lengths, 32, None, 2, True, 1)
    def save_tiny(folder, weights, provenance):
        model.save_pretrained(folder, state_dict=weights)
        write_provenance(folder, provenance)
    def save(epochs, weights, provenance):
        if sys.argv[3] == "full disk":
            raise OSError("No space left on device")
        if sys.argv[3] == "interrupt":
            signal.raise_signal(signal.SIGINT)
        save_tiny(Path("out"), weights, provenance)
        for epoch in epochs:
            shutil.copytree(epoch, Path("out") / epoch.name)
    train("tiny", model, dataset, PackCollate(0, None), plan, params.language, params, [sys.argv[1]], save, loss_of,
        save_tiny, None if sys.argv[3] == "no validation" else validation)

run_stage(main)
"""


def start(folder: Path, wait: float, fault: str = "", root: Path | None = None) -> subprocess.Popen[str]:
    """In ``folder``; saved states are in ``root``, or there as well."""
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DVC_ROOT": str(root or folder)}
    command = [sys.executable, "-c", SCRIPT, str(ROOT), str(wait), fault]
    return subprocess.Popen(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(folder: Path) -> str:
    code, out, err = end(folder, "")
    assert code == 0, err
    return out


def end(folder: Path, fault: str) -> tuple[int, str, str]:
    process = start(folder, 0.0, fault)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_state(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(".resume/tiny-*/checkpoint-*/loss_log.json")):
        assert time.monotonic() < deadline, "no state was saved"
        time.sleep(0.05)


def result(folder: Path) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    rows = [line.split(",") for line in (folder / "reports/loss/tiny.csv").read_text(encoding="utf-8").splitlines()]
    return load_file(folder / "out/model.safetensors"), rows


def assert_same(folder: Path, uninterrupted: Path, ignore_loss: bool = False) -> None:
    (weights, rows), (expected, expected_rows) = result(folder), result(uninterrupted)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    if ignore_loss:
        rows, expected_rows = ([row[:3] + row[4:] for row in found] for found in (rows, expected_rows))
    assert rows == expected_rows
    epochs = [load_file(root / "out/epoch-1/model.safetensors") for root in (folder, uninterrupted)]
    assert all(torch.equal(epochs[0][name], epochs[1][name]) for name in epochs[1])
    assert not list(folder.glob(".resume/tiny-*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert "resuming" not in finish(folder)
    last, first = (load_file(folder / place / "model.safetensors") for place in ("out", "out/epoch-1"))
    assert not torch.equal(last["model.embed_tokens.weight"], first["model.embed_tokens.weight"])
    return folder


def test_provenance_is_what_was_used(uninterrupted: Path) -> None:
    for folder in ("out", "out/epoch-1"):
        found = json.loads((uninterrupted / folder / "provenance.json").read_text(encoding="utf-8"))
        assert found == provenance("fp32", False, 1)


def test_a_killed_run_resumes(uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, 0.1)
    wait_for_state(tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out").exists()
    assert "resuming from step" in finish(tmp_path)
    assert_same(tmp_path, uninterrupted)


def test_an_interrupted_run_exits_with_130_and_resumes(uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, 0.1)
    wait_for_state(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command again" in err and "Traceback" not in err
    finish(tmp_path)
    # The state was saved between two points of the curve: the point after it averages fewer steps.
    assert_same(tmp_path, uninterrupted, ignore_loss=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_is_handled_by_the_one_that_trains(
    uninterrupted: Path, tmp_path: Path, number: int
) -> None:
    """As a terminal sends Ctrl-C, also to the loading workers."""
    process = start(tmp_path, 0.1, "workers")
    wait_for_state(tmp_path)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command again" in err and "Traceback" not in err
    finish(tmp_path)
    assert_same(tmp_path, uninterrupted, ignore_loss=True)


@pytest.mark.parametrize(("fault", "code"), [("full disk", 1), ("interrupt", 130)])
def test_saved_states_are_kept_until_the_model_is_saved(
    uninterrupted: Path, tmp_path: Path, fault: str, code: int
) -> None:
    assert end(tmp_path, fault)[0] == code
    assert not (tmp_path / "out").exists() and not (tmp_path / "reports").exists()
    assert "resuming from step 60" in finish(tmp_path)
    assert_same(tmp_path, uninterrupted)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    code, _, err = end(tmp_path, "nan")
    assert code == 2
    assert "error: params.yaml: tiny.learning_rate: training diverged: at step 2 the loss is nan" in err


WAITING = "another process is training tiny here; waiting for it"


def test_a_second_process_waits_and_trains_again(uninterrupted: Path, tmp_path: Path) -> None:
    """Two workers of DVC's queue, each in a copy of the project, with the states of both in the project's folder."""
    copies = [tmp_path / "first", tmp_path / "second"]
    first = start(copies[0], 0.0, "held", root=tmp_path)
    wait_for_state(tmp_path)
    second = start(copies[1], 0.0, root=tmp_path)
    assert second.stdout.readline().strip() == WAITING
    (copies[0] / "go on").touch()
    outputs = [process.communicate(timeout=300) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert all(WAITING not in out for out, _ in outputs)  # it is printed once
    assert "resuming" not in outputs[1][0] and "60 steps" in outputs[1][0]
    for copy in copies:
        assert_same(copy, uninterrupted)
    assert [path.name for path in (tmp_path / ".resume").iterdir()] == ["locks"]


def test_a_waiting_process_resumes_when_the_other_is_killed(uninterrupted: Path, tmp_path: Path) -> None:
    first = start(tmp_path, 0.0, "held")
    wait_for_state(tmp_path)
    second = start(tmp_path, 0.0)
    assert second.stdout.readline().strip() == WAITING
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert "resuming from step" in out
    assert_same(tmp_path, uninterrupted)


def test_the_log_ends_with_the_last_step(uninterrupted: Path) -> None:
    _, rows = result(uninterrupted)
    assert rows[0] == ["step", "epoch", "target_tokens", "loss", "learning_rate", "grad_norm", "validation_loss"]
    assert [row[:2] for row in rows[-2:]] == 2 * [["60", "2.0"]]


def test_the_validation_loss_is_logged_before_training_and_after_every_epoch(uninterrupted: Path) -> None:
    _, rows = result(uninterrupted)
    found = [row for row in rows[1:] if row[6]]
    assert [row[:6] for row in found] == [
        ["0", "0.0", "0", "", "", ""],
        ["30", "1.0", "840", "", "", ""],
        ["60", "2.0", "1680", "", "", ""],
    ]
    assert len({row[6] for row in found}) == 3 and all(3 < float(row[6]) < 5 for row in found)
    assert [int(row[0]) for row in rows[1:] if not row[6]] == list(range(2, 61, 2))


def test_training_is_the_same_without_a_validation_loss(uninterrupted: Path, tmp_path: Path) -> None:
    """It draws no random numbers; the decoder has dropout."""
    code, _, err = end(tmp_path, "no validation")
    assert code == 0, err
    (weights, rows), (expected, expected_rows) = result(tmp_path), result(uninterrupted)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert rows == [row for row in expected_rows if row[6] in ("", "validation_loss")]
