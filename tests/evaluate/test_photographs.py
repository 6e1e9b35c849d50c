"""Texts about photographs, from any model: their two file formats, the manifest, the metrics, the command."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from stages.common.core.errors import InputError
from stages.evaluate.score.bootstrap import Bootstrap
from stages.evaluate.score.lexicon import load_lexicon
from stages.evaluate.score.photographs import (
    MANIFEST,
    PHOTOGRAPH_METRICS,
    Photograph,
    PhotographScore,
    Subject,
    image_key,
    load_manifest,
    score_photograph,
)
from stages.evaluate.score.transcripts import read_transcripts

ROOT = Path(__file__).parents[2]
LEXICON = load_lexicon(ROOT / "data/eval/lexicon.yaml")
PHOTOGRAPHS = ROOT / "shared/upstream/eval_images"
if not PHOTOGRAPHS.exists():
    PHOTOGRAPHS = ROOT.parent / "shared/upstream/eval_images"

BEACH = Photograph(
    there=("女人", "狗", "大海", "沙滩"),
    allowed=("云", "牛仔裤"),
    subject=Subject(concept="女人", gender="female", colours=("白", "蓝"), count=1),
)


def score(text: str, photograph: Photograph = BEACH) -> PhotographScore:
    return score_photograph(text, photograph, LEXICON)


def value(name: str, *texts: str) -> float:
    rows = [score(text).counts() for text in texts]
    return Bootstrap(len(texts), 10, 0.95, 1).of_sums(rows, PHOTOGRAPH_METRICS)[name].value


# Right: 女子, 狗, 沙滩, 白云, 动物 (which a dog is), 裤子 (which jeans are). Wrong: 猫, 金毛 (more than is known), 树.
TALKATIVE = "一位女子和一只狗在沙滩上，白云下有一只猫。这只动物是金毛，女子穿着裤子。旁边是一棵树，没有汽车。"
SHORT = "图中有狗。"


def test_what_is_supported() -> None:
    found = score(TALKATIVE)
    assert [thing.word for thing, supported in found.mentions if supported] == [
        *("女子", "狗", "沙滩", "白云", "动物", "女子", "裤子")
    ]
    assert found.unsupported == ["猫", "金毛", "树"]  # and no 汽车, which is denied
    assert found.missed == ("大海",)


def test_metrics_by_hand() -> None:
    assert value("chair_i", TALKATIVE, SHORT) == pytest.approx(3 / 11)
    assert value("chair_s", TALKATIVE, SHORT) == pytest.approx(1 / 2)
    assert value("unsupported", TALKATIVE, SHORT) == pytest.approx(3 / 2)
    assert value("recall", TALKATIVE, SHORT) == pytest.approx((3 + 1) / 8)
    assert value("length", TALKATIVE, SHORT) == pytest.approx((len(TALKATIVE) + len(SHORT)) / 2)
    assert value("repetition", "甲乙丙丁甲乙丙丁") == pytest.approx(1 / 5)


def test_a_general_word_is_right_and_names_nothing_in_particular() -> None:
    found = score("一个人和一只动物")
    assert found.unsupported == [] and set(found.missed) == set(BEACH.there)


def test_a_special_word_names_the_general_where_it_is_listed() -> None:
    allowing = BEACH.model_copy(update={"allowed": ("金毛犬",)})
    found = score("金毛和女人", allowing)
    assert found.unsupported == [] and found.missed == ("大海", "沙滩")


@pytest.mark.parametrize(
    ("text", "gender", "colour", "count"),
    [
        ("一位穿着白色衣服的女子", "right", "right", "right"),
        ("女子身穿红色长裙，戴着白色帽子", "right", "wrong", "not stated"),
        ("两人坐在沙滩上", "not stated", "not stated", "wrong"),
        ("两个女人", "right", "not stated", "wrong"),
        ("一个男人", "wrong", "not stated", "right"),
        ("她坐在沙滩上", "right", "not stated", "not stated"),
        ("他坐在沙滩上", "wrong", "not stated", "not stated"),
        ("一个人", "not stated", "not stated", "right"),
        ("女人是白色的", "right", "right", "not stated"),
        ("红色的女人，白色的女人", "right", "wrong", "not stated"),  # the first statement counts
        ("一只黑色的狗", "not stated", "not stated", "not stated"),
        ("没有男人", "not stated", "not stated", "not stated"),
    ],
)
def test_the_main_subject(text: str, gender: str, colour: str, count: str) -> None:
    assert dict(score(text).subject) == {"gender": gender, "colour": colour, "count": count}


def test_what_a_picture_leaves_open_is_not_judged() -> None:
    crowd = BEACH.model_copy(update={"subject": Subject(concept="人", gender=None, colours=("红",), count=None)})
    assert set(score("三个男人", crowd).subject.values()) == {"not stated"}
    assert value("subject_gender", "两个女人", "一个男人", "沙滩") == pytest.approx(1 / 2)


@pytest.mark.parametrize("name", ["海边.jpg", "a/b/海边.JPEG", "海边", " 海边.png ", "C:\\x\\海边.webp"])
def test_a_picture_s_key_is_its_name(name: str) -> None:
    assert image_key(name) == "海边"
    assert image_key(unicodedata.normalize("NFD", "é.jpg")) == "é"
    assert image_key("v1.5-dog") == "v1.5-dog"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "texts"
    path.write_text(text, encoding="utf-8")
    return path


NOTES = """模型参数量：26.224 百万

