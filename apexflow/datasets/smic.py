"""SMIC: HS, VIS and NIR, whose folders are the annotation; HS-E, VIS-E and NIR-E, with a table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.reader import (
    ApexChoice,
    Option,
    Reader,
    clips_of_rows,
    finish,
    key_frames,
    place,
    with_choices,
)
from apexflow.datasets.rows import Column, Row, plain
from apexflow.datasets.tables import read_rows
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

SmicSubset = Literal["HS", "VIS", "NIR", "HS-E", "VIS-E", "NIR-E"]

_SUBSETS: tuple[SmicSubset, ...] = ("HS", "VIS", "NIR", "HS-E", "VIS-E", "NIR-E")
_NAMES = ("SMIC-HS-E_annotation.xlsx", "SMIC-VIS-E_annotation.xlsx", "SMIC-NIR-E_annotation.xlsx")
_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("onset", ("OnsetF",)),
    Column("offset", ("OffsetF",)),
    Column("onset2", ("Onset2F",), required=False, helper=True),
    Column("offset2", ("Offset2F",), required=False, helper=True),
    Column("onset3", ("Onset3F",), required=False, helper=True),
    Column("offset3", ("Offset3F",), required=False, helper=True),
    Column("first", ("FirstF",), required=False, helper=True),
    Column("last", ("LastF",), required=False, helper=True),
    Column("length", ("TotalVL",), required=False, helper=True),
    Column("emotion", ("Emotion",), required=False),
)
_CLIP = re.compile(r"s0*([0-9]{1,3})_(ne|po|sur)_([0-9]+)", re.IGNORECASE)
_MODALITY = re.compile(r"(?:smic)?(hs|vis|nir)(e|long)?")
_DEEPEST = 6
_LAYOUT = """\
HS, VIS, NIR: ROOT/HS/s1/micro/negative/s1_ne_01/image559740.bmp. The folders are the
annotation: class from the name (ne, po, sur), first and last frame are onset and offset.
HS-E, VIS-E, NIR-E: ROOT/HS_long/SMIC_HS_E/s20/s20_ne_01/image17581039.jpg, with
SMIC-HS-E_annotation.xlsx. There is no apex: choose --apex middle, difference or flow."""


def read_smic(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
    subset: SmicSubset | None = None,
    intervals: Literal["first", "all"] = "first",
) -> Catalog:
    """Read SMIC: 164 clips of 16 subjects in HS, 157 rows in HS-E.

    Parameters
    ----------
    root : path or None
        The folder with the subset's folders; None reads the table of HS-E alone.
    annotations : path, optional
        ``SMIC-HS-E_annotation.xlsx``, for the subsets that have a table.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from; SMIC annotates none.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.
    subset : {"HS", "VIS", "NIR", "HS-E", "VIS-E", "NIR-E"}, optional
        By default "HS", or "HS-E" when ``annotations`` are given.
    intervals : {"first", "all"}
        In the tables a row has up to three expressions. "first" gives one clip a row;
        "all" gives a further clip, named with "#2" or "#3", for each further interval that
        is in order, inside the video and no repetition.

    Returns
    -------
    Catalog
        Subjects as "01", clips as "s1_ne_01", whichever way they are spelled. The data set
        is "smic" for HS, else "smic-vis", "smic-hs-e" and so on.

    Raises
    ------
    ApexflowError
        The root or the table cannot be used.
    """
    rows = smic_rows(root, annotations, subset=subset, intervals=intervals)
    return finish(rows, apex, corrections)


def smic_rows(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    subset: str | None = None,
    intervals: str = "first",
) -> list[Clip]:
    """Return the clips of a subset, from its folders or its table."""
    subset = subset or ("HS" if annotations is None else "HS-E")
    if subset not in _SUBSETS:
        raise ApexflowError(f"subset must be one of {', '.join(_SUBSETS)}. Got {subset!r}.")
    if intervals not in {"first", "all"}:
        raise ApexflowError(f"intervals must be 'first' or 'all'. Got {intervals!r}.")
    if subset.endswith("-E"):
        return _table_rows(root, annotations, subset, intervals)
    if annotations is not None:
        raise ApexflowError(f"SMIC {subset} has no table, its folders are the annotation")
    if root is None:
        raise ApexflowError(f"SMIC {subset} needs a root folder: its folders are the annotation")
    tree = Tree(root, "HS/s1/micro/negative/s1_ne_01/image559740.bmp")
    folders = _clip_folders(tree, subset)
    if not folders:
        raise ApexflowError(f"{root}: no folder like s1_ne_01 of SMIC {subset} in it")
    return [_folder_clip(tree, subset, folder, source) for folder, source in folders.items()]


@dataclass(frozen=True, slots=True, order=True)
class _Name:
    """A clip's name, however its digits are padded."""

    subject: int
    emotion: str
    number: int
    text: str

    @classmethod
    def parse(cls, text: str) -> _Name | None:
        match = _CLIP.fullmatch(text)
        if match is None:
            return None
        subject, emotion, number = int(match[1]), match[2].lower(), int(match[3])
        return cls(subject, emotion, number, f"s{subject}_{emotion}_{number:02d}")


