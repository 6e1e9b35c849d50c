"""Several processes for one stage: the same results, messages and exit codes as with one."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from stages.common.training.launch import cause

ROOT = Path(__file__).parents[2]

# A stage that trains a tiny model on random pictures and texts, some of which have no picture.
STAGE = """
import os, sys, time
from pathlib import Path
import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig
from model.vlm.attention import use_packed_attention
from model.vlm.configuration import vlm_config
from model.vlm.modeling import VlmForConditionalGeneration
from stages.common.data.batches import plan_batches
from stages.common.core.errors import InputError
from stages.common.core.provenance import write_provenance
from stages.common.core.stage import run_stage
from stages.common.data.features import CachedFeatures
from stages.common.training.launch import run_distributed
from stages.common.data.packing import PackCollate, SampleDataset, pack_length
from stages.common.config.params import load_params
from stages.common.training.loop import train

def save(model, weights, provenance):
    model.save_pretrained("out", state_dict=weights)
    write_provenance(Path("out"), provenance)

class Slow(SampleDataset):
    def __getitem__(self, index):
        time.sleep(float(sys.argv[2]))
        return super().__getitem__(index)

def main():
    fault = sys.argv[1]
    if fault == "input" or fault == "input of one" and os.environ["RANK"] == "1":
        raise InputError("data.txt: row 3 is empty; fill it")
    if fault == "input of one":
        time.sleep(60)
    if fault == "gpus":
        raise InputError("sees " + os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    if fault == "bug" and os.environ["RANK"] == "1":
        os._exit(7)
    params = load_params()
    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = VlmForConditionalGeneration(vlm_config(
        CLIPVisionConfig(**vision, image_size=16, patch_size=8),
        LlamaConfig(**text, num_key_value_heads=1, vocab_size=50), "linear", 3))
    model.model.vision_tower.requires_grad_(False)
    rng = np.random.default_rng(0)
    samples = []
    for number in range(160):
        counted = 4 + (rng.integers(46) + np.arange(5 + number % 20)) % 46  # a text that can be learnt: it counts
        ids = [1, *([3] if number % 9 else []), *counted.tolist()]
        samples.append(([number] if number % 9 else [], ids, [-100] * 4 + ids[4:]))
    pictures = CachedFeatures(rng.normal(size=(160, 4, 8)).astype(np.float16))
    dataset, validation = Slow(samples[:140], pictures, 4, 3), SampleDataset(samples[140:], pictures, 4, 3)
    plan = plan_batches(dataset.lengths, 64, None, 2, True, 1)
    use_packed_attention(model)
    loop = params.sft.model_copy(update={"batch_tokens": 64})
    train("tiny", model, dataset, PackCollate(0, pack_length(64)), plan, loop, params, [],
        lambda epochs, weights, provenance: save(model, weights, provenance), validation=validation)

if __name__ == "__main__":
    run_stage(run_distributed(main, "tiny_stage"))
"""


def prepare(folder: Path, processes: int, **train: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "tiny_stage.py").write_text(STAGE, encoding="utf-8")
    params = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
    params["wandb"]["mode"] = "disabled"
    params["train"] |= {"processes": processes, "save_steps": 10, "logging_steps": 2, "precision": "fp32"} | train
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def launched(command: list[str], folder: Path, gpus: str | None = None) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DVC_ROOT": str(folder)}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    if gpus is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpus
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, text=True, stdout=pipe, stderr=pipe, start_new_session=True)


def start(
    folder: Path, processes: int, fault: str = "", wait: float = 0.0, gpus: str | None = None, **train: object
) -> subprocess.Popen[str]:
    prepare(folder, processes, **train)
    return launched([sys.executable, "-m", "tiny_stage", fault, str(wait)], folder, gpus)


def run(folder: Path, processes: int, fault: str = "", **options: object) -> tuple[int, str, str]:
    process = start(folder, processes, fault, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def curve(folder: Path, column: str = "loss") -> list[dict[str, float]]:
    """The rows that have a value of ``column``."""
    with (folder / "reports/loss/tiny.csv").open(encoding="utf-8") as file:
        return [{name: float(value or 0) for name, value in row.items()} for row in csv.DictReader(file) if row[column]]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    code, _, err = run(folder, 1)
    assert code == 0, err
    return folder


def assert_same_run(folder: Path, other: Path) -> None:
    rows, others = curve(folder), curve(other)
    assert [row["target_tokens"] for row in rows] == [row["target_tokens"] for row in others]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in others], rel=1e-4)
    assert rows[0]["loss"] > rows[-1]["loss"] + 0.3  # it has learnt something
    (before, *_, after), expected = (curve(root, "validation_loss") for root in (folder, other))
    assert before["epoch"] == 0 and after["epoch"] == 2 and len(expected) == 3
    assert before["validation_loss"] > after["validation_loss"] + 0.3
    for row, other_row in zip(curve(folder, "validation_loss"), expected, strict=True):
        assert row == pytest.approx(other_row, rel=1e-4)
    assert_same_weights(folder, other)


def assert_same_weights(folder: Path, other: Path) -> None:
    weights, expected = (load_file(root / "out/model.safetensors") for root in (folder, other))
    assert weights.keys() == expected.keys()
    assert all(torch.allclose(weights[name], expected[name], atol=1e-5) for name in expected)


def test_several_processes_have_the_loss_curve_of_one(single: Path, tmp_path: Path) -> None:
    """With the same global batch. Of three processes, some have no sample in some batches."""
    code, out, err = run(tmp_path, 3)
    assert code == 0, err
    assert out.count("tiny: ") == 1  # only the main process prints
    assert json.loads((tmp_path / "out/provenance.json").read_text(encoding="utf-8"))["processes"] == 3
    assert_same_run(tmp_path, single)


def test_interrupted_processes_resume(single: Path, tmp_path: Path) -> None:
    """Including the weights, whose names in files differ from those in the model."""
    process = start(tmp_path, 2, wait=0.02)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".resume/tiny-*/checkpoint-*/loss_log.json")):
        assert time.monotonic() < deadline and process.poll() is None, "no state was saved"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count("interrupted: run the same command again") == 1 and "Traceback" not in err
    assert not (tmp_path / "out").exists()
    code, out, err = run(tmp_path, 2)
    assert code == 0, err
    assert out.count("resuming from step") == 1
    assert_same_weights(tmp_path, single)


def test_two_machines_as_documented(single: Path, tmp_path: Path) -> None:
    """Two torchruns that share one folder."""
    prepare(tmp_path, 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *rendezvous]
    machines = [launched([*command, "-m", "tiny_stage", "", "0"], tmp_path) for _ in range(2)]
    try:
        outputs = [machine.communicate(timeout=120) for machine in machines]
    finally:
        for machine in machines:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert "".join(out for out, _ in outputs).count("tiny: ") == 1
    assert_same_run(tmp_path, single)


@pytest.mark.parametrize("other", [-signal.SIGTERM, 1, 130])
def test_bad_input_is_the_cause_whatever_the_other_exit_code(tmp_path: Path, other: int) -> None:
    error_file = tmp_path / "error.json"
    message = {"message": "data.txt: row 3 is empty", "extraInfo": {"timestamp": str(int(time.time()))}}
    error_file.write_text(json.dumps({"message": message}))
    nothing = str(tmp_path / "nothing.json")
    failures = {0: ProcessFailure(0, 1, other, nothing), 1: ProcessFailure(1, 2, 2, str(error_file))}
    for failure in failures.values():
        failure.timestamp = 1_700_000_000
    assert cause(ChildFailedError("stage", failures)) is failures[1]


def test_a_process_that_a_signal_ended_is_not_the_cause(tmp_path: Path) -> None:
    failures = {rank: ProcessFailure(rank, 1, code, str(tmp_path / "none")) for rank, code in ((0, -15), (1, 1))}
    failures[0].timestamp = failures[1].timestamp = 1_700_000_000
    assert cause(ChildFailedError("stage", failures)) is failures[1]
    assert cause(ChildFailedError("stage", {0: failures[0]})) is failures[0]


@pytest.mark.parametrize("fault", ["input", "input of one"])
def test_bad_input_is_printed_once(tmp_path: Path, fault: str) -> None:
    """Also where a process with a lower rank is ended before it has found any."""
    code, _, err = run(tmp_path, 2, fault)
    assert code == 2
    assert err.count("row 3 is empty") == 1 and "error: data.txt: row 3 is empty; fill it" in err
    assert "Traceback" not in err


def test_a_process_that_dies_ends_them_all(tmp_path: Path) -> None:
    code, _, _ = run(tmp_path, 2, "bug")
    assert code == 7
    assert not (tmp_path / "out").exists()


def test_a_config_file_of_accelerate_is_used(single: Path, tmp_path: Path) -> None:
    """A file that sets one process; bad input has exit code 2 there as well."""
    config = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "use_cpu": True, "num_processes": 1}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    code, _, err = run(tmp_path, 1, accelerate_config="one.yaml")
    assert code == 0, err
    assert_same_run(tmp_path, single)
    code, _, err = run(tmp_path, 1, "input", accelerate_config="one.yaml")
    assert code == 2 and err.count("error: data.txt: row 3 is empty; fill it") == 1


def test_a_missing_config_file_has_a_message_of_one_sentence(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, 2, accelerate_config="fsdp.yaml")
    assert code == 2
    assert "train.accelerate_config: there is no file fsdp.yaml; write it with" in err and "Traceback" not in err


@pytest.mark.parametrize(("gpus", "seen"), [(None, "0"), ("2,3", "2"), ("", "")])
def test_one_process_sees_one_gpu(gpus: str | None, seen: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, stages; print(os.environ['CUDA_VISIBLE_DEVICES'])"]
    out, _ = launched(command, tmp_path, gpus).communicate(timeout=60)
    assert out == f"{seen}\n"


def test_several_processes_see_all_gpus(tmp_path: Path) -> None:
    _, _, err = run(tmp_path, 2, "gpus", gpus="2,3")
    assert "error: sees 2,3\n" in err
