import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow.datasets.sources import FolderFrames
from apexflow.errors import ClipError
from apexflow.spotting.measure import RECORD, FaceBox, measure_video, samples, step_of
from apexflow.spotting.recipe import SpotRecipe
from apexflow.synthetic import LongTruth, Subject

RECIPE = SpotRecipe.load("regions")


class Rendered(FolderFrames):
    """A video's rendered frames, which counts how many were read, and may end early."""

    images: list[NDArray[np.uint8]]
    most: int | None
    count: int

    @classmethod
    def of(cls, images: list[NDArray[np.uint8]], most: int | None = None) -> "Rendered":
        found = cls({})
        object.__setattr__(found, "images", images)
        object.__setattr__(found, "most", most)
        object.__setattr__(found, "count", 0)
        return found

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(range(10, 10 + len(self.images)))

    def fingerprint(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        return [("video", len(self.images), 0)]

    def read(self, numbers: Sequence[int], *, color: bool) -> Iterator[NDArray[np.uint8]]:
        for number in numbers:
            object.__setattr__(self, "count", self.count + 1)
            if self.most is not None and self.count > self.most:
                raise ClipError("the disk is gone")
            yield self.images[number - 10]


@pytest.fixture(scope="module")
def truth() -> LongTruth:
    subject = Subject.random(3, size=(160, 144), face=0.7)
    return LongTruth.random(subject, seed=2, seconds=2.4, fps=100, rotation=4, scale=0.05, macro=0)


@pytest.fixture(scope="module")
def images(truth: LongTruth) -> list[NDArray[np.uint8]]:
    return list(truth.frames(range(0, len(truth), 2)))


def test_samples_are_means_of_neighbours() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (11, 5, 7), np.uint8)
    found = np.array(list(samples(iter(frames), 4)))
    wanted = frames[:8].reshape(2, 4, 5, 7).mean(axis=1)
    assert np.abs(found - wanted).max() <= 0.5
    assert np.array_equal(np.array(list(samples(iter(frames), 1))), frames)
    with pytest.raises(ClipError, match="a frame is 7x6 px, those before it 7x5"):
        list(samples(iter([frames[0], np.zeros((6, 7), np.uint8)]), 2))


@pytest.mark.parametrize(("fps", "step"), [(25, 1), (50, 1), (99, 1), (100, 2), (200, 4), (201, 4)])
def test_steps_leave_enough_samples(fps: float, step: int) -> None:
    assert step_of(fps, RECIPE) == step


def test_going_on_gives_the_same_bytes_and_reads_the_rest(
    truth: LongTruth, images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    face = FaceBox(truth.box, tuple((x, y) for x, y in truth.landmarks.tolist()))
    whole = Rendered.of(images)
    measured = measure_video(whole, 50, RECIPE, lambda _: face, tmp_path / "whole")
    assert measured.numbers.tolist() == list(whole.numbers)
    wanted = (tmp_path / "whole" / "motion.bin").read_bytes()
    assert len(np.unique(np.frombuffer(wanted, RECORD)["template"])) > 2
    for stop in (8, 100):  # while the first template is in use, and behind others
        folder = tmp_path / f"parts-{stop}"
        with pytest.raises(ClipError, match="the disk is gone"):
            measure_video(Rendered.of(images, stop), 50, RECIPE, lambda _: face, folder)
        kept = (folder / "motion.bin").stat().st_size // RECORD.itemsize
        assert kept > stop // 2
        with (folder / "motion.bin").open("ab") as file:
            file.write(b"half a record")
        rest = Rendered.of(images)
        measure_video(rest, 50, RECIPE, lambda _: face, folder)
        assert (folder / "motion.bin").read_bytes() == wanted
        assert rest.count <= len(images) - kept + 3
    again = Rendered.of(images)
    measure_video(again, 50, RECIPE, lambda _: face, folder)
    assert again.count == 0


def test_another_rate_or_a_damaged_head_begins_again(
    truth: LongTruth, images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    face = FaceBox(truth.box)
    few = images[:12]
    measure_video(Rendered.of(few), 50, RECIPE, lambda _: face, tmp_path)
    for change in ("rate", "head"):
        if change == "head":
            (tmp_path / "motion.json").write_text("{")
        source = Rendered.of(few)
        measure_video(source, 40, RECIPE, lambda _: face, tmp_path)
        assert source.count >= len(few)
    assert json.loads((tmp_path / "motion.json").read_text())["fps"] == 40


def test_a_video_without_a_face_says_so(images: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    def none(_: NDArray[np.uint8]) -> FaceBox:
        raise ClipError("nobody there")

    with pytest.raises(ClipError, match=r"no face in the first .* frames .*: nobody there"):
        measure_video(Rendered.of(images), 50, RECIPE, none, tmp_path)
    with pytest.raises(ClipError, match="2 frames at 50/s are too few"):
        measure_video(Rendered.of(images[:2]), 50, RECIPE, none, tmp_path)
