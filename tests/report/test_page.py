"""The page says what the figures say, marks what is wrong, escapes what a model writes, and needs nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import yaml

from stages.report.load_run import Answer, load_run
from stages.report.page import render_page, segments, short_number, split_title

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("pretrain", "sft-short", "sft-long", "sft-direct")


def page(inputs) -> str:
    return render_page(load_run(inputs.params, inputs.root))


class Texts(HTMLParser):
    """Collects start tags and, per class of <mark>, the marked texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.marks: list[tuple[str, str]] = []
        self._mark: str | None = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "mark":
            self._mark = dict(attrs)["class"]
            self.marks.append((self._mark, ""))

    def handle_endtag(self, tag):
        if tag == "mark":
            self._mark = None

    def handle_data(self, data):
        if self._mark:
            self.marks[-1] = (self._mark, self.marks[-1][1] + data)


def make(text: str, *mentions: dict) -> Answer:
    base = {"id": "s", "split": "fixed", "task": "description", "prompt": "", "reference": "", "missed": ()}
    return Answer(answer=text, mentions=mentions, **base)


def span(start: int, end: int, supported: bool, colour_right: bool | None = None) -> dict:
    return {
        "kind": "dog",
        "word": "w",
        "start": start,
        "end": end,
        "supported": supported,
        "colour_right": colour_right,
    }


# Marks


def test_mentions_are_marked_right_wrong_or_wrong_in_colour(inputs):
    text = "有小狗、皮球和猫。"
    mentions = (
        {"kind": "dog", "word": "小狗", "start": 1, "end": 3, "colour": "red", "supported": True, "colour_right": True},
        {
            "kind": "ball",
            "word": "皮球",
            "start": 4,
            "end": 6,
            "colour": "green",
            "supported": True,
            "colour_right": False,
        },
        {"kind": "cat", "word": "猫", "start": 7, "end": 8, "colour": None, "supported": False, "colour_right": None},
    )
    answers = {"小狗-dog": inputs.answer(text, mentions), "cat": inputs.answer("空。", (), ("cat",))}
    inputs.write_answers("sft-long", answers)
    html = page(inputs)
    marks = Texts(html).marks
    assert ("right", "小狗") in marks
    assert ("wrong", "猫✗") in marks  # a symbol beside the colour, for those who do not see the colour
    assert ("colour", "皮球◐") in marks
    assert "皮球: 绿色, is 蓝色" in html
    assert re.search(r"○ missed</b> <span[^>]*>小猫</span>", html)


def test_segments_keep_every_character():
    text = "左边有一只小狗，右边有一只猫。"
    parts = segments(make(text, span(13, 14, False), span(5, 7, True)))
    assert "".join(part.text for part in parts) == text
    assert [(part.text, part.state) for part in parts if part.state != "plain"] == [("小狗", "right"), ("猫", "wrong")]


def test_overlapping_and_impossible_spans_lose_no_text():
    text = "熊猫和狗"
    parts = segments(make(text, span(0, 2, True), span(1, 2, False), span(3, 9, False), span(3, 3, False)))
    assert "".join(part.text for part in parts) == text
    assert [part.state for part in parts] == ["right", "plain"]
    assert segments(make("")) == []


def test_what_a_model_writes_is_escaped(inputs):
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">小狗'
    mention = {"kind": "dog", "word": "<b>小狗", "start": len(evil) - 2, "end": len(evil), "supported": False}
    answers = {scene: inputs.answer(evil, (mention,), ("<i>kind</i>",)) for scene in ("小狗-dog", "cat")}
    inputs.write_answers("sft-long", answers)
    html = page(inputs)
    assert "&lt;script&gt;alert(1)" in html
    tags = Texts(html).tags
    assert [tag for tag, _ in tags].count("script") == 1  # the page's own
    assert all(not name.startswith("on") for _, attributes in tags for name in attributes)
    assert "<i>kind" not in html and "<b>小狗" not in html


# One file


def test_the_page_needs_nothing_outside_itself(inputs):
    html = page(inputs)
    for tag, attributes in Texts(html).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, name, value)
    assert "url(http" not in html and "@import" not in html
    assert html.count("data:image/png;base64,") == 2


def test_ids_are_unique_across_the_charts(inputs):
    ids = re.findall(r'\bid="([^"]+)"', page(inputs))
    assert len(ids) == len(set(ids))


def test_every_checkpoint_and_scene_is_shown(inputs):
    html = page(inputs)
    for name in ("pretrain", "sft-short", "sft-long", "sft-direct"):
        assert len(re.findall(f'<h4><span class="name"><span [^>]*></span>{name}</span>', html)) == 4  # scenes, prompts
    assert '<span lang="zh-CN">小狗</span> <small>dog</small>' in html


def test_the_same_inputs_give_the_same_page(inputs):
    assert page(inputs) == page(inputs)


