"""One fold of one seed as a folder on disk: trained under a lock, written, read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.target import exclusive
from apexflow.training.checkpoint import CHECKPOINT, FOLD, Bookmark, Checkpoint, write_whole
from apexflow.training.config import TrainConfig
from apexflow.training.fitting import Fitted, Leak, fit_fold
from apexflow.training.folds import Fold
from apexflow.training.machine import Machine

_BOOKMARK = "bookmark.pt"


@dataclass(frozen=True, slots=True)
class FoldTask:
    """A fold to train, with the seed that its configuration holds, and the folder it goes to."""

    place: Path
    fold: Fold
    config: TrainConfig

    @property
    def name(self) -> str:
        return self.fold.name


@dataclass(frozen=True, slots=True)
class FinishedFold:
    """A fold as its folder keeps it; ``checkpoint`` is the SHA-256 of the network's file."""

    epoch: int
    probabilities: list[list[float]]
    curves: dict[str, list[float]]
    checkpoint: str
    leak: Leak | None = None


def train_task(
    task: FoldTask, dataset: ClipDataset, machine: Machine, on_epoch: Callable[[int], None]
) -> None:
    """Train a fold and write its folder, going on where an earlier run was cut short.

    The lock keeps a worker whose run was killed from writing beside the run that goes on.
    """
    task.place.mkdir(parents=True, exist_ok=True)
    with exclusive(task.place, who="training"):
        bookmark = Bookmark(task.place / _BOOKMARK)
        with _told(task):
            fitted = fit_fold(dataset, task.fold, task.config, machine, on_epoch, bookmark)
        _write(task, fitted, dataset.classes)
        bookmark.remove()


@contextmanager
def _told(task: FoldTask) -> Iterator[None]:
    """Say in one line what a user's own code, or a GPU's memory, did not bear."""
    try:
        yield
    except (ApexflowError, OSError):
        raise
    except torch.OutOfMemoryError as error:
        raise ApexflowError(
            f"fold {task.name}: the GPU's memory is full; take a smaller --batch-size"
        ) from error
    except Exception as error:
        if task.config.preset is not None:
            raise
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise ApexflowError(
            f"fold {task.name}: {task.config.model_name} failed ({type(error).__name__}: {reason})"
        ) from error


def _write(task: FoldTask, fitted: Fitted, classes: tuple[str, ...]) -> None:
    """Write a finished fold: the checkpoint, then, at once, the rest, which vouches for it."""
    digest = Checkpoint(
        config=task.config,
        classes=classes,
        fold=task.name,
        sample_shape=fitted.sample_shape,
        normalization=fitted.normalization,
        state=fitted.state,
    ).write(task.place / CHECKPOINT)
    finished = FinishedFold(
        epoch=fitted.epoch,
        probabilities=fitted.probabilities.astype(float).tolist(),
        curves=fitted.curves,
        checkpoint=digest,
        leak=fitted.leak,
    )
    write_whole(task.place / FOLD, json.dumps(asdict(finished)).encode())


def read_finished(task: FoldTask, n_classes: int) -> FinishedFold | None:
    """Read a finished fold; None when it is yet to be done.

    Raises `ApexflowError` when the file is damaged, or the network it vouches for is gone.
    """
    path = task.place / FOLD
    if not path.is_file():
        return None
    shape = (len(task.fold.test), n_classes)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if set(values) != {field.name for field in fields(FinishedFold)}:
            raise ValueError("other entries than a fold has")
        found = np.asarray(values["probabilities"], float)
        if found.shape != shape or not np.isfinite(found).all():
            raise ValueError(f"probabilities of shape {found.shape}, not {shape}")
        if not isinstance(values["epoch"], int):
            raise ValueError(f"epoch {values['epoch']!r}")
        curves = {str(name): [float(v) for v in one] for name, one in values["curves"].items()}
        leak = _leak(values["leak"], shape[0])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ApexflowError(
            f"{path} is damaged ({str(error).splitlines()[0]}): delete it, and the same command "
            f"does this fold again"
        ) from None
    return FinishedFold(
        values["epoch"], values["probabilities"], curves, str(values["checkpoint"]), leak
    )


def _leak(values: Any, clips: int) -> Leak | None:
    if values is None:
        return None
    said = (tuple(one) if isinstance(one, list) else one for one in values["predicted"])
    leak = Leak(int(values["epoch"]), tuple(said))
    if len(leak.predicted) != clips:
        raise ValueError(f"leak: {len(leak.predicted)} predictions for {clips} clips")
    return leak
