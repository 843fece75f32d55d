"""Videos: frames are counted, codecs named, what is not a video is said."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from apexflow.catalog import Clip
from apexflow.datasets import videos
from apexflow.datasets.sources import open_frames
from apexflow.datasets.videos import VideoFrames, decoded_count
from apexflow.errors import ClipError

FRAMES = [np.full((48, 64, 3), 20 + 30 * i, np.uint8) for i in range(6)]


def write(path: Path, codec: str = "MJPG", frames: list[np.ndarray] = FRAMES) -> bytes:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 30, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path.read_bytes()


def opened(path: Path) -> VideoFrames:
    clip = Clip(dataset="table", subject="1", name="a", root=path.parent, source=path.name)
    source = open_frames(clip)
    assert isinstance(source, VideoFrames)
    return source


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *[(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "MJPG"), (".mov", "mp4v"), (".AVI", "FFV1")],
        *[(".mpg", "MPG2"), (".wmv", "WMV2"), (".m4v", "mp4v"), (".webm", "VP80")],
    ],
)
def test_every_container_is_read_by_its_content(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"a{suffix}"
    try:
        data = write(path, codec)
    except AssertionError:
        pytest.skip(f"this OpenCV does not write {codec} to {suffix}")
    path = tmp_path / "renamed"
    path.write_bytes(data)
    source = opened(path)
    assert source.numbers == tuple(range(decoded_count(path)))
    levels = [float(image.mean()) for image in source.read(source.numbers, color=False)]
    np.testing.assert_allclose(levels, [20 + 30 * i for i in source.numbers], atol=6)


@pytest.mark.parametrize("claimed", [0, 3, 9, 2**31 - 1])
def test_frames_are_counted_not_believed(tmp_path: Path, claimed: int) -> None:
    data = bytearray(write(tmp_path / "a.avi"))
    for mark, place in ((b"avih", 24), (b"strh", 40)):
        at = data.index(mark) + place
        data[at : at + 4] = struct.pack("<I", claimed)
    index = data.find(b"idx1")
    path = tmp_path / f"says{claimed}.avi"
    path.write_bytes(data[:index])  # nor is there an index to count in
    source = opened(path)
    assert source.count == 6
    assert len(list(source.read(source.numbers, color=False))) == 6


def test_a_video_cut_off_has_the_frames_that_are_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 96, 128, 3), np.uint8)
    data = write(tmp_path / "a.avi", frames=list(noise))
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: len(data) * 2 // 3])
    source = opened(path)
    assert 0 < source.count < 6
    assert len(list(source.read(source.numbers, color=False))) == source.count


@pytest.mark.parametrize(
    ("suffix", "codec", "changes", "named"),
    [
        (".mp4", "mp4v", {b"mp4v": b"av01", b"esds": b"free"}, r"AV01 \(AV1\)"),
        (".avi", "FFV1", {b"FFV1": b"XQ7Z"}, "XQ7Z"),
        (".mkv", "FFV1", {b"FFV1": b"XQ7Z"}, "XQ7Z"),
    ],
)
def test_a_codec_without_a_decoder_is_named(
    tmp_path: Path, suffix: str, codec: str, changes: dict[bytes, bytes], named: str
) -> None:
    data = write(tmp_path / f"a{suffix}", codec)
    for old, new in changes.items():
        data = data.replace(old, new)
    path = tmp_path / f"b{suffix}"
    path.write_bytes(data)
    with pytest.raises(ClipError, match=rf"codec {named}.*convert it") as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_video_says_what_it_is(tmp_path: Path) -> None:
    pages = [Image.fromarray(frame) for frame in FRAMES]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    cv2.imwrite(str(tmp_path / "one.png"), FRAMES[0])
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mkv").touch()
    for name, words in (
        ("stack.tif", "is a TIFF stack of 6 pictures"),
        ("one.png", "is a single image (PNG); name the folder"),
        ("text.mp4", "is not a video, or an empty one (11 bytes)"),
        ("empty.mkv", "is not a video, or an empty one (0 bytes)"),
        ("gone.mov", "is not on disk"),
    ):
        with pytest.raises(ClipError) as caught:
            opened(tmp_path / name)
        assert words in str(caught.value)


def test_a_video_that_has_changed_is_counted_again(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    write(path)
    assert opened(path).count == 6
    write(path, frames=FRAMES[:4])
    assert opened(path).count == 4


def test_counting_decodes_only_where_header_and_packets_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.avi"
    write(path)
    monkeypatch.setattr(videos, "decoded_count", lambda path: pytest.fail("was decoded"))
    assert opened(path).count == 6


def test_a_rotation_of_the_container_is_applied(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.mp4", "mp4v"))
    at = data.index(b"tkhd") + 4 + 40  # the matrix of a version 0 track header
    one = 1 << 16
    quarter = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    data[at : at + 36] = quarter
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    (image,) = opened(path).read([0], color=False)
    assert image.shape == (64, 48)


def test_an_mp4_that_is_cut_off_before_its_index_says_so(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4", "mp4v")
    (tmp_path / "a.mp4").write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(ClipError, match="is cut off: an MP4 without its index"):
        opened(tmp_path / "a.mp4")


def test_samples_of_8_bits(tmp_path: Path) -> None:
    write(tmp_path / "a.avi")
    assert opened(tmp_path / "a.avi").sample_bits == 8