def _dataset(subset: str) -> str:
    return SMIC.name if subset == "HS" else f"{SMIC.name}-{subset.lower()}"


def _folder_clip(tree: Tree, subset: str, name: _Name, source: str) -> Clip:
    from apexflow.datasets.frame_names import choose_frames

    with os.scandir(tree.root / source) as entries:
        known = choose_frames(entry.name for entry in entries).frames
    clip = Clip(
        dataset=_dataset(subset),
        subject=f"{name.subject:02d}",
        name=name.text,
        root=tree.root,
        source=source,
        onset=min(known, default=None),
        offset=max(known, default=None),
        emotion=canonical_emotion(name.emotion),
        emotion_text=name.emotion,
        origin=source,
    )
    return with_choices(clip, tree)


def _table_rows(
    root: str | Path | None, annotations: str | Path | None, subset: str, intervals: str
) -> list[Clip]:
    modality = subset.removesuffix("-E")
    names = tuple(name for name in _NAMES if modality in name)
    where = place(root, annotations, names, SMIC.title, "HS_long/SMIC_HS_E/s20/s20_ne_01")
    folders = _clip_folders(where.tree, subset) if where.tree else {}
    sources = {name.text: source for name, source in folders.items()}
    most = None if intervals == "all" else 1
    return clips_of_rows(
        _read(where.table, modality),
        lambda row: _clips(row, subset, where.tree, sources)[:most],
        dataset=_dataset(subset),
        title=SMIC.title,
    )


def _read(table: Path, modality: str) -> list[Row]:
    sheet = modality if table.suffix.lower() in {".xlsx", ".xlsm"} else None
    return read_rows(table, _COLUMNS, sheet=sheet, keep_problems=True)


def _clips(row: Row, subset: str, tree: Tree | None, sources: dict[str, str]) -> list[Clip]:
    name = _Name.parse(row.identifier("clip"))
    if name is None:
        raise row.error(f"clip must be named like s1_ne_01, got {row.text('clip')!r}", "clip")
    if subject_number(row.identifier("subject")) != name.subject:
        raise row.error(f"clip {name.text} is not of subject {row.text('subject')!r}", "subject")
    first = key_frames(row)
    written: list[tuple[int | None, int | None]] = [(first["onset"], first["offset"])]
    for k in ("2", "3"):
        pair = row.helper("onset" + k), row.helper("offset" + k)
        if pair != (None, None):
            written.append(pair)
    clips = [
        Clip(
            dataset=_dataset(subset),
            subject=f"{name.subject:02d}",
            name=name.text if k == 1 else f"{name.text}#{k}",
            root=tree.root if tree else None,
            source=sources.get(name.text, join(f"s{name.subject}", name.text)),
            onset=onset,
            offset=offset,
            emotion=canonical_emotion(name.emotion),
            emotion_text=row.text("emotion") or name.emotion,
            origin=row.origin,
            extra=(("intervals", " ".join(f"{a}-{b}" for a, b in written)), *_span(row)),
            problems=first["problems"] if k == 1 else (),
        )
        for k, (onset, offset) in _usable(row, written)
    ]
    return [with_choices(clip, tree) for clip in clips]


