"""The layout of packs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from stages.common.core.errors import InputError
from stages.common.data.chat import IGNORED
from stages.common.data.features import CachedFeatures
from stages.common.data.packing import PackCollate, SampleDataset, check_positions
from stages.common.data.samples import Samples

PAD_ID, IMAGE_ID, IMAGE_TOKENS = 0, 3, 2
ROWS = [
    ([1], [5, IMAGE_ID, 6, 7], [IGNORED, IGNORED, 6, 7]),
    ([], [8, 9], [8, 9]),  # its first token is a target, too, but nothing precedes it
    ([0, 1], [IMAGE_ID, IMAGE_ID, 4], [IGNORED, IGNORED, 4]),
]


def dataset() -> SampleDataset:
    features = np.arange(2 * IMAGE_TOKENS * 3, dtype=np.float16).reshape(2, IMAGE_TOKENS, 3)
    return SampleDataset(Samples.of(ROWS), CachedFeatures(features), IMAGE_TOKENS, IMAGE_ID)


@pytest.mark.parametrize(("length", "total"), [(None, 128), (12, 12), (40, 40), (11, 128)])
def test_samples_are_concatenated(length: int | None, total: int) -> None:
    data = dataset()
    batch = PackCollate(PAD_ID, length)([data[number] for number in range(3)])
    ids, labels, positions = (batch[key].squeeze(0).tolist() for key in ("input_ids", "labels", "position_ids"))
    assert data.lengths == [5, 2, 5]
    assert ids[:12] == [5, IMAGE_ID, IMAGE_ID, 6, 7, 8, 9, *4 * [IMAGE_ID], 4]
    assert labels[:12] == [*3 * [IGNORED], 6, 7, IGNORED, 9, *4 * [IGNORED], 4]
    assert positions[:12] == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3, 4]
    assert batch["patch_features"].flatten(1).tolist() == [
        [6, 7, 8, 9, 10, 11],
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]
    assert batch["patch_features"].numpy().dtype == np.float16  # as they are kept
    bounds = batch["cu_seq_lens_q"].tolist()
    assert 5 <= batch["max_length_q"] < 10
    assert bounds[:4] == [0, 5, 7, 12] and set(bounds[4:]) <= {12}
    rest = len(ids) - 12
    assert total - 12 + 1 <= rest <= total - 12 + 16  # packed attention needs a position that belongs to no sample
    assert ids[12:] == rest * [PAD_ID] and labels[12:] == rest * [IGNORED]
    assert positions[12] == 0 and all(later == before + 1 for before, later in pairwise(positions[12:]))


def test_packs_of_one_length_have_one_shape() -> None:
    data, collate = dataset(), PackCollate(PAD_ID, 12)
    shapes = {collate([data[number] for number in batch])["input_ids"].shape for batch in ([0], [1, 2], [0, 1, 2])}
    assert len(shapes) == 1


def test_a_pack_of_texts_has_no_pictures() -> None:
    assert "patch_features" not in PackCollate(PAD_ID, None)([dataset()[1]])


def test_a_sample_shown_without_targets() -> None:
    data = dataset()
    for number in range(3):
        shown, learnt = data[-1 - number], data[number]
        assert set(shown["labels"]) == {IGNORED} and set(learnt["labels"]) != {IGNORED}
        assert shown["input_ids"].tolist() == learnt["input_ids"].tolist()
        assert np.array_equal(shown["patch_features"], learnt["patch_features"])


def test_too_few_positions() -> None:
    check_positions(dataset(), 5)
    with pytest.raises(InputError, match=r"takes 5 positions, .* has 4"):
        check_positions(dataset(), 4)
