"""One or several stores as a PyTorch data set."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from numpy.typing import ArrayLike
from torch.utils.data import Dataset
from zarr.abc.store import Store as ZarrStore

from apexflow.catalog import Clip, person_of
from apexflow.errors import ApexflowError
from apexflow.marks import Exclusions, excluded
from apexflow.quality import say_flagged
from apexflow.storage.collate import (
    Batch,
    Sample,
    SampleBatch,
    as_tensor,
    collate,
    given_label,
)
from apexflow.storage.labels import APEX, ClassMap, Kind, Label, Labels, class_map, stored_clips
from apexflow.storage.packed import Packed, join
from apexflow.storage.samples import (
    Encode,
    PerFramePart,
    RowInfo,
    SamplePart,
    check_apex_unseen,
    encoder,
    features_part,
    finished_rows,
    frames_part,
    maps_part,
    windows_part,
)
from apexflow.storage.store import HeldStore, Store
from apexflow.storage.target import Target, target_name

if TYPE_CHECKING:
    from apexflow.storage.streaming import ClipStream

MEMORY = 1 << 30

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
class _Place:
    """Where a sample lies: the store, and what each part needs to be read."""

    reader: int
    info: Mapping[str, RowInfo]


@dataclass(frozen=True, slots=True)
class StoredSample:
    """Where a sample comes from: the store, the clip's row there, and how each part is read."""

    store: Store
    row: int
    parts: Mapping[str, SamplePart]


