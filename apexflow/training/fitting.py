"""One fold: learn from some people, predict the ones left out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from apexflow.errors import ApexflowError
from apexflow.storage.collate import Padded
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.labels import Kind
from apexflow.system import keep_freed_memory
from apexflow.training.augmentation import augmentation_kind, augmented
from apexflow.training.batches import (
    Feeder,
    Input,
    Normalization,
    in_order,
    one_input,
    to_device,
)
from apexflow.training.build import make_loss, make_network, make_optimizer, make_schedule
from apexflow.training.checkpoint import Bookmark
from apexflow.training.config import TrainConfig
from apexflow.training.estimators import fit_estimator, is_estimator
from apexflow.training.folds import Fold, inner_split
from apexflow.training.learning import learning_of
from apexflow.training.machine import Machine, deterministic, is_scaled, precision
from apexflow.training.scoring import scoring_of


@dataclass(frozen=True, slots=True)
class Leak:
    """What choosing the epoch on the tested clips would have claimed: no result, but a warning.

    Attributes
    ----------
    epoch : int
        The epoch at which most of them were right, or the error was smallest, counted from 1.
    predicted : tuple
        What was said of each then, as in `apexflow.training.scoring.Prediction`.
    """

    epoch: int
    predicted: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one training gave.

    Attributes
    ----------
    epoch : int
        The epoch whose network this is, counted from 1; 0 of what is not trained in epochs.
    curves : dict of name to list of float
        One value an epoch: loss; with inner validation also validation_loss, and its score as
        validation_uar, validation_f1 or validation_mae. Of
        a linear classifier see `apexflow.training.estimators.FittedEstimator`.
    normalization : Normalization
    state : dict
        The network's weights.
    sample_shape : tuple of int
        Of one sample, as the network was first fed.
    probabilities : float32 (test clips, n_classes)
        Of each class or unit, or the position of the apex; empty where nobody is tested.
    leak : Leak or None
        Where it was asked for.
    """

    epoch: int
    curves: dict[str, list[float]]
    normalization: Normalization
    state: dict[str, Any] = field(repr=False)
    sample_shape: tuple[int, ...]
    probabilities: NDArray[np.float32]
    leak: Leak | None = None


def _nothing(_: int) -> None:
    return None


def fit_fold(
    dataset: ClipDataset,
    fold: Fold,
    config: TrainConfig,
    machine: Machine,
    on_epoch: Callable[[int], None] = _nothing,
    bookmark: Bookmark | None = None,
) -> Fitted:
    """Train and test one fold; the same seed and fold give the same result.

    The clips of ``fold.test`` have no say in it. ``on_epoch`` is called with the number of each
    epoch that is done, from 1; ``bookmark`` keeps the state, and is gone on from.
    """
    seed = fold_seed(config.seed, fold.name)
    return fit(
        *(dataset, fold.train, config, machine),
        seed=seed,
        test=fold.test,
        on_epoch=on_epoch,
        bookmark=bookmark,
    )


def fit(
    dataset: ClipDataset,
    indices: Sequence[int],
    config: TrainConfig,
    machine: Machine,
    *,
    seed: int,
    test: Sequence[int] = (),
    on_epoch: Callable[[int], None] = _nothing,
    bookmark: Bookmark | None = None,
) -> Fitted:
    """Train on some clips as ``config.choose`` says, and predict ``test``, clip by clip."""
    keep_freed_memory()
    if is_estimator(config):
        return _fit_at_once(dataset, indices, config, machine, seed, test, on_epoch)
    bookmark = Bookmark() if bookmark is None else bookmark
    held_out: Sequence[int] = ()
    learnt = indices
    if config.choose != "last":
        learnt, held_out = inner_split(
            dataset.samples, indices, fraction=config.validation, seed=seed
        )
    watched = test if config.report_leak else ()
    kept = bookmark.read()
    with deterministic(seed, machine.device, config.threads):
        course = None if kept is None else _Course.of(kept["found"])
        if course is None:
            training = _Training(dataset, learnt, config, machine, seed)
            course = training.run(
                *(config.epochs, bookmark, kept, on_epoch), held_out=held_out, watched=watched
            )
            kept = None
        if config.choose == "checkpoint":
            training.network.load_state_dict(course.best)
        if config.choose == "epochs":
            torch.manual_seed(seed)
            training = _Training(dataset, indices, config, machine, seed, found=course)
            training.run(course.epoch, bookmark, kept)
        network, normalization = training.network, training.normalization
        found = predict_clips(network, normalization, dataset, test, machine, dataset.kind)
    return Fitted(
        epoch=course.epoch,
        curves=course.curves,
        normalization=normalization,
        state={name: value.cpu() for name, value in network.state_dict().items()},
        sample_shape=training.sample_shape,
        probabilities=found,
        leak=Leak(course.leak_epoch, tuple(course.leak)) if watched else None,
    )


