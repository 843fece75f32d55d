"""What a data set holds: frozen, ordered, printable lists of annotated clips."""

from __future__ import annotations

import csv
import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypedDict, overload

from apexflow.errors import ApexflowError, ClipError
from apexflow.marks import Exclusions, excluded
from apexflow.names import find_clip

UNREAD_SUBJECT = "?"
"""The subject of a row whose subject or clip cannot be read."""

# Data sets that show the same people under the same subject numbers, by what their names begin
# with: SMIC's HS, VIS, NIR, HS-E, VIS-E and NIR-E are recordings of the same 16 people; SAMM and
# CAS(ME)² have their clips cut out of their long videos.
_FAMILIES = ("smic", "casme_sq", "samm")


def person_of(dataset: str, subject: str) -> str:
    """Return the person whom a data set calls ``subject``, unless a table says otherwise."""
    family = next((name for name in _FAMILIES if _is_part(dataset, name)), dataset)
    return f"{family}/{subject}"


def _is_part(dataset: str, family: str) -> bool:
    return dataset == family or dataset.startswith(f"{family}-")


class _Derived(str):
    """A person whom nobody named: a clip that is given another subject is another person's."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One annotated expression of one subject: plain data, no pixels.

    Attributes
    ----------
    dataset, subject, name : str
        The key of the clip. A subject has one canonical spelling per data set.
    person : str
        Who it is, whatever the data set: folds and statistics go by it. By default
        "family/subject", where the parts of SMIC are one family of data sets, and so are SAMM
        and CAS(ME)² with their long videos; a clip that is copied with another subject is then
        another person's. To give it a person that another clip has by default, take
        ``str(other.person)``.
    root : Path or None
        The folder of the data set; None when only its annotations were read.
    source : str
        Where the frames are, relative to ``root`` with forward slashes: a folder of
        numbered images, or one video file.
    onset, apex, offset : int or None
        Frame numbers as annotated: the number in an image's file name, or the position
        in a video counted from 0. None where the data set does not say.
    apex_source : str
        How the apex is known: "annotated"; "middle" of onset and offset; "difference" or
        "flow", to be estimated (or estimated) from the aligned frames; empty when the
        data set does not say.
    emotion : str
        The canonical spelling of the annotated emotion; empty when there is none. Several
        are joined by "&".
    emotion_text : str
        The emotion as the table writes it.
    label : int or None
        The class for training, given by a protocol or by the annotation table.
    action_units : str
        The action units as annotated.
    origin : str
        The annotation's file and row, for messages.
    corrections : tuple of str
        What was corrected in the annotation, each with old value, new value and source.
    extra : tuple of (str, str)
        Further annotation columns, kept as text.
    problems : tuple of (field, what is wrong)
        What cannot be read of the annotation. Such a clip is never processed: a run records it
        as failed, an audit reports it. A row whose subject or clip cannot be read is a clip
        "row 5" of the subject "?".
    """

    dataset: str
    subject: str
    name: str
    root: Path | None = None
    source: str = ""
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    apex_source: str = "annotated"
    emotion: str = ""
    emotion_text: str = ""
    label: int | None = None
    action_units: str = ""
    origin: str = ""
    corrections: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()
    person: str = ""
    problems: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.person or isinstance(self.person, _Derived):
            object.__setattr__(self, "person", _Derived(person_of(self.dataset, self.subject)))

    @property
    def key(self) -> tuple[str, str, str]:
        """(data set, subject, name): what a store knows the clip by."""
        return self.dataset, self.subject, self.name

    @property
    def problem(self) -> str:
        """Why the clip cannot be used, with the annotation's file and row; empty of a sound one."""
        told = ". ".join(dict.fromkeys(what for _, what in self.problems))
        return f"{self.origin}: {told}" if told and self.origin else told

    @property
    def path(self) -> Path:
        """The folder or video file on disk, never outside ``root``."""
        if self.root is None:
            raise ClipError("the catalog was read without a root folder, so it has no frames")
        relative = PurePosixPath(self.source)
        # A backslash parts a path on Windows alone; nowhere may it lead out.
        if relative.is_absolute() or ".." in PureWindowsPath(self.source).parts:
            raise ClipError(f"path {self.source!r} leaves the data set's folder")
        return self.root / relative

    def __str__(self) -> str:
        return "/".join(self.key)


