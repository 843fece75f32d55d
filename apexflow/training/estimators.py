"""Classifiers that are not trained epoch by epoch: linear SVM, logistic regression, scikit-learn's.

`fit_estimator` gives what a network's training gives, a module from samples to logits, so that
folds, checkpoints, results and predictions are the same for both. scikit-learn solves; the linear
ones become a `LinearClassifier`, any other estimator is kept as it is.
"""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.labels import APEX, named_units
from apexflow.training import own
from apexflow.training.batches import Normalization, in_order, one_input
from apexflow.training.config import TrainConfig
from apexflow.training.folds import group_folds, people
from apexflow.training.metrics import scores
from apexflow.training.models.linear import LinearClassifier

C_GRID = tuple(10.0**power for power in range(-6, 2))
"""Values of C that are tried, in steps of ten, for features of mean 0 and deviation 1."""

_INNER_FOLDS = 5
# Directions in which training clips differ by less than this part of the largest are rounding.
_LEAST_PART = 1e-12
_LINEAR_OPTIONS = ("C", "inner_folds")
# What a training of networks has and an estimator has not.
_OF_NETWORKS = (
    *("epochs", "batch_size", "lr", "weight_decay", "optimizer", "loss", "schedule", "clip_norm"),
    *("augment", "jitter", "shuffle", "choose", "validation", "patience", "report_leak", "weights"),
)


@dataclass(frozen=True, slots=True)
class FittedEstimator:
    """A classifier as a module, and what it was fitted with.

    Attributes
    ----------
    network : nn.Module
    normalization : Normalization
    curves : dict
        Of a linear classifier whose C was chosen: "C", the values that were tried, their
        "inner_uar", and "chosen_C".
    sample_shape : tuple of int
    """

    network: nn.Module
    normalization: Normalization
    curves: dict[str, list[float]]
    sample_shape: tuple[int, ...]


def is_estimator(config: TrainConfig) -> bool:
    """Whether the model is fitted at once: one of ours, or a class of scikit-learn's kind."""
    if config.preset is not None:
        return config.preset.network == LinearClassifier.__name__
    found = own.find(config.model)
    return isinstance(found, type) and hasattr(found, "fit") and hasattr(found, "predict")


def check_settings(config: TrainConfig) -> None:
    """Refuse settings that an estimator would silently pass over."""
    if config.labels == APEX or named_units(config.labels) is not None:
        raise ApexflowError(
            f"{config.model_name} tells classes apart: labels {config.labels!r} take a network"
        )
    defaults = {one.name: one.default for one in fields(TrainConfig)}
    defaults["loss"] = "cross-entropy"  # which classes take where nothing is said
    for name in _OF_NETWORKS:
        if getattr(config, name) != defaults[name]:
            raise ApexflowError(
                f"{config.model_name} is not trained in epochs: leave out the setting {name}"
            )
    if config.balance == "oversample":
        raise ApexflowError(f"{config.model_name} takes balance 'weights' or 'none'")
    if config.preset is None:
        return
    for name in config.options:
        if name not in _LINEAR_OPTIONS:
            raise ApexflowError(
                f"{config.model_name} has no option {name!r}; it has {', '.join(_LINEAR_OPTIONS)}"
            )
    c, inner = config.options.get("C"), config.options.get("inner_folds", _INNER_FOLDS)
    if c is not None and not (isinstance(c, int | float) and np.isfinite(c) and c > 0):
        raise ApexflowError(f"option C must be a number above 0. Got {c!r}.")
    if not isinstance(inner, int) or isinstance(inner, bool) or inner < 2:
        raise ApexflowError(f"option inner_folds must be 2 or more. Got {inner!r}.")


def fit_estimator(
    dataset: ClipDataset, indices: Sequence[int], config: TrainConfig, *, seed: int
) -> FittedEstimator:
    """Fit on these clips and no others: means and deviations, C and weights are theirs.

    Raises `ApexflowError` when all of them are of one class, or the estimator fails.
    """
    from threadpoolctl import threadpool_limits

    labels = np.array([dataset.samples[i].label for i in indices])
    if len(set(labels.tolist())) < 2:
        raise ApexflowError(
            f"{config.model_name}: all {len(indices)} training clips are of class "
            f"{dataset.classes[labels[0]]}: there is nothing to tell apart"
        )
    # Sums are split over threads: another number of them rounds otherwise.
    with threadpool_limits(config.threads):
        found = (
            _fit_linear(dataset, indices, labels, config)
            if config.preset is not None
            else _fit_own(dataset, indices, labels, config, seed)
        )
    sample = one_input(dataset[indices[0]][0])
    assert isinstance(sample, torch.Tensor)  # sequences of any length are refused by now
    return FittedEstimator(*found, sample_shape=tuple(sample.shape))


