"""What a result is worth: which network is tested, and that nothing of the tested is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apexflow as af
from apexflow.errors import ApexflowError
from apexflow.training.checkpoint import Bookmark, Checkpoint
from apexflow.training.config import TrainConfig
from apexflow.training.fitting import _Training, fit_fold, predict_clips
from apexflow.training.folds import make_folds
from apexflow.training.machine import Machine
from tests.training.folders import checkpoints

SETTINGS: dict[str, Any] = {
    "model": "ststnet",
    "epochs": 3,
    "lr": 1e-2,
    "batch_size": 8,
    "normalize": "channel",
}
CPU = Machine(torch.device("cpu"))


def clips(people: int = 4, *, seed: int = 0) -> af.ClipDataset:
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1, 2, 0, 1, 2], people)
    values = rng.normal(size=(len(labels), 28, 28, 3)).astype(np.float32)
    values[np.arange(len(labels)), 5 + 6 * labels, 10] += 9
    subjects = [f"{i // 6:02d}" for i in range(len(labels))]
    return af.ClipDataset.from_arrays(values, labels.tolist(), subjects=subjects)


def trained(output: Path, dataset: Any = None, **changes: Any) -> Any:
    dataset = clips() if dataset is None else dataset
    return af.train(dataset, output, **{"device": "cpu", "progress": False, **SETTINGS, **changes})


def files(folder: Path) -> dict[str, bytes]:
    """All that a training leaves, but pictures and what tells of the machine."""
    kinds = (".csv", ".json", ".pt")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in kinds and path.name != "config.json"
    }


def learnt_by(dataset: af.ClipDataset, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> set[int]:
    """Return the clips that training reads from its first to its last epoch."""
    config = TrainConfig.of(**{**SETTINGS, **changes})
    seen: set[int] = set()
    feed = _Training.step_epoch
    read = dataset.batch

    def noted(self: Any, epoch: int) -> float:
        monkeypatch.setattr(dataset, "batch", lambda which: seen.update(which) or read(which))
        loss = feed(self, epoch)
        monkeypatch.setattr(dataset, "batch", read)
        return loss

    monkeypatch.setattr(_Training, "step_epoch", noted)
    fold = make_folds(dataset.samples)[0]
    fit_fold(dataset, fold, config, CPU)
    return seen


def test_last_learns_from_all_training_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = clips()
    everyone_else = set(range(6, 24))
    assert learnt_by(dataset, monkeypatch, choose="last") == everyone_else
    assert learnt_by(dataset, monkeypatch, choose="checkpoint") < everyone_else


def test_last_tests_the_last_network(tmp_path: Path) -> None:
    result = trained(tmp_path)
    assert set(result.epochs.values()) == {3}
    fold = json.loads((tmp_path / "folds" / "000_arrays_00" / "fold.json").read_text())
    assert list(fold["curves"]) == ["loss"]


def test_reporting_the_leak_changes_no_result(tmp_path: Path) -> None:
    plain, told = trained(tmp_path / "a"), trained(tmp_path / "b", report_leak=True)
    assert plain.leak is None
    assert plain.predictions == told.predictions
    # Of each fold the epoch with most right: at least as many as at the last.
    assert told.leak.accuracy >= told.scores.accuracy


def test_choosing_on_noise_is_seen_in_the_leak_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(36, 28, 28, 3))
    dataset = af.ClipDataset.from_arrays(
        noise, rng.integers(0, 3, 36).tolist(), subjects=[f"{i // 3}" for i in range(36)]
    )
    result = trained(tmp_path, dataset, folds=6, epochs=20, report_leak=True)
    assert result.leak.accuracy > result.scores.accuracy + 0.1


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "alone"
    trained(folder, seeds=2)
    return folder


class TestReproducible:
    def test_folds_side_by_side_leave_the_same_bytes(self, alone: Path, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            trained(tmp_path / "two", seeds=2, jobs=2)
        finally:
            torch.set_num_threads(before)
        assert files(tmp_path / "two") == files(alone)

    def test_each_seed_is_a_run_of_its_own(self, alone: Path, tmp_path: Path) -> None:
        one = trained(tmp_path / "one", seed=1)
        assert one.seed == 1
        assert files(tmp_path / "one") == files(alone / "seed-1")
        assert files(alone / "seed-0") != files(alone / "seed-1")
        with pytest.raises(ApexflowError, match="holds the results of several seeds"):
            trained(alone)
        with pytest.raises(ApexflowError, match="holds the results of one seed"):
            trained(tmp_path / "one", seeds=2)

    def test_more_seeds_go_on(self, alone: Path) -> None:
        kept = {path: path.stat().st_mtime_ns for path in alone.rglob("checkpoint.pt")}
        result = trained(alone, seeds=3)
        assert [one.seed for one in result.results] == [0, 1, 2]
        assert {path: path.stat().st_mtime_ns for path in kept} == kept

    def test_other_threads_or_machines_are_refused(self, tmp_path: Path) -> None:
        trained(tmp_path)
        with pytest.raises(ApexflowError, match="results with threads 1, now it is 2"):
            trained(tmp_path, threads=2)
        config = tmp_path / "config.json"
        config.write_text(config.read_text().replace('"device": "cpu"', '"device": "cuda"'))
        with pytest.raises(ApexflowError, match="results with device 'cuda', now it is 'cpu'"):
            trained(tmp_path)


class CutError(Exception):
    """Stands for a killed run."""


@pytest.mark.parametrize("choose", ["last", "checkpoint", "epochs"])
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_fold_that_was_cut_short_ends_the_same(tmp_path: Path, choose: str, epoch: int) -> None:
    dataset = clips()
    changes = {"choose": choose, "epochs": 5, "schedule": "cosine", "report_leak": True}
    config = TrainConfig.of(**{**SETTINGS, **changes})
    fold = make_folds(dataset.samples)[1]
    whole = fit_fold(dataset, fold, config, CPU)
    path = tmp_path / "bookmark.pt"

    def cut(done: int) -> None:
        if done == epoch + 1:
            raise CutError

    with pytest.raises(CutError):
        fit_fold(dataset, fold, config, CPU, cut, Bookmark(path, seconds=0))
    done: list[int] = []
    again = fit_fold(dataset, fold, config, CPU, done.append, Bookmark(path, seconds=0))
    assert done[0] == epoch + 1
    assert again.curves == whole.curves
    assert again.leak == whole.leak
    np.testing.assert_array_equal(again.probabilities, whole.probabilities)
    for name, value in whole.state.items():
        assert torch.equal(again.state[name], value), name


def test_a_cut_in_the_second_training_does_not_repeat_the_first(tmp_path: Path) -> None:
    dataset = clips()
    config = TrainConfig.of(**{**SETTINGS, "choose": "epochs", "epochs": 2})
    fold = make_folds(dataset.samples)[0]
    whole = fit_fold(dataset, fold, config, CPU)
    bookmark = Bookmark(tmp_path / "bookmark.pt", seconds=0)
    fit_fold(dataset, fold, config, CPU, bookmark=bookmark)  # its last mark is of the second
    done: list[int] = []
    again = fit_fold(dataset, fold, config, CPU, done.append, bookmark)
    assert not done
    np.testing.assert_array_equal(again.probabilities, whole.probabilities)


def test_a_damaged_bookmark_begins_the_fold_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bookmark.pt"
    path.write_bytes(b"PK\x03\x04 no archive")
    assert Bookmark(path).read() is None
    assert "the fold begins again" in caplog.text


def test_a_checkpoint_gives_its_predictions_again_bit_by_bit(tmp_path: Path) -> None:
    dataset = clips()
    trained(tmp_path, dataset)
    fold = make_folds(dataset.samples)[2]
    path = checkpoints(tmp_path)[2]
    finished = json.loads((path.parent / "fold.json").read_text())
    kept = Checkpoint.read(path, finished["checkpoint"])
    assert (kept.fold, kept.classes) == (fold.name, dataset.classes)
    # With other clips beside them, and in another order.
    mixed = [*fold.test[::-1], 0, 1]
    found = predict_clips(kept.network(), kept.normalization, dataset, mixed, CPU, "class")
    np.testing.assert_array_equal(found[: len(fold.test)][::-1], finished["probabilities"])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ApexflowError, match="is not the file that this training wrote"):
        Checkpoint.read(path, finished["checkpoint"])


def test_a_planted_person_is_refused() -> None:
    dataset = clips()
    mixed = [([*range(6, 24), 0], [1, 2])]
    with pytest.raises(ApexflowError, match="arrays/00 is on both sides"):
        make_folds(dataset.samples, mixed)


def test_planted_frames_are_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(12, 28, 28, 3))
    values[7] = values[0]  # one clip under two people
    dataset = af.ClipDataset.from_arrays(
        values, [0, 1, 2] * 4, subjects=[f"{i // 3}" for i in range(12)]
    )
    with pytest.raises(ApexflowError, match="same frames"):
        trained(tmp_path, dataset)
    values[0] = values[7] = 0  # two still faces are no copy of one another
    still = af.ClipDataset.from_arrays(
        values, [0, 1, 2] * 4, subjects=[f"{i // 3}" for i in range(12)]
    )
    assert len(list(af.folds(still))) == 4


@pytest.mark.parametrize("what", ["normalize", "balance", "both"])
def test_planted_statistics_have_no_say(tmp_path: Path, what: str) -> None:
    """The tested person's clips, made huge and of one class, leave the network as it was."""
    plain = clips()
    values = np.moveaxis(plain.batch(range(24))[0].numpy(), 1, -1).copy()
    labels = plain.labels.tolist()
    values[6:12] = values[6:12] * 1e4 + 7e3
    labels[6:12] = [2] * 6
    subjects = [one.subject for one in plain.samples]
    planted = af.ClipDataset.from_arrays(values, labels, subjects=subjects)
    changes = {
        "normalize": {"normalize": "channel"},
        "balance": {"balance": "weights", "normalize": "none"},
        "both": {"balance": "oversample", "choose": "epochs", "report_leak": True},
    }[what]
    config = TrainConfig.of(**{**SETTINGS, **changes})
    fitted = [fit_fold(one, make_folds(one.samples)[1], config, CPU) for one in (plain, planted)]
    assert fitted[0].normalization == fitted[1].normalization
    for name, value in fitted[0].state.items():
        assert torch.equal(value, fitted[1].state[name]), name


