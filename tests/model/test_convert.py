"""Checkpoints in the public layout converted to directories and back; errors for those in another layout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPVisionModel,
    LlamaForCausalLM,
)

from model import convert
from model.errors import ConversionError
from model.minimind import checkpoint
from model.vlm.modeling import VlmForConditionalGeneration

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINT, CLIP, TOKENIZER = FIXTURES / "minimind.pth", FIXTURES / "clip", FIXTURES / "tokenizer"
PUBLIC = Path(__file__).parents[3] / "shared/upstream/minimind-v-tiny/sft_vlm_64.pth"
UP = "model.layers.1.mlp.up_proj.weight"
KEY, PROJECTION = "model.layers.0.self_attn.k_proj.weight", "vision_proj.vision_proj.0.weight"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    return torch.load(CHECKPOINT, weights_only=True)


@pytest.fixture
def command(command_line: Callable) -> Callable[..., tuple[int, str]]:
    """Runs ``python -m model.convert`` in this process: exit code and output."""
    return command_line(convert.main)


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def with_ldpv2(state: State) -> State:
    decoder = {name: value for name, value in state.items() if "vision_proj" not in name}
    for name, shape in {"mlp.mlp.0": (32, 24), "mlp.mlp.2": (32, 32), "peg.peg.0": (32, 1, 3, 3)}.items():
        decoder[f"vision_proj.{name}.weight"] = torch.randn(shape).half()
        decoder[f"vision_proj.{name}.bias"] = torch.randn(32).half()
    return decoder


def same(one: State, other: State) -> bool:
    """Bit for bit, and in the same order."""
    return list(one) == list(other) and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name]) for name, value in one.items()
    )


def test_there_and_back_changes_no_bit(tmp_path: Path, state: State, command) -> None:
    sources = ["--vision", CLIP, "--tokenizer", TOKENIZER]
    code, output = command("--minimind", CHECKPOINT, *sources, "--out", tmp_path / "a/model")
    assert code == 0
    assert "hidden 32, intermediate 48, 2 layers, 4 heads of 8, 2 key-value heads, linear projector to 16" in output
    assert command("--to-minimind", tmp_path / "a/model", "--out", tmp_path / "b/back.pth")[0] == 0
    assert same(torch.load(tmp_path / "b/back.pth", weights_only=True), state)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name.startswith(".")) == []
    # Nothing in the directory says where it was made.
    assert str(FIXTURES) not in "".join(path.read_text("utf-8") for path in (tmp_path / "a/model").glob("*.json"))


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public checkpoint is not beside this checkout")
def test_the_public_tiny_checkpoint_comes_back_unchanged(tmp_path: Path) -> None:
    state = checkpoint.load_minimind(PUBLIC)
    network = checkpoint.vision_language_model(state, PUBLIC.parent / "clip", 190)
    assert same(checkpoint.to_minimind(network), torch.load(PUBLIC, weights_only=True))
    text = network.config.text_config
    assert (text.num_attention_heads, text.num_key_value_heads, text.intermediate_size) == (4, 2, 192)


def test_the_directory_is_an_ordinary_one(tmp_path: Path, state: State) -> None:
    convert.convert(CHECKPOINT, CLIP, TOKENIZER, tmp_path / "model", None)
    network = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    assert type(network) is VlmForConditionalGeneration
    assert network.dtype == network.model.vision_tower.dtype == torch.float32
    text = network.config.text_config
    assert text.rope_parameters["rope_theta"] == 1e6
    assert (text.rms_norm_eps, text.max_position_embeddings, text.vocab_size) == (1e-5, 32768, 300)
    assert network.config.image_token_id == processor.image_token_id == processor.tokenizer.image_token_id == 190
    assert network.lm_head.weight is network.get_input_embeddings().weight
    assert network.get_input_embeddings().padding_idx is None
    tokenizer, generation = processor.tokenizer, network.generation_config
    assert generation.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert generation.pad_token_id == tokenizer.pad_token_id
    vision = load_file(CLIP / "model.safetensors")
    assert torch.equal(
        network.model.vision_tower.embeddings.position_embedding.weight,
        vision["vision_model.embeddings.position_embedding.weight"].float(),
    )


def test_a_decoder_alone(tmp_path: Path, state: State, command) -> None:
    decoder = {name: value for name, value in state.items() if "vision_proj" not in name}
    source = save(decoder, tmp_path / "llm.pth")
    arguments = ("--language-only", "--tokenizer", TOKENIZER)
    assert command("--minimind", source, *arguments, "--out", tmp_path / "llm")[0] == 0
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llm")
    assert type(network) is LlamaForCausalLM
    assert tokenizer.image_token_id == 190
    assert network.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "狗"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert network.generate(**ids, max_new_tokens=3, do_sample=False).shape[1] > ids["input_ids"].shape[1]
    assert command("--to-minimind", tmp_path / "llm", "--out", tmp_path / "back.pth")[0] == 0
    assert same(torch.load(tmp_path / "back.pth", weights_only=True), decoder)
    code, output = command("--minimind", CHECKPOINT, *arguments, "--out", tmp_path / "both")
    assert code == 2
    assert PROJECTION in output


def test_an_ldpv2_checkpoint(tmp_path: Path, state: State) -> None:
    source = save(with_ldpv2(state), tmp_path / "ldpv2.pth")
    convert.convert(source, CLIP, TOKENIZER, tmp_path / "model", None)
    network = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert (network.config.projector, network.config.image_tokens) == ("ldpv2", 9)
    assert same(checkpoint.to_minimind(network), torch.load(source, weights_only=True))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_tables_and_the_frozen_encoder_in_a_file_are_left_out(tmp_path: Path, state: State, prefix: str) -> None:
    extra = {
        f"{prefix}freqs_cos": torch.zeros(9, 4),
        f"{prefix}freqs_sin": torch.zeros(9, 4),
        f"{prefix}pos_cis": torch.zeros(9, 4, dtype=torch.complex64),
        "vision_encoder.vision_model.embeddings.position_ids": torch.arange(17),
    }
    assert same(checkpoint.load_minimind(save({**extra, **state}, tmp_path / "more.pth")), state)


@pytest.mark.parametrize("form", ["bin", "vision"])
def test_any_form_of_clip_directory_will_do(tmp_path: Path, state: State, form: str) -> None:
    if form == "vision":
        CLIPVisionModel.from_pretrained(CLIP).save_pretrained(tmp_path)
    else:
        (tmp_path / "config.json").write_bytes((CLIP / "config.json").read_bytes())
        weights = load_file(CLIP / "model.safetensors")
        # Published files of that time hold this table too.
        weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        save(weights, tmp_path / "pytorch_model.bin")
    expected = checkpoint.vision_language_model(state, CLIP, 190).state_dict()
    actual = checkpoint.vision_language_model(state, tmp_path, 190).state_dict()
    assert same(actual, expected)


def test_heads_follow_from_two_key_value_heads_unless_they_are_given(state: State) -> None:
    decoder = {name: value for name, value in state.items() if "vision_proj" not in name}
    assert checkpoint.infer_shape(decoder).num_attention_heads == 4
    config = checkpoint.infer_shape(decoder, heads=2)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 16)
    # 3 does not divide 32 rows; 16 would make heads of 2, of which the keys have 8; 32 heads of 1 cannot turn.
    for heads in (0, -4, 3, 32, 64):
        with pytest.raises(ConversionError, match=f"^{heads} heads do not fit"):
            checkpoint.infer_shape(decoder, heads)
    for layer in range(2):
        for name in "kv":
            decoder[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = torch.zeros(32, 32)
    with pytest.raises(ConversionError, match="give --heads"):
        checkpoint.infer_shape(decoder)
    assert checkpoint.infer_shape(decoder, 4).num_key_value_heads == 4


@pytest.mark.parametrize(("hidden", "layers", "inner"), [(512, 8, 1408), (768, 16, 2048)])
def test_the_published_shapes_are_inferred(hidden: int, layers: int, inner: int) -> None:
    """MiniMind2-Small's and MiniMind2's."""
    keys, shapes = hidden // 4, {}
    for layer in range(layers):
        sizes = {"self_attn.q_proj": hidden, "self_attn.k_proj": keys, "self_attn.v_proj": keys}
        sizes |= {"self_attn.o_proj": hidden, "mlp.gate_proj": inner, "mlp.up_proj": inner}
        shapes |= {f"model.layers.{layer}.{name}.weight": (rows, hidden) for name, rows in sizes.items()}
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"model.layers.{layer}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    shapes |= {EMBEDDING: (6400, hidden), HEAD: (6400, hidden), "model.norm.weight": (hidden,)}
    config = checkpoint.infer_shape({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (hidden, layers, inner)
    assert (config.num_attention_heads, config.num_key_value_heads) == (8, 2)


def drop(name: str) -> Callable[[State], object]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def put(name: str, value: object) -> Callable[[State], object]:
    return lambda state: {**state, name: value}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (drop(UP), [f"lacks {UP}"]),
        (drop("vision_proj.vision_proj.0.bias"), ["lacks vision_proj.vision_proj.0.bias"]),
        (drop(EMBEDDING), [EMBEDDING]),
        (drop(HEAD), [HEAD]),
        (put("model.layers.0.mlp.experts.0.up_proj.weight", torch.zeros(2)), ["mlp.experts.0.up_proj.weight"]),
        (put("model.layers.2.mlp.up_proj.weight", torch.zeros(48, 32)), ["lacks model.layers.2.self_attn.q_proj"]),
        (put("surprise", torch.zeros(2)), ["holds surprise"]),
        (put(UP, torch.zeros(47, 32)), [UP, "47 x 32", "48 x 32"]),
        (put("model.norm.weight", torch.ones(31)), ["model.norm.weight", "31", "32"]),
        (put(EMBEDDING, torch.zeros(300)), [EMBEDDING]),
        (put(KEY, torch.zeros(15, 32)), [KEY]),
        (put(PROJECTION, torch.zeros(32, 768)), [PROJECTION, "32 x 768"]),
        (put(HEAD, torch.zeros(300, 32)), [HEAD, EMBEDDING]),
        (put(UP, torch.zeros(48, 32, dtype=torch.int8)), [UP, "floating point"]),
        (put(UP, 3.0), ["dictionary of tensors"]),
        (lambda state: list(state.values()), ["dictionary of tensors"]),
        (lambda state: {}, [EMBEDDING]),
        (lambda state: Path("not weights"), ["not a checkpoint that torch can load"]),
    ],
)
def test_a_checkpoint_in_another_layout_is_one_sentence(
    change: Callable[[State], object], names: list[str], tmp_path: Path, state: State, command
) -> None:
    source = save(change(state), tmp_path / "source.pth")
    arguments = ("--vision", CLIP, "--tokenizer", TOKENIZER, "--out", tmp_path / "out")
    code, output = command("--minimind", source, *arguments)
    assert code == 2
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert [name for name in names if name not in output] == []
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def test_what_is_no_model_is_one_sentence_that_names_it(tmp_path: Path, state: State, command) -> None:
    (tmp_path / "text.pth").write_text("hello", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_bytes((CLIP / "config.json").read_bytes())
    (tmp_path / "broken/model.safetensors").write_bytes(b"no tensors")
    lacking = load_file(CLIP / "model.safetensors")
    del lacking["vision_model.encoder.layers.1.mlp.fc1.bias"]
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking/config.json").write_bytes((CLIP / "config.json").read_bytes())
    save(lacking, tmp_path / "lacking/pytorch_model.bin")
    before = sorted(tmp_path.rglob("*"))
    given = {"--minimind": CHECKPOINT, "--vision": CLIP, "--tokenizer": TOKENIZER, "--out": tmp_path / "out"}
    wrong = [
        ({"--minimind": tmp_path / "text.pth"}, "text.pth"),
        ({"--minimind": tmp_path / "absent.pth"}, "absent.pth is not a file"),
        ({"--minimind": tmp_path / "empty"}, "empty is not a file"),
        ({"--vision": tmp_path / "absent"}, "absent holds no vision encoder"),
        ({"--vision": tmp_path / "empty"}, "empty holds no vision encoder"),
        ({"--vision": tmp_path / "broken"}, "broken holds no vision encoder"),
        ({"--vision": tmp_path / "lacking"}, "encoder.layers.1.mlp.fc1.bias missing"),
        ({"--tokenizer": tmp_path / "empty"}, "empty holds no tokenizer"),
        ({"--out": FIXTURES}, "fixtures already exists"),
        ({"--out": CHECKPOINT}, "minimind.pth already exists"),
    ]
    calls = [({**given, **change}, name) for change, name in wrong]
    calls += [({"--to-minimind": tmp_path / "empty", "--out": tmp_path / "out"}, "empty holds no model")]
    calls += [({"--to-minimind": CLIP, "--out": tmp_path / "out"}, "of type clip")]
    for arguments, name in calls:
        code, output = command(*(part for pair in arguments.items() for part in pair))
        assert (code, output.startswith("error: "), output.count("\n")) == (2, True, 1), output
        assert name in output
        assert sorted(tmp_path.rglob("*")) == before


def test_the_command_line_says_what_it_needs(tmp_path: Path, command) -> None:
    out = ("--out", tmp_path / "out")
    for arguments, name in [
        (("--minimind", CHECKPOINT, "--vision", CLIP), "--tokenizer"),
        (("--minimind", CHECKPOINT, "--tokenizer", TOKENIZER), "--language-only"),
        (("--minimind", CHECKPOINT, "--tokenizer", TOKENIZER, "--vision", CLIP, "--language-only"), "--language-only"),
        (("--to-minimind", tmp_path, "--vision", CLIP), "--to-minimind"),
        ((), "--minimind"),
    ]:
        code, output = command(*arguments, *out)
        assert code == 2
        assert name in output.splitlines()[-1]


def test_a_tokenizer_of_another_size_is_an_error(tmp_path: Path, state: State, command) -> None:
    smaller = {**state, EMBEDDING: state[EMBEDDING][:299], HEAD: state[HEAD][:299]}
    arguments = ("--vision", CLIP, "--tokenizer", TOKENIZER, "--out", tmp_path / "out")
    code, output = command("--minimind", save(smaller, tmp_path / "smaller.pth"), *arguments)
    assert code == 2
    assert "the tokenizer has 300 entries, but the checkpoint 299" in output


def test_only_what_the_layout_can_say_goes_back(state: State) -> None:
    def network() -> VlmForConditionalGeneration:
        return checkpoint.vision_language_model(state, CLIP, 190)

    changed = network()
    changed.config.projector = "mlp"
    with pytest.raises(ConversionError, match="no mlp projector"):
        checkpoint.to_minimind(changed)
    changed = network()
    changed.config.text_config.rope_parameters["rope_theta"] = 1e4
    with pytest.raises(ConversionError, match="rotary base 10000"):
        checkpoint.to_minimind(changed)
    changed = network()
    changed.model.language_model.norm.weight.data[3] = 1e6
    with pytest.raises(ConversionError, match=r"half precision .* model\.norm\.weight"):
        checkpoint.to_minimind(changed)
    changed = network()
    changed.lm_head.weight = torch.nn.Parameter(changed.lm_head.weight + 1)
    with pytest.raises(ConversionError, match="not tied"):
        checkpoint.to_minimind(changed)


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.LlavaProcessor.save_pretrained", full)
    arguments = ("--vision", CLIP, "--tokenizer", TOKENIZER, "--out", tmp_path / "out")
    code, output = command("--minimind", CHECKPOINT, *arguments)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "out cannot be written: No space left on device" in output


def test_as_a_command(tmp_path: Path) -> None:
    arguments = ("--vision", CLIP, "--tokenizer", TOKENIZER, "--out", tmp_path / "out")
    finished = subprocess.run(
        [sys.executable, "-m", "model.convert", "--minimind", tmp_path / "absent.pth", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr == f"error: {tmp_path}/absent.pth is not a file\n"
    assert list(tmp_path.iterdir()) == []