[Image]: 海边.jpg
🤖️: 一位女子，

和一只狗。

[image]： 熊猫.jpg
一只熊猫：在草地上。
[Image]: 空.jpg
"""


def test_the_notes_form(tmp_path: Path) -> None:
    found = read_transcripts(written(tmp_path, NOTES))
    assert [tuple(one) for one in found] == [
        ("海边.jpg", "一位女子，\n\n和一只狗。", 3),
        ("熊猫.jpg", "一只熊猫：在草地上。", 8),
        ("空.jpg", "", 10),
    ]


def test_the_question_is_not_part_of_the_answer(tmp_path: Path) -> None:
    found = read_transcripts(written(tmp_path, "[Image]: a\r\n👶: 描述一下。\r\n🤖️: 一只狗，\r\n一只猫。\r\n"))
    assert [tuple(one) for one in found] == [("a", "一只狗，\n一只猫。", 1)]


def test_json_lines(tmp_path: Path) -> None:
    text = '\ufeff{"image": "a", "text": "[Image]: b\\n狗\u2028猫", "model": 1}\n\n{"image": "a", "text": ""}\n'
    found = read_transcripts(written(tmp_path, text))
    assert [tuple(one) for one in found] == [("a", "[Image]: b\n狗\u2028猫", 1), ("a", "", 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("一只狗。\n", "holds neither JSON lines"),
        ('{"image": "a", "text": "狗"}\n{"image": "a"}\n', 'line 2: needs "image" and "text"'),
        ('{"image": "a", "text": 1}\n', 'line 1: needs "image" and "text"'),
        ('{"image": "a", "text": "狗"}\n狗\n', "line 2: not valid JSON"),
        ("[Image]: \n狗\n", "line 1: [Image]: without the name"),
    ],
)
def test_transcripts_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_transcripts(written(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"there": ["狗狗"]}, "x: the lexicon has no concept 狗狗"),  # a word, not the concept's name
        ({"subject": {"concept": "麒麟", "gender": None, "colours": [], "count": 1}}, "no concept 麒麟"),
        ({"subject": {"concept": "狗", "gender": None, "colours": ["茶"], "count": 1}}, "no colour 茶"),
        ({"their": []}, "x.their: Extra inputs"),
        ({"subject": {"concept": "狗", "gender": "both", "colours": [], "count": 1}}, "x.subject.gender"),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path: Path, change: dict, message: str) -> None:
    entry = {"there": ["狗"], "allowed": [], "subject": {"concept": "狗", "gender": None, "colours": [], "count": 1}}
    path = written(tmp_path, yaml.safe_dump({"x": entry | change}, allow_unicode=True))
    with pytest.raises(InputError) as caught:
        load_manifest(path, LEXICON)
    assert message in str(caught.value)


def test_a_picture_is_listed_once(tmp_path: Path) -> None:
    entry = {"there": ["狗"], "allowed": [], "subject": {"concept": "狗", "gender": None, "colours": [], "count": 1}}
    path = written(tmp_path, yaml.safe_dump({"x.jpg": entry, "a/x.png": entry}, allow_unicode=True))
    with pytest.raises(InputError, match="two entries name the same picture"):
        load_manifest(path, LEXICON)


def test_the_manifest_is_of_the_eight_photographs() -> None:
    manifest = load_manifest(ROOT / MANIFEST, LEXICON)
    assert len(manifest) == 8
    for entry in manifest.values():
        assert entry.there and not set(entry.there) & set(entry.allowed)
    if not PHOTOGRAPHS.exists():
        pytest.skip("shared/upstream/eval_images is not here: names are not compared with files")
    assert set(manifest) == {image_key(path.name) for path in PHOTOGRAPHS.glob("*.jpg")}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.evaluate.score", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    text = "[Image]: 熊猫草地-Panda-Grassland.jpg\n🤖️: 一只黑白相间的熊猫坐在草地上，旁边有两只小狗。\n"
    done = run("--manifest", MANIFEST, written(tmp_path, text), "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert "熊猫草地-Panda-Grassland: 小狗" in done.stdout
    assert "no text in" in done.stderr and "舞蹈-dance" in done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["overall"]["recall"]["value"] == 1.0
    assert found["overall"]["chair_i"]["value"] == pytest.approx(1 / 3, abs=1e-5)
    (text_row,) = found["texts"]
    assert text_row["subject"] == {"gender": "not stated", "colour": "right", "count": "right"}
    for mention in text_row["mentions"]:
        assert text_row["text"][mention["start"] : mention["end"]] == mention["word"]
    assert [(m["concept"], m["supported"], m["count"]) for m in text_row["mentions"]] == [
        ("熊猫", True, 1),
        ("草地", True, None),
        ("狗", False, 2),
    ]


def test_chair_of_texts_without_any_mention_is_undefined(tmp_path: Path) -> None:
    """A dash on the terminal and null in the file; a text with a mention leaves the others out."""
    names = ("熊猫草地-Panda-Grassland", "舞蹈-dance")
    lines = [json.dumps({"image": name, "text": "什么都看不清楚"}, ensure_ascii=False) for name in names]
    done = run("--manifest", MANIFEST, written(tmp_path, "\n".join(lines)), "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    chair = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  CHAIR")]
    assert chair == ["–", "–"]
    (found,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [found["overall"][name]["value"] for name in ("chair_i", "chair_s")] == [None, None]
    assert value("chair_s", "", SHORT, TALKATIVE) == pytest.approx(1 / 2)


def test_several_texts_and_files(tmp_path: Path) -> None:
    """Two texts about one picture, one right and one wrong, give the mean; each file has a table."""
    name = "熊猫草地-Panda-Grassland"
    lines = [{"image": name, "text": text} for text in ("熊猫在草地上", "一只狗和一只猫")]
    path = written(tmp_path, "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    done = run("--manifest", MANIFEST, path, path, "--json", tmp_path / "out.json")
    assert done.returncode == 0 and done.stdout.count("over 1 pictures") == 2
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [one["overall"]["recall"]["value"] for one in found] == [0.5, 0.5]
    assert found[0]["overall"]["unsupported"]["value"] == 1.0


def test_pictures_have_equal_weight(tmp_path: Path) -> None:
    """One picture has three texts that name something absent, the other one text that does not."""
    texts = [("熊猫草地-Panda-Grassland", "一只狗")] * 3 + [("舞蹈-dance", "舞台")]
    path = written(tmp_path, "\n".join(json.dumps({"image": image, "text": text}) for image, text in texts))
    done = run("--manifest", MANIFEST, path, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["overall"]["unsupported"]["value"] == 0.5
    assert found["overall"]["chair_i"]["value"] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"image": "dog.jpg", "text": "狗"}',
            "line 1: the manifest has no picture dog.jpg; add an entry, or use one of",
        ),
        ("", "is empty"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(tmp_path: Path, text: str, message: str) -> None:
    done = run("--manifest", MANIFEST, written(tmp_path, text), "--json", tmp_path / "out.json")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out.json").exists()


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    for words in (("--manifest", MANIFEST, tmp_path / "x"), ("--manifest", tmp_path / "none", tmp_path / "x")):
        done = run(*words)
        assert done.returncode == 2 and "cannot be read" in done.stderr and "Traceback" not in done.stderr
