"""MiniMind-V's published checkpoints to models of transformers', and back.

A checkpoint is a state dict, mostly in half precision, of the decoder and the projector. What is made from it holds the
same values in float32: no value changes, and the way back restores every bit. What a state dict does not say is fixed:
rotary base 1e6, epsilon 1e-5, 32768 positions, and, unless told otherwise, two key-value heads, as in every published
MiniMind2 model.
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

__all__ = ["ConversionError", "language_model", "load_minimind", "to_minimind", "vision_language_model"]

ROPE_THETA, NORM_EPS, POSITIONS = 1e6, 1e-5, 32768
KEY_VALUE_HEADS = 2  # of every published MiniMind2 model, whatever its width

# What trainers have left in published files beside the weights: tables that are computed anew, and the frozen
# vision encoder, which comes from its own directory.
BUFFERS = {f"{prefix}{name}" for prefix in ("", "model.") for name in ("freqs_cos", "freqs_sin", "pos_cis")}
FROZEN = "vision_encoder."

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
# Our module -> MiniMind-V's.
PROJECTOR_KEYS = {
    "linear": {"": "vision_proj.vision_proj.0."},
    "ldpv2": {
        "linear_1.": "vision_proj.mlp.mlp.0.",
        "linear_2.": "vision_proj.mlp.mlp.2.",
        "position.": "vision_proj.peg.peg.0.",
    },
}


def load_minimind(path: Path) -> dict[str, Tensor]:
    """The weights in a MiniMind checkpoint file, without computed tables and vision encoder.

    Raises ConversionError where the file is no dictionary of floating-point tensors; it is never unpickled freely.
    """
    if not path.is_file():
        raise ConversionError(f"{path} is not a file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different one for each way in which a file can be no checkpoint
        raise ConversionError(f"{path} is not a checkpoint that torch can load: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ConversionError(f"{path} is not a plain dictionary of tensors by name")
    weights = {name: value for name, value in state.items() if name not in BUFFERS and not name.startswith(FROZEN)}
    if other := [name for name, value in weights.items() if not value.is_floating_point()]:
        raise ConversionError(f"{path} holds {_list(other)} in something else than floating point")
    return weights


def infer_shape(state: dict[str, Tensor], heads: int | None = None) -> LlamaConfig:
    """The decoder's configuration. Raises ConversionError where keys or shapes are not those of one.

    Weights do not tell how their rows are divided into ``heads``. None: so that there are two key-value heads, which
    needs fewer rows for keys than for queries.
    """
    _check_keys(state, language_keys(_layers(state)))
    vocabulary, hidden = _matrix(state, EMBEDDING)
    query_rows, _ = _matrix(state, "model.layers.0.self_attn.q_proj.weight")
    key_rows, _ = _matrix(state, "model.layers.0.self_attn.k_proj.weight")
    intermediate, _ = _matrix(state, "model.layers.0.mlp.gate_proj.weight")
    if heads is None:
        if query_rows == key_rows:
            raise ConversionError(
                "the checkpoint has as many keys as queries, so its number of heads is unknown: say --heads"
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
    """The decoder in float32, from a checkpoint with no other weights. Raises ConversionError, see infer_shape."""
    config = infer_shape(state, heads)
    if not torch.equal(state[HEAD], state[EMBEDDING]):
        raise ConversionError(f"{HEAD} differs from {EMBEDDING}: MiniMind ties them, and so does what it becomes")
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def vision_language_model(
    state: dict[str, Tensor], clip: Path, image_token_id: int, heads: int | None = None
) -> VlmForConditionalGeneration:
    """Decoder and projector of a checkpoint with the vision encoder in ``clip``, a CLIP directory; in float32.

    Raises ConversionError where keys or shapes are not those of such a model, or ``clip`` holds no vision encoder.
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
    except Exception as error:  # files of three formats, each with errors of its own
        raise ConversionError(f"{folder} holds no vision encoder that can be read: {first_line(error)}") from error
    if lacking := [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]:
        raise ConversionError(f"{folder} holds no complete vision encoder: {_list(sorted(lacking))} missing")
    return tower


