"""What is to be learnt of each clip: its class, its action units, or where its apex lies."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from apexflow import protocols
from apexflow.action_units import CD6ME_UNITS, UNKNOWN, action_unit_targets
from apexflow.catalog import Catalog, Clip
from apexflow.errors import ApexflowError
from apexflow.rates import rate_of_dataset, rate_of_row
from apexflow.storage.format import NO_NUMBER
from apexflow.storage.opened import Key
from apexflow.storage.store import Store

# Labels that give every clip no class: what is to be predicted.
UNLABELLED = "none"
NO_LABEL = -1
# Labels that the table holds, whatever class numbers it has beside them.
_EMOTION, _OBJECTIVE = "emotion", "objective"
# "au" is the action units of CD6ME, "au:1,2,12" those that are named.
_UNITS = re.compile(r"au(?::(?P<units>.*))?", re.IGNORECASE | re.DOTALL)
APEX = "apex"
# Objective classes go by action units alone (Davison, Merghani, Yap, "Objective classes for
# micro-facial expression recognition", 2018, doi:10.3390/jimaging4100119). Tables write them in
# Roman or Arabic numbers, under headings that differ in case and number.
_OBJECTIVE_CLASSES = ("I", "II", "III", "IV", "V", "VI", "VII")
_OBJECTIVE_HEADINGS = ("objective class", "objective classes")

Labels = str | Path | protocols.Protocol | None
Kind = Literal["class", "units", "apex"]
"""What a label is: one class of several, several action units, or the position of the apex."""


class ApexPosition(NamedTuple):
    """Where an annotated apex lies in its clip.

    Attributes
    ----------
    onset, apex, offset : int
        Frame numbers as annotated.
    fps : float
        Frames a second, as the row or the data set says; 0 where nobody does.
    """

    onset: int
    apex: int
    offset: int
    fps: float = 0.0

    @property
    def value(self) -> float:
        """The part of the way from onset to offset, 0 to 1."""
        return (self.apex - self.onset) / (self.offset - self.onset)


Label = int | tuple[int, ...] | ApexPosition
"""A class; of each unit 1 shown, 0 not shown, -1 unknown; or the position of the apex."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """What is to be learnt of clips.

    Attributes
    ----------
    label_of : mapping of (data set, subject, name) to Label
        Of each clip that has one; of classes, the position of its class.
    classes : tuple of str
        Names of the classes that occur: class numbers keep theirs as a name; of the units,
        "AU4"; of the apex, "position" alone.
    left_out : mapping of str to int
        How many clips have none, by the reason: their emotion, "no emotion", "no label",
        "excluded by name".
    warnings : tuple of str
        What makes the labels doubtful: a class or unit alone, or that a single person has.
    kind : "class", "units" or "apex"
    """

    label_of: Mapping[Key, Label]
    classes: tuple[str, ...]
    left_out: Mapping[str, int]
    warnings: tuple[str, ...]
    kind: Kind = "class"

    @property
    def class_of(self) -> dict[Key, str]:
        """The name of each clip's class."""
        pairs = self.label_of.items()
        return {key: self.classes[label] for key, label in pairs if isinstance(label, int)}

    def __str__(self) -> str:
        of, without = _SAID[self.kind]
        lines = [f"{len(self.label_of)} clips {of.format(len(self.classes))}"]
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            lines.append(f"{sum(self.left_out.values())} clips {without} left out: {reasons}")
        return "; ".join([*lines, *self.warnings])


_SAID: Mapping[Kind, tuple[str, str]] = {
    "class": ("in {} classes", "without a class"),
    "units": ("with {} action units", "without action units"),
    "apex": ("with an annotated apex", "without one"),
}


def stored_clips(store: Store) -> list[Clip]:
    """Return every row of a store's table as a clip, as far as labels need it."""
    texts = ("emotion", "action_units", "source", "details")
    numbers = ("label", "onset", "apex", "offset")
    columns = [store.column(name).tolist() for name in (*texts, *numbers)]
    clips = []
    for (dataset, subject, name), person, row in zip(
        store.keys(), store.people(), zip(*columns, strict=True), strict=True
    ):
        emotion, action_units, source, details, *known = row
        label, onset, apex, offset = (None if one == NO_NUMBER else one for one in known)
        clips.append(
            Clip(
                dataset=dataset,
                subject=subject,
                name=name,
                person=person,
                source=source,
                onset=onset,
                apex=apex,
                offset=offset,
                emotion=emotion,
                label=label,
                action_units=action_units,
                extra=_extra(details),
            )
        )
    return clips


