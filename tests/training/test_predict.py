"""Clips through a trained run: its own as they came out, strangers by all, wrong input told."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import apexflow as af
from apexflow.cli import cli
from apexflow.errors import ApexflowError
from tests.storage.stores import make_store
from tests.training.motion import motion_clips

FED = {"flow": "onset-apex", "encode": "uv-strain"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predict") / "motion.zarr"
    make_store(path, motion_clips(3, 2))
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    af.train(
        store,
        folder,
        model="ststnet",
        sample=FED,
        epochs=4,
        lr=1e-2,
        normalize="channel",
        final=True,
        device="cpu",
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person whom the run does not know, one whom it does, and a clip without an emotion."""
    clips = motion_clips(2, 2, seed=4)
    for clip in clips:
        clip.subject, clip.name = {"00": "stranger", "01": "01"}[clip.subject], f"new {clip.name}"
    clips[0].emotion = ""
    path = tmp_path_factory.mktemp("predict") / "new.zarr"
    make_store(path, clips)
    return path


def test_its_own_test_clips_come_out_bit_for_bit(store: Path, run: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        cli,
        ["predict", str(run), str(store), "-o", str(tmp_path / "p.csv")],
        catch_exceptions=False,
    )
    assert told.exit_code == 0
    assert (tmp_path / "p.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    assert "18 of people whom the training knows" in told.output
    assert "(18 are its own test clips)" in told.output


def test_strangers_are_predicted_by_all_folds_or_the_final_network(
    run: Path, strangers: Path
) -> None:
    final = af.predict(run, strangers)
    folds = af.predict(run, strangers, network="folds")
    said = {one.key: one.fold for one in final.predictions}
    assert {said[one.key] for one in final.predictions if one.subject == "01"} == {"made/01"}
    assert {said[one.key] for one in final.predictions if one.subject == "stranger"} == {"final"}
    dataset = af.ClipDataset(strangers, **FED, labels="none")
    for i, one in enumerate(folds.predictions):
        if one.subject == "01":
            assert one.probabilities == final.predictions[i].probabilities
            continue
        assert one.fold == "all folds"
        by_hand = [probabilities(path, dataset[i][0]) for path in sorted(run.glob("folds/*"))]
        np.testing.assert_allclose(one.probabilities, np.mean(by_hand, axis=0), atol=1e-6)
        np.testing.assert_allclose(
            final.predictions[i].probabilities,
            probabilities(run / "final", dataset[i][0]),
            atol=1e-6,
        )


def probabilities(place: Path, values: torch.Tensor) -> np.ndarray:
    """What a checkpoint says, without the code that is tested."""
    saved = torch.load(place / "checkpoint.pt")
    network = af.training.models.STSTNet(3)
    network.load_state_dict(saved["state"])
    mean, deviation = (torch.tensor(saved[name])[:, None, None] for name in ("mean", "deviation"))
    with torch.no_grad():
        logits = network.eval()(((values - mean) / (deviation + 1e-6))[None])
    return torch.softmax(logits, 1)[0].numpy()


def test_whom_every_network_has_seen_is_not_predicted(
    run: Path, strangers: Path, tmp_path: Path
) -> None:
    other = copy(run, tmp_path)
    seen = json.loads((other / "seen.json").read_text())
    seen["people"].append("made/stranger")
    (other / "seen.json").write_text(json.dumps(seen))
    with pytest.raises(ApexflowError, match="has learnt from made/stranger, whom no fold tested"):
        af.predict(other, strangers)


def test_clips_without_a_class_are_predicted_and_not_scored(run: Path, strangers: Path) -> None:
    found = af.predict(run, strangers)
    assert len(found.predictions) == 12
    assert [one.label for one in found.predictions].count(-1) == 1
    assert found.scored is not None
    assert found.scored.scores.clips == 11
    assert "[" in found.table()
    (unknown,) = [one for one in found.predictions if one.label == -1]
    assert replace(found, predictions=(unknown,)).summary().startswith("1 clip\n")


def copy(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


def lose(run: Path) -> None:
    (run / "folds" / "001_made_01" / "checkpoint.pt").unlink()


def damage(run: Path) -> None:
    path = run / "folds" / "001_made_01" / "checkpoint.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(run: Path) -> None:
    first, second = sorted((run / "folds").iterdir())[:2]
    for name in ("checkpoint.pt", "fold.json"):
        shutil.copy(first / name, second / name)


def lose_a_fold(run: Path) -> None:
    shutil.rmtree(run / "folds" / "001_made_01")


def other_recipe(run: Path) -> None:
    path = run / "config.json"
    values: dict[str, Any] = json.loads(path.read_text())
    values["recipes"] = {"other": {"crop": {"height": 64}}}
    path.write_text(json.dumps(values))


def no_config(run: Path) -> None:
    (run / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lose, "checkpoint.pt: No such file"),
        (damage, "checkpoint.pt is not the file that this training wrote"),
        (swap, "is of fold made/00 .* the run's is made/01"),
        (lose_a_fold, "holds 2 of 3 folds' networks"),
        (other_recipe, "was made by another recipe than the training's stores"),
        (no_config, "config.json is damaged"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    store: Path, run: Path, tmp_path: Path, harm: Any, message: str
) -> None:
    harmed = copy(run, tmp_path)
    harm(harmed)
    with pytest.raises(ApexflowError, match=message) as told:
        af.predict(harmed, store)
    assert "\n" not in str(told.value)


def test_what_cannot_be_predicted_is_told(run: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(ApexflowError, match="no such store, video or folder"):
        af.predict(run, tmp_path / "lost.mp4")
    with pytest.raises(ApexflowError, match="no finished training"):
        af.predict(tmp_path, store)
    with pytest.raises(ApexflowError, match="apex is a frame of one video"):
        af.predict(run, store, apex=3)
    without = copy(run, tmp_path)
    shutil.rmtree(without / "final")
    with pytest.raises(ApexflowError, match="no network trained on all clips"):
        af.predict(without, store, network="final")


def test_a_clip_that_changed_since_is_said(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = motion_clips(3, 2)
    clips[0].flow["onset-apex"][:] = 0
    make_store(tmp_path / "changed.zarr", clips)
    af.predict(run, tmp_path / "changed.zarr")
    assert "1 of the training's own 18 test clips differ" in caplog.text


def test_the_written_file_reads_as_a_table(run: Path, strangers: Path, tmp_path: Path) -> None:
    af.predict(run, strangers).write(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["label"] == rows[0]["true_class"] == ""
    assert all(
        sum(float(row[name]) for name in row if name.startswith("p_")) == pytest.approx(1, abs=1e-5)
        for row in rows
    )
