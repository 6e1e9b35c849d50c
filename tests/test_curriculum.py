"""The curriculum and the tokenizer that it counts with."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.vlm.tokenization import with_image_token
from stages import curriculum
from stages.common.config.params import load_params
from stages.common.config.tokenizer import TokenizerParams
from stages.common.core.errors import InputError
from stages.common.data.chat import IGNORED, IMAGE, Encoder, chat_format, with_image
from stages.common.data.packing import SampleDataset, check_positions
from stages.common.data.samples import Samples, cut
from stages.common.world.vocabulary import COLOUR_WORDS
from stages.curriculum import (
    Fit,
    PhaseSamples,
    file_dialogues,
    fit_answer,
    fit_dialogue,
    phase_samples,
    scene_dialogues,
    token_budget,
)
from stages.prepare.sentences import split_sentences
from stages.tokenizer import train_tokenizer

PARAMS = load_params(Path(__file__).parent / "params.yaml")


def row(number: int) -> dict:
    colour = list(COLOUR_WORDS.values())[number % 8][0]
    description = [
        f"海边有一只{colour}的小狗。",
        "右侧还有一棵大树。",
        f"小狗是{colour}的，非常显眼。",
        "整个画面显得十分悠闲。",
    ]
    question = {"question": "图中有小狗吗？", "answer": ["有，图中有小狗。"]}
    return {
        "texts": [
            {"task": "description", "question": "请详细描述这张图片。", "answer": description},
            {"task": "caption", "question": "这张图片里有什么？", "answer": [description[0]]},
            *({"task": task} | question for task in ("random", "popular", "colour")),
        ]
    }


ROWS = [row(number) for number in range(40)]
TOKENIZER = train_tokenizer(
    (
        part
        for r in ROWS
        for t in r["texts"]
        for part in ("user\n" + t["question"], "assistant\n" + "".join(t["answer"]))
    ),
    TokenizerParams(source="train", vocab_size=600, max_token_length=3, scenes=1),
)
ENCODER = Encoder(TOKENIZER)


def tokens(text: str) -> int:
    return len(ENCODER.ids(text))


@given(st.integers(1, 60))
def test_sentences_that_fit_lead_the_answer(max_len: int) -> None:
    answer = ROWS[0]["texts"][0]["answer"]
    shown = fit_answer(answer, max_len, "sentence", ENCODER)
    assert shown == answer[: len(shown)] and sum(map(tokens, shown)) <= max_len
    if len(shown) < len(answer):
        assert sum(map(tokens, answer[: len(shown) + 1])) > max_len


def test_an_answer_that_is_shortened_ends_with_its_last_mark() -> None:
    answer = ["红色的小狗。\n", "大树。\n", "大树。\n"]
    assert fit_answer(answer, sum(map(tokens, answer[:2])), "sentence", ENCODER) == ["红色的小狗。\n", "大树。"]
    assert fit_answer(answer, 100, "sentence", ENCODER) == answer


def test_filter_is_all_or_nothing() -> None:
    answer = ROWS[0]["texts"][0]["answer"]
    whole = sum(map(tokens, answer))
    assert fit_answer(answer, whole, "filter", ENCODER) == answer
    assert fit_answer(answer, whole - 1, "filter", ENCODER) == []


def samples(limit: int, budget: int | None = 800, rows: list[dict] = ROWS, fit: str = "sentence") -> PhaseSamples:
    passes = 1 if budget is None else None
    if rows[0]["texts"][0]["task"] == "turn":
        dialogues = file_dialogues(lambda: rows, passes)
    else:
        dialogues = scene_dialogues(rows, passes, PARAMS.sft.question_share, PARAMS.sft.questions, 1)
    return phase_samples(dialogues, range(len(rows) + 1), Fit(fit, limit, 4), budget, ENCODER)


def listed(found: Samples) -> list[list[list[int]]]:
    return [[part.tolist() for part in sample] for sample in found]


def test_a_phase_gets_its_budget_and_its_length() -> None:
    short, dropped, longest = samples(18)
    assert 800 <= short.target_tokens < 800 + 60
    assert longest <= 18 and dropped == 0
    assert samples(40)[2] > longest


def test_phases_show_the_same_pictures_with_other_texts() -> None:
    short, long = listed(samples(18).samples), listed(samples(40).samples)
    assert 0 < len(long) < len(short)  # longer texts use the same budget up earlier
    assert Counter(number for pictures, *_ in long for number in pictures) <= Counter(
        number for pictures, *_ in short for number in pictures
    )


def test_a_sample_longer_than_the_decoder_is_refused() -> None:
    dataset = SampleDataset(samples(40).samples, None, 36, ENCODER.token_id(IMAGE))
    longest = max(dataset.lengths)
    check_positions(dataset, longest)
    with pytest.raises(InputError, match=rf"max_position_embeddings: a sample takes {longest} positions"):
        check_positions(dataset, longest - 1)


def test_nothing_fits_ends_instead_of_searching_for_ever() -> None:
    found, dropped, _ = samples(1)
    assert len(found) == 0 and dropped > 0


def test_a_budget_that_is_not_reached_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No description in ROWS fits in the 24 tokens of phase short."""
    monkeypatch.chdir(tmp_path)
    params = PARAMS.model_copy(update={"sft": PARAMS.sft.model_copy(update={"fit": "filter", "question_share": 0.0})})
    monkeypatch.setattr(curriculum, "load_params", lambda: params)
    monkeypatch.setattr(curriculum, "load_tokenizer", lambda: TOKENIZER)
    monkeypatch.setattr(curriculum, "read_rows", lambda *_: ROWS)
    monkeypatch.setattr(curriculum, "picture_starts", lambda *_: range(len(ROWS) + 1))
    with pytest.raises(InputError, match=r"sft\.phases\.short\.max_len: almost no .* 0 of 60000 target tokens"):
        curriculum.main()
    assert list((tmp_path / "data").iterdir()) == []


