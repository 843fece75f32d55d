"""Rules that the frames themselves break: damaged, of changing size or depth, black, repeated."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from apexflow.catalog import Clip
from apexflow.datasets.audit.findings import Finding
from apexflow.datasets.images import ImageFacts, inspect_image
from apexflow.datasets.sources import FolderFrames, FrameSource
from apexflow.datasets.videos import VideoFrames, decoded_count
from apexflow.errors import ClipError

# As much is decoded whole without being asked: seconds at most.
SMALL = 1 << 26
_SHOWN = 5  # frame numbers in a message
_BLACK = 16
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png"},
    "BMP": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
    "WebP": {".webp"},
    "PNM": {".pgm", ".ppm", ".pnm"},
    "JPEG 2000": {".jp2"},
}


@dataclass(slots=True)
class PixelCheck:
    """Findings on the frames of clips that are there; what they share is looked at once.

    Attributes
    ----------
    root : Path
    clips : sequence of (Clip, FrameSource)
    deep : bool
        Decode every frame. Where they are few, that is done in any case.
    workers : int, optional
        Files at a time.
    frames : int
        Looked at.
    """

    root: Path
    clips: Sequence[tuple[Clip, FrameSource]]
    deep: bool
    workers: int | None = None
    frames: int = 0
    _depths: dict[int, list[Clip]] = field(default_factory=dict)

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong with the frames."""
        owners: dict[Path, Clip] = {}
        for clip, source in self.clips:
            for path in frame_files(clip, source):
                owners.setdefault(path, clip)
        self.deep = self.deep or sum(map(_bytes, self._files(owners))) <= SMALL
        self.frames += len(owners)
        with ThreadPoolExecutor(self.workers or min(32, (os.cpu_count() or 1) * 4)) as pool:
            results = dict(zip(owners, pool.map(self._inspect, owners), strict=True))
        for path, result in results.items():
            if isinstance(result, str):
                where = path.relative_to(self.root).as_posix()
                message = f"{path.name}: {result}"
                yield Finding.of("error", "image-damaged", owners[path], message, where=where)
        yield from self._folders(results)
        yield from self._videos()
        yield from self._unlike_depths()

    def _files(self, owners: dict[Path, Clip]) -> list[Path]:
        videos = {source.path for _, source in self.clips if isinstance(source, VideoFrames)}
        return [*owners, *videos]

    def _inspect(self, path: Path) -> ImageFacts | str:
        try:
            return inspect_image(path, deep=self.deep)
        except ClipError as error:
            reason = str(error).removeprefix(str(path)).lstrip(": ")
            return f"{reason}: the file is empty" if "(0 bytes)" in reason else reason

    def _folders(self, results: dict[Path, ImageFacts | str]) -> Iterator[Finding]:
        seen: set[tuple[Path, ...]] = set()
        for clip, source in self.clips:
            paths = tuple(frame_files(clip, source))
            if not isinstance(source, FolderFrames) or paths in seen:
                continue
            seen.add(paths)
            known = [(path, results[path]) for path in paths]
            facts = [(path, one) for path, one in known if isinstance(one, ImageFacts)]
            yield from _sizes(clip, facts)
            yield from _headers(clip, facts)
            yield from self._depth(clip, source, facts)
            if self.deep:
                sound = [(p.name, one.digest, one.black) for p, one in facts]
                yield from _contents(clip, sound)

    def _depth(
        self, clip: Clip, source: FolderFrames, facts: Sequence[tuple[Path, ImageFacts]]
    ) -> Iterator[Finding]:
        """Say by how many bits frames of more than 8 are scaled, and whether that is sure."""
        if not any(one.header.bits > 8 for _, one in facts):
            return
        highest = max((one.highest for _, one in facts if one.highest is not None), default=None)
        bits = source.value_bits
        if bits is None:
            return
        self._depths.setdefault(bits, []).append(clip)
        stored = max(one.header.bits for _, one in facts)
        seen = "" if highest is None else f" whose values end at {highest}"
        dark = highest is not None and highest < (1 << bits) // 2
        mixed = any(one.header.bits <= 8 for _, one in facts)
        doubt = "; other frames of the clip have 8 bits" if mixed else ""
        doubt += "; a dark clip of more bits would look alike" if dark else ""
        yield Finding.of(
            "warning" if doubt else "note",
            "bit-depth-unsure" if doubt else "bit-depth",
            clip,
            f"{stored}-bit images{seen}: all frames are scaled as {bits} bits{doubt}",
            where=clip.source,
        )

    def _unlike_depths(self) -> Iterator[Finding]:
        if len(self._depths) < 2:
            return
        shown = ", ".join(
            f"{bits} bits in {len(clips)} clips, such as {clips[0].source}"
            for bits, clips in sorted(self._depths.items())
        )
        yield Finding(
            severity="warning",
            rule="bit-depth-unsure",
            clip="",
            where=str(self.root),
            message=f"clips of one data set are scaled by different depths: {shown}; a dark clip "
            "of more bits would look like one of fewer",
        )

    def _videos(self) -> Iterator[Finding]:
        seen: set[str] = set()
        for clip, source in self.clips:
            if not isinstance(source, VideoFrames) or clip.source in seen:
                continue
            seen.add(clip.source)
            self.frames += source.count
            if self.deep:
                yield from _video(clip, source)


