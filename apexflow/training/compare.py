"""Whether trainings differ: the same clips, scored side by side, with tests over people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apexflow.errors import ApexflowError
from apexflow.storage.labels import Kind
from apexflow.training.results import SeedResults, TrainResult, person_counts, read_result
from apexflow.training.scoring import Scoring, scoring_of
from apexflow.training.statistics import DRAWS, Interval, bootstrap, mcnemar, permutation
from apexflow.training.tables import Table

Result = TrainResult | SeedResults


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run beside the first.

    Attributes
    ----------
    name : str
    seeds : int
    intervals : dict of score to Interval
        Of the run itself, over people.
    difference : Interval or None
        Of the first score, UF1 of classes, this run less the first; None of the first.
    p : dict of score to float
        Of the paired permutation over people, two-sided; of UF1 and UAR, of action units of the
        means of F1 and recall, of the apex of its errors. Empty of the first.
    p_mcnemar : float or None
        Of McNemar's exact test over clips; None of the first, where there are several seeds,
        whose predictions of a clip are no single one, and where no clip is right as a whole.
    only_first, only_this : int
        Clips that one of the two has right, of one seed.
    """

    name: str
    seeds: int
    intervals: dict[str, Interval]
    difference: Interval | None = None
    p: dict[str, float] | None = None
    p_mcnemar: float | None = None
    only_first: int = 0
    only_this: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs over the same clips, each tested against the first.

    Attributes
    ----------
    runs : tuple of ComparedRun
    classes : tuple of str
    clips, people : int
    """

    runs: tuple[ComparedRun, ...]
    classes: tuple[str, ...]
    clips: int
    people: int
    kind: Kind = "class"

    def table(self) -> str:
        """Return one table as text, and what its columns are."""
        first = self.runs[0].name
        lines = [
            f"{self.clips} clips of {self.people} people, {', '.join(self.classes)}",
            self._table().to_text(),
            f"[ ]: 95 % of {DRAWS:,} bootstrap draws of the people; difference: "
            f"{self._titles[self._main]} less that of {first}",
            f"p of {', '.join(self._titles[name] for name in self._scoring.tested)}: paired "
            "permutation, each person's results exchanged as a whole",
        ]
        if self.kind == "class":
            lines.append(
                "p of McNemar: exact, clips taken for independent, which those of a person are not"
            )
        if any(run.seeds > 1 for run in self.runs):
            lines.append("several seeds: scores are means over them; McNemar's test needs one")
        if len(self.runs) > 2:
            lines.append(
                f"{len(self.runs) - 1} runs are tested: Holm's p holds for all of them together"
            )
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        return self._table().to_markdown()

    def to_latex(self) -> str:
        """Return the table in LaTeX, for the package booktabs."""
        return self._table().to_latex()

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values."""
        values = asdict(self)
        return {**values, "holm": self._holm()}

    @property
    def _scoring(self) -> Scoring:
        return scoring_of(self.kind, self.classes)

    @property
    def _titles(self) -> Mapping[str, str]:
        return self._scoring.headline

    @property
    def _main(self) -> str:
        return self._scoring.tested[0]

    def _table(self) -> Table:
        tests = [f"p {self._titles[name]}" for name in self._scoring.tested]
        if self.kind == "class":
            tests.append("p McNemar")
        several = len(self.runs) > 2
        if several:
            tests.insert(1, "Holm")
        corrected = self._holm()
        rows = []
        for run in self.runs:
            cells = [run.name, *(run.intervals[name].text(3) for name in self._titles)]
            if run.p is None or run.difference is None:
                rows.append((*cells, *("-" for _ in ("difference", *tests))))
                continue
            ps: list[float | None] = [run.p[name] for name in self._scoring.tested]
            if self.kind == "class":
                ps.append(run.p_mcnemar)
            if several:
                ps.insert(1, corrected[run.name])
            rows.append((*cells, run.difference.text(3, sign=True), *map(_p_text, ps)))
        return Table(("run", *self._titles.values(), "difference", *tests), tuple(rows))

    def _holm(self) -> dict[str, float]:
        """Return the p of the first score corrected for the number of runs (Holm 1979)."""
        found = sorted((run.p[self._main], run.name) for run in self.runs if run.p is not None)
        corrected: dict[str, float] = {}
        least = 0.0
        for i, (p, name) in enumerate(found):
            least = min(1.0, max(least, p * (len(found) - i)))
            corrected[name] = least
        return corrected