def test_bytes_are_fed_as_bytes() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    subjects = list("aabb")
    stored = af.ClipDataset.from_arrays(values, [0, 1, 0, 1], subjects=subjects)
    floats = af.ClipDataset.from_arrays(values * 1.0, [0, 1, 0, 1], subjects=subjects)
    from apexflow.training.batches import Normalization

    for dataset in (stored, floats):
        fed = Normalization.fit("bytes", dataset, [0, 1])(dataset.batch([2])[0])
        np.testing.assert_allclose(fed, np.moveaxis(values[2:3], -1, 1), atol=1e-4)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(ApexflowError, match="the loss is nan in epoch"):
        trained(tmp_path, lr=1e30, epochs=30)


def _killed(_: int, __: torch.Tensor) -> torch.nn.Module:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_killed_worker_is_told_and_leaves_none_behind(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(ApexflowError, match="a training process ended"):
        trained(tmp_path, model=_killed, jobs=2)
    assert children() == before


def children() -> set[str]:
    """The processes that this one has started and that live."""
    here = Path("/proc/self/task")
    if not here.is_dir():
        return set()
    return {
        one
        for task in here.iterdir()
        for one in (task / "children").read_text().split()
        if "apexflow.training.worker" in _command(one)
    }


def _command(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_error_of_ones_own_is_one_line(tmp_path: Path, jobs: int) -> None:
    def broken(n_classes: int, sample: torch.Tensor) -> torch.nn.Module:
        raise ValueError("no such width")

    with pytest.raises(ApexflowError, match=r"broken cannot be made \(ValueError: no such"):
        trained(tmp_path, model=broken, jobs=jobs)
