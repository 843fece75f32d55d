"""A whole training: clips in, a folder of results out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import MEMORY, ClipDataset
from apexflow.storage.labels import APEX
from apexflow.storage.target import Target, disk_errors, exclusive
from apexflow.training import own
from apexflow.training.batches import reading_order
from apexflow.training.build import make_dataset
from apexflow.training.checkpoint import write_whole
from apexflow.training.config import TrainConfig, settings_of
from apexflow.training.estimators import check_settings, is_estimator
from apexflow.training.figures import draw_curves
from apexflow.training.final import FINAL, final_is_done, train_final
from apexflow.training.fitting import Machine
from apexflow.training.folds import By, Fold, make_folds, person, shown_by
from apexflow.training.jitter import JitteredClips, Shifter, check_memory
from apexflow.training.parallel import train_side_by_side
from apexflow.training.progress import Progress, counting
from apexflow.training.results import SeedResults, TrainResult
from apexflow.training.robustness import Robustness, ShiftScore
from apexflow.training.scoring import Prediction, Scoring, scoring_of
from apexflow.training.shifted import predict_shifted, warn_differs
from apexflow.training.shifts import shifts_to_test, shifts_within
from apexflow.training.task import FinishedFold, FoldTask, read_finished, train_task

_GOES_ON = "the folds finished so far are safe, and the same command goes on from there"
SEEN = "seen.json"
_BY_CONTENT = (("config", "weights"), ("config", "exclude"))
logger = logging.getLogger(__name__)

_PACKAGES = ("apexflow", "numba", "numpy", "scikit-learn", "torch", "torchvision", "zarr")


def train(
    data: ClipDataset | Target | Sequence[Target],
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    model: str | Callable[..., Any] | None = None,
    folds: By | None = None,
    seeds: int | Sequence[int] = 1,
    jobs: int = 1,
    final: bool = False,
    jitter_test: int = 0,
    device: str = "auto",
    mixed: bool | None = None,
    workers: int = 0,
    memory: int = MEMORY,
    progress: bool = True,
    **settings: Any,
) -> TrainResult | SeedResults:
    """Train and test a model in every fold, going on where an earlier run ended.

    Parameters
    ----------
    data : ClipDataset, or path, URL or Zarr store, or a sequence of them
    output : path
        A folder; made when it is not there. Holds ``config.json``, a folder a finished fold
        (``folds/``, with its checkpoint), and in the end ``predictions.csv``, ``subjects.csv``,
        ``classes.csv``, ``summary.csv``, ``summary.json``, ``table.md``, ``table.tex`` and the
        figures ``confusion`` (of action units ``units``, of the apex ``positions``) and
        ``curves`` as PNG, PDF and SVG; with several seeds, such a folder each (``seed-0/``, …).
    config : TrainConfig, optional
        In the place of ``model``; ``settings`` change it.
    model : str or callable
        A key of `apexflow.training.config.PRESETS`, with its published settings; or your own:
        a callable (n_classes, sample) to `torch.nn.Module`, a class of scikit-learn's kind, or
        either as "package.module:name".
    folds : str, int, path, splitter, mapping or sequence, optional
        What is left out in each fold, see `apexflow.training.folds.make_folds`; each person by
        default.
    seeds : int or sequence of int
        How many, counted from the configuration's own, or which.
    jobs : int
        Folds that are trained side by side, in processes of their own; 0 is one a core.
    final : bool
        Train a network on all clips, too (``final/``), for `apexflow.predict`.
    jitter_test : int
        Also score each fold's network with onset and apex of its test clips moved by up to so
        many frames (``jitter.csv``, ``jitter.json``); of a finished run, too.
    device : "auto", "cpu", "cuda", "cuda:1", …
    mixed : bool, optional
        Mixed precision; on a GPU by default.
    workers : int
        Processes that read what does not fit into memory.
    memory : int
        Bytes of samples to hold in memory, see `ClipDataset`.
    progress : bool
        Show folds, epochs and time left on standard error.
    **settings
        Any setting of `TrainConfig`.

    Returns
    -------
    TrainResult, or SeedResults of several seeds
        All folds' predictions, pooled.

    Raises
    ------
    ApexflowError
        A setting is wrong, the stores lack what the model is fed, there is one subject only, a
        person is on both sides of a fold, the folder holds results of another configuration,
        machine or of other clips, another training writes it, a file in it is damaged, its disk
        is full, there is no such device.
    """
    config = _config(config, model, settings, data)
    if isinstance(folds, str | int | Path):
        config, folds = replace(config, folds=folds if isinstance(folds, int) else str(folds)), None
    if is_estimator(config):
        check_settings(config)
        if device not in ("auto", "cpu"):
            raise ApexflowError(f"{config.model_name} is fitted on the CPU. Got device {device}.")
        device = "cpu"
    machine = find_machine(device, mixed, workers)
    if not isinstance(data, ClipDataset):
        data = make_dataset(data, config, memory=memory)
    dataset = data
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
    folder = Path(output)
    with disk_errors(f"cannot write to {folder}", _GOES_ON):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, who="training"):
            run = _Run(dataset, made, machine, shifter, jobs, show=progress)
            return run.train(folder, _seeds(config, seeds), final=final, jitter_test=jitter_test)


@dataclass(frozen=True, slots=True)
class _Seed:
    """The training of one seed: its configuration, and the folder it goes to."""

    config: TrainConfig
    folder: Path
    tasks: list[FoldTask]


class _Run:
    """The folds of some clips, trained with one seed after another."""

    def __init__(
        self,
        dataset: ClipDataset,
        folds: Sequence[Fold],
        machine: Machine,
        shifter: Shifter | None,
        jobs: int,
        *,
        show: bool,
    ) -> None:
        self._dataset, self._folds, self._machine = dataset, folds, machine
        self._shifter, self._jobs, self._show = shifter, jobs, show
        self._learnt: ClipDataset | None = None

    def train(
        self,
        folder: Path,
        configs: Sequence[TrainConfig],
        *,
        final: bool,
        jitter_test: int,
    ) -> TrainResult | SeedResults:
        several = len(configs) > 1
        _refuse_other_kind(folder, several=several)
        seeds = [
            self._seed(config, folder / f"seed-{config.seed}" if several else folder)
            for config in configs
        ]
        for seed in seeds:
            seed.folder.mkdir(exist_ok=True)
            _claim(seed.folder, self._description(seed.config))
        self._train_missing([task for seed in seeds for task in seed.tasks])
        results = [self._finish(seed) for seed in seeds]
        if final:
            for seed in seeds:
                self._train_final(seed)
        if jitter_test:
            results = self._test_shifts(seeds, results, jitter_test)
        if not several:
            return results[0]
        together = SeedResults(tuple(results))
        together.write(folder)
        together.write_robustness(folder)
        return together

    def _seed(self, config: TrainConfig, folder: Path) -> _Seed:
        tasks = [
            FoldTask(folder / "folds" / _file_name(i, fold), fold, config)
            for i, fold in enumerate(self._folds)
        ]
        return _Seed(config, folder, tasks)

    def _learnt_from(self, config: TrainConfig) -> ClipDataset:
        """Return what folds learn from: the clips as they are, or with all their shifts."""
        if not config.jitter:
            return self._dataset
        if self._learnt is None:
            assert self._shifter is not None
            shifts, clips = shifts_within(config.jitter), range(len(self._dataset))
            size = len(shifts) * self._dataset.nbytes / 1e6
            what = f"clips at {len(shifts)} shifts of their key frames ({size:,.1f} MB)"
            with self._counting(what) as on_clip:
                made = self._shifter.read(
                    clips, shifts, threads=self._side_by_side(config), on_clip=on_clip
                )
            warn_differs(made.differs)
            if any(made.clamped):
                logger.warning(
                    "jitter %d: %.0f%% of the shifts would leave their clip, and go as far as its "
                    "frames; a recipe with frames.which = 'all' keeps those around a clip, too",
                    *(config.jitter, 100 * sum(made.clamped) / (len(shifts) * len(clips))),
                )
            self._learnt = JitteredClips.of(self._dataset, made)
        return self._learnt

    def _counting(self, what: str) -> AbstractContextManager[Callable[[], None]]:
        return counting(what, len(self._dataset), show=self._show)

    def _side_by_side(self, config: TrainConfig) -> int:
        return _jobs(self._jobs, config.threads)

    def _train_missing(self, tasks: list[FoldTask]) -> None:
        missing = [task for task in tasks if self._read(task) is None]
        if not missing:
            return
        dataset = self._learnt_from(tasks[0].config)
        jobs = min(self._side_by_side(tasks[0].config), len(missing))
        shown = Progress(
            folds=len(tasks),
            finished=len(tasks) - len(missing),
            epochs=_epochs(tasks[0].config),
            jobs=jobs,
            show=self._show,
            told=self._told,
        )
        with shown:
            if jobs > 1:
                train_side_by_side(missing, dataset, self._machine, jobs, shown)
                return
            for task in missing:
                shown.begin(task)
                train_task(task, dataset, self._machine, partial(shown.epoch, task))
                shown.end(task)

    def _train_final(self, seed: _Seed) -> None:
        task = FoldTask(seed.folder / FINAL, replace(self._folds[0], name=FINAL), seed.config)
        if final_is_done(task.place):
            return
        dataset = self._learnt_from(seed.config)
        shown = Progress(
            folds=1,
            finished=0,
            epochs=_epochs(seed.config),
            jobs=1,
            show=self._show,
            told=lambda _: f"the network of all {len(self._dataset)} clips",
        )
        with shown:
            shown.begin(task)
            on_epoch = partial(shown.epoch, task)
            train_final(task.place, dataset, seed.config, self._machine, on_epoch)
            shown.end(task)

    def _finish(self, seed: _Seed) -> TrainResult:
        found = [self._finished(task) for task in seed.tasks]
        result = self._result(found, seed.config)
        result.write(seed.folder)
        # Who was learnt from, and whose frames: `predict` knows them again, by another name too.
        samples = self._dataset.samples
        seen = {
            "people": sorted({person(one) for one in samples}),
            "frames": {one.frames: person(one) for one in samples if one.frames},
        }
        write_whole(seed.folder / SEEN, json.dumps(seen, indent=0).encode())
        if not is_estimator(seed.config):
            curves = {fold.name: one.curves for fold, one in zip(self._folds, found, strict=True)}
            draw_curves(seed.folder / "curves", curves)
        return result

    def _read(self, task: FoldTask) -> FinishedFold | None:
        return read_finished(task, len(self._dataset.classes))

    def _finished(self, task: FoldTask) -> FinishedFold:
        found = self._read(task)
        assert found is not None
        return found

    def _told(self, task: FoldTask) -> str:
        finished = self._finished(task)
        said = self._scoring.told(self._predictions(task.fold, finished.probabilities))
        told = f"{task.name}: {said}"
        if finished.epoch:
            return f"{told}, epoch {finished.epoch}"
        return "".join([told, *(f", C {c:g}" for c in finished.curves.get("chosen_C", ()))])

    @property
    def _scoring(self) -> Scoring:
        return scoring_of(self._dataset.kind, self._dataset.classes)

    def _predictions(self, fold: Fold, rows: Iterable[Sequence[float]]) -> list[Prediction]:
        """Return what a fold says of its test clips, in their order."""
        found = []
        for i, row in zip(fold.test, rows, strict=True):
            who = self._dataset.samples[i]
            key = (who.dataset, who.subject, who.clip, fold.name)
            said = self._scoring.decide(row)
            found.append(Prediction(*key, who.label, said, tuple(row), who.person))
        return found

    def _result(self, found: Sequence[FinishedFold], config: TrainConfig) -> TrainResult:
        by_clip: dict[int, Prediction] = {}
        leaks: dict[int, Any] = {}
        for fold, finished in zip(self._folds, found, strict=True):
            said = self._predictions(fold, finished.probabilities)
            by_clip.update(zip(fold.test, said, strict=True))
            if finished.leak is not None:
                leaks.update(zip(fold.test, finished.leak.predicted, strict=True))
        return TrainResult(
            model=config.model_name,
            protocol=config.labels or "labels of the store",
            classes=self._dataset.classes,
            predictions=tuple(by_clip[i] for i in sorted(by_clip)),
            epochs={fold.name: one.epoch for fold, one in zip(self._folds, found, strict=True)},
            seed=config.seed,
            leaked=tuple(leaks[i] for i in sorted(leaks)),
            kind=self._dataset.kind,
        )

    def _test_shifts(
        self, seeds: Sequence[_Seed], results: Sequence[TrainResult], frames: int
    ) -> list[TrainResult]:
        """Score the networks with the key frames of their test clips moved; write that, too."""
        assert self._shifter is not None
        shifts = shifts_to_test(frames)
        with self._counting(f"clips tested at {len(shifts)} shifts of their key frames") as on_clip:
            found = predict_shifted(
                *([seed.tasks for seed in seeds], self._dataset, self._shifter, shifts),
                self._machine,
                threads=self._side_by_side(seeds[0].config),
                on_clip=on_clip,
            )
        tested = []
        for seed, result, by_shift in zip(seeds, results, found.rows, strict=True):
            scores = tuple(
                ShiftScore(*shift, clamped, self._headline(rows))
                for shift, clamped, rows in zip(shifts, found.clamped, by_shift, strict=True)
            )
            clips = len(result.predictions)
            robustness = Robustness(clips, self._scoring.headline, scores)
            tested.append(replace(result, robustness=robustness))
            tested[-1].write_robustness(seed.folder)
        return tested

    def _headline(self, rows: Mapping[int, NDArray[np.float32]]) -> dict[str, float]:
        """Return the scores that tables print of what all folds said of their test clips."""
        said = [
            one
            for fold in self._folds
            for one in self._predictions(fold, [rows[i].astype(float).tolist() for i in fold.test])
        ]
        scores = self._scoring.score(said)
        return {name: float(getattr(scores, name)) for name in self._scoring.headline}

    def _description(self, config: TrainConfig) -> dict[str, Any]:
        device = self._machine.device
        on_gpu = device.type == "cuda"
        described = {
            "config": config.to_dict(),
            "data": {
                "clips": len(self._dataset),
                "classes": list(self._dataset.classes),
                "fingerprint": self._dataset.fingerprint,
                "folds": _digest(repr([(f.name, f.train, f.test) for f in self._folds])),
                "weights": _file_digest(config.weights),
                "own code": {
                    name: own.digest_of(getattr(config, name))
                    for name in ("model", "optimizer", "loss", "schedule")
                    if callable(getattr(config, name)) or own.is_name(getattr(config, name))
                },
            },
            "machine": {
                "device": device.type,
                "mixed precision": self._machine.mixed,
                "reading order": reading_order(
                    self._dataset,
                    shuffle=config.shuffle,
                    oversample=config.balance == "oversample",
                    workers=self._machine.workers,
                ),
            },
            "stores": list(self._dataset.names),
            # What new clips are to be made by, to be predicted.
            "recipes": dict(self._dataset.recipes),
            "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
            "versions": {name: version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        }
        # As it will be read back: tuples are lists there.
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain


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


def _epochs(config: TrainConfig) -> int:
    return 1 if is_estimator(config) else config.epochs


def _config(
    config: TrainConfig | None,
    model: str | Callable[..., Any] | None,
    settings: dict[str, Any],
    data: Any,
) -> TrainConfig:
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


def _refuse_said_by_dataset(settings: Mapping[str, Any]) -> None:
    said = [name for name in ("sample", "labels", "exclude") if settings.get(name)]
    if said:
        raise ApexflowError(
            "a ClipDataset says itself what a sample holds, what is learnt and who is left out: "
            f"give {' and '.join(said)} there"
        )


def _seeds(config: TrainConfig, seeds: int | Sequence[int]) -> list[TrainConfig]:
    wanted = range(config.seed, config.seed + seeds) if isinstance(seeds, int) else tuple(seeds)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ApexflowError(f"seeds must be 1 or more, or different numbers. Got {seeds}.")
    return [replace(config, seed=seed) for seed in wanted]


def _refuse_other_kind(folder: Path, *, several: bool) -> None:
    one = (folder / "config.json").is_file()
    if one and several:
        raise ApexflowError(
            f"{folder} holds the results of one seed: choose another output for several"
        )
    if not several and not one and any(folder.glob("seed-*/config.json")):
        raise ApexflowError(
            f"{folder} holds the results of several seeds: choose another output, or say as many"
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


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Write the configuration into a new folder; refuse one that holds another's results."""
    path = folder / "config.json"
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
    for part, known in parts.items():
        for name, value in description[part].items():
            before = known.get(name)
            # Another path may hold the same: the weights' digest and the clips count.
            if before != value and (part, name) not in _BY_CONTENT:
                raise ApexflowError(
                    f"{folder} holds results with {name} {before!r}, now it is {value!r}: "
                    "take the same settings and clips, or another output"
                )


def _file_name(number: int, fold: Fold) -> str:
    return f"{number:03d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', fold.name)}"


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


def _processor() -> str:
    """Return what the CPU is called, as far as the system says."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.machine()


def _jobs(jobs: int, threads: int) -> int:
    if jobs < 0:
        raise ApexflowError(f"jobs must be 0 (one a core) or more. Got {jobs}.")
    if jobs:
        return jobs
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, cores // threads)


def find_machine(device: str, mixed: bool | None, workers: int) -> Machine:
    """Return where to train; `ApexflowError` when there is no such device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ApexflowError(f"device {device}: {str(error).splitlines()[0]}") from None
    on_gpu = chosen.type == "cuda"
    return Machine(chosen, on_gpu if mixed is None else mixed and on_gpu, workers)
