"""A training: stores and a configuration in, a folder of results out."""

from __future__ import annotations

import io
import json
import logging
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import MEMORY, ClipDataset
from apexflow.storage.target import Target, disk_errors, exclusive, sync_file
from apexflow.training.build import make_dataset
from apexflow.training.config import TrainConfig
from apexflow.training.figures import draw_confusion, draw_curves
from apexflow.training.fitting import Fitted, Machine, fit_fold
from apexflow.training.folds import Fold, dataset_folds, subject_folds
from apexflow.training.progress import Progress
from apexflow.training.results import Prediction, TrainResult

_GOES_ON = "the folds finished so far are safe, and the same command goes on from there"
logger = logging.getLogger(__name__)

_PACKAGES = ("apexflow", "numpy", "scikit-learn", "torch", "torchvision", "zarr")


@dataclass(frozen=True, slots=True)
class _Finished:
    """A fold as its folder keeps it."""

    epoch: int
    probabilities: list[list[float]]
    curves: dict[str, list[float]]


def train(
    stores: Target | Sequence[Target],
    output: str | Path,
    config: TrainConfig,
    *,
    device: str = "auto",
    mixed: bool | None = None,
    workers: int = 0,
    memory: int = MEMORY,
    progress: bool = True,
) -> TrainResult:
    """Train and test a model in every fold, going on where an earlier run ended.

    Parameters
    ----------
    stores : path, URL or Zarr store, or a sequence of them
    output : path
        A folder; made when it is not there. Holds ``config.json``, a folder a finished fold
        (``folds/``, with its checkpoint), and in the end ``predictions.csv``, ``subjects.csv``,
        ``summary.csv``, ``summary.json``, ``confusion.png`` and ``curves.png``.
    config : TrainConfig
    device : "auto", "cpu", "cuda", "cuda:1", …
    mixed : bool, optional
        Mixed precision; on a GPU by default.
    workers : int
        Processes that read what does not fit into memory.
    memory : int
        Bytes of samples to hold in memory, see `ClipDataset`.
    progress : bool
        Show folds, epochs and time left on standard error.

    Returns
    -------
    TrainResult
        All folds' predictions, pooled.

    Raises
    ------
    ApexflowError
        The stores lack what the model is fed, there is one subject only, the folder holds
        results of another configuration or of other clips, another training writes it, a file
        in it is damaged, its disk is full, there is no such device.
    """
    machine = _machine(device, mixed, workers)
    dataset = make_dataset(stores, config, memory=memory)
    if dataset.class_map.left_out or dataset.class_map.warnings:
        logger.warning("%s", dataset.class_map)
    folds = (subject_folds if config.folds == "subject" else dataset_folds)(dataset.samples)
    folder = Path(output)
    with disk_errors(f"cannot write to {folder}", _GOES_ON):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, who="training"):
            return _train(folder, dataset, folds, config, machine, progress=progress)


def _train(
    folder: Path,
    dataset: ClipDataset,
    folds: Sequence[Fold],
    config: TrainConfig,
    machine: Machine,
    *,
    progress: bool,
) -> TrainResult:
    _claim(folder, _description(dataset, config))
    places = [folder / "folds" / _file_name(i, fold) for i, fold in enumerate(folds)]
    shapes = [(len(fold.test), len(dataset.classes)) for fold in folds]
    found = [_load(place, shape) for place, shape in zip(places, shapes, strict=True)]
    ready = sum(one is not None for one in found)
    with Progress(folds=len(folds), finished=ready, epochs=config.epochs, show=progress) as shown:
        for i, (fold, place) in enumerate(zip(folds, places, strict=True)):
            if found[i] is None:
                shown.begin(fold.name)
                fitted = fit_fold(dataset, fold, config, machine, shown.epoch)
                found[i] = _save(place, fitted, config, dataset.classes)
                right = fitted.probabilities.argmax(1) == dataset.labels[list(fold.test)].numpy()
                shown.end(fold.name, int(right.sum()), len(right), fitted.epoch)
    finished = {fold.name: one for fold, one in zip(folds, found, strict=True) if one is not None}
    result = _result(dataset, folds, finished, config)
    result.write(folder)
    title = f"{config.model}, UF1 {result.scores.uf1:.3f}, UAR {result.scores.uar:.3f}"
    draw_confusion(folder / "confusion.png", result.scores.confusion, result.classes, title)
    draw_curves(folder / "curves.png", {name: one.curves for name, one in finished.items()})
    return result