def frame_files(clip: Clip, source: FrameSource) -> Sequence[Path]:
    """Return the image files of a clip from its onset to its offset; none of a video."""
    if not isinstance(source, FolderFrames):
        return ()
    numbers = source.numbers
    first = numbers[0] if clip.onset is None else clip.onset
    last = numbers[-1] if clip.offset is None else clip.offset
    return [path for number, path in source.files.items() if first <= number <= last]


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _some(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (" …" if len(items) > _SHOWN else "")


def _sizes(clip: Clip, facts: Sequence[tuple[Path, ImageFacts]]) -> Iterator[Finding]:
    sizes = Counter(one.size for _, one in facts)
    if len(sizes) < 2:
        return
    usual = sizes.most_common(1)[0][0]
    odd = [path.name for path, one in facts if one.size != usual]
    found = ", ".join(f"{w}x{h}" for w, h in sizes)
    yield Finding.of(
        "error",
        "size-changes",
        clip,
        f"frames are {found}; {_some(odd)} differ from most",
        where=clip.source,
    )


def _headers(clip: Clip, facts: Sequence[tuple[Path, ImageFacts]]) -> Iterator[Finding]:
    """Yield what headers say that a person should know: orientation, pages, format."""
    turned = {path.name: one.header.orientation for path, one in facts}
    if any(value != 1 for value in turned.values()):
        found = sorted(set(turned.values()))
        yield Finding.of(
            "note" if len(found) == 1 else "warning",
            "orientation",
            clip,
            f"{_some([n for n, v in turned.items() if v != 1])}: turned by the orientation "
            f"{_some([v for v in found if v != 1])} of the file, as it is decoded"
            + ("" if len(found) == 1 else "; others of the clip are not"),
            where=clip.source,
        )
    stacks = [path.name for path, one in facts if one.header.pages > 1]
    if stacks:
        yield Finding.of(
            "warning",
            "pages",
            clip,
            f"{_some(stacks)} holds several pictures; the first is read",
            where=clip.source,
        )
    doubtful = [path.name for path, one in facts if one.left_over]
    if doubtful:
        most = max(one.left_over for _, one in facts)
        message = f"{_some(doubtful)}: up to {most} bytes among the coded data code nothing"
        yield Finding.of("warning", "image-doubtful", clip, message, where=clip.source)
    other = [
        f"{path.name} is {one.header.format}"
        for path, one in facts
        if path.suffix.lower() not in _SUFFIXES.get(one.header.format, {path.suffix.lower()})
    ]
    if other:
        yield Finding.of(
            "note", "format-name", clip, f"{_some(other)}, which is read", where=clip.source
        )


def _contents(clip: Clip, frames: Sequence[tuple[str, bytes, bool]]) -> Iterator[Finding]:
    """Yield frames that are black, equal to the one before, or equal to another.

    ``frames`` are (name, digest of the pixels, whether black), in order.
    """
    black = [name for name, _, dark in frames if dark]
    if black:
        message = f"{len(black)} of {len(frames)} frames are black: {_some(black)}"
        yield Finding.of("warning", "frame-black", clip, message, where=clip.source)
    bright = [(name, digest) for name, digest, dark in frames if not dark]
    repeated, duplicate = [], []
    first: dict[bytes, str] = {}
    before = b""
    for name, digest in bright:
        if digest == before:
            repeated.append(name)
        elif digest in first:
            duplicate.append(f"{name} is {first[digest]}")
        first.setdefault(digest, name)
        before = digest
    if repeated:
        message = f"{len(repeated)} of {len(frames)} frames equal the one before: {_some(repeated)}"
        yield Finding.of("warning", "frame-repeated", clip, message, where=clip.source)
    if duplicate:
        message = f"{len(duplicate)} frames have the pixels of another: {_some(duplicate)}"
        yield Finding.of("note", "frame-duplicate", clip, message, where=clip.source)


def _video(clip: Clip, source: VideoFrames) -> Iterator[Finding]:
    """Decode a video to its end."""
    frames = []
    try:
        for number, image in enumerate(source.read(source.numbers, color=True)):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            frames.append((str(number), digest, int(image.max()) <= _BLACK))
    except ClipError as error:
        yield Finding.of("error", "video-damaged", clip, str(error), where=clip.source)
        return
    there = decoded_count(source.path)
    if there != source.count:
        message = f"header and packets say {source.count} frames, {there} are decoded"
        yield Finding.of("error", "video-damaged", clip, message, where=clip.source)
    yield from _contents(clip, frames)