def _usable(
    row: Row, written: list[tuple[int | None, int | None]]
) -> list[tuple[int, tuple[int | None, int | None]]]:
    """Return (position, interval) of the first, and of the sound further intervals."""
    span = dict(_span(row))
    first, last = int(span.get("first frame", 0)), int(span.get("last frame", 10**12))
    usable = [(1, written[0])]
    for k, (onset, offset) in enumerate(written[1:], start=2):
        sound = onset is not None and offset is not None and first <= onset <= offset <= last
        if sound and (onset, offset) not in written[: k - 1]:
            usable.append((k, (onset, offset)))
    return usable


def _span(row: Row) -> tuple[tuple[str, str], ...]:
    """Return the first and last frame of the video, where the table says them."""
    first, last, length = row.helper("first"), row.helper("last"), row.helper("length")
    if last is None and first is not None and length is not None:
        last = first + length - 1
    named = (("first frame", first), ("last frame", last))
    return tuple((name, str(number)) for name, number in named if number is not None)


def _clip_folders(tree: Tree, subset: str) -> dict[_Name, str]:
    """Return the folder of each clip of a subset, wherever below the root it lies.

    A clip that lies in several has the first, and the tree remembers that it may be any of them.
    Raises `ApexflowError` where all do: then the root holds two subsets.
    """
    found: dict[_Name, list[str]] = {}
    # The root may itself lie in HS_long, whose long videos are not clips of HS.
    above = tree.root.resolve().parts[-3:]
    for source in _search(tree, "", 0):
        name = _Name.parse(source.rpartition("/")[2])
        if name is None or not _in_subset(above, source.split("/")[:-1], subset):
            continue
        found.setdefault(name, []).append(source)
    for name, sources in found.items():
        if len(sources) > 1:
            tree.doubt(sources[0], sources)
            if all(len(others) > 1 for others in found.values()):
                raise ApexflowError(
                    f"{tree.root}: clip {name.text} is in both {sources[0]} and {sources[1]}, and "
                    "so are all others; give the folder of one subset as the root"
                )
    return {name: sources[0] for name, sources in sorted(found.items())}


def _search(tree: Tree, folder: str, depth: int) -> list[str]:
    found = []
    for child in tree.folders(folder):
        path = join(folder, child)
        if _Name.parse(child) is not None:
            found.append(path)
        elif depth < _DEEPEST and plain(child) != "nonmicro":
            found += _search(tree, path, depth + 1)
    return found


def _in_subset(above: Sequence[str], inside: Sequence[str], subset: str) -> bool:
    """Tell whether the folders above and inside the root fit a subset.

    Those inside say which recording it is; where they do not, those above; where neither do,
    it fits every subset. That a video is a long one, either may say.
    """
    outer, inner = (
        [match for match in map(_MODALITY.fullmatch, map(plain, folders)) if match]
        for folders in (above, inside)
    )
    if not outer and not inner:
        return True
    recording = subset.partition("-")[0].lower()
    same = all(match[1] == recording for match in inner or outer)
    return same and any(match[2] for match in outer + inner) == subset.endswith("-E")


SMIC = Reader(
    name="smic",
    title="SMIC",
    layout=_LAYOUT,
    annotations=_NAMES,
    published={"smic": (164, 16), "smic-hs-e": (157, 16)},
    read=read_smic,
    rows=smic_rows,
    beside=frozenset(
        {"hs", "vis", "nir", "hslong", "vislong", "nirlong", "smichse", "smicvise", "smicnire"}
        | {"nonmicro"}
    ),
    own_options=(
        Option("subset", "which recordings", choices=_SUBSETS),
        Option("intervals", "expressions of one row in HS-E", ("first", "all"), "first"),
    ),
    needs_annotations=False,
)
