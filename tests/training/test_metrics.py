import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

import apexflow as af
from apexflow.errors import ApexflowError

PAIRS = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=60),
    )
)


@given(PAIRS)
def test_scores_follow_their_definitions(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = drawn
    found = af.training.scores([t for t, _ in pairs], [p for _, p in pairs], n)
    f1s, recalls, weighted = [], [], 0.0
    for c in range(n):
        tp = sum(t == p == c for t, p in pairs)
        fp = sum(t != c and p == c for t, p in pairs)
        fn = sum(t == c and p != c for t, p in pairs)
        if tp + fp + fn:
            f1s.append(2 * tp / (2 * tp + fp + fn))
            weighted += f1s[-1] * (tp + fn) / len(pairs)
        if tp + fn:
            recalls.append(tp / (tp + fn))
    assert found.uf1 == pytest.approx(np.mean(f1s))
    assert found.uar == pytest.approx(np.mean(recalls))
    assert found.f1 == pytest.approx(weighted)
    assert found.accuracy == pytest.approx(np.mean([t == p for t, p in pairs]))
    assert found.recall == pytest.approx(found.accuracy)
    assert found.clips == len(pairs)
    for t in range(n):
        for p in range(n):
            assert found.confusion[t, p] == pairs.count((t, p))


@settings(max_examples=20)
@given(PAIRS)
def test_scores_are_those_of_scikit_learn(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = drawn
    true, said = [t for t, _ in pairs], [p for _, p in pairs]
    found = af.training.scores(true, said, n)
    assert found.uf1 == pytest.approx(metrics.f1_score(true, said, average="macro"))
    recalls = metrics.recall_score(true, said, labels=sorted(set(true)), average="macro")
    assert found.uar == pytest.approx(recalls)
    for name in ("precision", "recall", "f1"):
        theirs = getattr(metrics, f"{name}_score")(true, said, average="weighted", zero_division=0)
        assert getattr(found, name) == pytest.approx(theirs)


def test_precision_is_weighted_by_true_clips() -> None:
    # Class 0: 2 of 3 predictions right, 3 true clips; class 1: 1 of 2 right, 2 true clips.
    found = af.training.scores([0, 0, 0, 1, 1], [0, 0, 1, 0, 1], 2)
    assert found.precision == pytest.approx(3 / 5 * 2 / 3 + 2 / 5 * 1 / 2)


def test_pooling_is_not_averaging_folds() -> None:
    true = {"a": [0, 0, 1], "b": [2]}
    predicted = {"a": [0, 0, 0], "b": [2]}
    pooled = af.training.scores([*true["a"], *true["b"]], [*predicted["a"], *predicted["b"]], 3)
    folds = [af.training.scores(true[s], predicted[s], 3).uar for s in true]
    assert pooled.uar == pytest.approx(2 / 3)
    assert np.mean(folds) == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([0, 3], [0, 0], r"y_true must lie in 0..2. Got 3"),
        ([0, 1], [0, -1], r"y_pred must lie in 0..2. Got -1"),
        ([0, 1], [0], "equally long"),
        ([], [], "one clip at least"),
        ([0.5], [0], "one row of integers"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    true: list[int], predicted: list[int], message: str
) -> None:
    with pytest.raises(ApexflowError, match=message):
        af.training.scores(true, predicted, 3)


def test_scores_need_no_torch() -> None:
    code = (
        "import sys, apexflow as af; print(af.training.scores([0, 1], [0, 1], 2).uf1);"
        "assert 'torch' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "1.0"