@dataclass(frozen=True, slots=True, kw_only=True)
class _FinishedClip:
    """A finished clip of a store, before it is known whether it is served."""

    place: _Place
    clip: Clip
    person: str
    frames: str
    shared: str
    flags: str


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
        _check_lengths(frames, max_frames, n_frames)
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
        self._readers = [HeldStore(target) for target in targets]
        function = encoder(encode, size, encode_options)
        self._parts = [
            _parts(
                reader.store, maps, flow, roi, frames, features, function, (max_frames, n_frames)
            )
            for reader in self._readers
        ]
        if labels == APEX:
            check_apex_unseen([reader.store for reader in self._readers], self.options)
        self._places, self.samples = self._table(labels, flagged, exclude)
        self.labels = as_tensor([sample.label for sample in self.samples])
        self._memory: dict[str, Packed] | None = None
        self.nbytes = self._measure()
        ragged = tuple(name for name, part in self._parts[0].items() if part.ragged)
        self.collate = partial(collate, padded=ragged)
        if self.nbytes <= memory:
            self._memory = self._read_stores(range(len(self)))
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
        dataset._readers, dataset._parts = [], []
        dataset._places = [_Place(0, {"values": info}) for info in given.info]
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
            f"  samples  {', '.join(next(iter(self._parts), {})) or 'arrays'}, "
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
        packed = self._read_stores(ascending.tolist())
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
            (reader.store.recipe_hash, dict(reader.store.attributes.get("recipe", {})))
            for reader in self._readers
        )

    def labelled(self, labels: Labels = None) -> ClassMap:
        """Return what ``labels`` would have of the clips of the stores.

        Whatever labels the data set itself was opened with. Raises `ApexflowError` as they do.
        """
        return class_map((clip for r in self._readers for clip in stored_clips(r.store)), labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the clips, their labels and what was stored of them."""
        digest = hashlib.sha256()
        for sample, place in zip(self.samples, self._places, strict=True):
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
        if not self._readers:
            return None
        place = self._places[index]
        row = next(iter(place.info.values())).row
        return StoredSample(self._readers[place.reader].store, row, self._parts[place.reader])

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
            made._places = [self._places[i] for i in indices]
            made.labels = self.labels[list(indices)]
        return made

    def blocks(self, indices: Sequence[int]) -> list[list[int]]:
        """Group samples by the chunks, or shards, that hold them: what is read together."""
        groups: dict[tuple[int, int], list[int]] = {}
        sizes = [
            max(part.block_rows(reader.store) for part in parts.values())
            for parts, reader in zip(self._parts, self._readers, strict=True)
        ]
        for i in sorted(indices):
            place = self._places[i]
            row = next(iter(place.info.values())).row
            groups.setdefault((place.reader, row // sizes[place.reader]), []).append(i)
        return list(groups.values())

    def close(self) -> None:
        """Let go of the stores; the next reading opens them again."""
        for reader in self._readers:
            reader.close()

    def _read_stores(self, indices: Sequence[int]) -> dict[str, Packed]:
        pieces: dict[str, list[Packed]] = {}
        for number, reader in enumerate(self._readers):
            places = [self._places[i] for i in indices if self._places[i].reader == number]
            if not places:
                continue
            for name, part in self._parts[number].items():
                clips = [place.info[name] for place in places]
                values = torch.from_numpy(part.read(reader.store, clips))
                lengths = [len(clip.frames) for clip in clips] if part.ragged else None
                if not part.ragged and isinstance(part, PerFramePart):
                    values = values.reshape(len(clips), -1, *values.shape[1:])
                pieces.setdefault(name, []).append(Packed(values, lengths))
        return {name: join(ones) for name, ones in pieces.items()}

    def _table(
        self, labels: Labels, flagged: Flagged, exclude: Exclusions
    ) -> tuple[list[_Place], tuple[SampleInfo, ...]]:
        found = self._finished()
        if exclude is not None:
            keys = (reader.store.keys() for reader in self._readers)
            left_out = excluded(exclude, chain.from_iterable(keys))
            found = [one for one in found if one.clip.key not in left_out]
        self.class_map = class_map((one.clip for one in found), labels)
        with_class = [one for one in found if one.clip.key in self.class_map.label_of]
        self.flagged = tuple(self._sample(one) for one in with_class if one.flags)
        if self.flagged:
            self._tell_flagged([one.flags for one in with_class], flagged)
        if self.flagged and flagged == "drop":
            found = [one for one in found if not one.flags]
            self.class_map = class_map((one.clip for one in found), labels)
        kept = [one for one in found if one.clip.key in self.class_map.label_of]
        return [one.place for one in kept], tuple(self._sample(one) for one in kept)

    def _finished(self) -> list[_FinishedClip]:
        """Return the finished clips of all stores, whatever their class and flags."""
        everything: list[_FinishedClip] = []
        for number, (reader, parts) in enumerate(zip(self._readers, self._parts, strict=True)):
            store = reader.store
            rows, people, shared = stored_clips(store), store.people(), store.shared()
            found = list(finished_rows(store, parts))
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
                        place=_Place(number, info),
                        clip=replace(rows[row], apex_source=record.apex_source),
                        person=people[row],
                        frames=record.identity,
                        shared=str(rows[shared[row]]) if row in shared else "",
                        flags=record.flags,
                    )
                )
        return everything

    def _sample(self, found: _FinishedClip) -> SampleInfo:
        key = found.clip.key
        label = self.class_map.label_of[key]
        return SampleInfo(*key, label, found.person, found.frames, found.shared, found.flags)

    def _tell_flagged(self, flags: Sequence[str], flagged: Flagged) -> None:
        """Say how many of the clips are flagged; refuse them where they are an error."""
        found = f"{', '.join(self.names)}: {say_flagged(flags)}"
        first = self.flagged[0]
        if flagged == "error":
            raise ApexflowError(
                f"{found}, the first {first.dataset}/{first.subject}/{first.clip}: {first.flags}; "
                f"look at them (`apexflow info`), then take flagged='drop' or 'keep'"
            )
        if flagged == "drop" and all(flags):
            raise ApexflowError(f"{found}, so that none is left; take flagged='keep'")
        logger.warning("%s, and %s", found, "served" if flagged == "keep" else "left out")

    def _measure(self) -> int:
        """Return the bytes of all samples; stores must agree in shape."""
        total = 0
        first: dict[str, torch.Size] = {}
        for number, reader in enumerate(self._readers):
            mine = [i for i, place in enumerate(self._places) if place.reader == number]
            if not mine:
                continue
            for name, packed in self._read_stores(mine[:1]).items():
                part, value = self._parts[number][name], packed.sample(0)
                shape = value.shape[1:] if part.ragged else value.shape
                if first.setdefault(name, shape) != shape:
                    raise ApexflowError(
                        f"{reader.store.name}: {name} has shape {tuple(shape)}, in the stores "
                        f"before it {tuple(first[name])}; stores served together must agree"
                    )
                each = packed.values[0].nbytes
                frames = (len(self._places[i].info[name].frames) for i in mine)
                total += each * (sum(frames) if part.ragged else len(mine))
        return total


def _check_lengths(frames: Any, max_frames: int | None, n_frames: int | None) -> None:
    for name, value in (("max_frames", max_frames), ("n_frames", n_frames)):
        if value is not None and value < 1:
            raise ApexflowError(f"{name} must be 1 or more. Got {value}.")
    if n_frames is not None and (max_frames is not None or frames not in ("all", "interval")):
        raise ApexflowError(
            "n_frames takes so many of frames 'all' or 'interval', and no max_frames beside it"
        )
    if max_frames is not None and frames == "interpolated":
        raise ApexflowError("interpolated frames are as many of each clip; leave out max_frames")


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


def _parts(
    store: Store,
    maps: str | None,
    flow: str | Sequence[str] | None,
    roi: str | Sequence[str] | None,
    frames: str | Sequence[str] | None,
    features: str | None,
    encode: Encode | None,
    lengths: tuple[int | None, int | None],
) -> dict[str, SamplePart]:
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
