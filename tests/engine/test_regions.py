from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow.engine.regions import (
    FRACTIONS,
    NAMES,
    cut_flow,
    in_crop,
    own_boxes,
    place_regions,
    read_region_boxes,
)
from apexflow.errors import ApexflowError
from apexflow.synthetic import Subject
from apexflow.synthetic.portrait import LANDMARKS

FACE = (100.0, 50.0, 500.0, 550.0)


def inside(point: tuple[float, float], box: tuple[float, float, float, float]) -> bool:
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_put_regions_where_the_parts_of_the_face_are(seed: int) -> None:
    """On portraits whose parts are known; each region holds both sides."""
    subject = Subject.random(seed)
    landmarks = [(float(x), float(y)) for x, y in subject.landmarks]
    boxes = dict(zip(NAMES, place_regions(NAMES, subject.box, landmarks), strict=True))
    parts = {
        "eyes": ("left_eye", "right_eye"),
        "eyebrows": ("left_brow_inner", "right_brow_inner", "left_brow_outer"),
        "mouth": ("left_mouth", "right_mouth", "upper_lip", "lower_lip"),
        "nose": ("nose", "left_nostril", "right_nostril"),
        "cheeks": ("left_cheek", "right_cheek"),
        "chin": ("chin",),
    }
    for region, names in parts.items():
        for name in names:
            assert inside(subject.locate(LANDMARKS[name]), boxes[region]), (region, name)
    assert boxes["forehead"][3] < subject.locate(LANDMARKS["left_eye"])[1]
    assert not inside(subject.locate(LANDMARKS["left_eye"]), boxes["mouth"])


