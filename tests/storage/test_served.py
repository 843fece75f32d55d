"""Which clips of stores are served, and under which labels."""

from pathlib import Path

import pytest

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.format import FAILED, PENDING
from tests.storage.stores import Made, add_clips, make_store, random_clips


def test_only_committed_clips_are_seen_and_an_unfinished_store_says_so(tmp_path: Path) -> None:
    clips = random_clips(6)
    clips[1].status, clips[4].status = FAILED, PENDING
    make_store(tmp_path / "s.zarr", clips, finalize=False)
    with pytest.warns(UserWarning, match="the 4 finished of its 6 clips"):
        dataset = ClipDataset(tmp_path / "s.zarr", maps="hsv")
    assert [sample.clip for sample in dataset.samples] == ["c0", "c2", "c3", "c5"]


def test_labels_by_the_name_of_a_protocol(tmp_path: Path) -> None:
    emotions = ["disgust", "repression", "happiness", "surprise", "sadness"]
    clips = random_clips(5)
    for clip, emotion in zip(clips, emotions, strict=True):
        clip.dataset, clip.emotion = "casme2", emotion
    make_store(tmp_path / "s.zarr", clips)
    dataset = ClipDataset(tmp_path / "s.zarr", labels="megc2019")
    assert dataset.labels.tolist() == [0, 0, 1, 2]
    with pytest.raises(ApexflowError, match="protocol must be one of"):
        ClipDataset(tmp_path / "s.zarr", labels="nothing")


def test_annotated_labels_come_before_emotions(tmp_path: Path) -> None:
    clips = random_clips(4)
    for clip, label in zip(clips, [2, 0, 1, 2], strict=True):
        clip.label = label
    store = make_store(tmp_path / "s.zarr", clips)
    assert ClipDataset(tmp_path / "s.zarr").labels.tolist() == [2, 0, 1, 2]
    add_clips(
        store, [Made("9", "new", "joy", flow=clips[0].flow, maps=clips[0].maps, roi=clips[0].roi)]
    )
    # A clip without a label is left out.
    assert ClipDataset(tmp_path / "s.zarr").labels.tolist() == [2, 0, 1, 2]
