"""Classes are the labels that occur; a clip without one has no class, and is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from apexflow import ApexflowError, Clip
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.labels import class_map
from tests.storage.stores import make_store, random_clips


def clips(*labels: int | str | None) -> list[Clip]:
    return [
        Clip(
            dataset="table",
            subject=str(i % 3),
            name=f"c{i}",
            label=label if isinstance(label, int) else None,
            emotion=label if isinstance(label, str) else "",
        )
        for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("labels", "classes", "positions"),
    [
        ((1, 2, 3, 1), ("1", "2", "3"), [0, 1, 2, 0]),
        ((0, 7, 7, 0), ("0", "7"), [0, 1, 1, 0]),
        ((10, 9, 9, 10), ("9", "10"), [1, 0, 0, 1]),
        (("joy", "anger", "joy"), ("anger", "joy"), [1, 0, 1]),
    ],
)
def test_classes_are_the_labels_that_occur(
    labels: tuple[int | str, ...], classes: tuple[str, ...], positions: list[int]
) -> None:
    found = class_map(clips(*labels))
    assert found.classes == classes
    assert list(found.label_of.values()) == positions
    assert found.left_out == {}


def test_a_clip_without_a_label_is_left_out_and_counted() -> None:
    found = class_map(clips(1, None, 2, 1, None))
    assert (found.classes, found.left_out) == (("1", "2"), {"no label": 2})
    assert [name for _, _, name in found.label_of] == ["c0", "c2", "c3"]
    found = class_map(clips("joy", "", "anger", "joy"))
    assert (found.classes, found.left_out) == (("anger", "joy"), {"no emotion": 1})
    assert "1 clips without a class left out: 1 no emotion" in str(found)
    with pytest.raises(ApexflowError, match="none of 2 clips has a label or an emotion"):
        class_map(clips(None, None))


def test_doubtful_classes_are_said() -> None:
    assert class_map(clips("joy", "joy")).warnings == (
        "all clips are of one class, joy: there is nothing to learn",
    )
    (warning,) = class_map(clips("joy", "anger", "joy", "joy", "anger", "fear", "joy")).warnings[1:]
    assert warning.startswith("class fear occurs in subject table/2 alone")
    assert class_map(clips(0, 0, 1, 1, 1, 0)).warnings == ()


def test_a_protocol_keeps_the_classes_that_occur() -> None:
    given = [
        Clip(dataset="samm", subject=str(i % 2), name=f"c{i}", emotion=emotion)
        for i, emotion in enumerate(("anger", "surprise", "other", "negative", "surprise"))
    ]
    found = class_map(given, "megc2019")
    assert found.classes == ("negative", "surprise")
    assert list(found.label_of.values()) == [0, 1, 0, 1]
    assert found.left_out == {"other": 1}
    assert found.warnings[0] == "no clip is of class positive"


def test_labels_of_the_table_are_taken_by_name() -> None:
    numbered = [
        Clip(dataset="t", subject=str(i), name=f"c{i}", label=i % 2, emotion=emotion, extra=extra)
        for i, (emotion, extra) in enumerate(
            [
                ("joy", (("Objective Classes", "3"),)),
                ("anger", (("objective class", "VII"),)),
                ("", (("Objective class", " iv"),)),
                ("joy", (("Duration", "3"),)),
                ("joy", (("Objective Classes", "8"),)),
            ]
        )
    ]
    emotions = class_map(numbered, "emotion")
    assert (emotions.classes, emotions.left_out) == (("anger", "joy"), {"no emotion": 1})
    objective = class_map(numbered, "objective")
    assert objective.classes == ("III", "IV", "VII")
    assert list(objective.label_of.values()) == [0, 2, 1]
    assert objective.left_out == {"no objective class": 2}
    with pytest.raises(ApexflowError, match="none of 2 clips has an objective class"):
        class_map(clips("joy", "joy"), "objective")


def test_a_store_keeps_objective_classes(tmp_path: Path) -> None:
    made = random_clips(3)
    made[0].details = '{"Objective Classes": "2"}'
    made[2].details = '{"objective class": "V", "corrections": ["apex"]}'
    make_store(tmp_path / "s.zarr", made)
    dataset = ClipDataset(tmp_path / "s.zarr", maps="hsv", labels="objective")
    assert dataset.classes == ("II", "V")
    assert [one.clip for one in dataset.samples] == ["c0", "c2"]
    everyone = ClipDataset(tmp_path / "s.zarr", maps="hsv", labels="none")
    assert everyone.labels.tolist() == [-1, -1, -1]