def test_labels_mark_answers_and_their_ends_alone() -> None:
    turns = [("图中有小狗吗？", ["有，图中有小狗。"]), ("还有呢？", ["大树。"])]
    ids, labels = ENCODER.dialogue([(with_image(turns[0][0]), turns[0][1]), turns[1]])
    learnt = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert TOKENIZER.decode(learnt) == "有，图中有小狗。<|im_end|>大树。<|im_end|>"
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    messages = []
    for number, (question, answer) in enumerate(turns):
        content = [{"type": "image"}] * (number == 0) + [{"type": "text", "text": question}]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": "".join(answer)}]
    assert TOKENIZER.decode(ids) == TOKENIZER.apply_chat_template(messages, tokenize=False)


def test_the_prompt_is_the_chat_template_s() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "请描述。"}]
    messages = [{"role": "user", "content": content}]
    made = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert TOKENIZER.decode(ENCODER.prompt(with_image("请描述。"))) == made
    assert ENCODER.prompt(with_image("请描述。")).count(ENCODER.token_id(IMAGE)) == 1


TURN = "{{ '<|im_start|>' + m['role'] + '\\n' + m['content']%s + '%s' }}"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages[-1:] %}" + TURN % ("", "<|im_end|>") + "{% endfor %}",
        "{% for m in messages %}" + TURN % ("|trim", "<|im_end|>") + "{% endfor %}",
        "{% for m in messages %}" + TURN % ("|upper", "<|im_end|>") + "{% endfor %}",
        "{% for m in messages %}" + TURN % ("", "</s>") + "{% endfor %}",
    ],
)
def test_a_template_that_changes_the_texts_is_refused(template: str) -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=r"the chat template of .* does more than write strings around"):
        chat_format(tokenizer)


def turn(question: str, *answer: str) -> dict:
    return {"task": "turn", "question": question, "answer": list(answer), "kind": "", "expected": ""}


FILE_ROWS = [
    {"texts": [turn("<image>\n图中有小狗吗？", "有，图中有小狗。"), turn("还有呢？", "大树。")]},
    {"texts": [turn("请描述。<image>", *ROWS[0]["texts"][0]["answer"])]},
    {"texts": [turn("图中有什么<image>？", "")]},
]


def test_descriptions_come_before_questions() -> None:
    """What order the file has: without one, training unshuffled would be no different from training shuffled."""
    texts = [TOKENIZER.decode(ids) for _, ids, _ in samples(60, budget=4000).samples]
    asks = ["请详细描述这张图片。" not in text for text in texts]
    assert asks == sorted(asks) and 0.15 < sum(asks) / len(asks) < 0.45


