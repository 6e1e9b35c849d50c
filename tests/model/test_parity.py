"""The converted model computes what the public implementation does: tokens, logits, losses, training, answers.

Twice: against that implementation's own numbers, where they lie beside this checkout, and everywhere against a second
writing of the same model in plain PyTorch (reference.py), on a smaller one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaProcessor, PreTrainedTokenizerFast

from model.convert import convert
from model.minimind.checkpoint import load_minimind, vision_language_model
from model.vlm.modeling import VlmForConditionalGeneration
from tests.model import reference
from tests.model.asking import asked

UPSTREAM = Path(__file__).parents[3] / "shared/upstream"
TINY = UPSTREAM / "minimind-v-tiny"
PLACEHOLDER = 34  # `@`, which the public implementation puts where a picture goes

FIXTURES = Path(__file__).parent / "fixtures"

upstream = pytest.mark.skipif(not TINY.exists(), reason="the public code's numbers are not beside this checkout")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity") / "model"
    convert(TINY / "sft_vlm_64.pth", TINY / "clip", UPSTREAM / "tokenizer", folder, None)
    return folder


@pytest.fixture(scope="module")
def processor(directory: Path) -> LlavaProcessor:
    return AutoProcessor.from_pretrained(directory)


@pytest.fixture
def network(directory: Path) -> VlmForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(directory)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "model"
    convert(FIXTURES / "minimind.pth", FIXTURES / "clip", FIXTURES / "tokenizer", folder, None)
    return folder


def json_file(name: str) -> Any:
    return json.loads((TINY / name).read_text(encoding="utf-8"))


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TINY / "data.jsonl").read_text(encoding="utf-8").splitlines()]


def in_parts(message: dict[str, str]) -> dict[str, Any]:
    """The same message with its picture as a part of the content, as transformers has it."""
    before, image, after = message["content"].partition("<image>")
    parts = [{"type": "text", "text": before}, *([{"type": "image"}] if image else []), {"type": "text", "text": after}]
    return {"role": message["role"], "content": parts}


def encode(processor: LlavaProcessor, row: dict[str, Any], max_length: int) -> dict[str, torch.Tensor]:
    text = processor.apply_chat_template([in_parts(message) for message in row["conversations"]])
    picture = Image.open(TINY / "images" / row["image"])
    return processor(images=picture, text=text, truncation=True, max_length=max_length, return_tensors="pt")


def encoded_rows(processor: LlavaProcessor) -> list[dict[str, torch.Tensor]]:
    """The model's inputs for each row, with the targets that the reference marks."""
    inputs = []
    for row, expected in zip(rows(), json_file("expected_tokens.json"), strict=True):
        encoded = dict(encode(processor, row, expected["max_length"]))
        target = torch.tensor([expected["loss_mask"]], dtype=torch.bool)
        inputs.append({**encoded, "labels": encoded["input_ids"].where(target, -100)})
    return inputs


@upstream
def test_texts_become_the_same_tokens(processor: LlavaProcessor) -> None:
    for row, expected in zip(rows(), json_file("expected_tokens.json"), strict=True):
        ids = encode(processor, row, expected["max_length"])["input_ids"][0].tolist()
        theirs = [processor.image_token_id if token == PLACEHOLDER else token for token in expected["input_ids"]]
        assert ids == theirs
        # The image token may also be written in a string.
        assert processor.apply_chat_template(row["conversations"]) == processor.apply_chat_template(
            [in_parts(message) for message in row["conversations"]]
        )


@upstream
def test_logits_and_losses_are_the_same(processor: LlavaProcessor, network: VlmForConditionalGeneration) -> None:
    expected = load_file(TINY / "expected_logits.safetensors")
    for number, inputs in enumerate(encoded_rows(processor)):
        labels = inputs.pop("labels")
        with torch.no_grad():
            logits = network(**inputs).logits[0]
            loss = network(**inputs, labels=labels).loss
        # Sums of 6400 numbers, each with a rounding error of its own.
        torch.testing.assert_close(logits.sum(-1), expected[f"logits_sum.{number}"], atol=1e-3, rtol=0)
        torch.testing.assert_close(loss, expected[f"loss.{number}"][0], atol=1e-4, rtol=0)
        if number < 4:
            torch.testing.assert_close(logits[-16:], expected[f"logits_last16.{number}"], atol=1e-4, rtol=0)


