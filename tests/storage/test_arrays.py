from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import apexflow as af
from apexflow.errors import ApexflowError


def values(n: int = 6, **changes: Any) -> np.ndarray:
    return np.random.default_rng(changes.get("seed", 0)).integers(0, 256, (n, 5, 7, 3), np.uint8)


SUBJECTS = ["1", "1", "2", "2", "3", "3"]


def test_arrays_are_served_as_a_store_is() -> None:
    given = values()
    dataset = af.ClipDataset.from_arrays(
        given,
        ["b", "a", "b", "a", "b", "a"],
        datasets=["x", "x", "x", "x", "y", "y"],
        subjects=SUBJECTS,
        clips=list("abcdef"),
    )
    image, label = dataset[1]
    np.testing.assert_allclose(image, np.moveaxis(given[1], -1, 0) / 255, rtol=1e-6)
    assert (label, dataset.classes, len(dataset)) == (0, ("a", "b"), 6)
    assert [fold.name for fold in af.folds(dataset)] == ["x/1", "x/2", "y/3"]
    batches = DataLoader(dataset, batch_size=4, collate_fn=dataset.collate)
    assert [tuple(batch.shape) for batch, _ in batches] == [(4, 3, 5, 7), (2, 3, 5, 7)]
    kept = image.clone()
    given[:] = 0
    assert torch.equal(dataset[1][0], kept)


def test_other_values_are_another_fingerprint() -> None:
    prints = {
        af.ClipDataset.from_arrays(array, [0, 1] * 3, subjects=SUBJECTS).fingerprint
        for array in (values(), values(), values(seed=1), values() / 255)
    }
    assert len(prints) == 3


def test_classes_keep_their_order_and_people_their_names() -> None:
    dataset = af.ClipDataset.from_arrays(
        np.random.default_rng(0).normal(size=(4, 9)),
        [1, 0, 1, 0],
        subjects=["1", "2", "3", "4"],
        people=["p", "p", "q", "q"],
        classes=["surprise", "negative"],
    )
    assert dataset.classes == ("surprise", "negative")
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert [fold.name for fold in af.folds(dataset)] == ["p", "q"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": values()[0]}, r"values must be \(N, H, W, C\)"),
        (
            {"values": np.full((6, 2, 2, 1), np.nan)},
            "6 clips are not finite, the first is number 0",
        ),
        ({"values": np.full((6, 2, 2, 1), "x")}, "bytes or floats"),
        ({"subjects": ["1"]}, "subjects must be 6, one a clip"),
        ({"labels": [0, 1, 2]}, "labels must be 6"),
        ({"labels": [0, 1, 2, -1, 0, 0]}, "whole numbers from 0, or names. Got -1"),
        ({"labels": [0.5] * 6}, "whole numbers from 0, or names. Got 0.5"),
        ({"labels": [5] * 6, "classes": ["a", "b"]}, "labels must be below 2"),
        ({"clips": ["a"] * 6}, "two clips have the key"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], message: str) -> None:
    given = {"values": values(), "labels": [0, 1] * 3, "subjects": SUBJECTS, **changes}
    with pytest.raises(ApexflowError, match=message):
        af.ClipDataset.from_arrays(given.pop("values"), given.pop("labels"), **given)
