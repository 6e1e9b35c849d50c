"""What is logged to W&B, read back from its files and from a server on this machine; and runs without a server."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.common.config.params import Params, load_params
from stages.common.tracking.evaluations import summary_of
from stages.common.tracking.names import experiment, training_name
from stages.common.tracking.upload import training_now, waiting
from stages.common.tracking.wandb_files import history, records
from tests.fake_wandb import KEY, USER, FakeWandb

ROOT = Path(__file__).parents[2]
EXPERIMENT, STAGE = "brave-otter", "sft@long"
NAME = "MiniMind-V-SFT-long-Epoch-2-BatchTokens-2048-LearningRate-0.001"

# A tiny decoder on random tokens, trained by the real loop; each step waits, so that a signal arrives during training.
TRAINING = """
import sys, time
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from model.vlm.modeling import Targets, target_loss
from stages.common.data.batches import plan_batches
from stages.common.config.params import load_params
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.training.loop import train

root, mode, wait = sys.argv[1:]
params = load_params(Path(root) / "tests/params.yaml")
params = params.model_copy(update={
    "train": params.train.model_copy(update={"save_steps": 10, "logging_steps": 2, "precision": "fp32"}),
    "wandb": params.wandb.model_copy(update={"mode": mode})})
generator = torch.Generator().manual_seed(0)
rows = [torch.randint(1, 50, (8,), generator=generator).tolist() for _ in range(140)]
parts = rows[:120], rows[120:]
dataset, validation = (SampleDataset([([], row, row) for row in part], None, 0, -1) for part in parts)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16, attention_dropout=0.1))
model.lm_head.weight.requires_grad_(False)
def loss_of(model, batch):
    time.sleep(float(wait))
    hidden = model.model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    targets = Targets.of(batch["labels"])
    hidden = hidden.flatten(0, 1)[targets.positions]
    return target_loss(hidden, targets, model.lm_head, batch["num_items_in_batch"])[0]
plan = plan_batches(dataset.lengths, 32, None, 2, True, 1)
train("sft-long", model, dataset, PackCollate(0, None), plan, params.sft, params, [root], lambda *_: None, loss_of,
    validation=validation)
print("wandb was imported:", "wandb" in sys.modules)
"""

# A run of five points, without any training.
POINTS = """
import sys
from pathlib import Path
from stages.common.config.params import load_params
from stages.common.tracking.runs import start_run

params = load_params(Path(sys.argv[1]) / "tests/params.yaml")
params = params.model_copy(update={"wandb": params.wandb.model_copy(update={"mode": sys.argv[2]})})
state = Path("state")
state.mkdir(exist_ok=True)
with start_run("name", "sft", params, {}, state) as run:
    for step in range(1, 6):
        run.log({"train/global_step": step, "train/loss": 1 / step}, step=step)
"""

EVALUATION = """
import sys
from pathlib import Path
from stages.common.config.params import load_params
from stages.common.tracking.evaluations import log_evaluation

params = load_params(Path(sys.argv[1]) / "tests/params.yaml")
dog = {"word": "狗", "supported": True}
cat = {"word": "猫", "supported": False}
texts = {"prompt": "请描述", "answer": "一只狗和一只猫", "reference": "一只狗"}
rows = [{"id": name, "task": "description", **texts, "mentions": [dog, cat], "missed": ["bird", "tree"]}
    for name in ("street", "beach")]
