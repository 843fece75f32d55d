"""One way to open an image: what is whole is read as OpenCV reads it, the rest is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apexflow.catalog import Clip
from apexflow.datasets.headers import read_header, tiff_directories
from apexflow.datasets.images import decode_image, inspect_image, range_bits, read_image
from apexflow.datasets.jpeg import bytes_left_over, coded_damage, end_of_image
from apexflow.datasets.sources import open_frames
from apexflow.errors import ClipError

GRAY = np.random.default_rng(0).integers(0, 256, (40, 49), np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (40, 49, 3), np.uint8)


def encoded(suffix: str, picture: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(suffix, picture, list(options))
    assert ok
    return bytes(data.tobytes())


def saved(picture: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **options)
    return file.getvalue()


def refusal(path: Path) -> str:
    """What an audit says of a file, which has to be what decoding says."""
    with pytest.raises(ClipError) as audited:
        inspect_image(path, deep=True)
    for color in (False, True):
        with pytest.raises(ClipError) as read:
            read_image(path, color=color)
        assert str(read.value) == str(audited.value)
    assert "\n" not in str(audited.value)
    return str(audited.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".jp2"])
@pytest.mark.parametrize("picture", [GRAY, COLOR], ids=["gray", "color"])
def test_pixels_are_those_of_opencv_whatever_the_name(
    tmp_path: Path, suffix: str, picture: np.ndarray
) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(encoded(suffix, picture))
    data = np.fromfile(path, np.uint8)
    for color, flags in ((False, cv2.IMREAD_GRAYSCALE), (True, cv2.IMREAD_ANYCOLOR)):
        np.testing.assert_array_equal(read_image(path, color=color), cv2.imdecode(data, flags))
    for deep in (False, True):
        assert inspect_image(path, deep=deep).size == (49, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_the_orientation_is_applied_and_stated(tmp_path: Path, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "1.jpg"
    path.write_bytes(saved(GRAY, format=form, exif=exif))
    image = read_image(path, color=False)
    facts = inspect_image(path, deep=False)
    assert facts.header.orientation == orientation
    assert facts.size == image.shape[::-1]
    assert image.shape == (GRAY.shape if orientation < 5 else GRAY.shape[::-1])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_cut_off_files_are_found_with_and_without_decoding(
    tmp_path: Path, suffix: str, share: float
) -> None:
    path = tmp_path / f"1{suffix}"
    data = encoded(suffix, COLOR)
    path.write_bytes(data[: int(share * len(data))])
    assert "is truncated, or not an image" in refusal(path)
    with pytest.raises(ClipError):
        inspect_image(path, deep=False)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_bytes_behind_the_end_are_no_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"1{suffix}"
    data = encoded(suffix, GRAY)
    path.write_bytes(data + b"\xff\xd8 the camera's own notes" * 20)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(read_image(path, color=False), expected)
    for deep in (False, True):
        inspect_image(path, deep=deep)


JPEGS = {
    "baseline": encoded(".jpg", COLOR),
    "gray": encoded(".jpg", GRAY),
    "progressive": encoded(".jpg", COLOR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": encoded(".jpg", COLOR, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "optimized": saved(COLOR, format="JPEG", optimize=True, quality=95),
    "unsampled": saved(COLOR, format="JPEG", subsampling=0),
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_hole_in_a_jpeg_is_damage_although_it_decodes(tmp_path: Path, name: str) -> None:
    data = bytearray(JPEGS[name])
    middle = len(data) * 2 // 3
    data[middle : middle + 100] = bytes(100)
    path = tmp_path / "1.jpg"
    path.write_bytes(data)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 0) is not None  # with a warning at most
    assert "is damaged (JPEG)" in refusal(path)


@pytest.mark.parametrize("name", JPEGS)
def test_an_end_that_comes_too_early_is_damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(JPEGS[name][: len(JPEGS[name]) * 3 // 4] + b"\xff\xd9")
    assert "its coded data" in refusal(path)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    color=st.booleans(),
    progressive=st.booleans(),
    restarts=st.integers(0, 4),
    quality=st.integers(5, 100),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_no_sound_jpeg_is_taken_for_damaged(
    height: int, width: int, color: bool, progressive: bool, restarts: int, quality: int, seed: int
) -> None:
    shape = (height, width, 3) if color else (height, width)
    picture = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    options = [
        cv2.IMWRITE_JPEG_PROGRESSIVE,
        int(progressive),
        cv2.IMWRITE_JPEG_RST_INTERVAL,
        restarts,
    ]
    data = encoded(".jpg", picture, *options, cv2.IMWRITE_JPEG_QUALITY, quality)
    assert coded_damage(data) == ""
    assert bytes_left_over(data) == 0
    assert bytes_left_over(data[:-2] + b"\xff\xc4\xff\xff") == 0  # a segment beyond the end
    assert end_of_image(data + b"more") == len(data)


def test_what_a_webcam_leaves_over_is_a_doubt_not_damage(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(JPEGS["gray"][:-2] + b"\0\0" + b"\xff\xd9")
    assert inspect_image(path, deep=True).left_over == 2
    assert read_image(path, color=False).shape == GRAY.shape


def test_a_png_is_checked_by_its_sums_and_its_length(tmp_path: Path) -> None:
    data = bytearray(encoded(".png", GRAY))
    path = tmp_path / "1.png"
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert "the checksum of its chunk IDAT" in refusal(path)
    short = zlib.compress(bytes(500))
    head = struct.pack(">IIBBBBB", 49, 40, 8, 0, 0, 0, 0)
    path.write_bytes(_png((b"IHDR", head), (b"IDAT", short), (b"IEND", b"")))
    assert "its coded data hold 500 of 2000 bytes" in refusal(path)
    bomb = zlib.compress(bytes(1 << 24))
    path.write_bytes(_png((b"IHDR", head), (b"IDAT", bomb), (b"IEND", b"")))
    read_image(path, color=False)  # what is too much is not inflated


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts += [
            struct.pack(">I", len(body)),
            kind,
            body,
            struct.pack(">I", zlib.crc32(kind + body)),
        ]
    return b"".join(parts)


def test_a_chunk_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    data = bytearray(encoded(".png", GRAY))
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = struct.pack(">I", 4_177_534_976)
    path = tmp_path / "1.png"
    path.write_bytes(data)
    assert "chunk IDAT claims 4177534976 bytes" in refusal(path)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiff_without_its_end(tmp_path: Path, compression: str | None) -> None:
    data = saved(GRAY, format="TIFF", compression=compression)
    path = tmp_path / "1.tif"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path, color=False), GRAY)
    path.write_bytes(data[:-100])
    refusal(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_what_libtiff_warns_of_is_damage(tmp_path: Path, compression: str) -> None:
    smooth = cv2.resize(GRAY, (200, 160), interpolation=cv2.INTER_CUBIC)
    data = bytearray(saved(smooth, format="TIFF", compression=compression))
    path = tmp_path / "1.tif"
    path.write_bytes(data)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(read_image(path, color=False), expected)
    tags = next(iter(tiff_directories(data)))
    at, length = tags[273][0], tags[279][0]
    data[at + length // 2 : at + length] = b"\x7f" * (length - length // 2)
    path.write_bytes(data)
    assert "its coded data" in refusal(path)


def test_files_that_no_image_has(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    for content, words in (
        (b"", "is truncated, or not an image (0 bytes)"),
        (b"not an image", "is truncated, or not an image (12 bytes, no image header)"),
        (encoded(".tif", GRAY.astype(np.float32)), "floating-point pixels"),
    ):
        path.write_bytes(content)
        assert words in refusal(path)
    with path.open("wb") as file:
        file.truncate((1 << 29) + 1)
    assert "an image of more than" in refusal(path)
    path.unlink()
    os.mkfifo(path)
    assert "is not a regular file" in refusal(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_a_giant_is_refused_by_its_header(tmp_path: Path, suffix: str) -> None:
    data = bytearray(encoded(suffix, GRAY))
    if suffix == ".png":
        data[16:24] = struct.pack(">II", 60_000, 60_000)
    elif suffix == ".bmp":
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    else:
        header = read_header(data)
        assert header is not None
        data = data.replace(struct.pack("<HHIHH", 256, 3, 1, 49, 0), _tag(256, 60_000))
        data = data.replace(struct.pack("<HHIHH", 257, 3, 1, 40, 0), _tag(257, 60_000))
    path = tmp_path / f"1{suffix}"
    path.write_bytes(data)
    assert "claims 60000x60000 pixels" in refusal(path)


def _tag(tag: int, value: int) -> bytes:
    return struct.pack("<HHIHH", tag, 3, 1, value, 0)


@pytest.mark.parametrize(("kind", "picture"), [("P2", GRAY), ("P3", COLOR[..., ::-1])])
@pytest.mark.parametrize("ends", ["\n", "\r\n", ""])
def test_a_picture_as_text_is_whole_by_its_values(
    tmp_path: Path, kind: str, picture: np.ndarray, ends: str
) -> None:
    path, lines = tmp_path / "1.pgm", [" ".join(map(str, row.ravel())) for row in picture]
    head = f"{kind}\n# 9 9 9\n49 40\n255\n"
    path.write_text(head + (ends or "\n").join(lines) + ends, newline="")
    expected = GRAY if kind == "P2" else COLOR
    np.testing.assert_array_equal(read_image(path, color=True), expected)
    assert inspect_image(path, deep=True).size == (49, 40)
    lines[-1] = lines[-1].rpartition(" ")[0]
    path.write_text(head + "# 1\n".join([f"{line} " for line in lines]))
    with pytest.raises(
        ClipError, match=rf"the file is cut off: {picture.size - 1} of {picture.size}"
    ):
        inspect_image(path, deep=False)
    assert "is truncated, or not an image (PNM: the file is cut off" in refusal(path)


@pytest.mark.parametrize(
    ("value", "said"), [("256", "the value 256, above its maximum 255"), ("1x", "holds b'1x' in")]
)
def test_a_picture_as_text_holds_values_alone(tmp_path: Path, value: str, said: str) -> None:
    (tmp_path / "1.pgm").write_text(f"P2 2 1 255 {value} 7")
    assert said in refusal(tmp_path / "1.pgm")


# -- bits


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_clip_is_scaled_by_the_bits_that_it_uses(tmp_path: Path, suffix: str, bits: int) -> None:
    pictures = [np.clip(GRAY.astype(int) // (4 - i), 0, 255).astype(np.uint8) for i in range(4)]
    for i, picture in enumerate(pictures):
        deep = picture.astype(np.uint16) << (bits - 8)
        (tmp_path / f"img{i}{suffix}").write_bytes(encoded(suffix, deep))
    clip = Clip(dataset="table", subject="1", name="a", root=tmp_path, source=".")
    source = open_frames(clip)
    assert source.value_bits == bits
    # The first frames are dark: by themselves they would be taken for less bits.
    for picture, image in zip(pictures, source.read([0, 1, 2, 3], color=False), strict=True):
        np.testing.assert_array_equal(image, picture)


def test_deep_colours_are_scaled_as_gray_is(tmp_path: Path) -> None:
    deep = COLOR.astype(np.uint16) << 4
    data = np.frombuffer(encoded(".png", deep), np.uint8)
    np.testing.assert_array_equal(decode_image("1", data, color=True, bits=12), COLOR)


def test_the_range_is_the_least_that_holds_all_values() -> None:
    cases = {(): None, (None,): None, (0,): 8, (255, None): 8, (256,): 10, (1023,): 10}
    cases |= {(1024, 3): 12, (4096,): 14, (16384,): 16, (65535, 1): 16}
    assert {values: range_bits(values) for values in cases} == cases


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_zero_is_white_is_turned(tmp_path: Path, bits: int) -> None:
    # Baseline TIFF 6.0: PhotometricInterpretation (262) is 0.
    stored = 255 - GRAY if bits == 8 else ~(GRAY.astype(np.uint16) << 8)
    data = stored.tobytes()
    height, width = GRAY.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 0), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path = tmp_path / "1.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    np.testing.assert_array_equal(read_image(path, color=False), GRAY)
    np.testing.assert_array_equal(read_image(path, color=True), GRAY)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_says_how_many_pictures_it_holds(tmp_path: Path, kind: str) -> None:
    more = {"save_all": True, "append_images": [Image.fromarray(255 - COLOR)], "lossless": True}
    for options, pages in (({}, 1), (more, 2)):
        (tmp_path / "1.png").write_bytes(saved(COLOR, format=kind, **options))
        assert inspect_image(tmp_path / "1.png", deep=False).header.pages == pages
