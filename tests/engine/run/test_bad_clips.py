"""Bad input costs its own clip, with a reason, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from apexflow import process, read_table
from apexflow.engine.recipe import Recipe
from apexflow.synthetic import ClipTruth, Subject, write_frames, write_video

HEADER = "subject,clip,path,onset,apex,offset,label\n"


def truncate(folder: Path) -> str:
    path = folder / "img4.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    return "img4.jpg is truncated, or not an image"


def another_size(folder: Path) -> str:
    cv2.imwrite(str(folder / "img4.jpg"), np.zeros((170, 200), np.uint8))
    return "frame 4 is 200x170, the template frame 5 200x160: one size is needed"


def colour_among_gray(folder: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (200, 160, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "img4.jpg"), noise)
    return "frame 4 is 160x200"


def text_file(folder: Path) -> str:
    (folder / "img4.jpg").write_text("not an image")
    return "img4.jpg is truncated, or not an image"


def empty_file(folder: Path) -> str:
    (folder / "img4.jpg").write_bytes(b"")
    return "img4.jpg is truncated, or not an image (0 bytes)"


def missing_apex(folder: Path) -> str:
    (folder / "img5.jpg").unlink()
    return "apex frame 5 is not on disk"


def no_frames(folder: Path) -> str:
    for path in folder.iterdir():
        path.unlink()
    return "no numbered image in"


def no_folder(folder: Path) -> str:
    no_frames(folder)
    folder.rmdir()
    return "No such file or directory"


@pytest.mark.parametrize(
    "spoil",
    [
        *[truncate, another_size, colour_among_gray, text_file, empty_file],
        *[missing_apex, no_frames, no_folder],
    ],
)
def test_a_spoilt_folder(
    tmp_path: Path, small_recipe: Recipe, spoil: Callable[[Path], str]
) -> None:
    person = Subject.random(1, size=(160, 200))
    truth = ClipTruth.random(person, "surprise", seed=1, frames=8, amplitude=1, shift=1)
    for name in ("good", "bad"):
        write_frames(tmp_path / name, truth)
    reason = spoil(tmp_path / "bad")
    (tmp_path / "clips.csv").write_text(f"{HEADER}1,good,good,1,5,8,0\n1,bad,bad,1,5,8,0\n")
    catalog = read_table(tmp_path, tmp_path / "clips.csv")
    summary = process(catalog, tmp_path / "s.zarr", recipe=small_recipe, workers=0, progress=False)
    assert summary.done == 1
    (failure,) = summary.failed
    assert failure.clip == "table/1/bad"
    assert reason in failure.reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("one,img,1,1,1", "needs two"),
        ("late,img,5,3,8", "apex 3 lies before onset 5"),
        ("early,img,1,9,8", "apex 9 lies after offset 8"),
        ("backward,img,5,,2", "offset 2 lies before onset 5"),
        ("beyond,img,1,80,90", "apex frame 80 is not on disk"),
        ("unknown,img,1,,8", "no apex is annotated"),
        ("empty,empty.mp4,1,2,3", "not a video, or an empty one (0 bytes)"),
        ("text,text.avi,1,2,3", "not a video, or an empty one"),
        ("short,clip.avi,0,2,30", ""),
        ("too short,clip.avi,0,20,30", "apex frame 20 is not on disk"),
        ("gone,gone.mov,1,2,3", "not on disk"),
    ],
)
def test_a_bad_row(
    tmp_path_factory: pytest.TempPathFactory,
    spoilt: Path,
    small_recipe: Recipe,
    row: str,
    reason: str,
) -> None:
    folder = tmp_path_factory.mktemp("row")
    name, *_ = row.split(",")
    table = folder / "clips.csv"
    table.write_text(f"{HEADER}1,good,img,1,5,8,0\n1,{row},0\n")
    catalog = read_table(spoilt, table)
    summary = process(catalog, folder / "s.zarr", recipe=small_recipe, workers=0, progress=False)
    assert summary.done == (1 if reason else 2)
    for failure in summary.failed:
        assert failure.clip == f"table/1/{name}"
        assert reason in failure.reason


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spoilt")
    person = Subject.random(1, size=(160, 200))
    truth = ClipTruth.random(person, "surprise", seed=1, frames=8, amplitude=1, shift=1)
    write_frames(root / "img", truth)
    write_video(root / "clip.avi", truth)
    (root / "empty.mp4").touch()
    (root / "text.avi").write_text("not a video")
    return root


def test_no_face_is_a_failure_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "gray").mkdir()
    for number in range(1, 4):
        cv2.imwrite(str(tmp_path / "gray" / f"{number}.png"), np.full((120, 160), 128, np.uint8))
    (tmp_path / "clips.csv").write_text(f"{HEADER}1,gray,gray,1,2,3,0\n")
    catalog = read_table(tmp_path, tmp_path / "clips.csv")
    summary = process(catalog, tmp_path / "s.zarr", workers=0, progress=False)
    (failure,) = summary.failed
    assert "MTCNN found no face" in failure.reason
