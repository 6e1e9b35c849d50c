"""Tables in README.md, README_zh.md and docs/ are those of the committed files; how they are made."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.core.errors import InputError
from stages.report import readme
from stages.report.readme import TABLES, documents, fill, load_sources
from stages.report.recorded_metrics import METRICS
from stages.report.recorded_runs import read_runs, seed_mean, seeds

ROOT = Path(__file__).resolve().parents[2]
MARK = "# title\n\n<!-- table: {} -->\nold\n<!-- end -->\n\nafter\n"


def write_run(root: Path, name: str, seed: int, chair_i: dict[str, float | None], **fields: Any) -> None:
    checkpoints = {
        checkpoint: {
            "chair_i": {"value": value, "low": None, "high": None},
            "recall": {"value": 0.8, "low": 0.7, "high": 0.9},
        }
        for checkpoint, value in chair_i.items()
    }
    run = {
        "command": f"dvc exp run -S seed={seed}",
        "commit": "0123456789abcdef",
        "date": "2026-01-31",
        "machine": {"processor": "A processor", "cores": 2, "torch": "2.0"},
        "seconds": 60 * (10 + seed),
        "seed": seed,
        "params": {"seed": seed},
        "scenes": 300,
        "target_tokens": {"sft-long": 900_000 + seed, "sft-direct": 900_000},
        "checkpoints": checkpoints,
        "metrics_diff": {},
    } | fields
    path = root / f"benchmarks/results/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run), encoding="utf-8")


def write_seeds(root: Path, differences: list[float], **fields: Any) -> None:
    for seed, difference in enumerate(differences, start=1):
        values = {"pretrain": 0.2, "sft-long": 0.1 + difference, "sft-direct": 0.1}
        write_run(root, f"seed-{seed}", seed, values, **fields)


def table(root: Path, name: str, language: str = "en") -> str:
    return TABLES[name](load_sources(root), language)


def test_committed_tables_are_those_of_the_files() -> None:
    fill(ROOT, check=True)


@pytest.mark.parametrize("name", ["README.md", "README_zh.md"])
def test_the_readme_has_every_part(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.findall("<!-- table: (.*) -->", text) == ["answer", "metrics-diff", "results"]
    assert "make repro" in text and "make test" in text and "docs/report.png" in text


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_both_readmes_have_the_same_structure() -> None:
    shapes = []
    for name in ("README.md", "README_zh.md"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        kinds = [re.match(r"#+ |\||!\[|<!--|- |    |", line).group() for line in lines]
        shapes.append([kind for kind in kinds if kind and kind != "- "])
    assert shapes[0] == shapes[1]


def test_the_citation_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == project["license"] == "Apache-2.0"


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*documents(ROOT), ROOT / "presets/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), (path, target)


def test_mean_and_interval_over_seeds() -> None:
    found = seed_mean([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.high - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t of 2 degrees of freedom at 97.5 %
    assert 2 - found.low == pytest.approx(found.high - 2)


def test_one_seed_has_no_interval() -> None:
    assert seed_mean([0.5]) == (0.5, None, None)
    assert seed_mean([0.5]).relation == "undefined"


def test_a_mean_with_an_undefined_value_is_undefined() -> None:
    assert seed_mean([0.5, None, 0.4]) == (None, None, None)


@pytest.mark.parametrize(
    ("differences", "english", "chinese"),
    [
        ([], "**Open.**", "**尚无答案。**"),
        ([0.05], "**Open.**", "**尚无答案。**"),
        (
            [0.01, 0.02, -0.02],
            "**No clear difference**, from 3 seeds at commit 0123456789. ",
            "**没有明显差别**（3 个种子，提交 0123456789）",
        ),
        ([0.02, 0.021, 0.022], "**CHAIR-i is higher with the curriculum**", "**课程学习组的 CHAIR-i 更高**"),
        ([-0.02, -0.021, -0.022], "**CHAIR-i is lower with the curriculum**", "**课程学习组的 CHAIR-i 更低**"),
    ],
)
def test_the_answer_follows_the_interval(tmp_path: Path, differences: list[float], english: str, chinese: str) -> None:
    write_seeds(tmp_path, differences)
    assert table(tmp_path, "answer").startswith(english)
    assert table(tmp_path, "answer", "zh").startswith(chinese)


def test_an_undefined_figure_cannot_be_compared(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01])
    write_run(tmp_path, "seed-2", 2, {"pretrain": None, "sft-long": None, "sft-direct": 0.1})
    assert "Cannot be compared" in table(tmp_path, "answer")
    assert table(tmp_path, "results").splitlines()[2].split("|")[2:6] == [
        " – ",
        " – ",
        " 10.0 [10.0, 10.0] ",
        " – ",
    ]


def test_results_over_seeds(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01, 0.02, 0.03])
    lines = table(tmp_path, "results").splitlines()
    row = next(line for line in lines if line.startswith("| CHAIR-i"))
    assert row.split(" | ")[2:] == ["12.0 [9.5, 14.5]", "10.0 [10.0, 10.0]", "+2.0 [−0.5, +4.5] |"]
    assert lines[-1].startswith("Seeds 1, 2, 3: mean [95 % t-interval]; long descriptions of 300 test scenes")
    assert "900,001 to 900,003 (curriculum) and 900,000 (control)" in lines[-1]
    assert "11 to 13 minutes a run" in lines[-1]


def test_token_counts_name_the_seeds_that_they_are_of(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01, 0.02])
    assert "recorded for" not in table(tmp_path, "results")
    write_run(tmp_path, "seed-2", 2, {"sft-long": 0.1, "sft-direct": 0.1}, target_tokens={})
    assert "900,001 (curriculum) and 900,000 (control) target tokens (recorded for seed 1)." in table(
        tmp_path, "results"
    )
    assert "仅种子 1 有记录" in table(tmp_path, "results", "zh")


def test_two_alternative_accuracy_is_explained_where_it_has_a_row(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01])
    assert "wo-alternative" not in table(tmp_path, "results")
    accuracy = {"two_alternative": {"value": 0.8, "low": None, "high": None}}
    write_run(tmp_path, "seed-1", 1, {}, checkpoints={"sft-long": accuracy, "sft-direct": accuracy})
    assert table(tmp_path, "results").count("wo-alternative accuracy") == 2


def test_a_metric_that_no_run_has_gets_no_row(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01])
    assert "POPE" not in table(tmp_path, "results")


def test_a_mean_needs_a_value_of_every_seed(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01, 0.02])
    path = tmp_path / "benchmarks/results/seed-1.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["checkpoints"]["sft-long"]["pope_accuracy"] = {"value": 0.8, "low": None, "high": None}
    path.write_text(json.dumps(run), encoding="utf-8")
    row = next(line for line in table(tmp_path, "results").splitlines() if line.startswith("| POPE"))
    assert row == "| POPE accuracy, % | – | – | – | – |"


def test_seeds_of_other_settings_are_not_averaged(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01])
    write_seeds(tmp_path, [0.01, 0.02])
    write_run(tmp_path, "seed-2", 2, {"pretrain": 0.2}, params={"seed": 2, "sft.max_len": 256})
    with pytest.raises(InputError, match=r"seed-2\.json and seed-1\.json differ in parameters"):
        table(tmp_path, "results")


@pytest.mark.parametrize("fields", [{"commit": "fedcba98"}, {"code": "fedcba98"}])
def test_seeds_of_other_code_are_not_averaged(tmp_path: Path, fields: dict[str, str]) -> None:
    write_run(tmp_path, "seed-1", 1, {})
    write_run(tmp_path, "seed-2", 2, {}, **fields)
    with pytest.raises(InputError, match=r"seed-2\.json and seed-1\.json are of different code"):
        seeds(read_runs(tmp_path))


def test_commits_that_leave_the_code_alone_do_not_matter(tmp_path: Path) -> None:
    write_run(tmp_path, "seed-1", 1, {}, code="0123")
    write_run(tmp_path, "seed-2", 2, {}, code="0123", commit="fedcba98")
    assert len(seeds(read_runs(tmp_path))) == 2


def test_a_seed_counts_once(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01])
    write_run(tmp_path, "seed-01", 1, {"pretrain": 0.2})
    with pytest.raises(InputError, match="both have seed 1"):
        table(tmp_path, "results")


def test_a_broken_record_is_bad_input(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.01])
    (tmp_path / "benchmarks/results/seed-1.json").write_text('{"command": "dvc repro"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"seed-1\.json: commit: Field required"):
        load_sources(tmp_path)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_table_can_be_made_from_any_number_of_seeds(tmp_path: Path, language: str, count: int) -> None:
    write_seeds(tmp_path, [0.01, 0.02, 0.05][:count])
    for path in ROOT.glob("benchmarks/*.json"):
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / "benchmarks" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/sft-long.json").write_text('{"chair_i": 0.1}', encoding="utf-8")
    for name in TABLES:
        assert table(tmp_path, name, language).strip(), name


def test_the_table_of_checkpoints_begins_with_pretraining(tmp_path: Path) -> None:
    write_run(tmp_path, "seed-1", 1, {"sft-long": 0.1, "pretrain": 0.2})
    head, _, row = table(tmp_path, "checkpoints").splitlines()[:3]
    assert head == "| | pretrain | sft-long |"
    assert row.endswith("| 20.0 | 10.0 |")


def test_what_dvc_prints_of_a_run_with_longer_texts(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/sft-long.json").write_text('{"chair_i": 0.1}', encoding="utf-8")
    row = table(tmp_path, "metrics-diff").splitlines()[1]
    assert row.split() == ["metrics/sft-long.json", "chair_i", "0.1", "...", "..."]
    changes = {name: {"old": 0.1, "new": 0.112, "diff": 0.012} for name in ("pope", "chair_i")}
    diff = {"metrics/sft-long.json": changes}
    write_run(tmp_path, "max-len-256", 1, {"pretrain": 0.2}, metrics_diff=diff)
    assert table(tmp_path, "metrics-diff") == (
        "    Path                   Metric    HEAD    workspace    Change\n"
        "    metrics/sft-long.json  chair_i   0.1     0.112        0.012\n"
        "    metrics/sft-long.json  pope      0.1     0.112        0.012"
    )


def test_experiments_that_are_not_recorded_are_named(tmp_path: Path) -> None:
    write_run(tmp_path, "sft-2-epochs", 1, {"sft-direct/epoch-1": 0.1, "sft-direct": 0.2})
    text = table(tmp_path, "experiments")
    assert "| `sft-2-epochs` | sft-direct/epoch-1 | 10.0 |" in text
    assert "Not recorded with this code yet: `pretrain-1-epoch`" in text


def test_a_table_is_filled_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(MARK.format("answer"), encoding="utf-8")
    assert fill(tmp_path) == ["README.md: answer"]
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# title\n\n<!-- table: answer -->\n\n**Open.**") and text.endswith(
        "\n\n<!-- end -->\n\nafter\n"
    )
    assert fill(tmp_path) == []


def run_main(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["readme", *arguments])
    try:
        readme.main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_check_names_file_and_table_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    path = tmp_path / "docs/results.md"
    path.write_text(MARK.format("by-seed"), encoding="utf-8")
    assert run_main(monkeypatch, tmp_path, "--check") == 2
    error = capsys.readouterr().err
    assert "docs/results.md: by-seed" in error and "python -m stages.report.readme" in error
    assert path.read_text(encoding="utf-8") == MARK.format("by-seed")
    assert run_main(monkeypatch, tmp_path) == 0
    assert run_main(monkeypatch, tmp_path, "--check") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MARK.format("nothing"), "there is no table 'nothing': choose one of answer, "),
        ("<!-- table: answer -->\nold\n", "the last table has no end"),
        ("<!-- table: answer -->\n" + MARK.format("results"), "table 'answer' has no end"),
    ],
)
def test_bad_markers_are_bad_input(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        fill(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


def test_the_architecture_page_names_what_exists() -> None:
    """Paths in backquotes, and names stated to be in a file."""
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    text = text.replace("\n   ", "")
    for path in re.findall(r"`((?:stages|model|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    named = re.findall(r"`(\w+)` in\s+`([\w/]+\.py)`", text)
    assert len(named) > 10
    for name, path in named:
        found = re.search(rf"^(?:def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
        assert found, (name, path)


def test_the_stages_that_the_readme_shows_exist() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    shown = re.findall(r"Running stage '(\w+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown and set(shown) <= set(stages)


def test_three_seeds_leave_the_readme_short(tmp_path: Path) -> None:
    for name in ("README.md", "README_zh.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    checkpoint = {key: {"value": 0.123, "low": None, "high": None} for key in METRICS}
    for seed in (1, 2, 3):
        changed = {key: {"value": 0.1 * seed, "low": None, "high": None} for key in METRICS}
        checkpoints = {"pretrain": checkpoint, "sft-long": changed, "sft-direct": checkpoint}
        write_run(tmp_path, f"seed-{seed}", seed, {}, checkpoints=checkpoints)
    (tmp_path / "metrics").mkdir()
    listed = dict.fromkeys(("chair_i", "jump", "length", "pope", "recall", "swap", "two_alternative"), 0.123)
    (tmp_path / "metrics/sft-long.json").write_text(json.dumps(listed), encoding="utf-8")
    fill(tmp_path)
    assert len((tmp_path / "README.md").read_text(encoding="utf-8").split()) <= 1000
