"""One fold: learn from some people, choose the epoch on others, predict the one left out."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from apexflow.storage.collate import Padded
from apexflow.storage.dataset import ClipDataset
from apexflow.training.batches import (
    Feeder,
    Input,
    Normalization,
    augmented,
    class_weights,
    in_order,
    one_input,
    to_device,
)
from apexflow.training.build import make_network
from apexflow.training.config import TrainConfig
from apexflow.training.folds import Fold, inner_split

_FOCUS = 2.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one fold gave.

    Attributes
    ----------
    fold : Fold
    epoch : int
        The epoch chosen on inner validation, counted from 1.
    probabilities : float32 (test clips, n_classes)
    curves : dict of name to list of float
        One value an epoch: loss, validation_loss, validation_uar.
    normalization : Normalization
    state : dict
        The network's weights.
    """

    fold: Fold
    epoch: int
    probabilities: NDArray[np.float32]
    curves: dict[str, list[float]]
    normalization: Normalization
    state: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where training runs; it changes speed, and rounding, but not what is computed.

    Attributes
    ----------
    device : torch.device
    mixed : bool
        Mixed precision, on a GPU alone.
    workers : int
        Processes that read what does not fit into memory.
    """

    device: torch.device
    mixed: bool = False
    workers: int = 0


def fit_fold(
    dataset: ClipDataset,
    fold: Fold,
    config: TrainConfig,
    machine: Machine,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> Fitted:
    """Train and test one fold; the same seed and fold give the same result.

    The clips of ``fold.test`` are read once, by the network that inner validation chose.
    ``on_epoch`` is called with the number of each epoch that is done, from 1.
    """
    seed = fold_seed(config.seed, fold.name)
    fit, validation = inner_split(
        dataset.samples, fold.train, fraction=config.validation, seed=seed
    )
    with deterministic(seed, machine.device):
        trial = _Training(dataset, fit, config, machine, seed)
        best = trial.run(validation, on_epoch)
        if config.choose == "epochs":
            torch.manual_seed(seed)
            final = _Training(dataset, fold.train, config, machine, seed)
            for epoch in range(1, best.epoch + 1):
                final.step_epoch(epoch)
            network, normalization = final.network, final.normalization
        else:
            network, normalization = trial.network, trial.normalization
            network.load_state_dict(best.state)
        logits = _logits(network, normalization, dataset, fold.test, config, machine)
    return Fitted(
        fold=fold,
        epoch=best.epoch,
        probabilities=torch.softmax(logits, 1).numpy(),
        curves=best.curves,
        normalization=normalization,
        state={name: value.cpu() for name, value in network.state_dict().items()},
    )


def fold_seed(seed: int, name: str) -> int:
    """Return a fold's own seed, whichever folds were trained before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")


