"""What the two halves of the evaluation share: prompts, tasks, and the files that `answer` writes and `score` reads.

Imports neither torch nor the model, so that scoring needs none of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.core.errors import InputError
from stages.common.core.files import write_json, write_text

ANSWERS = Path("reports/answers")  # a folder for each checkpoint, with epoch-N beneath it for those of earlier epochs

TEXT_TASKS = ("description", "caption")  # the long prompt and the short one
FAR_FIRST = "far_first"  # the long prompt that asks for far things first, in the built-in world
YES_NO_TASKS = ("random", "popular", "adversarial")  # how the absent object of a yes/no question was chosen (POPE)
DIALOGUE = "dialogue"  # task of the losses of a dialogue read from files

# Fixed, so that checkpoints and runs compare; the picture stands before the prompt.
# Of the built-in world: all are among the prompts of its training texts.
WORLD_PROMPTS = {
    "description": "请详细描述这张图片。",
    "caption": "用一句话描述这张图片。",
    FAR_FIRST: "请由远及近地描述这张图片。",
}
# Of files: MiniMind-V's own evaluation uses the long one; the short one is a prompt of its pretraining data.
FILE_PROMPTS = {"description": "描述一下这个图像的内容。", "caption": "提供给定图像的简要描述。"}

_ANSWERS_FILE, _LOSSES_FILE, _MODEL_FILE, _PROVENANCE_FILE = (
    "answers.jsonl",
    "losses.parquet",
    "model.json",
    "provenance.json",
)
_LOSSES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("text", pa.string()),
        ("starts", pa.list_(pa.int32())),
        ("ends", pa.list_(pa.int32())),
        ("own", pa.list_(pa.float32())),
        ("other", pa.list_(pa.float32())),
        ("blind", pa.list_(pa.float32())),
        ("other_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class Answer:
    """One answer. ``id`` names the row, ``split`` is test, validation or fixed, ``task`` one of TEXT_TASKS or
    YES_NO_TASKS, or FAR_FIRST.

    ``prompt`` is without the placeholders of pictures. ``reference``: the text that the data has for this prompt; ""
    where there is none. Of a yes/no question ``kind`` is the kind of object that it asks about and ``expected`` the
    right answer, yes or no; elsewhere both are "".
    """

    id: str
    split: str
    task: str
    prompt: str
    answer: str
    reference: str = ""
    kind: str = ""
    expected: str = ""


@dataclass(frozen=True)
class TextLosses:
    """Losses of one reference text: of T target tokens, in nats, each an array [T] of float32.

    ``task``: one of TEXT_TASKS, or DIALOGUE. ``text``: what the model is to write; the answers of a dialogue stand on
    lines of their own. ``starts`` and ``ends`` [T], int32: the characters of ``text`` that each token covers; a token
    that closes an answer has the end of this answer as both. ``own``, ``other``, ``blind``: the losses with the text's
    own picture, with the one of row ``other_id``, and with the mean features of train pictures. Where there is no
    other picture, ``other_id`` is "" and ``other`` is empty; of a text without pictures ``blind`` is empty, too.
    """

    id: str
    task: str
    text: str
    starts: np.ndarray
    ends: np.ndarray
    own: np.ndarray
    other: np.ndarray
    blind: np.ndarray
    other_id: str


def answers_folder(checkpoint: str) -> Path:
    """``checkpoint``: pretrain, sft-long, or that of an earlier epoch, pretrain/epoch-1."""
    return ANSWERS / checkpoint


def epoch_folders(checkpoint: str) -> list[Path]:
    """The folders of answers of earlier epochs, in the order of training."""
    folders = answers_folder(checkpoint).glob("epoch-*")
    return sorted(folders, key=lambda path: int(path.name.split("-")[1]))


def write_answers(folder: Path, answers: Iterable[Answer]) -> None:
    lines = (json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in answers)
    write_text(folder / _ANSWERS_FILE, "".join(lines))


def read_answers(folder: Path) -> list[Answer]:
    """Raises InputError where the stage answer has not run yet."""
    text = _present(folder, _ANSWERS_FILE).read_text(encoding="utf-8")
    lines = text.split("\n")  # not splitlines(): a text may contain other line separators, such as U+2028
    return [Answer(**json.loads(line)) for line in lines if line]


def write_losses(folder: Path, losses: Sequence[TextLosses]) -> None:
    columns = {name: [getattr(text, name) for text in losses] for name in _LOSSES_SCHEMA.names}
    pq.write_table(pa.table(columns, schema=_LOSSES_SCHEMA), folder / _LOSSES_FILE, compression="zstd")


def read_losses(folder: Path) -> list[TextLosses]:
    """Raises InputError where the stage answer has not run yet."""
    types = {"starts": np.int32, "ends": np.int32, "own": np.float32, "other": np.float32, "blind": np.float32}
    rows = pq.read_table(_present(folder, _LOSSES_FILE), schema=_LOSSES_SCHEMA).to_pylist()
    return [
        TextLosses(**{name: np.asarray(value, types[name]) if name in types else value for name, value in row.items()})
        for row in rows
    ]


def write_hidden(folder: Path, split: str, hidden: np.ndarray) -> None:
    """``hidden`` [scenes, layers + 1, D] float16 of split validation or test: the decoder's hidden state at the last
    position of the long prompt; layer 0 is its input embedding, the last one what the decoder's last layer returns."""
    np.save(_hidden_path(folder, split), hidden.astype(np.float16, copy=False), allow_pickle=False)


def read_hidden(folder: Path, split: str) -> np.ndarray:
    """[scenes, layers + 1, D] float16. Raises InputError where the stage answer has not run yet."""
    return np.load(_present(folder, _hidden_path(folder, split).name), allow_pickle=False)


def _hidden_path(folder: Path, split: str) -> Path:
    return folder / f"hidden-{split}.npy"


def write_model(folder: Path, checkpoint: str, parameters: int, parameters_vision: int) -> None:
    """``parameters``: those outside the vision encoder; ``parameters_vision``: those inside it."""
    value = {"checkpoint": checkpoint, "parameters": parameters, "parameters_vision": parameters_vision}
    write_json(folder / _MODEL_FILE, value)


def read_model(folder: Path) -> dict[str, Any]:
    """checkpoint, parameters, parameters_vision. Raises InputError where the stage answer has not run yet."""
    return json.loads(_present(folder, _MODEL_FILE).read_text(encoding="utf-8"))


def write_provenance(folder: Path, training: dict[str, Any] | None, answer: dict[str, Any]) -> None:
    """How the checkpoint was trained (None: not known) and how it answered: versions, processor, number format."""
    write_json(folder / _PROVENANCE_FILE, {"training": training, "answer": answer})


def read_provenance(folder: Path) -> dict[str, Any]:
    """training and answer. Raises InputError where the stage answer has not run yet."""
    return json.loads(_present(folder, _PROVENANCE_FILE).read_text(encoding="utf-8"))


def _present(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        checkpoint = folder.relative_to(ANSWERS).parts[0] if folder.is_relative_to(ANSWERS) else ""
        stage = answer_stage(checkpoint) if checkpoint else "answer"
        raise InputError(f"{path} is missing: run `dvc repro {stage}` first")
    return path


def answer_stage(checkpoint: str) -> str:
    """The DVC stage that answers with ``checkpoint``."""
    if checkpoint == "pretrain":
        return "answer-pretrain"
    return (
        f"answer@{checkpoint.removeprefix('sft-')}" if checkpoint.startswith("sft-") else f"answer-model@{checkpoint}"
    )
