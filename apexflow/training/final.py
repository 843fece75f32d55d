"""The network trained on all clips: for clips of people who are not among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.target import exclusive
from apexflow.training.checkpoint import (
    CHECKPOINT,
    FOLD,
    Bookmark,
    Checkpoint,
    vouched_checkpoint,
    write_whole,
)
from apexflow.training.config import TrainConfig
from apexflow.training.fitting import fit, fold_seed
from apexflow.training.machine import Machine

FINAL = "final"


def final_is_done(place: Path) -> bool:
    """Whether the network of all clips is there, whole."""
    try:
        vouched_checkpoint(place)
    except ApexflowError:
        return False
    return True


def train_final(
    place: Path,
    dataset: ClipDataset,
    config: TrainConfig,
    machine: Machine,
    on_epoch: Callable[[int], None],
) -> None:
    """Train on every clip, as each fold was on its own, and write the folder ``place``.

    Nothing is left to test it on: the folds say what such a network is worth.
    """
    place.mkdir(parents=True, exist_ok=True)
    with exclusive(place, who="training"):
        bookmark = Bookmark(place / "bookmark.pt")
        fitted = fit(
            *(dataset, range(len(dataset)), config, machine),
            seed=fold_seed(config.seed, FINAL),
            on_epoch=on_epoch,
            bookmark=bookmark,
        )
        digest = Checkpoint(
            config=config,
            classes=dataset.classes,
            fold=FINAL,
            sample_shape=fitted.sample_shape,
            normalization=fitted.normalization,
            state=fitted.state,
        ).write(place / CHECKPOINT)
        values = {"epoch": fitted.epoch, "curves": fitted.curves, "checkpoint": digest}
        write_whole(place / FOLD, json.dumps(values).encode())
        bookmark.remove()