def _extra(details: str) -> tuple[tuple[str, str], ...]:
    """Return what the column ``details`` holds of further annotation columns."""
    found = json.loads(details) if details else {}
    return tuple((name, value) for name, value in found.items() if isinstance(value, str))


def objective_class(clip: Clip) -> str:
    """Return the objective class of a clip, "I" to "VII"; "" where its table has none."""
    for name, value in clip.extra:
        if name.strip().casefold() in _OBJECTIVE_HEADINGS:
            text = value.strip().upper()
            if text in _OBJECTIVE_CLASSES:
                return text
            if text.isdecimal() and 1 <= int(text) <= len(_OBJECTIVE_CLASSES):
                return _OBJECTIVE_CLASSES[int(text) - 1]
    return ""


def named_units(wanted: object) -> tuple[int, ...] | None:
    """Return the action units that labels name: "au", or "au:1,2,12"; None where they name none.

    Raises `ApexflowError` where what stands after "au:" is no list of different numbers.
    """
    match = _UNITS.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        return None
    if match["units"] is None:
        return CD6ME_UNITS
    parts = [part.strip().upper().removeprefix("AU") for part in match["units"].split(",")]
    units = tuple(int(part) for part in parts if part.isdecimal() and part.isascii())
    if len(units) < len(parts) or len(set(units)) < len(units):
        raise ApexflowError(
            f"labels au:… take different action units, as au:1,2,12. Got {wanted!r}."
        )
    return units


def class_map(clips: Iterable[Clip], wanted: Labels = None) -> ClassMap:
    """Return what is to be learnt of clips.

    ``wanted`` is a protocol, its name or its TOML file; or "none", which gives every clip the
    label -1 and no class, for clips that are to be predicted; "emotion", the emotions of the
    table; "objective", its objective classes, I to VII; "au" or "au:1,2,12", its action units
    (`apexflow.action_units.action_unit_targets`); "apex", the annotated apex. Without one, the
    class numbers that the clips bring; where no clip has any, their emotions. Classes are those
    that occur, numbers in ascending order, emotions by name; clips without a label have none.

    Raises
    ------
    ApexflowError
        Two clips share a key, no clip has a class, or the protocol does not fit the data sets.
    """
    catalog = Catalog(clips)
    if wanted == UNLABELLED:
        return ClassMap({clip.key: NO_LABEL for clip in catalog}, (), {}, ())
    if isinstance(wanted, str) and wanted in _IN_TABLE:
        return _IN_TABLE[wanted](catalog)
    units = named_units(wanted)
    if units is not None:
        return _unit_map(catalog, units)
    if wanted is not None:
        protocol = wanted if isinstance(wanted, protocols.Protocol) else protocols.find(wanted)
        named = {
            clip.key: protocol.classes[clip.label]
            for clip in protocol.apply(catalog)
            if clip.label is not None
        }
        classes = [name for name in protocol.classes if name in named.values()]
        missing = tuple(f"no clip is of class {n}" for n in protocol.classes if n not in classes)
        return _class_map(catalog, named, classes, protocol.left_out(catalog), missing)
    return _as_annotated(catalog)


def _emotions(catalog: Catalog) -> ClassMap:
    emotions = {clip.key: clip.emotion for clip in catalog if clip.emotion}
    return _named(catalog, emotions, sorted(set(emotions.values())), "no emotion")


def _objectives(catalog: Catalog) -> ClassMap:
    known = {clip.key: objective_class(clip) for clip in catalog if objective_class(clip)}
    order = [name for name in _OBJECTIVE_CLASSES if name in known.values()]
    return _named(catalog, known, order, "no objective class")


def _as_annotated(catalog: Catalog) -> ClassMap:
    """Return the class numbers of the table, or, where it has none, its emotions."""
    numbers = {clip.key: str(clip.label) for clip in catalog if clip.label is not None}
    if numbers:
        return _named(catalog, numbers, sorted(set(numbers.values()), key=int), "no label")
    return _emotions(catalog)


def _named(
    catalog: Catalog, named: Mapping[Key, str], classes: Sequence[str], reason: str
) -> ClassMap:
    if not named and len(catalog):
        what = "an objective class" if "objective" in reason else "a label or an emotion"
        raise ApexflowError(
            f"none of {len(catalog)} clips has {what}; fill in the table, or give a protocol"
        )
    without = len(catalog) - len(named)
    return _class_map(catalog, named, classes, {reason: without} if without else {}, ())


