"""params.yaml: a mistake ends the run at once with one sentence that names the parameter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.params import LONGEST_PROMPT, load_params
from stages.prepare import wording

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


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
    (lambda: change("after: sft-short", "after: sft-long"), "sft.phases.medium.after: a loop"),
    (lambda: change("      max_len: 24", "      max_len: -24"), "sft.phases.short.max_len is -24"),
    (lambda: change("      max_len: 24", "      max_len: 5"), "sft.phases.short.max_len: 5 is shorter than the prompt"),
    (lambda: change("  max_len: 96 ", "  max_len: 5 "), "sft.max_len: 5 is shorter"),
    (lambda: change("projector: linear", "projector: liner"), "model.projector is 'liner'"),
    (lambda: change("patch_size: 16", "patch_size: 17"), "vision.patch_size: 17 does not divide"),
    (lambda: change("match: long", "match: lung"), "sft.phases.direct.match: 'lung'"),
    (lambda: change("match: long", "match: null"), "sft.phases.direct: give either"),
    (lambda: "a: [", "is not valid YAML"),
    (lambda: "", "params.yaml"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_mistake_is_one_sentence_and_code_2(text, said: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text(), encoding="utf-8")
    done = run("stages.common.params", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml") and said in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_every_stage_checks_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(change("projector: linear", "projector: liner"), encoding="utf-8")
    for stage in ("stages.prepare", "stages.tokenizer", "stages.report"):
        assert run(stage, tmp_path).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_missing_file(tmp_path: Path) -> None:
    done = run("stages.common.params", tmp_path)
    assert done.returncode == 2 and "run this from the project's root folder" in done.stderr


def run(module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module]
    env = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, check=False)


def test_a_float_that_yaml_reads_as_text(tmp_path: Path) -> None:
    """`-S sft.learning_rate=1e-5` is written as 1e-05, which PyYAML takes for a string."""
    path = tmp_path / "params.yaml"
    before, after = TEXT.split("\nsft:")
    path.write_text(f"{before}\nsft:{after.replace('learning_rate: 1.0e-3', 'learning_rate: 1e-05')}", encoding="utf-8")
    assert load_params(path).sft.learning_rate == 1e-5


def test_the_longest_prompt_is_the_wording_s() -> None:
    assert LONGEST_PROMPT == wording.LONGEST_PROMPT


def test_a_chain_runs_from_pretraining() -> None:
    assert load_params(ROOT / "params.yaml").sft.chain("long") == ["short", "medium", "long"]


def test_every_knob_says_what_it_is() -> None:
    """Each parameter has a comment, but for the phases after the first and the items of a list."""
    bare = [
        line
        for line in TEXT.split("    medium:")[0].splitlines()
        if re.match(r" *[a-z_]+: \S", line) and "#" not in line
    ]
    assert bare == []