class _Encoding(TypedDict):
    encoding: str
    errors: str


@dataclass(frozen=True, slots=True)
class Catalog(Sequence[Clip]):
    """An immutable, ordered list of clips with unique keys.

    Indexing with an integer gives a `Clip`, with a slice a `Catalog`, with a text the clip that
    is called so: "subject/name", "data set/subject/name", or a name that one clip alone has.
    Raises `ApexflowError` when two clips share a key, and for a name that none or several have.
    """

    clips: tuple[Clip, ...]

    def __init__(self, clips: Iterable[Clip]) -> None:
        object.__setattr__(self, "clips", tuple(clips))
        seen: dict[tuple[str, str, str], Clip] = {}
        for clip in self.clips:
            if clip.key in seen:
                where = " and ".join(c.origin for c in (seen[clip.key], clip) if c.origin)
                raise ApexflowError(
                    f"two clips have the key {clip}{f' ({where})' if where else ''}: "
                    "keys must be unique; delete or rename one"
                )
            seen[clip.key] = clip

    @overload
    def __getitem__(self, index: int | str) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> Catalog: ...
    def __getitem__(self, index: int | str | slice) -> Clip | Catalog:
        if isinstance(index, str):
            return self.clips[find_clip((clip.key for clip in self.clips), index, "the catalog")]
        if isinstance(index, slice):
            return Catalog(self.clips[index])
        return self.clips[index]

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @property
    def subjects(self) -> tuple[tuple[str, str], ...]:
        """Each (data set, subject) once, in order of appearance, without `UNREAD_SUBJECT`."""
        known = (clip for clip in self.clips if clip.subject != UNREAD_SUBJECT)
        return tuple(dict.fromkeys((clip.dataset, clip.subject) for clip in known))

    def select(self, keep: Callable[[Clip], bool]) -> Catalog:
        """Return the catalog of the clips for which ``keep(clip)`` is true.

        Parameters
        ----------
        keep : callable
            Called with a `Clip`.

        Returns
        -------
        Catalog
        """
        return Catalog(clip for clip in self.clips if keep(clip))

    def without(self, exclude: Exclusions) -> Catalog:
        """Return the catalog less the clips that a file of marks calls bad, or of these keys.

        Parameters
        ----------
        exclude : path, or collection of (data set, subject, name)

        Returns
        -------
        Catalog

        Raises
        ------
        ApexflowError
            As `apexflow.marks.excluded` does: not a file of marks, or a name that is not there.
        """
        left_out = excluded(exclude, (clip.key for clip in self.clips))
        return self.select(lambda clip: clip.key not in left_out)

    def __str__(self) -> str:
        head = f"{len(self)} clips of {len(self.subjects)} subjects"
        unusable = sum(bool(clip.problems) for clip in self.clips)
        head += f", {unusable} of them cannot be read" if unusable else ""
        lines = [
            f"  {clip}  onset {clip.onset} apex {clip.apex} offset {clip.offset}  "
            f"{clip.problem or clip.emotion}"
            for clip in self.clips[:_SHOWN_CLIPS]
        ]
        more = len(self) - len(lines)
        return "\n".join(
            [head, *(line.rstrip() for line in lines), *([f"  … {more} more"] * (more > 0))]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        names = ("dataset", "subject", "name", "onset", "apex", "offset", "emotion")
        head = "".join(f"<th>{name}</th>" for name in names)
        rows = "".join(
            "<tr>" + "".join(f"<td>{_html(getattr(clip, name))}</td>" for name in names) + "</tr>"
            for clip in self.clips[:_SHOWN_CLIPS]
        )
        said = html.escape(str(self).partition("\n")[0])
        more = max(0, len(self) - _SHOWN_CLIPS)
        return (
            f"<p>{said}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            + (f"<p>… {more} more</p>" if more else "")
        )

    def to_csv(self, path: str | Path) -> None:
        """Write one row a clip; `from_csv` reads it back unchanged.

        Parameters
        ----------
        path : path
        """
        extra = tuple(dict.fromkeys(name for clip in self.clips for name, _ in clip.extra))
        with Path(path).open("w", newline="", **_ENCODING) as file:
            writer = csv.writer(file)
            writer.writerow([*_COLUMNS, *(_EXTRA + name for name in extra)])
            for clip in self.clips:
                more = dict(clip.extra)
                writer.writerow([*_cells(clip), *(more.get(name, "") for name in extra)])

    @classmethod
    def from_csv(cls, path: str | Path) -> Catalog:
        """Read a catalog that `to_csv` wrote.

        Parameters
        ----------
        path : path

        Returns
        -------
        Catalog

        Raises
        ------
        ApexflowError
            The file cannot be read, or is not such a catalog.
        """
        try:
            with Path(path).open(newline="", **_ENCODING) as file:
                reader = csv.DictReader(file, restval="", strict=True)
                missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
                if missing:
                    raise ApexflowError(
                        f"{path}: no column {', '.join(missing)}; is it a catalog that "
                        "apexflow wrote?"
                    )
                return cls(_clip_from_row(row) for row in reader)
        except (OSError, UnicodeError, ValueError, csv.Error) as error:
            raise ApexflowError(
                f"{path}: cannot be read as a catalog that apexflow wrote ({error})"
            ) from None


_SHOWN_CLIPS = 20
# A path on disk need not be valid UTF-8; it comes back as it was.
_ENCODING: _Encoding = {"encoding": "utf-8", "errors": "surrogateescape"}
_EXTRA = "extra:"
_NUMBERS = ("onset", "apex", "offset", "label")
_RENAMED = {"name": "clip", "source": "path"}
_COLUMNS = tuple(_RENAMED.get(f.name, f.name) for f in fields(Clip) if f.name != "extra")
# Catalogs of earlier versions lack these.
_NEEDED = tuple(name for name in _COLUMNS if name not in {"person", "problems"})


def _html(value: object) -> str:
    return "" if value is None else html.escape(str(value))


def _cells(clip: Clip) -> list[str]:
    values = (getattr(clip, field.name) for field in fields(clip) if field.name != "extra")
    return [_cell(value) for value in values]


def _cell(value: object) -> str:
    if value is None or isinstance(value, _Derived):  # derived again when it is read
        return ""
    if isinstance(value, tuple):
        return "\n".join(item if isinstance(item, str) else ": ".join(item) for item in value)
    return str(value)


def _lines(cell: str | None) -> list[str]:
    return cell.split("\n") if cell else []


def _problem(line: str) -> tuple[str, str]:
    name, _, what = line.partition(": ")
    return name, what


def _clip_from_row(row: dict[str, str]) -> Clip:
    onset, apex, offset, label = (int(row[n]) if row[n] else None for n in _NUMBERS)
    return Clip(
        dataset=row["dataset"],
        subject=row["subject"],
        name=row["clip"],
        root=Path(row["root"]) if row["root"] else None,
        source=row["path"],
        onset=onset,
        apex=apex,
        offset=offset,
        apex_source=row["apex_source"],
        emotion=row["emotion"],
        emotion_text=row["emotion_text"],
        label=label,
        action_units=row["action_units"],
        origin=row["origin"],
        person=row.get("person") or "",
        corrections=tuple(_lines(row["corrections"])),
        problems=tuple(map(_problem, _lines(row.get("problems")))),
        extra=tuple(
            (name.removeprefix(_EXTRA), value)
            for name, value in row.items()
            if name is not None and name.startswith(_EXTRA) and value
        ),
    )
