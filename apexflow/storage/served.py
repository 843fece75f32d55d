"""Which clips of stores a data set serves: finished, with a class, flagged or not, not left out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from apexflow.catalog import Clip, person_of
from apexflow.errors import ApexflowError
from apexflow.marks import Exclusions, excluded
from apexflow.quality import say_flagged
from apexflow.storage.labels import ClassMap, Label, Labels, class_map, stored_clips
from apexflow.storage.samples import finished_rows
from apexflow.storage.stored_samples import Place, StoreParts

Flagged = Literal["keep", "drop", "error"]
"""What becomes of clips that bear flags."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """Which clip a sample is.

    Attributes
    ----------
    dataset, subject, clip : str
    label : int, tuple of int or ApexPosition
        A class; of each action unit 1 shown, 0 not shown, -1 unknown; or where the apex lies.
    person : str
        Who it is; the same in several data sets where they show the same people.
    frames : str
        Equal of two samples only where they were made of the same frames; "" when unknown.
    shared : str
        "data set/subject/clip" of another person's clip that has the same frames, or some of
        them; "" where there is none.
    flags : str
        What is doubtful about the clip (`apexflow.quality.parse_flags`); "" when nothing is.
    """

    dataset: str
    subject: str
    clip: str
    label: Label
    person: str = ""
    frames: str = ""
    shared: str = ""
    flags: str = ""

    def described(self) -> str:
        """Return what a fingerprint of samples is over."""
        text = (
            f"SampleInfo(dataset={self.dataset!r}, subject={self.subject!r}, "
            f"clip={self.clip!r}, label={self.label!r})"
        )
        derived = person_of(self.dataset, self.subject)
        return text if self.person in ("", derived) else f"{text} {self.person!r}"


@dataclass(frozen=True, slots=True)
class Served:
    """The clips that a data set serves, and what is known of those that it does not.

    Attributes
    ----------
    places : tuple of Place
    samples : tuple of SampleInfo
        One a place.
    class_map : ClassMap
    flagged : tuple of SampleInfo
        The clips with a class that bear flags, whether they are served or left out.
    """

    places: tuple[Place, ...]
    samples: tuple[SampleInfo, ...]
    class_map: ClassMap
    flagged: tuple[SampleInfo, ...]


def served_clips(
    stores: Sequence[StoreParts],
    names: Sequence[str],
    labels: Labels,
    flagged: Flagged,
    exclude: Exclusions,
) -> Served:
    """Choose among the finished clips of stores, which messages call by ``names``.

    Raises `ApexflowError` where a store has none, ``exclude`` names others, there is no class,
    or flags are an error.
    """
    found = list(_finished(stores))
    if exclude is not None:
        keys = chain.from_iterable(one.store.keys() for one in stores)
        left_out = excluded(exclude, keys)
        found = [one for one in found if one.clip.key not in left_out]
    classes = class_map((one.clip for one in found), labels)
    with_class = [one for one in found if one.clip.key in classes.label_of]
    flagged_ones = tuple(one.sample(classes) for one in with_class if one.flags)
    if flagged_ones:
        _tell_flagged(names, flagged_ones[0], [one.flags for one in with_class], flagged)
    if flagged_ones and flagged == "drop":
        found = [one for one in found if not one.flags]
        classes = class_map((one.clip for one in found), labels)
    kept = [one for one in found if one.clip.key in classes.label_of]
    return Served(
        tuple(one.place for one in kept),
        tuple(one.sample(classes) for one in kept),
        classes,
        flagged_ones,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _FinishedClip:
    """A finished clip of a store, before it is known whether it is served."""

    place: Place
    clip: Clip
    person: str
    frames: str
    shared: str
    flags: str

    def sample(self, classes: ClassMap) -> SampleInfo:
        key = self.clip.key
        label = classes.label_of[key]
        return SampleInfo(*key, label, self.person, self.frames, self.shared, self.flags)


def _finished(stores: Sequence[StoreParts]) -> list[_FinishedClip]:
    """Return the finished clips of all stores, whatever their class and flags."""
    everything: list[_FinishedClip] = []
    for number, one in enumerate(stores):
        store = one.store
        rows, people, shared = stored_clips(store), store.people(), store.shared()
        found = list(finished_rows(store, one.parts))
        if not found:
            raise ApexflowError(f"{store.name} holds no finished clip")
        if not store.complete:
            warnings.warn(
                f"{store.name} is still being written, or its run was cut short: the "
                f"{len(found)} finished of its {len(rows)} clips are served",
                stacklevel=4,
            )
        for info, record in found:
            row = next(iter(info.values())).row
            everything.append(
                _FinishedClip(
                    place=Place(number, info),
                    clip=replace(rows[row], apex_source=record.apex_source),
                    person=people[row],
                    frames=record.identity,
                    shared=str(rows[shared[row]]) if row in shared else "",
                    flags=record.flags,
                )
            )
    return everything


def _tell_flagged(
    names: Sequence[str], first: SampleInfo, flags: Sequence[str], flagged: Flagged
) -> None:
    """Say how many of the clips are flagged; refuse them where they are an error."""
    found = f"{', '.join(names)}: {say_flagged(flags)}"
    if flagged == "error":
        raise ApexflowError(
            f"{found}, the first {first.dataset}/{first.subject}/{first.clip}: {first.flags}; "
            f"look at them (`apexflow info`), then take flagged='drop' or 'keep'"
        )
    if flagged == "drop" and all(flags):
        raise ApexflowError(f"{found}, so that none is left; take flagged='keep'")
    logger.warning("%s, and %s", found, "served" if flagged == "keep" else "left out")
