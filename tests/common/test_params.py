"""params.yaml: a mistake ends the run at once with one sentence that names the parameter."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from stages.common.config.params import load_params

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "tests/params.yaml").read_text(encoding="utf-8")


def change(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


WRONG = [
    (lambda: TEXT + "sfft: 1\n", "sfft is not a parameter"),
    (lambda: change("  fit: sentence", "  fitt: sentence"), "sft.fit"),
    (lambda: change("seed: 1", "sed: 1"), "seed is missing"),
    (
        lambda: change("after: sft-short", "after: sft-shrt"),
        "sft.phases.medium.after: no checkpoint is called 'sft-shrt'",
    ),
    (lambda: change("after: sft-short", "after: sft-long"), "sft.phases.medium.after: the phases form a cycle"),
    (lambda: change("  description_share: 0.25", "  description_share: 0.6"), "question_share + description_share"),
    (lambda: change("      max_len: 24", "      max_len: -24"), "sft.phases.short.max_len is -24"),
    (
        lambda: change("      max_len: 24", "      max_len: 36").replace("      fit: null", "      fit: cut", 1),
        "sft.phases.short.max_len: 36 tokens leave no room for text: with fit cut they include the 36 tokens of an",
    ),
    (
        lambda: change("  max_len: 96 ", "  max_len: 30 ").replace("null\n      fit: null", "null\n      fit: cut"),
        "sft.max_len: 30 tokens leave no room for text",
    ),
    (
        lambda: change("  fit: filter", "  fit: cut").replace("  max_len: 64 ", "  max_len: 30 "),
        "pretrain.max_len: 30 tokens leave no room",
    ),
    (lambda: change("max_new_tokens: 320", "max_new_tokens: 932"), "language.max_position_embeddings: 1024 positions"),
    (lambda: change("projector: linear", "projector: liner"), "model.projector is 'liner'"),
    (lambda: change("patch_size: 16", "patch_size: 17"), "vision.patch_size: 17 does not divide"),
    (lambda: change("match: long", "match: lung"), "sft.phases.direct.match: no phase is called 'lung'"),
    (
        lambda: change("match: long", "match: long\n      target_tokens: 9").replace(
            "      target_tokens: null\n", "", 1
        ),
        "sft.phases.direct: give target_tokens or match, not both",
    ),
    (lambda: change("source: world", "source: minimind"), "vision.source: train requires the built-in world"),
    (
        lambda: change("batch_size: null", "batch_size: 16"),
        "pretrain.batch_size: give either batch_tokens or batch_size",
    ),
    (
        lambda: change("models: {}", "models: {pretrain: {repo: a, kind: model, revision: main, files: []}}"),
        "fetch.models.pretrain: a checkpoint of the pipeline",
    ),
    (lambda: "a: [", "is not valid YAML"),
    (lambda: change("seed: 1 ", "seed: 2020-13-45 "), "is not valid YAML: month"),
    (lambda: "", "must hold sections"),
    (lambda: "- a\n- b\n", "must hold sections"),
    (lambda: re.sub(r"\nmodel:.*\n.*", "\nmodel:", TEXT), "model must be a section"),
    (lambda: change("seed: 1 ", "seed: 4294967296 "), "seed is 4294967296"),
    (lambda: change("home_weight: 8.0", "home_weight: .inf"), "data.home_weight is inf"),
    (lambda: change("home_weight: 8.0", "home_weight: .nan"), "data.home_weight is nan"),
    (lambda: change("home_weight: 8.0", "home_weight: true"), "data.home_weight: true is not allowed here"),
    (
        lambda: change("  - 0.24\n  - 0.36\n", "  - 0.36\n  - 0.24\n"),
        "data.near_sizes: the first size is larger than the second",
    ),
    (lambda: change("  - 0.24\n  - 0.36\n", "  - 0.24\n  - 0.5\n"), "data.near_sizes.1 is 0.5"),
    (lambda: change("kinds: 60", "kinds: 3"), "data.kinds is 3"),
    (
        lambda: re.sub(r"(count_weights:.*\n) +- 7\n +- 2\n +- 1", r"\1  - 0\n  - 0\n  - 0", TEXT),
        "data.count_weights: all",
    ),
    (lambda: re.sub(r"(\nlanguage:(?:.*\n)+?  hidden_size: )192", r"\g<1>12", TEXT, count=1), "must be even"),
]


def test_fewer_image_tokens_leave_more_positions_to_texts(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(change("max_new_tokens: 320", "max_new_tokens: 932").replace("projector: linear", "projector: ldp"))
    assert load_params(path).evaluate.max_new_tokens == 932  # 9 image tokens instead of 36


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_mistake_is_one_sentence_and_code_2(text, message: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text(), encoding="utf-8")
    done = run("stages.common.config", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml") and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


STAGES = (
    "fetch",
    "convert",
    "prepare",
    "tokenizer",
    "vision",
    "language",
    "encode",
    "pretrain",
    "curriculum",
    "sft",
    "evaluate.answer",
    "evaluate.score pretrain",
    "report",
)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_checks_before_it_works(stage: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(change("projector: linear", "projector: liner"), encoding="utf-8")
    module, *arguments = f"stages.{stage}".split()
    done = run(module, tmp_path, *arguments)
    assert done.returncode == 2 and "model.projector is 'liner'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stages.curriculum",), "run `dvc repro tokenizer` first"),
        (("stages.sft", "medium"), "run `dvc repro tokenizer` first"),
        (("stages.evaluate.answer", "sft-long"), "run `dvc repro sft@long` first"),
        (("stages.tokenizer",), "run `dvc repro prepare` first"),
        (("stages.encode",), "run `dvc repro vision` first"),
        (("stages.pretrain",), "run `dvc repro vision` first"),
    ],
)
def test_a_stage_without_its_inputs_names_the_command_to_run(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(TEXT, encoding="utf-8")
    done = run(arguments[0], tmp_path, *arguments[1:])
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff\n")
    done = run("stages.common.config", tmp_path)
    assert done.returncode == 2 and "cannot be read as UTF-8" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_file(tmp_path: Path) -> None:
    done = run("stages.common.config", tmp_path)
    assert done.returncode == 2 and "run this from the project's root folder" in done.stderr


def run(module: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    env = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, check=False)


def test_a_float_that_yaml_reads_as_text(tmp_path: Path) -> None:
    """`-S sft.learning_rate=1e-5` is written as 1e-05, which PyYAML takes for a string."""
    path = tmp_path / "params.yaml"
    before, after = TEXT.split("\nsft:")
    path.write_text(f"{before}\nsft:{after.replace('learning_rate: 1.0e-3', 'learning_rate: 1e-05')}", encoding="utf-8")
    assert load_params(path).sft.learning_rate == 1e-5


def test_a_chain_runs_from_pretraining() -> None:
    assert load_params(ROOT / "tests/params.yaml").sft.chain("long") == ["short", "medium", "long"]


def test_the_tests_have_every_knob() -> None:
    """No parameter has a default, so a file that loads has them all."""
    for path in ("params.yaml", "tests/params.yaml"):
        load_params(ROOT / path)


def test_every_knob_says_what_it_is() -> None:
    """Each parameter has a comment, beside it or above, but for the items of a list and for the phases and sources of
    files after the first."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\n  tokenizer:.*?\n(?=  models:)", "\n", text, count=1, flags=re.DOTALL)
    bare = [
        line
        for before, line in pairwise(text.split("    medium:")[0].splitlines())
        if re.match(r" *[a-z_]+: \S", line) and "#" not in line and not before.lstrip().startswith("#")
    ]
    assert bare == []
