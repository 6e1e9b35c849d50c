"""Sentences: joined, they are the text; numbers and quotations are not split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.prepare.sentences import split_sentences


@given(st.text() | st.text(alphabet='一a1.。！？!?；…\n ”」（）")'))
def test_joined_sentences_are_the_text(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join(sentences) == text
    assert all(sentences) or sentences == [""]


@pytest.mark.parametrize(
    "sentences",
    [
        [""],
        ["没有句号"],
        ["一只狗。", "它在跑！", "真的？！", "是的；", "很快。"],
        ["树高3.5米……很高。", "旁边有花。"],
        ["“你好。”", "他说。", "（完。）", "后来"],
        ["A dog. ", "It weighs 3.5 kg. ", "Really? ", "Well... yes! ", "The end."],
        ["a dog. ", "a cat."],
        ["He said “go.” ", "Then he went."],
        ["第一行\n\n", "第二行\n"],
        ["内容：\n", "1. A red bus. ", "2. 一棵树。\n", "10. 一朵花"],
    ],
)
def test_where_sentences_end(sentences: list[str]) -> None:
    assert split_sentences("".join(sentences)) == sentences
