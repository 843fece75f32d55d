import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import apexflow as af
from apexflow.cli import cli
from apexflow.errors import ApexflowError
from apexflow.training.results import SeedResults, TrainResult, read_result
from tests.training.predictions import random_result


def written(folder: Path, result: TrainResult) -> Path:
    folder.mkdir(parents=True)
    result.write(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    skills = {"first": 0.4, "second": 0.95, "third": 0.45}
    return [
        written(root / name, random_result(skill, seed))
        for seed, (name, skill) in enumerate(skills.items())
    ]


def test_runs_are_compared_as_they_were_written(folders: list[Path]) -> None:
    results = [random_result(skill, seed) for seed, skill in enumerate((0.4, 0.95, 0.45))]
    found, read = af.compare(results), af.compare(folders)
    assert [run.name for run in read.runs] == ["first", "second", "third"]
    assert [run.p for run in read.runs] == [run.p for run in found.runs]
    second, third = read.runs[1:]
    assert second.p is not None
    assert third.p is not None
    # Of 2 ** 6 exchanges at least two, all and none, are as extreme.
    assert 2 / 64 <= second.p["uf1"] <= 6 / 64
    assert third.p["uf1"] > 0.1
    right = [[one.predicted == one.label for one in run.predictions] for run in results]
    pairs = list(zip(right[0], right[1], strict=True))
    assert (second.only_first, second.only_this) == (
        pairs.count((True, False)),
        pairs.count((False, True)),
    )
    assert second.difference is not None
    assert second.difference.value == pytest.approx(results[1].scores.uf1 - results[0].scores.uf1)
    # Two tests: the smaller p is doubled.
    assert read.to_dict()["holm"]["second"] == 2 * second.p["uf1"]


def test_the_table_names_each_run_with_intervals(folders: list[Path], tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        told = CliRunner().invoke(
            cli, ["compare", *map(str, folders), *arguments], catch_exceptions=False
        )
        assert told.exit_code == 0
        return told.output

    rows = {line.split()[0]: line for line in run().splitlines()}
    for folder in folders:
        assert rows[folder.name].count("[") == 3 + (folder.name != "first")
    assert run("--format", "latex").startswith("\\begin{tabular}{lrrrrrrrr}")
    assert run("--format", "markdown").startswith("| run | UF1 |")
    assert json.loads(run("--format", "json"))["people"] == 6
    assert run("-o", str(tmp_path / "table.txt")) == ""
    assert (tmp_path / "table.txt").read_text() == run()


def test_seeds_are_compared_seed_by_seed() -> None:
    first, second = (
        SeedResults(tuple(random_result(skill, seed) for seed in range(2))) for skill in (0.4, 0.9)
    )
    found = af.compare([first, second])
    assert found.runs[1].p_mcnemar is None
    assert "McNemar's test needs one" in found.table()
    with pytest.raises(ApexflowError, match="run 1 has 2 seeds, run 2 has 1"):
        af.compare([first, second.results[0]])


def other_label(result: TrainResult) -> TrainResult:
    first, *rest = result.predictions
    return replace(result, predictions=(replace(first, label=(first.label + 1) % 3), *rest))


def other_person(result: TrainResult) -> TrainResult:
    first, *rest = result.predictions
    return replace(result, predictions=(replace(first, person="x"), *rest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, predictions=r.predictions[2:]), "run 2 lacks 2, such as"),
        (other_label, "differ in the label of"),
        (other_person, "differ in the person of .*/c0: .* and x"),
        (lambda r: replace(r, classes=("a", "b", "c")), "has the classes negative"),
    ],
)
def test_runs_of_other_things_are_refused(change: object, message: str) -> None:
    result = random_result(0.5)
    assert callable(change)
    with pytest.raises(ApexflowError, match=message):
        af.compare([result, change(result)])


def test_what_is_no_run_is_told(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ApexflowError, match="two runs at least"):
        af.compare(folders[:1])
    with pytest.raises(ApexflowError, match="named twice"):
        af.compare([folders[0], folders[0]])
    with pytest.raises(ApexflowError, match=r"no finished training: there is no summary.json"):
        af.compare([folders[0], tmp_path])
    broken = written(tmp_path / "broken", random_result(0.5))
    table = broken / "predictions.csv"
    table.write_text(table.read_text().replace(",c0,fold", ",c0,fold 9,7,7\n"))
    with pytest.raises(ApexflowError, match=r"predictions.csv is damaged \(") as told:
        read_result(broken)
    assert "\n" not in str(told.value)


def test_tables_print_names_as_they_are(tmp_path: Path) -> None:
    result = replace(random_result(0.5), classes=("a_b", "50%", "x|y"))
    assert "a_b, 50%, x|y" in result.table()
    assert result.to_latex().count(r"\\") == 4
    written(tmp_path / "run", result)
    assert read_result(tmp_path / "run").scores.uf1 == result.scores.uf1
    marked = replace(result, leaked=tuple(one.label for one in result.predictions))
    last = marked.table().splitlines()[-1]
    assert last.startswith("LEAK, not a result: ")
    assert "UF1 1.0000" in last
