"""Fetched files that the stages vision, tokenizer and language accept, and files that they reject."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.vlm.tokenization import with_image_token
from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.data.fetched import fetched_file, fetched_folder
from stages.language import fetched_language_model
from stages.tokenizer import fetched_tokenizer
from stages.vision import fetched_clip

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests/model/fixtures"


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files as stage fetch found them, with manifests that name them."""
    folder = tmp_path / "parts"
    shutil.copytree(FIXTURES / "clip", folder / "clip")
    shutil.copytree(FIXTURES / "tokenizer", folder / "tokenizer")
    state = torch.load(FIXTURES / "minimind.pth", weights_only=True)
    torch.save({name: value for name, value in state.items() if not name.startswith("vision_proj")}, folder / "llm.pth")
    monkeypatch.chdir(tmp_path)
    declare("vision", folder / "clip", "config.json", "model.safetensors")
    declare("tokenizer", folder / "tokenizer", "tokenizer.json", "tokenizer_config.json")
    declare("language", folder, "llm.pth")
    return folder


def declare(stage: str, folder: Path, *names: str) -> None:
    files = [{"name": name, "size": (folder / name).stat().st_size, "sha256": ""} for name in names]
    manifest = Path(f"data/fetched/{stage}.json")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({stage: {"source": "local", "repo": str(folder), "files": files}}))


def params(image_size: int = 16) -> Params:
    found = load_params(ROOT / "tests/params.yaml")
    return found.model_copy(
        update={
            "data": found.data.model_copy(update={"image_size": image_size}),
            "vision": found.vision.model_copy(update={"patch_size": 4}),
        }
    )


def test_files_that_fit_are_accepted(parts: Path) -> None:
    weights = load_file(parts / "clip/model.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, parts / "clip/model.safetensors")
    declare("vision", parts / "clip", "config.json", "model.safetensors")
    assert {value.dtype for value in fetched_clip(params()).state_dict().values() if value.is_floating_point()} == {
        torch.float32
    }
    tokenizer = fetched_tokenizer()
    model = fetched_language_model(tokenizer)
    assert model.config.vocab_size == len(tokenizer) and model.config.num_attention_heads == 4
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_clip_of_another_image_size_is_rejected(parts: Path) -> None:
    with pytest.raises(InputError, match=r"data\.image_size: 32, but the fetched vision encoder has 16"):
        fetched_clip(params(32))


def test_a_clip_with_missing_weights_is_rejected(parts: Path) -> None:
    """transformers would initialise them at random."""
    weights = load_file(parts / "clip/model.safetensors")
    save_file({k: v for k, v in weights.items() if "layers.0.self_attn" not in k}, parts / "clip/model.safetensors")
    declare("vision", parts / "clip", "config.json", "model.safetensors")
    with pytest.raises(InputError, match=r"no complete CLIP, without .*layers\.0\.self_attn"):
        fetched_clip(params())


def test_a_damaged_clip_has_a_message_of_one_sentence(parts: Path) -> None:
    (parts / "clip/model.safetensors").write_bytes(b"x" * 100)
    declare("vision", parts / "clip", "config.json", "model.safetensors")
    with pytest.raises(InputError, match="holds no CLIP: "):
        fetched_clip(params())


def test_a_decoder_of_another_vocabulary_is_rejected(parts: Path) -> None:
    tokenizer = with_image_token(FIXTURES / "tokenizer")
    tokenizer.add_tokens(["小狗"])
    with pytest.raises(InputError, match=r"fetch\.language: the tokenizer has \d+ entries, but the checkpoint \d+"):
        fetched_language_model(tokenizer)


def test_no_file_and_several_files_are_rejected(parts: Path) -> None:
    declare("language", parts)
    with pytest.raises(InputError, match=r"fetch\.language\.files: 0 files; give one"):
        fetched_file("language", "language")
    with pytest.raises(InputError, match=r"fetch\.vision\.files: 2 files; give one"):
        fetched_file("vision", "vision")
    declare("tokenizer", parts / "tokenizer")
    with pytest.raises(InputError, match=r"fetch\.tokenizer\.files: no file"):
        fetched_folder("tokenizer", "tokenizer")
