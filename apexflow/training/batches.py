"""What a network is fed in training: batches, balanced, augmented and normalised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from apexflow.errors import ApexflowError
from apexflow.storage.collate import Batch, Padded
from apexflow.storage.dataset import ClipDataset
from apexflow.training.jitter import JitteredClips

Input = torch.Tensor | Padded


class Feeder:
    """Gives training batches of some clips of a data set, another order each epoch.

    What is in memory is drawn from at random; what is not comes in shuffled blocks, read by
    ``workers`` processes (`reading_order` says which). Without ``shuffle``, clips come as the
    data set has them. Oversampling draws anew each epoch which clips of rarer classes repeat.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        indices: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        oversample: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._indices, self._shuffle, self._oversample = list(indices), shuffle, oversample
        self._stream = None
        if reading_order(dataset, shuffle=shuffle, oversample=oversample, workers=workers):
            self._stream = dataset.stream(self._indices, batch_size=batch_size, seed=seed)
            self._loader: DataLoader[Batch] = DataLoader(
                self._stream,
                batch_size=None,
                num_workers=workers,
                pin_memory=pin_memory,
                persistent_workers=workers > 0,
            )

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch. A batch of one is left out: batch norm needs two."""
        for values, labels in self._all(number):
            if len(labels) > 1:
                yield values, labels

    def _all(self, number: int) -> Iterator[Batch]:
        if self._stream is not None:
            self._stream.set_epoch(number)
            yield from self._loader
            return
        rng = np.random.default_rng((self._seed, number))
        dataset = self._dataset
        if isinstance(dataset, JitteredClips):
            dataset = dataset.drawn(self._seed, number)
        order = _oversampled(dataset, self._indices, rng) if self._oversample else None
        order = self._indices if order is None else order
        if self._shuffle:
            order = rng.permutation(order).tolist()
        yield from in_order(dataset, order, self._batch_size)


def reading_order(
    dataset: ClipDataset, *, shuffle: bool, oversample: bool, workers: int
) -> dict[str, int]:
    """Return what the order of clips depends on beside the seed: nothing, but where blocks stream.

    What lies in memory, keeps its order or is drawn clip by clip is read in an order that the
    seed alone decides; blocks are joined as far as ``memory`` goes and dealt to ``workers``.
    """
    if dataset.in_memory or oversample or not shuffle:
        return {}
    return {"memory": dataset.memory, "workers": max(1, workers)}


def in_order(dataset: ClipDataset, indices: Sequence[int], batch_size: int) -> Iterator[Batch]:
    """Yield the batches of some clips, in this order."""
    for start in range(0, len(indices), batch_size):
        yield dataset.batch(indices[start : start + batch_size])


def one_input(values: Any) -> Input:
    """Return what one network takes; refuse samples that hold several things."""
    if isinstance(values, Padded | torch.Tensor):
        return values
    raise ApexflowError(f"a model takes one thing a sample, not {', '.join(values)} together")


def to_device(values: Input, device: torch.device) -> Input:
    """Return the values on a device, copied while the CPU goes on where memory is pinned."""
    if isinstance(values, Padded):
        return Padded(*(one.to(device, non_blocking=True) for one in values))
    return values.to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Normalization:
    """What is done to the values before a network sees them.

    Attributes
    ----------
    kind : "none", "half", "bytes", "channel", "feature" or "sample"
    mean, deviation : tuple of float
        Of each channel, or of each number of a sample, over the clips learned from; empty for
        other kinds.
    scale : float
        255 for "bytes" where the clips are stored as bytes, which are given as 0..1.
    """

    kind: str
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    scale: float = 1.0

    @classmethod
    def fit(
        cls, kind: str, dataset: ClipDataset, indices: Sequence[int], batch_size: int = 64
    ) -> Normalization:
        """Measure what ``kind`` needs over these clips, and no others."""
        if kind == "bytes":
            return cls(kind, scale=255.0 if dataset.holds_bytes else 1.0)
        if kind not in ("channel", "feature"):
            return cls(kind)
        total, square = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        count = 0
        for values, _ in in_order(dataset, indices, batch_size):
            by_channel = _OVER[kind](one_input(values))
            total = total + by_channel.sum(1)
            square = square + by_channel.square().sum(1)
            count += by_channel.shape[1]
        mean = total / count
        deviation = (square / count - mean.square()).clamp(min=0).sqrt()
        if kind == "feature":
            # What is the same in all clips says nothing, and is not blown up in others: in a
            # sum of squares it is 0 to half of the digits.
            deviation = torch.where(deviation > _CONSTANT * mean.abs(), deviation, 1.0)
        return cls(kind, tuple(mean.tolist()), tuple(deviation.tolist()))

    def __call__(self, values: Input) -> Input:
        if self.kind == "none":
            return values
        if isinstance(values, Padded):
            normal = self._tensor(values.values)
            # Padding stays zero.
            keep = values.mask.reshape(*values.mask.shape, *[1] * (normal.ndim - 2))
            return Padded(normal * keep, values.mask)
        return self._tensor(values)

    def _tensor(self, values: torch.Tensor) -> torch.Tensor:
        if self.kind == "bytes":
            return values if self.scale == 1 else values * self.scale
        if self.kind == "half":
            return (values - 0.5) / 0.5
        if self.kind == "feature":
            mean, deviation = (
                torch.tensor(v, dtype=torch.float64, device=values.device)
                for v in (self.mean, self.deviation)
            )
            normal = (values.flatten(1).double() - mean) / deviation
            return normal.reshape(values.shape).float()
        if self.kind == "channel":
            mean, deviation = (
                torch.tensor(v, device=values.device)[:, None, None]
                for v in (self.mean, self.deviation)
            )
            return (values - mean) / (deviation + 1e-6)
        flat = values.flatten(1)
        shape = (-1, *[1] * (values.ndim - 1))
        mean, deviation = flat.mean(1).reshape(shape), flat.std(1).reshape(shape)
        return (values - mean) / (deviation + 1e-6)


def _by_channel(values: Input) -> torch.Tensor:
    """Return the values of each channel in a row: (channel, n), padding left out."""
    tensor = values.values[values.mask] if isinstance(values, Padded) else values
    return tensor.movedim(-3, 0).flatten(1).to(torch.float64)


def _by_feature(values: Input) -> torch.Tensor:
    """Return the values of each number of a sample in a row: (feature, n)."""
    if isinstance(values, Padded):
        raise ApexflowError(
            "normalize 'feature' is for samples of one shape, not for sequences of any length"
        )
    return values.flatten(1).T.to(torch.float64)


_OVER = {"channel": _by_channel, "feature": _by_feature}
_CONSTANT = 1e-7


def _oversampled(
    dataset: ClipDataset, indices: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """Repeat clips of rarer classes, drawn at random, until all classes are equally frequent.

    No clip repeats once more often than another of its class.
    """
    by_class: dict[int, list[int]] = {}
    for i in indices:
        by_class.setdefault(int(dataset.labels[i]), []).append(i)
    most = max(len(mine) for mine in by_class.values())
    drawn = []
    for mine in by_class.values():
        times, more = divmod(most, len(mine))
        drawn += mine * times + rng.permutation(mine)[:more].tolist()
    return drawn