def test_both_kinds_of_description_are_shown_and_neither_is_a_question() -> None:
    rows = [
        {"texts": [*r["texts"], {"task": "far_first", "question": "请由远及近地描述。", "answer": ["远处有树。"]}]}
        for r in ROWS
    ]
    tasks = [
        [text["task"] for text in texts]
        for _, texts in scene_dialogues(rows, 20, PARAMS.sft.question_share, PARAMS.sft.questions, 1)
    ]
    counts = Counter(names[0] for names in tasks if len(names) == 1)
    assert set(counts) == {"description", "far_first"} and 0.8 < counts["description"] / counts["far_first"] < 1.25
    assert {name for names in tasks if len(names) > 1 for name in names} == {"caption", "random", "popular", "colour"}


@pytest.mark.parametrize("source", ["world", "jsonl"])
def test_a_phase_has_validation_samples_made_like_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Every held-out scene or row once, whatever the phase's number of target tokens."""
    monkeypatch.chdir(tmp_path)
    phases = {
        name: phase.model_copy(update={"target_tokens": 300 if phase.target_tokens else None})
        for name, phase in PARAMS.sft.phases.items()
    }
    params = PARAMS.model_copy(
        update={
            "sft": PARAMS.sft.model_copy(update={"phases": phases}),
            "data": PARAMS.data.model_copy(update={"source": source}),
        }
    )
    rows = {"train": ROWS, "validation": [row(number) for number in range(7)]}
    if source == "jsonl":
        answer = ROWS[0]["texts"][0]["answer"]
        rows = {split: [{"texts": [turn("<image>请描述。", *answer)]} for _ in rows[split]] for split in rows}
    monkeypatch.setattr(curriculum, "load_params", lambda: params)
    monkeypatch.setattr(curriculum, "load_tokenizer", lambda: TOKENIZER)
    monkeypatch.setattr(curriculum, "read_rows", lambda split, *_: rows[split])
    monkeypatch.setattr(curriculum, "picture_starts", lambda split: range(len(rows[split]) + 1))
    curriculum.main()
    for phase in phases:
        found = listed(Samples.read(tmp_path / f"data/sft/{phase}/validation.parquet"))
        assert sorted(pictures for pictures, *_ in found) == [[number] for number in range(7)]
        longest = max(sum(label != IGNORED for label in labels) for *_, labels in found)
        assert longest <= 4 * (params.sft.max_len_of(phase) + 1)


def test_rows_of_files_come_once_and_in_order() -> None:
    found, dropped, longest = samples(96, None, FILE_ROWS)
    assert [pictures for pictures, _, _ in listed(found)] == [[0], [1], [2]] and dropped == 0
    texts = [TOKENIZER.decode([token for token in labels if token != IGNORED]) for _, _, labels in listed(found)]
    assert texts == [
        "有，图中有小狗。<|im_end|>大树。<|im_end|>",
        "".join(ROWS[0]["texts"][0]["answer"]) + "<|im_end|>",
        "<|im_end|>",
    ]
    assert TOKENIZER.decode(found[1][1]).startswith(
        "<|im_start|>user\n请描述。<image><|im_end|>\n<|im_start|>assistant"
    )
    assert longest == tokens("".join(ROWS[0]["texts"][0]["answer"]))


def test_a_dialogue_ends_where_a_turn_does_not_fit() -> None:
    """Later turns build on earlier ones, and the picture stands in the first."""
    row = {"texts": [turn("<image>有吗？", "有，图中有小狗。"), turn("还有呢？", "大树。")]}
    assert fit_dialogue(row["texts"], Fit("sentence", 3, 4), ENCODER) == []
    row["texts"].reverse()
    assert [question for question, _ in fit_dialogue(row["texts"], Fit("sentence", 3, 4), ENCODER)] == ["还有呢？"]


def test_files_are_read_in_their_order_by_every_phase() -> None:
    """Also by one with a budget, or the arms of a comparison would differ in the order of their data."""
    budgeted = [pictures for pictures, _, _ in listed(samples(96, 100, FILE_ROWS).samples)]
    assert budgeted[:6] == [[0], [1], [2]] * 2


@pytest.mark.parametrize(("max_len", "answered"), [(200, True), (20, True), (11, False)])
def test_cut_counts_the_prompt_and_the_image_tokens(max_len: int, answered: bool) -> None:
    found, dropped, longest = samples(max_len, None, FILE_ROWS[1:2], "cut")
    image_id = ENCODER.token_id(IMAGE)
    assert (len(found), dropped) == ((1, 0) if answered else (0, 1))
    assert longest <= max_len
    if answered:
        item = SampleDataset(found, None, 4, image_id)[0]
        whole = SampleDataset(samples(96, None, FILE_ROWS[1:2]).samples, None, 4, image_id)[0]
        assert item["input_ids"].tolist() == whole["input_ids"][:max_len].tolist()
        assert item["labels"].tolist() == whole["labels"][:max_len].tolist()
        assert item["input_ids"].tolist().count(image_id) == 4
        assert found.target_tokens == (item["labels"] != IGNORED).sum()


