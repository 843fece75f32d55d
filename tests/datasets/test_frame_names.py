"""Which images of a folder are its frames."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexflow.catalog import Clip
from apexflow.datasets.frame_names import choose_frames
from apexflow.datasets.names import is_system
from apexflow.datasets.sources import open_frames
from apexflow.errors import ClipError

USUAL = [f"img{i}.jpg" for i in range(46, 52)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("img48 2.jpg", "a copy of img48"),
        ("img48 (1).jpg", "a copy of img48"),
        ("img48 - Kopie.jpg", "a copy of img48"),
        ("img48 - Copy (2).jpg", "a copy of img48"),
        ("img48 copy.jpg", "a copy of img48"),
        ("img48 - 副本.jpg", "a copy of img48"),
        ("Copy of img48.jpg", "a copy of img48"),
        ("Kopie von img48.jpg", "a copy of img48"),
        ("img48_preview.jpg", "a preview"),
        ("thumb48.png", "a preview"),
        ("capture_20240102123045123456.jpg", "more than 12 digits"),
        ("IMG_20240102_123045.jpg", "named by a time"),
        ("reg_img48.jpg", "another pattern"),
        ("neutral.png", "no number"),
    ],
)
def test_what_is_not_a_frame_is_left_out_with_a_reason(name: str, reason: str) -> None:
    listing = choose_frames([*USUAL, name])
    assert list(listing.frames) == list(range(46, 52))
    assert [one.name for one in listing.left_out] == [name]
    assert reason in listing.left_out[0].reason


@pytest.mark.parametrize(
    "names",
    [
        ["img (1).jpg", "img (2).jpg", "img (3).jpg"],
        ["frame 1.PNG", "frame 2.png", "FRAME 3.png"],
        ["006_05561.jpg", "006_5562.jpg", "006_05563.jpg"],
        ["1.bmp", "2.bmp", "3.tif"],
        ["a1_gray.png", "a2_gray.png", "a3_gray.png"],
    ],
)
def test_patterns_that_frames_have(names: list[str]) -> None:
    listing = choose_frames([*names, "._img1.jpg", ".DS_Store", "Thumbs.db", "notes.txt"])
    assert list(listing.frames.values()) == names
    assert not listing.left_out


@pytest.mark.parametrize(
    "names",
    [
        [f"{kind}{i}.jpg" for kind in ("img", "reg_img") for i in range(5)],
        ["10_1704195045.jpg", "11_1704195046.jpg", "12_1704195047.jpg"],
        ["a1.jpg", "a1 2.jpg", "a1 3.jpg"],
    ],
)
def test_what_cannot_be_told_is_a_problem_not_a_choice(names: list[str]) -> None:
    listing = choose_frames(names)
    assert listing.problem
    assert not listing.frames


def test_the_prepared_layout() -> None:
    listing = choose_frames(["onset_frame.jpg", "Apex_Frame.JPG", "img3.jpg"])
    assert listing.frames == {1: "onset_frame.jpg", 2: "Apex_Frame.JPG"}
    assert [one.name for one in listing.left_out] == ["img3.jpg"]


# What a file may be called: anything but a path.
LETTERS = st.characters(codec="utf-8", exclude_characters="/\0")


@given(st.lists(st.text(LETTERS, min_size=1, max_size=9), max_size=9))
def test_any_names_are_frames_left_out_or_a_problem(stems: list[str]) -> None:
    names = [f"{stem}.png" for stem in dict.fromkeys(stems)]
    listing = choose_frames(names)
    told = {*listing.frames.values(), *(one.name for one in listing.left_out)}
    told |= {name for _, *both in listing.repeated for name in both}
    assert listing.problem or {name for name in names if not is_system(name)} == told


@pytest.mark.parametrize(
    "name",
    [
        *["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"],
        *[".Trash-1000", "._img1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "#recycle"],
        *["FOUND.000", "~$t.xlsx"],
    ],
)
def test_what_systems_leave_behind(name: str) -> None:
    assert is_system(name)
    assert is_system(name.upper())


def test_decomposed_names_and_another_case_are_found(tmp_path: Path) -> None:
    folder = tmp_path / unicodedata.normalize("NFD", "Bébé") / "Clip1"
    folder.mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / f"1{number}.PNG"), np.full((8, 8), number, np.uint8))
    source = unicodedata.normalize("NFC", "Bébé") + "/clip1"
    clip = Clip(dataset="table", subject="1", name="a", root=tmp_path, source=source)
    assert open_frames(clip).numbers == (10, 11, 12)
    (tmp_path / unicodedata.normalize("NFD", "Bébé") / "CLIP1").mkdir()
    with pytest.raises(ClipError, match="may be any of CLIP1, Clip1"):
        open_frames(clip)
