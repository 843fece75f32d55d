from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import apexflow as af
from apexflow.catalog import person_of
from apexflow.errors import ApexflowError
from apexflow.training.folds import (
    Fold,
    dataset_folds,
    group_folds,
    inner_split,
    make_folds,
    people,
    subject_folds,
)
from tests.storage.stores import make_store, random_clips


@dataclass(frozen=True)
class Clip:
    dataset: str
    subject: str
    label: int = 0
    person: str = ""
    frames: str = ""


CLIPS = st.lists(
    st.builds(Clip, st.sampled_from("ab"), st.sampled_from("123"), st.integers(0, 2)),
    min_size=1,
    max_size=30,
)


@given(CLIPS)
def test_each_person_is_tested_once_and_never_learnt_from(clips: list[Clip]) -> None:
    everyone = people(clips, range(len(clips)))
    if len(everyone) < 2:
        with pytest.raises(ApexflowError, match="two subjects at least"):
            subject_folds(clips)
        return
    folds = subject_folds(clips)
    assert [fold.name for fold in folds] == sorted(everyone)
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(clips)))
    for fold in folds:
        assert len(people(clips, fold.test)) == 1
        assert not people(clips, fold.test) & people(clips, fold.train)
        assert sorted(fold.test + fold.train) == list(range(len(clips)))


def test_subject_1_of_one_data_set_is_nobody_of_another() -> None:
    clips = [Clip("a", "1"), Clip("b", "1"), Clip("a", "1")]
    assert [fold.test for fold in subject_folds(clips)] == [(0, 2), (1,)]
    assert [fold.name for fold in dataset_folds(clips)] == ["a", "b"]


def test_people_of_several_data_sets_are_tested_once() -> None:
    clips = [
        Clip("smic-hs", "03", person=person_of("smic-hs", "03")),
        Clip("smic-vis", "03", person=person_of("smic-vis", "03")),
        Clip("smic", "04"),
        Clip("smic-nir-e", "04"),
    ]
    assert [(fold.name, fold.test) for fold in subject_folds(clips)] == [
        ("smic/03", (0, 1)),
        ("smic/04", (2, 3)),
    ]
    # Who is tested in one data set is not learnt from in another.
    assert [fold.train for fold in dataset_folds(clips)] == [(0, 1), (2, 3), (0, 1), (2, 3)]


def test_the_same_frames_under_two_people_are_refused() -> None:
    clips = [Clip("a", "6", frames="f"), Clip("a", "006", frames="f"), Clip("a", "7")]
    with pytest.raises(ApexflowError, match="a/6/ and a/006/ have the same frames"):
        subject_folds(clips)
    one = [replace(clip, person="p") for clip in clips[:2]]
    assert [fold.test for fold in subject_folds([*one, clips[2]])] == [(2,), (0, 1)]


def test_a_fold_with_a_person_on_both_sides_cannot_be_made() -> None:
    clips = [Clip("a", "1"), Clip("a", "2"), Clip("a", "1")]
    with pytest.raises(ApexflowError, match="a/1 is on both sides"):
        Fold("wrong", (0, 1), (2,), clips)


@given(CLIPS, st.integers(0, 5), st.sampled_from([0.1, 0.2, 0.5]))
def test_inner_validation_splits_people_and_keeps_classes(
    clips: list[Clip], seed: int, fraction: float
) -> None:
    train = range(0, len(clips), 2)
    try:
        fit, validation = inner_split(clips, train, fraction=fraction, seed=seed)
    except ApexflowError:
        return
    assert sorted(fit + validation) == list(train)
    assert not people(clips, fit) & people(clips, validation)
    assert {clips[i].label for i in fit} == {clips[i].label for i in train}
    assert inner_split(clips, train, fraction=fraction, seed=seed) == (fit, validation)


def test_inner_validation_holds_the_fraction_and_every_class_where_it_can() -> None:
    clips = [Clip("a", str(s), label) for s in range(10) for label in (0, 1, 2)]
    fit, validation = inner_split(clips, range(30), fraction=0.2, seed=3)
    assert len(validation) == 6
    assert {clips[i].label for i in validation} == {0, 1, 2}
    others = {inner_split(clips, range(30), seed=seed)[1] for seed in range(8)}
    assert len(others) > 1
    assert len(fit) == 24


def test_inner_validation_without_a_subject_to_spare() -> None:
    clips = [Clip("a", "1", 0), Clip("a", "2", 1)]
    with pytest.raises(ApexflowError, match="no subject can be spared"):
        inner_split(clips, [0, 1])


