"""The frames of a video file: counted, not believed; its codec named where nothing decodes it."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from apexflow.datasets.headers import read_header
from apexflow.datasets.images import MAX_FILE_BYTES, MAX_PIXELS, Image
from apexflow.errors import ClipError

_HEAD = 1 << 16
_CODECS = {
    "av01": "AV1",
    "hev1": "HEVC",
    "hvc1": "HEVC",
    "vp09": "VP9",
    "vp90": "VP9",
    "avc1": "H.264",
    "h264": "H.264",
    "vvc1": "VVC",
    "apch": "ProRes",
    "apcn": "ProRes",
}
# What names a codec in a file that does not open: Matroska's CodecID, an MP4's sample entry, an
# AVI's stream header.
_CODEC_NAMES = re.compile(rb"V_([A-Z0-9/_]{2,20})|stsd.{12}(\w{4})|vids([\w ]{4})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """Frames of a video file, numbered from 0 in the order in which they are decoded.

    Times are not looked at: in a video of a variable rate frame 7 is the eighth picture. A
    rotation that the file asks for is applied by the decoder.

    Attributes
    ----------
    path : Path
    count : int
        Frames that are there.
    claimed : int
        Frames that the header claims; -1 where it was not asked.
    """

    path: Path
    count: int
    claimed: int = -1

    @classmethod
    def open(cls, path: Path) -> VideoFrames:
        """Count the frames of a video; `ClipError` when it holds none that can be decoded."""
        try:
            status = path.stat()
        except FileNotFoundError:
            raise ClipError(f"video {path} is not on disk") from None
        except OSError as error:
            raise ClipError(f"video {path}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ClipError(f"{path} is not a regular file")
        count, claimed, problem = _counted(str(path), status.st_size, status.st_mtime_ns)
        if problem:
            raise ClipError(problem)
        return cls(path, count, claimed)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(range(self.count))

    @property
    def sample_bits(self) -> int:
        """Bits of a sample in the video; its decoder scales all of them to 8."""
        return _sample_bits(*file_stamp(self.path)[1:], str(self.path))

    def file_name(self, number: int) -> str:
        return f"{self.path.stem}_{number:05d}.png"

    def fingerprint(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        return [file_stamp(self.path)]

    def read(self, numbers: Sequence[int], *, color: bool) -> Iterator[Image]:
        # Seeking is not exact in every container: frames are passed over one by one.
        capture = _capture(str(self.path))
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


@lru_cache(1024)
def _sample_bits(size: int, time: int, path: str) -> int:
    """Read the pixels' format as FFmpeg names it: raw video tags end with the bits beyond 8."""
    capture = _capture(path)
    tag = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xFFFFFFFF
    capture.release()
    kind, bits = chr(tag & 0xFF), tag >> 24
    return bits if kind in "YGB" and bits in DEEP else 8


DEEP = frozenset({9, 10, 12, 14, 16})


def file_stamp(path: Path) -> tuple[str, int, int]:
    """Return (name, bytes, modification time in ns) of a regular file; else `ClipError`."""
    try:
        status = path.stat()
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
        raise ClipError(f"{path} is not a regular file")
    return path.name, status.st_size, status.st_mtime_ns


def decoded_count(path: Path) -> int:
    """Return how many frames of a video can be decoded, by decoding all of them."""
    capture = _capture(str(path))
    count = 0
    try:
        while capture.grab():
            count += 1
    finally:
        capture.release()
    return count


