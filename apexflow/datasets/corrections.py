"""Corrections of annotations: a file that the user owns, and a table of published ones.

A correction names a data set, clip, field, old value, new value and source. It applies only
where the annotation still has the old value, so that neither a newer edition of a table nor
a mistyped name goes unnoticed. What was applied is kept in `Clip.corrections`.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from apexflow.catalog import Clip
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.rows import Column, Row
from apexflow.datasets.tables import read_rows
from apexflow.errors import ApexflowError

PUBLISHED = "published"

_FRAMES = ("onset", "apex", "offset")
FIELDS = (*_FRAMES, "emotion", "action_units")
_COLUMNS = (
    Column("dataset", ("dataset", "data set")),
    Column("subject", ("subject",), required=False),
    Column("clip", ("clip",)),
    Column("field", ("field",)),
    Column("old", ("old", "old value")),
    Column("new", ("new", "new value")),
    Column("source", ("source",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One value of one clip to be replaced.

    Attributes
    ----------
    dataset, subject, clip : str
        The clip's key; an empty subject stands for the only clip of that name.
    field : {"onset", "apex", "offset", "emotion", "action_units"}
        What is corrected.
    old, new : str
        Values as text; empty for an unknown one.
    source : str
        Who says so.
    origin : str
        File and row, for messages.
    """

    dataset: str
    clip: str
    field: str
    old: str
    new: str
    source: str
    subject: str = ""
    origin: str = ""

    def __str__(self) -> str:
        old, new = self.old or "unknown", self.new or "unknown"
        return f"{self.field}: {old} -> {new} ({self.source})"

    def concerns(self, clip: Clip) -> bool:
        """Tell whether this is the clip that is meant."""
        return (self.dataset, self.clip) == (clip.dataset, clip.name) and self.subject in {
            "",
            clip.subject,
        }

    def is_met(self, clip: Clip) -> bool:
        """Tell whether the clip still has the old value."""
        return _text(clip, self.field) == self.old


CorrectionSource = str | Path | Sequence[Correction] | None


def load_corrections(source: CorrectionSource) -> tuple[Correction, ...]:
    """Return the corrections of a .toml or .csv file, or the ``"published"`` ones.

    A CSV has the columns dataset, subject (may be empty), clip, field, old, new, source; a
    TOML file the same keys in ``[[correction]]`` tables.

    Raises
    ------
    ApexflowError
        The file cannot be read, or an entry breaks a rule.
    """
    if source is None:
        return ()
    if not isinstance(source, str | Path):
        return tuple(source)
    if source == PUBLISHED:
        return published_corrections()
    path = Path(source)
    rows = _toml_rows(path) if path.suffix.lower() == ".toml" else _csv_rows(path)
    return tuple(_correction(row) for row in rows)


def published_corrections() -> tuple[Correction, ...]:
    """Return the corrections that apexflow ships, among them undecided ones.

    Where the field uses several values for one annotation, each has an entry, and
    `apply_corrections` chooses none of them.
    """
    shipped = resources.files("apexflow.datasets") / "corrections.csv"
    with resources.as_file(shipped) as path:
        return tuple(_correction(row) for row in read_rows(path, _COLUMNS))


def apply_corrections(clips: Iterable[Clip], source: CorrectionSource) -> list[Clip]:
    """Return the clips with corrections applied.

    Corrections of data sets that do not occur are ignored, so that one file can serve
    several. For the published ones a clip that is absent, or has the new value already (a
    newer edition of the table), is passed over, and so are action units that a table has none of.

    Raises
    ------
    ApexflowError
        A user's correction does not find its clip or its old value, or two of them
        correct the same value.
    """
    clips = list(clips)
    chosen = decided(load_corrections(source)) if source == PUBLISHED else load_corrections(source)
    _refuse_contradictions(chosen)
    datasets = {clip.dataset for clip in clips}
    for correction in chosen:
        if correction.dataset not in datasets:
            continue
        at = [i for i, clip in enumerate(clips) if correction.concerns(clip)]
        if source == PUBLISHED:
            at = [i for i in at if not _is_settled(clips[i], correction)]
            if not at:
                continue
        if len(at) != 1:
            raise _no_single_clip(correction, [clips[i] for i in at])
        clips[at[0]] = _corrected(clips[at[0]], correction)
    return clips


def write_corrections(path: str | Path, corrections: Iterable[Correction]) -> int:
    """Write corrections to a .csv or .toml file that `load_corrections` reads; return how many.

    Where several values are proposed for one annotation each is written, so that the file is
    refused until one of them is chosen.

    Raises `ApexflowError` where the file exists already, or cannot be written.
    """
    path = Path(path)
    chosen = tuple(dict.fromkeys(corrections))
    text = _as_toml(chosen) if path.suffix.lower() == ".toml" else _as_csv(chosen)
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise ApexflowError(f"{path} is there already; name another file, or remove it") from None
    except OSError as error:
        raise ApexflowError(f"{path}: cannot be written ({error.strerror})") from None
    return len(chosen)