def _class_map(
    catalog: Catalog,
    named: Mapping[Key, str],
    classes: Sequence[str],
    left_out: Mapping[str, int],
    missing: tuple[str, ...],
) -> ClassMap:
    place = {name: i for i, name in enumerate(classes)}
    label_of = {key: place[name] for key, name in named.items()}
    return ClassMap(label_of, tuple(classes), left_out, (*missing, *_doubts(named, classes)))


def _doubts(named: Mapping[Key, str], classes: Sequence[str]) -> list[str]:
    if len(classes) == 1:
        return [f"all clips are of one class, {classes[0]}: there is nothing to learn"]
    people: dict[str, set[tuple[str, str]]] = {}
    for (dataset, subject, _), name in named.items():
        people.setdefault(name, set()).add((dataset, subject))
    return [
        f"class {name} occurs in subject {'/'.join(*people[name])} alone: no fold both trains it "
        "and tests it"
        for name in classes
        if len(people[name]) == 1
    ]


def _unit_map(catalog: Catalog, units: tuple[int, ...]) -> ClassMap:
    """Return the action units of clips; a clip of which none is known has no label."""
    found = action_unit_targets(catalog, units)
    known = {
        clip.key: tuple(map(int, row))
        for clip, row in zip(catalog, found.values, strict=True)
        if (row != UNKNOWN).any()
    }
    without = Counter(
        "with text that names no unit" if clip.action_units.strip() else "with an empty cell"
        for clip in catalog
        if clip.key not in known
    )
    classes = tuple(f"AU{unit}" for unit in units)
    if not any(1 in row for row in known.values()):
        raise ApexflowError(f"none of {len(catalog)} clips shows one of {', '.join(classes)}")
    doubts = tuple(_unit_doubts(catalog, known, classes))
    return ClassMap(known, classes, dict(without), doubts, "units")


def _unit_doubts(
    catalog: Catalog, known: Mapping[Key, tuple[int, ...]], classes: Sequence[str]
) -> Iterator[str]:
    """Say which units cannot be learnt, or not be tested where they were learnt."""
    for i, name in enumerate(classes):
        people = {c.person for c in catalog if c.key in known and known[c.key][i] == 1}
        if not people:
            yield f"{name} is shown by no clip: there is nothing to learn of it"
        elif len(people) == 1:
            yield f"{name} is shown by {min(people)} alone: no fold both trains it and tests it"
    unknown = sum(UNKNOWN in row for row in known.values())
    if unknown:
        yield (
            f"of {unknown} clips some units are unknown (alternatives, question marks), which "
            "count in no loss and in no score"
        )


def _apex_map(catalog: Catalog) -> ClassMap:
    found: dict[Key, Label] = {}
    without: Counter[str] = Counter()
    for clip in catalog:
        position = _apex_position(clip)
        if isinstance(position, str):
            without[position] += 1
        else:
            found[clip.key] = position
    if not found and len(catalog):
        raise ApexflowError(
            f"none of {len(catalog)} clips has an annotated apex between onset and offset "
            f"({', '.join(f'{count} {reason}' for reason, count in without.items())})"
        )
    values = {one.value for one in found.values() if isinstance(one, ApexPosition)}
    doubts = (
        ["all apexes lie at the same part of their clips: there is nothing to learn"]
        if len(values) == 1
        else []
    )
    return ClassMap(found, ("position",), dict(without), tuple(doubts), "apex")


def _apex_position(clip: Clip) -> ApexPosition | str:
    """Return where the apex lies, or why nobody can say."""
    if clip.apex is None:
        return "no apex"
    if clip.apex_source not in ("", "annotated"):
        return f"an apex that is not annotated ({clip.apex_source})"
    if clip.onset is None or clip.offset is None:
        return "no onset or offset"
    if clip.offset <= clip.onset or not clip.onset <= clip.apex <= clip.offset:
        return "an apex outside of onset to offset"
    return ApexPosition(clip.onset, clip.apex, clip.offset, _rate(clip))


_IN_TABLE: Mapping[str, Callable[[Catalog], ClassMap]] = {
    _EMOTION: _emotions,
    _OBJECTIVE: _objectives,
    APEX: _apex_map,
}
# What ends as a file does is a video, whose rate its header says and not its data set.
_VIDEO = re.compile(r".*\.[a-z][a-z0-9]{1,4}", re.IGNORECASE)


def _rate(clip: Clip) -> float:
    rate = rate_of_row(clip.extra)
    if rate is None and not _VIDEO.fullmatch(clip.source):
        rate = rate_of_dataset(clip.dataset)
    return rate or 0.0
