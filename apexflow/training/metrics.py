"""The scores of micro-expression papers, over pooled predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

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
        Right clips / all clips.
    precision, recall, f1 : float
        Means over classes weighted by their true clips. The weighted recall is the accuracy, by
        its formula: what says how many of a class are found is the UAR, and the recall of each
        class.
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

    @classmethod
    def of(cls, confusion: NDArray[np.int64]) -> Self:
        """Return the scores of a confusion matrix."""
        found = class_measures(confusion)
        names = ("uf1", "uar", "accuracy", "precision", "recall", "f1")
        return cls(**{name: float(found[name]) for name in names}, confusion=confusion)

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
    true, predicted = _classes("y_true", y_true, n_classes), _classes("y_pred", y_pred, n_classes)
    if len(true) != len(predicted) or not len(true):
        raise ApexflowError(
            "y_true and y_pred must be equally long, with one clip at least. "
            f"Got {len(true)} and {len(predicted)}."
        )
    return Scores.of(confusion_matrix(true, predicted, n_classes))


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


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Return clips by true class (rows) and predicted class (columns)."""
    flat = np.asarray(true, np.int64) * n_classes + np.asarray(predicted, np.int64)
    counts = np.bincount(flat, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def class_measures(confusion: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return each score of confusion matrices, as `Scores` and `scores` define them.

    Parameters
    ----------
    confusion : (..., n_classes, n_classes)
        Rows are true classes.

    Returns
    -------
    dict of name to array
        "uf1", "uar", "accuracy", and by true clips weighted "precision", "recall", "f1": (...).
        Of each class "class_precision", "class_recall", "class_f1": (..., n_classes), NaN where
        the class occurs nowhere in the formula.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true, said = confusion.sum(-1), confusion.sum(-2)
    clips = true.sum(-1)
    precision, recall = ratio(right, said), ratio(right, true)
    f1 = ratio(2 * right, true + said)
    return {
        "uf1": mean_of_known(f1),
        "uar": mean_of_known(recall),
        "accuracy": ratio(right.sum(-1), clips),
        "precision": ratio((np.nan_to_num(precision) * true).sum(-1), clips),
        "recall": ratio((np.nan_to_num(recall) * true).sum(-1), clips),
        "f1": ratio((np.nan_to_num(f1) * true).sum(-1), clips),
        "class_precision": precision,
        "class_recall": recall,
        "class_f1": f1,
    }


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Divide; NaN where the whole is nothing."""
    known = np.asarray(whole) > 0
    return np.where(known, part / np.where(known, whole, 1), np.nan)


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is."""
    return ratio(np.nansum(values, axis=-1), (~np.isnan(values)).sum(-1))
