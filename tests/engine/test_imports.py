from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import apexflow as af
from apexflow.cli.import_maps import import_maps
from apexflow.errors import ApexflowError

PEOPLE = ("006", "s06", "sub06")


@pytest.fixture
def maps() -> dict[tuple[str, int], np.ndarray]:
    rng = np.random.default_rng(0)
    return {(who, i): rng.integers(0, 256, (28, 28, 3), np.uint8) for who in PEOPLE for i in (0, 1)}


@pytest.fixture
def published(tmp_path: Path, maps: dict[tuple[str, int], np.ndarray]) -> Path:
    """A folder a fold, as STSTNet's maps are published: everyone's clips stand in each."""
    root = tmp_path / "maps"
    for fold in PEOPLE:
        for (who, i), image in maps.items():
            folder = root / fold / ("u_test" if who == fold else "u_train") / str(i)
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{who}_{i}.png"), image[..., ::-1])
    return root


def pixels(dataset: af.ClipDataset, clip: str) -> np.ndarray:
    index = next(i for i, one in enumerate(dataset.samples) if one.clip == clip)
    return (dataset[index][0].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_folders_of_subjects(
    published: Path, maps: dict[tuple[str, int], np.ndarray], tmp_path: Path, order: str
) -> None:
    catalog = af.import_maps(None, published, tmp_path / "s.zarr", order=order)
    assert [clip.subject for clip in catalog] == sorted(2 * PEOPLE)
    dataset = af.ClipDataset(tmp_path / "s.zarr", maps="maps")
    assert dataset.classes == ("0", "1")
    wanted = maps["s06", 1] if order == "rgb" else maps["s06", 1][..., ::-1]
    np.testing.assert_array_equal(pixels(dataset, "s06_1"), wanted)
    assert len(list(af.loso(dataset))) == 3
    assert not af.verify(tmp_path / "s.zarr")


def test_a_table_names_the_clips(
    published: Path, maps: dict[tuple[str, int], np.ndarray], tmp_path: Path
) -> None:
    table = tmp_path / "clips.csv"
    rows = [f"{who},{i},{'ab'[i]},set-{len(who)}" for who, i in maps]
    table.write_text("\n".join(["subject,clip,label,dataset", *rows]))
    af.import_maps(table, published, tmp_path / "s.zarr", name="uv-strain")
    dataset = af.ClipDataset(tmp_path / "s.zarr", maps="uv-strain")
    assert [fold.name for fold in af.folds(dataset)] == ["set-3/006", "set-3/s06", "set-5/sub06"]
    index = [(one.subject, one.clip) for one in dataset.samples].index(("sub06", "1"))
    np.testing.assert_allclose(dataset[index][0][0] * 255, maps["sub06", 1][..., 0], rtol=1e-6)


def test_spellings_that_may_be_one_person_are_told(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    af.import_maps(None, published, tmp_path / "s.zarr")
    assert "subjects 006, s06, sub06 are taken for 3 people" in caplog.text


def test_flow_and_maps_as_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for who in "ab":
        (tmp_path / "f" / who).mkdir(parents=True)
        (tmp_path / "m" / who).mkdir(parents=True)
        np.save(tmp_path / "f" / who / "c.npy", rng.normal(size=(8, 9, 2)))
        np.save(tmp_path / "m" / who / "c.npy", rng.integers(0, 256, (8, 9, 3)).astype(float))
    table = tmp_path / "t.csv"
    table.write_text("subject,clip,label,path\na,c,x,a/c.npy\nb,c,y,b/c.npy\n")
    af.import_maps(table, tmp_path / "f", tmp_path / "f.zarr", kind="flow")
    flow = af.ClipDataset(tmp_path / "f.zarr", flow="onset-apex")[1][0].numpy()
    wanted = np.moveaxis(np.load(tmp_path / "f" / "b" / "c.npy"), -1, 0).astype(np.float32)
    np.testing.assert_array_equal(flow, wanted)
    with af.open(tmp_path / "f.zarr") as store:
        assert store.repaired_by == (
            "delete the store and give the `apexflow import-maps` command again"
        )
    af.import_maps(table, tmp_path / "m", tmp_path / "m.zarr")
    found = pixels(af.ClipDataset(tmp_path / "m.zarr", maps="maps"), "c")
    np.testing.assert_array_equal(found, np.load(tmp_path / "m" / "a" / "c.npy"))


def test_a_copy_under_another_person_makes_no_fold(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for who, label in (("a", "x"), ("b", "y"), ("c", "x")):
        (tmp_path / "m" / who / label).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "m" / who / label / f"{who}.png"), image)
        image = image if who == "a" else image[::-1]
    af.import_maps(None, tmp_path / "m", tmp_path / "s.zarr")
    with pytest.raises(ApexflowError, match="same frames"):
        list(af.loso(af.ClipDataset(tmp_path / "s.zarr", maps="maps")))


def _small(root: Path) -> None:
    cv2.imwrite(str(root / "006" / "u_test" / "0" / "small.png"), np.zeros((5, 5, 3), np.uint8))


def _gray(root: Path) -> None:
    cv2.imwrite(str(root / "006" / "u_test" / "0" / "006_0.png"), np.zeros((28, 28), np.uint8))


def _broken(root: Path) -> None:
    (root / "006" / "u_test" / "0" / "006_0.png").write_bytes(b"no picture")


def _deep(root: Path) -> None:
    (root / "a" / "b" / "c" / "d").mkdir(parents=True)
    np.save(root / "a" / "b" / "c" / "d" / "x.npy", np.zeros((28, 28, 3), np.uint8))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_small, r"small.png is \(5, 5, 3\), those before it \(28, 28, 3\)"),
        (_gray, r"must be bytes \(height, width, 3\). Got uint8 \(28, 28\)"),
        (_broken, "cannot be read as an image"),
        (_deep, "files lie in subject/clip or in subject/label/clip"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    published: Path, tmp_path: Path, harm: object, message: str
) -> None:
    harm(published)  # type: ignore[operator]
    with pytest.raises(ApexflowError, match=message):
        af.import_maps(None, published, tmp_path / "s.zarr")


