"""What a data set holds: frozen, ordered, printable lists of annotated clips."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

from apexflow.errors import ApexflowError, ClipError


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One annotated expression of one subject: plain data, no pixels.

    Attributes
    ----------
    dataset, subject, name : str
        The key of the clip. A subject has one canonical spelling per data set.
    root : Path or None
        The folder of the data set; None when only its annotations were read.
    source : str
        Where the frames are, relative to ``root`` with forward slashes: a folder of
        numbered images, or one video file.
    onset, apex, offset : int or None
        Frame numbers as annotated: the number in an image's file name, or the position
        in a video counted from 0. None where the data set does not say.
    emotion : str
        The canonical spelling of the annotated emotion; empty when there is none.
    label : int or None
        The class for training, given by a protocol or by the annotation table.
    action_units : str
        The action units as annotated.
    extra : tuple of (str, str)
        Further annotation columns, kept as text.
    """

    dataset: str
    subject: str
    name: str
    root: Path | None = None
    source: str = ""
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    emotion: str = ""
    label: int | None = None
    action_units: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """(data set, subject, name): what a store knows the clip by."""
        return self.dataset, self.subject, self.name

    @property
    def path(self) -> Path:
        """The folder or video file on disk, never outside ``root``."""
        if self.root is None:
            raise ClipError("the catalog was read without a root folder, so it has no frames")
        relative = PurePosixPath(self.source)
        if relative.is_absolute() or ".." in relative.parts:
            raise ClipError(f"path {self.source!r} leaves the data set's folder")
        return self.root / relative

    def __str__(self) -> str:
        return "/".join(self.key)


_TEXT_COLUMNS = ("dataset", "subject", "clip", "path", "emotion", "action_units")
_NUMBER_COLUMNS = ("onset", "apex", "offset", "label")


@dataclass(frozen=True, slots=True)
class Catalog(Sequence[Clip]):
    """An immutable, ordered list of clips with unique keys.

    Indexing with an integer gives a `Clip`, with a slice a `Catalog`. Raises
    `ApexflowError` when two clips share a key.
    """

    clips: tuple[Clip, ...]

    def __init__(self, clips: Iterable[Clip]) -> None:
        object.__setattr__(self, "clips", tuple(clips))
        seen: set[tuple[str, str, str]] = set()
        for clip in self.clips:
            if clip.key in seen:
                raise ApexflowError(f"two clips have the key {clip}: keys must be unique")
            seen.add(clip.key)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> Catalog: ...
    def __getitem__(self, index: int | slice) -> Clip | Catalog:
        if isinstance(index, slice):
            return Catalog(self.clips[index])
        return self.clips[index]

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @property
    def subjects(self) -> tuple[tuple[str, str], ...]:
        """Each (data set, subject) once, in order of appearance."""
        return tuple(dict.fromkeys((clip.dataset, clip.subject) for clip in self.clips))

    def select(self, keep: Callable[[Clip], bool]) -> Catalog:
        """Return the catalog of the clips for which ``keep(clip)`` is true."""
        return Catalog(clip for clip in self.clips if keep(clip))

    def __str__(self) -> str:
        head = f"{len(self)} clips of {len(self.subjects)} subjects"
        lines = [
            f"  {clip}  onset {clip.onset} apex {clip.apex} offset {clip.offset}  {clip.emotion}"
            for clip in self.clips[:_SHOWN_CLIPS]
        ]
        more = len(self) - len(lines)
        return "\n".join(
            [head, *(line.rstrip() for line in lines), *([f"  … {more} more"] * (more > 0))]
        )

    def to_csv(self, path: str | Path) -> None:
        """Write one row a clip; `from_csv` reads it back."""
        extra = tuple(dict.fromkeys(name for clip in self.clips for name, _ in clip.extra))
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*_TEXT_COLUMNS, *_NUMBER_COLUMNS, "root", *extra])
            for clip in self.clips:
                numbers = ("" if n is None else n for n in _numbers(clip))
                more = dict(clip.extra)
                root = "" if clip.root is None else str(clip.root)
                writer.writerow([*_texts(clip), *numbers, root, *(more.get(n, "") for n in extra)])

    @classmethod
    def from_csv(cls, path: str | Path) -> Catalog:
        """Read a catalog that `to_csv` wrote."""
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            known = (*_TEXT_COLUMNS, *_NUMBER_COLUMNS, "root")
            missing = [name for name in known if name not in (reader.fieldnames or ())]
            if missing:
                raise ApexflowError(
                    f"{path}: no column {', '.join(missing)}; is it a catalog that apexflow wrote?"
                )
            return cls(_clip_from_row(row, known) for row in reader)


_SHOWN_CLIPS = 20


def _texts(clip: Clip) -> tuple[str, ...]:
    return (clip.dataset, clip.subject, clip.name, clip.source, clip.emotion, clip.action_units)


def _numbers(clip: Clip) -> tuple[int | None, ...]:
    return (clip.onset, clip.apex, clip.offset, clip.label)


def _clip_from_row(row: dict[str, str], known: tuple[str, ...]) -> Clip:
    onset, apex, offset, label = (int(row[n]) if row[n] else None for n in _NUMBER_COLUMNS)
    return Clip(
        dataset=row["dataset"],
        subject=row["subject"],
        name=row["clip"],
        root=Path(row["root"]) if row["root"] else None,
        source=row["path"],
        onset=onset,
        apex=apex,
        offset=offset,
        emotion=row["emotion"],
        label=label,
        action_units=row["action_units"],
        extra=tuple((n, v) for n, v in row.items() if n not in known and v),
    )
