"""params.yaml as typed, checked values.

Every stage reads the whole file through ``load_params`` before it does anything, so that a mistake anywhere
ends the run at once with a sentence that names the parameter. No default lives here: a missing key is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stages.common.errors import InputError, run_stage

PARAMS_FILE = Path("params.yaml")
LONGEST_PROMPT = 12  # characters of the world's longest prompt; a test compares it with the wording


def _some_chance(odds: list[float]) -> list[float]:
    if not any(odds):
        raise ValueError("all odds are 0; raise at least one")
    return odds


Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]
Odds = Annotated[list[Weight], AfterValidator(_some_chance)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation not in (bool, bool | None):
            raise ValueError(f"{str(value).lower()} is not a value for it")
        return value


class FetchSource(Section):
    """``repo``: an id on the Hugging Face Hub, or a folder on this machine, which wins where both exist."""

    repo: str
    kind: Literal["model", "dataset"]
    revision: str
    files: list[str]


class FetchParams(Section):
    vision: FetchSource
    tokenizer: FetchSource
    language: FetchSource
    pretrain_data: FetchSource
    pretrain_images: FetchSource
    sft_data: FetchSource
    sft_images: FetchSource
    photographs: FetchSource
    models: dict[Name, FetchSource]


class DataParams(Section):
    source: Literal["world", "minimind", "jsonl", "parquet"]
    image_size: Positive
    resize: bool
    max_rows: Positive | None
    max_pixels: Positive
    max_answer_chars: Positive
    max_bad_fraction: Share
    train_scenes: Positive
    validation_scenes: Positive
    test_scenes: Positive
    shard_scenes: Positive
    group_weights: Odds = Field(min_length=1, max_length=5)
    count_weights: Odds = Field(min_length=3, max_length=3)
    relation_probability: Share
    home_weight: Rate
    held_out_colours: Annotated[int, Field(ge=0, le=4)]


class TokenizerParams(Section):
    source: Literal["train", "fetch"]
    vocab_size: Annotated[int, Field(ge=300)]
    max_token_length: Positive
    scenes: Positive


class LoopParams(Section):
    """What every training stage has; the names are those of transformers' TrainingArguments."""

    epochs: Positive
    learning_rate: Rate
    warmup_ratio: Share
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup", "cosine_with_min_lr", "warmup_stable_decay"]
    weight_decay: Weight
    adam_beta2: Annotated[float, Field(gt=0.0, lt=1.0)]


class TokenLoopParams(LoopParams):
    """Training on texts with pictures; ``batch_tokens`` and ``batch_size`` are two ways to say how large a step is."""

    shuffle: bool
    batch_tokens: Positive | None
    batch_size: Positive | None
    save_strategy: Literal["end", "epoch"]

    @model_validator(mode="after")
    def _one_size_of_batch(self) -> TokenLoopParams:
        if (self.batch_tokens is None) == (self.batch_size is None):
            raise ValueError("batch_size: give either batch_tokens or batch_size, and null for the other")
        return self


class VisionParams(LoopParams):
    source: Literal["train", "fetch"]
    patch_size: Positive
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    intermediate_size: Positive
    projection_dim: Positive
    text_hidden_size: Positive
    text_num_hidden_layers: Positive
    scenes: Positive
    batch_size: Annotated[int, Field(ge=2)]
    region_weight: Weight
    recolour_share: Annotated[float, Field(ge=0.0, lt=1.0)]

    @model_validator(mode="after")
    def _heads_divide(self) -> VisionParams:
        if self.hidden_size % self.num_attention_heads or self.text_hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads must divide hidden_size and text_hidden_size")
        return self


class LanguageParams(LoopParams):
    source: Literal["train", "fetch", "random"]
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    intermediate_size: Positive
    max_position_embeddings: Positive
    rope_theta: Rate
    rms_norm_eps: Rate
    scenes: Positive
    misread: Share
    noise: Weight
    verdict_weight: Weight
    batch_tokens: Positive

    @model_validator(mode="after")
    def _heads_divide(self) -> LanguageParams:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must divide hidden_size, num_key_value_heads num_attention_heads")
        if self.hidden_size // self.num_attention_heads % 2:
            raise ValueError("hidden_size / num_attention_heads must be even: rotary positions turn pairs of numbers")
        return self


class ModelParams(Section):
    projector: Literal["linear", "mlp", "ldp", "ldpv2"]


class EncodeParams(Section):
    cache: bool
    batch_size: Positive


class PretrainParams(TokenLoopParams):
    scenes: Positive | None
    max_len: Positive
    fit: Literal["filter", "cut"]


class PhaseParams(Section):
    after: str
    max_len: Positive | None
    fit: Literal["sentence", "filter", "cut"] | None
    target_tokens: Positive | None
    match: Name | None
    shuffle: bool | None


