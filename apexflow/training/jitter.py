"""Key-frame jitter: training clips drawn with onset and apex moved, other ones each epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.packed import Packed
from apexflow.training.shifts import Shift, shifts_within

logger = logging.getLogger(__name__)

# Beside a fold's seed and the epoch: other draws than those of the clips' order.
_DRAWS = 1


@dataclass(frozen=True, slots=True)
class ShiftedSamples:
    """Samples made again with their key frames moved.

    Attributes
    ----------
    values : dict of part to tensor (shift, clip, ...)
        As a data set keeps them in memory.
    clamped : tuple of int
        Of each shift the number of clips that it would have left, which went as far as they go.
    differs : float
        The most by which samples that are not moved come out otherwise than they are stored, in
        the store's units; 0 where each comes out byte for byte.
    """

    values: dict[str, torch.Tensor]
    clamped: tuple[int, ...]
    differs: float


class Shifter(Protocol):
    """Makes samples of a data set again: `apexflow.shifted_clips.ShiftedClips`."""

    def read(
        self,
        indices: Sequence[int],
        shifts: Sequence[Shift],
        *,
        threads: int = 1,
        on_clip: Callable[[], None] = ...,
    ) -> ShiftedSamples: ...


class JitteredClips(ClipDataset):
    """A data set whose training clips are drawn with their key frames moved.

    Wherever it is read it is the data set as it is; `drawn` gives what is learned from.
    """

    @classmethod
    def of(cls, dataset: ClipDataset, shifted: ShiftedSamples) -> JitteredClips:
        """Return the data set with all its samples at each shift."""
        made = cls.__new__(cls)
        made.__dict__.update(dataset.__dict__)
        made._forms = {name: Packed(one.flatten(0, 1)) for name, one in shifted.values.items()}
        made._count = len(shifted.clamped)
        return made

    _forms: dict[str, Packed]
    _count: int

    def drawn(self, seed: int, epoch: int) -> ClipDataset:
        """Return the data set of an epoch: each sample at a shift that the seed draws."""
        rng = np.random.default_rng((seed, epoch, _DRAWS))
        chosen = rng.integers(self._count, size=len(self)) * len(self) + np.arange(len(self))
        rows = torch.from_numpy(chosen)
        return self.with_values({name: one.select(rows) for name, one in self._forms.items()})


def jittered(
    dataset: ClipDataset,
    shifter: Shifter,
    jitter: int,
    *,
    threads: int = 1,
    on_clip: Callable[[], None] = lambda: None,
) -> JitteredClips:
    """Make all clips again at each shift of their key frames by up to ``jitter`` frames."""
    shifts, clips = shifts_within(jitter), range(len(dataset))
    made = shifter.read(clips, shifts, threads=threads, on_clip=on_clip)
    warn_differs(made.differs)
    if any(made.clamped):
        logger.warning(
            "jitter %d: %.0f%% of the shifts would leave their clip, and go as far as its frames; "
            "a recipe with frames.which = 'all' keeps those around a clip, too",
            *(jitter, 100 * sum(made.clamped) / (len(shifts) * len(clips))),
        )
    return JitteredClips.of(dataset, made)


def warn_differs(differs: float) -> None:
    """Say that clips come out otherwise than they are stored, if they do."""
    if differs:
        logger.warning(
            "clips that are not moved come out otherwise than they are stored, by up to %.3g: the "
            "store was made on another kind of machine, or by another version",
            differs,
        )


def check_memory(dataset: ClipDataset, frames: int) -> None:
    """Refuse more forms of each clip than the memory of a data set holds."""
    count = len(shifts_within(frames))
    needed = count * dataset.nbytes
    if needed > dataset.memory:
        raise ApexflowError(
            f"jitter {frames} keeps {count} forms of each clip, {needed / 1e6:,.0f} MB together, "
            f"and memory is {dataset.memory / 1e6:,.0f} MB: take a smaller jitter, smaller maps or "
            f"more --memory"
        )
