"""Rules that folders and files break: missing, surplus, with gaps, damaged, of changing size."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from apexflow.catalog import Clip
from apexflow.datasets import Reader
from apexflow.datasets.audit.findings import Finding
from apexflow.datasets.audit.images import decoded_size, header_size
from apexflow.datasets.sources import VIDEO_SUFFIXES, FolderFrames, FrameSource, open_frames
from apexflow.datasets.tables import plain
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
            source = self._open(clip)
            if isinstance(source, str):
                yield self._unreadable(clip, source, surplus)
            else:
                there.append((clip, source))
                yield from _missing_frames(clip, source)
        yield from self._report_surplus(surplus)
        yield from self._damaged(there)

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
        try:
            path = clip.path
        except ClipError as error:
            return Finding.of("error", "path-outside", clip, str(error))
        if path.exists():
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

    def _damaged(self, clips: Sequence[tuple[Clip, FrameSource]]) -> Iterator[Finding]:
        """Read the header of each image once, or decode it, on several threads."""
        owners: dict[Path, Clip] = {}
        for clip, source in clips:
            for path in _files(clip, source):
                owners.setdefault(path, clip)
        size_of = decoded_size if self.deep else header_size
        self.frames += len(owners)
        with ThreadPoolExecutor(self.workers or min(32, (os.cpu_count() or 1) * 4)) as pool:
            results = dict(zip(owners, pool.map(lambda p: _size(size_of, p), owners), strict=True))
        for path, result in results.items():
            if isinstance(result, str):
                yield Finding.of(
                    "error",
                    "image-damaged",
                    owners[path],
                    f"{path.name}: {result}",
                    where=path.relative_to(self.root).as_posix(),
                )
        for clip, source in clips:
            yield from _sizes(clip, {p: results[p] for p in _files(clip, source)})
        if self.deep:
            yield from self._damaged_videos(clips)

    def _damaged_videos(self, clips: Sequence[tuple[Clip, FrameSource]]) -> Iterator[Finding]:
        """Decode each video to its end."""
        seen: set[str] = set()
        for clip, source in clips:
            if isinstance(source, FolderFrames) or clip.source in seen:
                continue
            seen.add(clip.source)
            self.frames += len(source.numbers)
            try:
                for _ in source.read(source.numbers, color=False):
                    pass
            except ClipError as error:
                yield Finding.of("error", "video-damaged", clip, str(error), where=clip.source)


def _some(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (" …" if len(items) > _SHOWN else "")


def _size(read: Callable[[Path], tuple[int, int]], path: Path) -> tuple[int, int] | str:
    try:
        return read(path)
    except (ValueError, OSError) as error:
        return str(error)


def _interval(clip: Clip, numbers: Sequence[int]) -> tuple[int, int]:
    """Return the clip's first and last frame, as annotated, else as on disk."""
    first = numbers[0] if clip.onset is None else clip.onset
    last = numbers[-1] if clip.offset is None else clip.offset
    return first, last


def _files(clip: Clip, source: FrameSource) -> Iterable[Path]:
    if not isinstance(source, FolderFrames):
        return ()
    first, last = _interval(clip, source.numbers)
    return [path for number, path in source.files.items() if first <= number <= last]


def _missing_frames(clip: Clip, source: FrameSource) -> Iterator[Finding]:
    numbers = source.numbers
    there = set(numbers)
    on_disk = f"the folder holds {numbers[0]} to {numbers[-1]}"
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
            )
    first, last = _interval(clip, numbers)
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


def _sizes(clip: Clip, results: dict[Path, tuple[int, int] | str]) -> Iterator[Finding]:
    sizes = Counter(size for size in results.values() if not isinstance(size, str))
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        odd = [path.name for path, s in results.items() if not isinstance(s, str) and s != usual]
        found = ", ".join(f"{w}x{h}" for w, h in sizes)
        yield Finding.of(
            "error",
            "size-changes",
            clip,
            f"frames are {found}; {_some(odd)} differ from most",
            where=clip.source,
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
            if path not in used and not entry.name.startswith(".") and (entry.is_dir() or video):
                yield path


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
