"""From samples to batches: stacking, and padding of clips of different length."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from apexflow.action_units import UNKNOWN
from apexflow.storage.labels import ApexPosition, Label


class Padded(NamedTuple):
    """Sequences of different length in one tensor.

    Attributes
    ----------
    values : tensor (batch, time, ...)
        Zero behind the end of each sequence.
    mask : bool tensor (batch, time)
        True where there is a frame.
    """

    values: torch.Tensor
    mask: torch.Tensor


# One thing of a sample, or several by name.
Value = torch.Tensor | Mapping[str, torch.Tensor]
# A class, the position of an apex, or a row of action units.
SampleLabel = int | float | torch.Tensor
Sample = tuple[Value, SampleLabel]
Values = torch.Tensor | Padded | Mapping[str, torch.Tensor | Padded]
Batch = tuple[Values, torch.Tensor]


class SampleBatch(Sequence[Sample]):
    """Samples that were read together: a list of samples that `collate` need not stack again.

    PyTorch's default collate sees an ordinary list and gets the same batch, slower.
    """

    def __init__(self, values: Values, labels: torch.Tensor) -> None:
        self.values = values
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        return _item(self.values, index), given_label(self.labels[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


def collate(samples: Sequence[Sample], *, padded: Collection[str] = ()) -> Batch:
    """Make one batch of samples; ``collate_fn`` of a DataLoader.

    What ``padded`` names, or a sample's only value if it names any, is (time, ...) of different
    length: it becomes `Padded`. Everything else is stacked.
    """
    if isinstance(samples, SampleBatch):
        return samples.values, samples.labels
    labels = torch.stack([torch.as_tensor(label) for _, label in samples])
    values: list[Any] = [value for value, _ in samples]
    if not isinstance(values[0], Mapping):
        return pad(values) if padded else torch.stack(values), labels
    joined: dict[str, torch.Tensor | Padded] = {}
    for name in values[0]:
        column = [value[name] for value in values]
        joined[name] = pad(column) if name in padded else torch.stack(column)
    return joined, labels


def as_tensor(labels: Sequence[Label]) -> torch.Tensor:
    """Return labels as training has them: classes as integers, all else in float32.

    Of action units (n, unit), NaN where it is unknown whether one is shown, so that a loss that
    forgets to leave it out is NaN; of positions (n,).
    """
    first = labels[0] if labels else 0
    if isinstance(first, ApexPosition):
        return torch.tensor([one.value for one in labels if isinstance(one, ApexPosition)])
    if isinstance(first, tuple):
        units = torch.tensor(labels, dtype=torch.float32)
        return torch.where(units == UNKNOWN, torch.nan, units)
    return torch.tensor(labels)


def given_label(label: torch.Tensor) -> SampleLabel:
    """Return one label as a sample has it: a number, or a row of units."""
    if label.ndim:
        return label
    number: int | float = label.item()
    return number


def pad(sequences: Sequence[torch.Tensor]) -> Padded:
    """Put sequences (time, ...) of different length into one tensor."""
    longest = max(len(one) for one in sequences)
    values = sequences[0].new_zeros((len(sequences), longest, *sequences[0].shape[1:]))
    mask = torch.zeros((len(sequences), longest), dtype=torch.bool)
    for i, one in enumerate(sequences):
        values[i, : len(one)] = one
        mask[i, : len(one)] = True
    return Padded(values, mask)


def _item(values: Values, index: int) -> Value:
    if isinstance(values, Padded):
        return values.values[index][values.mask[index]]
    if isinstance(values, torch.Tensor):
        return values[index]
    return {name: _tensor(_item(value, index)) for name, value in values.items()}


def _tensor(value: Value) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value
