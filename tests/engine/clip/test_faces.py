from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from apexflow.catalog import Clip
from apexflow.engine.clip.clock import Clock
from apexflow.engine.clip.faces import (
    Face,
    FixedBox,
    LocatedFace,
    MtcnnDetector,
    NoFaceError,
    frames_to_try,
    locate_in_clip,
)
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.plan import plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.errors import ClipError
from apexflow.synthetic import ClipTruth, Subject, render


@pytest.fixture(scope="module")
def portrait() -> tuple[np.ndarray, Subject]:
    person = Subject.random(1, size=(272, 510))
    truth = ClipTruth.random(person, "surprise", seed=1, frames=3, amplitude=0.5, shift=0)
    return render(truth)[0], person


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(area) - both)


def test_mtcnn_finds_the_face_and_its_landmarks(portrait: tuple[np.ndarray, Subject]) -> None:
    image, person = portrait
    face = MtcnnDetector().detect(image)
    assert face.confidence > 0.9
    assert overlap(face.box, person.box) > 0.7
    height = person.box[3] - person.box[1]
    np.testing.assert_allclose(face.landmarks, person.landmarks, atol=0.1 * height)


def test_the_seed_settings_are_facenet_pytorchs_own(portrait: tuple[np.ndarray, Subject]) -> None:
    from facenet_pytorch import MTCNN

    image, _ = portrait
    rgb = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    reference = MTCNN(image_size=224, margin=20, keep_all=False, post_process=False, device="cpu")
    boxes, _ = reference.detect(rgb)
    box = MtcnnDetector(20, 0).detect(image).box
    np.testing.assert_allclose(box, np.asarray(boxes[0], np.float64), atol=1e-3)


def test_a_reduced_frame_gives_the_same_box_in_pixels_of_the_frame(
    portrait: tuple[np.ndarray, Subject],
) -> None:
    image, _ = portrait
    large = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    reduced = MtcnnDetector(image_side=510).detect(large)
    assert overlap(tuple(3 * v for v in MtcnnDetector().detect(image).box), reduced.box) > 0.9


def test_no_face_says_what_was_looked_for() -> None:
    with pytest.raises(ClipError, match="no face of 20 px or more in a 80x60 image"):
        MtcnnDetector().detect(np.zeros((60, 80), np.uint8))


def test_the_fixed_box_is_the_whole_image_by_default() -> None:
    assert FixedBox().detect(np.zeros((20, 30), np.uint8)).box == (0, 0, 30, 20)
    with pytest.raises(ClipError, match="not inside the 30x20 image"):
        FixedBox((0, 0, 31, 20)).detect(np.zeros((20, 30), np.uint8))


def test_torch_keeps_its_threads(portrait: tuple[np.ndarray, Subject], tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    MtcnnDetector().detect(portrait[0])
    assert torch.get_num_threads() == before


@dataclass(frozen=True)
class Bright:
    """Finds a face of 20 px around the middle of each bright square of an image."""

    def detect(self, image: np.ndarray) -> Face:
        count, _, boxes, middles = cv2.connectedComponentsWithStats((image > 200).astype(np.uint8))
        faces = [
            Face((x - 10, y - 10, x + 10, y + 10), (), size / 100)
            for (x, y), size in zip(middles[1:], boxes[1:, cv2.CC_STAT_AREA], strict=True)
        ]
        if count == 1:
            raise NoFaceError("all is dark")
        return replace(faces[0], others=tuple(faces[1:]))


def squares(*places: tuple[int, int]) -> np.ndarray:
    """Return a picture with a bright square of 10 px at each place (x, y)."""
    image = np.random.default_rng(len(places)).integers(20, 120, (60, 120), np.uint8)
    for x, y in places:
        image[y - 5 : y + 5, x - 5 : x + 5] = 250
    return image


def located(
    folder: Path, images: list[np.ndarray], **options: object
) -> tuple[LocatedFace, ClipFrames]:
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image)
    last = len(images) - 1
    names = {"dataset": "d", "subject": "1", "name": "c", "root": folder.parent}
    clip = Clip(**names, source=folder.name, onset=0, apex=2, offset=last)
    values = Recipe.load("default").to_dict()
    values["face"] |= options
    recipe = Recipe.from_dict(values)
    source, plan = plan_clip(clip, recipe)
    frames = ClipFrames(source, plan, Clock(), color=False)
    return locate_in_clip(frames, clip, recipe, Bright()), frames


def test_other_frames_are_tried_in_the_stated_order(tmp_path: Path) -> None:
    """The template frame (4), apex, onset, offset, then halves, quarters and eighths."""
    dark, light = squares(), squares((40, 30))
    images = [dark, dark, dark, light, dark, dark, light, dark]
    found, frames = located(tmp_path, images)
    assert frames.plan.template == 6  # 3/4 of the clip; 1/8 parts come later
    np.testing.assert_array_equal(frames.template, images[6])
    assert found.box[:2] == (29, 19)
    assert frames_to_try(frames.plan, 9)[0] == 6


def test_a_clip_without_a_face_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="frame 4 shows no face, nor do 2 others of 8: all is dark"):
        located(tmp_path, [squares()] * 8, frames_tried=3)


@pytest.mark.parametrize(("choice", "x"), [("largest", 20), ("central", 60), ("followed", 100)])
def test_the_choice_among_several_faces_is_the_recipe_s(
    choice: str, x: int, tmp_path: Path
) -> None:
    """The first of three faces of one size; the middle one; the one that other frames have."""
    everyone = squares((20, 30), (60, 30), (100, 30))
    alone = squares((100, 30))
    images = [alone, everyone, alone, alone, everyone, alone]
    found, frames = located(tmp_path, [*images[:3], everyone, *images[3:]], choice=choice)
    assert frames.plan.template == 3
    assert (found.box[0] + found.box[2]) / 2 == pytest.approx(x, abs=1)
    assert found.candidates == 3


def test_a_far_smaller_or_unsure_face_is_no_candidate() -> None:
    face = Face((0, 0, 40, 40), (), 0.99)
    small, unsure = Face((0, 0, 9, 9), (), 0.99), Face((0, 0, 40, 40), (), 0.5)
    assert LocatedFace(replace(face, others=(small, unsure)), (0, 0, 40, 40), ()).candidates == 1
    assert LocatedFace(replace(face, others=(face,)), (0, 0, 40, 40), ()).candidates == 2
