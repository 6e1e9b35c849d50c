"""Which figures the page draws, by topic and in which order."""

from __future__ import annotations

from typing import NamedTuple

from stages.report.cards import (
    DotCard,
    LineCard,
    background_card,
    dot_card,
    gap_cards,
    kinds_note,
    length_card,
    pope_card,
    probe_card,
    prompts_card,
    recall_by_sentence_card,
    series_card,
    wrong_mentions_card,
)
from stages.report.run.figures import measured
from stages.report.run.load_run import Run
from stages.report.run.metric_specs import BY_KEY


class Section(NamedTuple):
    """``key``: name in addresses and, capitalised, in the navigation; ``lead``: a sentence below the title."""

    key: str
    title: str
    lead: str
    line_cards: list[LineCard]
    dot_cards: list[DotCard]
    note: str = ""


def sections(run: Run) -> list[Section]:
    """In the page's order, without those for which nothing was measured."""
    every = (_texts(run), _patterns(run), _picture(run), _attributes(run), _questions(run))
    kept = [
        section._replace(
            line_cards=[card for card in section.line_cards if card.svg],
            dot_cards=[card for card in section.dot_cards if card is not None],
        )
        for section in every
    ]
    return [section for section in kept if section.line_cards or section.dot_cards]


def _texts(run: Run) -> Section:
    lead = "Read them together: a text that names few objects has few chances of an error."
    if run.params.data.source == "world":
        cards = [
            prompts_card(run, "chair_i"),
            prompts_card(run, "unsupported"),
            wrong_mentions_card(run),
            *(prompts_card(run, key) for key in ("chair_s", "precision", "recall")),
            length_card(run),
        ]
        return Section("hallucination", "How many mentioned objects are not in the picture", lead, [], cards)
    if measured(run, "photograph_chair_i"):
        keys = "photograph_chair_i", "photograph_recall", "photograph_length", "loss"
        cards = [prompts_card(run, key) for key in keys]
        return Section(
            "hallucination", "How many mentioned things the manifest of the photographs does not list", lead, [], cards
        )
    cards = [prompts_card(run, "loss"), prompts_card(run, "repetition"), length_card(run)]
    return Section("texts", "Loss and form of the texts", "", [], cards)


def _patterns(run: Run) -> Section:
    return Section(
        "breakdowns",
        "CHAIR-i and recall by frequency and background",
        "Long descriptions, by kind of object.",
        [recall_by_sentence_card(run)],
        [
            series_card(run, "frequency", "chair_i", "CHAIR-i by frequency"),
            series_card(run, "frequency", "hallucinated", "Hallucinated by frequency"),
            series_card(run, "frequency", "misnamed", "Misnamed by frequency"),
            series_card(run, "frequency", "recall", "Recall by frequency"),
            series_card(run, "background", "chair_i", "CHAIR-i by background"),
            background_card(run),
        ],
        kinds_note(run),
    )


def _picture(run: Run) -> Section:
    return Section(
        "picture",
        "How much the texts depend on the picture",
        "Two-alternative accuracy compares the loss with two pictures and does not depend on the confidence of the "
        "model; a gap in nats also grows with it.",
        [probe_card(run)],
        [prompts_card(run, "two_alternative"), *gap_cards(run)],
    )


def _attributes(run: Run) -> Section:
    return Section(
        "attributes",
        "Colour, number, position and relations of the objects",
        "Of the statements about objects that are in the picture, the share that is right.",
        [],
        [prompts_card(run, f"{attribute}_accuracy") for attribute in ("colour", "count", "position", "relation")],
    )


def _questions(run: Run) -> Section:
    return Section(
        "questions",
        "Yes/no questions about objects (POPE)",
        "The absent object is drawn at random, is a frequent one (popular) or usually goes with the background "
        "(adversarial).",
        [],
        [
            pope_card(run, "accuracy", "Accuracy"),
            pope_card(run, "f1", "F1"),
            pope_card(run, "yes_ratio", "Yes-ratio"),
            dot_card(run, BY_KEY["pope_accuracy"], {"": "pope_accuracy"}, title="Accuracy, all questions"),
        ],
    )
