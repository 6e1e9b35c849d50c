"""The page in a real browser: no requests, no scripts in texts of a model, mouse and keyboard, and the layout."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.report.page import render_page
from stages.report.run.load_run import Run, load_run
from tests.report.conftest import Inputs, mention

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'
EVIL_NAME = f"pretrain/{EVIL}"  # the part before the slash gives it a colour
PROMPTS = ("description", "caption")
NAMES = ("pretrain", "sft-short", "sft-long", "sft-direct", EVIL_NAME)


SERIES_KEYS = ("chair_i", "chair_i_new", "misnamed", "hallucinated", "recall", "probe_auc")


def point(at: str, value: float) -> dict:
    ends = {"value": value, "low": value - 0.02, "high": value + 0.02}
    return {"at": at, "texts": 40, "intervals": dict.fromkeys(SERIES_KEYS, ends)}


def full_run(inputs: Inputs) -> Run:
    """All figures; a text, the name of a checkpoint and the name of a picture are markup."""
    figures = {
        key: (value, 0.02)
        for key, value in (
            *(
                ("chair_i", 0.2),
                ("chair_s", 0.4),
                ("precision", 0.8),
                ("recall", 0.7),
                ("caption_chair_i", 0.1),
                ("length", 90.0),
            ),
            *(("misnamed", 0.05), ("hallucinated", 0.15), ("two_alternative", 0.8), ("count_accuracy", 0.6)),
            *(("swap_gap_object", 1.2), ("swap_gap_colour", 0.6), ("blind_gap_object", 1.5), ("probe_auc", 0.9)),
            *(("wrong_on_favoured_background", 0.4), ("wrong_on_favoured_background_expected", 0.2)),
            ("pope_accuracy", 0.7),
            *(("chair_i_opening", 0.1), ("chair_i_rest", 0.25), ("chair_i_rise", 0.15), ("unsupported", 1.5)),
            *(("far_first_chair_i_opening", 0.3), ("far_first_chair_i_rest", 0.2), ("reference_chair_i_rise", 0.05)),
            *(("reference_chair_i_opening", 0.0), ("reference_chair_i_rest", 0.05), ("length_opening", 41.0)),
            *(("unsupported_opening", 0.4), ("caption_unsupported", 0.5), ("caption_precision", 0.75)),
            *((f"{key}_near", 0.6) for key in ("recall", "misnamed", "hallucinated", "two_alternative")),
            *((f"{key}_far", 0.3) for key in ("recall", "misnamed", "hallucinated", "two_alternative")),
            *(("caption_length", 18.0), ("recall_opening", 0.4), ("caption_recall", 0.35)),
        )
    }
    series = {
        "sentence": [point(str(k), value) for k, value in enumerate((0.1, 0.13, 0.2, 0.26, 0.33), start=1)],
        "frequency": [point(at, 0.1) for at in ("frequent", "middle", "rare")],
        "layer": [point(str(layer), 0.5 + layer / 10) for layer in range(1, 5)],
    }
    steps = np.arange(1, 61)
    for index, name in enumerate(("pretrain", "sft-short", "sft-long", "sft-direct")):
        changed = {key: (value + 0.05 * index, spread) for key, (value, spread) in figures.items()}
        along = {
            key: [point(each["at"], each["intervals"]["chair_i"]["value"] + 0.05 * index) for each in points]
            for key, points in series.items()
        }
        inputs.write_metrics(name, changed, along)
        inputs.write_loss(name, 1.0 + np.exp(-steps / 10) + 0.02 * np.sin(steps), 6000)
        inputs.add_validation_loss(name, {0: 2.0, 3000: 1.2, 6000: 1.05})
        inputs.write_provenance(name, {"processor": "Test GPU"} if name == "sft-long" else {})
    text = f"有小狗和猫，还有鸟。{EVIL}" + "后面还有很多很多的话。" * 40
    wrong = mention(text, "猫", "cat", supported=False)
    misnamed = mention(text, "鸟", "bird", supported=False, misnamed=True)
    answers = {"小狗-dog": inputs.answer(text, (mention(text, "小狗", "dog"), wrong, misnamed), ("ball",))}
    inputs.write_answers("sft-long", answers | {"cat": inputs.answer("一只猫。")})
    run = load_run(inputs.params, inputs.root)
    last = run.pictures[-1]
    bad = {
        name: replace(
            checkpoint, answers=dict(checkpoint.answers) | {(EVIL, t): checkpoint.answers[last.id, t] for t in PROMPTS}
        )
        for name, checkpoint in run.checkpoints.items()
    }
    bad[EVIL_NAME] = replace(bad["pretrain"], name=EVIL_NAME, phase=None, loss=())
    return replace(run, checkpoints=bad, pictures=(*run.pictures[:-1], last._replace(id=EVIL)))


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """Alone in a folder whose name has a space: the page must not need other files."""
    run = full_run(Inputs(tmp_path_factory.mktemp("inputs")))
    file = tmp_path_factory.mktemp("another folder") / "index.html"
    file.write_text(render_page(run), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, page_file):
    """Opens the page; any console message, dialog or request fails the test."""
    contexts, problems = [], []

    def opened(width: int = 1280, fragment: str = "", **options) -> sync_api.Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith(("data:", page_file.as_uri())) or problems.append(request.url),
        )
        page.goto(page_file.as_uri() + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def shown(page: sync_api.Page, selector: str) -> int:
    return page.locator(selector).filter(visible=True).count()


def test_markup_in_texts_is_shown_as_text(open_page):
    page = open_page()
    assert page.locator("script").count() == 1
    assert page.locator("[onerror], img[src=x]").count() == 0
    assert page.locator(".response .text", has_text="<script>alert(1)</script>").count() == len(PROMPTS)
    assert page.locator(".filter label", has_text="<script>alert(1)</script>").count() == 1
    assert page.locator(".scene h3", has_text="<script>alert(1)</script>").count() == 1
    page.locator(".scene a").last.click()
    sync_api.expect(page.locator("dialog")).to_have_attribute("aria-label", EVIL)


def test_the_content_security_policy_blocks_other_scripts(page_file, browser):
    page = browser.new_page()
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    file = page_file.with_name("changed.html")
    html = page_file.read_text(encoding="utf-8")
    file.write_text(html.replace("</main>", "<script>document.title = 'ran'</script></main>"), encoding="utf-8")
    page.goto(file.as_uri())
    assert page.title() != "ran" and "Content Security Policy" in messages[0]
    page.close()


def test_a_filtered_checkpoint_is_hidden_everywhere(open_page):
    page = open_page()
    parts = (".response", ".dots .line", "#table th", "#table td", ".legend li")
    drawn = '#loss .wide :is([stroke="var(--c2)"], [fill="var(--c2)"])'
    before = [shown(page, f'{part}[data-checkpoint="2"]') for part in parts]
    assert min(before) > 0 and shown(page, drawn) > 0
    page.get_by_label("sft-long", exact=True).uncheck()
    assert [shown(page, f'{part}[data-checkpoint="2"]') for part in parts] == [0] * len(parts)
    assert shown(page, drawn) == 0 and shown(page, "#loss .wide .lane2_marks text") == 0
    assert shown(page, '.response[data-checkpoint="1"]') > 0
    assert page.locator(".filter output").inner_text() == "4 of 5 shown"
    page.get_by_label("sft-long", exact=True).check()
    assert [shown(page, f'{part}[data-checkpoint="2"]') for part in parts] == before


def test_the_filter_by_keyboard(open_page):
    page = open_page()
    page.locator("#show-0").focus()
    page.keyboard.press("Space")
    assert page.locator(".filter output").inner_text() == "4 of 5 shown"
    for _ in NAMES[1:]:
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".filter output").inner_text() == "0 of 5 shown"
    assert shown(page, ".response") == 0
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator(".filter output").inner_text() == "5 of 5 shown"
    assert shown(page, ".response") == 2 * len(NAMES)


def test_an_opened_scene_has_all_its_texts(open_page):
    page = open_page()
    page.get_by_label("sft-long", exact=True).uncheck()
    page.locator(".scene a").first.click()
    dialog = page.locator("dialog")
    sync_api.expect(dialog.locator(".count")).to_have_text("1 of 2")
    assert shown(page, "dialog .response") == len(PROMPTS) * len(NAMES)
    text = dialog.locator('.response[data-checkpoint="2"] .text').first
    assert text.inner_text().count("很多很多") == 40  # not shortened
    assert text.evaluate("element => element.scrollHeight <= element.clientHeight + 1")
    assert dialog.locator('[data-checkpoint="2"] mark.right').first.inner_text() == "小狗"
    assert dialog.locator('[data-checkpoint="2"] mark.hallucinated').first.inner_text() == "猫✗"
    assert "missed" in dialog.locator('[data-checkpoint="2"] .notes .missed').first.inner_text()


def test_scenes_by_keyboard(open_page):
    page = open_page()
    page.locator(".scene a").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    dialog.wait_for()
    for _ in range(9):  # the focus stays inside the dialog
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    for key, count in (("ArrowRight", "2 of 2"), ("ArrowRight", "1 of 2"), ("ArrowLeft", "2 of 2")):
        dialog.locator("button").first.focus()
        page.keyboard.press(key)
        sync_api.expect(dialog.locator(".count")).to_have_text(count)
    assert page.url.endswith("/index.html#scene-2")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.hash") == "#scene-2"
    assert page.url.endswith("/index.html")


def test_a_scene_has_an_address(open_page):
    page = open_page(fragment="#scene-2")
    dialog = page.locator("dialog")
    assert dialog.locator(".count").inner_text() == "2 of 2"
    page.get_by_role("button", name="Close").click()
    dialog.wait_for(state="hidden")
    page.locator(".scene a").first.click()
    dialog.wait_for()
    page.go_back()
    dialog.wait_for(state="hidden")


# Elements whose content is wider than they are; texts that are shortened and answers that are scrolled are allowed.
CUT = """(allowed) => [...document.querySelectorAll('header *, .top *, main *')].filter((element) => {
  if (!element.checkVisibility() || element.closest('svg, .row-name, .text, .answers')) return false;
  if (element.matches('.visually-hidden, input') || (allowed && element.matches(allowed))) return false;
  const hidden = getComputedStyle(element).overflowX !== 'visible' || element.matches('td, th');
  return hidden && element.scrollWidth > element.clientWidth + 1;
}).map((element) => `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 40)}`)"""
# Parts of a card that are outside its borders.
OUTSIDE = """(allowed) => [...document.querySelectorAll('main .card *')].filter((element) => {
  if (!element.checkVisibility() || element.closest('svg, .answers, .visually-hidden')) return false;
  if (allowed && element.closest(allowed)) return false;
  const card = element.closest('.card').getBoundingClientRect(), own = element.getBoundingClientRect();
  return own.width && (own.right > card.right + 1 || own.left < card.left - 1);
}).map((element) => `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 40)}`)"""


@pytest.mark.parametrize(("width", "scrolled"), [(768, "#table .scroll"), (1061, ""), (1200, ""), (1600, "")])
def test_nothing_is_cut_or_outside_its_card(open_page, width, scrolled):
    page = open_page(width)
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert page.evaluate(CUT, scrolled) == []
    assert page.evaluate(OUTSIDE, scrolled) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820])
def test_the_page_fits_narrow_screens(open_page, width, scheme):
    page = open_page(width, color_scheme=scheme)
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    page.locator(".scene a").first.click()
    page.locator("dialog").wait_for()
    assert not page.evaluate(
        "(({scrollWidth, clientWidth}) => scrollWidth > clientWidth)(document.querySelector('dialog'))"
    )
    ink, paper = (
        sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{name}"))[:3]))
        for name in ("color", "backgroundColor")
    )
    assert (ink < paper) == (scheme == "light")


def test_without_scripts_everything_is_shown(open_page):
    page = open_page(java_script_enabled=False)
    assert shown(page, ".response") == 2 * len(NAMES)
    assert shown(page, ".scripted-only") == 0
    page.locator("#show-2").uncheck()  # the filter needs no script
    assert shown(page, '.response[data-checkpoint="2"]') == 0


def test_a_printed_page_has_the_full_texts_and_no_controls(open_page):
    page = open_page()
    page.emulate_media(media="print")
    assert shown(page, ".top") == shown(page, ".segmented") == shown(page, "dialog") == 0
    long = page.locator('.response[data-checkpoint="2"] .text').first
    assert long.evaluate("element => element.scrollHeight <= element.clientHeight + 1")
    closed = page.locator("#table details:not([open]) td").first
    assert closed.evaluate("element => element.checkVisibility({contentVisibilityAuto: true})")
    assert page.pdf(format="A4").startswith(b"%PDF")