# What it says


def test_both_budgets_stand_on_the_page(inputs):
    html = page(inputs)
    assert html.count("<b>6,008</b> target tokens") == 2


def test_a_run_without_a_control_says_so(inputs):
    del inputs.raw["sft"]["phases"]["direct"]
    html = page(inputs)
    assert "this run has no control arm" in html
    assert "sft-direct" not in html


def test_the_page_shows_each_question_with_its_figures(inputs):
    gap, probe = ({name: 0.5 + 0.1 * place for place, name in enumerate(NAMES)} for _ in range(2))
    for name in NAMES:
        figures = {"swap_gap_object": (gap[name], 0.02), "probe_auc": (probe[name], 0.02), "chair_i": (0.1, 0.02)}
        inputs.write_metrics(name, figures)
    html = page(inputs)
    assert "No: after fine-tuning the words depend more on the picture than before" in html
    assert ">0.60 [0.58,\u00a00.62]</td>" in html and 'minus pretraining&#39;s">+0.10' in html


def test_undefined_figures_and_empty_logs_do_not_stop_the_page(inputs):
    for name in ("pretrain", "sft-short", "sft-long", "sft-direct"):
        inputs.write_metrics(name, {"chair_i": (None, 0.0), "novel_figure": (1.5, 0.1)})
        inputs.write(f"reports/loss/{name}.csv", "step,epoch,target_tokens,loss,learning_rate,grad_norm\n")
    html = page(inputs)
    assert "No loss was logged." in html
    assert "novel_figure" in html  # a figure the page knows no name for is shown by its key


# Data from files


def files_page(inputs, figures: dict, mentions: tuple = (), missed: tuple = ()) -> str:
    """Of a run on files, whose pictures have no known truth."""
    for section in ("vision", "language", "tokenizer"):
        inputs.raw[section]["source"] = "fetch"
    inputs.raw["data"]["source"] = "jsonl"
    for name in NAMES:
        inputs.write_metrics(name, figures)
        inputs.write_answers(
            name, {scene: inputs.answer("一只小狗。", mentions, missed) for scene in ("小狗-dog", "cat")}
        )
    run = load_run(inputs.params, inputs.root)
    return render_page(replace(run, pictures=tuple(picture._replace(scene=None) for picture in run.pictures)))


def test_without_a_truth_the_page_says_what_can_be_said(inputs):
    html = files_page(inputs, {"loss": (2.5, 0.1), "length": (80.0, 2.0), "swap_gap": (0.4, 0.02)})
    assert "Open: what these texts claim is not counted" in html
    assert "No clear difference in how much the words depend on the picture" in html
    assert "Image-swap gap on all words" in html
    assert "Yes/no questions" not in html and "CHAIR-i" not in html and "all named" not in html


def test_known_photographs_answer_the_question(inputs):
    figures = {"photograph_chair_i": (0.3, 0.1), "photograph_recall": (0.5, 0.1), "photograph_length": (90.0, 5.0)}
    dog = {"kind": "狗", "word": "小狗", "start": 2, "end": 4, "supported": True}
    html = files_page(inputs, figures, (dog,), ("沙滩",))
    assert "No clear difference in this run" in html
    assert "90.0 characters with the curriculum" in html
    assert ("right", "小狗") in Texts(html).marks
    assert '○ missed</b> <span lang="zh-CN">沙滩</span>' in html


# Small things


def test_titles_of_two_scripts_are_split():
    assert split_title("城市车水马龙-city-traffic") == ("城市车水马龙", "city traffic")
    assert split_title("test-0000001") == ("test-0000001", "")


def test_numbers_are_short():
    assert [short_number(n) for n in (87, 410_000, 26_223_616)] == ["87", "410 k", "26.2 M"]


def run_python(inputs, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in the folder of the inputs."""
    inputs.write("params.yaml", yaml.safe_dump(inputs.raw, allow_unicode=True))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], check=False, cwd=inputs.root, env=environment, capture_output=True, text=True
    )


def test_the_stage_writes_its_outputs_and_loads_no_torch(inputs):
    code = (
        "import sys; from stages.report.__main__ import main; main();"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = run_python(inputs, "-c", code)
    assert done.returncode == 0, done.stderr
    for name in ("reports/index.html", "metrics/pretrain.json", "reports/loss.csv", "reports/checkpoints.csv"):
        assert (inputs.root / name).stat().st_size > 0
    assert not list((inputs.root / "reports").glob("*.partial"))


def test_a_missing_input_ends_in_one_line_and_code_2(inputs):
    (inputs.root / "reports/loss/sft-long.csv").unlink()
    done = run_python(inputs, "-m", "stages.report")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "reports/loss/sft-long.csv is missing" in done.stderr
    assert not (inputs.root / "reports/index.html").exists()
