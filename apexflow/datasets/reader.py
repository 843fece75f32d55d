"""What every data set's reader shares: its description and the last steps to a catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, get_args

from apexflow.catalog import UNREAD_SUBJECT, Catalog, Clip
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.folders import Tree, find_annotations
from apexflow.datasets.names import AMBIGUOUS
from apexflow.datasets.notes import Note, take_note
from apexflow.datasets.rows import Row, RowError, UnreadColumnError, attempt
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

CLIP_KEY, CLIP_PATH = "key", "path"
"""The fields of two problems: another row of the same clip, and a path out of the folder."""

ApexChoice = Literal["annotated", "middle", "difference", "flow"]


@dataclass(frozen=True, slots=True)
class Option:
    """One further keyword of a reader, as the command line offers it."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    default: str | None = None


_APEX = Option(
    "apex",
    "where the apex comes from: the table, the middle of onset and offset, or an estimate on "
    "the aligned frames",
    get_args(ApexChoice),
    "annotated",
)
_CORRECTIONS = Option(
    "corrections",
    "a TOML or CSV file of corrections, or 'published' for those that apexflow ships",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A data set: how it is called, laid out, and read.

    Attributes
    ----------
    name : str
        The name on the command line, and `Clip.dataset`.
    title : str
        The name that people use.
    layout : str
        What is expected on disk and in the table.
    annotations : tuple of str
        The usual names of the annotation file, best first.
    published : mapping of data set to (int, int)
        Numbers of clips and subjects in the published table.
    read : callable
        ``read(root, annotations, *, apex, corrections, **options) -> Catalog``.
    rows : callable
        ``rows(root, annotations, **options) -> list of Clip``: the same rows before
        corrections, apex and the check for unique keys; for an audit.
    own_options : tuple of Option
        Further keywords of ``read`` and ``rows`` that only this data set has.
    beside : frozenset of str
        Folders that lie beside the clips and are none, as `rows.plain` spells them.
    partly_annotated : bool
        True where videos without any annotated expression are part of the data set.
    needs_annotations : bool
        False where the folders alone can be the annotation.
    """

    name: str
    title: str
    layout: str
    annotations: tuple[str, ...]
    published: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    read: Callable[..., Catalog]
    rows: Callable[..., list[Clip]]
    own_options: tuple[Option, ...] = ()
    beside: frozenset[str] = frozenset()
    partly_annotated: bool = False
    needs_annotations: bool = True

    @property
    def options(self) -> tuple[Option, ...]:
        """The keywords of ``read`` beyond root and annotations."""
        return (*self.own_options, _APEX, _CORRECTIONS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data set lies: its folders (None without a root) and its table."""

    tree: Tree | None
    table: Path

    @property
    def root(self) -> Path | None:
        """The data set's folder, None when annotations alone are read."""
        return self.tree.root if self.tree else None


def place(
    root: str | Path | None,
    annotations: str | Path | None,
    names: Iterable[str],
    title: str,
    layout: str,
) -> Place:
    """Check the root and find the table, before anything is read."""
    tree = None if root is None else Tree(root, layout)
    table = (
        find_annotations(None if root is None else Path(root), names, title)
        if annotations is None
        else Path(annotations)
    )
    return Place(tree, table)


def clips_of_rows(
    rows: Iterable[Row], clips_of: Callable[[Row], Iterable[Clip]], *, dataset: str, title: str
) -> list[Clip]:
    """Return the clips of each row; one that cannot be read is a clip with problems.

    ``clips_of`` raises `RowError` for a row whose subject or clip cannot be read, and gives
    clips their ``problems`` where other columns cannot (`key_frames`).

    Raises `ApexflowError` where one column can be read in no row: then the table is another.
    """
    clips: list[Clip] = []
    for row in rows:
        try:
            clips += clips_of(row)
        except RowError as error:
            frames = key_frames(row, onset_known=False, offset_known=False)
            problems = {error.column: error.text, **dict(frames["problems"])}
            clips.append(unread_clip(row, problems, dataset))
    refuse_unread_column(clips, title)
    return clips


def unread_clip(row: Row, problems: Mapping[str, str], dataset: str) -> Clip:
    """Return the clip of a row whose subject or clip cannot be read."""
    return Clip(
        dataset=dataset,
        subject=UNREAD_SUBJECT,
        name=f"row {row.number}",
        origin=row.origin,
        problems=tuple(problems.items()),
    )


def refuse_unread_column(clips: Sequence[Clip], title: str) -> None:
    """Refuse a table in which one column can be read in no row."""
    columns = [dict(clip.problems) for clip in clips]
    common = set(columns[0]).intersection(*columns) if columns else set()
    if common:
        told = next(what for column, what in clips[0].problems if column in common)
        whose = f"{title}'" if title.endswith("s") else f"{title}'s"
        rows = f"; so are all {len(clips)} rows: is this {whose} table?" if clips[1:] else ""
        raise UnreadColumnError(f"{clips[0].origin}: {told}{rows}")


def key_frames(row: Row, *, onset_known: bool = True, offset_known: bool = True) -> dict[str, Any]:
    """Return onset, apex, offset and problems of a row, as `Clip` takes them.

    A cell that is no frame number is one of the ``problems``, and so is an unknown onset or
    offset that must be known.
    """
    found: dict[str, int | None] = {}
    problems = dict(row.problems)
    optional = {"onset": not onset_known, "apex": True, "offset": not offset_known}
    for name, may_be_unknown in optional.items():
        found[name] = attempt(problems, row.frame, name, optional=may_be_unknown)
    return {**found, "problems": tuple(problems.items())}


def clip_of_row(
    row: Row,
    tree: Tree | None,
    *,
    dataset: str,
    subject: str,
    name: str,
    source: str,
    offset_known: bool = True,
) -> Clip:
    """Return the clip of a row that has onset, apex, offset, emotion and action units."""
    clip = Clip(
        dataset=dataset,
        subject=subject,
        name=name,
        root=tree.root if tree else None,
        source=source,
        **key_frames(row, offset_known=offset_known),
        emotion=canonical_emotion(row.text("emotion")),
        emotion_text=row.text("emotion"),
        action_units=row.text("action_units"),
        origin=row.origin,
        extra=row.extra,
    )
    return with_choices(clip, tree)


def with_choices(clip: Clip, tree: Tree | None) -> Clip:
    """Return the clip, marked where several folders can be meant: none is chosen."""
    choices = tree.choices(clip.source) if tree else ()
    if not choices:
        return clip
    return replace(clip, extra=(*clip.extra, (AMBIGUOUS, " | ".join(choices))))


def finish(clips: Iterable[Clip], apex: str, corrections: CorrectionSource) -> Catalog:
    """Correct the annotations, choose the apex, and give the catalog with its keys told apart."""
    from apexflow.datasets.corrections import apply_corrections

    clips = settled(clips)
    if corrections is not None:
        clips = apply_corrections(clips, corrections)
    return Catalog(choose_apex(clip, apex) for clip in clips)


def settled(clips: Iterable[Clip]) -> list[Clip]:
    """Return clips with unique keys, inside of the data set's folder.

    A row that repeats another in everything is left out, with a note. Of rows that give one clip
    different annotations none can be believed: each keeps that among its problems.
    """
    groups: dict[tuple[str, str, str], list[Clip]] = {}
    for clip in map(_inside, clips):
        groups.setdefault(clip.key, []).append(clip)
    return [clip for group in groups.values() for clip in _of_one_key(group)]


def _of_one_key(group: Sequence[Clip]) -> list[Clip]:
    first = group[0]
    others = []
    for clip in group[1:]:
        if replace(clip, origin=first.origin) == first:
            said = f"the same row as {first.origin}; it is read once"
            take_note(Note("warning", "duplicate-row", clip.origin, said, "delete one of the rows"))
        else:
            others.append(replace(clip, name=f"{clip.name} ({clip.origin})"))
    if not others:
        return [first]
    return [_doubtful(first, others[0].origin), *(_doubtful(c, first.origin) for c in others)]


def _doubtful(clip: Clip, other: str) -> Clip:
    what = f"another row of the clip is {other}; rename or delete one of them"
    return replace(clip, problems=(*clip.problems, (CLIP_KEY, what)))


def _inside(clip: Clip) -> Clip:
    if ".." not in PurePosixPath(clip.source).parts:
        return clip
    what = f"path {clip.source!r} leaves the data set's folder; correct the cell"
    return replace(clip, source="", problems=(*clip.problems, (CLIP_PATH, what)))


def choose_apex(clip: Clip, apex: str) -> Clip:
    """Return the clip with its apex as annotated, in the middle, or still to be estimated.

    Raises `ApexflowError` for another choice.
    """
    if apex not in get_args(ApexChoice):
        raise ApexflowError(f"apex must be one of {', '.join(get_args(ApexChoice))}. Got {apex!r}.")
    if apex == "annotated":
        return clip if clip.apex is not None else replace(clip, apex_source="")
    if apex != "middle":
        return replace(clip, apex=None, apex_source=apex)
    if clip.onset is None or clip.offset is None:
        return replace(clip, apex=None, apex_source="middle")
    return replace(clip, apex=(clip.onset + clip.offset) // 2, apex_source="middle")
