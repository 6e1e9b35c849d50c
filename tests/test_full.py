"""The pipeline with data and weights in MiniMind-V's formats, fetched from a fake Hub: `make full` at a small size."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from tests.fake_hub import FakeHub
from tests.repository import ROOT, Repository

FIXTURES = ROOT / "tests/model/fixtures"
PHASES = ("short", "medium", "long", "direct", "unshuffled")
SIZES = {
    "data.image_size": "16",
    "vision.patch_size": "4",
    "language.num_attention_heads": "4",
    "language.hidden_size": "32",
    "language.num_hidden_layers": "2",
    "language.intermediate_size": "48",
    "data.validation_scenes": "6",
    "data.test_scenes": "8",
    "data.max_bad_fraction": "0.1",
    "sft.phases.short.max_len": "32",
    "sft.phases.short.target_tokens": "200",
    "sft.phases.unshuffled.max_len": "32",
    "sft.phases.unshuffled.target_tokens": "200",
    "sft.phases.medium.max_len": "64",
    "sft.phases.medium.target_tokens": "300",
    "evaluate.scenes": "3",
    "evaluate.max_new_tokens": "16",
    "evaluate.bootstrap_samples": "100",
    "wandb.mode": "disabled",
}

pytestmark = pytest.mark.slow


def jpeg(rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    colour = tuple(rng.randrange(256) for _ in range(3))
    Image.new("RGB", (rng.randrange(30, 90), rng.randrange(30, 90)), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def rows_and_pictures(count: int, name: str, question: str, answer: str) -> tuple[bytes, bytes]:
    """Rows as JSON lines, one of them broken, and their pictures as a zip."""
    rng = random.Random(name)
    archive = io.BytesIO()
    lines = []
    with zipfile.ZipFile(archive, "w") as pictures:
        for number in range(count):
            pictures.writestr(f"{name}_{number}.jpg", jpeg(rng))
            turns = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer * rng.randrange(1, 4)},
            ]
            row = {"conversations": turns, "image": f"{name}_{number}.jpg"}
            lines.append(json.dumps(row, ensure_ascii=False))
    lines.insert(5, '{"conversations": [')
    return "\n".join(lines).encode(), archive.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    pretrain, pretrain_images = rows_and_pictures(40, "p", "提供给定图像的简要描述。\n<image>", "一只狗。")
    sft, sft_images = rows_and_pictures(90, "s", "<image>\n图中有什么？", "图中有一只红色的狗，很可爱。")
    clip = load_file(FIXTURES / "clip/model.safetensors")  # released in half precision
    weights = (FIXTURES / "minimind.pth").read_bytes()
    files = {
        ("model", "openai/clip-vit-base-patch16"): {
            **{path.name: path.read_bytes() for path in (FIXTURES / "clip").iterdir()},
            "model.safetensors": save({name: value.half() for name, value in clip.items()}),
            "preprocessor_config.json": b"{}",
        },
        ("model", "jingyaogong/MiniMind2-Small"): {
            path.name: path.read_bytes() for path in (FIXTURES / "tokenizer").iterdir()
        },
        ("model", "jingyaogong/MiniMind2-V-PyTorch"): {"llm_512.pth": language_only(), "sft_vlm_512.pth": weights},
        ("dataset", "jingyaogong/minimind-v_dataset"): {
            "pretrain_data.jsonl": pretrain,
            "pretrain_images.zip": pretrain_images,
            "sft_data.jsonl": sft,
            "sft_images.zip": sft_images,
            "eval_images/舞蹈-dance.jpg": jpeg(random.Random(1)),
            "eval_images/熊猫草地-Panda-Grassland.jpg": jpeg(random.Random(2)),
        },
    }
    with FakeHub(files) as hub:
        yield hub


def language_only() -> bytes:
    state = torch.load(FIXTURES / "minimind.pth", weights_only=True)
    buffer = io.BytesIO()
    torch.save({name: value for name, value in state.items() if not name.startswith("vision_proj")}, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def repository(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("full")
    repository = Repository(folder / "project", "presets/full.args", SIZES, hub.env(folder / "hf"))
    repository.run("dvc", "repro")
    repository.commit()
    return repository


@pytest.fixture(autouse=True)
def restore(repository: Repository) -> Iterator[None]:
    yield
    repository.restore()


def metrics(repository: Repository, checkpoint: str) -> dict:
    path = repository.root / "reports/evaluation" / checkpoint / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))


def listed(repository: Repository) -> dict[str, dict]:
    """The metrics that `dvc metrics show` lists, by checkpoint."""
    files = (repository.root / "metrics").iterdir()
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def test_all_outputs_are_written(repository: Repository) -> None:
    counts = json.loads((repository.root / "reports/prepare/counts.json").read_text(encoding="utf-8"))
    assert counts["sft"]["rows"] == 91 and sum(counts["sft"]["quarantined"].values()) == 1
    quarantine = (repository.root / "reports/prepare/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(json.loads(line)["source"], json.loads(line)["line"]) for line in quarantine] == [
        ("sft_data.jsonl", 6),
        ("pretrain_data.jsonl", 6),
    ]
    found = listed(repository)
    assert set(found) == {"pretrain", *(f"sft-{phase}" for phase in PHASES)}
    assert all(0 < values["loss"] < 20 for values in found.values())
    page = (repository.root / "reports/index.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2 and "熊猫草地" in page
    samples = (repository.root / "reports/evaluation/sft-direct/samples.txt").read_text(encoding="utf-8")
    assert samples.count("[Image]: ") == 2 and "舞蹈-dance" in samples


def test_the_curriculum_has_as_many_target_tokens_as_the_control(repository: Repository) -> None:
    summaries = {
        phase: json.loads((repository.root / f"data/sft/{phase}/summary.json").read_text(encoding="utf-8"))
        for phase in PHASES
    }
    chain = sum(summaries[phase]["target_tokens"] for phase in ("short", "medium", "long"))
    assert chain == pytest.approx(summaries["direct"]["target_tokens"], rel=0.05)
    counts = json.loads((repository.root / "reports/prepare/counts.json").read_text(encoding="utf-8"))
    assert summaries["direct"]["samples"] == counts["sft"]["kept"]["train"]


def test_nothing_is_fetched_or_run_twice(repository: Repository, hub: FakeHub) -> None:
    before = len(hub.requests)
    assert repository.stages_run("dvc", "repro") == set()
    assert len(hub.requests) == before


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "presets/experiments").glob("*.args")))
def test_experiments(repository: Repository, name: str) -> None:
    """Each experiment runs with its documented command and evaluates the expected checkpoints."""
    arguments = (repository.root / f"presets/experiments/{name}.args").read_text(encoding="utf-8").split()
    ran = repository.stages_run("dvc", "exp", "run", "--name", name, *arguments)
    checkpoints = {
        "pretrain-1-epoch": ["pretrain"],
        "pretrain-4-epochs": ["pretrain/epoch-1", "pretrain/epoch-2", "pretrain/epoch-3", "pretrain"],
        "sft-1-epoch": ["pretrain", "sft-direct"],
        "sft-2-epochs": ["pretrain", "sft-direct/epoch-1", "sft-direct"],
        "no-pretrained-weights": ["pretrain", "sft-direct"],
        "ldpv2-3-epochs": ["pretrain/epoch-1", "pretrain/epoch-2", "pretrain"],
        "published": ["published"],
    }[name]
    losses = [metrics(repository, checkpoint)["intervals"]["loss"]["value"] for checkpoint in checkpoints]
    assert all(0 < loss < 20 for loss in losses) and len(set(losses)) == len(losses)
    if name == "published":
        assert ran == {"fetch", "convert@published", "answer-model@published", "score-model@published"}
    else:
        assert set(listed(repository)) == {checkpoint.replace("/epoch-", ".") for checkpoint in checkpoints}
    if name == "no-pretrained-weights":
        assert "language" in ran
    if name == "ldpv2-3-epochs":
        linear = json.loads(repository.run("git", "show", "HEAD:metrics/pretrain.json"))
        assert listed(repository)["pretrain"]["loss"] != linear["loss"]
    assert name in repository.run("dvc", "exp", "list", "--name-only")
