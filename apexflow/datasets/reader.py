"""What every data set's reader shares: its description and the last steps to a catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, get_args

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.folders import Tree, find_annotations
from apexflow.datasets.names import AMBIGUOUS
from apexflow.datasets.tables import Row
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

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
        Folders that lie beside the clips and are none, as `tables.plain` spells them.
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
    """Return the clip of a row that has onset, apex, offset, emotion and action units.

    Raises `ApexflowError` for a row without an onset, or without an offset that must be known.
    """
    clip = Clip(
        dataset=dataset,
        subject=subject,
        name=name,
        root=tree.root if tree else None,
        source=source,
        onset=row.frame("onset"),
        apex=row.frame("apex", optional=True),
        offset=row.frame("offset", optional=not offset_known),
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
    """Correct the annotations, choose the apex, and give the catalog with its keys checked."""
    from apexflow.datasets.corrections import apply_corrections

    clips = list(clips)
    for clip in clips:
        if ".." in PurePosixPath(clip.source).parts:
            raise ApexflowError(f"{clip.origin}: {clip.source!r} leaves the data set's folder")
    if corrections is not None:
        clips = apply_corrections(clips, corrections)
    return Catalog(choose_apex(clip, apex) for clip in clips)


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