def test_a_tilted_head_has_tilted_regions() -> None:
    upright = np.array([[200, 200], [300, 200], [250, 260], [210, 320], [290, 320]], float)
    turn = cv2.getRotationMatrix2D((250, 250), -20, 1)
    tilted = upright @ turn[:, :2].T + turn[:, 2]
    wide = (-1000.0, -1000.0, 2000.0, 2000.0)
    (straight,) = place_regions(["mouth"], wide, list(map(tuple, upright)))
    (leaning,) = place_regions(["mouth"], wide, list(map(tuple, tilted)))
    middle = np.array([[straight[0] + straight[2], straight[1] + straight[3]]]) / 2
    expected = middle @ turn[:, :2].T + turn[:, 2]
    found = [[(leaning[0] + leaning[2]) / 2, (leaning[1] + leaning[3]) / 2]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    a = np.deg2rad(20)
    sides = straight[2] - straight[0], straight[3] - straight[1]
    assert leaning[2] - leaning[0] == pytest.approx(sides[0] * np.cos(a) + sides[1] * np.sin(a))


def test_without_landmarks_regions_are_the_published_fractions() -> None:
    boxes = dict(zip(NAMES, place_regions(NAMES, FACE, ()), strict=True))
    assert boxes["eyes"] == pytest.approx((140, 100, 460, 250))
    assert boxes["eyebrows"] == pytest.approx((140, 75, 460, 150))
    assert boxes["mouth"] == pytest.approx((180, 350, 420, 500))


@given(
    landmarks=st.lists(
        st.tuples(st.floats(-500, 1500), st.floats(-500, 1500)), min_size=5, max_size=5
    ),
    padding=st.floats(0, 60),
)
def test_every_region_lies_in_the_face_and_holds_pixels(
    landmarks: list[tuple[float, float]], padding: float
) -> None:
    for x0, y0, x1, y1 in place_regions(NAMES, FACE, landmarks, padding=padding):
        assert FACE[0] <= x0 <= x1 - 4 + 1e-9
        assert FACE[1] <= y0 <= y1 - 4 + 1e-9
        assert x1 <= FACE[2] + 1e-9
        assert y1 <= FACE[3] + 1e-9


def test_padding_is_in_pixels_of_the_frame_and_own_boxes_are_kept() -> None:
    landmarks = [(220.0, 220.0), (380.0, 220.0), (300.0, 310.0), (240.0, 400.0), (360.0, 400.0)]
    (bare,) = place_regions(["eyes"], FACE, landmarks)
    (padded,) = place_regions(["eyes"], FACE, landmarks, padding=10)
    np.testing.assert_allclose(np.subtract(padded, bare), (-10, -10, 10, 10))
    own = {"eyes": (150.0, 160.0, 170.0, 190.0)}
    assert place_regions(["eyes"], FACE, landmarks, padding=10, own=own) == (own["eyes"],)


def test_own_boxes_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(
        "clip,region,x0,y0,x1,y1\n*,mouth,1,2,3,4\n006/006_1_2,mouth,10,20,30,40\n"
        "samm/006/006_1_2,eyes,5,6,7.5,8\n"
    )
    boxes = read_region_boxes(path)
    assert own_boxes(boxes, ("samm", "006", "006_1_2")) == {
        "mouth": (10, 20, 30, 40),
        "eyes": (5, 6, 7.5, 8),
    }
    assert own_boxes(boxes, ("casme2", "006", "006_1_2")) == {"mouth": (10, 20, 30, 40)}
    assert own_boxes(boxes, ("samm", "007", "x")) == {"mouth": (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("clip,region,x0,y0,x1\n", "no column y1"),
        ("clip,region,x0,y0,x1,y1\n*,mouth,1,2,3\n", "row 2: x0, y0, x1, y1 must be numbers"),
        ("clip,region,x0,y0,x1,y1\n*,mouth,5,2,3,4\n", "row 2: x0 < x1 and y0 < y1"),
    ],
)
def test_a_bad_file_is_refused_by_row(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(ApexflowError, match=match):
        read_region_boxes(path)
    with pytest.raises(ApexflowError, match="cannot be read"):
        read_region_boxes(tmp_path / "none.csv")


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(8, 40), columns=st.integers(8, 40))
@settings(max_examples=25)
def test_cut_flow_keeps_vectors(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 1, (2, 2, 48, 56)).astype(np.float32)
    boxes = [(4.0, 6.0, 4.0 + columns, 6.0 + rows), (-9.0, 40.2, 30.0, 90.0)]
    out = cut_flow(flow, boxes, (rows, columns))
    assert out.shape == (2, 2, 2, rows, columns)
    np.testing.assert_array_equal(out[:, 0], flow[:, :, 6 : 6 + rows, 4 : 4 + columns])
    uniform = cut_flow(np.full((1, 2, 48, 56), 1.25, np.float32), boxes, (31, 17))
    np.testing.assert_allclose(uniform, 1.25, rtol=1e-6)


def test_boxes_move_into_the_crop() -> None:
    (found,) = in_crop([(200.0, 300.0, 300.0, 550.0)], FACE, (100, 200))
    assert found == pytest.approx((50, 50, 100, 100))
    assert set(FRACTIONS) > set(NAMES)


def test_a_mesh_places_eyes_eyebrows_and_mouth_of_each_side_with_padding() -> None:
    """Points of the mesh that MediaPipe draws the parts with, here at places of their own."""
    mesh = np.full((468, 3), 300.0)
    corners = {33: (200, 210), 133: (260, 214), 159: (230, 200), 145: (230, 220)}
    corners |= {263: (400, 212), 362: (340, 214), 386: (370, 198), 374: (370, 222)}
    for point, place in corners.items():
        mesh[point, :2] = place
    names = ["left_eye", "right_eye", "mouth", "nose"]
    five = [(230.0, 210.0), (370.0, 210.0), (300.0, 300.0), (250.0, 380.0), (350.0, 380.0)]
    left, right, mouth, nose = place_regions(names, FACE, five, mesh=mesh, padding=10)
    assert left == (190, 190, 310, 310)
    assert right == (290, 188, 410, 310)
    assert mouth == (290, 290, 310, 310)
    assert nose == place_regions(["nose"], FACE, five, padding=10)[0]
    halves = place_regions(names[:2], FACE, five)
    assert halves[0][2] == halves[1][0] == 300


def test_the_six_points_of_blazeface_place_what_five_landmarks_place() -> None:
    five = [(230.0, 210.0), (370.0, 214.0), (300.0, 300.0), (250.0, 380.0), (350.0, 384.0)]
    six = [*five[:3], (300.0, 382.0), (150.0, 240.0), (450.0, 240.0)]
    assert place_regions(NAMES, FACE, six) == place_regions(NAMES, FACE, five)
