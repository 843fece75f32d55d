"""Videos given to a trained run: processed as its clips were, and called by their names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import apexflow as af
from apexflow.engine.recipe import Recipe
from apexflow.storage.target import Target

SIDE = 32


def test_messages_call_a_video_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # What reads the store is not what is tested: no network is trained for it.
    recipe = Recipe.load("seed-samm").to_dict()
    recipe["face"] |= {"detector": "fixed"}
    recipe["alignment"] |= {"method": "none"}
    recipe["crop"] |= {"height": SIDE, "width": SIDE}
    trained = SimpleNamespace(read=lambda _: SimpleNamespace(recipe=lambda: recipe))
    monkeypatch.setattr("apexflow.training.predict.TrainedRun", trained)

    def read(_: Path, store: Target, **options: Any) -> af.ClipDataset:
        return af.ClipDataset(store, flow="onset-apex", labels="none")

    monkeypatch.setattr("apexflow.training.predict.predict_stores", read)
    gray = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    for name in ("still", "frozen"):
        (tmp_path / name).mkdir()
        for number in range(1, 5):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), gray)
    videos = [tmp_path / "still", tmp_path / "frozen"]
    assert [info.clip for info in af.predict("run", videos).samples] == ["still", "frozen"]
    (said,) = [text for text in caplog.messages if "repeated-frames" in text]
    assert said.startswith(f"{videos[0]} and 1 more: 2 of 2 clips are flagged")