def test_loso_gives_subsets_of_the_data_set(tmp_path: Path) -> None:
    clips = random_clips(8, subjects=3)
    clips[3].dataset = "other"
    make_store(tmp_path / "s.zarr", clips)
    dataset = af.ClipDataset(tmp_path / "s.zarr", maps="hsv")
    tested = [[dataset.samples[i].clip for i in test.indices] for _, test in af.loso(dataset)]
    assert tested == [["c0", "c6"], ["c1", "c4", "c7"], ["c2", "c5"], ["c3"]]
    for train, test in af.loso(dataset):
        assert len(train) + len(test) == len(dataset)
        image, label = test[0]
        assert image.shape == (3, 28, 28)
        assert label == dataset[test.indices[0]][1]
    assert len(list(af.training.leave_one_dataset_out(dataset))) == 2


@given(CLIPS, st.integers(2, 4))
def test_groups_hold_whole_people_and_about_as_many_clips(clips: list[Clip], groups: int) -> None:
    everyone = people(clips, range(len(clips)))
    if len(everyone) < groups:
        with pytest.raises(ApexflowError, match="folds must be 2 to"):
            group_folds(clips, groups)
        return
    folds = group_folds(clips, groups)
    assert len(folds) == groups
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(clips)))
    for fold in folds:
        assert not people(clips, fold.test) & people(clips, fold.train)
    largest = max(
        len([c for c in clips if (c.dataset, c.subject) == key])
        for key in {(c.dataset, c.subject) for c in clips}
    )
    sizes = [len(fold.test) for fold in folds]
    # Whoever was dealt last went to the smallest group.
    assert max(sizes) - min(sizes) <= largest


@dataclass(frozen=True)
class Named(Clip):
    clip: str = ""


FOUR = [Named("a", f"{i // 2}", i % 2, clip=f"c{i}") for i in range(8)]


def test_folds_of_ones_own() -> None:
    named = make_folds(FOUR, {"young": [0, 1, 2, 3], "old": [4, 5]})
    assert [(fold.name, fold.train, fold.test) for fold in named] == [
        ("young", (4, 5, 6, 7), (0, 1, 2, 3)),
        ("old", (0, 1, 2, 3, 6, 7), (4, 5)),
    ]
    pairs = make_folds(FOUR, [([0, 1], [2]), ([2, 3], [0])])
    assert [(fold.name, fold.test) for fold in pairs] == [("fold-1", (2,)), ("fold-2", (0,))]
    # A person who is tested in part is learnt from in no part.
    assert make_folds(FOUR, {"one": [2]})[0].train == (0, 1, 4, 5, 6, 7)
    with pytest.raises(ApexflowError, match=r"a position must be below 8\. Got 8"):
        make_folds(FOUR, {"one": [8]})


def test_splitters_of_scikit_learn() -> None:
    from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut

    assert len(make_folds(FOUR, LeaveOneGroupOut())) == 4
    halves = make_folds(FOUR, GroupKFold(2))
    assert sorted(i for fold in halves for i in fold.test) == list(range(8))
    with (
        pytest.warns(UserWarning, match="groups parameter is ignored"),
        pytest.raises(ApexflowError, match="is on both sides"),
    ):
        make_folds(FOUR, KFold(2, shuffle=True, random_state=0))
    with pytest.raises(ApexflowError, match="GroupKFold"):
        make_folds(FOUR, GroupKFold(9))


def test_a_file_says_who_is_tested_where(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    path.write_text("subject,fold\n0,first\n1,first\n2,second\n3,train\n")
    assert [(f.name, f.train, f.test) for f in make_folds(FOUR, str(path))] == [
        ("first", (4, 5, 6, 7), (0, 1, 2, 3)),
        ("second", (0, 1, 2, 3, 6, 7), (4, 5)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,fold\n0,a\n", "says of 6 clips no fold, a/1/c2 the first"),
        ("subject,fold\n0,a\n0,b\n", "line 3: 0 has fold b, before it a"),
        ("subject,fold\n0,\n", "line 2: 0 has no fold"),
        ("who,fold\n0,a\n", "needs the column fold and one of dataset, subject"),
        ("subject\n0\n", "needs the column fold"),
    ],
)
def test_a_file_that_leaves_doubts_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(ApexflowError, match=message):
        make_folds(FOUR, tmp_path / "folds.csv")


def test_other_things_are_no_folds(tmp_path: Path) -> None:
    with pytest.raises(ApexflowError, match="a CSV file, a scikit-learn splitter"):
        make_folds(FOUR, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ApexflowError, match="cannot be read"):
        make_folds(FOUR, "person")
