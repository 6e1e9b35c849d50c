"""params.yaml as typed, checked values.

Every stage first reads the whole file through ``load_params``, so that a mistake anywhere in it ends the run at once
with a sentence that names the parameter. There are no defaults: a missing key is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, model_validator

from stages.common.config.base import Section
from stages.common.config.data import DataParams
from stages.common.config.encode import EncodeParams
from stages.common.config.evaluate import EvaluateParams
from stages.common.config.fetch import FetchParams
from stages.common.config.language import LanguageParams
from stages.common.config.machine import MachineParams
from stages.common.config.model import ModelParams
from stages.common.config.pretrain import PretrainParams
from stages.common.config.sft import SftParams
from stages.common.config.tokenizer import TokenizerParams
from stages.common.config.train import TrainParams
from stages.common.config.vision import VisionParams
from stages.common.config.wandb import WandbParams
from stages.common.core.errors import InputError

PARAMS_FILE = Path("params.yaml")
_PROMPT_TOKENS = 64  # assumed for a prompt; training stages check the true length of every sample


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
        """Names of all evaluated checkpoints: this pipeline's in the order of training, then external ones."""
        return ["pretrain", *(f"sft-{phase}" for phase in self.sft.phases), *self.fetch.models]

    @model_validator(mode="after")
    def _check_sections_against_each_other(self) -> Params:
        if "pretrain" in self.fetch.models:
            raise ValueError("fetch.models.pretrain: a checkpoint of the pipeline has this name; choose another")
        if self.data.image_size % self.vision.patch_size:
            raise ValueError(
                f"vision.patch_size: {self.vision.patch_size} does not divide data.image_size {self.data.image_size}"
            )
        if self.data.source != "world":
            for name in ("vision", "language"):
                if getattr(self, name).source == "train":
                    raise ValueError(
                        f"{name}.source: train requires the built-in world (data.source: world); set it to fetch"
                    )
        for name in ("vision", "language", "pretrain", "tokenizer") if self.data.source == "world" else ():
            if (getattr(self, name).scenes or 0) > self.data.train_scenes:
                raise ValueError(f"{name}.scenes: more than data.train_scenes ({self.data.train_scenes})")
        if self.evaluate.scenes > self.data.test_scenes:
            raise ValueError(f"evaluate.scenes: more than data.test_scenes ({self.data.test_scenes})")
        self._check_lengths()
        return self

    def _check_lengths(self) -> None:
        """Raises ValueError where a length limit does not hold an image, or the decoder's positions not a sequence."""
        limits = [("pretrain.max_len", self.pretrain.fit, self.pretrain.max_len)]
        for name, phase in self.sft.phases.items():
            parameter = "sft.max_len" if phase.max_len is None else f"sft.phases.{name}.max_len"
            limits.append((parameter, self.sft.fit_of(name), self.sft.max_len_of(name)))
        for parameter, max_len in ((parameter, max_len) for parameter, fit, max_len in limits if fit == "cut"):
            if max_len <= self._image_tokens():
                raise ValueError(
                    f"{parameter}: {max_len} tokens leave no room for text: with fit cut they include the "
                    f"{self._image_tokens()} tokens of an image; raise it"
                )
        answer = max(self.evaluate.max_new_tokens, *(max_len for _, fit, max_len in limits if fit != "cut"), 0)
        positions = self.language.max_position_embeddings
        room = positions - _PROMPT_TOKENS - answer
        patches = (self.data.image_size // self.vision.patch_size) ** 2  # no projector makes more tokens of them
        if self.language.source != "fetch" and patches > room and self._image_tokens() > room:
            raise ValueError(
                f"language.max_position_embeddings: {positions} positions do not hold {self._image_tokens()} image "
                f"tokens, a prompt and {answer} tokens of text"
            )

    def _image_tokens(self) -> int:
        """Of one picture."""
        from model.vlm.grids import image_tokens  # loads transformers, which many stages can do without

        return image_tokens(self.model.projector, self.data.image_size // self.vision.patch_size)


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
    """The first error, as a sentence that starts with the dotted name of its parameter."""
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
        return f"{name} must be a section: its parameters, each on a line of its own, indented"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{name} is {first['input']!r}: {message}"


def _names_parameter(message: str) -> bool:
    return " " not in message.split(":")[0]