def _as_csv(corrections: Iterable[Correction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [column.name for column in _COLUMNS]
    writer.writerow(names)
    writer.writerows([getattr(c, name) for name in names] for c in corrections)
    return text.getvalue()


def _as_toml(corrections: Sequence[Correction]) -> str:
    names = [column.name for column in _COLUMNS]
    entries = (
        # A JSON string without escapes beyond TOML's is a TOML string.
        "\n".join(
            [
                "[[correction]]",
                *(f"{n} = {json.dumps(getattr(c, n), ensure_ascii=False)}" for n in names),
            ]
        )
        for c in corrections
    )
    return "\n\n".join(entries) + "\n" if corrections else "correction = []\n"


def decided(corrections: Iterable[Correction]) -> tuple[Correction, ...]:
    """Return the corrections whose value no other entry disputes."""
    return tuple(
        group[0] for group in _grouped(corrections).values() if len({c.new for c in group}) == 1
    )


def proposals(clip: Clip, corrections: Iterable[Correction]) -> list[Correction]:
    """Return the corrections that apply to a clip as it stands."""
    return [c for c in corrections if c.concerns(clip) and c.is_met(clip) and c.new != c.old]


def _grouped(
    corrections: Iterable[Correction],
) -> Mapping[tuple[str, str, str, str], list[Correction]]:
    groups: dict[tuple[str, str, str, str], list[Correction]] = {}
    for c in corrections:
        groups.setdefault((c.dataset, c.subject, c.clip, c.field), []).append(c)
    return groups


def _refuse_contradictions(corrections: Iterable[Correction]) -> None:
    for group in _grouped(corrections).values():
        if len(group) > 1:
            first, second = group[:2]
            raise ApexflowError(
                f"{second.origin}: {first.field} of {first.clip} is corrected twice, also in "
                f"{first.origin}; keep one"
            )


def _no_single_clip(correction: Correction, found: list[Clip]) -> ApexflowError:
    name = "/".join(
        part for part in (correction.dataset, correction.subject, correction.clip) if part
    )
    if found:
        subjects = ", ".join(clip.subject for clip in found)
        return ApexflowError(
            f"{correction.origin}: {name} is a clip of {subjects}: add the subject"
        )
    return ApexflowError(f"{correction.origin}: no clip {name}; check its spelling")


def _corrected(clip: Clip, correction: Correction) -> Clip:
    if not correction.is_met(clip):
        raise ApexflowError(
            f"{correction.origin}: {correction.field} of {clip} is "
            f"{_text(clip, correction.field)!r}, not {correction.old!r}, so the correction to "
            f"{correction.new!r} does not apply"
        )
    changes: dict[str, Any] = {"corrections": (*clip.corrections, str(correction))}
    if correction.field in _FRAMES:
        changes[correction.field] = int(correction.new) if correction.new else None
    elif correction.field == "emotion":
        changes |= {"emotion": canonical_emotion(correction.new), "emotion_text": correction.new}
    else:
        changes[correction.field] = correction.new
    return replace(clip, **changes)


def _text(clip: Clip, field: str) -> str:
    value = clip.emotion_text if field == "emotion" else getattr(clip, field)
    return "" if value is None else str(value)


def _is_settled(clip: Clip, correction: Correction) -> bool:
    """Tell whether a published correction has nothing to do with a clip."""
    text = _text(clip, correction.field)
    return text == correction.new or (correction.field == "action_units" and not text)


def _csv_rows(path: Path) -> list[Row]:
    return read_rows(path, _COLUMNS, may_be_empty=True)


def _toml_rows(path: Path) -> list[Row]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ApexflowError(f"{path}: not a readable TOML file ({error})") from None
    entries = data.get("correction")
    if set(data) != {"correction"} or not isinstance(entries, list):
        raise ApexflowError(f"{path}: must hold [[correction]] tables, and nothing else")
    rows = []
    names = [column.name for column in _COLUMNS]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or set(entry) - set(names):
            raise ApexflowError(f"{path} correction {number}: has the keys {', '.join(names)}")
        for name in names:
            if name != "subject" and name not in entry:
                raise ApexflowError(f"{path} correction {number}: no {name}")
        rows.append(Row(path.name, number, {k: str(v).strip() for k, v in entry.items()}))
    return rows


def _correction(row: Row) -> Correction:
    field = row.text("field")
    if field not in FIELDS:
        raise row.error(f"field must be one of {', '.join(FIELDS)}. Got {field!r}.")
    if field in _FRAMES:
        for name in ("old", "new"):
            row.frame(name, optional=True)
    if not row.text("source"):
        raise row.error("no source; say who found the value")
    return Correction(
        dataset=row.identifier("dataset"),
        subject=row.text("subject"),
        clip=row.identifier("clip"),
        field=field,
        old=row.text("old"),
        new=row.text("new"),
        source=row.text("source"),
        origin=row.origin,
    )
