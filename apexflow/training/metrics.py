"""The scores of micro-expression papers, over pooled predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexflow.errors import ApexflowError


@dataclass(frozen=True, slots=True)
class Scores:
    """What a set of predictions is worth.

    Attributes
    ----------
    uf1 : float
        Unweighted F1: the mean over classes of 2 TP / (2 TP + FP + FN).
    uar : float
        Unweighted average recall: the mean over classes of TP / N.
    accuracy : float
    precision, recall, f1 : float
        Means over classes weighted by their true clips.
    confusion : int64 (n_classes, n_classes)
        Rows are true classes, columns predicted ones.
    """

    uf1: float
    uar: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    confusion: NDArray[np.int64]

    @property
    def clips(self) -> int:
        return int(self.confusion.sum())

    def __str__(self) -> str:
        return (
            f"UF1 {self.uf1:.4f}  UAR {self.uar:.4f}  accuracy {self.accuracy:.4f}  "
            f"({self.clips} clips)"
        )


def scores(y_true: ArrayLike, y_pred: ArrayLike, n_classes: int) -> Scores:
    """Score the pooled predictions of all folds.

    Pool first, score once: the mean of the scores of single folds is another, higher or
    lower, number, because a subject rarely shows every class.

    Parameters
    ----------
    y_true, y_pred : (n,) integers
        True and predicted classes, 0 to ``n_classes`` - 1.
    n_classes : int

    Returns
    -------
    Scores
        A class counts in a mean where its formula is defined: in UF1 when it is true or
        predicted anywhere, in UAR when it is true anywhere. Both are scikit-learn's macro
        averages.

    Raises
    ------
    ApexflowError
        There are no predictions, their numbers differ, or a class is out of range.

    Examples
    --------
    >>> scores([0, 0, 1, 2], [0, 1, 1, 2], 3).uar
    0.8333333333333334
    """
    from sklearn import metrics

    true, predicted = _classes("y_true", y_true, n_classes), _classes("y_pred", y_pred, n_classes)
    if len(true) != len(predicted) or not len(true):
        raise ApexflowError(
            "y_true and y_pred must be equally long, with one clip at least. "
            f"Got {len(true)} and {len(predicted)}."
        )
    weighted = {"average": "weighted", "zero_division": 0}
    present = np.unique(true).tolist()
    return Scores(
        uf1=float(metrics.f1_score(true, predicted, average="macro", zero_division=0)),
        uar=float(
            metrics.recall_score(true, predicted, labels=present, average="macro", zero_division=0)
        ),
        accuracy=float(metrics.accuracy_score(true, predicted)),
        precision=float(metrics.precision_score(true, predicted, **weighted)),
        recall=float(metrics.recall_score(true, predicted, **weighted)),
        f1=float(metrics.f1_score(true, predicted, **weighted)),
        confusion=_confusion(true, predicted, n_classes),
    )


def scores_by(
    groups: Sequence[str], y_true: ArrayLike, y_pred: ArrayLike, n_classes: int
) -> dict[str, Scores]:
    """Score each group (data set, subject) of clips by itself, groups in sorted order."""
    names, true, predicted = np.asarray(groups), np.asarray(y_true), np.asarray(y_pred)
    return {
        str(name): scores(true[names == name], predicted[names == name], n_classes)
        for name in sorted(set(groups))
    }


def _classes(name: str, values: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not (array.size == 0 or np.issubdtype(array.dtype, np.integer)):
        raise ApexflowError(
            f"{name} must be one row of integers. Got shape {array.shape}, {array.dtype}."
        )
    outside = array[(array < 0) | (array >= n_classes)]
    if len(outside):
        raise ApexflowError(f"{name} must lie in 0..{n_classes - 1}. Got {outside[0]}.")
    return array.astype(np.int64)


def _confusion(
    true: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    flat = np.bincount(true * n_classes + predicted, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes).astype(np.int64)
