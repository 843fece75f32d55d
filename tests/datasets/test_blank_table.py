import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from apexflow.cli.table import table
from apexflow.datasets import read_table
from apexflow.datasets.blank_table import write_table
from apexflow.errors import ApexflowError


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two folders of frames below one, and a video beside them."""
    root = tmp_path / "clips"
    for name, first in (("a/one", 7), ("a/two", 1)):
        (root / name).mkdir(parents=True)
        for number in range(first, first + 3):
            cv2.imwrite(str(root / name / f"img{number:03d}.png"), np.zeros((32, 32), np.uint8))
    video = cv2.VideoWriter(str(root / "=video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for level in range(5):
        video.write(np.full((48, 64, 3), 40 * level, np.uint8))
    video.release()
    return root


def test_what_is_on_disk_is_filled_in_and_reads_back(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    assert write_table([clips], path) == (3, ())
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["./=video.avi", "a/one", "a/two"]
    assert [row["clip"] for row in rows] == ["video", "a_one", "a_two"]
    assert [(row["first"], row["last"], row["frames"]) for row in rows] == [
        ("0", "4", "5"),
        ("7", "9", "3"),
        ("1", "3", "3"),
    ]
    assert [row["fps"] for row in rows] == ["25", "", ""]
    text = path.read_text()
    path.write_text(text.replace("\n,", "\nS1,"))
    catalog = read_table(clips, path)
    assert [clip.path for clip in catalog] == [
        clips / "=video.avi",
        clips / "a" / "one",
        clips / "a" / "two",
    ]
    assert {(clip.onset, clip.apex, clip.offset) for clip in catalog} == {(None, None, None)}


def test_a_table_that_is_there_is_not_written_over(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text("mine")
    with pytest.raises(ApexflowError, match=r"is there already; choose another \(-o\), or --force"):
        write_table([clips], path)
    assert path.read_text() == "mine"
    write_table([clips], path, overwrite=True)
    assert path.read_text() != "mine"


def test_what_cannot_be_used_is_named(clips: Path, tmp_path: Path) -> None:
    (clips / "b.mp4").write_bytes(b"no video")
    rows, left_out = write_table([clips], tmp_path / "t.csv")
    assert rows == 3
    assert len(left_out) == 1
    assert "b.mp4" in left_out[0]
    result = CliRunner().invoke(table, [str(clips), "-o", str(tmp_path / "u.csv")])
    assert result.exit_code == 1
    assert "3 clips in" in result.output
    with pytest.raises(ApexflowError, match="no video or folder of frames"):
        write_table([clips / "b.mp4"], tmp_path / "v.csv")
    with pytest.raises(ApexflowError, match="is not on disk"):
        write_table([tmp_path / "nowhere"], tmp_path / "v.csv")