def _fit_linear(
    dataset: ClipDataset, indices: Sequence[int], labels: NDArray[np.int64], config: TrainConfig
) -> tuple[nn.Module, Normalization, dict[str, list[float]]]:
    curves: dict[str, list[float]] = {}
    given = config.options.get("C")
    if given is None:
        found = _inner_uar(dataset, indices, config)
        # Of equally good ones the smallest: the simplest classifier.
        chosen = C_GRID[int(np.argmax(found))]
        curves = {"C": list(C_GRID), "inner_uar": found, "chosen_C": [chosen]}
    else:
        chosen = float(given)
    normalization = Normalization.fit(config.normalize, dataset, indices)
    values = _matrix(dataset, indices, normalization)
    network = LinearClassifier(len(dataset.classes), values.shape[1])
    weight, bias = _Linear(values, labels, config).weights(chosen, len(dataset.classes))
    network.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return network, normalization, curves


def _inner_uar(dataset: ClipDataset, indices: Sequence[int], config: TrainConfig) -> list[float]:
    """Return the recall of each C on people of the training clips, pooled over inner folds."""
    inside = [dataset.samples[i] for i in indices]
    count = len(people(inside, range(len(inside))))
    if count < 2:
        raise ApexflowError(
            f"{config.model_name}: C is chosen on people, and the training clips show one person "
            "only; give it (--option C=0.001)"
        )
    said = np.full((len(C_GRID), len(indices)), -1)
    n_classes = len(dataset.classes)
    wanted = min(count, config.options.get("inner_folds", _INNER_FOLDS))
    for fold in group_folds(inside, wanted):
        learnt, tested = ([indices[i] for i in side] for side in (fold.train, fold.test))
        labels = np.array([dataset.samples[i].label for i in learnt])
        if len(set(labels.tolist())) < 2:
            said[:, fold.test] = labels[0]
            continue
        normalization = Normalization.fit(config.normalize, dataset, learnt)
        linear = _Linear(_matrix(dataset, learnt, normalization), labels, config)
        values = _matrix(dataset, tested, normalization)
        for row, c in zip(said, C_GRID, strict=True):
            weight, bias = linear.weights(c, n_classes)
            row[list(fold.test)] = np.argmax(values @ weight.T + bias, axis=1)
    true = [one.label for one in inside]
    return [scores(true, row.tolist(), n_classes).uar for row in said]


