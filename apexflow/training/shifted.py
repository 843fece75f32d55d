"""What trained networks say of their test clips when the key frames of these are moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.storage.dataset import ClipDataset
from apexflow.storage.packed import Packed
from apexflow.training.checkpoint import vouched_checkpoint
from apexflow.training.fitting import predict_clips
from apexflow.training.jitter import Shifter, warn_differs
from apexflow.training.machine import Machine, deterministic
from apexflow.training.shifts import Shift
from apexflow.training.task import FoldTask

Rows = dict[int, NDArray[np.float32]]
"""What was said of each clip."""


@dataclass(frozen=True, slots=True)
class ShiftedRows:
    """What networks said of test clips whose key frames were moved.

    Attributes
    ----------
    rows : list of list of dict
        Of each seed and shift what was said of each clip.
    clamped : list of int
        Of each shift the clips that it would have left.
    """

    rows: list[list[Rows]]
    clamped: list[int]


def predict_shifted(
    seeds: Sequence[Sequence[FoldTask]],
    dataset: ClipDataset,
    shifter: Shifter,
    shifts: Sequence[Shift],
    machine: Machine,
    *,
    threads: int = 1,
    on_clip: Callable[[], None] = lambda: None,
) -> ShiftedRows:
    """Let the network of each fold and seed speak of its test clips at each shift.

    As many clips at a time as the data set's memory holds at all shifts.
    """
    rows: list[list[Rows]] = [[{} for _ in shifts] for _ in seeds]
    clamped = [0] * len(shifts)
    differs = 0.0
    portion = max(1, dataset.memory * len(dataset) // (len(shifts) * max(1, dataset.nbytes)))
    for tasks in zip(*seeds, strict=True):
        networks = [_Network.of(task, machine) for task in tasks]
        test = tasks[0].fold.test
        for start in range(0, len(test), portion):
            some = test[start : start + portion]
            made = shifter.read(some, shifts, threads=threads, on_clip=on_clip)
            differs = max(differs, made.differs)
            clamped = [a + b for a, b in zip(clamped, made.clamped, strict=True)]
            for s in range(len(shifts)):
                values = {name: Packed(one[s]) for name, one in made.values.items()}
                clips = dataset.with_values(values, some)
                for seed, network in enumerate(networks):
                    rows[seed][s].update(zip(some, network(clips), strict=True))
    warn_differs(differs)
    return ShiftedRows(rows, clamped)


@dataclass(frozen=True, slots=True)
class _Network:
    """A fold's network as it is on disk."""

    task: FoldTask
    machine: Machine
    module: Any
    normalization: Any

    @classmethod
    def of(cls, task: FoldTask, machine: Machine) -> _Network:
        found = vouched_checkpoint(task.place)
        model = task.config.model if callable(task.config.model) else None
        return cls(task, machine, found.network(machine.device, model=model), found.normalization)

    def __call__(self, clips: ClipDataset) -> NDArray[np.float32]:
        config, everything = self.task.config, range(len(clips))
        with deterministic(config.seed, self.machine.device, config.threads):
            return predict_clips(
                *(self.module, self.normalization, clips, everything, self.machine, clips.kind)
            )
