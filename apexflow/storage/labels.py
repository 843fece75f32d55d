"""The class of each clip of one or several stores: as annotated, or by a protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apexflow import protocols
from apexflow.catalog import Catalog, Clip
from apexflow.errors import ApexflowError
from apexflow.storage.format import NO_NUMBER
from apexflow.storage.opened import Key
from apexflow.storage.store import Store

# Labels that give every clip no class: what is to be predicted.
UNLABELLED = "none"
NO_LABEL = -1
# Labels that the table holds, whatever class numbers it has beside them.
_EMOTION, _OBJECTIVE = "emotion", "objective"
# Objective classes go by action units alone (Davison, Merghani, Yap, "Objective classes for
# micro-facial expression recognition", 2018, doi:10.3390/jimaging4100119). Tables write them in
# Roman or Arabic numbers, under headings that differ in case and number.
_OBJECTIVE_CLASSES = ("I", "II", "III", "IV", "V", "VI", "VII")
_OBJECTIVE_HEADINGS = ("objective class", "objective classes")

Labels = str | Path | protocols.Protocol | None


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The classes of clips.

    Attributes
    ----------
    label_of : mapping of (data set, subject, name) to int
        The position of its class, of each clip that has one.
    classes : tuple of str
        Names of the classes that occur: class numbers keep theirs as a name.
    left_out : mapping of str to int
        How many clips have no class, by the reason: their emotion, "no emotion", "no label",
        "excluded by name".
    warnings : tuple of str
        What makes the classes doubtful: one alone, or one that a single subject has.
    """

    label_of: Mapping[Key, int]
    classes: tuple[str, ...]
    left_out: Mapping[str, int]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.label_of)} clips in {len(self.classes)} classes"]
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            lines.append(f"{sum(self.left_out.values())} clips without a class left out: {reasons}")
        return "; ".join([*lines, *self.warnings])


def stored_clips(store: Store) -> list[Clip]:
    """Return every row of a store's table as a clip, as far as labels need it."""
    emotions, labels = store.column("emotion").tolist(), store.column("label").tolist()
    details = store.column("details").tolist()
    return [
        Clip(
            dataset=dataset,
            subject=subject,
            name=name,
            emotion=emotion,
            label=None if label == NO_NUMBER else label,
            extra=_extra(text),
        )
        for (dataset, subject, name), emotion, label, text in zip(
            store.keys(), emotions, labels, details, strict=True
        )
    ]


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


def label_clips(clips: Iterable[Clip], wanted: Labels) -> tuple[dict[Key, int], tuple[str, ...]]:
    """Return the label of each clip that has one, and the names of the classes.

    As `class_map`, which also tells what was left out.
    """
    found = class_map(clips, wanted)
    return dict(found.label_of), found.classes


def class_map(clips: Iterable[Clip], wanted: Labels = None) -> ClassMap:
    """Return the classes of clips.

    ``wanted`` is a protocol, its name or its TOML file; or "none", which gives every clip the
    label -1 and no class, for clips that are to be predicted; "emotion", the emotions of the
    table; "objective", its objective classes, I to VII. Without one, the class numbers that
    the clips bring; where no clip has any, their emotions. Classes are those that occur,
    numbers in ascending order, emotions by name; clips without a label have none.

    Raises
    ------
    ApexflowError
        Two clips share a key, no clip has a class, or the protocol does not fit the data sets.
    """
    catalog = Catalog(clips)
    if wanted == UNLABELLED:
        return ClassMap({clip.key: NO_LABEL for clip in catalog}, (), {}, ())
    if wanted == _EMOTION:
        emotions = {clip.key: clip.emotion for clip in catalog if clip.emotion}
        return _named(catalog, emotions, sorted(set(emotions.values())), "no emotion")
    if wanted == _OBJECTIVE:
        known = {clip.key: objective_class(clip) for clip in catalog if objective_class(clip)}
        order = [name for name in _OBJECTIVE_CLASSES if name in known.values()]
        return _named(catalog, known, order, "no objective class")
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
    numbers = {clip.key: clip.label for clip in catalog if clip.label is not None}
    if numbers:
        named = {key: str(number) for key, number in numbers.items()}
        classes = [str(number) for number in sorted(set(numbers.values()))]
        reason = "no label"
    else:
        named = {clip.key: clip.emotion for clip in catalog if clip.emotion}
        classes = sorted(set(named.values()))
        reason = "no emotion"
    return _named(catalog, named, classes, reason)


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
