import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from apexflow.catalog import Clip
from apexflow.datasets.headers import claimed_size
from apexflow.datasets.sources import frame_number, list_frames, open_frames, read_image
from apexflow.errors import ClipError
from apexflow.synthetic import ClipTruth, Subject, write_video


def clip_at(root: Path, source: str) -> Clip:
    return Clip(dataset="table", subject="01", name="a", root=root, source=source)


def write_frames(folder: Path, names: list[str], value: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        ok, data = cv2.imencode(Path(name).suffix, np.full((20, 24), value, np.uint8))
        assert ok
        (folder / name).write_bytes(data.tobytes())


@given(st.integers(0, 10**7), st.integers(0, 5), st.sampled_from(["006_", "img", "reg_img", ""]))
def test_the_number_is_what_stands_at_the_end(number: int, zeros: int, prefix: str) -> None:
    assert frame_number(f"{prefix}{'0' * zeros}{number}") == number


def test_prepared_frames_are_numbered_in_order() -> None:
    names = ("onset_frame", "apex_frame", "offset_frame")
    assert [frame_number(name) for name in names] == [1, 2, 3]
    assert frame_number("notes") is None


def test_frames_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    write_frames(tmp_path, ["img9.jpg", "img10.jpg", "img100.jpg", "img11.png"])
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "._img12.jpg").write_bytes(b"x")
    assert list(list_frames(tmp_path)) == [9, 10, 11, 100]


def test_one_number_in_two_files_is_refused(tmp_path: Path) -> None:
    write_frames(tmp_path, ["006_0556.jpg", "006_00556.jpg"])
    with pytest.raises(ClipError, match=r"frame 556 is two files, 006_00556.jpg and 006_0556.jpg"):
        list_frames(tmp_path)


def test_missing_folder_and_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="No such file"):
        open_frames(clip_at(tmp_path, "nowhere"))
    with pytest.raises(ClipError, match="no numbered image"):
        open_frames(clip_at(tmp_path, "."))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_truncated_images_are_refused(tmp_path: Path, suffix: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    ok, data = cv2.imencode(suffix, image)
    assert ok
    path = tmp_path / f"1{suffix}"
    for share in (0.0, 0.02, 0.5, 0.95):
        path.write_bytes(data.tobytes()[: int(share * data.size)])
        with pytest.raises(ClipError, match="truncated, or not an image"):
            read_image(path, color=False)


def test_colour_is_kept_only_where_the_file_has_it(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "1.png"), colour)
    cv2.imwrite(str(tmp_path / "2.png"), colour[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "1.png", color=True), colour)
    assert read_image(tmp_path / "1.png", color=False).shape == (8, 9)
    np.testing.assert_array_equal(read_image(tmp_path / "2.png", color=True), colour[..., 0])


def test_odd_names_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "clip ä 漢字 'x'"
    write_frames(folder, ["frame é 7.jpg"], value=90)
    (image,) = open_frames(clip_at(tmp_path, folder.name)).read([7], color=False)
    assert abs(int(image.mean()) - 90) <= 2


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    person = Subject.random(1, size=(96, 128))
    truth = ClipTruth.random(person, "surprise", seed=2, frames=12, amplitude=1, shift=1)
    return write_video(tmp_path_factory.mktemp("video") / "clip.avi", truth)


def test_video_frames_are_counted_from_zero(video: Path) -> None:
    frames = open_frames(clip_at(video.parent, "clip.avi"))
    assert frames.numbers == tuple(range(12))
    capture = cv2.VideoCapture(str(video))
    every = [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(12)]
    capture.release()
    for number, image in zip((3, 7, 11), frames.read([3, 7, 11], color=False), strict=True):
        np.testing.assert_array_equal(image, every[number])


def test_empty_and_missing_videos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ClipError, match="not a video, or an empty one"):
        open_frames(clip_at(tmp_path, "empty.mp4"))
    with pytest.raises(ClipError, match="not on disk"):
        open_frames(clip_at(tmp_path, "gone.mov"))


def test_sources_stay_inside_the_root(tmp_path: Path) -> None:
    write_frames(tmp_path / "outside", ["1.jpg"])
    (tmp_path / "root").mkdir()
    for source in ("../outside", str(tmp_path / "outside")):
        with pytest.raises(ClipError, match="leaves the data set"):
            open_frames(clip_at(tmp_path / "root", source))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize("size", [(1, 1), (30, 57), (300, 9)])
def test_a_header_tells_the_size(suffix: str, size: tuple[int, int]) -> None:
    for shape in (size, (*size, 3)):
        _, data = cv2.imencode(suffix, np.zeros(shape, np.uint8))
        assert claimed_size(data.tobytes()) == size[::-1]


@pytest.mark.parametrize("big_endian", [False, True])
def test_a_header_of_a_tiff_by_another_writer(big_endian: bool) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((30, 57), np.uint8), byteorder=">" if big_endian else "<")
    assert claimed_size(file.getvalue()) == (57, 30)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"II*\0"]))
def test_a_header_of_anything_is_read_without_an_error(rest: bytes, start: bytes) -> None:
    claimed_size(start + rest)


def test_an_image_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    _, data = cv2.imencode(".png", np.zeros((8, 8), np.uint8))
    content = bytearray(data.tobytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    path = tmp_path / "1.png"
    path.write_bytes(content)
    with pytest.raises(ClipError, match="claims 60000x60000 pixels"):
        read_image(path, color=False)


def test_links_and_pipes(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "real", root / "half", outside):
        folder.mkdir(parents=True)
    for folder in (root / "real", outside):
        cv2.imwrite(str(folder / "1.png"), np.zeros((8, 8), np.uint8))
    (root / "alias").symlink_to(root / "real")
    (root / "away").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    (root / "half" / "1.png").symlink_to(root / "real" / "1.png")
    assert open_frames(clip_at(root, "alias")).numbers == (1,)
    assert open_frames(clip_at(root, "half")).numbers == (1,)
    (root / "half" / "2.png").symlink_to(outside / "1.png")
    for source in ("away", "half"):
        with pytest.raises(ClipError, match="leads out of the data set's folder"):
            open_frames(clip_at(root, source))
    with pytest.raises(ClipError):
        open_frames(clip_at(root, "circle"))
    os.mkfifo(root / "real" / "2.png")
    with pytest.raises(ClipError, match="is not a regular file"):
        open_frames(clip_at(root, "real")).fingerprint([1, 2])


def test_a_folder_without_frames_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "gifs").mkdir()
    for i in range(3):
        (tmp_path / "gifs" / f"{i}.gif").write_bytes(b"GIF89a")
    with pytest.raises(ClipError, match=r"it holds 3 files \.gif, which are not read as frames"):
        open_frames(clip_at(tmp_path, "gifs"))
    write_frames(tmp_path / "deeper" / "img", ["1.png"])
    with pytest.raises(ClipError, match="but the folder img; is it meant"):
        open_frames(clip_at(tmp_path, "deeper"))


def test_a_circle_of_links_fails_by_its_own_name(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", ["1.png", "2.png"])
    (tmp_path / "a" / "3.png").symlink_to("3.png")
    with pytest.raises(ClipError, match=r"3\.png: Symlink loop|3\.png.*symbolic links"):
        open_frames(clip_at(tmp_path, "a"))
