"""A preset changes the values it names and nothing else in params.yaml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from stages.common.config.params import load_params
from stages.common.config.preset import apply_preset, read_preset
from stages.common.core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "presets").glob("*.args"))
REGIMES = sorted((ROOT / "presets/regimes").glob("*.args"))
PARAMS = (ROOT / "tests/params.yaml").read_text(encoding="utf-8")

TEXT = """\
# head
seed: 1  # of everything

data:
  image_size: 96  # pixels
  weights:  # odds
  - 2
  - 3
  rate: 1.0e-3
  limit:  # nothing: no limit
"""


def flat(section: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.common.config.preset", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_only_the_named_values_change() -> None:
    values = {"data.image_size": "48", "seed": "12345", "data.rate": "2.5e-4", "data.limit": "7"}
    expected = (
        TEXT.replace("seed: 1  #", "seed: 12345 #")  # comments keep their column where there is room for it
        .replace("image_size: 96", "image_size: 48")
        .replace("1.0e-3", "2.5e-4")
        .replace("limit:  #", "limit: 7 #")
    )
    assert apply_preset(TEXT, values) == expected


def test_the_grounded_regime_has_near_things_and_true_texts_only(tmp_path: Path) -> None:
    before = load_params(ROOT / "tests/params.yaml").data
    assert before.unsupported > 0 and any(before.far_weights[1:])
    text = apply_preset(PARAMS, read_preset(ROOT / "presets/regimes/grounded.args"))
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    data = load_params(tmp_path / "params.yaml").data
    assert data.unsupported == 0 and data.far_weights[0] > 0 and not any(data.far_weights[1:])


def test_a_list_is_replaced_by_one_as_long_and_keeps_the_comments() -> None:
    text = TEXT.replace("  rate:", "  # of rate\n  rate:").replace("limit:", "limit: 7")
    expected = text.replace("- 2\n  - 3\n", "- 0.5\n  - 4\n")
    assert apply_preset(text, {"data.weights": "[0.5,4]"}) == expected


def test_what_is_not_named_stays_as_it_is() -> None:
    text = (
        TEXT.replace("limit:", "limit: 7")
        + "  names: [one, 'two', \"three\"]  # "
        + "long " * 40
        + "\n  none: null\n  nothing: []\n"
    )
    assert apply_preset(text, {"seed": "1"}) == text
    for path in (ROOT / "params.yaml", ROOT / "tests/params.yaml"):
        assert apply_preset(path.read_text("utf-8"), {}) == path.read_text("utf-8")


@pytest.mark.parametrize("preset", [*PRESETS, *REGIMES], ids=lambda path: path.stem)
def test_a_preset_has_the_same_effect_as_dvc_exp_run(preset: Path, tmp_path: Path) -> None:
    values = read_preset(preset)
    ours, dvc = tmp_path / "ours.yaml", tmp_path / "dvc.yaml"
    ours.write_text(apply_preset(PARAMS, values), encoding="utf-8")
    dvc.write_text(PARAMS, encoding="utf-8")
    apply_overrides(dvc, [f"{key}={value}" for key, value in values.items()])
    assert load_params(ours) == load_params(dvc)


def test_there_and_back_again_is_the_same_file() -> None:
    before = flat(yaml.safe_load(PARAMS))
    for preset in PRESETS:
        values = read_preset(preset)
        back = {key: yaml.safe_dump(before[key]).split("\n")[0] for key in values}
        changed = apply_preset(PARAMS, values)
        assert flat(yaml.safe_load(apply_preset(changed, back))) == before
        assert [line.partition("#")[2] for line in changed.splitlines()] == [
            line.partition("#")[2] for line in PARAMS.splitlines()
        ]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_the_projects_presets_are_good_params(preset: Path, tmp_path: Path) -> None:
    values = read_preset(preset)
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / preset.name).write_bytes(preset.read_bytes())

    done = run(tmp_path, f"presets/{preset.name}")

    assert done.returncode == 0, done.stderr
    sft = load_params(tmp_path / "params.yaml").sft
    assert sft.shuffle_of("short") and not sft.shuffle_of("unshuffled")
    before, after = flat(yaml.safe_load(PARAMS)), flat(yaml.safe_load((tmp_path / "params.yaml").read_text("utf-8")))
    assert {key: after[key] for key in values} == {key: yaml.safe_load(value) for key, value in values.items()}
    assert {key for key in before if before[key] != after[key]} <= set(values)


def test_presets_set_the_same_keys_so_that_one_may_follow_another() -> None:
    assert len(PRESETS) >= 2
    assert len({tuple(read_preset(preset)) for preset in PRESETS}) == 1


def test_minimind_has_the_shape_of_minimind_v() -> None:
    values = read_preset(ROOT / "presets/minimind.args")
    assert (int(values["data.image_size"]) // int(values["vision.patch_size"])) ** 2 == 196
    assert values["vision.hidden_size"] == "768"
    assert values["language.hidden_size"] == "512"
    assert values["language.num_hidden_layers"] == "8"
    assert values["tokenizer.vocab_size"] == "6400"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("-S data.image_sise=48\n-S seed=3", "data.image_sise"),
        ("-S seed=3\n-S seed.deeper=3", "seed.deeper"),
        ("-S seed=3\n-S data.near_weights=3", "data.near_weights=3 does not fit"),
        ("-S seed=3\n-S data.near_weights=[3,4]", "data.near_weights=[3,4] does not fit"),
        ("-S seed=3\n-S sft.max_len=[3]", "sft.max_len=[3] does not fit"),
        ("-S seed=3\n-S sft.max_len=[3", "sft.max_len=[3 is not a value that"),
        ("-S seed=3\n-S +sft.phases.extra=3", "+sft.phases.extra"),
        ("-S seed=3\n-S sft.epochs", "sft.epochs"),
        ("-S seed=3\n# a comment", "#"),
    ],
)
def test_what_is_no_parameter_is_named_and_nothing_is_written(content: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (tmp_path / "mine.args").write_text(content, encoding="utf-8")

    done = run(tmp_path, "mine.args")

    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == PARAMS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.args", "params.yaml"]


def test_a_missing_preset_lists_those_there_are() -> None:
    with pytest.raises(InputError, match=r"nothing\.args.*minimind, smoke"):
        read_preset(ROOT / "presets/nothing.args")
