"""A stock LLaVA directory: it works where none of our code can be found, and computes the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from model import export
from model.convert import convert
from model.minimind.checkpoint import set_special_tokens
from model.vlm.modeling import VlmForConditionalGeneration
from model.vlm.processing import build_processor
from model.vlm.tokenization import with_image_token
from tests.model.asking import asked

FIXTURES = Path(__file__).parent / "fixtures"
STRANGER = """
import json, sys
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration, pipeline

result = {}
picture = Image.open("picture.png")
content = [{"type": "image", "image": picture}, {"type": "text", "text": "狗?"}]
messages = [{"role": "user", "content": content}]
options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
for folder in sys.argv[1:]:
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    inputs = AutoProcessor.from_pretrained(folder).apply_chat_template(messages, **options)
    with torch.no_grad():
        save_file({"logits": model(**inputs).logits}, f"{folder}.logits")
    pipe = pipeline("image-text-to-text", folder)
    answers = pipe(text=messages, max_new_tokens=4, generate_kwargs={"do_sample": False}, return_full_text=False)
    result[folder] = answers[0]["generated_text"]
result["ours"] = [name for name in sys.modules if name.split(".")[0] in ("model", "stages", "tests")]
print(json.dumps(result))
"""


@pytest.fixture
def command(command_line: Callable) -> Callable[..., tuple[int, str]]:
    """Runs ``python -m model.export`` in this process: exit code and output."""
    return command_line(export.main)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linear") / "model"
    convert(FIXTURES / "minimind.pth", FIXTURES / "clip", FIXTURES / "tokenizer", folder, None)
    return folder


def with_projector(linear: Path, projector: str, folder: Path) -> Path:
    """The same model but for a new projector."""
    config = AutoModelForImageTextToText.from_pretrained(linear).config
    config.projector = projector
    config.image_seq_length = config.image_tokens
    torch.manual_seed(0)
    network = VlmForConditionalGeneration(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokenizer = with_image_token(FIXTURES / "tokenizer")
    set_special_tokens(network, tokenizer)
    network.save_pretrained(folder)
    build_processor(tokenizer, config).save_pretrained(folder)
    return folder


def test_a_process_without_our_code_gets_the_same(linear: Path, tmp_path: Path, command) -> None:
    sources = {"linear": linear, "mlp": with_projector(linear, "mlp", tmp_path / "source")}
    for kind, source in sources.items():
        assert command("--to", "llava", source, tmp_path / kind)[0] == 0
        stock = json.loads((tmp_path / kind / "config.json").read_text("utf-8"))
        assert (stock["model_type"], stock["architectures"]) == ("llava", ["LlavaForConditionalGeneration"])
        stops, stock_stops = (
            {name: value for name, value in json.loads(file.read_text("utf-8")).items() if name.endswith("_token_id")}
            for file in (source / "generation_config.json", tmp_path / kind / "generation_config.json")
        )
        assert stops == stock_stops == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    noise = np.random.default_rng(0).integers(0, 255, (20, 31, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    finished = subprocess.run(
        [sys.executable, "-P", "-c", STRANGER, *sources],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["ours"] == []
    content = [{"type": "image", "image": Image.open(tmp_path / "picture.png")}, {"type": "text", "text": "狗?"}]
    for kind, source in sources.items():
        network, processor = AutoModelForImageTextToText.from_pretrained(source), AutoProcessor.from_pretrained(source)
        inputs = asked(processor, content)
        with torch.no_grad():
            expected = network(**inputs).logits
        assert expected.std() > 0.1
        stranger = load_file(tmp_path / f"{kind}.logits")["logits"]
        torch.testing.assert_close(stranger, expected, atol=1e-5, rtol=0)
        answer = network.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert result[kind] == processor.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("projector", ["ldp", "ldpv2"])
def test_projectors_that_llava_does_not_have_are_refused(linear: Path, tmp_path: Path, command, projector: str) -> None:
    source = with_projector(linear, projector, tmp_path / "source")
    code, output = command("--to", "llava", source, tmp_path / "out")
    assert (code, output.count("\n")) == (2, 1)
    assert output.startswith(f"error: LLaVA has no {projector} projector")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_cannot_be_exported_is_one_sentence(linear: Path, tmp_path: Path, command) -> None:
    (tmp_path / "alone").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "alone" / name).write_bytes((linear / name).read_bytes())
    stock = tmp_path / "stock"
    assert command("--to", "llava", linear, stock)[0] == 0
    before = sorted(tmp_path.rglob("*"))
    for arguments, name in [
        ((tmp_path / "absent", tmp_path / "out"), "absent holds no model"),
        ((FIXTURES / "clip", tmp_path / "out"), "of type clip"),
        ((stock, tmp_path / "out"), "of type llava"),
        ((tmp_path / "alone", tmp_path / "out"), "alone holds no processor"),
        ((linear, stock), "stock already exists"),
    ]:
        code, output = command("--to", "llava", *arguments)
        assert (code, output.startswith("error: "), output.count("\n")) == (2, True, 1), output
        assert name in output
        assert sorted(tmp_path.rglob("*")) == before
    assert command("--to", "onnx", linear, tmp_path / "out")[0] == 2
