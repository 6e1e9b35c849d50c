"""The kinds of object in data/world/kinds.yaml, and mistakes in such a file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.core.errors import InputError
from stages.common.world.vocabulary import (
    KINDS,
    KINDS_FILE,
    load_kinds,
)
from stages.prepare.world import write_world
from tests.prepare.worlds import ROOT, small

# Checked by hand.
MEASURES = {
    **dict.fromkeys(("小狗", "小猫", "熊猫", "兔子", "小鸟", "蝴蝶"), "只"),
    **dict.fromkeys(("女士", "老人", "舞者", "圣诞老人"), "位"),
    **dict.fromkeys(("汽车", "公交车", "自行车"), "辆"),
    **dict.fromkeys(("椅子", "雨伞"), "把"),
    **dict.fromkeys(("皮球", "气球"), "个"),
    **{"鱼": "条", "宇航员": "名", "帆船": "艘", "飞机": "架", "火箭": "枚", "图书": "本", "房子": "座", "大树": "棵"},
    **{"鲜花": "朵", "彩虹": "道", "大象": "头", "葡萄": "串", "围巾": "条", "沙发": "张", "骏马": "匹"},
}


def test_measure_words() -> None:
    words = {word: kind.measure for kind in KINDS.values() for word in kind.words}
    assert {word: words[word] for word in MEASURES} == MEASURES


def change_kinds(folder: Path, old: str, new: str) -> Path:
    """A copy of the kinds file in which the first ``old`` is ``new``."""
    text = KINDS_FILE.read_text(encoding="utf-8")
    assert old in text
    path = folder / "data/world/kinds.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


WRONG_KINDS = [
    ("homes: [grassland, seaside]", "homes: [moon]", "dog: no background is called moon; use seaside"),
    ("colour: orange", "colour: mauve", "dog: no colour is called mauve; use red"),
    ("words: [苹果]", "words: [小狗]", "小狗 is a word of dog and of apple"),
    ("  measure: 只\n", "", "dog.measure: Field required"),
    ("  measure: 只\n", "  measure: 只\n  wings: 2\n", "dog.wings: Extra inputs are not permitted"),
    ("size: 0.6", "size: 0", "dog.size: Input should be greater than 0"),
    ("tree:", "dog:", "dog is listed twice"),
    ("dog:", "dog: [", "cannot be read"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG_KINDS, ids=[message for *_, message in WRONG_KINDS])
def test_a_mistake_in_the_kinds_file_is_one_sentence(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = change_kinds(tmp_path, old, new)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_kinds(path)
    assert "\n" not in str(error.value)


def test_the_stage_with_a_wrong_kinds_file_ends_with_one_sentence_and_code_2(tmp_path: Path) -> None:
    change_kinds(tmp_path, "homes: [grassland, seaside]", "homes: [moon]")
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    shutil.copy(ROOT / "tests/params.yaml", tmp_path / "params.yaml")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "stages.prepare"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "no background is called moon" in done.stderr
    assert done.stderr.count("\n") == 1


def test_more_kinds_than_the_file_has_are_refused(tmp_path: Path) -> None:
    params = small(1)
    params = params.model_copy(update={"data": params.data.model_copy(update={"kinds": 9999})})
    with pytest.raises(InputError, match=r"data\.kinds: 9999 kinds, and .*kinds\.yaml has "):
        write_world(params, tmp_path)
