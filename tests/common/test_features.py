"""Pictures of a split, cached or decoded at every access, on their way to a training step."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, CLIPVisionConfig, LlamaConfig

from model.vlm.configuration import vlm_config
from model.vlm.modeling import VlmForConditionalGeneration
from model.vlm.processing import image_processor
from stages.common.data.chat import IGNORED
from stages.common.data.features import CachedFeatures, load_pictures
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.data.pictures import pixel_values
from stages.common.data.samples import Samples
from stages.common.data.shards import PictureReader, picture_starts, read_images, write_shard

SIDE, IMAGE_ID = 16, 3
COUNTS = [1, 0, 2, 1] * 20  # pictures of each row


def picture(rng: random.Random, mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(rng.randrange(10**6)).integers(0, 255, (rng.randrange(17, 40), 24, len(mode)))
    buffer = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8).squeeze(), mode).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards of rows with no, one or two pictures."""
    rng = random.Random(0)
    rows = [
        {"id": str(n), "images": [{"bytes": picture(rng), "path": f"{n}-{i}"} for i in range(count)], "scene": ""}
        for n, count in enumerate(COUNTS)
    ]
    folder = tmp_path / "data/prepared"
    folder.mkdir(parents=True)
    write_shard(folder / "train-00000.parquet", [row | {"texts": []} for row in rows[:50]])
    write_shard(folder / "train-00001.parquet", [row | {"texts": []} for row in rows[50:]])
    monkeypatch.chdir(tmp_path)
    return folder


def test_pictures_are_numbered_through_all_rows(shards: Path) -> None:
    names = [f"{n}-{i}" for n, count in enumerate(COUNTS) for i in range(count)]
    assert [image["path"] for image in read_images("train")] == names
    assert picture_starts("train").tolist() == [sum(COUNTS[:n]) for n in range(len(COUNTS) + 1)]
    reader = PictureReader("train")
    assert len(reader) == len(names)
    for number in (79, 0, 41, 40, 3, 79, 12):
        assert reader[number]["path"] == names[number]


def network() -> VlmForConditionalGeneration:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = vlm_config(
        CLIPVisionConfig(**vision, image_size=SIDE, patch_size=8),
        LlamaConfig(vocab_size=50, intermediate_size=16, **text),
        "linear",
        IMAGE_ID,
    )
    return VlmForConditionalGeneration(config).eval()


def samples() -> Samples:
    starts = np.concatenate([[0], np.cumsum(COUNTS)])
    rows = []
    for number, count in enumerate(COUNTS):
        ids = [1, *[IMAGE_ID] * count, 10 + number % 30, 9, 2]
        rows.append((range(starts[number], starts[number + 1]), ids, [*[IGNORED] * (len(ids) - 2), 9, 2]))
    return Samples.of(rows)


@pytest.mark.parametrize("workers", [0, 2])
def test_decoded_pictures_and_cached_features_give_the_same_loss(shards: Path, workers: int) -> None:
    """Rows without, with one and with two pictures, in batches of which some have no picture at all."""
    model = network()
    pixels = load_pictures("train", False, SIDE)
    with torch.no_grad():
        features = model.patch_features(torch.from_numpy(pixels[list(range(sum(COUNTS)))])).numpy()
    losses = []
    for pictures in (pixels, CachedFeatures(features)):
        dataset = SampleDataset(samples(), pictures, model.config.image_tokens, IMAGE_ID)
        assert dataset.decodes == (pictures is pixels)
        batches = [[0, 1, 2], [1, 5, 9], [70, 3, 79], [2]]
        loader = DataLoader(dataset, batch_sampler=batches, collate_fn=PackCollate(0, None), num_workers=workers)
        with torch.no_grad():
            losses.append([model(**batch).loss.item() for batch in loader])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(set(losses[0])) == 4


@pytest.mark.parametrize("fits", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L"])
def test_training_sees_what_the_saved_processor_shows(mode: str, fits: bool, tmp_path: Path) -> None:
    """Transparency included; pictures of any size, and of the one that needs no change."""
    data = picture(random.Random(3), mode)
    if fits:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).resize((SIDE, SIDE)).save(buffer, "PNG")
        data = buffer.getvalue()
    image_processor(SIDE).save_pretrained(tmp_path)
    shown = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(
        Image.open(io.BytesIO(data)), return_tensors="pt"
    )
    assert torch.allclose(pixel_values([{"bytes": data}], SIDE), shown["pixel_values"], atol=1e-5)


def test_samples_come_back_from_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, because Arrow counts the numbers of a list array in 32 bits; and without any."""
    monkeypatch.setattr("stages.common.data.samples._CHUNK", 7)
    for number, written in enumerate((samples(), Samples.of([]))):
        written.write(tmp_path / f"{number}.parquet")
        read = Samples.read(tmp_path / f"{number}.parquet")
        assert [[part.tolist() for part in sample] for sample in read] == [
            [part.tolist() for part in sample] for sample in written
        ]
        assert len(read) == len(written)
