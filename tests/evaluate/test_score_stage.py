"""The stage score: a checkpoint's answers in, metrics and the rows that the report shows out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.data.shards import write_shard
from stages.evaluate.files import (
    FILE_PROMPTS,
    Answer,
    TextLosses,
    answers_folder,
    read_losses,
    write_answers,
    write_losses,
    write_model,
    write_provenance,
)
from stages.evaluate.score import __main__ as stage
from stages.evaluate.score.world import reference_estimates
from tests.evaluate.score_files import LAYERS, ROOT, write_checkpoint, write_world

SIZES = {"train": 20, "validation": 60, "test": 40, "fixed": 3}
OUTPUTS = ["answers.jsonl", "metrics.json", "provenance.json", "resamples.parquet", "samples.txt"]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests/params.yaml", "params.yaml")
    params = load_params()
    evaluate = params.evaluate.model_copy(update={"bootstrap_samples": 20})
    wandb = params.wandb.model_copy(update={"mode": "disabled"})
    data = params.data.model_copy(update={"kinds": 12})
    return params.model_copy(update={"data": data, "evaluate": evaluate, "wandb": wandb})


@pytest.fixture
def rows(params: Params) -> dict[str, list[dict]]:
    rows = write_world(params, SIZES)
    write_checkpoint("pretrain", rows)
    return rows


def read_outputs(name: str) -> tuple[dict, list[dict]]:
    folder = Path("reports/evaluation", name)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == OUTPUTS
    answers = (folder / "answers.jsonl").read_text(encoding="utf-8").split("\n")
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8")), [json.loads(a) for a in answers if a]


def test_references_are_cut_to_a_number_of_sentences(params: Params, rows: dict[str, list[dict]]) -> None:
    short, longer, whole = (reference_estimates(params, number) for number in (2, 6, 100))
    name = "reference_chair_i_rest"
    assert np.isnan(short[name].value) and 0 < longer[name].value < whole[name].value


def test_scores_of_the_built_in_world(params: Params, rows: dict[str, list[dict]]) -> None:
    stage.score_checkpoint("pretrain", params)
    metrics, answers = read_outputs("pretrain")
    values = {name: interval["value"] for name, interval in metrics["intervals"].items()}
    assert (metrics["checkpoint"], metrics["scenes"], metrics["parameters_vision"]) == ("pretrain", 40, 2_000_000)
    assert values["chair_i"] == pytest.approx(values["misnamed"] + values["hallucinated"], abs=2e-5)
    assert 0.2 < values["chair_i"] < 0.5  # every second scene has a true description
    # As the losses were made: 1 nat with the own picture, 1.5 with another one, 2 with a blind one.
    assert (values["loss"], values["swap_gap"], values["blind_gap"], values["two_alternative"]) == (1, 0.5, 1, 1)
    assert values["caption_two_alternative"] == values["caption_blind_gap_object"] == 1
    assert values["pope_accuracy"] == 0.5 and values["pope_yes_ratio"] == 1  # 有 to every question
    assert values["probe_auc"] > 0.7
    assert metrics["intervals"]["bleu"]["low"] is None and 0 < values["bleu"] < 1
    assert [point["at"] for point in metrics["series"]["layer"]] == [str(i + 1) for i in range(LAYERS)]
    layers = [point["intervals"]["probe_auc"]["value"] for point in metrics["series"]["layer"]]
    assert values["probe_auc"] == pytest.approx(np.mean(layers), abs=2e-5)
    assert set(metrics["series"]) == {"sentence", "frequency", "background", "distance", "layer"}
    resamples = pq.read_table("reports/evaluation/pretrain/resamples.parquet")
    assert resamples.num_rows == 20
    assert {"two_alternative", "layer/1/probe_auc", "sentence/1/chair_i"} <= set(resamples.column_names)
    # Train descriptions also name things that are not there, the more the further on; those of test scenes do not.
    assert 0 <= values["reference_chair_i_opening"] < values["reference_chair_i_rest"]
    assert metrics["intervals"]["reference_chair_i_rise"]["low"] is not None
    assert 0 < values["far_first_chair_i_far"] < 1 and "far_first_loss" not in values
    near = next(point for point in metrics["series"]["distance"] if point["at"] == "near")
    assert near["intervals"]["recall"] == metrics["intervals"]["recall_near"]
    texts = [row for row in answers if row["task"] in ("description", "caption", "far_first")]
    assert len(texts) == 2 * (40 + 3) + 40 // 3 and len(answers) == len(texts) + 40 * 6
    for row in texts:
        assert all(row["answer"][m["start"] : m["end"]] == m["word"] for m in row["mentions"])
        assert not any(mention["misnamed"] and mention["supported"] for mention in row["mentions"])
    provenance = json.loads(Path("reports/evaluation/pretrain/provenance.json").read_text(encoding="utf-8"))
    assert provenance == {"training": None, "answer": {"torch": "2.13.0"}}
    samples = Path("reports/evaluation/pretrain/samples.txt").read_text(encoding="utf-8")
    assert samples.startswith("模型参数量：1.000 百万") and samples.count("[Image]: ") == 3


def test_checkpoints_of_earlier_epochs_are_scored_too(params: Params, rows: dict[str, list[dict]]) -> None:
    write_checkpoint("pretrain/epoch-1", rows, judged="validation")
    stage.score_checkpoint("pretrain", params)
    metrics, _ = read_outputs("pretrain/epoch-1")
    assert (metrics["checkpoint"], metrics["split"], metrics["scenes"]) == ("pretrain/epoch-1", "validation", 60)
    assert "probe_auc" not in metrics["intervals"] and "layer" not in metrics["series"]
    last, _ = read_outputs("pretrain")
    assert (last["checkpoint"], last["split"], last["scenes"]) == ("pretrain", "test", 40)


def test_scoring_twice_gives_the_same_files(params: Params, rows: dict[str, list[dict]]) -> None:
    folder = Path("reports/evaluation/pretrain")
    contents = []
    for _ in range(2):
        stage.score_checkpoint("pretrain", params)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]


def test_answers_of_other_data_are_refused(params: Params, rows: dict[str, list[dict]]) -> None:
    write_shard(Path("data/prepared/test-00000.parquet"), rows["test"][1:])
    with pytest.raises(InputError, match=f"row {rows['test'][0]['id']} is not in data/prepared"):
        stage.score_checkpoint("pretrain", params)
    assert not Path("reports/evaluation/pretrain").exists()


def test_hidden_states_of_other_data_are_refused(params: Params, rows: dict[str, list[dict]]) -> None:
    write_shard(Path("data/prepared/validation-00000.parquet"), rows["validation"][1:])
    with pytest.raises(InputError, match="hidden states of 60 validation scenes, where there are 59"):
        stage.score_checkpoint("pretrain", params)


def test_a_checkpoint_without_answers_names_the_stage_to_run(params: Params, rows: dict[str, list[dict]]) -> None:
    with pytest.raises(InputError, match="run `dvc repro answer@long` first"):
        stage.score_checkpoint("sft-long", params)


def test_losses_come_back_as_written(params: Params, rows: dict[str, list[dict]]) -> None:
    for losses in read_losses(answers_folder("pretrain")):
        assert losses.text[losses.starts[0] : losses.ends[0]] == losses.text[:1]
        assert losses.own.dtype == np.float32 and len(losses.own) == len(losses.blind) == len(losses.text) + 1


def write_file_checkpoint() -> None:
    """Answers about two dialogues, and about a photograph of the manifest and one that it does not list."""
    folder = answers_folder("pretrain")
    folder.mkdir(parents=True)
    known, unknown = "熊猫草地-Panda-Grassland", "不在清单里"
    texts = {"description": "一只熊猫和一只狗在草地上。", "caption": "一只猫。"}
    answers = [
        Answer(name, "test", "description", "what?", text, "a dog.") for name, text in (("one", "狗"), ("two", ""))
    ]
    answers += [
        Answer(name, "fixed", task, FILE_PROMPTS[task], text)
        for task, text in texts.items()
        for name in (known, unknown)
    ]
    write_answers(folder, answers)
    bounds = [np.array(values, np.int32) for values in ([0, 1, 2], [1, 2, 2])]
    nats = [np.array(values, np.float32) for values in ([1, 1, 1], [3, 1, 1], [4, 1, 1])]
    nothing = np.zeros(0, np.float32)
    write_losses(
        folder,
        [
            TextLosses("one", "dialogue", "狗。", *bounds, *nats, "two"),
            TextLosses("two", "dialogue", "好。", *bounds, nats[0], nothing, nothing, ""),  # about no picture
        ],
    )
    write_model(folder, "pretrain", 1_000_000, 0)
    write_provenance(folder, None, {})
    picture = {"bytes": b"", "path": "x.png"}
    Path("data/prepared").mkdir(parents=True)
    photographs = [{"id": name, "images": [picture], "scene": "", "texts": []} for name in (known, unknown)]
    write_shard(Path("data/prepared/fixed-00000.parquet"), photographs)
    shutil.copytree(ROOT / "data/eval", "data/eval")


def test_scores_of_files(params: Params) -> None:
    write_file_checkpoint()
    files = params.model_copy(update={"data": params.data.model_copy(update={"source": "jsonl"})})
    stage.score_checkpoint("pretrain", files)
    metrics, answers = read_outputs("pretrain")
    values = {name: interval["value"] for name, interval in metrics["intervals"].items()}
    assert values["swap_gap"] == pytest.approx(2 / 3, abs=1e-5) and values["swap_gap_object"] == 2
    assert values["blind_gap"] == 1 and values["blind_gap_object"] == 3
    assert values["loss"] == 1 and values["length"] == 0.5
    assert values["photograph_recall"] == 1 and values["photograph_chair_i"] == pytest.approx(1 / 3, abs=1e-5)
    assert values["caption_photograph_recall"] == 0 and metrics["series"] == {}
    listed, unknown = (row for row in answers if row["split"] == "fixed" and row["task"] == "description")
    assert [(m["kind"], m["supported"]) for m in listed["mentions"]] == [("熊猫", True), ("狗", False), ("草地", True)]
    assert listed["missed"] == [] and unknown["mentions"] == []


def test_no_model_library_is_imported() -> None:
    code = (
        "import sys, stages.evaluate.score.__main__; "
        "print([name for name in ('torch', 'transformers', 'wandb', 'sklearn', 'sacrebleu') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["sft-shrot"], ["pretrain", "sft-long"]])
def test_a_wrong_checkpoint_is_one_sentence_and_code_2(words: list[str]) -> None:
    command = [sys.executable, "-m", "stages.evaluate.score", *words]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 2 and "usage: python -m stages.evaluate.score CHECKPOINT, one of" in done.stderr
    assert done.stderr.count("\n") == 1