def compare(
    runs: Sequence[str | Path | Result], *, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Test each run against the first one.

    Parameters
    ----------
    runs : sequence of path, TrainResult or SeedResults
        Folders of finished trainings, or what `apexflow.train` returned; two at least.
    draws, seed : int
        Of the bootstrap and of the permutation.

    Returns
    -------
    Comparison

    Raises
    ------
    ApexflowError
        There are fewer than two runs, a folder holds no finished training, or the runs differ in
        their clips, classes, labels, people or number of seeds.
    """
    if len(runs) < 2:
        raise ApexflowError(f"compare takes two runs at least. Got {len(runs)}.")
    names = _names(runs)
    results = [read_result(run) if isinstance(run, str | Path) else run for run in runs]
    first = results[0]
    for name, result in zip(names[1:], results[1:], strict=True):
        _refuse_other(names[0], first, name, result)
    compared = [
        ComparedRun(names[0], len(first.runs), _intervals(first, draws, seed)),
        *(
            _against(first, name, result, draws, seed)
            for name, result in zip(names[1:], results[1:], strict=True)
        ),
    ]
    head = first.runs[0]
    return Comparison(
        tuple(compared), head.classes, len(head.predictions), len(head.people), head.kind
    )


def _intervals(result: Result, draws: int, seed: int) -> dict[str, Interval]:
    return result.intervals(draws=draws, seed=seed)


def _against(first: Result, name: str, result: Result, draws: int, seed: int) -> ComparedRun:
    theirs, ours = person_counts(first.runs), person_counts(result.runs)
    scoring = first.scoring
    difference = bootstrap(ours, scoring.measure, other=theirs, draws=draws, seed=seed)
    found = permutation(ours, theirs, scoring.measure, draws=draws, seed=seed)
    single = len(result.runs) == 1 and scoring.kind == "class"
    only_first, only_this = _discordant(first.runs[0], result.runs[0]) if single else (0, 0)
    return ComparedRun(
        name=name,
        seeds=len(result.runs),
        intervals=_intervals(result, draws, seed),
        difference=difference[scoring.tested[0]],
        p={score: float(found[score]) for score in scoring.tested},
        p_mcnemar=mcnemar(only_first, only_this) if single else None,
        only_first=only_first,
        only_this=only_this,
    )


def _discordant(first: TrainResult, second: TrainResult) -> tuple[int, int]:
    right = {one.key: one.predicted == one.label for one in first.predictions}
    pairs = [(right[one.key], one.predicted == one.label) for one in second.predictions]
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _refuse_other(first_name: str, first: Result, name: str, result: Result) -> None:
    """Refuse runs that cannot be compared clip by clip, and say how they differ."""
    if len(result.runs) != len(first.runs):
        raise ApexflowError(
            f"{first_name} has {len(first.runs)} seeds, {name} has {len(result.runs)}: compare as "
            "many of both, or one seed's folder of each"
        )
    if result.runs[0].kind != first.runs[0].kind or result.classes != first.classes:
        raise ApexflowError(
            f"{first_name} has the classes {', '.join(first.runs[0].classes)}, {name} has "
            f"{', '.join(result.runs[0].classes)}: their scores are of different things"
        )
    known = {one.key: one for one in first.runs[0].predictions}
    for run in (*first.runs, *result.runs):
        found = {one.key: one for one in run.predictions}
        for here, there, whose in ((known, found, name), (found, known, first_name)):
            lacking = [key for key in here if key not in there]
            if lacking:
                raise ApexflowError(
                    f"{first_name} and {name} are not of the same clips: {whose} lacks "
                    f"{len(lacking)}, such as {'/'.join(lacking[0])}; train both on the same"
                )
        for key, one in found.items():
            for what in ("label", "who"):
                if getattr(one, what) != getattr(known[key], what):
                    raise ApexflowError(
                        f"{first_name} and {name} differ in the "
                        f"{'label' if what == 'label' else 'person'} of {'/'.join(key)}: "
                        f"{_said(known[key], what, first)} and {_said(one, what, result)}"
                    )


def _said(one: object, what: str, result: Result) -> str:
    value = getattr(one, what)
    return result.runs[0].classes[value] if isinstance(value, int) else str(value)


def _names(runs: Sequence[str | Path | Result]) -> list[str]:
    """Return short names that differ: a folder's own, as much of its path as it takes."""
    paths = [Path(run) if isinstance(run, str | Path) else None for run in runs]
    names = [
        f"run {i + 1}" if path is None else path.resolve().name for i, path in enumerate(paths)
    ]
    if len(set(names)) < len(names):
        names = [
            name if path is None else str(path) for name, path in zip(names, paths, strict=True)
        ]
    if len(set(names)) < len(names):
        raise ApexflowError("the same run is named twice: compare it with another one")
    return names


def _p_text(p: float | None) -> str:
    if p is None:
        return "-"
    return "<.001" if p < 0.001 else f"{p:.3f}"
