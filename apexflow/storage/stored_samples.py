"""The samples of one or several stores: what is read of each clip, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apexflow.errors import ApexflowError
from apexflow.storage.packed import Packed, join
from apexflow.storage.samples import (
    Encode,
    PerFramePart,
    RowInfo,
    SamplePart,
    features_part,
    frames_part,
    maps_part,
    windows_part,
)
from apexflow.storage.store import HeldStore, Store


@dataclass(frozen=True, slots=True)
class StoreParts:
    """A store, and what is read of each of its clips.

    Attributes
    ----------
    reader : HeldStore
    parts : dict of str to SamplePart
        By the name that a sample has them under.
    """

    reader: HeldStore
    parts: Mapping[str, SamplePart]

    @property
    def store(self) -> Store:
        """The opened store."""
        return self.reader.store


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies: the number of its store, and what each part needs to be read."""

    reader: int
    info: Mapping[str, RowInfo]

    @property
    def row(self) -> int:
        """The row of the clip in its store."""
        return next(iter(self.info.values())).row


@dataclass(frozen=True, slots=True)
class StoredSample:
    """Where a sample comes from: the store, the clip's row there, and how each part is read."""

    store: Store
    row: int
    parts: Mapping[str, SamplePart]


@dataclass(frozen=True, slots=True)
class StoredSamples:
    """Samples of stores; without any store, those of arrays that somebody else has made.

    Attributes
    ----------
    stores : tuple of StoreParts
    places : tuple of Place
        One a sample.
    """

    stores: tuple[StoreParts, ...]
    places: tuple[Place, ...]

    @property
    def parts(self) -> Mapping[str, SamplePart]:
        """What a sample holds, as the first store has it; empty without stores."""
        return self.stores[0].parts if self.stores else {}

    def select(self, indices: Sequence[int]) -> StoredSamples:
        """Return these samples, in this order."""
        return StoredSamples(self.stores, tuple(self.places[i] for i in indices))

    def at(self, index: int) -> StoredSample | None:
        """Return where a sample comes from; None where no store holds it."""
        if not self.stores:
            return None
        place = self.places[index]
        one = self.stores[place.reader]
        return StoredSample(one.store, place.row, one.parts)

    def read(self, indices: Sequence[int]) -> dict[str, Packed]:
        """Return samples as they are kept in memory, those of one store after another's."""
        pieces: dict[str, list[Packed]] = {}
        for number, one in enumerate(self.stores):
            places = [self.places[i] for i in indices if self.places[i].reader == number]
            if not places:
                continue
            for name, part in one.parts.items():
                clips = [place.info[name] for place in places]
                values = torch.from_numpy(part.read(one.store, clips))
                lengths = [len(clip.frames) for clip in clips] if part.ragged else None
                if not part.ragged and isinstance(part, PerFramePart):
                    values = values.reshape(len(clips), -1, *values.shape[1:])
                pieces.setdefault(name, []).append(Packed(values, lengths))
        return {name: join(ones) for name, ones in pieces.items()}

    def measure(self) -> int:
        """Return the bytes of all samples; `ApexflowError` where stores differ in shape."""
        total = 0
        first: dict[str, torch.Size] = {}
        for number, one in enumerate(self.stores):
            mine = [i for i, place in enumerate(self.places) if place.reader == number]
            if not mine:
                continue
            for name, packed in self.read(mine[:1]).items():
                part, value = one.parts[name], packed.sample(0)
                shape = value.shape[1:] if part.ragged else value.shape
                if first.setdefault(name, shape) != shape:
                    raise ApexflowError(
                        f"{one.store.name}: {name} has shape {tuple(shape)}, in the stores "
                        f"before it {tuple(first[name])}; stores served together must agree"
                    )
                each = packed.values[0].nbytes
                frames = (len(self.places[i].info[name].frames) for i in mine)
                total += each * (sum(frames) if part.ragged else len(mine))
        return total

    def blocks(self, indices: Sequence[int]) -> list[list[int]]:
        """Group samples by the chunks, or shards, that hold them: what is read together."""
        groups: dict[tuple[int, int], list[int]] = {}
        sizes = [
            max(part.block_rows(one.store) for part in one.parts.values()) for one in self.stores
        ]
        for i in sorted(indices):
            place = self.places[i]
            groups.setdefault((place.reader, place.row // sizes[place.reader]), []).append(i)
        return list(groups.values())

    def close(self) -> None:
        """Let go of the stores; the next reading opens them again."""
        for one in self.stores:
            one.reader.close()


def check_lengths(frames: Any, max_frames: int | None, n_frames: int | None) -> None:
    """Refuse lengths of sequences that nothing has, or that exclude each other."""
    for name, value in (("max_frames", max_frames), ("n_frames", n_frames)):
        if value is not None and value < 1:
            raise ApexflowError(f"{name} must be 1 or more. Got {value}.")
    if n_frames is not None and (max_frames is not None or frames not in ("all", "interval")):
        raise ApexflowError(
            "n_frames takes so many of frames 'all' or 'interval', and no max_frames beside it"
        )
    if max_frames is not None and frames == "interpolated":
        raise ApexflowError("interpolated frames are as many of each clip; leave out max_frames")


def parts_of(
    store: Store,
    maps: str | None,
    flow: str | Sequence[str] | None,
    roi: str | Sequence[str] | None,
    frames: str | Sequence[str] | None,
    features: str | None,
    encode: Encode | None,
    lengths: tuple[int | None, int | None],
) -> dict[str, SamplePart]:
    """Return what a sample of a store holds, by the options of `ClipDataset` and its names."""
    parts: dict[str, SamplePart] = {}
    if maps is not None:
        parts["maps"] = maps_part(store, maps)
    if flow is not None:
        parts["flow"] = windows_part(store, "flow", flow, encode)
    if roi is not None:
        parts["roi"] = windows_part(store, "roi", roi, encode)
    if frames is not None:
        parts["frames"] = frames_part(store, frames, *lengths)
    if features is not None:
        parts["features"] = features_part(store, features)
    return parts
