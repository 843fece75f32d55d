"""What a network learns of a clip, and how its outputs are read: one class a kind of label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch.nn import functional

from apexflow.storage.labels import Kind

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Each is called with (outputs, labels, weights or None).
Losses = Mapping[str, Callable[..., torch.Tensor]]

_FOCUS = 2.0


def class_focal(
    logits: torch.Tensor, classes: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Focal loss with gamma 2 (doi:10.1109/ICCV.2017.324)."""
    log_p = torch.log_softmax(logits.float(), 1).gather(1, classes[:, None])[:, 0]
    losses = -((1 - log_p.exp()) ** _FOCUS) * log_p
    return (losses if weights is None else losses * weights[classes]).mean()


def class_entropy(
    logits: torch.Tensor, classes: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy; with weights the mean is weighted, too."""
    return functional.cross_entropy(logits, classes, weight=weights)


def unit_entropy(
    logits: torch.Tensor, units: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy of a sigmoid a unit, over what is known; weights are of what is shown."""
    return _mean_of_known(_unit_losses(logits, units, weights), units)


def unit_focal(
    logits: torch.Tensor, units: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Focal loss of a sigmoid a unit, with gamma 2, over what is known."""
    p = torch.sigmoid(logits.float())
    away = torch.where(units == 1, 1 - p, p)
    return _mean_of_known(away**_FOCUS * _unit_losses(logits, units, weights), units)


def _unit_losses(
    logits: torch.Tensor, units: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(
        logits.float(), units.nan_to_num(0.0), pos_weight=weights, reduction="none"
    )


def _mean_of_known(losses: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    known = ~units.isnan()
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def _absolute(
    positions: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None
) -> torch.Tensor:
    return functional.l1_loss(positions[:, 0].float(), labels)


def _squared(positions: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.mse_loss(positions[:, 0].float(), labels)


class Learning(ABC):
    """How labels of one kind are learnt.

    Attributes
    ----------
    losses : mapping of name to loss
    validation : str
        The name of the score on inner validation, in curves.
    """

    losses: ClassVar[Losses]
    validation: ClassVar[str]

    def loss(self, name: str, weights: torch.Tensor | None) -> Loss:
        """Return the loss of that name, (outputs, labels) to a mean over the batch."""
        function = self.losses[name]
        return lambda outputs, labels: function(outputs, labels, weights)

    def example(self, n_outputs: int) -> torch.Tensor:
        """Return the labels of two clips, to try a loss on."""
        return torch.zeros(2, n_outputs)

    @abstractmethod
    def weights(self, labels: torch.Tensor, n_outputs: int) -> torch.Tensor:
        """Return what balances the labels of the clips that are learnt from."""

    @abstractmethod
    def read(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return what a network's outputs (n, n_outputs) say: probabilities, positions."""

    @abstractmethod
    def judge(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        """Return the score on inner validation, as curves have it, and its loss."""

    @abstractmethod
    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        """Return how good outputs are of few clips, the larger the better."""

    def better(self, score: float) -> float:
        """Return a score as a number that is larger when it is better."""
        return score


class ClassLearning(Learning):
    """One class of several: softmax, cross-entropy."""

    losses: ClassVar[Losses] = {"cross-entropy": class_entropy, "focal": class_focal}
    validation: ClassVar[str] = "uar"

    def example(self, n_outputs: int) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.long)

    def weights(self, labels: torch.Tensor, n_outputs: int) -> torch.Tensor:
        """Return all clips / (classes x its clips) of each class, 0 where it has none."""
        counts = torch.bincount(labels, minlength=n_outputs)
        shares = len(labels) / (torch.count_nonzero(counts) * counts.clamp(min=1).double())
        return torch.where(counts > 0, shares, 0.0).float()

    def read(self, outputs: torch.Tensor) -> torch.Tensor:
        return torch.softmax(outputs, 1)

    def judge(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        loss = float(functional.cross_entropy(outputs, labels))
        right = outputs.argmax(1) == labels
        # As `scores` has it, without its 20 ms an epoch.
        recalls = [float(right[labels == label].float().mean()) for label in set(labels.tolist())]
        return sum(recalls) / len(recalls), loss

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        return float((outputs.argmax(1) == labels).sum())


class UnitLearning(Learning):
    """Several action units: a sigmoid and a binary cross-entropy each; what is unknown is left out.

    Labels are (n, unit) of 1, 0 and NaN.
    """

    losses: ClassVar[Losses] = {"cross-entropy": unit_entropy, "focal": unit_focal}
    validation: ClassVar[str] = "f1"

    def weights(self, labels: torch.Tensor, n_outputs: int) -> torch.Tensor:
        """Return, of each unit, clips that do not show it / clips that do; 1 where one is none."""
        shown, not_shown = (labels == 1).sum(0), (labels == 0).sum(0)
        both = (shown > 0) & (not_shown > 0)
        return torch.where(both, not_shown / shown.clamp(min=1), 1.0)

    def read(self, outputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(outputs)

    def judge(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        said = outputs >= 0
        hits = ((labels == 1) & said).sum(0)
        of = (labels == 1).sum(0) + (~labels.isnan() & said).sum(0)
        f1 = (2 * hits / of.clamp(min=1))[of > 0]
        return float(f1.mean()) if len(f1) else 0.0, float(unit_entropy(outputs, labels, None))

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        return float(((outputs >= 0) == (labels == 1))[~labels.isnan()].sum())


class ApexLearning(Learning):
    """The part of the way from onset to offset where the apex lies: one number, read as it is."""

    losses: ClassVar[Losses] = {"absolute": _absolute, "squared": _squared}
    validation: ClassVar[str] = "mae"

    def example(self, n_outputs: int) -> torch.Tensor:
        return torch.zeros(2)

    def weights(self, labels: torch.Tensor, n_outputs: int) -> torch.Tensor:
        return torch.ones(n_outputs)

    def read(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.clamp(0, 1)

    def judge(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        error = float((self.read(outputs)[:, 0] - labels).abs().mean())
        return error, error

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        return -float((self.read(outputs)[:, 0] - labels).abs().sum())

    def better(self, score: float) -> float:
        return -score


_LEARNINGS: Mapping[Kind, Learning] = {
    "class": ClassLearning(),
    "units": UnitLearning(),
    "apex": ApexLearning(),
}


def learning_of(kind: Kind) -> Learning:
    """Return how labels of that kind are learnt."""
    return _LEARNINGS[kind]
