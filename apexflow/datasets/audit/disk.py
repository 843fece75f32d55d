"""Rules that folders and files break: missing, surplus, with gaps, of changing size."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apexflow.catalog import Clip
from apexflow.datasets import Reader
from apexflow.datasets.audit.findings import Finding
from apexflow.datasets.audit.pixels import PixelCheck
from apexflow.datasets.corrections import Correction
from apexflow.datasets.names import AMBIGUOUS, VIDEO_SUFFIXES, is_system
from apexflow.datasets.rows import plain
from apexflow.datasets.shared_frames import Reading, find_shared_frames
from apexflow.datasets.sources import FolderFrames, FrameSource, open_frames
from apexflow.datasets.videos import VideoFrames
from apexflow.errors import ClipError

_COMPARED = 200  # names; with more, comparing each missing clip with each takes minutes
_LONGEST = 10**6  # frames; beyond, an annotation is wrong and counting gaps does not help
_SHOWN = 5  # frame numbers in a message


@dataclass(slots=True)
class DiskCheck:
    """Findings on the folders of a data set; shared frames are looked at once."""

    root: Path
    reader: Reader
    deep: bool = False
    workers: int | None = None
    frames: int = 0
    decoded: bool = False
    _sources: dict[str, FrameSource | str] = field(default_factory=dict)

    def findings(self, clips: Sequence[Clip]) -> Iterator[Finding]:
        """Yield what is wrong with the clips on disk."""
        there = []
        surplus = [
            path
            for path in _surplus(self.root, clips)
            if plain(path.rpartition("/")[2]) not in self.reader.beside
        ]
        for clip in clips:
            if clip.problems:  # said already, and read by nobody
                continue
            source = self._open(clip)
            if isinstance(source, str):
                yield self._unreadable(clip, source, surplus)
            else:
                there.append((clip, source))
                yield from _missing_frames(clip, source)
        yield from self._report_surplus(surplus)
        yield from _left_out(there)
        yield from _shared(there)
        pixels = PixelCheck(self.root, there, self.deep, self.workers)
        yield from pixels.findings()
        self.frames, self.decoded = pixels.frames, pixels.deep

    def _report_surplus(self, surplus: list[str]) -> Iterator[Finding]:
        if self.reader.partly_annotated and surplus:
            yield Finding(
                severity="note",
                rule="clip-surplus",
                clip="",
                where=str(self.root),
                message=f"{len(surplus)} folders without an annotation: {_some(surplus)}",
            )
            return
        for path in surplus:
            yield Finding(
                severity="warning",
                rule="clip-surplus",
                clip="",
                where=path,
                message="no row of the table names it",
            )

    def _open(self, clip: Clip) -> FrameSource | str:
        """Return the frames of a clip, or why there are none."""
        if clip.source not in self._sources:
            try:
                self._sources[clip.source] = open_frames(clip)
            except ClipError as error:
                self._sources[clip.source] = str(error)
        return self._sources[clip.source]

    def _unreadable(self, clip: Clip, reason: str, surplus: list[str]) -> Finding:
        if AMBIGUOUS in dict(clip.extra):
            return Finding.of("error", "clip-ambiguous", clip, reason)
        if _is_there(clip.path):
            return Finding.of("error", "frames-unusable", clip, reason, where=clip.source)
        few = surplus if len(surplus) <= _COMPARED else []
        like = difflib.get_close_matches(clip.source, few, n=1, cutoff=0.8)
        return Finding.of(
            "error",
            "clip-missing",
            clip,
            f"{clip.source} is not on disk",
            proposal=f"is it {like[0]}?" if like else "",
        )


def _is_there(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):  # a name that no disk takes
        return True


def _some(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (" …" if len(items) > _SHOWN else "")


def interval(clip: Clip, numbers: Sequence[int]) -> tuple[int, int]:
    """Return the clip's first and last frame, as annotated, else as on disk."""
    first = numbers[0] if clip.onset is None else clip.onset
    last = numbers[-1] if clip.offset is None else clip.offset
    return first, last


