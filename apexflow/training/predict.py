"""What trained networks say of clips: each by networks that have not seen its person."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import MEMORY, ClipDataset, SampleInfo
from apexflow.storage.labels import NO_LABEL, UNLABELLED, ClassMap, Kind, Label
from apexflow.storage.opened import Key
from apexflow.storage.target import Target
from apexflow.training.build import make_dataset
from apexflow.training.checkpoint import CHECKPOINT, Checkpoint, vouched_checkpoint
from apexflow.training.config import TrainConfig
from apexflow.training.final import FINAL
from apexflow.training.fitting import predict_clips
from apexflow.training.folds import person
from apexflow.training.machine import Machine, deterministic, find_machine
from apexflow.training.results import TrainResult, read_result, write_csv
from apexflow.training.run_folder import SEEN
from apexflow.training.scoring import Prediction, Scoring, scoring_of
from apexflow.training.scoring.base import DIGITS
from apexflow.training.tables import Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a trained run says of clips.

    Attributes
    ----------
    model, protocol : str
    classes : tuple of str
    predictions : tuple of Prediction
        One a clip, in the order of the store. ``fold`` says which network spoke: the fold's that
        did not see the person, "final", or "all folds" (the mean of their probabilities).
        ``label`` is -1 where it is unknown.
    own : int
        How many of the clips are the training's own test clips.
    kind : "class", "units" or "apex"
        What is predicted.
    """

    model: str
    protocol: str
    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    own: int = 0
    kind: Kind = "class"

    @property
    def scoring(self) -> Scoring:
        """How predictions of this kind are scored, written and drawn."""
        return scoring_of(self.kind, self.classes)

    @property
    def scored(self) -> TrainResult | None:
        """The clips whose class is known, as a result with scores; None where there is none."""
        known = tuple(one for one in self.predictions if one.label != NO_LABEL)
        if not known:
            return None
        return TrainResult(
            self.model, self.protocol, self.classes, known, epochs={}, kind=self.kind
        )

    def table(self) -> str:
        """Return a row a clip, which networks spoke, and the scores of what is labelled."""
        rows = (
            (f"{one.dataset}/{one.subject}/{one.clip}", *self.scoring.text(one), one.fold)
            for one in self.predictions
        )
        head = ("clip", *_HEADS[self.kind], "network")
        text = Table(head, tuple(rows)).to_text()
        return "\n".join([text, "", self.summary()])

    def summary(self) -> str:
        """Return which networks spoke, and the scores of the clips whose class is known."""
        unseen = sum(one.fold in (_ALL, FINAL) for one in self.predictions)
        count = len(self.predictions)
        lines = ["1 clip" if count == 1 else f"{count} clips"]
        if unseen:
            fold = next(one.fold for one in self.predictions if one.fold in (_ALL, FINAL))
            lines.append(f"{unseen} of people whom the training does not know, by {_SAID[fold]}")
        if unseen < len(self.predictions):
            lines.append(
                f"{len(self.predictions) - unseen} of people whom the training knows, each by the "
                f"network that did not see this person ({self.own} are its own test clips)"
            )
        scored = self.scored
        if scored is not None:
            lines.append(scored.table())
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """Write a CSV file as a training's ``predictions.csv``: a row a clip, probabilities."""
        try:
            write_csv(Path(path), *self.scoring.rows(self.predictions))
        except OSError as error:
            raise ApexflowError(f"cannot write {path}: {error.strerror}") from None


_HEADS: Mapping[Kind, tuple[str, str]] = {
    "class": ("class", "probability"),
    "units": ("units", "probability"),
    "apex": ("apex", ""),
}
_ALL = "all folds"
_SAID = {_ALL: "the mean of all folds' networks", FINAL: "the network trained on all clips"}


