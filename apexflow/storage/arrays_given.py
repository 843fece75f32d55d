"""Arrays that a user brings, checked and named as clips."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from apexflow.catalog import Catalog, Clip
from apexflow.errors import ApexflowError
from apexflow.protocols import Protocol
from apexflow.storage.digests import crc32c
from apexflow.storage.labels import ClassMap, class_map
from apexflow.storage.packed import Packed
from apexflow.storage.samples import RowInfo


@dataclass(frozen=True, slots=True)
class GivenArrays:
    """What `given_arrays` found.

    Attributes
    ----------
    clips : tuple of Clip
    values : Packed
        Channels before the height.
    info : tuple of RowInfo
        With the digest of each clip's values.
    frames : tuple of str
        Equal of two clips only where their values are; "" where a clip is the same everywhere,
        as that of a still face is.
    class_map : ClassMap
    """

    clips: tuple[Clip, ...]
    values: Packed
    info: tuple[RowInfo, ...]
    frames: tuple[str, ...]
    class_map: ClassMap


def given_arrays(
    values: ArrayLike,
    labels: Sequence[Any],
    subjects: Sequence[str],
    datasets: Sequence[str] | str,
    names: Sequence[str] | None,
    people: Sequence[str] | None,
    classes: Sequence[str] | None,
) -> GivenArrays:
    """Check what `ClipDataset.from_arrays` was given, which see."""
    array = _values(values)
    n = len(array)
    datasets = [datasets] * n if isinstance(datasets, str) else datasets
    names = [f"clip-{i + 1}" for i in range(n)] if names is None else names
    people = [""] * n if people is None else people
    columns = {
        "labels": labels,
        "subjects": subjects,
        "datasets": datasets,
        "clips": names,
        "people": people,
    }
    for name, column in columns.items():
        if len(column) != n:
            raise ApexflowError(
                f"{name} must be {n}, one a clip, as values are. Got {len(column)}."
            )
    classed = [_class(label, classes) for label in np.asarray(labels).tolist()]
    if len({type(one) for one in classed}) > 1:
        raise ApexflowError("labels must be all whole numbers or all names")
    clips = tuple(
        Clip(
            dataset=str(dataset),
            subject=str(subject),
            name=str(name),
            person=str(who),
            label=label if isinstance(label, int) else None,
            emotion=label if isinstance(label, str) else "",
        )
        for dataset, subject, name, who, label in zip(
            datasets, subjects, names, people, classed, strict=True
        )
    )
    Catalog(clips)
    info = tuple(
        RowInfo(i, str(clip), (crc32c(one),))
        for i, (clip, one) in enumerate(zip(clips, array, strict=True))
    )
    return GivenArrays(
        clips=clips,
        values=Packed(torch.from_numpy(array)),
        info=info,
        frames=tuple(_content(one) for one in array),
        class_map=class_map(clips, _in_order(classes)),
    )


def _values(values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim not in (2, 4, 5) or not len(array):
        raise ApexflowError(
            f"values must be (N, H, W, C), (N, T, H, W, C) or (N, D). Got shape {array.shape}."
        )
    if array.dtype == np.uint8:
        pass
    elif array.dtype.kind in "fiub":
        array = array.astype(np.float32)
    else:
        raise ApexflowError(f"values must be bytes or floats. Got {array.dtype}.")
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(1)
    if bad.any():
        raise ApexflowError(
            f"values of {int(bad.sum())} clips are not finite, the first is number "
            f"{int(bad.argmax())}"
        )
    channels_first = array if array.ndim == 2 else np.moveaxis(array, -1, -3)
    # A copy: what the caller does to the arrays afterwards is not what is trained on.
    return np.array(channels_first, order="C")


def _class(label: Any, classes: Sequence[str] | None) -> int | str:
    if isinstance(label, str):
        if not label or (classes is not None and label not in classes):
            raise ApexflowError(f"labels must be names of classes. Got {label!r}.")
        return label
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise ApexflowError(f"labels must be whole numbers from 0, or names. Got {label!r}.")
    if classes is None:
        return label
    if label >= len(classes):
        raise ApexflowError(f"labels must be below {len(classes)}, as classes are. Got {label}.")
    return classes[label]


def _in_order(classes: Sequence[str] | None) -> Protocol | None:
    """Return the protocol that keeps the order of named classes."""
    if classes is None:
        return None
    return Protocol(
        name="given", classes=tuple(classes), emotions={"": {name: name for name in classes}}
    )


def _content(values: NDArray[Any]) -> str:
    if (values == values.flat[0]).all():
        return ""
    return hashlib.sha256(values.tobytes()).hexdigest()
