"""The page: marked mentions, escaped texts, no other files, and statements that match the figures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import yaml

from stages.report.page import render_page
from stages.report.run.load_run import load_run
from stages.report.run.records import DESCRIBING_TASKS, Answer
from stages.report.scene_views import scene_view, segments, split_title
from stages.report.templating import short_number

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


def span(start: int, end: int, supported: bool, misnamed: bool = False) -> dict:
    return {
        "kind": "dog",
        "word": "w",
        "start": start,
        "end": end,
        "supported": supported,
        "misnamed": misnamed,
    }


# Marks


def test_mentions_are_marked_by_their_state(inputs):
    text = "有小狗、皮球和猫，还有鸟。"
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
        {"kind": "bird", "word": "鸟", "start": 11, "end": 12, "supported": False, "misnamed": True},
    )
    answers = {"小狗-dog": inputs.answer(text, mentions), "cat": inputs.answer("空。", (), ("cat",))}
    inputs.write_answers("sft-long", answers)
    html = page(inputs)
    marks = Texts(html).marks
    assert ("right", "小狗") in marks
    assert ("hallucinated", "猫✗") in marks  # a symbol, too, for readers who do not see the colour
    assert ("misnamed", "鸟≠") in marks
    assert ("colour", "皮球◐") in marks
    assert "皮球: 绿色, is 蓝色" in html
    assert re.search(r"○ missed</b> <span[^>]*>小猫</span>", html)


def test_segments_keep_all_characters():
    text = "左边有一只小狗，右边有一只猫。"
    parts = segments(make(text, span(13, 14, False), span(5, 7, True)))
    assert "".join(part.text for part in parts) == text
    assert [(part.text, part.state) for part in parts if part.state != "plain"] == [
        ("小狗", "right"),
        ("猫", "hallucinated"),
    ]


def test_overlapping_and_invalid_spans_lose_no_text():
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


# Summary


def test_both_budgets_are_on_the_page(inputs):
    html = page(inputs)
    assert html.count("<b>6,008</b> target tokens") == 2


def test_the_page_says_that_one_run_cannot_answer(inputs):
    html = page(inputs)
    assert "One run cannot answer the question above." in html
    assert "Its figures change with the seed and, through rounding, with the processor." in html
    headlines = re.findall(r"<h2>(.*?)</h2>", html)
    assert not [headline for headline in headlines if re.match(r"(Yes|No)\b(?! clear)", headline)]


def test_wrong_mentions_are_split_and_the_probe_is_drawn_per_layer(inputs):
    layers = [
        {"at": str(layer), "texts": 40, "intervals": {"probe_auc": {"value": 0.7, "low": None, "high": None}}}
        for layer in (1, 2)
    ]
    for name in NAMES:
        figures = {"chair_i": (0.3, 0.02), "misnamed": (0.1, 0.02), "hallucinated": (0.2, 0.02)}
        inputs.write_metrics(name, figures, {"layer": layers})
    html = page(inputs)
    assert "Absent objects mentioned" in html and "misnamed</li>" in html
    assert "Probe per layer, ROC AUC" in html and "Probe of the hidden state, layer 2" in html


def test_a_run_without_a_control_says_so(inputs):
    del inputs.raw["sft"]["phases"]["direct"]
    html = page(inputs)
    assert "This run has no control arm" in html
    assert "sft-direct" not in html


def test_the_page_shows_each_question_with_its_figures(inputs):
    accuracy = {name: 0.5 + 0.1 * index for index, name in enumerate(NAMES)}
    for name in NAMES:
        figures = {"two_alternative": (accuracy[name], 0.02), "chair_i": (0.1, 0.02)}
        inputs.write_metrics(name, figures)
    html = page(inputs)
    assert "In this run, two-alternative accuracy is higher after every phase than after pretraining" in html
    assert ">60.0 [58.0,\u00a062.0]</td>" in html and 'minus pretraining&#39;s">+10.0' in html


def test_the_page_is_made_with_undefined_figures_and_empty_logs(inputs):
    for name in ("pretrain", "sft-short", "sft-long", "sft-direct"):
        inputs.write_metrics(name, {"chair_i": (None, 0.0), "novel_figure": (1.5, 0.1)})
        inputs.write(f"reports/loss/{name}.csv", "step,epoch,target_tokens,loss,learning_rate,grad_norm\n")
    html = page(inputs)
    assert "No loss was logged." in html
    assert "novel_figure" in html  # a figure without a title is shown by its key


# Data from files


def files_page(inputs, figures: dict, mentions: tuple = (), missed: tuple = ()) -> str:
    """The page of a run on files, with pictures of unknown content."""
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


def test_the_page_of_pictures_with_unknown_content(inputs):
    html = files_page(inputs, {"loss": (2.5, 0.1), "length": (80.0, 2.0), "swap_gap": (0.4, 0.02)})
    assert "Mentions in these texts are not counted" in html
    assert "No clear difference in this run in the image-swap gap" in html
    assert "The image-swap gap of all words" in html
    assert "Yes/no questions" not in html and "CHAIR-i" not in html and "all objects named" not in html


def test_photographs_of_known_content_are_compared(inputs):
    figures = {"photograph_chair_i": (0.3, 0.1), "photograph_recall": (0.5, 0.1), "photograph_length": (90.0, 5.0)}
    dog = {"kind": "狗", "word": "小狗", "start": 2, "end": 4, "supported": True}
    html = files_page(inputs, figures, (dog,), ("沙滩",))
    assert "No clear difference in this run" in html
    assert "90.0 characters with the curriculum" in html
    assert ("right", "小狗") in Texts(html).marks
    assert '○ missed</b> <span lang="zh-CN">沙滩</span>' in html


def test_a_photograph_is_judged_by_all_of_its_texts(inputs):
    """Here only the description names a thing; the caption, the last text, names none."""
    dog = {"kind": "狗", "word": "小狗", "start": 2, "end": 4, "supported": True}
    named = inputs.answer("一只小狗。", (dog,), ())
    for name in NAMES:
        inputs.write_answers(name, {"小狗-dog": named, "cat": inputs.answer("一只猫。")})
    run = load_run(inputs.params, inputs.root)
    picture = next(picture for picture in run.pictures if picture.id == "小狗-dog")._replace(scene=None)
    caption = DESCRIBING_TASKS[-1]
    for checkpoint in run.checkpoints.values():
        silent = checkpoint.answers[picture.id, caption].model_copy(update={"mentions": (), "missed": ()})
        checkpoint.answers[picture.id, caption] = silent
    assert scene_view(run, picture).measured


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
    for name in (
        "reports/index.html",
        "metrics/pretrain.json",
        "reports/loss.csv",
        "reports/checkpoints.csv",
        "reports/times.html",
    ):
        assert (inputs.root / name).stat().st_size > 0
    assert not list((inputs.root / "reports").glob("*.partial"))


def test_a_missing_input_ends_in_one_line_and_code_2(inputs):
    (inputs.root / "reports/loss/sft-long.csv").unlink()
    done = run_python(inputs, "-m", "stages.report")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "reports/loss/sft-long.csv is missing" in done.stderr
    assert not (inputs.root / "reports/index.html").exists()