@lru_cache(4096)
def _counted(path: str, size: int, changed: int) -> tuple[int, int, str]:
    """Return (frames, frames claimed, what is wrong) of a file as it is now.

    Where header and packets agree, and the first frame decodes, that is their number; packets
    are counted without decoding them, in a hundredth of the time. Else all are decoded.
    """
    name = Path(path)
    problem = _not_a_video(name, size)
    if problem:
        return 0, 0, problem
    capture = _capture(path)
    if not capture.isOpened():
        return 0, 0, _unopened(name, size)
    claimed = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    sides = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
    width, height = (int(capture.get(side)) for side in sides)
    if width * height > MAX_PIXELS:
        capture.release()
        return 0, 0, f"{path} claims {width}x{height} pixels; {MAX_PIXELS} is the most"
    codec = _fourcc(int(capture.get(cv2.CAP_PROP_FOURCC)))
    decodes = capture.grab() and bool(capture.retrieve()[0])
    capture.release()
    packets = _packets(path)
    if not decodes:
        return 0, claimed, _undecoded(name, size, codec, packets)
    if claimed == packets:
        return claimed, claimed, ""
    return decoded_count(name), claimed, ""


def _not_a_video(path: Path, size: int) -> str:
    if not size:
        return f"{path} is not a video, or an empty one (0 bytes)"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            header = read_header(head)
            if header is None and head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
                file.seek(0)
                header = read_header(file.read())
    except OSError as error:
        return f"video {path}: {error.strerror}"
    if header is None or header.format in {"GIF", "AVIF"}:
        return ""
    if header.pages > 1:
        return (
            f"{path} is a {header.format} stack of {header.pages} pictures; write them as "
            "numbered images, and name their folder"
        )
    return f"{path} is a single image ({header.format}); name the folder of the clip's frames"


def _capture(path: str, options: Sequence[int] = ()) -> cv2.VideoCapture:
    """Open a video with FFmpeg where OpenCV has it: other backends would take a camera for one."""
    backends = cv2.videoio_registry.getBackends()
    backend = cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in backends else cv2.CAP_ANY
    return cv2.VideoCapture(path, backend, list(options))


def _packets(path: str) -> int:
    """Count the coded frames of a video without decoding them; -1 where that cannot be done."""
    capture = _capture(path, [cv2.CAP_PROP_FORMAT, -1])
    count = 0
    try:
        if not capture.isOpened() or capture.get(cv2.CAP_PROP_FORMAT) != -1:
            return -1
        while capture.grab():
            count += 1
    finally:
        capture.release()
    return count


def _unopened(path: Path, size: int) -> str:
    codec = _codec_in(path)
    if _lacks_index(path):
        return (
            f"{path} is cut off: an MP4 without its index ({size} bytes); copy it again, or record "
            "it again"
        )
    if codec:
        return (
            f"{path} cannot be opened by the installed OpenCV, codec {codec} ({size} bytes); is it "
            f"whole? {_CONVERT}"
        )
    return f"{path} is not a video, or an empty one ({size} bytes)"


def _lacks_index(path: Path) -> bool:
    """Whether a file begins like an MP4 or MOV and names no ``moov``, which is written last."""
    data = path.read_bytes() if path.stat().st_size < MAX_FILE_BYTES else b""
    return data[4:8] == b"ftyp" and b"moov" not in data


_CONVERT = "convert it: ffmpeg -i IN -c:v ffv1 OUT.mkv"


def _undecoded(path: Path, size: int, codec: str, packets: int) -> str:
    if packets == 0:
        return f"{path} is not a video, or an empty one ({size} bytes)"
    return (
        f"{path}: no frame can be decoded, codec {codec}: the installed OpenCV has no decoder for "
        f"it, or the file is damaged; {_CONVERT}"
    )


def _fourcc(code: int) -> str:
    text = np.array([code & 0xFFFFFFFF], "<u4").tobytes().decode("latin-1")
    return _codec_name(text) if text.strip("\0 ").isprintable() and text.strip("\0 ") else hex(code)


def _codec_name(text: str) -> str:
    text = text.strip("\0 ")
    name = _CODECS.get(text.casefold())
    return f"{text} ({name})" if name else text


def _codec_in(path: Path) -> str:
    """Return the codec that a container names in its first or last bytes; empty without one."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            found = _CODEC_NAMES.search(head) or _CODEC_NAMES.search(file.read())
    except OSError:
        return ""
    if found is None:
        return ""
    return _codec_name(next(part for part in found.groups() if part).decode("latin-1"))
