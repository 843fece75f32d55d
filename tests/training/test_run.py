import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apexflow as af
from apexflow.errors import ApexflowError
from apexflow.storage.target import exclusive
from apexflow.training.build import make_network
from apexflow.training.config import PRESETS, TrainConfig
from apexflow.training.run import train
from tests.storage.stores import Made, make_store
from tests.training.motion import motion_clips

_REGIONS = {"roi": ("onset-apex", "apex-offset"), "encode": "hsv", "size": (16, 16)}
_LITTLE_DROPOUT = {"options": {"dropout": 0.1}}
_RESNET = {"epochs": 14, "batch_size": 4, "lr": 5e-4, **_LITTLE_DROPOUT}
_ROI = {"epochs": 8, "batch_size": 8, "lr": 1e-3, "sample": _REGIONS}
_SEQUENCE = {"epochs": 12, "batch_size": 6, "lr": 2e-3, "normalize": "channel", "augment": "none"}
STSTNET = {
    "epochs": 40,
    "lr": 1e-2,
    "batch_size": 16,
    "normalize": "channel",
    "sample": {
        "flow": "onset-apex",
        "encode": "uv-strain",
        "encode_options": {"normalize": "fixed"},
    },
}
_FLOW_MAPS = {**STSTNET, "epochs": 14, "lr": 1e-3}
# Small sizes, few steps: what makes each model learn in seconds.
SETTINGS: dict[str, dict[str, Any]] = {
    "ststnet": STSTNET,
    "flow-resnet": {**_RESNET, "sample": {"flow": "onset-apex", "encode": "hsv", "size": (32, 32)}},
    "siamese-resnet": _RESNET,
    "rgb-resnet": {**_RESNET, "epochs": 20},
    "off-apexnet": {**STSTNET, "epochs": 12, "lr": 1e-3},
    "dual-inception": {**STSTNET, "epochs": 14, "lr": 1e-3},
    "sssnet": {**_FLOW_MAPS, "sample": {**STSTNET["sample"], "size": (64, 64)}},
    "rcn": {**_FLOW_MAPS, "epochs": 25, "options": {"filters": 16}},
    "roi-temporal": _ROI,
    "roi-graph": _ROI,
    "roi-hybrid": {**_ROI, **_LITTLE_DROPOUT, "epochs": 14, "lr": 2e-3, "schedule": "constant"},
    "cnn-bilstm": {**_SEQUENCE, **_LITTLE_DROPOUT},
    "cnn-bilstm-pooled": {**_SEQUENCE, **_LITTLE_DROPOUT},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("motion") / "motion.zarr"
    make_store(path, motion_clips(3, 4))
    return path


def trained(store: Path, output: Path, model: str = "ststnet", **changes: Any) -> Any:
    config = TrainConfig.of(model, **{**SETTINGS[model], **changes})
    return train(store, output, config, device="cpu", progress=False)


def test_every_model_is_tried() -> None:
    # What is not trained in epochs is tried in test_estimators.
    at_once = {name for name, one in PRESETS.items() if one.network == "LinearClassifier"}
    assert set(SETTINGS) == set(PRESETS) - at_once


# Of those that share a trunk, a part or the form of a stream, one is the sample; `slow` has all.
SLOW = (
    *("flow-resnet", "rgb-resnet", "dual-inception", "off-apexnet", "sssnet"),
    *("roi-temporal", "roi-graph", "cnn-bilstm-pooled"),
)
LEARNERS = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SETTINGS
]


@pytest.mark.parametrize("model", LEARNERS)
def test_learns_motion_of_people_it_never_saw(store: Path, tmp_path: Path, model: str) -> None:
    result = trained(store, tmp_path, model)
    assert result.scores.clips == 36
    assert result.scores.uar >= 0.9


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("motion") / "large.zarr"
    make_store(path, motion_clips(8, 4, seed=2))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("model", SETTINGS)
def test_learns_from_more_people(large_store: Path, tmp_path: Path, model: str) -> None:
    assert trained(large_store, tmp_path, model).scores.uar >= 0.9


def test_shuffled_labels_stay_at_chance(tmp_path: Path) -> None:
    clips = motion_clips(4, 4)
    emotions = np.random.default_rng(1).permutation([clip.emotion for clip in clips])
    for clip, emotion in zip(clips, emotions.tolist(), strict=True):
        clip.emotion = emotion
    make_store(tmp_path / "s.zarr", clips)
    result = trained(tmp_path / "s.zarr", tmp_path / "out")
    assert result.scores.uar < 0.5