class _Linear:
    """Training samples, turned so that there are no more directions than samples.

    The weights of a linear classifier with a squared norm are a sum of training samples
    (representer theorem), so that it is solved where the samples are: its length, decision values
    and optimum stay what they are, and C is tried in milliseconds whatever the number of features.
    """

    def __init__(
        self, values: NDArray[np.float64], labels: NDArray[np.int64], config: TrainConfig
    ) -> None:
        self._labels, self._config = labels, config
        if values.shape[1] <= len(values):
            self._turned, self._back = values, None
            return
        found, vectors = np.linalg.eigh(values @ values.T)
        kept = found > _LEAST_PART * found[-1]
        length = np.sqrt(found[kept])
        self._turned = vectors[:, kept] * length
        self._back = (vectors[:, kept] / length).T @ values

    def weights(self, c: float, n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weights (class, feature) and offsets (class) of all classes."""
        there = np.unique(self._labels)
        solved = self._solve(c)
        weight = np.zeros((n_classes, self._turned.shape[1]))
        bias = np.full(n_classes, -np.inf)
        bias[there] = 0
        # Of two classes there is one decision value, that of the second.
        at = there[1:] if len(there) == 2 else there
        weight[at], bias[at] = solved
        return (weight if self._back is None else weight @ self._back), bias

    def _solve(self, c: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.svm import SVC

        balanced = "balanced" if self._config.balance == "weights" else None
        if self._config.model == "logistic":
            logistic = LogisticRegression(C=c, class_weight=balanced, max_iter=10_000)
            logistic.fit(self._turned, self._labels)
            return logistic.coef_, logistic.intercept_
        svm = OneVsRestClassifier(SVC(kernel="linear", C=c, class_weight=balanced))
        svm.fit(self._turned, self._labels)
        weights = np.concatenate([one.coef_ for one in svm.estimators_])
        return weights, np.concatenate([one.intercept_ for one in svm.estimators_])


def _fit_own(
    dataset: ClipDataset,
    indices: Sequence[int],
    labels: NDArray[np.int64],
    config: TrainConfig,
    seed: int,
) -> tuple[nn.Module, Normalization, dict[str, list[float]]]:
    normalization = Normalization.fit(config.normalize, dataset, indices)
    values = _matrix(dataset, indices, normalization)
    estimator = _make(config, seed)
    try:
        estimator.fit(values, labels)
    except Exception as error:  # whatever the user's own code raises
        raise _failed(config, error) from error
    return EstimatorNetwork(len(dataset.classes), estimator), normalization, {}


def _make(config: TrainConfig, seed: int) -> Any:
    """Return a fresh estimator; its seed is the fold's where it has one and none was given."""
    kind: Any = own.find(config.model)
    options = dict(config.options)
    try:
        takes = inspect.signature(kind).parameters
        if "random_state" in takes:
            options.setdefault("random_state", seed)
        if config.balance == "weights":
            if "class_weight" not in takes:
                raise ApexflowError(f"{config.model_name} takes no weights of classes")
            options["class_weight"] = "balanced"
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise _failed(config, error) from error


def _failed(config: TrainConfig, error: Exception) -> ApexflowError:
    reason = str(error).splitlines()[0] if str(error) else "no message"
    return ApexflowError(f"{config.model_name} failed ({type(error).__name__}: {reason})")


def _matrix(
    dataset: ClipDataset, indices: Sequence[int], normalization: Normalization
) -> NDArray[np.float64]:
    """Return (clip, feature) of these clips, normalised; of maps and flow all values in a row."""
    rows = []
    for values, _ in in_order(dataset, indices, 64):
        given = normalization(one_input(values))
        if not isinstance(given, torch.Tensor):
            raise ApexflowError(
                "samples of different lengths have no fixed number of features: give --n-frames, "
                "or features"
            )
        rows.append(given.flatten(1).double().numpy())
    return np.concatenate(rows)


class EstimatorNetwork(nn.Module):
    """A scikit-learn estimator as a module: samples to the logarithms of its probabilities.

    Where it has no ``predict_proba``, the decision values; where it has none either, 0 for the
    predicted class and minus infinity for the others. In a checkpoint it is a pickle.

    Parameters
    ----------
    n_classes : int
    estimator
        Fitted; None of one whose state is loaded.
    """

    def __init__(self, n_classes: int, estimator: Any = None) -> None:
        super().__init__()
        self._n_classes, self._estimator = n_classes, estimator

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        given = values.flatten(1).double().cpu().numpy()
        logits = np.full((len(given), self._n_classes), -np.inf)
        if self._estimator is None:
            logits[:] = 0
        else:
            columns, found = self._scores(given)
            logits[:, columns] = found
        return torch.from_numpy(logits)

    def _scores(self, given: NDArray[np.float64]) -> tuple[Any, NDArray[np.float64]]:
        estimator = self._estimator
        if hasattr(estimator, "predict_proba"):
            with np.errstate(divide="ignore"):
                return estimator.classes_, np.log(estimator.predict_proba(given))
        if hasattr(estimator, "decision_function"):
            found = np.asarray(estimator.decision_function(given))
            if found.ndim == 1:
                found = np.stack([np.zeros_like(found), found], axis=1)
            return estimator.classes_, found
        said = np.asarray(estimator.predict(given), int)
        return slice(None), np.where(np.arange(self._n_classes) == said[:, None], 0, -np.inf)

    def get_extra_state(self) -> torch.Tensor:
        return torch.frombuffer(bytearray(pickle.dumps(self._estimator)), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of another version of scikit-learn
            try:
                self._estimator = pickle.loads(state.numpy().tobytes())
            except Exception as error:  # whatever a pickle of another version raises
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ApexflowError(
                    f"the estimator of this run cannot be read here ({reason}); install the "
                    "versions that config.json names, or train again"
                ) from None