def _fit_at_once(
    dataset: ClipDataset,
    indices: Sequence[int],
    config: TrainConfig,
    machine: Machine,
    seed: int,
    test: Sequence[int],
    on_epoch: Callable[[int], None],
) -> Fitted:
    with deterministic(seed, machine.device, config.threads):
        fitted = fit_estimator(dataset, indices, config, seed=seed)
        found = predict_clips(
            fitted.network, fitted.normalization, dataset, test, machine, dataset.kind
        )
    on_epoch(1)
    return Fitted(
        epoch=0,
        curves=fitted.curves,
        normalization=fitted.normalization,
        state=fitted.network.state_dict(),
        sample_shape=fitted.sample_shape,
        probabilities=found,
    )


@torch.no_grad()
def predict_clips(
    network: nn.Module,
    normalization: Normalization,
    dataset: ClipDataset,
    indices: Sequence[int],
    machine: Machine,
    kind: Kind,
) -> NDArray[np.float32]:
    """Return float32 (n, n_classes), the probabilities of each class or unit, or positions.

    Each clip is computed by itself, so that the same network gives the same clip the same bits
    whatever is predicted with it.
    """
    if not indices:
        return np.zeros((0, len(dataset.classes)), np.float32)
    rows = _logits(network, normalization, dataset, indices, 1, machine)
    return learning_of(kind).read(rows).numpy()