def predict_stores(
    run: str | Path,
    stores: ClipDataset | Target | Sequence[Target],
    *,
    network: str = "auto",
    model: Callable[..., Any] | None = None,
    device: str = "auto",
    memory: int = MEMORY,
) -> Predictions:
    """Predict the finished clips of stores; see `apexflow.predict`.

    Raises
    ------
    ApexflowError
        ``run`` is no finished training of one seed, weights are missing or damaged, the store
        was made by another recipe or lacks what the networks are fed.
    """
    trained = TrainedRun.read(run)
    config = trained.config
    if not isinstance(stores, ClipDataset):
        stores = make_dataset(
            stores, replace(config, labels=UNLABELLED, exclude=None), memory=memory
        )
    dataset = stores
    trained.check_recipes(dataset)
    result = trained.result
    labels = _labels(dataset, config, result)
    own = {one.key: one for one in trained.result.predictions}
    groups = _spoken_by(dataset.samples, trained, network)
    machine = trained.machine(device)
    probabilities: dict[int, NDArray[np.float32]] = {}
    for folds, indices in groups.items():
        found = [_predicted(trained, fold, dataset, indices, machine, model) for fold in folds]
        mean = found[0] if len(found) == 1 else np.stack(found).mean(0, dtype=np.float32)
        probabilities.update(dict(zip(indices, mean, strict=True)))
    spoken = {i: _called(folds, trained) for folds, indices in groups.items() for i in indices}
    made = []
    for i, sample in enumerate(dataset.samples):
        row = tuple(probabilities[i].astype(float))
        said = result.scoring.decide(row)
        made.append(Prediction(*_key(sample), spoken[i], labels[i], said, row, sample.person))
    _compare_own(made, own)
    return Predictions(
        result.model,
        result.protocol,
        result.classes,
        tuple(made),
        sum(one.key in own for one in made),
        result.kind,
    )


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished training as its folder keeps it.

    Attributes
    ----------
    folder : Path
    result : TrainResult
    config : TrainConfig
    described : dict
        config.json.
    places : dict of fold to Path
        The folder of each fold's network; "final" that of all clips, where there is one.
    people : frozenset of str
        Whom the training has seen, tested or not.
    shown : dict of frames to person
        Whose frames it has seen.
    """

    folder: Path
    result: TrainResult
    config: TrainConfig
    described: Mapping[str, Any]
    places: Mapping[str, Path] = field(repr=False)
    people: frozenset[str] = field(repr=False)
    shown: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, folder: str | Path) -> TrainedRun:
        """Read a run; `ApexflowError` when it is not finished, or of several seeds."""
        folder = Path(folder)
        result = read_result(folder)
        if not isinstance(result, TrainResult):
            raise ApexflowError(
                f"{folder} holds {len(result.runs)} seeds: name one, such as "
                f"{folder / f'seed-{result.runs[0].seed}'}"
            )
        path = folder / "config.json"
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            config = TrainConfig.from_dict(described["config"])
            path = folder / SEEN
            seen = json.loads(path.read_text(encoding="utf-8"))
            people, shown = frozenset(seen["people"]), dict(seen["frames"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ApexflowError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
        # Folders are numbered in the order of the folds, which `epochs` keeps.
        found = sorted((folder / "folds").glob("*/"))
        if len(found) != len(result.epochs):
            raise ApexflowError(
                f"{folder / 'folds'} holds {len(found)} of {len(result.epochs)} folds' networks: "
                "the command that trained them does the others again"
            )
        places = dict(zip(result.epochs, found, strict=True))
        if (folder / FINAL / CHECKPOINT).is_file():
            places[FINAL] = folder / FINAL
        return cls(folder, result, config, described, places, people, shown)

    def checkpoint(self, fold: str) -> Checkpoint:
        """Return a fold's network; `ApexflowError` when it is missing, damaged or another's."""
        place = self.places[fold]
        found = vouched_checkpoint(place)
        if found.fold != fold or found.classes != self.result.classes:
            raise ApexflowError(
                f"{place / CHECKPOINT} is of fold {found.fold} with the classes "
                f"{', '.join(found.classes)}, the run's is {fold} with "
                f"{', '.join(self.result.classes)}: take the folder as it was trained"
            )
        return found

    def check_recipes(self, dataset: ClipDataset) -> None:
        """Refuse stores that were made otherwise than those of the training."""
        known: dict[str, Any] = self.described.get("recipes", {})
        for name, (digest, recipe) in zip(dataset.names, dataset.recipes, strict=False):
            if digest in known or not known:
                continue
            differ = _differences(next(iter(known.values())), recipe)
            raise ApexflowError(
                f"{name} was made by another recipe than the training's stores "
                f"({', '.join(differ[:3])}): process the clips with the recipe of the run"
            )

    def recipe(self) -> dict[str, Any]:
        """Return the recipe of the training's stores; `ApexflowError` when it is no single one."""
        known: dict[str, Any] = self.described.get("recipes", {})
        if len(known) != 1 or not next(iter(known.values())):
            what = f"{len(known)} recipes" if known else "no recipe"
            raise ApexflowError(
                f"{self.folder} was trained on stores of {what}, so that it is open how to process "
                "a video: process it yourself, and give the store"
            )
        found: dict[str, Any] = next(iter(known.values()))
        return found

    def machine(self, device: str) -> Machine:
        """Return the kind of device that the run was trained on, unless another is wanted."""
        trained = self.described.get("machine", {})
        if device == "auto" and trained.get("device") == "cpu":
            device = "cpu"
        return find_machine(device, trained.get("mixed precision"), 0)