def to_minimind(model: VlmForConditionalGeneration | LlamaForCausalLM) -> dict[str, Tensor]:
    """The state dict that MiniMind-V's trainer would save: half precision, without the vision encoder.

    Raises ConversionError where that layout cannot say what the model is, or half precision cannot hold a weight.
    """
    config = model.config.get_text_config()
    theta = config.rope_parameters["rope_theta"]
    if (theta, config.rms_norm_eps, config.rope_parameters["rope_type"]) != (ROPE_THETA, NORM_EPS, "default"):
        raise ConversionError(
            f"MiniMind's layout has no place for rotary base {theta:g} and epsilon {config.rms_norm_eps:g}: it means "
            f"{ROPE_THETA:g} and {NORM_EPS:g}"
        )
    renamed = {}
    if isinstance(model, VlmForConditionalGeneration):
        renamed = {f"model.multi_modal_projector.{name}": key for name, key in _known(model.config.projector).items()}
    state = {}
    for name, value in model.state_dict().items():
        if not name.startswith("model.vision_tower."):
            state[renamed.get(name, name.replace("model.language_model.", "model."))] = value
    names = [*language_keys(config.num_hidden_layers), *renamed.values()]
    _check_keys(state, names, "the model")
    if not torch.equal(state[HEAD], state[EMBEDDING]):
        raise ConversionError(f"the model's output layer is not tied to its embeddings: {HEAD} and {EMBEDDING} differ")
    half = {name: state[name].detach().to("cpu", torch.float16, copy=True) for name in names}
    if overflown := [name for name, value in half.items() if not value.isfinite().all()]:
        raise ConversionError(f"half precision cannot hold the values of {_list(overflown)}")
    return half


def language_keys(layers: int) -> list[str]:
    """The decoder's keys in the order in which MiniMind's trainer saves them."""
    inner = [f"model.layers.{layer}.{name}.weight" for layer in range(layers) for name in LAYER]
    return [EMBEDDING, *inner, "model.norm.weight", HEAD]


def projector_keys(kind: str) -> dict[str, str]:
    """Our projector's parameters -> MiniMind-V's keys, for a kind that has such a layout."""
    pairs = PROJECTOR_KEYS[kind].items()
    return {f"{ours}{name}": f"{theirs}{name}" for ours, theirs in pairs for name in ("weight", "bias")}


def _known(kind: str) -> dict[str, str]:
    if kind not in PROJECTOR_KEYS:
        raise ConversionError(f"MiniMind-V's layout has no {kind} projector, only {' and '.join(PROJECTOR_KEYS)}")
    return projector_keys(kind)


def _layers(state: dict[str, Tensor]) -> int:
    """One more than the highest number of a layer, so that a layer left out counts as missing; at least one."""
    numbers = [int(found[1]) for name in state if (found := re.match(r"model\.layers\.(\d{1,4})\.", name))]
    return max(numbers, default=0) + 1


def _matrix(state: dict[str, Tensor], name: str) -> tuple[int, int]:
    if state[name].dim() != 2 or 0 in state[name].shape:
        raise ConversionError(f"{name} has the shape {_shape(state[name].shape)}, not that of a matrix")
    rows, columns = state[name].shape
    return rows, columns


def _check_keys(state: dict[str, Tensor], expected: Iterable[str], what: str = "the checkpoint") -> None:
    wanted = dict.fromkeys(expected)
    missing = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    faults = [f"lacks {_list(missing)}"] if missing else []
    faults += [f"holds {_list(unknown)}, which MiniMind's layout does not have here"] if unknown else []
    if faults:
        raise ConversionError(f"{what} {' and '.join(faults)}")


def _check_shapes(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]], where: str = "") -> None:
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise ConversionError(
                f"{name} has the shape {_shape(state[name].shape)}, but the others make it {_shape(shape)}{where}"
            )


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes)) or "of a number"


def _list(names: list[str], most: int = 12) -> str:
    """Names in a sentence; of very many, the first ones and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """What ``generate`` starts, stops and pads with. Raises ConversionError where the vocabularies differ in size."""
    text = model.config.get_text_config()
    if len(tokenizer) != text.vocab_size:
        raise ConversionError(f"the tokenizer has {len(tokenizer)} entries and the checkpoint {text.vocab_size}")
    # No pad_token_id in the configuration: it would keep that token's embedding from learning.
    text.bos_token_id, text.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def load_directory(folder: Path) -> VlmForConditionalGeneration | LlamaForCausalLM:
    """A model of ours, or a decoder alone, from its transformers directory. Raises ConversionError."""
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
        raise ConversionError(f"{folder} does not hold the weights of its config.json: see {_list(sorted(wrong))}")
    return model
