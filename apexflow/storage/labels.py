"""The class of each clip of one or several stores: as annotated, or by a protocol."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from apexflow import protocols
from apexflow.catalog import Catalog, Clip
from apexflow.errors import ApexflowError
from apexflow.storage.format import NO_NUMBER
from apexflow.storage.store import Key, Store

Labels = str | Path | protocols.Protocol | None


def stored_clips(store: Store) -> list[Clip]:
    """Return every row of a store's table as a clip, as far as labels need it."""
    emotions, labels = store.column("emotion").tolist(), store.column("label").tolist()
    return [
        Clip(
            dataset=dataset,
            subject=subject,
            name=name,
            emotion=emotion,
            label=None if label == NO_NUMBER else label,
        )
        for (dataset, subject, name), emotion, label in zip(
            store.keys(), emotions, labels, strict=True
        )
    ]


def label_clips(clips: Iterable[Clip], wanted: Labels) -> tuple[dict[Key, int], tuple[str, ...]]:
    """Return the label of each clip that has one, and the names of the classes.

    ``wanted`` is a protocol, its name or its TOML file; clips to which it gives no class have
    no label. Without one, the labels that the clips bring; where no clip has any, the
    position of the clip's emotion among the sorted emotions.

    Raises
    ------
    ApexflowError
        Two clips share a key, some have a label and others none, or the protocol does not fit
        the data sets.
    """
    catalog = Catalog(clips)
    if wanted is not None:
        protocol = wanted if isinstance(wanted, protocols.Protocol) else protocols.find(wanted)
        return _labels(protocol.apply(catalog)), protocol.classes
    annotated = _labels(catalog)
    if annotated:
        missing = next((clip for clip in catalog if clip.label is None), None)
        if missing is not None:
            raise ApexflowError(
                f"some clips have a label and {missing} has none; a protocol gives all of them one"
            )
        return annotated, tuple(str(i) for i in range(max(annotated.values()) + 1))
    classes = tuple(sorted({clip.emotion for clip in catalog}))
    return {clip.key: classes.index(clip.emotion) for clip in catalog}, classes


def _labels(catalog: Catalog) -> dict[Key, int]:
    return {clip.key: clip.label for clip in catalog if clip.label is not None}