pictures = {name: Path(f"{name}.png").read_bytes() for name in ("street", "beach")}
intervals = {"recall": {"value": 0.5, "low": 0.4, "high": 0.6}, "chair_i": {"value": None, "low": None, "high": None}}
log_evaluation("pretrain/epoch-1", params, {"parameters": {"total": 7}}, intervals, rows, pictures)
"""


def start(root: Path, script: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Run a script in a subfolder of ``root``, as DVC runs a stage in a temporary copy of the project ``root``."""
    folder = root / "copy"
    folder.mkdir(exist_ok=True, parents=True)
    dropped = ("WANDB_", "DVC_", "GIT_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    dvc = {"DVC_ROOT": str(root), "DVC_EXP_NAME": EXPERIMENT, "DVC_STAGE": STAGE}
    env = {**kept, **dvc, "HOME": str(root), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    command = [sys.executable, *(["-c", script, str(ROOT), *arguments] if script else arguments)]
    return subprocess.Popen(command, cwd=folder, env=env, text=True, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code, out
    return out


def wandb_files(root: Path) -> list[Path]:
    return sorted(root.glob("wandb/*run-*/run-*.wandb"))


def one(path: Path, kind: str) -> Any:
    (found,) = [getattr(record, kind) for record in records(path) if record.HasField(kind)]
    return found


def curve(root: Path) -> list[dict[str, float]]:
    """The loss log as the pipeline itself keeps it, with the rows of a step joined."""
    steps: dict[str, dict[str, float]] = {}
    with (root / "copy/reports/loss/sft-long.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = {key: float(value) for key, value in row.items() if value}
            steps[row["step"]] = steps.get(row["step"], {}) | values
    return list(steps.values())


def logged(points: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Points of a history in the form of ``curve``."""
    names = {"train/global_step": "step", "eval/loss": "validation_loss"}
    columns = ("step", "epoch", "target_tokens", "loss", "learning_rate", "grad_norm", "validation_loss")
    renamed = [{names.get(key, key.removeprefix("train/")): value for key, value in row.items()} for row in points]
    return [{column: row[column] for column in columns if column in row} for row in renamed]


@pytest.fixture(scope="module", autouse=True)
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, subprocess.Popen[str]]]]:
    """Online runs, and an upload, for which nobody listens, or whose server never answers; started first: they take
    ten seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        started = {}
        for name, server in (("refused", closed), ("silent", silent)):
            root = tmp_path_factory.mktemp(name)
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            started[name] = (root, start(root, POINTS, "online", WANDB_BASE_URL=url, WANDB_API_KEY=KEY))
        root = tmp_path_factory.mktemp("upload")
        finish(start(root, POINTS, "offline"))
        login = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}
        started["upload"] = (root, start(root, "", "-m", "stages.common.tracking.upload", **login))
        yield started
        for _, process in started.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """(project, printed text) of a training run in each mode that needs no server."""
    roots = {mode: tmp_path_factory.mktemp(mode) for mode in ("offline", "disabled")}
    processes = {mode: start(root, TRAINING, mode, "0") for mode, root in roots.items()}
    return {mode: (roots[mode], finish(process)) for mode, process in processes.items()}


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "tests/params.yaml")


def test_a_training_run_has_names_and_params(trained: dict[str, tuple[Path, str]], params: Params) -> None:
    (file,) = wandb_files(trained["offline"][0])
    run = one(file, "run")
    found = (run.project, run.display_name, run.run_group, run.job_type)
    assert found == (params.wandb.project, NAME, EXPERIMENT, "sft")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    sections = json.loads(params.model_dump_json())
    assert {key: value for key, value in config.items() if key in sections and key not in ("train", "wandb")} == {
        key: value for key, value in sections.items() if key not in ("train", "wandb")
    }
    assert config["train"]["logging_steps"] == 2 and config["wandb"]["mode"] == "offline"
    assert config["dvc"] == {"stage": STAGE}
    assert 0 < config["parameters"]["trainable"] < config["parameters"]["total"]


def test_the_history_of_a_run_is_the_loss_curve(trained: dict[str, tuple[Path, str]]) -> None:
    root, _ = trained["offline"]
    (file,) = wandb_files(root)
    points = list(history(file))
    assert logged(points) == curve(root)
    assert [point["_step"] for point in points] == [point["train/global_step"] for point in points]
    assert [point["train/epoch"] for point in points if "eval/loss" in point] == [0, 1, 2]
    assert all(point["train/samples_per_second"] > 0 < point["train/target_tokens_per_second"] for point in points[1:])
    axes = {m.metric.glob_name: m.metric.step_metric for m in records(file) if m.HasField("metric")}
    assert axes["train/*"] == axes["eval/*"] == "train/global_step"
    assert one(file, "exit").exit_code == 0


def test_no_output_depends_on_the_mode(trained: dict[str, tuple[Path, str]]) -> None:
    curves = [(root / "copy/reports/loss/sft-long.csv").read_bytes() for root, _ in trained.values()]
    assert curves[0] == curves[1]


def test_disabled_mode_imports_no_wandb_and_writes_no_files(trained: dict[str, tuple[Path, str]]) -> None:
    root, out = trained["disabled"]
    assert "wandb was imported: False" in out
    assert not list(root.rglob("*wandb*"))


def test_runs_are_kept_outside_the_copy_that_dvc_deletes(trained: dict[str, tuple[Path, str]]) -> None:
    root, _ = trained["offline"]
    assert len(wandb_files(root)) == 1
    assert not list((root / "copy").rglob("*wandb*"))


def test_a_killed_training_continues_the_same_run_and_is_uploaded_completely(tmp_path: Path) -> None:
    often = {"WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "0.2"}  # wandb's own 15 seconds are too long for a test
    killed = start(tmp_path, TRAINING, "offline", "0.05", **often)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".resume/sft-long-*/checkpoint-20/loss_log.json")):
        assert time.monotonic() < deadline and killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    time.sleep(0.5)  # for steps after the saved state, which are repeated
    assert len(list(training_now(tmp_path / ".resume"))) == 1
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert "resuming from step" in finish(start(tmp_path, TRAINING, "offline", "0"))

    files = wandb_files(tmp_path)
    first, second = (list(history(file)) for file in files)
    assert first and second
    assert len({one(file, "run").run_id for file in files}) == 1
    assert logged(first + second) == curve(tmp_path)
    assert first[-1]["_step"] < second[0]["_step"] and curve(tmp_path)[-1]["step"] == 60

    with FakeWandb() as server:
        upload = ["-m", "stages.common.tracking.upload"]
        login = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        printed = finish(start(tmp_path, "", *upload), 2)
        assert NAME in printed and EXPERIMENT in printed
        assert printed.splitlines()[-1].startswith("error: not logged in")
        assert f"uploading to {server.url} as {USER}" in finish(start(tmp_path, "", *upload, **login))
        assert "nothing to upload" in finish(start(tmp_path, "", *upload, **login))
    (run,) = server.runs.values()
    assert (run.sent["displayName"], run.sent["groupName"], run.sent["jobType"]) == (NAME, EXPERIMENT, "sft")
    assert logged([run.history[line] for line in sorted(run.history)]) == curve(tmp_path)
    assert run.exit_codes == [1, 0]


@pytest.mark.parametrize("server", ["refused", "silent"])
def test_without_a_server_a_run_is_kept_offline(
    unreachable: dict[str, tuple[Path, subprocess.Popen[str]]], server: str
) -> None:
    root, process = unreachable[server]
    started = time.monotonic()
    (warning,) = [line for line in finish(process).splitlines() if line.startswith("warning: W&B: ")]
    assert time.monotonic() - started < 30
    assert "make wandb-sync" in warning and KEY not in warning
    (file,) = wandb_files(root)
    assert file.parent.name.startswith("offline-run-")
    assert [point["train/global_step"] for point in history(file)] == [1, 2, 3, 4, 5]


def test_without_an_account_the_user_is_not_asked_for_one(tmp_path: Path) -> None:
    """Even in a terminal."""
    terminal, stdin = pty.openpty()
    try:
        env = {"HOME": str(tmp_path), "DVC_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        command = [sys.executable, "-c", POINTS, str(ROOT), "online"]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, stdin=stdin, stdout=stdin, stderr=subprocess.PIPE, text=True, timeout=30
        )
    finally:
        os.close(stdin)
        os.close(terminal)
    assert done.returncode == 0
    assert done.stderr.count("warning: W&B: ") == 1 and "not logged in" in done.stderr
    assert len(wandb_files(tmp_path)) == 1


def test_an_online_run_started_again_adds_what_the_server_does_not_have(tmp_path: Path) -> None:
    with FakeWandb() as server:
        login = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        finish(start(tmp_path, POINTS, "online", **login))
        (run,) = server.runs.values()
        steps = [line["_step"] for line in run.history.values()]
        assert steps == [1, 2, 3, 4, 5]
        for line in (3, 4):
            del run.history[line]
        out = finish(start(tmp_path, POINTS, "online", **login))
        assert [run.history[line]["_step"] for line in sorted(run.history)] == steps
        assert len(server.runs) == 1 and "W&B: http" in out and KEY not in out


def test_an_evaluation_shows_pictures_and_answers(tmp_path: Path) -> None:
    colours = {"street": (255, 0, 0), "beach": (0, 0, 255)}
    (tmp_path / "copy").mkdir()
    for name, colour in colours.items():
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"copy/{name}.png")
    finish(start(tmp_path, EVALUATION))
    (file,) = wandb_files(tmp_path)
    run = one(file, "run")
    assert (run.display_name, run.job_type) == ("MiniMind-V-Evaluate-pretrain-epoch-1", "evaluate")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (config["checkpoint"], config["parameters"]) == ("pretrain/epoch-1", {"total": 7})
    (point,) = history(file)
    assert point["eval/answers.nrows"] == 2
    manifest = one(file, "artifact").manifest.contents
    kept = {entry.path: Path(entry.local_path) for entry in manifest}
    assert all(path.is_relative_to(tmp_path / "wandb") for path in kept.values())
    table = json.loads(kept["eval/answers.table.json"].read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["picture"] for row in rows] == ["street", "beach"]
    for row in rows:
        assert Image.open(kept[row["image"]["path"]]).getpixel((0, 0)) == colours[row["picture"]]
        assert (row["checkpoint"], row["answer"], row["reference"]) == ("pretrain/epoch-1", "一只狗和一只猫", "一只狗")
        assert (row["wrong mentions"], row["missed"]) == ("猫", "bird, tree")
    summaries = [item for record in records(file) if record.HasField("summary") for item in record.summary.update]
    summary = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in summaries}
    found = {key: value for key, value in summary.items() if key.startswith("eval/") and "answers" not in key}
    assert found == {"eval/recall": 0.5, "eval/recall_low": 0.4, "eval/recall_high": 0.6}

    with FakeWandb() as server:
        login = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        finish(start(tmp_path, "", "-m", "stages.common.tracking.upload", **login))
    for path, local in kept.items():
        assert server.artifact_files[path] == local.read_bytes()


