from pathlib import Path

import pytest
from click.testing import CliRunner

from apexflow.cli import cli
from apexflow.errors import ApexflowError
from tests.storage.stores import make_store
from tests.training.motion import motion_clips


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "motion.zarr"
    make_store(path, motion_clips(3, 2))
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["train", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_trains_and_prints_the_table(store: Path, tmp_path: Path) -> None:
    command = [store, "--model", "ststnet", "-o", tmp_path / "out", "--epochs", 3, "--quiet"]
    first = run(*command, "--flow", "onset-apex", "--encode", "uv-strain", "--device", "cpu")
    assert first.startswith("ststnet, labels of the store, brows, mouth, nose\n")
    assert "UF1" in first
    assert (tmp_path / "out" / "predictions.csv").is_file()
    # The same again reads the finished folds, and says the same.
    assert (
        run(*command, "--flow", "onset-apex", "--encode", "uv-strain", "--device", "cpu") == first
    )


def test_a_protocol_gives_the_classes(store: Path, tmp_path: Path) -> None:
    protocol = tmp_path / "two.toml"
    protocol.write_text('classes = ["up", "side"]\n[emotions]\nbrows = "up"\nmouth = "side"\n')
    told = run(
        *(store, "--model", "roi-graph", "-o", tmp_path / "out", "--protocol", protocol),
        *("--roi", "onset-apex,apex-offset", "--encode", "hsv", "--size", 16, "--epochs", 1),
    )
    assert ", up, side\n" in told
    row = next(line for line in told.splitlines() if line.startswith("Full"))
    assert row.split()[:3] == ["Full", "12", "3"]
    assert row.count("[") == 3


def test_progress_says_each_fold_and_the_time_left(store: Path, tmp_path: Path) -> None:
    told = run(
        store,
        "--model",
        "ststnet",
        "-o",
        tmp_path,
        "--flow",
        "onset-apex",
        "--encode",
        "uv",
        "--epochs",
        1,
    )
    assert "fold 1/3 made/00: " in told
    assert "s left" in told


def test_without_features_it_is_said_once_how_to_make_them(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ApexflowError, match="`apexflow features STORE --method") as said:
        run(store, "--model", "svm", "-o", tmp_path)
    assert len(str(said.value)) < 200
    with pytest.raises(ApexflowError, match="has no features 'hoof'"):
        run(store, "--model", "svm", "--features", "hoof", "-o", tmp_path)


def test_wrong_use_is_told(store: Path, tmp_path: Path) -> None:
    lost = CliRunner().invoke(
        cli, ["train", str(store), "--model", "ststnet", "-o", str(tmp_path), "--encode", "hsv"]
    )
    assert lost.exit_code == 2
    assert "say what" in lost.output
    with pytest.raises(ApexflowError, match="model must be one of ststnet"):
        run(store, "--model", "vgg", "-o", tmp_path)
