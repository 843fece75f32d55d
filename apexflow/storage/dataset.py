"""One or several stores as a PyTorch data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

import torch
from numpy.typing import ArrayLike
from torch.utils.data import Dataset
from zarr.abc.store import Store as ZarrStore

from apexflow.errors import ApexflowError
from apexflow.marks import Exclusions
from apexflow.storage.collate import (
    Batch,
    Sample,
    SampleBatch,
    as_tensor,
    collate,
    given_label,
)
from apexflow.storage.labels import APEX, ClassMap, Kind, Labels, class_map, stored_clips
from apexflow.storage.packed import Packed
from apexflow.storage.samples import (
    Encode,
    check_apex_unseen,
    encoder,
)
from apexflow.storage.served import Flagged, SampleInfo, served_clips
from apexflow.storage.store import HeldStore
from apexflow.storage.stored_samples import (
    Place,
    StoredSample,
    StoredSamples,
    StoreParts,
    check_lengths,
    parts_of,
)
from apexflow.storage.target import Target, target_name

if TYPE_CHECKING:
    from apexflow.storage.streaming import ClipStream

MEMORY = 1 << 30

__all__ = ["MEMORY", "ClipDataset", "SampleInfo"]


class ClipDataset(Dataset[Sample]):
    """The finished clips of one or several stores, as (tensor, label).

    Windows of several steps have their steps in the place of one window; those that have more
    steps the longer the clip is begin with an axis of time that differs from clip to clip, as
    whole sequences of frames do.

    Say what a sample holds by one or more of ``maps``, ``flow``, ``roi``, ``frames`` and
    ``features``; one of them makes the sample a tensor, several a dict of tensors by these
    names. Without any, it is ``maps="hsv"``.

    Parameters
    ----------
    stores : path, URL or Zarr store, or a sequence of them
        Their clips follow one another; the same clip in two stores is an error.
    maps : str, optional
        Name of stored maps: (3, height, width) in 0..1; of regions (roi, 3, height, width).
    flow : str or sequence of str, optional
        Window of stored flow, (2, height, width) in pixels of the crop, not scaled; of several
        windows in a row (window, 2, height, width).
    roi : str or sequence of str, optional
        Window or windows of the flow of regions: (window, roi, 2, height, width).
    frames : "all", "interval", "interpolated" or key frames, optional
        Aligned crops: all that are stored, those from onset to offset, or these as the recipe's
        ``frames.interpolated`` others, (time, channel, height, width) in 0..1; or the named key
        frames, as ("onset", "apex"): (key frame, channel, height, width).
    features : str, optional
        Name of stored features, "lbp-top": (feature,) as `apexflow features` made them.
    encode : str or callable, optional
        Make maps from ``flow`` and ``roi`` when they are read: the name of an encoding, or a
        function of flow (..., 2, H, W) to maps (..., h, w, channel), uint8 or float32. The
        channels take the place of the 2 above; bytes become 0..1.
    size : (height, width), default (28, 28)
        Of the maps that a named encoding makes.
    encode_options : dict
        Further options of the named encoding.
    max_frames : int, optional
        Longest sequence of frames; what is beyond is cut off.
    n_frames : int, optional
        Of each sequence exactly so many frames, evenly from its first to its last; shorter
        ones repeat some. Batches then need no padding.
    labels : protocol, its name or TOML file, optional
        The classes; or "emotion", the emotions of the table, "objective", its objective classes
        I to VII, or "none", which gives every clip the label -1, to predict them. "au", the 12
        action units of CD6ME, or "au:1,2,12", make a label float32 (unit,) of 1, 0 and NaN, which
        is unknown; "apex" the part of the way from onset to offset where the annotated apex
        lies, 0 to 1, of what was made without knowing it. Clips without one are left out. By
        default the labels that the store holds, or, where it holds none, the emotions.
    flagged : "keep", "drop" or "error", default "keep"
        What becomes of clips that bear flags (`apexflow.quality`): they are served like any
        other, left out, or an error. How many there are is logged as a warning.
    exclude : path or iterable of (data set, subject, name), optional
        Clips to leave out: a file of marks, of which those marked bad, or their keys.
    transform : callable, optional
        Applied to what a sample holds, sample by sample.
    memory : int, default 1 GiB
        Bytes. What fits is read once; what does not is read sample by sample from the store,
        and is best taken through `stream`, in shuffled blocks.

    Attributes
    ----------
    samples : tuple of SampleInfo
        One a sample.
    flagged : tuple of SampleInfo
        The clips with a class that bear flags, whether they are served or left out.
    class_map : ClassMap
        The classes with what was left out of them, and why.
    kind : "class", "units" or "apex"
        What a label is.
    classes : tuple of str
        The name of each class or unit; of the apex, "position".
    labels : tensor (n,) or (n, unit)
        As samples have them.
    names : tuple of str
        What messages call the stores.
    options : dict
        Of the arguments above those that say what a sample holds.
    protocol : str or None
        The name of the labels.
    collate : callable
        The ``collate_fn`` for a DataLoader: stacks, or pads with a mask where the length
        differs. It passes on what was read as a batch, which the default would take apart.

    Raises
    ------
    ApexflowError
        There is no such store or array, no finished clip, a clip without label, a flagged clip
        where that is an error; stores differ in shape; something is damaged; labels "apex" for
        what was made with the apex known. A store that is
        still being written gives a `UserWarning` and the clips finished so far.
    """

    def __init__(
        self,
        stores: Target | Sequence[Target],
        *,
        maps: str | None = None,
        flow: str | Sequence[str] | None = None,
        roi: str | Sequence[str] | None = None,
        frames: str | Sequence[str] | None = None,
        features: str | None = None,
        encode: str | Encode | None = None,
        size: tuple[int, int] = (28, 28),
        encode_options: Mapping[str, Any] = MappingProxyType({}),
        max_frames: int | None = None,
        n_frames: int | None = None,
        labels: Labels = None,
        flagged: Flagged = "keep",
        exclude: Exclusions = None,
        transform: Callable[[Any], Any] | None = None,
        memory: int = MEMORY,
    ) -> None:
        if flagged not in get_args(Flagged):
            raise ApexflowError(f"flagged must be keep, drop or error. Got {flagged!r}.")
        if all(one is None for one in (maps, flow, roi, frames, features)):
            maps = "hsv"
        check_lengths(frames, max_frames, n_frames)
        targets = _targets(stores)
        self.options = _given(
            maps=maps,
            flow=flow,
            roi=roi,
            frames=frames,
            features=features,
            encode=encode,
            size=size if encode is not None else None,
            encode_options=dict(encode_options),
            max_frames=max_frames,
            n_frames=n_frames,
        )
        self.protocol = _called(labels)
        self.transform = transform
        self.memory = memory
        self.names = tuple(target_name(target) for target in targets)
        function = encoder(encode, size, encode_options)
        wanted = maps, flow, roi, frames, features, function, (max_frames, n_frames)
        readers = map(HeldStore, targets)
        opened = tuple(StoreParts(one, parts_of(one.store, *wanted)) for one in readers)
        if labels == APEX:
            check_apex_unseen([one.store for one in opened], self.options)
        served = served_clips(opened, self.names, labels, flagged, exclude)
        self.samples, self.flagged = served.samples, served.flagged
        self.class_map = served.class_map
        self.labels = as_tensor([sample.label for sample in self.samples])
        self._stored = StoredSamples(opened, served.places)
        self._memory: dict[str, Packed] | None = None
        self.nbytes = self._stored.measure()
        ragged = tuple(name for name, part in self._stored.parts.items() if part.ragged)
        self.collate = partial(collate, padded=ragged)
        if self.nbytes <= memory:
            self._memory = self._stored.read(range(len(self)))
            self.close()

    @classmethod
    def from_arrays(
        cls,
        values: ArrayLike,
        labels: Sequence[int] | Sequence[str],
        *,
        subjects: Sequence[str],
        datasets: Sequence[str] | str = "arrays",
        clips: Sequence[str] | None = None,
        people: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> ClipDataset:
        """Return a data set of maps, flow or features that somebody else has made.

        Parameters
        ----------
        values : (N, H, W, C), (N, T, H, W, C) or (N, D), bytes or floats
            One entry a clip. Channels become the axis before the height; bytes are served as
            0..1, floats as they are, in float32.
        labels : N whole numbers from 0, or N names
            The class of each clip.
        subjects : N texts
            Whom each clip shows: folds are over them.
        datasets : N texts or one, default "arrays"
            Subject 1 of one data set is nobody of another one's, unless `person_of` or
            ``people`` says so.
        clips : N texts, optional
            By default "clip-1" and so on.
        people : N texts, optional
            Who it is, where several data sets show the same people.
        classes : sequence of str, optional
            The names of the classes that ``labels`` count.
        transform : callable, optional
            Applied to what a sample holds, sample by sample.

        Raises
        ------
        ApexflowError
            Lengths differ, a value is not finite, a label is none, two clips have one name.
        """
        from apexflow.storage.arrays_given import given_arrays

        given = given_arrays(values, labels, subjects, datasets, clips, people, classes)
        dataset = cls.__new__(cls)
        dataset.options, dataset.protocol, dataset.names = {}, None, ("arrays",)
        dataset.transform, dataset.flagged = transform, ()
        dataset._stored = StoredSamples(
            (), tuple(Place(0, {"values": info}) for info in given.info)
        )
        dataset.class_map = given.class_map
        dataset.samples = tuple(
            SampleInfo(*clip.key, given.class_map.label_of[clip.key], clip.person, frames)
            for clip, frames in zip(given.clips, given.frames, strict=True)
        )
        dataset.labels = as_tensor([sample.label for sample in dataset.samples])
        dataset._memory = {"values": given.values}
        dataset.nbytes = dataset.memory = given.values.nbytes
        dataset.collate = partial(collate, padded=())
        return dataset

    def __repr__(self) -> str:
        people = len({sample.person for sample in self.samples})
        return (
            f"ClipDataset of {', '.join(self.names)}: {len(self)} clips of {people} people\n"
            f"  {self._described_labels()}\n"
            f"  samples  {', '.join(self._stored.parts) or 'arrays'}, "
            f"{self.nbytes / (1 << 20):.1f} MiB "
            f"{'in memory' if self._memory is not None else 'read when asked for'}"
        )

    def _described_labels(self) -> str:
        if self.kind == "apex":
            return (
                f"apex     at {self.labels.mean():.2f} of the way from onset to offset, on average"
            )
        if self.kind == "units":
            counts = (self.labels == 1).sum(0).tolist()
        else:
            counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        named = ", ".join(f"{n} {count}" for n, count in zip(self.classes, counts, strict=True))
        return f"{'units  ' if self.kind == 'units' else 'classes'}  {named}"

    @property
    def kind(self) -> Kind:
        return self.class_map.kind

    @property
    def classes(self) -> tuple[str, ...]:
        return self.class_map.classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}. Got {index}.")
        index = int(index) % len(self)
        packed, position = (
            (self.read([index]), 0) if self._memory is None else (self._memory, index)
        )
        value = _one({name: one.sample(position) for name, one in packed.items()})
        if self.transform is not None:
            value = self.transform(value)
        return value, given_label(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Sample]:
        """Return samples that were read together: what a DataLoader asks for a batch."""
        if self.transform is not None:
            return [self[index] for index in indices]
        return SampleBatch(*self.batch(indices))

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return (values, labels) of these samples, in this order, padded where need be."""
        return self.finish(self.read(indices), indices)

    def read(self, indices: Sequence[int]) -> dict[str, Packed]:
        """Return these samples, in this order, as they are kept in memory."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        if self._memory is not None:
            return {name: one.select(chosen) for name, one in self._memory.items()}
        ascending, order = torch.sort(chosen, stable=True)
        packed = self._stored.read(ascending.tolist())
        if (ascending == chosen).all():
            return packed
        # Read in the order of the store, given in the order asked for.
        back = torch.argsort(order)
        return {name: one.select(back) for name, one in packed.items()}

    def finish(self, packed: Mapping[str, Packed], indices: Sequence[int]) -> Batch:
        """Return what was read, which is the samples ``indices`` in this order, as a batch."""
        labels = self.labels.index_select(0, torch.as_tensor(indices, dtype=torch.long))
        transform = self.transform
        if transform is None:
            return _one({name: one.batch() for name, one in packed.items()}), labels
        values = (
            _one({name: one.sample(i) for name, one in packed.items()}) for i in range(len(labels))
        )
        return self.collate(
            [
                (transform(value), given_label(label))
                for value, label in zip(values, labels, strict=True)
            ]
        )

    def stream(self, indices: Sequence[int] | None = None, **options: Any) -> ClipStream:
        """Return an IterableDataset over these samples: shuffled blocks, bounded memory.

        Options are those of `apexflow.storage.streaming.ClipStream`.
        """
        from apexflow.storage.streaming import ClipStream

        return ClipStream(self, indices, **options)

    @property
    def recipes(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The hash and the recipe of each store."""
        return tuple(
            (one.store.recipe_hash, dict(one.store.attributes.get("recipe", {})))
            for one in self._stored.stores
        )

    def labelled(self, labels: Labels = None) -> ClassMap:
        """Return what ``labels`` would have of the clips of the stores.

        Whatever labels the data set itself was opened with. Raises `ApexflowError` as they do.
        """
        stores = (one.store for one in self._stored.stores)
        return class_map(chain.from_iterable(map(stored_clips, stores)), labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the clips, their labels and what was stored of them."""
        digest = hashlib.sha256()
        for sample, place in zip(self.samples, self._stored.places, strict=True):
            stored = {name: info.digests for name, info in place.info.items()}
            text = f"({sample.described()}, {sorted(stored.items())!r})"
            digest.update(text.encode())
        return digest.hexdigest()

    @property
    def in_memory(self) -> bool:
        """Whether everything was read into memory."""
        return self._memory is not None

    @property
    def holds_bytes(self) -> bool:
        """Whether what a sample holds is stored as bytes, which are given as 0..1."""
        return all(one.values.dtype == torch.uint8 for one in self.read([0]).values())

    def stored(self, index: int) -> StoredSample | None:
        """Return where a sample comes from; None where no store holds it."""
        return self._stored.at(index)

    def with_values(
        self, values: Mapping[str, Packed], indices: Sequence[int] | None = None
    ) -> ClipDataset:
        """Return these samples, or all, with other values of the same shapes, in memory."""
        made = ClipDataset.__new__(ClipDataset)
        made.__dict__.update(self.__dict__)
        made._memory = dict(values)
        made.nbytes = sum(one.nbytes for one in values.values())
        if indices is not None:
            made.samples = tuple(self.samples[i] for i in indices)
            made._stored = self._stored.select(indices)
            made.labels = self.labels[list(indices)]
        return made

    def blocks(self, indices: Sequence[int]) -> list[list[int]]:
        """Group samples by the chunks, or shards, that hold them: what is read together."""
        return self._stored.blocks(indices)

    def close(self) -> None:
        """Let go of the stores; the next reading opens them again."""
        self._stored.close()


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that say something."""
    return {name: value for name, value in options.items() if value not in (None, {})}


def _called(labels: Labels) -> str | None:
    """Return what labels are called: a protocol's name, a file's path."""
    return getattr(labels, "name", None) or (None if labels is None else str(labels))


def _one(values: Mapping[str, Any]) -> Any:
    return values if len(values) > 1 else next(iter(values.values()))


def _targets(stores: Target | Sequence[Target]) -> list[Target]:
    one = isinstance(stores, str | Path | ZarrStore)
    targets = [stores] if one else list(stores)  # type: ignore[arg-type]
    if not targets:
        raise ApexflowError("stores must name one store at least")
    return targets  # type: ignore[return-value]
