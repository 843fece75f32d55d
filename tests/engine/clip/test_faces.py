from pathlib import Path

import cv2
import numpy as np
import pytest

from apexflow.engine.clip.faces import FixedBox, MtcnnDetector
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