class SftParams(TokenLoopParams):
    max_len: Positive
    fit: Literal["sentence", "filter", "cut"]
    question_share: Share
    phases: dict[Name, PhaseParams]

    def limit(self, phase: str) -> int:
        """Longest answer, in tokens, that ``phase`` shows."""
        own = self.phases[phase].max_len
        return self.max_len if own is None else own

    def fitted(self, phase: str) -> str:
        """How ``phase`` makes texts fit."""
        return self.phases[phase].fit or self.fit

    def shuffled(self, phase: str) -> bool:
        """Whether ``phase`` draws a new order of samples each epoch."""
        own = self.phases[phase].shuffle
        return self.shuffle if own is None else own

    def chain(self, phase: str) -> list[str]:
        """The phases from pretraining up to and including ``phase``."""
        chain = [phase]
        while (after := self.phases[chain[0]].after) != "pretrain":
            chain.insert(0, after.removeprefix("sft-"))
        return chain

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """(end of a curriculum, its control): two phases of which one matches the other; the longer chain is the
        curriculum."""
        pairs = [(phase.match, name) for name, phase in self.phases.items() if phase.match is not None]
        return [
            (one, other) if len(self.chain(one)) >= len(self.chain(other)) else (other, one) for one, other in pairs
        ]

    @model_validator(mode="after")
    def _tree_of_phases(self) -> SftParams:
        checkpoints = ["pretrain", *(f"sft-{name}" for name in self.phases)]
        for name, phase in self.phases.items():
            if phase.after not in checkpoints:
                raise ValueError(
                    f"phases.{name}.after: no checkpoint is called '{phase.after}'; "
                    f"choose one of {', '.join(checkpoints)}"
                )
            if self.limit(name) < LONGEST_PROMPT:
                where = f"phases.{name}.max_len" if phase.max_len is not None else "max_len"
                raise ValueError(
                    f"{where}: {self.limit(name)} is shorter than the prompt itself; set it to {LONGEST_PROMPT} or more"
                )
            if phase.target_tokens is not None and phase.match is not None:
                raise ValueError(f"phases.{name}: give target_tokens or match, not both; null for both: every answer")
            if phase.match is not None and phase.match not in self.phases:
                raise ValueError(f"phases.{name}.match: no phase is called '{phase.match}'")
        for name in self.phases:
            seen, after = [f"sft-{name}"], self.phases[name].after
            while after != "pretrain":
                if after in seen:
                    raise ValueError(
                        f"phases.{name}.after: a loop, {' -> '.join([*seen, after])}; one must follow pretrain"
                    )
                seen.append(after)
                after = self.phases[after.removeprefix("sft-")].after
        for name, phase in self.phases.items():
            if phase.match is not None and any(self.phases[link].match is not None for link in self.chain(phase.match)):
                raise ValueError(
                    f"phases.{name}.match: the chain of '{phase.match}' holds a phase that matches another"
                )
        return self


class EvaluateParams(Section):
    scenes: Positive
    max_new_tokens: Positive
    batch_size: Positive
    bootstrap_samples: Positive
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)]


class WandbParams(Section):
    mode: Literal["offline", "online", "disabled"]
    project: str


class TrainParams(Section):
    """How training stages work: no stage runs again for it. It may move last digits, and the points of loss logs."""

    processes: Positive
    accelerate_config: str | None
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["auto", "always", "never"]
    save_steps: Positive
    logging_steps: Positive


class MachineParams(Section):
    processes: Positive | None


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    fetch: FetchParams
    data: DataParams
    tokenizer: TokenizerParams
    vision: VisionParams
    language: LanguageParams
    model: ModelParams
    encode: EncodeParams
    pretrain: PretrainParams
    sft: SftParams
    evaluate: EvaluateParams
    wandb: WandbParams
    train: TrainParams
    machine: MachineParams

    @property
    def checkpoints(self) -> list[str]:
        """Names of all that is evaluated: our own in the order of training, then finished models."""
        return ["pretrain", *(f"sft-{phase}" for phase in self.sft.phases), *self.fetch.models]

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        if "pretrain" in self.fetch.models:
            raise ValueError("fetch.models.pretrain: a checkpoint of our own has this name; choose another")
        if self.data.image_size % self.vision.patch_size:
            raise ValueError(
                f"vision.patch_size: {self.vision.patch_size} does not divide data.image_size {self.data.image_size}"
            )
        if self.data.source != "world":
            for name in ("vision", "language"):
                if getattr(self, name).source == "train":
                    raise ValueError(
                        f"{name}.source: train needs the built-in world's truth (data.source: world); set it to fetch"
                    )
        if self.pretrain.max_len < LONGEST_PROMPT:
            raise ValueError(
                f"pretrain.max_len: {self.pretrain.max_len} is shorter than the prompt itself; "
                f"set it to {LONGEST_PROMPT} or more"
            )
        for name in ("vision", "language", "pretrain", "tokenizer") if self.data.source == "world" else ():
            if (getattr(self, name).scenes or 0) > self.data.train_scenes:
                raise ValueError(f"{name}.scenes: more than data.train_scenes ({self.data.train_scenes})")
        if self.evaluate.scenes > self.data.test_scenes:
            raise ValueError(f"evaluate.scenes: more than data.test_scenes ({self.data.test_scenes})")
        image_tokens = (self.data.image_size // self.vision.patch_size) ** 2
        longest = max(
            self.sft.max_len, self.evaluate.max_new_tokens, *(self.sft.limit(name) for name in self.sft.phases)
        )
        if self.language.source != "fetch" and image_tokens + longest + 64 > self.language.max_position_embeddings:
            raise ValueError(
                f"language.max_position_embeddings: {self.language.max_position_embeddings} positions do not hold "
                f"{image_tokens} image tokens, a prompt and {longest} tokens of text"
            )
        return self


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check ``path``. Raises InputError with one sentence that names the parameter."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run this from the project's root folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path} must hold sections such as 'data:' and 'sft:', each with its parameters")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """The first problem, led by the dotted name of its parameter."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        return f"{name} is not a parameter; check its spelling or remove it"
    if first["type"] == "missing":
        return f"{name} is missing; add it"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return f"{name}.{message}" if name and _names_parameter(message) else f"{name}: {message}" if name else message
    if first["type"] == "model_type":
        return f"{name} must be a section: parameters of its own, each on a line, indented"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{name} is {first['input']!r}: {message}"


def _names_parameter(message: str) -> bool:
    return " " not in message.split(":")[0]


if __name__ == "__main__":
    run_stage(load_params)
