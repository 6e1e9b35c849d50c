"""The pipeline, run by DVC in a repository of its own: what it writes, and which stages a change runs again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from tests.repository import Repository

PHASES = ("short", "medium", "long", "direct", "unshuffled")
OF_ALL_TEXTS = ("distinct_1", "distinct_2", "bleu", "chrf")  # no means over scenes, so they are not resampled
ANSWERS = {"answer-pretrain", *(f"answer@{phase}" for phase in PHASES)}
SCORES = {"score-pretrain", *(f"score@{phase}" for phase in PHASES)}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone at smoke size in which everything has been run once and committed."""
    repository = Repository(tmp_path_factory.mktemp("pipeline") / "project", "presets/smoke.args", {}, {})
    ran = repository.stages_run("dvc", "repro")
    assert ran == {
        *("fetch", "prepare", "tokenizer", "vision", "language", "encode", "pretrain", "curriculum", "report"),
        *(f"sft@{phase}" for phase in PHASES),
        *ANSWERS,
        *SCORES,
    }
    repository.commit()
    return repository


@pytest.fixture(autouse=True)
def restore(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the committed state back after each test."""
    repository = request.getfixturevalue("repository")
    yield
    repository.restore()


def test_everything_is_there(repository: Repository) -> None:
    checkpoints = ["pretrain", *(f"sft-{phase}" for phase in PHASES)]
    assert sorted(path.stem for path in (repository.root / "metrics").iterdir()) == sorted(checkpoints)
    page = (repository.root / "reports/index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 8
    for checkpoint in checkpoints:
        folder = repository.root / "reports/evaluation" / checkpoint
        rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
        tasks = {"caption", "description", "far_first", "random", "popular", "adversarial"}
        assert {row["task"] for row in rows} == tasks
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        measured = {name for name, interval in found["intervals"].items() if interval["value"] is not None}
        assert {"swap_gap_object", "caption_swap_gap_colour", "blind_gap", "two_alternative", "probe_auc"} <= measured
        assert set(found["series"]) == {"sentence", "frequency", "background", "distance", "layer"}
        resamples = pq.read_table(folder / "resamples.parquet")
        not_resampled = {re.sub("^(caption|far_first)_", "", name) for name in measured - set(resamples.column_names)}
        assert resamples.num_rows == 100 and not_resampled <= set(OF_ALL_TEXTS)
        assert (folder / "samples.txt").read_text(encoding="utf-8").count("[Image]: ") == 8
        assert (repository.root / "checkpoints" / checkpoint / "model.safetensors").exists()


def test_no_state_of_a_finished_stage_is_left(repository: Repository) -> None:
    assert not list((repository.root / ".resume").glob("*-*"))


def test_the_control_learns_from_as_many_tokens_as_the_chain(repository: Repository) -> None:
    read = {
        phase: json.loads((repository.root / f"data/sft/{phase}/summary.json").read_text(encoding="utf-8"))
        for phase in PHASES
    }
    chain = sum(read[phase]["target_tokens"] for phase in ("short", "medium", "long"))
    assert read["direct"]["target_tokens"] == pytest.approx(chain, rel=0.03)
    assert read["short"]["longest_answer"] < read["medium"]["longest_answer"] < read["long"]["longest_answer"]


def test_nothing_runs_twice(repository: Repository) -> None:
    assert repository.stages_run("dvc", "repro") == set()


@pytest.mark.parametrize("stage", ["tokenizer", "curriculum", "score-pretrain"])
def test_two_equal_runs_of_a_stage_have_equal_outputs(repository: Repository, stage: str) -> None:
    """DVC hashes every output into dvc.lock: no output holds a time."""
    lock = repository.root / "dvc.lock"
    before = lock.read_bytes()
    assert repository.stages_run("dvc", "repro", "--force", "--single-item", stage) == {stage}
    assert lock.read_bytes() == before
    assert json.loads((repository.root / f"reports/time/{stage}.json").read_text(encoding="utf-8"))["seconds"] > 0


@pytest.mark.parametrize("edited", ["stages/evaluate/score/texts.py", "data/eval/lexicon.yaml"])
def test_an_edit_of_a_scoring_rule_generates_no_answers(repository: Repository, edited: str) -> None:
    repository.append(edited, "# a comment\n")
    assert (
        repository.stages_run("dvc", "repro") == SCORES
    )  # whose outputs are as before, so the report is not made anew


def test_an_edit_of_what_is_logged_runs_nothing(repository: Repository) -> None:
    repository.append("stages/common/tracking/runs.py", "# a comment\n")
    assert repository.stages_run("dvc", "repro") == set()


def test_other_intervals_generate_no_answers(repository: Repository) -> None:
    ran = repository.stages_run("dvc", "exp", "run", "-S", "evaluate.confidence=0.9")
    assert ran == {*SCORES, "report"}


def test_a_comment_in_the_parameters_runs_nothing(repository: Repository) -> None:
    params = repository.root / "params.yaml"
    text = params.read_text(encoding="utf-8")
    text = text.replace("# relative probabilities of", "# weights of")
    params.write_text(f"# a new comment\n{text}", encoding="utf-8")
    assert repository.stages_run("dvc", "repro") == set()


def test_machine_and_wandb_settings_run_nothing(repository: Repository) -> None:
    assert repository.stages_run("dvc", "exp", "run", "-S", "train.logging_steps=3", "-S", "wandb.project=x") == set()


def test_a_longer_max_len_runs_the_phases_that_it_changes(repository: Repository) -> None:
    ran = repository.stages_run("dvc", "exp", "run", "-S", "sft.max_len=256")
    changed = {f"{stage}@{phase}" for stage in ("sft", "answer", "score") for phase in ("long", "direct")}
    assert ran == {"curriculum", *changed, "report"}
    assert "sft.max_len" in repository.run("dvc", "params", "diff")
    diff = repository.run("dvc", "metrics", "diff", "--all")
    assert re.search(r"metrics/sft-long\.json +length ", diff)
    listed = repository.run("dvc", "exp", "show", "--csv")
    assert "metrics/sft-long.json:length" in listed and "sft.max_len" in listed
    diff = repository.run("dvc", "plots", "diff", "--out", "plots", "HEAD")
    page = (repository.root / "plots/index.html").read_text(encoding="utf-8")
    assert "index.html" in diff and "timeline" in page and "workspace" in page


def test_the_graph_names_every_stage(repository: Repository) -> None:
    graph = repository.run("dvc", "dag", "--dot")
    for stage in ("prepare", "sft@direct", "answer@long", "score@long", "report"):
        assert stage in graph


def test_evaluation_settings_train_nothing(repository: Repository) -> None:
    repository.set({"evaluate.scenes": "5"})
    assert repository.changed_stages() == {*ANSWERS, "report"}
    repository.set({"evaluate.scenes": "8", "evaluate.far_first_scenes": "3"})
    assert repository.changed_stages() == {*ANSWERS, "report"}
    repository.set({"evaluate.far_first_scenes": "4", "evaluate.reference_scenes": "50"})
    assert repository.changed_stages() == {*SCORES, "report"}


def test_the_projector_leaves_what_comes_before_it_alone(repository: Repository) -> None:
    repository.set({"model.projector": "ldpv2"})
    # A picture may take another number of tokens now, which the curriculum counts where sequences are cut.
    assert repository.changed_stages() == {"curriculum", "pretrain", "report"}


def test_a_new_phase_in_params_is_a_new_stage(repository: Repository) -> None:
    phase = (
        "+sft.phases.extra={after: sft-long, max_len: 48, fit: null, target_tokens: 500, match: null, shuffle: null}"
    )
    ran = repository.stages_run("dvc", "exp", "run", "-S", phase)
    assert ran == {"curriculum", "sft@extra", "answer@extra", "score@extra", "report"}
    assert "metrics/sft-extra.json" in repository.run("dvc", "metrics", "show")


def test_a_wrong_value_ends_the_run_before_any_work(repository: Repository) -> None:
    values = ("-S", "sft.phases.medium.fit=cut", "-S", "sft.phases.medium.max_len=3")
    done = repository.end("dvc", "exp", "run", *values)
    assert done.returncode != 0
    output = done.stdout
    assert "error: params.yaml: sft.phases.medium.max_len: 3 tokens leave no room for text" in output
    assert "Traceback" not in output
    assert re.findall(r"Running stage '([^']+)'", output) == ["curriculum"]
