import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from apexflow.errors import ApexflowError
from apexflow.training.metrics import class_measures
from apexflow.training.results import SeedResults, person_counts
from apexflow.training.statistics import Interval, bootstrap, mcnemar, permutation
from tests.training.predictions import CLASSES, arrays, random_result


def f1s(true: np.ndarray, predicted: np.ndarray) -> list[float]:
    found = []
    for label in range(3):
        truly, said = true == label, predicted == label
        if truly.any() or said.any():
            found.append(2 * (truly & said).sum() / (truly.sum() + said.sum()))
    return found


def recalls(true: np.ndarray, predicted: np.ndarray) -> list[float]:
    return [float((predicted[true == label] == label).mean()) for label in np.unique(true)]


SCORES = {
    "uf1": lambda t, p: np.mean(f1s(t, p)),
    "uar": lambda t, p: np.mean(recalls(t, p)),
    "accuracy": lambda t, p: np.mean(t == p),
    "f1/positive": lambda t, p: f1s(t, p)[1],
}


@pytest.mark.parametrize("score", SCORES)
def test_the_bootstrap_is_that_of_clips_drawn_person_by_person(score: str) -> None:
    result = random_result(0.5, people=9, clips=90)
    true, predicted, who = arrays(result)
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(1000):
        people = rng.integers(9, size=9)
        clips = np.concatenate([np.flatnonzero(who == one) for one in people])
        drawn.append(SCORES[score](true[clips], predicted[clips]))
    found = result.interval(score)
    assert found.value == pytest.approx(SCORES[score](true, predicted))
    # Two estimates of the same two percentiles, of 1,000 and of 10,000 draws.
    np.testing.assert_allclose(
        (found.low, found.high), np.percentile(drawn, (2.5, 97.5)), atol=0.02
    )


def test_clips_of_one_person_are_no_independent_evidence() -> None:
    """Twenty copies of each clip, of the same people: the interval stays as wide as it was."""
    counts = person_counts([random_result(0.5)])
    one, many = (bootstrap(k * counts, class_measures)["uf1"] for k in (1, 20))
    assert one == many


def test_a_wider_level_is_a_wider_interval_and_one_person_gives_none() -> None:
    result = random_result(0.6)
    narrow, wide = (result.interval("uar", level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    alone = random_result(0.6, people=1).interval("uf1")
    assert math.isnan(alone.low)
    assert str(alone) == f"{alone.value:.4f}"
    with pytest.raises(ApexflowError, match=r"score must be one of uf1, uar.*Got 'auc'"):
        result.interval("auc")
    with pytest.raises(ApexflowError, match="dataset must be one of a, b"):
        result.interval(dataset="c")
    with pytest.raises(ApexflowError, match="level must lie between"):
        result.interval(level=95)


def test_a_class_that_is_nowhere_has_no_score() -> None:
    result = random_result(1.0, clips=3)
    missing = next(i for i in range(3) if i not in {one.label for one in result.predictions})
    found = result.interval(f"recall/{CLASSES[missing]}")
    assert math.isnan(found.value)
    assert str(found) == "-"


def test_seeds_are_averaged_before_people_are_drawn() -> None:
    runs = [random_result(0.6, seed) for seed in range(3)]
    together = SeedResults(tuple(runs))
    mean = together.interval("uf1")
    assert mean.value == pytest.approx(np.mean([one.scores.uf1 for one in runs]))
    assert together.deviation["uar"] == pytest.approx(
        np.std([one.scores.uar for one in runs], ddof=1)
    )
    single = runs[0].interval("uf1")
    assert mean.high - mean.low < single.high - single.low


@pytest.mark.parametrize("score", ["uf1", "uar"])
def test_the_permutation_of_few_people_is_exhaustive(score: str) -> None:
    first, second = random_result(0.5, 1), random_result(0.8, 2)
    true, one, who = arrays(first)
    two = arrays(second)[1]
    observed = abs(SCORES[score](true, one) - SCORES[score](true, two))
    reached = 0
    for pattern in range(2**6):
        swap = (pattern >> who) & 1 == 1
        ours, theirs = np.where(swap, two, one), np.where(swap, one, two)
        difference = abs(SCORES[score](true, ours) - SCORES[score](true, theirs))
        reached += difference >= observed - 1e-12
    found = permutation(*(person_counts([run]) for run in (first, second)), class_measures)
    assert found[score] == pytest.approx(reached / 2**6)


def test_the_permutation_of_many_people_draws() -> None:
    first, second = (
        person_counts([random_result(skill, seed, people=40, clips=400)])
        for skill, seed in ((0.5, 1), (0.56, 2))
    )
    found = float(permutation(first, second, class_measures)["uf1"])
    again = float(permutation(first, second, class_measures, seed=1)["uf1"])
    assert found == pytest.approx(again, abs=0.03)
    assert float(permutation(first, first, class_measures)["uf1"]) == 1
    perfect = person_counts([random_result(1.0, people=40, clips=400)])
    assert float(permutation(first, perfect, class_measures, draws=1000)["uf1"]) == 1 / 1000


def test_without_a_difference_small_p_are_as_rare_as_they_say() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        counts = rng.integers(0, 5, (2, 1, 8, 3, 3)) + np.eye(3, dtype=int)
        found.append(float(permutation(counts[0], counts[1], class_measures)["uf1"]))
    # 200 draws of an event of 1 in 10: 8 to 35 with 99.7 %.
    assert 8 <= np.sum(np.array(found) <= 0.1) <= 35


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    theirs = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(theirs)


def test_an_interval_is_read_beside_its_score() -> None:
    found = Interval(0.7116, 0.6453, 0.7692)
    assert str(found) == "0.7116 [0.6453, 0.7692]"
    assert Interval(0.03, -0.01, 0.0).text(2, sign=True) == "+0.03 [-0.01, +0.00]"
