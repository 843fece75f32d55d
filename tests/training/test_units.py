"""Action units and the position of the apex: learnt, masked, scored, written, predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

import apexflow as af
from apexflow.storage.labels import ApexPosition, class_map, named_units
from apexflow.training.config import TrainConfig
from apexflow.training.learning import learning_of
from apexflow.training.results import Prediction, TrainResult, read_result
from tests.storage.stores import Made, make_store

UNITS = ("AU1", "AU4", "AU12")
QUIET = {"epochs": 30, "batch_size": 16, "lr": 3e-2, "progress": False, "device": "cpu"}


def unit_clips(subjects: int = 4, *, seed: int = 0) -> list[Made]:
    """Clips whose flow has a bright third for each unit shown; some cells are in doubt."""
    rng = np.random.default_rng(seed)
    texts = ("1", "4+12", "L12A", "1+4", "7", "(1 or 4)+12", "4+?")
    made = []
    for i in range(subjects * len(texts)):
        text = texts[i % len(texts)]
        flow = rng.normal(0, 0.1, (2, 12, 12)).astype(np.float32)
        for part, mark in enumerate(("1", "4", "12")):
            shown = mark in text.replace("(1 or 4)", "").replace("L12A", "12").split("+")
            flow[:, 4 * part : 4 * part + 4] += shown
        made.append(
            Made(
                f"{i // len(texts):02d}",
                f"c{i}",
                dataset="ab"[i // len(texts) % 2],
                flow={"onset-apex": flow},
                action_units=text,
            )
        )
    return made


class Linear(nn.Module):
    def __init__(self, n_classes: int, sample: torch.Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(sample.numel(), n_classes)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values.flatten(1))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("units") / "s.zarr"
    make_store(path, unit_clips())
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("units") / "run"
    dataset = af.ClipDataset(store, flow="onset-apex", labels="au:1,4,12")
    return folder, af.train(dataset, folder, model=Linear, report_leak=True, **QUIET)


def test_units_are_named_and_unknown_ones_are_no_zeros(store: Path) -> None:
    dataset = af.ClipDataset(store, flow="onset-apex", labels="au:AU1, 4,12")
    assert (dataset.kind, dataset.classes) == ("units", UNITS)
    rows = dict(zip([one.clip for one in dataset.samples], dataset.labels.tolist(), strict=True))
    assert rows["c1"] == [0, 1, 1]
    assert rows["c4"] == [0, 0, 0]
    assert np.isnan(rows["c5"][:2]).all()
    assert rows["c5"][2] == 1
    assert rows["c6"][1] == 1
    assert np.isnan([rows["c6"][0], rows["c6"][2]]).all()
    assert "AU4 12" in repr(dataset)
    value, label = dataset[1]
    _, labels = dataset.collate([(value, label), dataset[2]])
    assert labels.shape == (2, 3)
    assert named_units("au") == (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17)
    with pytest.raises(af.ApexflowError, match="different action units"):
        named_units("au:1,one")


def test_what_cannot_be_learnt_is_said() -> None:
    def clip(subject: str, text: str) -> af.Clip:
        return af.Clip(dataset="a", subject=subject, name=f"{subject}{text}", action_units=text)

    found = class_map(
        [clip("1", "4"), clip("2", "4+12"), clip("3", ""), clip("4", "?")], "au:1,4,12"
    )
    assert found.left_out == {"with an empty cell": 1, "with text that names no unit": 1}
    assert found.warnings == (
        "AU1 is shown by no clip: there is nothing to learn of it",
        "AU12 is shown by a/2 alone: no fold both trains it and tests it",
    )
    with pytest.raises(af.ApexflowError, match="none of 1 clips shows one of AU9"):
        class_map([clip("1", "4")], "au:9")


@pytest.mark.parametrize("name", ["cross-entropy", "focal"])
def test_unknown_entries_have_no_gradient(name: str) -> None:
    learning = learning_of("units")
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([[1.0, 0, 1]] * 5)
    labels[2, 1] = labels[4] = torch.nan
    weights = learning.weights(labels, 3)
    learning.loss(name, weights)(outputs, labels).backward()
    assert outputs.grad is not None
    assert (outputs.grad[labels.isnan()] == 0).all()
    assert (outputs.grad[~labels.isnan()] != 0).all()
    # What no clip shows, or every clip, is not weighed.
    assert weights.tolist() == [1, 1, 1]
    shown = torch.tensor([[1.0], [0], [0], [torch.nan]])
    assert learning.weights(shown, 1).tolist() == [2]


def test_units_are_learnt_and_scored_as_scikit_learn_does(run: tuple[Path, TrainResult]) -> None:
    _, result = run
    assert result.scores.uf1 > 0.9
    true = np.array([one.label for one in result.predictions])
    said = np.array([one.predicted for one in result.predictions])
    for i, unit in enumerate(UNITS):
        known = true[:, i] >= 0
        expected = f1_score(true[known, i], said[known, i])
        assert result.scores.f1[unit] == pytest.approx(expected)
        assert result.interval(f"f1/{unit}").value == pytest.approx(expected)
    interval = result.interval()
    assert interval.low <= interval.value == result.scores.uf1 <= interval.high
    assert set(result.by_dataset) == {"a", "b"}
    table = result.table()
    assert "LEAK, not a result" in table
    assert "mean F1" in table
    assert "F1 of always" in table
    assert "AU12" in table


def test_files_hold_truth_and_score_of_each_unit(run: tuple[Path, TrainResult]) -> None:
    folder, result = run
    with (folder / "predictions.csv").open() as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    assert rows["c5"]["true_AU1"] == ""
    assert rows["c5"]["true_AU12"] == rows["c5"]["AU12"] == "1"
    assert 0 <= float(rows["c5"]["p_AU1"]) <= 1
    again = read_result(folder)
    assert isinstance(again, TrainResult)
    assert [(one.label, one.predicted) for one in again.predictions] == [
        (one.label, one.predicted) for one in result.predictions
    ]
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["groups"]["a"]["unit_f1"]) == set(UNITS)
    assert (folder / "units.svg").is_file()


def test_predict_gives_the_own_test_clips_again(
    run: tuple[Path, TrainResult], store: Path, tmp_path: Path
) -> None:
    folder, _ = run
    dataset = af.ClipDataset(store, flow="onset-apex", labels="au:1,4,12")
    found = af.predict(folder, dataset, model=Linear)
    found.write(tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == (folder / "predictions.csv").read_bytes()
    assert "mean F1" in found.summary()


def test_runs_of_units_are_compared(run: tuple[Path, TrainResult]) -> None:
    folder, result = run
    all_shown = tuple(
        Prediction(o.dataset, o.subject, o.clip, o.fold, o.label, (1, 1, 1), (1.0,) * 3)
        for o in result.predictions
    )
    other = TrainResult("always", "au", UNITS, all_shown, {}, kind="units")
    found = af.compare([folder, other], draws=200)
    assert found.runs[1].difference is not None
    assert found.runs[1].difference.value < 0
    assert found.runs[1].p_mcnemar is None
    assert "p mean F1" in found.table()
    classes = TrainResult("c", "x", UNITS, (), {})
    with pytest.raises(af.ApexflowError, match="scores are of different things"):
        af.compare([folder, classes], draws=200)


def test_inner_validation_and_data_sets_left_out(store: Path, tmp_path: Path) -> None:
    dataset = af.ClipDataset(store, flow="onset-apex", labels="au:1,4,12")
    settings = {**QUIET, "epochs": 4}
    chosen = af.train(
        dataset, tmp_path / "c", model=Linear, choose="checkpoint", balance="weights", **settings
    )
    curves = json.loads(next((tmp_path / "c" / "folds").glob("*/fold.json")).read_text())["curves"]
    assert len(curves["validation_f1"]) == 4
    assert len(chosen.predictions) == len(dataset)
    left = af.train(dataset, tmp_path / "d", model=Linear, folds="dataset", **settings)
    assert set(left.epochs) == {"a", "b"}


def test_settings_of_classes_are_refused_for_units() -> None:
    with pytest.raises(af.ApexflowError, match="balance 'oversample' is of classes"):
        TrainConfig.of("ststnet", labels="au", balance="oversample")
    with pytest.raises(af.ApexflowError, match="balance 'weights' is of classes"):
        TrainConfig.of("ststnet", labels="apex", balance="weights")
    with pytest.raises(af.ApexflowError, match="say it once"):
        TrainConfig.of("ststnet", labels="au", protocol="samm5")
    assert TrainConfig.of("ststnet", protocol="samm5").labels == "samm5"
    assert TrainConfig.of("roi-graph", labels="apex").loss == "absolute"
    assert TrainConfig.of("roi-graph", labels="au").loss == "focal"


FRAMES = 9


def apex_clips(subjects: int = 4, *, seed: int = 0) -> list[Made]:
    """Clips that light up at their apex."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(subjects * 7):
        apex = 1 + i % 7
        frames = rng.integers(0, 60, (FRAMES, 16, 16), np.uint8)
        frames[apex] += 150
        flow = {"onset-apex": np.zeros((2, 16, 16), np.float32)}  # says how large a crop is
        who = f"{i // 7:02d}"
        made.append(Made(who, f"c{i}", frames=frames, flow=flow, apex=apex, dataset="samm"))
    return made