def test_a_picture_that_cannot_be_read_does_not_end_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for name in ("street", "beach"):
        (tmp_path / f"copy/{name}.png").write_bytes(b"no picture")
    assert finish(start(tmp_path, EVALUATION)).count("warning: W&B: ") == 1


def test_metrics_that_are_not_defined_are_left_out() -> None:
    assert summary_of({"loss": {"value": 1.5, "low": None, "high": None}}) == {"eval/loss": 1.5}


def test_names_are_those_of_minimind_v(params: Params) -> None:
    loop = params.pretrain.model_copy(update={"batch_tokens": None, "batch_size": 16, "learning_rate": 4e-4})
    assert training_name("pretrain", loop) == "MiniMind-V-Pretrain-Epoch-1-BatchSize-16-LearningRate-0.0004"
    assert training_name("vision", params.vision) == "MiniMind-V-Vision-Epoch-2-BatchSize-32-LearningRate-0.001"
    assert training_name("sft-long", params.sft) == NAME


def test_runs_without_an_experiment_are_grouped_by_branch_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert experiment() == tmp_path.name
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "trunk"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "m"], check=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert experiment() == f"trunk-{commit.strip()}"
    monkeypatch.setenv("DVC_EXP_NAME", EXPERIMENT)
    assert experiment() == EXPERIMENT


def test_an_upload_without_a_server_ends(unreachable: dict[str, tuple[Path, subprocess.Popen[str]]]) -> None:
    last = finish(unreachable["upload"][1], 2).splitlines()[-1]
    assert last.startswith("error: http://127.0.0.1:9: ") and KEY not in last


def test_nothing_to_upload_is_no_error(tmp_path: Path) -> None:
    assert waiting(tmp_path / "wandb") == []
    assert "nothing to upload" in finish(start(tmp_path, "", "-m", "stages.common.tracking.upload"))


def test_a_truncated_file_is_read_up_to_its_end(trained: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    (file,) = wandb_files(trained["offline"][0])
    complete = file.read_bytes()
    points = list(history(file))
    truncated, counts = tmp_path / file.name, []
    for length in (0, 3, 7, 20, len(complete) // 2, len(complete) - 9):
        truncated.write_bytes(complete[:length])
        found = list(history(truncated))
        assert found == points[: len(found)]
        counts.append(len(found))
    assert counts[:4] == [0] * 4 and 0 < counts[4] < counts[5] <= len(points)
