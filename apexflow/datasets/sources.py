"""The frames of a clip on disk: which there are, and their pixels."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.datasets.headers import claimed_size
from apexflow.errors import ClipError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
# 8192 x 8192: thirty times a frame of SAMM, 64 MiB decoded to gray.
MAX_PIXELS = 1 << 26
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov"})

# The layout that keeps only the frames that matter names them instead of numbering them.
_NAMED_FRAMES = {"onset_frame": 1, "apex_frame": 2, "offset_frame": 3}
_TRAILING_NUMBER = re.compile(r"(\d+)$")

Image = NDArray[np.uint8]


class FrameSource(Protocol):
    """The numbered frames of one clip."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Frame numbers on disk, ascending."""

    def file_name(self, number: int) -> str:
        """Name of the image file that an export of this frame takes."""

    def fingerprint(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        """(name, bytes, modification time in ns) of each file behind these frames."""

    def read(self, numbers: Sequence[int], *, color: bool) -> Iterator[Image]:
        """Decode frames in ascending order of number.

        Yields (H, W) uint8; with ``color``, (H, W, 3) BGR where the file has colours.
        Raises `ClipError` for a frame that is missing or cannot be decoded.
        """


def frame_number(stem: str) -> int | None:
    """Return the number of the frame in a file called ``stem``, without its suffix."""
    if stem in _NAMED_FRAMES:
        return _NAMED_FRAMES[stem]
    found = _TRAILING_NUMBER.search(stem)
    return int(found.group()) if found else None


def list_frames(folder: Path, *, root: Path | None = None) -> dict[int, Path]:
    """Return the numbered images in a folder, by ascending frame number.

    The number is what stands at the end of the name: ``006_05562.jpg`` is frame 5562.
    Raises `ClipError` when the folder is not there, a number stands for two files, or one is a
    symbolic link that leads out of ``root``.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_symlink()) for entry in found)
    except OSError as error:
        raise ClipError(f"frame folder {folder}: {error.strerror}") from None
    frames: dict[int, Path] = {}
    for name, is_link in entries:
        path = folder / name
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        number = frame_number(path.stem)
        if number is None:
            continue
        if number in frames:
            raise ClipError(
                f"frame {number} is two files, {frames[number].name} and {path.name}, in {folder}"
            )
        if is_link:
            _stay_inside(path, root)
        frames[number] = path
    return dict(sorted(frames.items()))


def open_frames(clip: Clip) -> FrameSource:
    """Open the folder or video of a clip; `ClipError` when it holds no frame."""
    path = clip.path
    _stay_inside(path, clip.root)
    if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir():
        return VideoFrames.open(path)
    frames = list_frames(path, root=clip.root)
    if not frames:
        raise ClipError(f"no numbered image in {path}")
    return FolderFrames(frames)


def _stay_inside(path: Path, root: Path | None) -> None:
    """Refuse what a symbolic link makes of a path inside the data set's folder."""
    if root is None or not any(map(os.path.islink, _between(path, root))):
        return
    try:
        real, inside = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise ClipError(f"{path}: {error}") from None
    if not real.is_relative_to(inside):
        raise ClipError(f"{path} leads out of the data set's folder, to {real}; move it inside")


def _between(path: Path, root: Path) -> Iterator[Path]:
    """Yield the path and the folders that lie between it and ``root``."""
    while path not in (root, path.parent):
        yield path
        path = path.parent


@dataclass(frozen=True, slots=True)
class FolderFrames:
    """Frames that are one image file each."""

    files: dict[int, Path]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self.files)

    def file_name(self, number: int) -> str:
        return self.files[number].name

    def fingerprint(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        return [_stat(self.files[number]) for number in numbers]

    def read(self, numbers: Sequence[int], *, color: bool) -> Iterator[Image]:
        for number in numbers:
            yield read_image(self.files[number], color=color)


def read_image(path: Path, *, color: bool) -> Image:
    """Decode one image file to (H, W) uint8, or (H, W, 3) BGR where it has colours."""
    return decode_image(path, np.frombuffer(read_file(path), np.uint8), color=color)


def read_file(path: Path) -> bytes:
    """Return the content of an image file that claims a size within reason."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}") from None
    _refuse_giant(path, claimed_size(content))
    return content


def decode_image(name: str | Path, data: NDArray[np.uint8], *, color: bool) -> Image:
    """Decode the content of an image file that errors call ``name``, as `read_image` does."""
    try:
        image = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR if color else cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # an empty file, or more pixels than OpenCV accepts
        image = None
    if image is None:
        raise ClipError(f"{name} is truncated, or not an image ({data.size} bytes)")
    return image


def _refuse_giant(path: Path, size: tuple[int, int] | None) -> None:
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ClipError(f"{path} claims {size[0]}x{size[1]} pixels; {MAX_PIXELS} is the most")


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """Frames of a video file, numbered from 0."""

    path: Path
    count: int

    @classmethod
    def open(cls, path: Path) -> VideoFrames:
        """Read the header of a video; `ClipError` when it holds no frame."""
        if not path.is_file():
            raise ClipError(f"video {path} is not on disk")
        capture = cv2.VideoCapture(str(path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        sides = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
        width, height = (int(capture.get(side)) for side in sides)
        capture.release()
        _refuse_giant(path, (width, height))
        if count < 1:
            raise ClipError(f"{path} is not a video, or an empty one ({path.stat().st_size} bytes)")
        return cls(path, count)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(range(self.count))

    def file_name(self, number: int) -> str:
        return f"{self.path.stem}_{number:05d}.png"

    def fingerprint(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        return [_stat(self.path)]

    def read(self, numbers: Sequence[int], *, color: bool) -> Iterator[Image]:
        # Seeking is not exact in every container: frames are passed over one by one.
        capture = cv2.VideoCapture(str(self.path))
        position = 0
        try:
            for number in numbers:
                while position <= number:
                    if not capture.grab():
                        raise ClipError(f"{self.path} ends before frame {number}")
                    position += 1
                ok, image = capture.retrieve()
                if not ok:
                    raise ClipError(f"frame {number} of {self.path} cannot be decoded")
                if color and image.ndim == 3:
                    yield image
                else:
                    yield image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        finally:
            capture.release()


def _stat(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
        raise ClipError(f"{path} is not a regular file")
    return path.name, status.st_size, status.st_mtime_ns
