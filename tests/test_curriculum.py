"""The curriculum and the tokenizer that it counts with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import curriculum
from stages.common.chat import IGNORED, IMAGE, Encoder, prompt_text
from stages.common.errors import InputError
from stages.common.params import TokenizerParams, load_params
from stages.common.samples import SampleDataset, check_positions, count_targets
from stages.common.world import COLOUR_WORDS
from stages.curriculum import fit_answer, phase_samples
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
    TokenizerParams(vocab_size=600, max_token_length=3, scenes=1),
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


def test_filter_is_all_or_nothing() -> None:
    answer = ROWS[0]["texts"][0]["answer"]
    whole = sum(map(tokens, answer))
    assert fit_answer(answer, whole, "filter", ENCODER) == answer
    assert fit_answer(answer, whole - 1, "filter", ENCODER) == []


def samples(limit: int, **changes: object):
    return phase_samples(ROWS, limit, 800, PARAMS.sft.model_copy(update=changes), ENCODER, 1)


def test_a_phase_gets_its_budget_and_its_length() -> None:
    short, dropped, longest = samples(18)
    assert 800 <= count_targets(short) < 800 + 60
    assert longest <= 18 and dropped == 0
    assert samples(40)[2] > longest


def test_phases_show_the_same_pictures_with_other_texts() -> None:
    short, long = samples(18)[0], samples(40)[0]
    count = min(len(short), len(long))
    assert [sample[0] for sample in short[:count]] == [sample[0] for sample in long[:count]]
    assert short[:count] != long[:count]


def test_a_sample_longer_than_the_decoder_is_refused() -> None:
    dataset = SampleDataset(samples(40)[0], None, 36, ENCODER.token_id(IMAGE))
    longest = max(dataset.lengths)
    check_positions(dataset, longest)
    with pytest.raises(InputError, match=rf"max_position_embeddings: a sample takes {longest} positions"):
        check_positions(dataset, longest - 1)


def test_a_phase_is_a_function_of_its_own_settings() -> None:
    assert samples(18) == samples(18, max_len=77, shuffle=False, epochs=9)


def test_nothing_fits_ends_instead_of_searching_for_ever() -> None:
    found, dropped, _ = samples(1)
    assert found == [] and dropped > 0


def test_a_budget_that_is_not_reached_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ROWS' descriptions none fits whole into phase short's 24 tokens."""
    monkeypatch.chdir(tmp_path)
    params = PARAMS.model_copy(update={"sft": PARAMS.sft.model_copy(update={"fit": "filter", "question_share": 0.0})})
    monkeypatch.setattr(curriculum, "load_params", lambda: params)
    monkeypatch.setattr(curriculum, "load_tokenizer", lambda: TOKENIZER)
    monkeypatch.setattr(curriculum, "read_rows", lambda *_: ROWS)
    with pytest.raises(InputError, match=r"sft\.phases\.short\.max_len: next to no .* 0 of 100000 target tokens"):
        curriculum.main()
    assert list((tmp_path / "data").iterdir()) == []


def test_labels_mark_answers_and_their_ends_alone() -> None:
    turns = [("图中有小狗吗？", ["有，图中有小狗。"]), ("还有呢？", ["大树。"])]
    ids, labels = ENCODER.dialogue(turns, image=True)
    learnt = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert TOKENIZER.decode(learnt) == "有，图中有小狗。<|im_end|>大树。<|im_end|>"
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    messages = []
    for number, (question, answer) in enumerate(turns):
        content = [{"type": "image"}] * (number == 0) + [{"type": "text", "text": question}]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": "".join(answer)}]
    assert TOKENIZER.decode(ids) + "\n" == TOKENIZER.apply_chat_template(messages, tokenize=False)


def test_the_prompt_is_the_chat_template_s() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "请描述。"}]
    messages = [{"role": "user", "content": content}]
    made = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert made == prompt_text("请描述。", image=True)
    assert ENCODER.ids(made).count(ENCODER.token_id(IMAGE)) == 1


def test_a_vocabulary_that_does_not_hold_the_characters_is_refused() -> None:
    with pytest.raises(InputError, match=r"tokenizer\.vocab_size: the corpus needs \d+ tokens .* not 300"):
        train_tokenizer(
            (text for text in ["".join(map(chr, range(0x4E00, 0x4F00)))]),
            TokenizerParams(vocab_size=300, max_token_length=3, scenes=1),
        )


@given(st.text(max_size=40))
def test_any_text_comes_back(text: str) -> None:
    special = ("<|", "<image>", "<0x")
    if not any(mark in text for mark in special):
        assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("word", ["红色", "小狗", "user", "assistant", "<|im_end|>", "<image>"])
def test_words_are_single_tokens(word: str) -> None:
    assert tokens(word) == 1