class Brightest(nn.Module):
    """Where in the sequence a learnt figure of the frames is largest, as a soft position."""

    def __init__(self, n_classes: int, sample: torch.Tensor) -> None:
        super().__init__()
        self.figure = nn.Linear(sample[0].numel(), 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.figure(frames.flatten(2))[..., 0], 1)
        return (weights * torch.linspace(0, 1, frames.shape[1])).sum(1, keepdim=True)


def test_a_planted_apex_is_found(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", apex_clips())
    dataset = af.ClipDataset(tmp_path / "s.zarr", frames="interval", n_frames=FRAMES, labels="apex")
    assert dataset.samples[2].label == ApexPosition(10, 13, 18, 200)
    result = af.train(dataset, tmp_path / "r", model=Brightest, **QUIET)
    assert result.scores.mae_frames < 0.5
    assert result.scores.mae_ms == pytest.approx(5 * result.scores.mae_frames)
    assert result.interval().low <= result.scores.mae_frames <= result.interval().high
    assert "the middle of each clip would err by 1.71 frames" in result.table()
    again = read_result(tmp_path / "r")
    assert again.scores.mae_frames == pytest.approx(result.scores.mae_frames, abs=1e-4)
    shuffled = np.random.default_rng(0).permutation(len(dataset))
    dataset.labels = dataset.labels[torch.as_tensor(shuffled)]
    chance = af.train(dataset, tmp_path / "x", model=Brightest, **QUIET)
    assert chance.scores.mae_frames > 1


@pytest.mark.slow
def test_the_preset_of_sequences_learns_a_planted_apex(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", apex_clips())
    settings = {**QUIET, "epochs": 25, "lr": 3e-3, "choose": "last", "augment": "none"}
    result = af.train(
        tmp_path / "s.zarr",
        tmp_path / "r",
        model="cnn-bilstm-pooled",
        labels="apex",
        sample={"frames": "interval", "n_frames": FRAMES},
        folds=2,
        **settings,
    )
    assert result.scores.mae_frames < 1


def test_what_was_made_with_the_apex_known_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", apex_clips(2))
    for given in (
        {"flow": "onset-apex"},
        {"frames": "interval", "max_frames": 5},
        {"frames": "all"},
    ):
        with pytest.raises(af.ApexflowError, match="labels 'apex'"):
            af.ClipDataset(tmp_path / "s.zarr", labels="apex", **given)
