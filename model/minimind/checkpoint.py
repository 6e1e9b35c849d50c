"""Converts MiniMind-V's published checkpoints to transformers models, and back.

A checkpoint is a state dict of the decoder and the projector, mostly in half precision. The converted model holds the
same values in float32, so converting back restores every bit. What a state dict does not contain is fixed: rotary base
1e6, epsilon 1e-5, 32768 positions, and by default two key-value heads, as in every published MiniMind2 model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    CLIPVisionModel,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.modeling_utils import PreTrainedModel

from model.errors import ConversionError, first_line
from model.vlm.configuration import VlmConfig
from model.vlm.modeling import VlmForConditionalGeneration, join

ROPE_THETA, NORM_EPS, POSITIONS = 1e6, 1e-5, 32768
KEY_VALUE_HEADS = 2  # in every published MiniMind2 model, at any width

# Published files may also contain these: rotary tables, which transformers computes, and the frozen vision encoder,
# which is loaded from its own directory.
BUFFERS = {f"{prefix}{name}" for prefix in ("", "model.") for name in ("freqs_cos", "freqs_sin", "pos_cis")}
VISION_PREFIX = "vision_encoder."
_LISTED = 12  # names in an error message, at most

LAYER = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "input_layernorm",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.down_proj",
    "mlp.up_proj",
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Projector -> {prefix of our parameters: prefix of MiniMind-V's}.
PROJECTOR_KEYS = {
    "linear": {"": "vision_proj.vision_proj.0."},
    "ldpv2": {
        "linear_1.": "vision_proj.mlp.mlp.0.",
        "linear_2.": "vision_proj.mlp.mlp.2.",
        "position.": "vision_proj.peg.peg.0.",
    },
}


def load_minimind(path: Path) -> dict[str, Tensor]:
    """The weights in a MiniMind checkpoint file, without rotary tables and vision encoder.

    Raises ConversionError if the file is not a dictionary of floating-point tensors. Only tensors are unpickled.
    """
    if not path.is_file():
        raise ConversionError(f"{path} is not a file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for unreadable files
        raise ConversionError(f"{path} is not a checkpoint that torch can load: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ConversionError(f"{path} is not a plain dictionary of tensors by name")
    weights = {
        name: value for name, value in state.items() if name not in BUFFERS and not name.startswith(VISION_PREFIX)
    }
    if other := [name for name, value in weights.items() if not value.is_floating_point()]:
        raise ConversionError(f"{path} holds tensors that are not in floating point: {_list(other)}")
    return weights


def infer_shape(state: dict[str, Tensor], heads: int | None = None) -> LlamaConfig:
    """The decoder's configuration. Raises ConversionError if keys or shapes are not those of a MiniMind decoder.

    The number of attention ``heads`` cannot be inferred from the weights' shapes. None: the number that gives two
    key-value heads, which requires fewer rows for keys than for queries.
    """
    _check_keys(state, language_keys(_layers(state)))
    vocabulary, hidden = _matrix(state, EMBEDDING)
    query_rows, _ = _matrix(state, "model.layers.0.self_attn.q_proj.weight")
    key_rows, _ = _matrix(state, "model.layers.0.self_attn.k_proj.weight")
    intermediate, _ = _matrix(state, "model.layers.0.mlp.gate_proj.weight")
    if heads is None:
        if query_rows == key_rows:
            raise ConversionError(
                "the checkpoint has as many keys as queries, so its number of heads is unknown: give --heads"
            )
        heads = KEY_VALUE_HEADS * query_rows // key_rows
    head_dim = query_rows // heads if heads > 0 else 0
    if (
        not head_dim
        or query_rows != hidden
        or heads * head_dim != query_rows
        or head_dim % 2
        or key_rows % head_dim
        or heads % (key_rows // head_dim)
    ):
        raise ConversionError(
            f"{heads} heads do not fit the checkpoint: hidden size {hidden}, {query_rows} rows of queries in "
            f"model.layers.0.self_attn.q_proj.weight, {key_rows} of keys in model.layers.0.self_attn.k_proj.weight"
        )
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=_layers(state),
        num_attention_heads=heads,
        num_key_value_heads=key_rows // head_dim,
        head_dim=head_dim,
        max_position_embeddings=POSITIONS,
        rms_norm_eps=NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        expected = LlamaForCausalLM(config).state_dict()
    _check_shapes(state, {name: tuple(value.shape) for name, value in expected.items()})
    return config


def language_model(state: dict[str, Tensor], heads: int | None = None) -> LlamaForCausalLM:
    """The decoder, in float32, of a checkpoint without other weights. Raises ConversionError, see infer_shape."""
    config = infer_shape(state, heads)
    if not torch.equal(state[HEAD], state[EMBEDDING]):
        raise ConversionError(f"{HEAD} differs from {EMBEDDING}, but MiniMind's are tied")
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def vision_language_model(
    state: dict[str, Tensor], clip: Path, image_token_id: int, heads: int | None = None
) -> VlmForConditionalGeneration:
    """Decoder and projector of a checkpoint, and the vision encoder of the CLIP directory ``clip``, in float32.

    Raises ConversionError if keys or shapes are not those of such a model, or if ``clip`` holds no vision encoder.
    """
    kind = "ldpv2" if any(name.startswith("vision_proj.mlp.") for name in state) else "linear"
    names = projector_keys(kind)
    _check_keys(state, [*language_keys(_layers(state)), *names.values()])
    decoder = language_model({name: value for name, value in state.items() if name not in names.values()}, heads)
    model = join(load_clip(clip), decoder, kind, image_token_id)
    projector = model.model.multi_modal_projector
    expected = {names[name]: tuple(value.shape) for name, value in projector.state_dict().items()}
    _check_shapes(state, expected, f" with the vision encoder in {clip}")
    projector.load_state_dict({name: state[theirs] for name, theirs in names.items()})
    return model.eval()


def load_clip(folder: Path) -> CLIPVisionModel:
    """The vision encoder of a CLIPModel or CLIPVisionModel directory, in float32. Raises ConversionError."""
    if not (folder / "config.json").is_file():
        raise ConversionError(f"{folder} holds no vision encoder: there is no config.json in it")
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind not in ("clip", "clip_vision_model"):
            raise ConversionError(f"{folder} holds a model of type {kind}, not CLIP")
        tower, found = CLIPVisionModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except ConversionError:
        raise
    except Exception as error:  # its files have three formats, whose readers raise different errors
        raise ConversionError(f"{folder} holds no vision encoder that can be read: {first_line(error)}") from error
    if missing := [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]:
        raise ConversionError(f"{folder} holds an incomplete vision encoder: {_list(sorted(missing))} missing")
    return tower


def to_minimind(model: VlmForConditionalGeneration | LlamaForCausalLM) -> dict[str, Tensor]:
    """The state dict that MiniMind-V's trainer would save: half precision, without the vision encoder.

    Raises ConversionError if that layout cannot represent the model, or half precision cannot hold a weight.
    """
    config = model.config.get_text_config()
    theta = config.rope_parameters["rope_theta"]
    if (theta, config.rms_norm_eps, config.rope_parameters["rope_type"]) != (ROPE_THETA, NORM_EPS, "default"):
        raise ConversionError(
            f"MiniMind's layout cannot store rotary base {theta:g} and epsilon {config.rms_norm_eps:g}: it implies "
            f"{ROPE_THETA:g} and {NORM_EPS:g}"
        )
    renamed = {}
    if isinstance(model, VlmForConditionalGeneration):
        renamed = {
            f"model.multi_modal_projector.{name}": key
            for name, key in _checked_projector_keys(model.config.projector).items()
        }
    state = {}
    for name, value in model.state_dict().items():
        if not name.startswith("model.vision_tower."):
            state[renamed.get(name, name.replace("model.language_model.", "model."))] = value
    names = [*language_keys(config.num_hidden_layers), *renamed.values()]
    _check_keys(state, names, "the model")
    if not torch.equal(state[HEAD], state[EMBEDDING]):
        raise ConversionError(f"the model's output layer is not tied to its embeddings: {HEAD} and {EMBEDDING} differ")
    half = {name: state[name].detach().to("cpu", torch.float16, copy=True) for name in names}
    if overflowing := [name for name, value in half.items() if not value.isfinite().all()]:
        raise ConversionError(f"half precision cannot hold the values of {_list(overflowing)}")
    return half


def language_keys(layers: int) -> list[str]:
    """The decoder's keys in the order in which MiniMind's trainer saves them."""
    inner = [f"model.layers.{layer}.{name}.weight" for layer in range(layers) for name in LAYER]
    return [EMBEDDING, *inner, "model.norm.weight", HEAD]


def projector_keys(kind: str) -> dict[str, str]:
    """Our projector's parameters -> MiniMind-V's keys. ``kind`` must be in PROJECTOR_KEYS."""
    pairs = PROJECTOR_KEYS[kind].items()
    return {f"{ours}{name}": f"{theirs}{name}" for ours, theirs in pairs for name in ("weight", "bias")}


def _checked_projector_keys(kind: str) -> dict[str, str]:
    if kind not in PROJECTOR_KEYS:
        raise ConversionError(f"MiniMind-V's layout has no {kind} projector, only {' and '.join(PROJECTOR_KEYS)}")
    return projector_keys(kind)


def _layers(state: dict[str, Tensor]) -> int:
    """One more than the highest layer number, so that a gap is reported as missing layers; at least one."""
    numbers = [int(found[1]) for name in state if (found := re.match(r"model\.layers\.(\d{1,4})\.", name))]
    return max(numbers, default=0) + 1


def _matrix(state: dict[str, Tensor], name: str) -> tuple[int, int]:
    if state[name].dim() != 2 or 0 in state[name].shape:
        raise ConversionError(f"{name} has the shape {_shape(state[name].shape)}, but must be a matrix")
    rows, columns = state[name].shape
    return rows, columns


def _check_keys(state: dict[str, Tensor], expected: Iterable[str], what: str = "the checkpoint") -> None:
    keys = dict.fromkeys(expected)
    missing = [name for name in keys if name not in state]
    unknown = [name for name in state if name not in keys]
    faults = [f"lacks {_list(missing)}"] if missing else []
    faults += [f"holds {_list(unknown)}, which MiniMind's layout does not have"] if unknown else []
    if faults:
        raise ConversionError(f"{what} {' and '.join(faults)}")


def _check_shapes(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]], condition: str = "") -> None:
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise ConversionError(
                f"{name} has the shape {_shape(state[name].shape)}, but the other weights require "
                f"{_shape(shape)}{condition}"
            )


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes)) or "of a scalar"


def _list(names: list[str]) -> str:
    """Names for a sentence: the first ones, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Set the tokens that ``generate`` starts, stops and pads with.

    Raises ConversionError if the sizes of the vocabularies differ.
    """
    text = model.config.get_text_config()
    if len(tokenizer) != text.vocab_size:
        raise ConversionError(f"the tokenizer has {len(tokenizer)} entries, but the checkpoint {text.vocab_size}")
    # No pad_token_id in the configuration: that token's embedding would get no gradient.
    text.bos_token_id, text.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def load_directory(folder: Path) -> VlmForConditionalGeneration | LlamaForCausalLM:
    """A model of this project, or a decoder alone, from its directory. Raises ConversionError."""
    if not (folder / "config.json").is_file():
        raise ConversionError(f"{folder} holds no model: there is no config.json in it")
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        classes = {VlmConfig.model_type: VlmForConditionalGeneration, "llama": LlamaForCausalLM}
        if kind not in classes:
            raise ConversionError(f"{folder} holds a model of type {kind}, not {' or '.join(classes)}")
        model, found = classes[kind].from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(f"{folder} holds no model that can be read: {first_line(error)}") from error
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if wrong:
        raise ConversionError(
            f"{folder} does not hold the weights that its config.json describes: see {_list(sorted(wrong))}"
        )
    return model