def _left_out(clips: Sequence[tuple[Clip, FrameSource]]) -> Iterator[Finding]:
    """Yield what lies among the frames and is none, and videos whose header is wrong."""
    seen: set[str] = set()
    for clip, source in clips:
        if clip.source in seen:
            continue
        seen.add(clip.source)
        if isinstance(source, FolderFrames) and source.left_out:
            shown = [f"{one.name} ({one.reason})" for one in source.left_out]
            yield Finding.of(
                "warning",
                "frames-left-out",
                clip,
                f"{len(shown)} images are not read: {_some(shown)}",
                where=clip.source,
            )
        if isinstance(source, VideoFrames) and source.claimed not in {-1, source.count}:
            yield Finding.of(
                "warning",
                "video-count",
                clip,
                f"the header claims {source.claimed} frames, {source.count} are there",
                where=clip.source,
            )


def _shared(clips: Sequence[tuple[Clip, FrameSource]]) -> Iterator[Finding]:
    """Yield clips that have frames of another person's."""
    readings = []
    for clip, source in clips:
        first, last = interval(clip, source.numbers)
        inside = [number for number in source.numbers if first <= number <= last]
        try:
            files = tuple((size, time) for _, size, time in source.fingerprint(inside))
        except ClipError:  # a link that leads nowhere: a finding of its own
            continue
        if inside:
            readings.append(Reading(clip, files, inside[0], inside[-1]))
    for found in find_shared_frames(readings):
        yield Finding.of("error", "frames-shared", found.clip, str(found))


def _missing_frames(clip: Clip, source: FrameSource) -> Iterator[Finding]:
    numbers = source.numbers
    there = set(numbers)
    what = "video" if isinstance(source, VideoFrames) else "folder"
    on_disk = f"the {what} holds {numbers[0]} to {numbers[-1]}"
    # The prepared layout keeps the key frames alone, mostly without the offset.
    key_frames = {clip.onset, clip.apex, clip.offset}
    prepared = there <= key_frames and {clip.onset, clip.apex} <= there
    for name, number in (("onset", clip.onset), ("apex", clip.apex), ("offset", clip.offset)):
        if number is not None and number not in there:
            yield Finding.of(
                "note" if prepared else "error",
                "frame-missing",
                clip,
                f"{name} frame {number} is not on disk: {on_disk}",
                where=clip.source,
                fixes=() if prepared else _last_frame(clip, name, number, numbers),
            )
    first, last = interval(clip, numbers)
    if prepared or last - first > _LONGEST:
        return
    gaps = [n for n in range(first, last + 1) if n not in there and n not in key_frames]
    if gaps:
        yield Finding.of(
            "warning",
            "frame-gap",
            clip,
            f"{len(gaps)} of {last - first + 1} frames between {first} and {last} are not on "
            f"disk: {_some(gaps)}",
            where=clip.source,
        )


def _last_frame(
    clip: Clip, name: str, number: int, numbers: Sequence[int]
) -> tuple[Correction, ...]:
    """Propose the last frame for an offset that lies a little behind it."""
    last, onset = numbers[-1], clip.onset if clip.onset is not None else numbers[0]
    known = [n for n in (clip.onset, clip.apex) if n is not None]
    little = 0 < number - last <= max(1, (number - onset) // 4)
    if name != "offset" or not little or any(n >= last for n in known):
        return ()
    return (
        Correction(
            dataset=clip.dataset,
            subject=clip.subject,
            clip=clip.name,
            field="offset",
            old=str(number),
            new=str(last),
            source="proposed by apexflow audit: the last frame on disk",
        ),
    )


def _surplus(root: Path, clips: Sequence[Clip]) -> Iterator[str]:
    """Yield what lies beside the clips and belongs to none: folders, videos, whole subjects."""
    sources = {clip.source for clip in clips if ".." not in clip.source.split("/")}
    parents = {source.rpartition("/")[0] for source in sources}
    used = sources | {ancestor for parent in parents for ancestor in _ancestors(parent)}
    beside = sorted({ancestor.rpartition("/")[0] for ancestor in used if ancestor} | {""})
    for parent in beside:
        try:
            entries = sorted(os.scandir(root / parent), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            path = f"{parent}/{entry.name}" if parent else entry.name
            video = Path(entry.name).suffix.lower() in VIDEO_SUFFIXES
            # A store of ours is not data of the data set.
            data = (entry.is_dir() and not entry.name.endswith(".zarr")) or video
            if path not in used and not is_system(entry.name) and data:
                yield path


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