def _result(
    dataset: ClipDataset, folds: Sequence[Fold], finished: dict[str, _Finished], config: TrainConfig
) -> TrainResult:
    by_clip: dict[int, Prediction] = {}
    for fold in folds:
        for i, row in zip(fold.test, finished[fold.name].probabilities, strict=True):
            who = dataset.samples[i]
            by_clip[i] = Prediction(
                *(who.dataset, who.subject, who.clip, fold.name, who.label),
                int(np.argmax(row)),
                tuple(row),
                who.person,
            )
    return TrainResult(
        model=config.model,
        protocol=config.protocol or "labels of the store",
        classes=dataset.classes,
        predictions=tuple(by_clip[i] for i in sorted(by_clip)),
        epochs={name: one.epoch for name, one in finished.items()},
    )


def _save(place: Path, fitted: Fitted, config: TrainConfig, classes: tuple[str, ...]) -> _Finished:
    """Write a finished fold: the checkpoint, then, at once, the rest, which vouches for it."""
    place.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "model": config.model,
        "config": config.to_dict(),
        "classes": list(classes),
        "fold": fitted.fold.name,
        "normalize": fitted.normalization.kind,
        "mean": list(fitted.normalization.mean),
        "deviation": list(fitted.normalization.deviation),
        "state": fitted.state,
    }
    data = io.BytesIO()  # torch says of a full disk what is no OSError
    torch.save(checkpoint, data)
    _write_whole(place / "checkpoint.pt", data.getvalue())
    values = {
        "epoch": fitted.epoch,
        "probabilities": fitted.probabilities.astype(float).tolist(),
        "curves": fitted.curves,
    }
    _write_whole(place / "fold.json", json.dumps(values).encode())
    return _Finished(**values)


def _load(place: Path, shape: tuple[int, int]) -> _Finished | None:
    """Read a finished fold of (test clips, classes); None when it is yet to be done."""
    path = place / "fold.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if set(values) != {field.name for field in fields(_Finished)}:
            raise ValueError("other entries than a fold has")
        found = np.asarray(values["probabilities"], float)
        if found.shape != shape or not np.isfinite(found).all():
            raise ValueError(f"probabilities of shape {found.shape}, not {shape}")
        if not isinstance(values["epoch"], int):
            raise ValueError(f"epoch {values['epoch']!r}")
        curves = {str(name): [float(v) for v in one] for name, one in values["curves"].items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ApexflowError(
            f"{path} is damaged ({str(error).splitlines()[0]}): delete it, and the same command "
            f"does this fold again"
        ) from None
    return _Finished(values["epoch"], values["probabilities"], curves)


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and have it on disk before its name is there."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        sync_file(partial)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync_file(path.parent)


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Write the configuration into a new folder; refuse one that holds another's results."""
    path = folder / "config.json"
    if not path.is_file():
        text = json.dumps(description, indent=2, ensure_ascii=False)
        _write_whole(path, f"{text}\n".encode())
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: dict(there[part]) for part in ("config", "data")}
    except (ValueError, TypeError, KeyError) as error:
        raise ApexflowError(
            f"{path} is damaged ({str(error).splitlines()[0]}), so that nothing says what the "
            f"results in {folder} are of: choose another output, or delete the folder"
        ) from None
    for part, known in parts.items():
        for name, value in description[part].items():
            before = known.get(name)
            if before != value:
                raise ApexflowError(
                    f"{folder} holds results with {name} {before!r}, now it is {value!r}: "
                    "take the same settings and clips, or another output"
                )


def _description(dataset: ClipDataset, config: TrainConfig) -> dict[str, Any]:
    described = {
        "config": config.to_dict(),
        "data": {
            "clips": len(dataset),
            "classes": list(dataset.classes),
            "fingerprint": dataset.fingerprint,
        },
        "stores": list(dataset.names),
        "versions": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
    }
    # As it will be read back: tuples are lists there.
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def _file_name(number: int, fold: Fold) -> str:
    return f"{number:03d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', fold.name)}"


def _machine(device: str, mixed: bool | None, workers: int) -> Machine:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ApexflowError(f"device {device}: {str(error).splitlines()[0]}") from None
    on_gpu = chosen.type == "cuda"
    return Machine(chosen, on_gpu if mixed is None else mixed and on_gpu, workers)