@contextmanager
def deterministic(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch and ask a GPU for repeatable kernels; leave torch as it was afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.manual_seed(seed)
        if not on_gpu:  # the CPU repeats itself, and asking it loads the compiler: 3 s
            yield
            return
        before = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        # cuBLAS repeats its results only with a fixed workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


@dataclass(slots=True)
class _Best:
    """The best epoch so far, and all epochs' curves."""

    epoch: int = 0
    rank: tuple[float, float] = (-np.inf, -np.inf)
    state: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(
        default_factory=lambda: {"loss": [], "validation_loss": [], "validation_uar": []}
    )


class _Training:
    """A network, its optimiser, and the clips that it learns from: all statistics are theirs."""

    def __init__(
        self,
        dataset: ClipDataset,
        indices: Sequence[int],
        config: TrainConfig,
        machine: Machine,
        seed: int,
    ) -> None:
        self._dataset, self._config, self._machine = dataset, config, machine
        self.normalization = Normalization.fit(config.normalize, dataset, indices)
        sample, _ = dataset[indices[0]]
        n_classes = len(dataset.classes)
        self.network = make_network(config, _tensor(sample), n_classes).to(machine.device)
        # Fused: 4x faster than the default on a CPU, where a ResNet's step is half of the time.
        self._optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)
        labels = [dataset.samples[i].label for i in indices]
        weights = class_weights(labels, n_classes).to(machine.device)
        self._weights = weights if config.balance == "weights" else None
        self._feeder = Feeder(
            dataset,
            indices,
            batch_size=config.batch_size,
            seed=seed,
            oversample=config.balance == "oversample",
            workers=machine.workers,
            pin_memory=machine.device.type == "cuda",
        )
        self._rng = torch.Generator().manual_seed(seed)
        self._scaler = torch.amp.GradScaler(machine.device.type, enabled=_scaled(machine))

    def run(self, validation: Sequence[int], on_epoch: Callable[[int], None]) -> _Best:
        """Train to the last epoch, or until patience ends; return the best on validation."""
        best = _Best()
        for epoch in range(1, self._config.epochs + 1):
            best.curves["loss"].append(self.step_epoch(epoch))
            loss, uar = self._validate(validation)
            best.curves["validation_loss"].append(loss)
            best.curves["validation_uar"].append(uar)
            if (uar, -loss) > best.rank:
                best.rank, best.epoch = (uar, -loss), epoch
                best.state = copy.deepcopy(self.network.state_dict())
            on_epoch(epoch)
            if 0 < self._config.patience <= epoch - best.epoch:
                break
        return best

    def step_epoch(self, epoch: int) -> float:
        """Learn from every clip once; return the mean loss."""
        self.network.train()
        total, count = 0.0, 0
        for values, labels in self._feeder.epoch(epoch):
            inputs = to_device(one_input(values), self._machine.device)
            inputs = self.normalization(augmented(inputs, self._config.augment, self._rng))
            targets = labels.to(self._machine.device)
            self._optimizer.zero_grad()
            with _precision(self._machine):
                loss = self._loss(_call(self.network, inputs), targets)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._config.clip_norm)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            total, count = total + float(loss.detach()) * len(labels), count + len(labels)
        self._schedule.step()
        return total / max(1, count)

    def _validate(self, indices: Sequence[int]) -> tuple[float, float]:
        logits = _logits(
            self.network, self.normalization, self._dataset, indices, self._config, self._machine
        )
        labels = self._dataset.labels[list(indices)]
        loss = float(nn.functional.cross_entropy(logits, labels))
        right = logits.argmax(1) == labels
        # As `scores` has it, without its 20 ms an epoch.
        recalls = [float(right[labels == label].float().mean()) for label in set(labels.tolist())]
        return loss, float(np.mean(recalls))

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self._config.loss == "cross-entropy":
            return nn.functional.cross_entropy(logits, targets, weight=self._weights)
        log_p = torch.log_softmax(logits.float(), 1).gather(1, targets[:, None])[:, 0]
        losses = -((1 - log_p.exp()) ** _FOCUS) * log_p
        return (losses if self._weights is None else losses * self._weights[targets]).mean()

    def _rate(self, epoch: int) -> float:
        if self._config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + float(np.cos(np.pi * epoch / self._config.epochs)))


@torch.no_grad()
def _logits(
    network: nn.Module,
    normalization: Normalization,
    dataset: ClipDataset,
    indices: Sequence[int],
    config: TrainConfig,
    machine: Machine,
) -> torch.Tensor:
    """Return (n, n_classes) float32 on the CPU, clips in this order."""
    network.eval()
    found = []
    for values, _ in in_order(dataset, indices, config.batch_size):
        inputs = normalization(to_device(one_input(values), machine.device))
        with _precision(machine):
            found.append(_call(network, inputs).float().cpu())
    return torch.cat(found)


def _call(network: nn.Module, inputs: Input) -> torch.Tensor:
    logits: torch.Tensor = network(*inputs) if isinstance(inputs, Padded) else network(inputs)
    return logits


def _precision(machine: Machine) -> torch.autocast:
    dtype = torch.float16 if _scaled(machine) else torch.bfloat16
    return torch.autocast(machine.device.type, dtype=dtype, enabled=machine.mixed)


def _scaled(machine: Machine) -> bool:
    """Whether mixed precision is float16, which needs its gradients scaled."""
    return machine.mixed and not torch.cuda.is_bf16_supported()


def _tensor(value: Any) -> torch.Tensor:
    tensor = one_input(value)
    assert isinstance(tensor, torch.Tensor)
    return tensor
