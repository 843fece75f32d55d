"""Training clips drawn with their key frames moved, and trained networks tested so."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apexflow as af
from apexflow.errors import ApexflowError
from apexflow.shifted_clips import ShiftedClips
from apexflow.storage.dataset import ClipDataset
from apexflow.training.batches import Feeder
from apexflow.training.config import TrainConfig
from apexflow.training.fitting import fit
from apexflow.training.jitter import JitteredClips, ShiftedSamples
from apexflow.training.machine import Machine
from apexflow.training.results import TrainResult
from apexflow.training.shifts import shifts_to_test, shifts_within, size_of
from tests.storage.stores import make_store
from tests.training.folders import checkpoints
from tests.training.motion import motion_clips

FED = {"maps": "hsv"}
SETTINGS: dict[str, Any] = {
    **{"model": "ststnet", "sample": FED, "labels": "emotion", "epochs": 2, "folds": 2},
    **{"device": "cpu", "progress": False},
}


def test_shifts_are_all_of_a_square_and_of_large_ones_some() -> None:
    assert shifts_within(0) == [(0, 0)]
    found = shifts_within(2)
    assert len(set(found)) == len(found) == 25
    assert [size_of(shift) for shift in found] == sorted(size_of(shift) for shift in found)
    tested = shifts_to_test(4)
    assert tested == shifts_to_test(4)
    assert tested[:25] == found
    assert [size_of(shift) for shift in tested[25:]] == [3] * 16 + [4] * 16
    assert len(set(tested)) == len(tested)


@pytest.fixture(scope="module")
def jittered() -> JitteredClips:
    """12 clips whose one number says the clip, and by its hundreds the form."""
    store = np.arange(12, dtype=np.float32).reshape(12, 1)
    dataset = ClipDataset.from_arrays(store, [0, 1] * 6, subjects=list("abcdef") * 2)
    forms = torch.arange(9)[:, None, None] * 100 + torch.arange(12)[:, None]
    return JitteredClips.of(dataset, ShiftedSamples({"values": forms.float()}, (0,) * 9, 0.0))


def test_each_epoch_draws_other_forms_of_the_same_clips(jittered: JitteredClips) -> None:
    epochs = [jittered.drawn(seed=3, epoch=i).batch(range(12))[0][:, 0] for i in range(40)]
    for values in epochs:
        np.testing.assert_array_equal(values % 100, np.arange(12))
    drawn = torch.stack(epochs) // 100
    assert drawn.unique().tolist() == list(range(9))
    assert len(drawn.unique(dim=0)) == 40
    again = jittered.drawn(seed=3, epoch=7).batch(range(12))[0][:, 0]
    assert torch.equal(again, epochs[7])
    # What is not learned from is as it is.
    np.testing.assert_array_equal(jittered.batch(range(12))[0][:, 0], np.arange(12))


def test_a_feeder_gives_the_forms_and_keeps_the_order(jittered: JitteredClips) -> None:
    learnt = [1, 2, 5, 8, 11]
    plain, moved = (
        Feeder(dataset, learnt, batch_size=5, seed=3)
        for dataset in (
            jittered.with_values({"values": jittered.read(range(12))["values"]}),
            jittered,
        )
    )
    ((before, labels),), ((after, same),) = (list(one.epoch(2)) for one in (plain, moved))
    assert torch.equal(labels, same)
    assert torch.equal(after % 100, before)
    assert sorted(before[:, 0].tolist()) == learnt
    assert (after // 100).any()


def test_a_fold_learns_from_the_forms(reference: Path) -> None:
    config = TrainConfig.of("ststnet", sample=FED, epochs=2, jitter=1)
    dataset = ClipDataset(reference, **FED, labels="emotion")
    shifted = ShiftedClips(dataset).read(range(5), shifts_within(1))
    moved = JitteredClips.of(dataset, shifted)
    machine = Machine(torch.device("cpu"))
    none, one, two = (
        fit(clips, [0, 1, 3, 4], config, machine, seed=1, test=[2])
        for clips in (dataset, moved, moved)
    )
    assert same([one.state], [two.state])
    assert not same([one.state], [none.state])
    assert one.normalization == none.normalization


@pytest.mark.slow
def test_a_jittered_training_is_the_same_side_by_side(reference: Path, tmp_path: Path) -> None:
    af.train(reference, tmp_path / "one", **SETTINGS, jitter=1)
    af.train(reference, tmp_path / "two", **SETTINGS, jitter=1, jobs=2)
    one, two = (
        [torch.load(path)["state"] for path in checkpoints(tmp_path / name)]
        for name in ("one", "two")
    )
    assert same(one, two)


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return all(
        torch.equal(value, b[name])
        for a, b in zip(first, second, strict=True)
        for name, value in a.items()
    )


def test_a_finished_run_is_tested_at_each_shift(reference: Path, tmp_path: Path) -> None:
    first = af.train(reference, tmp_path, **SETTINGS, shuffle=False)
    before = {path: path.read_bytes() for path in checkpoints(tmp_path)}
    # As little memory as one clip takes at a time, which changes nothing.
    dataset = ClipDataset(reference, **FED, labels="emotion", memory=1)
    again = {name: v for name, v in SETTINGS.items() if name not in ("sample", "labels")}
    run = af.train(dataset, tmp_path, **again, shuffle=False, jitter_test=1)
    assert {path: path.read_bytes() for path in checkpoints(tmp_path)} == before
    assert isinstance(first, TrainResult)
    assert isinstance(run, TrainResult)
    with (tmp_path / "jitter.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["onset"]), int(r["apex"])) for r in rows] == shifts_within(1)
    assert float(rows[0]["uf1"]) == pytest.approx(first.scores.uf1, abs=1e-6)
    # By hand: each clip, its onset a frame later, by the network of its fold.
    shifted = ShiftedClips(dataset).read(range(5), [(1, 0)]).values["maps"][0]
    folds = {fold.name: fold.test.indices for fold in af.folds(dataset, 2)}
    right = 0
    for path in checkpoints(tmp_path):
        saved = af.training.checkpoint.Checkpoint.read(path)
        for i in folds[saved.fold]:
            values = saved.normalization(shifted[i][None].float() / 255)
            right += int(saved.network()(values).argmax() == dataset.labels[i])
    (row,) = [r for r in rows if (r["onset"], r["apex"]) == ("1", "0")]
    assert float(row["accuracy"]) == pytest.approx(right / 5, abs=1e-6)
    by_shift = json.loads((tmp_path / "jitter.json").read_text())["by_shift"]
    mean = np.mean([float(r["uar"]) for r in rows[1:]])
    assert by_shift["1"]["uar"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert by_shift["1"]["clamped"] == sum(int(r["clamped"]) for r in rows[1:]) == 3 * 5
    *_, last = run.table().splitlines()
    assert last.split()[:3] == ["1", "8", "38%"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jitter": 2, "memory": 60_000}, "jitter 2 keeps 25 forms of each clip, 0 MB together"),
        ({"jitter": -1}, "jitter must be 0 or more"),
        ({"jitter": 1.5}, "jitter must be a whole number"),
        ({"jitter_test": -1}, "jitter_test must be 0 or more"),
        ({"jitter": 1, "model": "svm"}, "leave out the setting jitter"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    reference: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    settings = {name: v for name, v in SETTINGS.items() if name != "epochs"}
    with pytest.raises(ApexflowError, match=said):
        af.train(reference, tmp_path / "run", **{**settings, **changes})
    assert not (tmp_path / "run").exists()


def test_the_position_of_the_apex_is_not_jittered(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", motion_clips(2, 1))
    with pytest.raises(ApexflowError, match="labels 'apex' is where the apex lies"):
        af.train(
            tmp_path / "s.zarr",
            tmp_path / "run",
            **{
                **SETTINGS,
                "sample": {"frames": "interval"},
                "model": "cnn-bilstm",
                "labels": "apex",
            },
            jitter_test=1,
        )
