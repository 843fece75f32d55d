"""A store as a PyTorch data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from apexflow.errors import ApexflowError
from apexflow.storage.export import finished
from apexflow.storage.format import NO_NUMBER
from apexflow.storage.store import Store, Target, open_store


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """Which clip a sample is."""

    dataset: str
    subject: str
    clip: str
    label: int


class ClipDataset(Dataset[tuple[torch.Tensor, int]]):
    """The finished clips of a store, as (map, label).

    Parameters
    ----------
    store : path, URL or Zarr store
    maps : str
        Name of the maps to serve, as in the recipe.

    Attributes
    ----------
    samples : tuple of SampleInfo
        One a sample, in the order of the store.
    classes : tuple of str
        The emotion of each label, where labels were made from emotions; else the numbers.

    A sample is a float32 tensor (3, height, width) in 0..1 and an int. The label is the one
    annotated or given by a protocol; where no clip has one, the position of the clip's
    emotion among the sorted emotions. Maps are small: they are read once, into memory.
    """

    def __init__(self, store: Target, *, maps: str = "hsv") -> None:
        opened = open_store(store)
        if maps not in opened.layout.maps:
            raise ApexflowError(
                f"{opened.name} has no maps {maps!r}; it has {sorted(opened.layout.maps)}"
            )
        rows = [index for index, _ in finished(opened)]
        if not rows:
            raise ApexflowError(f"{opened.name} holds no finished clip")
        labels, self.classes = _labels(opened, rows)
        keys = opened.keys()
        self.samples = tuple(
            SampleInfo(*keys[row], label) for row, label in zip(rows, labels, strict=True)
        )
        self._maps = torch.from_numpy(_read_rows(opened, f"maps/{maps}", rows))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self._maps[index].permute(2, 0, 1).to(torch.float32) / 255
        return image, self.samples[index].label


def _read_rows(store: Store, path: str, rows: list[int]) -> np.ndarray:
    everything = np.asarray(store.array(path)[: store.clip_count])
    return everything[rows]


def _labels(store: Store, rows: list[int]) -> tuple[list[int], tuple[str, ...]]:
    labels = store.column("label")[rows]
    if (labels != NO_NUMBER).all():
        return labels.tolist(), tuple(str(label) for label in sorted(set(labels.tolist())))
    if (labels != NO_NUMBER).any():
        missing = "/".join(store.keys()[rows[int(np.argmin(labels != NO_NUMBER))]])
        raise ApexflowError(f"{store.name}: some clips have a label and {missing} has none")
    emotions = store.column("emotion")[rows].tolist()
    classes = tuple(sorted(set(emotions)))
    return [classes.index(emotion) for emotion in emotions], classes
