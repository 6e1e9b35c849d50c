"""The model: sizes, the cached path against the pixel path, losses, checkpoints as transformers directories."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPVisionConfig, LlamaConfig

from model.vlm.configuration import VlmConfig, vlm_config
from model.vlm.grids import PROJECTORS
from model.vlm.modeling import Targets, VlmForConditionalGeneration, count_parameters
from model.vlm.projectors import LDPProjector, LDPv2Projector
from model.vlm.tokenization import with_image_token
from stages.common.training.checkpoints import save_checkpoint

UPSTREAM = Path(__file__).parents[3] / "shared/upstream/minimind-v-tiny"


def config(projector: str, vocab_size: int = 400, image_id: int = 3) -> VlmConfig:
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return vlm_config(
        CLIPVisionConfig(**vision, image_size=48, patch_size=8),
        LlamaConfig(**text, num_key_value_heads=2, vocab_size=vocab_size),
        projector,
        image_id,
    )


def tiny(projector: str = "linear", **kwargs: int) -> VlmForConditionalGeneration:
    torch.manual_seed(0)
    return VlmForConditionalGeneration(config(projector, **kwargs)).eval()


@pytest.fixture
def tokenizer():
    return with_image_token(Path(__file__).parent / "fixtures/tokenizer")


@pytest.mark.parametrize(
    ("projector", "parameters", "tokens"),
    [("linear", 26_223_616, 196), ("mlp", 26_486_272, 196), ("ldp", 27_287_296, 49), ("ldpv2", 26_491_392, 144)],
)
def test_minimind_v_has_this_many_parameters(projector: str, parameters: int, tokens: int) -> None:
    text = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2}
    full = vlm_config(
        CLIPVisionConfig(hidden_size=768, image_size=224, patch_size=16, num_hidden_layers=1),
        LlamaConfig(**text, intermediate_size=1408, vocab_size=6400),
        projector,
        3,
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


def test_ldp_is_the_one_of_the_paper() -> None:
    """Written out with PyTorch's functions: MobileVLM's section 3.4, with MobileNetV3's block inside."""
    torch.manual_seed(0)
    projector = LDPProjector(config("ldp"))
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = projector.state_dict()
    patches = torch.randn(2, 25, 24)  # an odd side: the second block keeps the first and the last patch

    def norm(grid: torch.Tensor, name: str) -> torch.Tensor:
        centred = grid - grid.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    def block(grid: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        hidden = functional.conv2d(grid, weights[f"{name}.depthwise.weight"], stride=stride, padding=1, groups=32)
        hidden = norm(hidden, f"{name}.depthwise_norm")
        hidden = hidden * (hidden + 3).clamp(0, 6) / 6
        mean = hidden.flatten(2).mean(2)
        scale = mean
        for part, after in (("squeeze", torch.relu), ("excite", torch.clone)):
            weight, bias = (weights[f"{name}.excitation.{part}.{kind}"] for kind in ("weight", "bias"))
            scale = after(scale @ weight.T + bias)
        hidden = hidden * ((scale + 3).clamp(0, 6) / 6)[:, :, None, None]
        return norm(functional.conv2d(hidden, weights[f"{name}.pointwise.weight"]), f"{name}.pointwise_norm")

    hidden = functional.gelu(functional.linear(patches, weights["linear_1.weight"], weights["linear_1.bias"]))
    hidden = functional.linear(hidden, weights["linear_2.weight"], weights["linear_2.bias"])
    grid = hidden.transpose(1, 2).reshape(2, 32, 5, 5)
    expected = block(grid + block(grid, "keep", 1), "halve", 2).reshape(2, 32, 9).transpose(1, 2)
    actual = projector(patches)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    actual.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in projector.parameters())


@pytest.mark.parametrize("projector", PROJECTORS)
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


def test_a_pack_without_targets_has_the_shape_of_one_with_few() -> None:
    """Or a layer would be compiled for it alone."""
    none, one = torch.full((1, 5), -100), torch.tensor([[-100, -100, 7, -100, -100]])
    assert Targets.of(none).count == 0 and Targets.of(one).count == 1
    assert Targets.of(none).positions.shape == Targets.of(one).positions.shape
    assert (Targets.of(none).tokens == -100).all()


def test_rows_of_a_batch_have_targets_of_their_own() -> None:
    """Also where hidden states end at targets: those of every row are its own."""
    network = tiny()
    features, ids = torch.randn(2, 36, 24), torch.tensor([[1, *[3] * 36, 7, 8, 9, 5], [2, *[3] * 36, 9, 6, 7, 8]])
    labels = ids.where(torch.arange(41) > torch.tensor([[38], [37]]), -100)  # two and three
    with torch.no_grad():
        out = network(input_ids=ids, patch_features=features, labels=labels)
        logits = network(input_ids=ids, patch_features=features).logits
    expected = torch.cat([logits[0, 38:40], logits[1, 37:40]])
    assert torch.allclose(out.logits, expected, atol=1e-5)
    assert out.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(expected, torch.cat([ids[0, 39:], ids[1, 38:]])).item(), rel=1e-5
    )


@pytest.mark.parametrize(("projector", "image_tokens"), [("linear", 36), ("mlp", 36), ("ldp", 9), ("ldpv2", 25)])
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


@pytest.mark.parametrize("first", ["import model", "from transformers import LlavaConfig; import model"])
def test_importing_the_package_is_enough_to_load_a_checkpoint(tmp_path: Path, tokenizer, first: str) -> None:
    network = tiny(vocab_size=len(tokenizer), image_id=tokenizer.convert_tokens_to_ids("<image>"))
    save_checkpoint(network, tokenizer, tmp_path / "checkpoint")
    code = f"""
        {first}
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
        folder = {str(tmp_path / "checkpoint")!r}
        loaded = [auto.from_pretrained(folder) for auto in (AutoModelForImageTextToText, AutoConfig, AutoProcessor)]
        print(*(type(part).__name__ for part in loaded), len(AutoTokenizer.from_pretrained(folder)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["VlmForConditionalGeneration", "VlmConfig", "LlavaProcessor", str(len(tokenizer))]
