"""What a fold leaves on disk: its network when it is done, its whole state while it is not."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from apexflow.errors import ApexflowError
from apexflow.storage.target import sync_file
from apexflow.training.batches import Normalization
from apexflow.training.build import make_network
from apexflow.training.config import TrainConfig

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
FOLD = "fold.json"
"""What vouches for a checkpoint: written after it, with its SHA-256 under that name."""
_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A trained network, and all that it takes to use it.

    Attributes
    ----------
    config : TrainConfig
    classes : tuple of str
    fold : str
        The name of the fold that the network was not trained on.
    sample_shape : tuple of int
        Of one sample, as the network was first fed.
    normalization : Normalization
    state : dict
        The network's weights.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    fold: str
    sample_shape: tuple[int, ...]
    normalization: Normalization
    state: Mapping[str, Any] = field(repr=False)

    def write(self, path: Path) -> str:
        """Write a file, whole or not at all; return its SHA-256."""
        values = {
            "model": self.config.model_name,
            # As text: pickle's bytes depend on which equal strings are one object.
            "config": json.dumps(self.config.to_dict()),
            "classes": list(self.classes),
            "fold": self.fold,
            "sample_shape": list(self.sample_shape),
            "normalize": self.normalization.kind,
            "mean": list(self.normalization.mean),
            "deviation": list(self.normalization.deviation),
            "scale": self.normalization.scale,
            "state": dict(self.state),
        }
        data = io.BytesIO()  # torch says of a full disk what is no OSError
        torch.save(values, data)
        write_whole(path, data.getvalue())
        return hashlib.sha256(data.getvalue()).hexdigest()

    @classmethod
    def read(cls, path: Path, digest: str = "") -> Checkpoint:
        """Read what `write` wrote.

        Raises `ApexflowError` when there is no such file, it is damaged, or its SHA-256 is not
        ``digest``, where one is given.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ApexflowError(f"{path}: {error.strerror}") from None
        if digest and hashlib.sha256(data).hexdigest() != digest:
            raise ApexflowError(
                f"{path} is not the file that this training wrote: delete its folder, and the "
                "same command does this fold again"
            )
        try:
            values = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            normal = (values[name] for name in ("normalize", "mean", "deviation", "scale"))
            kind, mean, deviation, scale = normal
            return cls(
                config=TrainConfig.from_dict(json.loads(values["config"])),
                classes=tuple(values["classes"]),
                fold=values["fold"],
                sample_shape=tuple(values["sample_shape"]),
                normalization=Normalization(kind, tuple(mean), tuple(deviation), scale),
                state=values["state"],
            )
        except ApexflowError:
            raise
        except Exception as error:  # whatever a damaged file makes torch raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ApexflowError(f"{path} is not a checkpoint of a training ({reason})") from None

    def network(self, device: str | torch.device = "cpu", *, model: Any = None) -> nn.Module:
        """Return the network with its weights, ready to predict.

        Give as ``model`` the callable that it was made by where that has no name to be found
        by: a function of a notebook, a lambda. Raises `ApexflowError` where it cannot be made.
        """
        sample = torch.zeros(self.sample_shape)
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced
            network = make_network(self.config, sample, len(self.classes), model=model, trunk=False)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ApexflowError(
                f"{self.config.model_name} is another network than was trained ({reason})"
            ) from None
        return network.eval().to(device)


def vouched_checkpoint(place: Path) -> Checkpoint:
    """Read the network of a finished fold, or of all clips, from its folder.

    Raises `ApexflowError` when it is missing or damaged, or nothing vouches for it.
    """
    told = place / FOLD
    try:
        digest = str(json.loads(told.read_text(encoding="utf-8"))["checkpoint"])
    except (OSError, ValueError, TypeError, KeyError):
        raise ApexflowError(
            f"{told} is missing or damaged, so that nothing vouches for its network: delete "
            f"{place}, and the command that trained it does it again"
        ) from None
    return Checkpoint.read(place / CHECKPOINT, digest)


class Bookmark:
    """The state of a fold that is being trained, kept now and then so that it goes on from there.

    Parameters
    ----------
    path : Path or None
        None keeps nothing.
    seconds : float
        At most this often.
    """

    def __init__(self, path: Path | None = None, *, seconds: float = _SECONDS) -> None:
        self._path, self._seconds, self._last = path, seconds, time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Return what was kept last; None where there is nothing, or nothing readable."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            values: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes torch raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            logger.warning("%s is damaged (%s): the fold begins again", self._path, reason)
            return None
        return values

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state, unless that was done a short while ago."""
        if self._path is None or time.monotonic() - self._last < self._seconds:
            return
        data = io.BytesIO()
        torch.save(state(), data)
        write_whole(self._path, data.getvalue())
        self._last = time.monotonic()

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
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