def test_doubtful_rows_are_refused(published: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("subject,clip,label\n006,9,a\n")
    with pytest.raises(ApexflowError, match="has no file called 9 or 006_9"):
        af.import_maps(table, published, tmp_path / "s.zarr")
    other = published / "006" / "u_test" / "1" / "006_0.png"
    cv2.imwrite(str(other), np.ones((28, 28, 3), np.uint8))
    table.write_text("subject,clip,label\n006,0,a\n")
    with pytest.raises(ApexflowError, match="may be any of"):
        af.import_maps(table, published, tmp_path / "s.zarr")
    with pytest.raises(ApexflowError, match="is not a folder"):
        af.import_maps(table, tmp_path / "no", tmp_path / "s.zarr")
    (tmp_path / "s.zarr").mkdir(exist_ok=True)
    (tmp_path / "s.zarr" / "x").write_text("")
    with pytest.raises(ApexflowError, match="exists; choose another output"):
        af.import_maps(None, published, tmp_path / "s.zarr")


@pytest.fixture
def sorted_maps(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for who in ("01", "02"):
        for name in ("fear", "joy"):
            place = tmp_path / "sorted" / who / name
            place.mkdir(parents=True)
            image = rng.integers(0, 256, (28, 28, 3), np.uint8)
            cv2.imwrite(str(place / f"{who}{name}.png"), image)
    return tmp_path / "sorted"


def test_a_dry_run_says_what_is_there_and_writes_nothing(sorted_maps: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    command = [str(sorted_maps), "-o", str(store), "--dataset", "smic"]
    found = CliRunner().invoke(import_maps, [*command, "--dry-run"], catch_exceptions=False)
    assert "4 maps 28x28x3 of 2 people, as 'maps'" in found.output
    assert "classes: fear 2, joy 2" in found.output
    assert not store.exists()
    CliRunner().invoke(import_maps, command, catch_exceptions=False)
    assert af.ClipDataset(store, maps="maps").classes == ("fear", "joy")


def test_every_bad_file_is_named(sorted_maps: Path, tmp_path: Path) -> None:
    (sorted_maps / "01" / "joy" / "01joy.png").write_bytes(b"no image")
    cv2.imwrite(str(sorted_maps / "02" / "joy" / "02joy.png"), np.zeros((9, 9, 3), np.uint8))
    found = CliRunner().invoke(import_maps, [str(sorted_maps), "-o", str(tmp_path / "s.zarr")])
    assert isinstance(found.exception, ApexflowError)
    assert "01joy.png cannot be read" in found.output
    assert "02joy.png is (9, 9, 3)" in found.output
    assert not (tmp_path / "s.zarr").exists()
    with pytest.raises(ApexflowError, match="2 of 4 files cannot be imported"):
        af.import_maps(None, sorted_maps, tmp_path / "s.zarr")
