"""From a store to a store of features: what is read, carried along, skipped, refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import apexflow as af
from apexflow.cli import cli
from apexflow.errors import ApexflowError
from apexflow.features.methods import METHODS
from apexflow.features.run import extract
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.store import open_store
from apexflow.storage.writer import open_writer
from apexflow.training.config import FEATURES
from tests.storage.stores import FAILED, Made, add_clips, make_store
from tests.stores import assert_same_arrays
from tests.training.motion import motion_clips

OPTIONS = {"blocks": 2, "radii": 1}
FED = {"made.zarr": {"features": "lbp-top"}, "processed.zarr": {"flow": "onset-apex"}}


@pytest.fixture(scope="module")
def clips() -> list[Made]:
    found = motion_clips(subjects=2, clips_per_class=1)
    found[1].flags = "dark=3"
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, clips: list[Made]) -> Path:
    """A store that is only read; a test that changes it takes a copy."""
    path = tmp_path_factory.mktemp("features") / "made.zarr"
    make_store(path, [*clips, Made("09", "lost", "brows", status=FAILED)])
    return path


def slow(method: str) -> object:
    return pytest.param(method, marks=pytest.mark.slow)


def quietly(store: Path, output: Path, **options: object) -> af.features.FeatureSummary:
    return extract(store, output, progress=False, **options)  # type: ignore[arg-type]


def test_features_are_those_of_the_function_with_labels_and_flags(
    store: Path, tmp_path: Path, clips: list[Made]
) -> None:
    summary = quietly(store, tmp_path / "f.zarr", **OPTIONS)
    assert (summary.done, summary.failed, summary.unfinished) == (6, (), 1)
    assert summary.length == 2 * 2 * 177
    dataset = ClipDataset(tmp_path / "f.zarr", features="lbp-top")
    assert [sample.flags for sample in dataset.samples].count("dark=3") == 1
    assert dataset.classes == ("brows", "mouth", "nose")
    for made, (values, label) in zip(clips, (dataset[i] for i in range(6)), strict=True):
        assert dataset.classes[label] == made.emotion
        wanted = af.features.lbp_top(made.frames, **OPTIONS)
        np.testing.assert_array_equal(values.numpy(), wanted)
    assert af.verify(tmp_path / "f.zarr") == []


@pytest.mark.parametrize("method", ["bi-woof", slow("hoof")])
def test_flow_is_read_of_the_window_that_is_named(
    store: Path, tmp_path: Path, clips: list[Made], method: str
) -> None:
    quietly(store, tmp_path / "f.zarr", method=method, window="apex-offset", bins=4)
    function = getattr(af.features, method.replace("-", "_"))
    values, _ = ClipDataset(tmp_path / "f.zarr", features=method)[3]
    wanted = function(np.moveaxis(clips[3].flow["apex-offset"], 0, -1), bins=4)
    np.testing.assert_array_equal(values.numpy(), wanted)


def test_regions_hang_on_the_landmarks(reference: Path, tmp_path: Path) -> None:
    quietly(reference, tmp_path / "f.zarr", method="mdmo", regions=("mouth", "eyes"))
    with open_store(tmp_path / "f.zarr") as made:
        assert made.layout.features["mdmo"].parts["region"] == [
            *("left mouth", "right mouth", "left eyes", "right eyes")
        ]
    found = np.stack([v.numpy() for v, _ in ClipDataset(tmp_path / "f.zarr", features="mdmo")])
    assert found.shape == (5, 8)
    assert (found[:, :4].max(1) == 0.5).all()  # the longest, times the weight


@pytest.mark.parametrize("method", [name if name == "hog-top" else slow(name) for name in METHODS])
def test_bytes_do_not_depend_on_the_workers(reference: Path, tmp_path: Path, method: str) -> None:
    options = {"radii": 1} if method == "lbp-top" else {}
    for workers in (1, 3):
        quietly(reference, tmp_path / f"{workers}.zarr", method=method, workers=workers, **options)
    assert_same_arrays(tmp_path / "1.zarr", tmp_path / "3.zarr")


def test_the_same_command_does_only_what_is_missing_or_changed(
    store: Path, tmp_path: Path, clips: list[Made]
) -> None:
    source, output = tmp_path / "made.zarr", tmp_path / "f.zarr"
    shutil.copytree(store, source)
    quietly(source, output, **OPTIONS)
    shutil.copytree(output, tmp_path / "first.zarr")
    open_writer(output).forget_row(2)  # as a run that was killed leaves it
    (output / "features" / "lbp-top" / "c.4.0").write_bytes(b"")  # or a power cut
    found = quietly(source, output, **OPTIONS)
    assert (found.done, found.skipped) == (2, 4)
    assert_same_arrays(output, tmp_path / "first.zarr")
    assert quietly(source, output, **OPTIONS).done == 0

    changed = replace(clips[0], frames=clips[0].frames[:, ::-1].copy())
    new = replace(clips[1], subject="07", name="new", flags="")
    add_clips(open_writer(source), [changed, new], finalize=False)
    writer = open_writer(source)
    writer.drop([3])
    writer.finalize()
    found = quietly(source, output, **OPTIONS)
    assert (found.done, found.skipped, found.gone) == (2, 4, ("made/01/c0",))
    dataset = ClipDataset(output, features="lbp-top")
    assert len(dataset) == 6
    wanted = af.features.lbp_top(changed.frames, **OPTIONS)
    np.testing.assert_array_equal(dataset[0][0].numpy(), wanted)
    assert af.verify(output) == []


def test_what_a_method_cannot_take_is_that_clips_failure(tmp_path: Path) -> None:
    clips = motion_clips(subjects=1, clips_per_class=1)
    clips[2].frames = clips[2].frames[:2]
    make_store(tmp_path / "s.zarr", clips)
    arguments = ["features", str(tmp_path / "s.zarr"), "--method", "lbp-top", "--quiet"]
    output = str(tmp_path / "f.zarr")
    said = CliRunner().invoke(cli, [*arguments, "--radii", "1,1,1", "-o", output])
    assert said.exit_code == 1
    assert "made/00/c2: frames must have at least 3 frames for the radius 1" in said.output
    assert "-> give --frames all or smaller --radii" in said.output
    assert len(ClipDataset(output, features="lbp-top")) == 2
    assert "3: 2 done, 1 failed" in CliRunner().invoke(cli, ["info", output]).output


def test_a_file_holds_what_other_programs_need(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    quietly(store, path, method="hoof", blocks=1, bins=4)
    assert not (tmp_path / "f.npz.parts").exists()
    with np.load(path, allow_pickle=False) as found:
        assert found["features"].shape == (6, len(found["names"])) == (6, 4)
        assert found["emotion"].tolist()[:3] == ["brows", "mouth", "nose"]
        assert found["person"][0] == "made/00"
        assert found["flags"][1] == "dark=3"
    assert quietly(store, path, method="hoof", blocks=1, bins=4).skipped == 6
    with pytest.raises(ApexflowError, match="holds something else than hoof"):
        quietly(store, path, method="hoof", blocks=2, bins=4)
    (tmp_path / "other.npz").write_text("text")
    with pytest.raises(ApexflowError, match="holds no features of ours"):
        quietly(store, tmp_path / "other.npz", method="hoof")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sift"}, "method must be one of lbp-top, hog-top, bi-woof, hoof, mdmo"),
        ({"bins": 4}, "lbp-top has no option bins; it has blocks, radii, neighbours"),
        ({"radii": (1, 1)}, "lbp-top: radii must be one number or 3"),
        ({"window": "onset-apex"}, "lbp-top reads frames and no flow"),
        ({"method": "hoof", "frames": "all"}, "hoof reads flow and no frames"),
        ({"method": "hoof", "window": "none"}, "it has onset-apex, apex-offset: process with a"),
        ({"workers": 0}, "workers must be 1 or more"),
    ],
)
def test_wrong_options_are_refused(
    store: Path, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(ApexflowError, match=message):
        quietly(store, tmp_path / "f.zarr", **options)
    assert not (tmp_path / "f.zarr").exists()


def test_what_the_store_lacks_names_the_key_of_the_recipe(tmp_path: Path) -> None:
    clips = [replace(clip, frames=None) for clip in motion_clips(subjects=1, clips_per_class=1)]
    make_store(tmp_path / "s.zarr", clips)
    with pytest.raises(ApexflowError, match=r"recipe that has frames\.keep = true"):
        quietly(tmp_path / "s.zarr", tmp_path / "f.zarr")
    still = [replace(c, flow={}, roi={}, frames=np.zeros((3, 32, 32), np.uint8)) for c in clips]
    make_store(tmp_path / "t.zarr", still)
    with pytest.raises(ApexflowError, match="names a window in `windows`"):
        quietly(tmp_path / "t.zarr", tmp_path / "f.zarr", method="hoof")


def test_a_store_of_other_features_is_refused(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "f.zarr"
    quietly(store, output, method="hoof", blocks=1)
    for method, options in (("bi-woof", {}), ("hoof", {"bins": 4})):
        with pytest.raises(ApexflowError, match=f"holds something else than {method}"):
            quietly(store, output, method=method, **options)
    with pytest.raises(ApexflowError, match="holds features already"):
        quietly(output, tmp_path / "g.zarr", method="hoof")


def test_train_knows_every_method() -> None:
    assert tuple(METHODS) == FEATURES


def test_damage_names_the_command_that_made_the_store(store: Path, tmp_path: Path) -> None:
    processed = tmp_path / "processed.zarr"
    shutil.copytree(store, processed)
    quietly(store, tmp_path / "made.zarr", **OPTIONS)
    for place, remedy in (
        (tmp_path / "made.zarr", "delete the store and give the `apexflow features` command again"),
        (processed, "the process command with --repair makes it again"),
    ):
        for chunk in place.glob("clips/record/c.*"):
            chunk.write_bytes(b"nonsense")
        with pytest.raises(ApexflowError, match="a commit record is damaged") as told:
            ClipDataset(place, **FED[place.name])
        assert remedy in str(told.value)