def _spoken_by(
    samples: Sequence[SampleInfo], run: TrainedRun, network: str
) -> dict[tuple[str, ...], list[int]]:
    """Return which folds' networks speak of which samples.

    Of a training's own test clip the fold that tested it; of another clip of a person whom the
    training knows, by name or by frames, those folds that tested the person; of others the final
    network, or all folds.
    """
    if network not in ("auto", "folds", FINAL):
        raise ApexflowError(f"network must be auto, folds or final. Got {network!r}.")
    if network == FINAL and FINAL not in run.places:
        raise ApexflowError(
            f"{run.folder} has no network trained on all clips: run its command again with --final"
        )
    folds = tuple(run.result.epochs)
    strangers = (FINAL,) if FINAL in run.places and network != "folds" else folds
    tested = {one.key: one.fold for one in run.result.predictions}
    of_person: dict[str, list[str]] = {}
    for one in run.result.predictions:
        of_person.setdefault(one.who, []).append(one.fold)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        key = _key(sample)
        if key in tested:
            spoken: tuple[str, ...] = (tested[key],)
        else:
            who = run.shown.get(sample.frames, person(sample))
            if who in run.people and who not in of_person:
                raise ApexflowError(
                    f"every network of {run.folder} has learnt from {who}, whom no fold tested: "
                    f"nothing honest can be said of {'/'.join(key)}; leave that clip out"
                )
            spoken = tuple(dict.fromkeys(of_person.get(who, strangers)))
        groups.setdefault(spoken, []).append(i)
    return groups


def _key(sample: SampleInfo) -> tuple[str, str, str]:
    return sample.dataset, sample.subject, sample.clip


def _called(folds: tuple[str, ...], run: TrainedRun) -> str:
    return _ALL if len(folds) > 1 and folds == tuple(run.result.epochs) else " + ".join(folds)


def _predicted(
    trained: TrainedRun,
    fold: str,
    dataset: ClipDataset,
    indices: Sequence[int],
    machine: Machine,
    model: Callable[..., Any] | None,
) -> NDArray[np.float32]:
    checkpoint = trained.checkpoint(fold)
    network, normal = checkpoint.network(machine.device, model=model), checkpoint.normalization
    config, kind = checkpoint.config, trained.result.kind
    with deterministic(config.seed, machine.device, config.threads):
        return predict_clips(network, normal, dataset, indices, machine, kind)


def _labels(dataset: ClipDataset, config: TrainConfig, result: TrainResult) -> list[Label]:
    """Return each clip's label as the run has them, NO_LABEL where it is unknown."""
    own = {one.key: one.label for one in result.predictions}
    try:
        found = dataset.class_map if dataset.classes else dataset.labelled(config.labels)
    except ApexflowError as error:
        logger.info("no label of these clips is known: %s", error)
        found = ClassMap({}, (), {}, (), result.kind)
    known = found.label_of
    if found.kind != result.kind or (found.kind == "units" and found.classes != result.classes):
        known = {}
    elif found.kind == "class":
        known = _by_name(found, result.classes)
    return [known.get(_key(one), own.get(_key(one), NO_LABEL)) for one in dataset.samples]


def _by_name(found: ClassMap, classes: Sequence[str]) -> dict[Key, Label]:
    """Return the place of each clip's class among the run's; without those it does not know."""
    place = {name: i for i, name in enumerate(classes)}
    named = found.class_of
    other = Counter(name for name in named.values() if name not in place)
    if other:
        logger.warning(
            "%d clips are of a class that the run does not know (%s): they are predicted, and not "
            "scored",
            other.total(),
            ", ".join(other),
        )
    return {key: place[name] for key, name in named.items() if name in place}


def _compare_own(
    made: Sequence[Prediction], own: Mapping[tuple[str, str, str], Prediction]
) -> None:
    """Warn where the training's own test clips come out otherwise than they did."""
    differences = [
        max(
            abs(round(new, DIGITS) - old)
            for new, old in zip(one.probabilities, own[one.key].probabilities, strict=True)
        )
        for one in made
        if one.key in own
    ]
    changed = [difference for difference in differences if difference > 0]
    if changed:
        logger.warning(
            "%d of the training's own %d test clips differ from predictions.csv, by up to %.2g: "
            "another machine or version rounds otherwise, or the store holds other pixels",
            *(len(changed), len(differences), max(changed)),
        )


def _differences(
    known: Mapping[str, Any], recipe: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Return where two recipes differ, as "crop.height 224, was 64"."""
    found: list[str] = []
    for name in dict.fromkeys((*known, *recipe)):
        before, now = known.get(name), recipe.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += _differences(before, now, f"{prefix}{name}.")
        elif before != now:
            found.append(f"{prefix}{name} {now!r}, was {before!r}")
    return found or ["another version of the recipe's rules"]