def test_a_picture_that_is_cut_off_is_not_shown() -> None:
    image_id = ENCODER.token_id(IMAGE)
    whole = ([0, 1], *ENCODER.dialogue([("<image>有吗？", "有。"), ("<image>还有呢？", "大树。")]))
    pictures, ids, labels = cut(whole, image_id, 8, 24)
    assert pictures.tolist() == [0] and ids.tolist().count(image_id) == 1
    assert (labels != IGNORED).any()
    assert [len(part) for part in cut(whole, image_id, 8, 400)] == [len(part) for part in whole]


def test_a_phase_may_match_a_control_instead_of_being_matched() -> None:
    """direct learns from every row; long from what brings its chain level with that."""
    phases = {
        "short": {"after": "pretrain", "max_len": 24, "target_tokens": 300, "match": None},
        "long": {"after": "sft-short", "max_len": None, "target_tokens": None, "match": "direct"},
        "direct": {"after": "pretrain", "max_len": None, "target_tokens": None, "match": None},
    }
    phases = {name: phase | {"fit": None, "shuffle": None} for name, phase in phases.items()}
    sft = type(PARAMS.sft).model_validate(PARAMS.sft.model_dump() | {"phases": phases})
    assert token_budget("direct", sft, {}) is None
    assert token_budget("long", sft, {"short": 310, "direct": 1000}) == 690
    assert sft.comparisons == [("long", "direct")]
    with pytest.raises(InputError, match=r"phases\.long\.match: the phases before it hold 1010 target tokens already"):
        token_budget("long", sft, {"short": 1010, "direct": 1000})


UPSTREAM = Path(__file__).parents[2] / "shared/upstream"


@pytest.mark.skipif(not UPSTREAM.exists(), reason="the reference's numbers are not beside this checkout")
def test_ids_and_targets_are_those_of_the_reference(tmp_path: Path) -> None:
    """Every row of the reference's data, from its file to what the model is trained on."""
    tokenizer = with_image_token(UPSTREAM / "tokenizer")
    encoder = Encoder(tokenizer)
    lines = (UPSTREAM / "minimind-v-tiny/data.jsonl").read_text(encoding="utf-8").splitlines()
    expected = json.loads((UPSTREAM / "minimind-v-tiny/expected_tokens.json").read_text(encoding="utf-8"))
    rows = []
    for line in lines:
        texts = [message["content"] for message in json.loads(line)["conversations"]]
        pairs = zip(texts[::2], texts[1::2], strict=True)
        rows.append({"texts": [turn(question, *split_sentences(answer)) for question, answer in pairs]})
    found, *_ = phase_samples(file_dialogues(lambda: rows, 1), range(7), Fit("cut", 384, 196), None, encoder)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    dataset = SampleDataset(found, None, 196, image_id)
    assert len(dataset) == len(expected) == 6
    for item, reference in zip(dataset, expected, strict=False):
        ids = np.where(item["input_ids"] == image_id, 34, item["input_ids"])
        assert ids.tolist() == reference["input_ids"]
        assert (item["labels"] != IGNORED).astype(int).tolist() == reference["loss_mask"]
        assert (item["labels"] == item["input_ids"])[item["labels"] != IGNORED].all()


def test_a_vocabulary_that_does_not_hold_the_characters_is_refused() -> None:
    with pytest.raises(InputError, match=r"tokenizer\.vocab_size: the corpus needs \d+ tokens .* not 300"):
        train_tokenizer(
            (text for text in ["".join(map(chr, range(0x4E00, 0x4F00)))]),
            TokenizerParams(source="train", vocab_size=300, max_token_length=3, scenes=1),
        )


@given(st.text(max_size=40))
def test_any_text_comes_back(text: str) -> None:
    special = ("<|", "<image>", "<0x")
    if not any(mark in text for mark in special):
        assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("word", ["红色", "小狗", "user", "assistant", "<|im_end|>", "<image>"])
def test_words_are_single_tokens(word: str) -> None:
    assert tokens(word) == 1
