"""The frames of a clip on disk: which there are, and their pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from apexflow.catalog import Clip
from apexflow.datasets.frame_names import LeftOut, choose_frames, frame_number
from apexflow.datasets.images import (
    MAX_PIXELS,
    Image,
    decode_image,
    highest_value,
    range_bits,
    read_file,
    read_image,
)
from apexflow.datasets.names import AMBIGUOUS, IMAGE_SUFFIXES, VIDEO_SUFFIXES, alike, is_system
from apexflow.datasets.videos import VideoFrames, file_stamp
from apexflow.errors import ClipError

__all__ = [
    "AMBIGUOUS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "VIDEO_SUFFIXES",
    "FolderFrames",
    "FrameSource",
    "Image",
    "VideoFrames",
    "decode_image",
    "frame_number",
    "list_frames",
    "open_frames",
    "read_file",
    "read_image",
]


class FrameSource(Protocol):
    """The numbered frames of one clip."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Frame numbers on disk, ascending."""

    @property
    def sample_bits(self) -> int:
        """Bits that the values of a sample were scaled from, 8 where they are 8.

        Of images it is known once frames have been read.
        """

    def file_name(self, number: int) -> str:
        """Name of the image file that an export of this frame takes."""

    def fingerprint(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        """(name, bytes, modification time in ns) of each file behind these frames."""

    def read(self, numbers: Sequence[int], *, color: bool) -> Iterator[Image]:
        """Decode frames in ascending order of number.

        Yields (H, W) uint8; with ``color``, (H, W, 3) BGR where the file has colours.
        Raises `ClipError` for a frame that is missing or cannot be decoded.
        """


def list_frames(folder: Path, *, root: Path | None = None) -> dict[int, Path]:
    """Return the numbered images in a folder, by ascending frame number.

    The number is what stands at the end of the name: ``006_05562.jpg`` is frame 5562. Copies,
    previews and pictures of another pattern are left out, see `frame_names`.

    Raises `ClipError` when the folder is not there, its names follow no one pattern, a number
    stands for two files, or one is a symbolic link that leads out of ``root``.
    """
    return _list(folder, root)[0]


def _list(folder: Path, root: Path | None) -> tuple[dict[int, Path], tuple[LeftOut, ...]]:
    try:
        with os.scandir(folder) as found:
            links = {entry.name: entry.is_symlink() for entry in found if not _is_folder(entry)}
    except OSError as error:
        raise ClipError(f"frame folder {folder}: {error.strerror}") from None
    listing = choose_frames(links)
    if listing.problem:
        raise ClipError(f"{folder}: {listing.problem}")
    for number, first, second in listing.repeated:
        raise ClipError(f"frame {number} is two files, {first} and {second}, in {folder}")
    frames = {number: folder / name for number, name in listing.frames.items()}
    for path in frames.values():
        if links[path.name]:
            _stay_inside(path, root)
    return frames, listing.left_out


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links: what cannot be read fails alone
        return False


def open_frames(clip: Clip) -> FrameSource:
    """Open the folder or video of a clip.

    Raises `ClipError` when it holds no frame, or when the clip's annotation cannot be read.
    """
    if clip.problems:
        raise ClipError(clip.problem)
    choices = dict(clip.extra).get(AMBIGUOUS)
    if choices:
        raise ClipError(f"{clip.source} may be any of {choices}; rename or move the others")
    try:
        return _open(clip)
    except OSError as error:  # a name too long, no permission, a stale mount
        raise ClipError(f"{clip.source}: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte in a name
        raise ClipError(f"{clip.source!r}: {error}") from None


def _open(clip: Clip) -> FrameSource:
    path = _spelled(clip.path, clip.root)
    _stay_inside(path, clip.root)
    if path.is_file() or (path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()):
        return VideoFrames.open(path)
    frames, left_out = _list(path, clip.root)
    if not frames:
        raise ClipError(f"no numbered image in {path}{_instead(path, left_out)}")
    return FolderFrames(frames, left_out)


def _instead(folder: Path, left_out: Sequence[LeftOut]) -> str:
    """Say what is in a folder instead of frames."""
    if left_out:
        return f": {left_out[0].name} has {left_out[0].reason}"
    there = sorted(entry for entry in folder.iterdir() if not is_system(entry.name))
    if inside := [entry.name for entry in there if entry.is_dir()]:
        return f", but the folder {inside[0]}; is it meant?"
    suffixes = Counter(entry.suffix.lower() or "without suffix" for entry in there)
    found = ", ".join(f"{count} files {suffix}" for suffix, count in suffixes.most_common(3))
    return f": it holds {found}, which are not read as frames" if found else ": it is empty"


def _spelled(path: Path, root: Path | None) -> Path:
    """Return a path as it is spelled on disk, where Unicode form or case differ.

    Raises `ClipError` where two are spelled alike.
    """
    if root is None or os.path.lexists(path):
        return path
    found = root
    for part in path.relative_to(root).parts:
        if not os.path.lexists(found / part):
            try:
                like = sorted(p.name for p in found.iterdir() if alike(p.name) == alike(part))
            except OSError:
                return path
            if len(like) > 1:
                raise ClipError(f"{path} may be any of {', '.join(like)}; rename the others")
            if not like:
                return path
            found /= like[0]
        else:
            found /= part
    return found


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
    """Frames that are one image file each.

    Attributes
    ----------
    files : dict of int to Path
    left_out : tuple of LeftOut
        Images of the folder that are not frames.
    """

    files: dict[int, Path]
    left_out: tuple[LeftOut, ...] = ()
    _bits: list[int | None] = field(default_factory=list, compare=False, repr=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self.files)

    @property
    def value_bits(self) -> int | None:
        """Bits of a sample that all frames are scaled by, where they have more than 8.

        Decided by the greatest value in all of the folder's images, so that each frame is
        scaled by the same. None where no image has more than 8 bits.
        """
        if not self._bits:
            paths = tuple(path for path in self.files.values() if path.is_file())
            self._bits.append(_range_of(paths, tuple(map(file_stamp, paths))))
        return self._bits[0]

    @property
    def sample_bits(self) -> int:
        """Bits by which frames that were read have been scaled; 8 where none has more."""
        return (self._bits[0] if self._bits else None) or 8

    def file_name(self, number: int) -> str:
        return self.files[number].name

    def fingerprint(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        return [file_stamp(self.files[number]) for number in numbers]

    def read(self, numbers: Sequence[int], *, color: bool) -> Iterator[Image]:
        for number in numbers:
            yield read_image(self.files[number], color=color, bits=lambda: self.value_bits)


@lru_cache(1024)
def _range_of(paths: tuple[Path, ...], stamps: tuple[tuple[str, int, int], ...]) -> int | None:
    return range_bits(map(highest_value, paths))