def fold_seed(seed: int, name: str) -> int:
    """Return a fold's own seed, whichever folds were trained before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")


@dataclass(slots=True)
class _Course:
    """How a training went so far.

    Attributes
    ----------
    done : int
        Epochs.
    epoch, rank, best
        The best epoch on inner validation, its score and loss, and its weights; without inner
        validation the last one.
    curves : dict
    leak_epoch, leak_right, leak
        The epoch at which most of the watched clips were right, how many, and what was said.
    """

    done: int = 0
    epoch: int = 0
    rank: tuple[float, float] = (-np.inf, -np.inf)
    best: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=lambda: {"loss": []})
    leak_epoch: int = 0
    leak_right: float = -np.inf
    leak: list[Any] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, values: dict[str, Any] | None) -> _Course | None:
        return None if values is None else cls(**{**values, "rank": tuple(values["rank"])})


class _Training:
    """A network, its optimiser, and the clips that it learns from: all statistics are theirs."""

    def __init__(
        self,
        dataset: ClipDataset,
        indices: Sequence[int],
        config: TrainConfig,
        machine: Machine,
        seed: int,
        found: _Course | None = None,
    ) -> None:
        self._dataset, self._config, self._machine = dataset, config, machine
        self._found = found
        self._augment = augmentation_kind(config.augment, dataset)
        self._learning = learning_of(dataset.kind)
        self._scoring = scoring_of(dataset.kind, dataset.classes)
        self.normalization = Normalization.fit(config.normalize, dataset, indices)
        values, _ = dataset[indices[0]]
        sample = self.normalization(_tensor(values)[None])
        assert isinstance(sample, torch.Tensor)
        self.sample_shape = tuple(sample.shape[1:])
        n_classes = len(dataset.classes)
        self.network = make_network(config, sample[0], n_classes).to(machine.device)
        self._optimizer = make_optimizer(config, self.network.parameters())
        self._schedule = make_schedule(config, self._optimizer)
        weights = None
        if config.balance == "weights":
            labels = dataset.labels[list(indices)]
            weights = self._learning.weights(labels, n_classes).to(machine.device)
        self._loss = make_loss(config, self._learning, weights, n_classes)
        self._feeder = Feeder(
            dataset,
            indices,
            batch_size=config.batch_size,
            seed=seed,
            shuffle=config.shuffle,
            oversample=config.balance == "oversample",
            workers=machine.workers,
            pin_memory=machine.device.type == "cuda",
        )
        self._rng = torch.Generator().manual_seed(seed)
        self._scaler = torch.amp.GradScaler(machine.device.type, enabled=is_scaled(machine))

    def run(
        self,
        epochs: int,
        bookmark: Bookmark,
        kept: dict[str, Any] | None,
        on_epoch: Callable[[int], None] = _nothing,
        *,
        held_out: Sequence[int] = (),
        watched: Sequence[int] = (),
    ) -> _Course:
        """Train to the last epoch, or until patience ends; ``held_out`` chooses the best.

        ``kept`` is the state that an earlier training was cut short in.
        """
        course = _Course() if kept is None else self._take_up(kept)
        while course.done < epochs and not self._out_of_patience(course):
            course.done += 1
            course.curves["loss"].append(self.step_epoch(course.done))
            if held_out:
                self._validate(course, held_out)
            else:
                course.epoch = course.done
            if watched:
                self._watch(course, watched)
            on_epoch(course.done)
            bookmark.keep(lambda: self._state(course))
        return course

    def _out_of_patience(self, course: _Course) -> bool:
        return 0 < self._config.patience <= course.done - course.epoch and bool(course.best)

    def step_epoch(self, epoch: int) -> float:
        """Learn from every clip once; return the mean loss."""
        self.network.train()
        total, count = 0.0, 0
        for values, labels in self._feeder.epoch(epoch):
            inputs = to_device(one_input(values), self._machine.device)
            inputs = self.normalization(augmented(inputs, self._augment, self._rng))
            targets = labels.to(self._machine.device)
            self._optimizer.zero_grad()
            with precision(self._machine):
                loss = self._loss(_call(self.network, inputs), targets)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.unscale_(self._optimizer)
            if self._config.clip_norm < np.inf:
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._config.clip_norm)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            value = float(loss.detach())
            if not np.isfinite(value) and not self._scaler.is_enabled():
                raise ApexflowError(
                    f"the loss is {value} in epoch {epoch}: take a lower --lr, clip the gradient "
                    "(--clip-norm 5), or look at the values of the clips"
                )
            total, count = total + value * len(labels), count + len(labels)
        self._schedule.step()
        return total / max(1, count)

    def _validate(self, course: _Course, indices: Sequence[int]) -> None:
        logits = self._all_logits(indices)
        score, loss = self._learning.judge(logits, self._dataset.labels[list(indices)])
        course.curves.setdefault("validation_loss", []).append(loss)
        course.curves.setdefault(f"validation_{self._learning.validation}", []).append(score)
        rank = self._learning.better(score), -loss
        if rank > course.rank:
            course.rank, course.epoch = rank, course.done
            course.best = copy.deepcopy(self.network.state_dict())

    def _watch(self, course: _Course, indices: Sequence[int]) -> None:
        """Note the epoch that a look at the tested clips would choose; nothing depends on it."""
        logits = self._all_logits(indices)
        right = self._learning.right(logits, self._dataset.labels[list(indices)])
        if right > course.leak_right:
            course.leak_epoch, course.leak_right = course.done, right
            outputs = self._learning.read(logits).tolist()
            course.leak = [self._scoring.decide(row) for row in outputs]

    def _all_logits(self, indices: Sequence[int]) -> torch.Tensor:
        return _logits(
            self.network,
            self.normalization,
            self._dataset,
            indices,
            self._config.batch_size,
            self._machine,
        )

    def _state(self, course: _Course) -> dict[str, Any]:
        """Return all that the rest of the training depends on."""
        on_gpu = self._machine.device.type == "cuda"
        return {
            "course": course.to_dict(),
            "found": None if self._found is None else self._found.to_dict(),
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "rng": self._rng.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self._machine.device) if on_gpu else None,
        }

    def _take_up(self, kept: dict[str, Any]) -> _Course:
        """Go on in the state of a training that was cut short; return its course."""
        self.network.load_state_dict(kept["network"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self._schedule.load_state_dict(kept["schedule"])
        self._scaler.load_state_dict(kept["scaler"])
        self._rng.set_state(kept["rng"])
        torch.set_rng_state(kept["torch_rng"])
        if kept["cuda_rng"] is not None:
            torch.cuda.set_rng_state(kept["cuda_rng"], self._machine.device)
        course = _Course.of(kept["course"])
        assert course is not None
        return course


@torch.no_grad()
def _logits(
    network: nn.Module,
    normalization: Normalization,
    dataset: ClipDataset,
    indices: Sequence[int],
    batch_size: int,
    machine: Machine,
) -> torch.Tensor:
    """Return the outputs (n, n_classes) float32 on the CPU, clips in this order."""
    network.eval()
    found = []
    for values, _ in in_order(dataset, indices, batch_size):
        inputs = normalization(to_device(one_input(values), machine.device))
        with precision(machine):
            found.append(_call(network, inputs).float().cpu())
    return torch.cat(found)


def _call(network: nn.Module, inputs: Input) -> torch.Tensor:
    logits: torch.Tensor = network(*inputs) if isinstance(inputs, Padded) else network(inputs)
    return logits


def _tensor(value: Any) -> torch.Tensor:
    tensor = one_input(value)
    assert isinstance(tensor, torch.Tensor)
    return tensor
