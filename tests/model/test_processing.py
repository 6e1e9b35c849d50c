"""The tokenizer with an image token in it, its chat template, and the processor around both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoProcessor, AutoTokenizer, CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from model.errors import ConversionError
from model.vlm.configuration import VlmConfig
from model.vlm.grids import PROJECTORS
from model.vlm.processing import build_processor
from model.vlm.tokenization import IMAGE, with_image_token

TOKENIZER = Path(__file__).parent / "fixtures/tokenizer"
PUBLIC = Path(__file__).parents[3] / "shared/upstream/tokenizer"
FOLDERS = [
    pytest.param(TOKENIZER, id="small"),
    pytest.param(
        PUBLIC,
        id="public",
        marks=pytest.mark.skipif(not PUBLIC.exists(), reason="MiniMind2's tokenizer is not beside this checkout"),
    ),
]
ODD = [" \n<|im_start|> 'quoted' \"twice\" {{ x }}\n", " \nleading and trailing "]
DIALOGUES = [
    [("user", "你好"), ("assistant", "ok.")],
    [("user", ODD[0]), ("assistant", ODD[1]), ("user", ""), ("assistant", "")],
    [("system", "Be brief.\n"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
]


def messages(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def edited(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a tokenizer's folder with parts of its tokenizer.json replaced."""
    PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(target)
    description = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    description["model"].update(changes)
    (target / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return target


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_image_token_takes_the_place_of_a_byte_that_no_text_has(folder: Path, tmp_path: Path) -> None:
    before, after = AutoTokenizer.from_pretrained(folder), with_image_token(folder)
    after.save_pretrained(tmp_path)
    for tokenizer in (after, AutoTokenizer.from_pretrained(tmp_path)):
        assert len(tokenizer) == len(before) == len(tokenizer.get_vocab())
        assert tokenizer.image_token_id == before.convert_tokens_to_ids("ÿ") == tokenizer.convert_tokens_to_ids(IMAGE)
        around = [*before.encode("狗"), tokenizer.image_token_id, *before.encode("a")]
        assert tokenizer.encode(f"狗{IMAGE}a") == around
        assert tokenizer.decode([tokenizer.image_token_id, *before.encode("狗")], skip_special_tokens=True) == "狗"
        assert (tokenizer.bos_token, tokenizer.eos_token) == (before.bos_token, before.eos_token)
        assert (tokenizer.pad_token, tokenizer.model_max_length) == (before.pad_token, before.model_max_length)
        assert tokenizer.chat_template == after.chat_template


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_other_text_keeps_its_tokens(folder: Path) -> None:
    before, after = AutoTokenizer.from_pretrained(folder), with_image_token(folder)
    texts = ["me@example.org", "@", "@@@ @", "ÿ ý ÿþ", "<image", "草地上的红色小狗 🐕\n\n  x\t", "<|im_end|>"]
    texts.append("".join(map(chr, range(0x500))))
    for text in texts:
        assert after.encode(text) == before.encode(text)
        assert after.decode(after.encode(text)) == before.decode(before.encode(text))
        assert after.image_token_id not in after.encode(text)


def test_an_image_token_that_is_there_stays(tmp_path: Path) -> None:
    own = with_image_token(TOKENIZER)
    part = "{% for p in m['content'] %}{{ p['text'] or '<image>' }}{% endfor %}"
    own.chat_template = "{% for m in messages %}{{ m['role'] }}:" + part + "{% endfor %}"
    own.save_pretrained(tmp_path / "own")
    again = with_image_token(tmp_path / "own")
    assert again.get_vocab() == own.get_vocab()
    assert again.image_token_id == own.image_token_id
    assert again.chat_template == own.chat_template  # it places images already


def test_a_plain_word_named_image_becomes_special(tmp_path: Path) -> None:
    vocabulary = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    folder = edited(TOKENIZER, tmp_path, vocab={**vocabulary, IMAGE: len(vocabulary)})
    tokenizer = with_image_token(folder)
    assert tokenizer.image_token_id == len(vocabulary)
    assert tokenizer.encode(f"a{IMAGE}b").count(len(vocabulary)) == 1
    assert len(tokenizer) == len(vocabulary) + 1


def test_a_tokenizer_with_no_free_entry_is_an_error(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "ÿ": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "words")
    with pytest.raises(ConversionError, match="not a byte-level BPE"):
        with_image_token(tmp_path / "words")
    characters = Tokenizer(models.BPE({"a": 0, "ÿ": 1}, []))
    characters.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=characters).save_pretrained(tmp_path / "characters")
    with pytest.raises(ConversionError, match="not a byte-level BPE"):
        with_image_token(tmp_path / "characters")
    description = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    vocabulary = {**description["vocab"], "aÿ": len(description["vocab"])}
    folder = edited(TOKENIZER, tmp_path / "merged", vocab=vocabulary, merges=[*description["merges"], ["a", "ÿ"]])
    with pytest.raises(ConversionError, match="others contain it"):
        with_image_token(folder)
    with pytest.raises(ConversionError, match=r"nowhere holds no tokenizer"):
        with_image_token(tmp_path / "nowhere")
    (tmp_path / "words/tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConversionError, match=r"words holds no tokenizer that can be read"):
        with_image_token(tmp_path / "words")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("turns", DIALOGUES)
def test_the_template_says_what_the_tokenizers_own_does(folder: Path, turns: list[tuple[str, str]]) -> None:
    before, after = AutoTokenizer.from_pretrained(folder), with_image_token(folder)
    own = before.apply_chat_template(messages(turns), tokenize=False)
    parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    assert after.apply_chat_template(messages(turns), tokenize=False) == own
    assert after.apply_chat_template(parts, tokenize=False) == own
    prompt = before.apply_chat_template(messages(turns[:-1]), tokenize=False)
    assert after.apply_chat_template(messages(turns[:-1]), tokenize=False, add_generation_prompt=True) == prompt
    # Only when asked for: the own template always adds the answer's header.
    assert after.apply_chat_template(messages(turns[:-1]), tokenize=False) == prompt.removesuffix(
        "<|im_start|>assistant\n"
    )


def test_a_picture_is_put_exactly_where_it_stands() -> None:
    tokenizer = with_image_token(TOKENIZER)
    content = [
        {"type": "text", "text": "a "},
        {"type": "image"},
        {"type": "text", "text": "b"},
        {"type": "image"},
        {"type": "image"},
    ]
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == (
        f"<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na {IMAGE}b{IMAGE}{IMAGE}<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}[INST]{{ m['content'] }}[/INST]{% endfor %}", "not of the form"),
        (
            # Of the same form, but it never begins an answer.
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}",
            "not of the form",
        ),
        ("{% for m in messages %}{{ raise_exception('no') }}{% endfor %}", "fails: no"),
        (None, "fails"),
    ],
)
def test_a_template_of_another_form_is_an_error(template: str | None, message: str, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(TOKENIZER)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConversionError, match=message):
        with_image_token(tmp_path)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_the_processor_makes_as_many_places_as_the_projector_fills(projector: str, tmp_path: Path) -> None:
    config = VlmConfig(
        vision_config=CLIPVisionConfig(image_size=56, patch_size=8).to_dict(),
        text_config=LlamaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2).to_dict(),
        projector=projector,
    )
    build_processor(with_image_token(TOKENIZER), config).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    pictures = [Image.new("RGBA", (3, 2), "red"), Image.new("L", (300, 80)), Image.new("P", (56, 56))]
    text = [f"{IMAGE} @ {IMAGE}", f"@{IMAGE}"]
    encoded = processor(images=[pictures[:2], pictures[2:]], text=text, padding=True, return_tensors="pt")
    assert encoded["pixel_values"].shape == (3, 3, 56, 56)
    counts = (encoded["input_ids"] == processor.image_token_id).sum(1).tolist()
    assert counts == [2 * config.image_tokens, config.image_tokens]
    assert config.image_tokens == {"linear": 49, "mlp": 49, "ldp": 16, "ldpv2": 36}[projector]
    at = processor.tokenizer.convert_tokens_to_ids("@")
    assert (encoded["input_ids"] == at).sum(1).tolist() == [1, 1]
    assert encoded["attention_mask"][1, 0] == 0  # filled up on the left