def people_with_a_class_each() -> list[Made]:
    """Clips that show who moves, in a pattern of their own, and no class: it is the person's."""
    rng = np.random.default_rng(5)
    clips = []
    for person in range(6):
        habit = np.kron(rng.normal(size=(2, 4, 4)), np.ones((1, 8, 8)))
        for i in range(4):
            flow = (habit + rng.normal(0, 0.1, habit.shape)).astype(np.float32)
            clips.append(Made(f"{person}", f"c{i}", "xyz"[person % 3], flow={"onset-apex": flow}))
    return clips


def test_the_identity_of_a_subject_does_not_help(tmp_path: Path) -> None:
    clips = people_with_a_class_each()
    make_store(tmp_path / "s.zarr", clips)
    honest = trained(tmp_path / "s.zarr", tmp_path / "out")
    assert honest.scores.uar < 0.5
    # The same clips with every person under many names, which LOSO cannot know: they leak.
    for clip in clips:
        clip.subject, clip.name = clip.name, f"{clip.subject}_{clip.name}"
    make_store(tmp_path / "leaky.zarr", clips)
    leaky = trained(tmp_path / "leaky.zarr", tmp_path / "leaky")
    assert leaky.scores.uar > 0.9


def test_the_test_subject_has_no_say(tmp_path: Path) -> None:
    """Other clips of the tested subject leave its fold's network bit by bit as it was."""
    clips = motion_clips(3, 2)
    make_store(tmp_path / "a.zarr", clips)
    for clip in clips:
        if clip.subject == "01":
            clip.flow = {window: flow * 1e3 + 7 for window, flow in clip.flow.items()}
            clip.emotion = "brows"
    make_store(tmp_path / "b.zarr", clips)
    options = {"epochs": 6, "balance": "weights"}
    states = []
    for name in "ab":
        trained(tmp_path / f"{name}.zarr", tmp_path / name, **options)
        saved = torch.load(tmp_path / name / "folds" / "001_made_01" / "checkpoint.pt")
        states.append(
            {**saved["state"], **{k: torch.tensor(saved[k]) for k in ("mean", "deviation")}}
        )
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.fixture(scope="module")
def output(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "results"
    trained(store, folder, epochs=6)
    return folder


class TestFolder:
    def test_holds_every_clip_and_the_scores(self, store: Path, output: Path) -> None:
        with (output / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 36
        dataset = af.ClipDataset(store, flow="onset-apex")
        assert [(r["subject"], r["clip"], int(r["label"])) for r in rows] == [
            (s.subject, s.clip, s.label) for s in dataset.samples
        ]
        assert all(row["fold"] == f"made/{row['subject']}" for row in rows)
        true, predicted = ([int(r[name]) for r in rows] for name in ("label", "predicted"))
        found = af.training.scores(true, predicted, 3)
        summary = json.loads((output / "summary.json").read_text())
        assert summary["groups"]["all"]["uf1"] == found.uf1
        assert summary["groups"]["made"]["confusion"] == found.confusion.tolist()
        with (output / "summary.csv").open(newline="") as file:
            assert float(next(csv.DictReader(file))["uar"]) == pytest.approx(found.uar, abs=1e-6)
        with (output / "subjects.csv").open(newline="") as file:
            assert [row["subject"] for row in csv.DictReader(file)] == ["00", "01", "02"]
        marks = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
        for name in ("confusion", "curves"):
            for suffix, mark in marks.items():
                assert (output / f"{name}.{suffix}").read_bytes().startswith(mark)

    def test_a_checkpoint_predicts_what_was_written(self, store: Path, output: Path) -> None:
        saved = torch.load(output / "folds" / "000_made_00" / "checkpoint.pt")
        config = TrainConfig.of("ststnet", **SETTINGS["ststnet"])
        dataset = af.ClipDataset(store, **config.sample)
        network = make_network(config, dataset[0][0], 3)
        network.load_state_dict(saved["state"])
        mean, deviation = (
            torch.tensor(saved[name])[:, None, None] for name in ("mean", "deviation")
        )
        images, _ = dataset.batch(range(12))
        found = torch.softmax(network.eval()((images - mean) / (deviation + 1e-6)), 1)
        with (output / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))[:12]
        written = [[float(row[f"p_{name}"]) for name in dataset.classes] for row in rows]
        np.testing.assert_allclose(found.detach().numpy(), written, atol=1e-5)

    def test_a_restart_goes_on_and_ends_the_same(
        self, store: Path, output: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "results"
        shutil.copytree(output, folder)
        # As a run killed in its second fold leaves it.
        (folder / "folds" / "001_made_01" / "fold.json").unlink()
        shutil.rmtree(folder / "folds" / "002_made_02")
        (folder / "predictions.csv").unlink()
        kept = (folder / "folds" / "000_made_00" / "fold.json").stat().st_mtime_ns
        trained(store, folder, epochs=6)
        assert (folder / "folds" / "000_made_00" / "fold.json").stat().st_mtime_ns == kept
        for name in ("predictions.csv", "summary.json", "folds/001_made_01/fold.json"):
            assert (folder / name).read_bytes() == (output / name).read_bytes()

    def test_other_settings_or_clips_are_refused(
        self, store: Path, output: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ApexflowError, match=r"holds results with epochs 6, now it is 7"):
            trained(store, output, epochs=7)
        make_store(tmp_path / "other.zarr", motion_clips(3, 4, seed=1))
        with pytest.raises(ApexflowError, match="holds results with fingerprint"):
            trained(tmp_path / "other.zarr", output, epochs=6)


DAMAGES = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "another's": lambda _: b'{"epoch": 1}',
    "a list": lambda _: b"[1, 2]",
    "no numbers": lambda data: data.replace(b'"probabilities": [[', b'"probabilities": [["x", '),
    "not UTF-8": lambda data: b"\xff" + data,
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["folds/001_made_01/fold.json", "config.json"])
def test_a_damaged_file_of_results_is_named(
    store: Path, output: Path, tmp_path: Path, name: str, how: str
) -> None:
    folder = shutil.copytree(output, tmp_path / "results")
    damaged = DAMAGES[how]((folder / name).read_bytes())
    if damaged == (folder / name).read_bytes():
        return  # config.json holds no probabilities
    (folder / name).write_bytes(damaged)
    with pytest.raises(ApexflowError, match=rf"{Path(name).name} is damaged") as said:
        trained(store, folder, epochs=6)
    assert "\n" not in str(said.value)
    if name != "config.json":
        (folder / name).unlink()  # as the message says
        trained(store, folder, epochs=6)
        assert (folder / name).read_bytes() == (output / name).read_bytes()


def test_two_trainings_on_one_folder_exclude_each_other(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    with (
        exclusive(folder, who="training"),
        pytest.raises(ApexflowError, match="another training is writing"),
    ):
        trained(store, folder, epochs=1)
    assert list(folder.iterdir()) == []
    assert trained(store, folder, epochs=1).scores.clips == 36


def test_a_person_of_several_data_sets_is_one_row(tmp_path: Path) -> None:
    clips = motion_clips(3, 2)
    for i, clip in enumerate(clips):
        clip.dataset = "smic-vis" if i % 2 else "smic"
    make_store(tmp_path / "s.zarr", clips)
    result = trained(tmp_path / "s.zarr", tmp_path / "out", epochs=2)
    assert list(result.epochs) == list(result.by_person) == ["smic/00", "smic/01", "smic/02"]
    with (tmp_path / "out" / "subjects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["person"] for row in rows] == list(result.epochs)
    assert [row["dataset"] for row in rows] == ["smic smic-vis"] * 3
    assert sum(int(row["clips"]) for row in rows) == len(clips)


def test_what_does_not_fit_into_memory_is_streamed(store: Path, tmp_path: Path) -> None:
    config = TrainConfig.of("ststnet", **{**STSTNET, "epochs": 25})
    result = train(store, tmp_path, config, device="cpu", memory=1, progress=False)
    assert result.scores.uar > 0.8


def test_training_anew_for_the_chosen_number_of_epochs(store: Path, tmp_path: Path) -> None:
    result = trained(store, tmp_path, choose="epochs", epochs=30)
    assert result.scores.uar >= 0.9


def test_leaving_out_data_sets(tmp_path: Path) -> None:
    clips = motion_clips(4, 2)
    for clip in clips:
        clip.dataset = "one" if clip.subject in ("00", "01") else "two"
    make_store(tmp_path / "s.zarr", clips)
    result = trained(tmp_path / "s.zarr", tmp_path / "out", folds="dataset", epochs=4)
    assert list(result.epochs) == ["one", "two"]
    assert list(result.by_dataset) == ["one", "two"]
    rows = [line.split()[0] for line in result.table().splitlines()[2:] if line]
    assert rows[:3] == ["Full", "one", "two"]


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("roi-graph", {"sample": {"flow": "onset-apex"}}, "model of regions takes samples"),
        ("ststnet", {"sample": {"maps": "no"}}, "nothing in the store to feed ststnet"),
        (
            "ststnet",
            {"sample": {"flow": "onset-apex", "encode": "uv", "size": (9, 9)}},
            "cannot take",
        ),
    ],
)
def test_what_a_model_cannot_be_fed_is_refused(
    store: Path, tmp_path: Path, model: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApexflowError, match=message):
        trained(store, tmp_path, model, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": "hinge"},
            "loss must be one of cross-entropy, focal, .*Got 'hinge'",
        ),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"lr": 0.0}, "lr must be more than 0"),
        ({"rate": 1}, "no setting 'rate'"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ApexflowError, match=message):
        TrainConfig.of("ststnet", **changes)
    with pytest.raises(ApexflowError, match="model must be one of"):
        TrainConfig.of("resnet")
