"""A whole training: clips in, a folder of results out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import MEMORY, ClipDataset
from apexflow.storage.target import Target, disk_errors, exclusive
from apexflow.system import cores
from apexflow.training.config import TrainConfig
from apexflow.training.estimators import check_settings, is_estimator
from apexflow.training.figures import draw_curves
from apexflow.training.final import FINAL, final_is_done, train_final
from apexflow.training.folds import By
from apexflow.training.jitter import jittered
from apexflow.training.machine import Machine, find_machine
from apexflow.training.parallel import train_side_by_side
from apexflow.training.plan import Plan, make_plan, settle_config
from apexflow.training.pooled import Pool
from apexflow.training.progress import Progress, counting
from apexflow.training.results import SeedResults, TrainResult
from apexflow.training.run_folder import claim, describe, fold_folder, refuse_other_kind, write_seen
from apexflow.training.shifted import predict_shifted
from apexflow.training.shifts import shifts_to_test, shifts_within
from apexflow.training.task import FinishedFold, FoldTask, read_finished, train_task

_GOES_ON = "the folds finished so far are safe, and the same command goes on from there"


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
    config = settle_config(config, model, settings, data)
    if is_estimator(config):
        check_settings(config)
        if device not in ("auto", "cpu"):
            raise ApexflowError(f"{config.model_name} is fitted on the CPU. Got device {device}.")
        device = "cpu"
    machine = find_machine(device, mixed, workers)
    plan = make_plan(data, config, folds=folds, seeds=seeds, jitter_test=jitter_test, memory=memory)
    folder = Path(output)
    with disk_errors(f"cannot write to {folder}", _GOES_ON):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, who="training"):
            run = _Run(plan, machine, _count_jobs(jobs, config.threads), show=progress)
            return run.train(folder, final=final)


@dataclass(frozen=True, slots=True)
class _Seed:
    """The training of one seed: its configuration, and the folder it goes to."""

    config: TrainConfig
    folder: Path
    tasks: list[FoldTask]


class _Run:
    """The folds of some clips, trained with one seed after another."""

    def __init__(self, plan: Plan, machine: Machine, jobs: int, *, show: bool) -> None:
        self._plan, self._machine, self._jobs, self._show = plan, machine, jobs, show
        self._dataset, self._folds = plan.dataset, plan.folds
        self._pool = Pool(plan.dataset, plan.folds)
        self._learnt: ClipDataset | None = None

    def train(self, folder: Path, *, final: bool) -> TrainResult | SeedResults:
        several = len(self._plan.configs) > 1
        refuse_other_kind(folder, several=several)
        seeds = [
            self._seed(config, folder / f"seed-{config.seed}" if several else folder)
            for config in self._plan.configs
        ]
        for seed in seeds:
            seed.folder.mkdir(exist_ok=True)
            description = describe(self._dataset, self._folds, seed.config, self._machine)
            claim(seed.folder, description)
        self._train_missing([task for seed in seeds for task in seed.tasks])
        results = [self._finish(seed) for seed in seeds]
        if final:
            for seed in seeds:
                self._train_final(seed)
        if self._plan.jitter_test:
            results = self._test_shifts(seeds, results)
        if not several:
            return results[0]
        together = SeedResults(tuple(results))
        together.write(folder)
        together.write_robustness(folder)
        return together

    def _seed(self, config: TrainConfig, folder: Path) -> _Seed:
        tasks = [
            FoldTask(fold_folder(folder, i, fold), fold, config)
            for i, fold in enumerate(self._folds)
        ]
        return _Seed(config, folder, tasks)

    def _train_missing(self, tasks: list[FoldTask]) -> None:
        missing = [task for task in tasks if self._read(task) is None]
        if not missing:
            return
        dataset = self._learnt_from(tasks[0].config)
        jobs = min(self._jobs, len(missing))
        shown = Progress(
            folds=len(tasks),
            finished=len(tasks) - len(missing),
            epochs=_epochs(tasks[0].config),
            jobs=jobs,
            show=self._show,
            told=lambda task: self._pool.told(task.fold, self._finished(task)),
        )
        with shown:
            if jobs > 1:
                train_side_by_side(missing, dataset, self._machine, jobs, shown)
                return
            for task in missing:
                shown.begin(task)
                train_task(task, dataset, self._machine, partial(shown.epoch, task))
                shown.end(task)

    def _learnt_from(self, config: TrainConfig) -> ClipDataset:
        """Return what folds learn from: the clips as they are, or with all their shifts."""
        if not config.jitter:
            return self._dataset
        if self._learnt is None:
            assert self._plan.shifter is not None
            count = len(shifts_within(config.jitter))
            size = count * self._dataset.nbytes / 1e6
            what = f"clips at {count} shifts of their key frames ({size:,.1f} MB)"
            with self._counting(what) as on_clip:
                self._learnt = jittered(
                    *(self._dataset, self._plan.shifter, config.jitter),
                    threads=self._jobs,
                    on_clip=on_clip,
                )
        return self._learnt

    def _finish(self, seed: _Seed) -> TrainResult:
        found = [self._finished(task) for task in seed.tasks]
        result = self._pool.result(found, seed.config)
        result.write(seed.folder)
        write_seen(seed.folder, self._dataset)
        if not is_estimator(seed.config):
            curves = {fold.name: one.curves for fold, one in zip(self._folds, found, strict=True)}
            draw_curves(seed.folder / "curves", curves)
        return result

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

    def _test_shifts(
        self, seeds: Sequence[_Seed], results: Sequence[TrainResult]
    ) -> list[TrainResult]:
        """Score the networks with the key frames of their test clips moved; write that, too."""
        assert self._plan.shifter is not None
        shifts = shifts_to_test(self._plan.jitter_test)
        with self._counting(f"clips tested at {len(shifts)} shifts of their key frames") as on_clip:
            found = predict_shifted(
                *([seed.tasks for seed in seeds], self._dataset, self._plan.shifter, shifts),
                self._machine,
                threads=self._jobs,
                on_clip=on_clip,
            )
        tested = []
        for seed, result, rows in zip(seeds, results, found.rows, strict=True):
            robustness = self._pool.robustness(shifts, rows, found.clamped)
            tested.append(replace(result, robustness=robustness))
            tested[-1].write_robustness(seed.folder)
        return tested

    def _read(self, task: FoldTask) -> FinishedFold | None:
        return read_finished(task, len(self._dataset.classes))

    def _finished(self, task: FoldTask) -> FinishedFold:
        found = self._read(task)
        assert found is not None
        return found

    def _counting(self, what: str) -> AbstractContextManager[Callable[[], None]]:
        return counting(what, len(self._dataset), show=self._show)


def _epochs(config: TrainConfig) -> int:
    return 1 if is_estimator(config) else config.epochs


def _count_jobs(jobs: int, threads: int) -> int:
    if jobs < 0:
        raise ApexflowError(f"jobs must be 0 (one a core) or more. Got {jobs}.")
    return jobs or max(1, cores() // threads)
