"""Videos given to a trained run are called by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import apexflow as af
from apexflow.catalog import Clip
from apexflow.storage.target import Target
from tests.storage.stores import make_store, random_clips


def test_messages_call_a_store_of_videos_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Neither processing nor prediction is what is tested: the pages of docs walk both.
    def process(_: str, clips: list[Clip], store: Target) -> None:
        made = random_clips(len(clips))
        made[0].flags = "repeated-frames=3"
        make_store(store, made)

    def predict_stores(_: str, store: Target, **options: Any) -> af.ClipDataset:
        return af.ClipDataset(store, maps="hsv")

    monkeypatch.setattr("apexflow.new_clips._process", process)
    monkeypatch.setattr("apexflow.training.predict.predict_stores", predict_stores)
    videos = [tmp_path / name for name in ("one", "two")]
    for video in videos:
        video.mkdir()
        for number in (1, 2):
            cv2.imwrite(str(video / f"{number}.png"), np.zeros((20, 20), np.uint8))
    af.predict("run", videos)
    assert caplog.messages == [
        f"{videos[0]} and 1 more: 1 of 2 clips is flagged (repeated-frames 1), and served"
    ]
