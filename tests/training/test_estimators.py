"""Linear classifiers and scikit-learn's estimators in the folds of the networks."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import apexflow as af
from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.training.batches import Normalization
from apexflow.training.config import TrainConfig
from apexflow.training.estimators import C_GRID, fit_estimator
from apexflow.training.fitting import fit_fold
from apexflow.training.folds import make_folds
from apexflow.training.machine import find_machine
from apexflow.training.results import read_result
from tests.training.motion import CLASSES, motion_clips

MACHINE = find_machine("cpu", None, 0)


def dataset(values: np.ndarray, labels: list[str], subjects: list[str]) -> ClipDataset:
    return ClipDataset.from_arrays(values, labels, subjects=subjects)


def random_data(people: int = 6, features: int = 300, *, seed: int = 0) -> ClipDataset:
    """Six clips of each person, two a class, that differ a little in ten of the features."""
    rng = np.random.default_rng(seed)
    labels = [CLASSES[i % 3] for i in range(people * 6)]
    values = rng.normal(size=(len(labels), features)) * rng.uniform(0.1, 50, features)
    for row, label in zip(values, labels, strict=True):
        row[: 10 * (1 + CLASSES.index(label)) : 1 + CLASSES.index(label)] += 20
    return dataset(values.astype(np.float32), labels, [f"{i // 6:02d}" for i in range(len(labels))])


@pytest.mark.parametrize("features", [20, 300])
@pytest.mark.parametrize("model", ["svm", "logistic"])
@pytest.mark.parametrize("balance", ["none", "weights"])
def test_a_fold_is_scikit_learns_pipeline(features: int, model: str, balance: str) -> None:
    data = random_data(4, features)
    fold = make_folds(data.samples)[1]
    config = TrainConfig.of(model, options={"C": 0.01}, balance=balance)
    found = fit_fold(data, fold, config, MACHINE).probabilities
    weights = "balanced" if balance == "weights" else None
    solver = (
        OneVsRestClassifier(SVC(kernel="linear", C=0.01, class_weight=weights))
        if model == "svm"
        else LogisticRegression(C=0.01, class_weight=weights, max_iter=10_000)
    )
    pipeline = make_pipeline(StandardScaler(), solver)
    values = np.stack([v.numpy() for v, _ in data]).astype(np.float64)
    labels = data.labels.numpy()
    pipeline.fit(values[list(fold.train)], labels[list(fold.train)])
    scores = pipeline.decision_function(values[list(fold.test)])
    wanted = np.exp(scores - scores.max(1, keepdims=True))
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=2e-2)
    np.testing.assert_array_equal(found.argmax(1), scores.argmax(1))


def test_two_classes_have_one_decision_value() -> None:
    rng = np.random.default_rng(1)
    labels = ["a", "b"] * 8
    values = rng.normal(size=(16, 30)) + np.array([[0.5], [-0.5]] * 8)
    data = dataset(values, labels, [str(i // 4) for i in range(16)])
    fold = make_folds(data.samples)[0]
    config = TrainConfig.of("logistic", options={"C": 0.1})
    found = fit_fold(data, fold, config, MACHINE).probabilities
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    pipeline.fit(values[list(fold.train)], data.labels.numpy()[list(fold.train)])
    np.testing.assert_allclose(found, pipeline.predict_proba(values[list(fold.test)]), atol=1e-3)


def test_the_tested_person_has_no_say_in_anything() -> None:
    """Whatever the tested clips hold, scaler, C and weights are the same."""
    clean = random_data(5, 60)
    values = np.stack([v.numpy() for v, _ in clean])
    labels = [clean.classes[i] for i in clean.labels.tolist()]
    subjects = [sample.subject for sample in clean.samples]
    planted = values.copy()
    test = make_folds(clean.samples)[2].test
    # A feature that gives the class away, and another scale, in the tested clips alone.
    planted[list(test)] = 1e4 * np.random.default_rng(0).normal(size=(len(test), 60))
    planted[list(test), 0] = [1e6 * label for label in clean.labels[list(test)]]
    other_labels = list(labels)
    for i in test:
        other_labels[i] = CLASSES[(CLASSES.index(labels[i]) + 1) % 3]
    config = TrainConfig.of("svm")
    fitted = [
        fit_estimator(data, make_folds(data.samples)[2].train, config, seed=0)
        for data in (clean, dataset(planted, other_labels, subjects))
    ]
    assert fitted[0].normalization == fitted[1].normalization
    assert fitted[0].curves == fitted[1].curves
    for name, value in fitted[0].network.state_dict().items():
        assert (value == fitted[1].network.state_dict()[name]).all()


def test_c_is_chosen_on_people_who_are_not_learnt_from() -> None:
    """Clips of one person look alike: on clips, any C would be right; on people, none is."""
    rng = np.random.default_rng(3)
    faces = rng.normal(size=(12, 40)) * 10
    labels = [CLASSES[i % 3] for i in range(12)]
    values = np.repeat(faces, 4, axis=0) + rng.normal(size=(48, 40)) * 0.01
    data = dataset(values, [c for c in labels for _ in range(4)], [str(i // 4) for i in range(48)])
    fitted = fit_estimator(data, range(48), TrainConfig.of("svm"), seed=0)
    assert fitted.curves["C"] == list(C_GRID)
    assert max(fitted.curves["inner_uar"]) < 0.8


def test_deviations_are_of_the_training_clips_and_constants_stay() -> None:
    values = np.random.default_rng(0).normal(5, 3, (8, 4)).astype(np.float32)
    values[:6, 2] = 0.1
    values[6:, 2] = 7
    data = dataset(values, ["a", "b"] * 4, [str(i) for i in range(8)])
    normal = Normalization.fit("feature", data, range(6))
    found = normal(data.batch(range(8))[0]).numpy()
    scaler = StandardScaler().fit(values[:6].astype(np.float64))
    np.testing.assert_allclose(found, scaler.transform(values), rtol=1e-4, atol=1e-4)
    assert found[7, 2] == pytest.approx(6.9)


def test_a_run_predicts_and_compares(tmp_path: Path) -> None:
    data = random_data()
    first = af.train(data, tmp_path / "svm", model="svm", progress=False, final=True)
    assert first.scores.uar > 0.7
    other = af.train(
        data,
        tmp_path / "tree",
        model="sklearn.tree:DecisionTreeClassifier",
        options={"max_depth": 3},
        progress=False,
    )
    for run, result in (("svm", first), ("tree", other)):
        assert read_result(tmp_path / run).table() == result.table()
        found = af.predict(tmp_path / run, data)
        assert found.own == len(data)
        pairs = zip(found.predictions, result.predictions, strict=True)
        assert all(a.probabilities == b.probabilities for a, b in pairs)
    assert "svm" in str(af.compare([tmp_path / "svm", tmp_path / "tree"]))
    told = json.loads((tmp_path / "svm/folds/000_arrays_00/fold.json").read_text())
    assert told["curves"]["chosen_C"][0] in C_GRID


@pytest.mark.slow
def test_folds_side_by_side_leave_the_same_bytes(tmp_path: Path) -> None:
    data = random_data()
    first = af.train(data, tmp_path / "svm", model="svm", progress=False, final=True)
    before = {p: p.read_bytes() for p in (tmp_path / "svm").rglob("*") if p.is_file()}
    again = af.train(data, tmp_path / "again", model="svm", progress=False, final=True, jobs=2)
    assert again.table() == first.table()
    for path, value in before.items():
        if path.name != "config.json":
            assert (tmp_path / "again" / path.relative_to(tmp_path / "svm")).read_bytes() == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "svm", "epochs": 10}, "svm is not trained in epochs: leave out .* epochs"),
        ({"model": "svm", "report_leak": True}, "leave out the setting report_leak"),
        ({"model": "svm", "options": {"gamma": 1}}, "svm has no option 'gamma'; it has C, inner"),
        ({"model": "svm", "options": {"C": 0}}, "option C must be a number above 0. Got 0."),
        ({"model": "svm", "balance": "oversample"}, "takes balance 'weights' or 'none'"),
        ({"model": "svm", "device": "cuda"}, "svm is fitted on the CPU"),
        (
            {"model": "sklearn.svm:SVC", "options": {"shape": 1}},
            "SVC failed .TypeError: .*shape",
        ),
    ],
)
def test_settings_of_networks_are_refused(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ApexflowError, match=message):
        af.train(random_data(3, 10), tmp_path / "run", progress=False, **settings)


def test_training_clips_of_one_class_are_refused(tmp_path: Path) -> None:
    data = dataset(np.eye(4), ["a", "a", "b", "b"], ["0", "0", "1", "1"])
    with pytest.raises(ApexflowError, match="all 2 training clips are of class"):
        af.train(data, tmp_path / "run", model="svm", progress=False)


@pytest.mark.parametrize("method", ["hog_top", "bi_woof"])
def test_motions_are_told_apart_and_shuffled_labels_are_not(method: str) -> None:
    clips = motion_clips(subjects=6, clips_per_class=2, frames=7)
    function = getattr(af.features, method)
    of_flow = method == "bi_woof"
    values = np.stack(
        [
            function(np.moveaxis(c.flow["onset-apex"], 0, -1) if of_flow else c.frames, blocks=4)
            for c in clips
        ]
    )
    labels, subjects = [c.emotion for c in clips], [c.subject for c in clips]
    assert right_part(dataset(values, labels, subjects)) > 0.9
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(labels).tolist() for _ in range(3)]
    chance = [right_part(dataset(values, one, subjects)) for one in shuffled]
    assert np.mean(chance) < 0.55  # a third by chance; 108 guesses deviate by .045


def right_part(data: ClipDataset) -> float:
    """The part of clips that the folds of `svm` predict rightly."""
    said = np.full(len(data), -1)
    for fold in make_folds(data.samples):
        fitted = fit_fold(data, fold, TrainConfig.of("svm", options={"C": 1e-3}), MACHINE)
        said[list(fold.test)] = fitted.probabilities.argmax(1)
    return float((said == data.labels.numpy()).mean())
