"""What becomes of flagged clips: in the store's column, in data sets, after a compaction."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from apexflow.cli.store import info
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.compact import compact
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.store import open_store
from apexflow.storage.writer import open_writer
from tests.storage.stores import add_clips, make_store, random_clips

FLAGS = {1: "at-margin=12; blur=0.31", 4: "blur=0.4"}
CLIPS = [replace(clip, flags=FLAGS.get(i, "")) for i, clip in enumerate(random_clips(6))]
COLUMN = [clip.flags for clip in CLIPS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_store(tmp_path / "s.zarr", CLIPS)
    return tmp_path / "s.zarr"


def test_the_column_outlives_compaction_and_another_run(path: Path) -> None:
    compact(path, chunk_bytes=1 << 12)
    with open_store(path) as store:
        assert store.column("flags").tolist() == COLUMN
    more = random_clips(8)[6:]
    writer = open_writer(path)
    writer.reserve([])
    add_clips(writer, [replace(clip, flags="cut=3") for clip in more])
    with open_store(path) as store:
        assert store.column("flags").tolist() == [*COLUMN, "cut=3", "cut=3"]
    assert verify(path) == []


def test_a_clip_done_again_without_doubt_loses_its_flags(path: Path) -> None:
    add_clips(open_writer(path), [replace(CLIPS[1], flags="")])
    with open_store(path) as store:
        assert store.column("flags").tolist() == ["", "", "", "", "blur=0.4", ""]


def test_flagged_clips_are_kept_and_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = ClipDataset(path, maps="hsv")
    assert len(dataset) == 6
    assert [one.flags for one in dataset.flagged] == list(FLAGS.values())
    assert "2 of 6 clips are flagged (blur 2, at-margin 1), and served" in caplog.text


def test_flagged_clips_are_dropped(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = ClipDataset(path, maps="hsv", flagged="drop")
    assert [one.clip for one in dataset.samples] == ["c0", "c2", "c3", "c5"]
    assert len(dataset.flagged) == 2
    # c1 and c4 were all that had the emotion "joy".
    assert dataset.classes == ("fear", "rage")
    assert "2 of 6 clips are flagged (blur 2, at-margin 1), and left out" in caplog.text


def test_flagged_clips_are_an_error(path: Path) -> None:
    with pytest.raises(ApexflowError, match=r"2 of 6 .* made/01/c1: at-margin=12; blur=0.31"):
        ClipDataset(path, maps="hsv", flagged="error")
    with pytest.raises(ApexflowError, match="flagged must be keep, drop or error"):
        ClipDataset(path, maps="hsv", flagged="no")  # type: ignore[arg-type]


def test_a_store_of_flagged_clips_alone_is_not_served_empty(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", [replace(clip, flags="cut") for clip in random_clips(3)])
    with pytest.raises(ApexflowError, match="none is left"):
        ClipDataset(tmp_path / "s.zarr", maps="hsv", flagged="drop")


def test_a_store_without_doubt_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_store(tmp_path / "s.zarr", random_clips(3))
    for flagged in ("keep", "drop", "error"):
        assert len(ClipDataset(tmp_path / "s.zarr", maps="hsv", flagged=flagged)) == 3
    assert not caplog.text


def test_info_counts_and_lists_them(path: Path) -> None:
    said = CliRunner().invoke(info, [str(path)]).output
    assert "flagged   2 of 6 clips are flagged (blur 2, at-margin 1)" in said
    assert "flagged   made/01/c1: at-margin=12; blur=0.31" in said
