"""The model: sizes, the cached path against the pixel path, losses, checkpoints as transformers knows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPVisionConfig, LlamaConfig

import model  # noqa: F401  (registers the Auto classes)
from model.configuration import VlmConfig
from model.modeling import VlmForConditionalGeneration, count_parameters
from model.projectors import LDPv2Projector
from stages.common.checkpoints import save_checkpoint
from stages.common.params import TokenizerParams
from stages.evaluate.answers import Answerer, Question
from stages.tokenizer import train_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared/upstream/minimind-v-tiny"
TEXTS = ["user\n请描述这张图片。", "assistant\n海边有一只红色的小狗。图中有狗吗？没有。"] * 20


def config(projector: str, vocab_size: int = 400, image_id: int = 3) -> VlmConfig:
    return VlmConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=48,
            patch_size=8,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ).to_dict(),
        projector=projector,
        image_token_index=image_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def tiny(projector: str = "linear", **kwargs: int) -> VlmForConditionalGeneration:
    torch.manual_seed(0)
    return VlmForConditionalGeneration(config(projector, **kwargs)).eval()


@pytest.fixture
def tokenizer():
    return train_tokenizer(iter(TEXTS), TokenizerParams(vocab_size=400, max_token_length=3, scenes=1))


@pytest.mark.parametrize(
    ("projector", "parameters", "tokens"), [("linear", 26_223_616, 196), ("ldpv2", 26_491_392, 144)]
)
def test_minimind_v_has_this_many_parameters(projector: str, parameters: int, tokens: int) -> None:
    text = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2}
    full = VlmConfig(
        vision_config=CLIPVisionConfig(hidden_size=768, image_size=224, patch_size=16, num_hidden_layers=1).to_dict(),
        text_config=LlamaConfig(**text, intermediate_size=1408, vocab_size=6400, tie_word_embeddings=True).to_dict(),
        projector=projector,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        network = VlmForConditionalGeneration(full)
    network.tie_weights()
    assert count_parameters(network)[0] == parameters
    assert full.image_tokens == tokens


@pytest.mark.skipif(not UPSTREAM.exists(), reason="the reference's numbers are not beside this checkout")
def test_ldpv2_computes_what_the_reference_does() -> None:
    given = {name: value.float() for name, value in load_file(UPSTREAM / "ldpv2.safetensors").items()}
    inputs = next(value for value in given.values() if value.shape == (2, 196, 768))
    expected = next(value for value in given.values() if value.shape == (2, 144, 64))
    width = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    projector = LDPv2Projector(
        VlmConfig(
            vision_config=CLIPVisionConfig(hidden_size=768, image_size=224, patch_size=16).to_dict(),
            text_config=LlamaConfig(**width).to_dict(),
            projector="ldpv2",
        )
    )
    weights = {name: value for name, value in given.items() if value is not inputs and value is not expected}
    with torch.no_grad():
        for parameter in projector.parameters():
            matching = [name for name, value in weights.items() if value.shape == parameter.shape]
            # Layers of one shape come in the order of their names, which is that of the computation.
            parameter.copy_(weights.pop(min(matching)))
        assert not weights
        assert torch.allclose(projector(inputs), expected, atol=1e-5)


@pytest.mark.parametrize("projector", ["linear", "mlp", "ldpv2"])
def test_cached_features_stand_in_for_pixels(projector: str) -> None:
    network = tiny(projector)
    pixels = torch.randn(2, 3, 48, 48)
    ids = torch.tensor([[1, *[3] * network.config.image_tokens, 7, 8, 9]] * 2)
    with torch.no_grad():
        features = network.model.vision_tower(pixels).last_hidden_state[:, 1:]
        by_pixels = network(input_ids=ids, pixel_values=pixels).logits
        by_features = network(input_ids=ids, patch_features=features).logits
        embedded = network(inputs_embeds=network.embed(ids, features)).logits
    assert torch.allclose(by_pixels, by_features, atol=1e-5)
    assert torch.allclose(by_pixels, embedded, atol=1e-5)


def test_the_loss_is_the_plain_cross_entropy_and_padding_changes_nothing() -> None:
    network = tiny()
    features = torch.randn(1, 36, 24)
    ids = torch.tensor([[1, *[3] * 36, 7, 8, 9, 5]])
    labels = torch.where(torch.arange(41) > 38, ids, -100)
    with torch.no_grad():
        loss = network(input_ids=ids, patch_features=features, labels=labels).loss
        logits = network(input_ids=ids, patch_features=features).logits
        plain = torch.nn.functional.cross_entropy(logits[0, 38:40], ids[0, 39:41])
        padded = network(
            input_ids=torch.nn.functional.pad(ids, (0, 5)),
            patch_features=features,
            labels=torch.nn.functional.pad(labels, (0, 5), value=-100),
        ).loss
    assert torch.allclose(loss, plain, atol=1e-6)
    assert torch.allclose(loss, padded, atol=1e-6)


@pytest.mark.parametrize(("projector", "image_tokens"), [("linear", 36), ("mlp", 36), ("ldpv2", 25)])
def test_a_checkpoint_is_an_ordinary_transformers_directory(
    tmp_path: Path, tokenizer, projector: str, image_tokens: int
) -> None:
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    network = tiny(projector, vocab_size=len(tokenizer), image_id=image_id)
    save_checkpoint(network, tokenizer, tmp_path / "checkpoint")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "checkpoint")
    assert type(loaded) is VlmForConditionalGeneration
    content = [{"type": "image"}, {"type": "text", "text": "请描述这张图片。"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    assert int((inputs["input_ids"] == image_id).sum()) == loaded.config.image_tokens == image_tokens
    with torch.no_grad():
        assert torch.allclose(loaded(**inputs).logits, network(**inputs).logits, atol=1e-5)
        assert loaded.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] > inputs["input_ids"].shape[1]


def test_answers_do_not_depend_on_the_batch(tokenizer) -> None:
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    network = tiny(vocab_size=len(tokenizer), image_id=image_id)
    features = np.random.default_rng(0).normal(size=(3, 36, 24)).astype(np.float16)
    questions = [Question(0, "图中有狗吗？"), Question(1, "请描述这张图片。图中有狗吗？"), Question(2, "狗")]
    together = Answerer(network, tokenizer, 3).answer(questions, features, 12, "together")
    alone = Answerer(network, tokenizer, 1).answer(questions, features, 12, "alone")
    assert together == alone
    margins = Answerer(network, tokenizer, 3).margins(questions, features, "有", "没有", "together")
    assert margins == pytest.approx(
        Answerer(network, tokenizer, 1).margins(questions, features, "有", "没有", "alone"), abs=1e-4
    )