@upstream
def test_greedy_answers_are_the_same(processor: LlavaProcessor, network: VlmForConditionalGeneration) -> None:
    for expected in json_file("expected_greedy.json"):
        picture = {"type": "image", "image": Image.open(TINY / "images" / expected["image"])}
        content = [picture, {"type": "text", "text": "\n" + expected["prompt"]}]
        inputs = asked(processor, content)
        theirs = [processor.image_token_id if token == PLACEHOLDER else token for token in expected["prompt_ids"]]
        assert inputs["input_ids"][0].tolist() == theirs
        ids = network.generate(**inputs, max_new_tokens=len(expected["greedy_ids"]), do_sample=False)
        assert ids[0, inputs["input_ids"].shape[1] :].tolist() == expected["greedy_ids"]


def train(network: VlmForConditionalGeneration, batches: list[dict[str, torch.Tensor]], lr: float) -> list[float]:
    """Losses before each of AdamW's steps."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    losses = []
    for batch in batches:
        loss = network(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return losses


@upstream
@pytest.mark.parametrize("kind", ["pretrain", "sft"])
def test_training_goes_the_same_way(processor: LlavaProcessor, network: VlmForConditionalGeneration, kind: str) -> None:
    run = json_file("expected_training.json")[kind]
    network.requires_grad_(False)
    trainable = [network.model.multi_modal_projector]
    if run["trainable"] == "projector+language model":
        trainable += [network.model.language_model, network.lm_head]
    for part in trainable:
        part.requires_grad_(True)
    inputs = encoded_rows(processor)
    losses = train(network, [inputs[row] for row in run["rows"]], run["lr"])
    assert losses == pytest.approx(run["loss"], abs=1e-4)


@upstream
def test_an_ldpv2_checkpoint_computes_the_same() -> None:
    given = load_file(TINY / "ldpv2.safetensors")
    state = {name: value for name, value in load_minimind(TINY / "sft_vlm_64.pth").items() if "vision_proj" not in name}
    for name, value in given.items():
        if name.startswith("weight."):
            state[f"vision_proj.{name.removeprefix('weight.')}"] = value
    network = vision_language_model(state, TINY / "clip", 190)
    assert network.config.projector == "ldpv2"
    with torch.no_grad():
        projected = network.model.multi_modal_projector(given["input"].float())
    torch.testing.assert_close(projected, given["output"], atol=1e-5, rtol=0)


# (size, mode) of a picture, and the turns of its dialogue. Sizes: larger, smaller, much higher than wide.
DIALOGUES = [
    ((40, 24), "RGB", ["<image>\nWhat is it?", "A red dog."]),
    ((5, 3), "RGBA", ["请描述。\n<image>", "一只小狗在草地上，草地是绿色的。"]),
    ((9, 50), "L", ["How many @ are there?<image>", "two", "and dogs?", "一只。"]),
    ((16, 16), "RGB", ["<image>", ""]),
]


def picture(size: tuple[int, int], mode: str) -> Image.Image:
    """Noise, opaque where there is transparency."""
    values = np.random.default_rng(size[0]).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def reference_rows() -> tuple[list[tuple[list[int], list[bool], Image.Image]], int]:
    """Ids by the tokenizer without an image token, targets and pictures; and the id of the placeholder."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(FIXTURES / "tokenizer")
    hole = "\0"  # in no text, and in no merge, as `@` in MiniMind's tokenizer
    rows = []
    for size, mode, turns in DIALOGUES:
        messages = [
            {"role": ("user", "assistant")[number % 2], "content": turn.replace("<image>", hole * 16)}
            for number, turn in enumerate(turns)
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids, targets = [], []
        for number, piece in enumerate(re.split(r"(?<=assistant\n)(.*?<\|im_end\|>\n)", text, flags=re.DOTALL)):
            tokens = tokenizer.encode(piece, add_special_tokens=False)
            ids += tokens
            targets += [number % 2 == 1] * len(tokens)
        assert ids == tokenizer.encode(text, add_special_tokens=False)
        rows.append((ids, targets, picture(size, mode)))
    return rows, tokenizer.convert_tokens_to_ids("Ā")


def reference_weights() -> tuple[reference.Weights, reference.Weights]:
    state = torch.load(FIXTURES / "minimind.pth", weights_only=True)
    clip = load_file(FIXTURES / "clip/model.safetensors")
    return {name: value.float() for name, value in state.items()}, {name: value.float() for name, value in clip.items()}


def small_inputs(processor: LlavaProcessor) -> list[dict[str, torch.Tensor]]:
    inputs = []
    for (size, mode, turns), (ids, targets, _) in zip(DIALOGUES, reference_rows()[0], strict=True):
        messages = [
            in_parts({"role": ("user", "assistant")[number % 2], "content": turn}) for number, turn in enumerate(turns)
        ]
        text = processor.apply_chat_template(messages)
        encoded = dict(processor(images=picture(size, mode), text=text, return_tensors="pt"))
        assert encoded["input_ids"].shape[1] == len(ids)
        inputs.append({**encoded, "labels": encoded["input_ids"].where(torch.tensor([targets]), -100)})
    return inputs


def test_the_model_is_the_one_of_the_papers(small: Path) -> None:
    processor, network = AutoProcessor.from_pretrained(small), AutoModelForImageTextToText.from_pretrained(small)
    rows, hole = reference_rows()
    weights, clip = reference_weights()
    for inputs, (ids, _, image) in zip(small_inputs(processor), rows, strict=True):
        image_id = processor.image_token_id
        assert inputs["input_ids"][0].tolist() == [image_id if token == hole else token for token in ids]
        with torch.no_grad():
            expected = reference.logits(weights, clip, ids, image, hole)
            logits = network(**{name: value for name, value in inputs.items() if name != "labels"}).logits[0]
        assert expected.std() > 1  # numbers near zero would agree whatever the model
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_its_answers_are_those_of_the_papers_model(small: Path) -> None:
    processor, network = AutoProcessor.from_pretrained(small), AutoModelForImageTextToText.from_pretrained(small)
    weights, clip = reference_weights()
    rows, hole = reference_rows()
    for (size, mode, turns), (ids, targets, image) in zip(DIALOGUES[:2], rows[:2], strict=True):
        ids = ids[: targets.index(True)]
        prompt = len(ids)
        for _ in range(4):
            ids.append(int(reference.logits(weights, clip, ids, image, hole)[-1].argmax()))
        content = [
            {"type": "image", "image": picture(size, mode)} if text == "<image>" else {"type": "text", "text": text}
            for text in re.split("(<image>)", turns[0])
        ]
        inputs = asked(processor, content)
        answer = network.generate(**inputs, max_new_tokens=4, do_sample=False)[0, prompt:].tolist()
        assert answer == ids[prompt : prompt + len(answer)]
        assert len(answer) == 4 or answer[-1] == processor.tokenizer.eos_token_id


def test_it_learns_as_the_papers_model(small: Path) -> None:
    processor, network = AutoProcessor.from_pretrained(small), AutoModelForImageTextToText.from_pretrained(small)
    rows, hole = reference_rows()
    weights, clip = reference_weights()
    expected = reference.training(weights, clip, rows * 2, 1e-3, hole)
    network.model.vision_tower.requires_grad_(False)
    assert train(network, small_inputs(processor) * 2, 1e-3) == pytest.approx(expected, abs=1e-4)
    assert expected[4] < expected[0] - 0.1  # it does learn
