"""What a training is asked for, judged before it begins: settings, clips, folds, seeds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import MEMORY, ClipDataset
from apexflow.storage.labels import APEX
from apexflow.storage.target import Target
from apexflow.training.build import make_dataset
from apexflow.training.config import TrainConfig, settings_of
from apexflow.training.folds import By, Fold, make_folds, shown_by
from apexflow.training.jitter import Shifter, check_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained.

    Attributes
    ----------
    dataset : ClipDataset
    folds : sequence of Fold
    configs : sequence of TrainConfig
        One a seed; nothing else differs between them.
    jitter_test : int
        By how many frames test clips are moved afterwards; 0 moves none.
    shifter : Shifter or None
        Makes clips again with their key frames moved, where any are.
    """

    dataset: ClipDataset
    folds: Sequence[Fold]
    configs: Sequence[TrainConfig]
    jitter_test: int = 0
    shifter: Shifter | None = None


def settle_config(
    config: TrainConfig | None,
    model: str | Callable[..., Any] | None,
    settings: dict[str, Any],
    data: Any,
) -> TrainConfig:
    """Return the one configuration of what `train` was given.

    Raises `ApexflowError` when it names no model or two, a setting is wrong, or says what the
    ClipDataset says.
    """
    if (config is None) == (model is None):
        raise ApexflowError("train takes a model, or a TrainConfig that names one")
    settings = settings_of(settings)
    if isinstance(data, ClipDataset):
        _refuse_said_by_dataset(settings if config is None else config.to_dict())
        settings["labels"] = data.protocol
    if config is None:
        assert model is not None
        return TrainConfig.of(model, **settings)
    return replace(config, **settings) if settings else config


def make_plan(
    data: ClipDataset | Target | Sequence[Target],
    config: TrainConfig,
    *,
    folds: By | None = None,
    seeds: int | Sequence[int] = 1,
    jitter_test: int = 0,
    memory: int = MEMORY,
) -> Plan:
    """Open the clips, make their folds, and say what cannot be learnt from them.

    Raises `ApexflowError` when there is nothing to feed the model, no such folds can be made, or
    key frames cannot be moved.
    """
    if isinstance(folds, str | int | Path):
        config, folds = replace(config, folds=folds if isinstance(folds, int) else str(folds)), None
    dataset = data if isinstance(data, ClipDataset) else make_dataset(data, config, memory=memory)
    if dataset.class_map.left_out or dataset.class_map.warnings:
        logger.warning("%s", dataset.class_map)
    made = make_folds(dataset.samples, config.folds if folds is None else folds)
    _check_tested(dataset, made)
    shifter = _shifter(dataset, config, jitter_test)
    _tell_unlearnt(dataset, made)
    config = replace(
        config,
        sample=dataset.options,
        labels=config.labels or dataset.protocol,
        folds=config.folds if folds is None else "given in Python",
    )
    return Plan(dataset, made, _of_each_seed(config, seeds), jitter_test, shifter)


def _refuse_said_by_dataset(settings: Mapping[str, Any]) -> None:
    said = [name for name in ("sample", "labels", "exclude") if settings.get(name)]
    if said:
        raise ApexflowError(
            "a ClipDataset says itself what a sample holds, what is learnt and who is left out: "
            f"give {' and '.join(said)} there"
        )


def _check_tested(dataset: ClipDataset, folds: Sequence[Fold]) -> None:
    """Refuse folds that test a clip twice, and say how many clips none tests."""
    tested: dict[int, str] = {}
    names: set[str] = set()
    for fold in folds:
        if fold.name in names:
            raise ApexflowError(f"two folds are called {fold.name}: give each its own name")
        names.add(fold.name)
        for i in fold.test:
            if i in tested:
                who = dataset.samples[i]
                raise ApexflowError(
                    f"folds {tested[i]} and {fold.name} both test {who.dataset}/{who.subject}/"
                    f"{who.clip}: its two predictions cannot be pooled"
                )
            tested[i] = fold.name
    if not folds:
        raise ApexflowError("there is no fold: say which clips are tested")
    if len(tested) < len(dataset):
        logger.warning(
            "%d of %d clips are tested in no fold", len(dataset) - len(tested), len(dataset)
        )


def _tell_unlearnt(dataset: ClipDataset, folds: Sequence[Fold]) -> None:
    """Say which classes or units are tested in folds that have no training clip of them."""
    where: dict[int, list[str]] = {}
    for fold in folds:
        tested, learnt = (
            shown_by(dataset.samples[i].label for i in side) for side in (fold.test, fold.train)
        )
        for place in tested - learnt:
            where.setdefault(place, []).append(fold.name)
    for place, names in sorted(where.items()):
        logger.warning(
            "%s is tested in %d of %d folds (%s%s) that have no training clip of it: it cannot be "
            "learnt there",
            *(dataset.classes[place], len(names), len(folds), ", ".join(names[:3])),
            ", …" if len(names) > 3 else "",
        )


def _shifter(dataset: ClipDataset, config: TrainConfig, jitter_test: int) -> Shifter | None:
    """Return what makes clips again with their key frames moved; None where none are.

    Raises `ApexflowError` where that cannot be.
    """
    if jitter_test < 0:
        raise ApexflowError(f"jitter_test must be 0 or more. Got {jitter_test}.")
    if not config.jitter and not jitter_test:
        return None
    if dataset.kind == APEX:
        raise ApexflowError(
            "labels 'apex' is where the apex lies from the onset on, which jitter would move: take "
            "jitter 0 and no jitter test"
        )
    # Its steps are the engine's, which no other training needs.
    from apexflow.shifted_clips import ShiftedClips

    shifter = ShiftedClips(dataset)
    if config.jitter:
        check_memory(dataset, config.jitter)
    return shifter


def _of_each_seed(config: TrainConfig, seeds: int | Sequence[int]) -> list[TrainConfig]:
    wanted = range(config.seed, config.seed + seeds) if isinstance(seeds, int) else tuple(seeds)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ApexflowError(f"seeds must be 1 or more, or different numbers. Got {seeds}.")
    return [replace(config, seed=seed) for seed in wanted]
