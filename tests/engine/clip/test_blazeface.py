"""BlazeFace and FaceMesh: decoding on arrays; with the user's model files, real answers.

APEXFLOW_MODELS is a folder with face_detection_short_range.tflite and face_landmark.tflite.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from apexflow.catalog import Clip
from apexflow.engine.clip import blazeface, facemesh
from apexflow.engine.clip.faces import BlazeFaceDetector, NoFaceError, locate_face
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.synthetic import Subject, paint
from apexflow.synthetic.sampling import MARGIN


@pytest.fixture(scope="module")
def models() -> Path:
    folder = os.environ.get("APEXFLOW_MODELS")
    if not folder:
        pytest.skip("APEXFLOW_MODELS names no folder of model files")
    return Path(folder)


def test_anchors_are_the_cells_middles_fine_ones_first() -> None:
    found = blazeface.anchors()
    assert found.shape == (896, 2)
    np.testing.assert_array_equal(found[:4], [[4, 4], [4, 4], [12, 4], [12, 4]])
    np.testing.assert_array_equal(found[512:519], [[8, 8]] * 6 + [[24, 8]])
    np.testing.assert_array_equal(found[-1], [120, 120])


def test_decoding_puts_box_and_points_around_the_anchor() -> None:
    values, scores = np.zeros((896, 16), np.float32), np.full(896, -200, np.float32)
    values[3] = [1, 2, 10, 20, *range(12)]  # at the anchor (12, 4)
    scores[3] = np.log(3)
    points, sure = blazeface.decode(values, scores)
    assert sure == pytest.approx([0.75])
    np.testing.assert_allclose(points[0, :2], [[8, -4], [18, 16]])
    np.testing.assert_allclose(points[0, 2:], np.arange(12).reshape(6, 2) + np.array([12, 4]))


def test_answers_of_one_face_are_averaged_by_score_others_are_kept() -> None:
    corners = np.array([[[0, 0], [10, 10]], [[2, 0], [12, 10]], [[50, 50], [60, 60]]], float)
    points = np.concatenate([corners, np.repeat(corners[:, :1], 6, axis=1)], axis=1)
    merged, scores = blazeface.merged(points, np.array([0.6, 0.9, 0.7]))
    np.testing.assert_allclose(scores, [0.9, 0.7])
    np.testing.assert_allclose(merged[0, 0], [2 * 0.9 / 1.5, 0])
    np.testing.assert_allclose(merged[1], points[2])
    nothing, none = blazeface.merged(points[:0], np.empty(0))
    assert nothing.shape == (0, 8, 2)
    assert none.shape == (0,)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (1088, 2040), (50, 90)])
def test_a_point_of_the_letterbox_leads_back_to_the_image(size: tuple[int, int]) -> None:
    """A bright spot is found where it was painted."""
    image = np.zeros((*size, 3), np.uint8)
    place = np.array([0.7 * size[1], 0.4 * size[0]])
    cv2.circle(image, tuple(np.rint(place).astype(int).tolist()), max(size) // 20, (255,) * 3, -1)
    square, offset, scale = blazeface.letterbox(image)
    assert square.min() == -1
    weights = square[..., 0] + 1.0
    y, x = (np.average(np.arange(128) + 0.5, weights=weights.sum(axis)) for axis in (1, 0))
    np.testing.assert_allclose((np.array([x, y]) - offset) * scale, place, atol=max(size) / 128)


def test_a_turned_square_leads_back_to_the_image() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    place = np.array([231.5, 120.5])
    cv2.circle(image, (231, 120), 6, (255,) * 3, -1)
    for side in (150.0, 380.0):
        cut, to_image = facemesh._cut(image, np.array([210.0, 140.0]), side, 0.4)
        y, x = (np.average(np.arange(192) + 0.5, weights=cut[..., 0].sum(a)) for a in (1, 0))
        found = to_image(np.array([[x, y, 192.0]]))[0]
        np.testing.assert_allclose(found, [*place, side], atol=0.3)


def recipe_of(folder: Path, text: str) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(f'base = "default"\n[face]\n{text}\n', encoding="utf-8")
    return Recipe.load(path)


def test_a_recipe_refuses_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "page.tflite").write_text("<html>not found</html>")
    for model, said in (("none.tflite", "none.tflite cannot be read"), ("page.tflite", "is not a")):
        with pytest.raises(ApexflowError, match=said):
            recipe_of(tmp_path, f'detector = "blazeface"\nmodel = "{model}"')
    with pytest.raises(ApexflowError, match="goes with detector 'blazeface'"):
        recipe_of(tmp_path, 'detector = "blazeface"')
    (tmp_path / "damaged.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(200)))
    with pytest.raises(ApexflowError, match=r"damaged.tflite is damaged, or does not take"):
        BlazeFaceDetector(str(tmp_path / "damaged.tflite")).detect(np.zeros((60, 80), np.uint8))


def test_the_hash_is_of_a_model_s_content_not_of_its_path(tmp_path: Path) -> None:
    hashes = []
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.tflite").write_bytes(b"\0\0\0\0TFL3" + content)
        found = recipe_of(tmp_path / folder, 'detector = "blazeface"\nmodel = "m.tflite"')
        assert found.face.model == str(tmp_path / folder / "m.tflite")
        assert Recipe.from_dict(found.to_dict()) == found
        hashes.append(found.hash)
    assert hashes[0] == hashes[1] != hashes[2]
    (tmp_path / "a" / "m.tflite").write_bytes(b"\0\0\0\0TFL3 other")
    model = str(tmp_path / "a" / "m.tflite")
    with pytest.raises(ApexflowError, match="the recipe was made with"):
        BlazeFaceDetector(model, "00ff").detect(np.zeros((60, 80), np.uint8))


@pytest.mark.parametrize("face", [0.2, 0.55])
def test_faces_and_their_parts_are_where_they_were_painted(models: Path, face: float) -> None:
    subject = Subject.random(5, size=(480, 480), face=face)
    image = np.clip(paint(subject)[0, MARGIN:-MARGIN, MARGIN:-MARGIN], 0, 255).astype(np.uint8)
    model, mesh = models / "face_detection_short_range.tflite", models / "face_landmark.tflite"
    found = BlazeFaceDetector(str(model)).detect(image)
    assert found.confidence > 0.5
    eyes = subject.landmarks[:2]
    unit = np.hypot(*(eyes[1] - eyes[0]))
    np.testing.assert_allclose(found.landmarks[:2], eyes, atol=0.25 * unit)
    recipe = Recipe.load("default").to_dict()
    recipe["face"] |= {"detector": "blazeface", "model": str(model), "mesh": str(mesh)}
    clip = Clip(dataset="d", subject="1", name="c", source="c", root=Path())
    located = locate_face(image, clip, Recipe.from_dict(recipe))
    assert located.mesh is not None
    five = facemesh.five_landmarks(located.mesh)
    np.testing.assert_allclose(five, subject.landmarks, atol=0.2 * unit)
    with pytest.raises(NoFaceError, match="BlazeFace found no face"):
        BlazeFaceDetector(str(model)).detect(np.full((240, 320), 90, np.uint8))
    with pytest.raises(ApexflowError, match=r"is damaged, or does not take|is another model"):
        BlazeFaceDetector(str(mesh)).detect(image)
