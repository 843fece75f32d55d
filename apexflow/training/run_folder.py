"""The folder of a run: what its results are of, and whether they are those of another run."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.training import own
from apexflow.training.batches import reading_order
from apexflow.training.checkpoint import write_whole
from apexflow.training.config import TrainConfig, settings_of_today
from apexflow.training.folds import Fold, person
from apexflow.training.machine import Machine

SEEN = "seen.json"
_CONFIG = "config.json"
_PACKAGES = ("apexflow", "numba", "numpy", "scikit-learn", "torch", "torchvision", "zarr")
# Another path may hold the same: the weights' digest and the clips count.
_BY_CONTENT = (("config", "weights"), ("config", "exclude"))


def fold_folder(folder: Path, number: int, fold: Fold) -> Path:
    """Return where a fold goes; sorted by name, folders are in the order of the folds."""
    return folder / "folds" / f"{number:03d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', fold.name)}"


def refuse_other_kind(folder: Path, *, several: bool) -> None:
    """Refuse a folder of one seed for several, and the other way round."""
    one = (folder / _CONFIG).is_file()
    if one and several:
        raise ApexflowError(
            f"{folder} holds the results of one seed: choose another output for several"
        )
    if not several and not one and any(folder.glob(f"seed-*/{_CONFIG}")):
        raise ApexflowError(
            f"{folder} holds the results of several seeds: choose another output, or say as many"
        )


def describe(
    dataset: ClipDataset, folds: Sequence[Fold], config: TrainConfig, machine: Machine
) -> dict[str, Any]:
    """Return what ``config.json`` holds; "config", "data" and "machine" decide the results."""
    described = {
        "config": config.to_dict(),
        "data": {
            "clips": len(dataset),
            "classes": list(dataset.classes),
            "fingerprint": dataset.fingerprint,
            "folds": _digest(repr([(f.name, f.train, f.test) for f in folds])),
            "weights": _file_digest(config.weights),
            "own code": {
                name: own.digest_of(getattr(config, name))
                for name in ("model", "optimizer", "loss", "schedule")
                if callable(getattr(config, name)) or own.is_name(getattr(config, name))
            },
        },
        "machine": {
            "device": machine.device.type,
            "mixed precision": machine.mixed,
            "reading order": reading_order(
                dataset,
                shuffle=config.shuffle,
                oversample=config.balance == "oversample",
                workers=machine.workers,
            ),
        },
        "stores": list(dataset.names),
        # What new clips are to be made by, to be predicted.
        "recipes": dict(dataset.recipes),
        "device": machine.name,
        "versions": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
    }
    # As it will be read back: tuples are lists there.
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def claim(folder: Path, description: dict[str, Any]) -> None:
    """Write the description into a new folder; refuse one that holds another run's results."""
    path = folder / _CONFIG
    if not path.is_file():
        text = json.dumps(description, indent=2, ensure_ascii=False)
        write_whole(path, f"{text}\n".encode())
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: dict(there[part]) for part in ("config", "data", "machine")}
    except (ValueError, TypeError, KeyError) as error:
        raise ApexflowError(
            f"{path} is damaged ({str(error).splitlines()[0]}), so that nothing says what the "
            f"results in {folder} are of: choose another output, or delete the folder"
        ) from None
    parts["config"] = settings_of_today(parts["config"])
    for part, known in parts.items():
        now = description[part]
        # What only the folder has is a setting of another version.
        for name in dict.fromkeys((*now, *known)):
            before, value = known.get(name), now.get(name)
            if before != value and (part, name) not in _BY_CONTENT:
                raise ApexflowError(
                    f"{folder} holds results with {name} {before!r}, now it is {value!r}: "
                    "take the same settings and clips, or another output"
                )


def write_seen(folder: Path, dataset: ClipDataset) -> None:
    """Write who was learnt from, and whose frames: `predict` knows them by another name too."""
    seen = {
        "people": sorted({person(one) for one in dataset.samples}),
        "frames": {one.frames: person(one) for one in dataset.samples if one.frames},
    }
    write_whole(folder / SEEN, json.dumps(seen, indent=0).encode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ApexflowError(f"weights {path}: {error.strerror}") from None
