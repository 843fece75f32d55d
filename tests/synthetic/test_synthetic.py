"""The synthetic clips must be what their truth says, judged by independent arithmetic."""

from __future__ import annotations

import csv
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from apexflow import synthetic
from apexflow.errors import ApexflowError
from apexflow.synthetic import ClipTruth, Motion, Subject

SIZE = (160, 200)
NAMES = sorted(synthetic.EXPRESSIONS)


def person(seed: int = 0, size: tuple[int, int] = SIZE, **options) -> Subject:
    return Subject.random(seed, size=size, face=0.6, **options)


def clip(expression: str = "happiness", seed: int = 0, **options) -> ClipTruth:
    options = {"amplitude": 1.5, "shift": 2.0, "frames": 9} | options
    return ClipTruth.random(person(seed), expression, seed=seed, **options)


def light(truth: ClipTruth, frame: int) -> np.ndarray:
    return synthetic.expose(truth, frame, synthetic.paint(truth.subject))[0]


def pixels(size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return np.stack([x, y], axis=-1)


def read_at(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """SciPy's quintic spline: independent of the generator's own cubic one."""
    x, y = points[..., 0], points[..., 1]
    return ndimage.map_coordinates(image.astype(np.float64), [y, x], order=5, mode="nearest")


def on_face(truth: ClipTruth) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (int(v) for v in truth.box)
    return slice(y0, y1), slice(x0, x1)


def inside(size: tuple[int, int], border: int = 8) -> tuple[slice, slice]:
    return slice(border, size[0] - border), slice(border, size[1] - border)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    expression=st.sampled_from(NAMES),
    amplitude=st.floats(0, 3),
    shift=st.floats(0, 6),
    rotation=st.floats(-2, 2),
    scale=st.floats(-0.02, 0.02),
)
def test_flow_there_and_back_is_nothing(seed, expression, amplitude, shift, rotation, scale):
    truth = clip(expression, seed, amplitude=amplitude, shift=shift, rotation=rotation, scale=scale)
    points = pixels(SIZE)[::7, ::5]
    there = truth.flow_at(points)
    back = truth.flow_at(points + there, start=truth.apex, end=truth.onset)
    np.testing.assert_allclose(there + back, 0, atol=1e-4)


@pytest.mark.parametrize("expression", NAMES)
def test_flow_on_the_head_follows_the_formula(expression):
    """X(p, t) = head(p + a(t) d(p)), written out again in NumPy for points on the head."""
    truth = clip(expression, 3, rotation=1.0, scale=0.01)
    frame, c = truth.apex, np.array(truth.subject.centre)
    rng = np.random.default_rng(0)
    p = c + rng.uniform(-0.5, 0.5, (200, 2)) * truth.subject.face_height

    def seen(t):
        moved = p.copy()
        for part in synthetic.EXPRESSIONS[expression].parts:
            middle = truth.subject.locate(np.array([synthetic.LANDMARKS[part.landmark]]))
            r = (p - middle) / (np.array(part.radius) * truth.subject.face_height)
            bump = np.clip(1 - (r**2).sum(axis=1), 0, None) ** 3
            side = np.array([-1.0 if truth.subject.mirror else 1.0, 1.0])
            strength = truth.amplitude * truth.motion.intensity[t]
            moved += strength * bump[:, None] * (side * part.direction)
        angle = np.deg2rad(truth.motion.rotation[t])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return c + truth.motion.scale[t] * (moved - c) @ turn.T + truth.motion.shift[t]

    for start in (0, frame - 1):
        expected = seen(frame) - seen(start)
        actual = truth.flow_at(seen(start), start, frame)
        np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_background_is_still_and_the_head_moves_as_one():
    truth = clip(amplitude=0.0, shift=3.0, frames=12)
    flow = truth.flow()
    shift = truth.shifts()[truth.apex]
    distance = np.hypot(*np.moveaxis(pixels(SIZE) - truth.subject.centre, -1, 0))
    radii = np.array(synthetic.HEAD) * truth.subject.face_height
    assert np.abs(flow - shift)[distance < radii[0] - 4].max() < 1e-5
    assert np.abs(flow[distance > radii[1]]).max() == 0


@pytest.mark.parametrize(
    "options", [{"amplitude": 60.0}, {"shift": 40.0}, {"rotation": 30.0}, {"scale": 0.5}]
)
def test_motion_that_folds_the_picture_is_refused(options):
    with pytest.raises(ValueError, match="must keep neighbours in place"):
        clip(**options)


@pytest.mark.parametrize(("expression", "seed"), [("happiness", 0), ("surprise", 1), ("anger", 2)])
def test_the_apex_seen_along_the_flow_is_the_onset(expression, seed):
    truth = clip(expression, seed, rotation=1.0, scale=0.01)
    onset, apex = light(truth, 0), light(truth, truth.apex)
    box = on_face(truth)
    difference = (read_at(apex, pixels(SIZE) + truth.flow()) - onset)[box]
    moved = (apex - onset)[box]
    assert np.abs(difference).max() < 3.0
    assert difference.std() < 0.15
    assert moved.std() > 30 * difference.std()


def test_the_motion_of_large_frames_is_as_exact():
    subject = Subject.random(1)
    truth = ClipTruth.random(subject, "disgust", seed=4, rotation=0.5)
    face = synthetic.paint(subject)
    onset = synthetic.expose(truth, 0, face)[0]
    apex = synthetic.expose(truth, truth.apex, face)[0]
    box = on_face(truth)
    difference = read_at(apex, (pixels(subject.size) + truth.flow())[box]) - onset[box]
    assert onset.shape == (1088, 2040)
    assert np.abs(difference).max() < 1.0
    assert difference.std() < 0.1


@pytest.mark.parametrize("similarity", [False, True])
def test_crop_flow_is_the_flow_of_the_crops(similarity):
    truth = clip("surprise", 5, rotation=1.0 * similarity, scale=0.01 * similarity)
    size = (72, 64)
    x0, y0, x1, y1 = np.round(truth.box)
    first = synthetic.crop_matrix((x0, y0, x1, y1), size)
    if similarity:
        head = np.vstack([truth.head_matrix(truth.apex), [0, 0, 1]])
        second = (head @ np.vstack([first, [0, 0, 1]]))[:2]
    else:
        shift = tuple(np.round(truth.shifts()[truth.apex]))
        second = synthetic.crop_matrix((x0, y0, x1, y1), size, shift=shift)
    flow = truth.crop_flow(first, second, size)

    def cut(frame, matrix):
        return read_at(light(truth, frame), pixels(size) @ matrix[:, :2].T + matrix[:, 2])

    onset, apex = cut(0, first), cut(truth.apex, second)
    window = inside(size, 6)
    difference = (read_at(apex, pixels(size) + flow) - onset)[window]
    # Twice resampled, hence less exact than the frames themselves.
    assert difference.std() < 0.35
    assert (apex - onset)[window].std() > 8 * difference.std()
    if similarity:
        still = truth.still(first, size)
        assert np.abs(flow[still]).max() < 0.02


@settings(deadline=None, max_examples=20)
@given(
    x0=st.integers(0, 20),
    y0=st.integers(0, 20),
    width=st.integers(20, 90),
    height=st.integers(20, 90),
    out=st.tuples(st.integers(10, 90), st.integers(10, 90)),
)
def test_crop_matrix_is_what_cv2_resize_does(x0, y0, width, height, out):
    ramp = pixels((120, 120)).astype(np.float32)
    resized = cv2.resize(ramp[y0 : y0 + height, x0 : x0 + width], out[::-1])
    matrix = synthetic.crop_matrix((x0, y0, x0 + width, y0 + height), out)
    expected = pixels(out) @ matrix[:, :2].T + matrix[:, 2]
    low, high = [x0, y0], [x0 + width - 1, y0 + height - 1]
    np.testing.assert_allclose(resized, np.clip(expected, low, high), atol=2e-3)


def test_template_matching_finds_the_shifts():
    truth = clip("surprise", 1, shift=4.0, frames=7, noise=1.0)
    frames = synthetic.render(truth)
    x0, y0, x1, y1 = (round(v) for v in truth.box)
    template = frames[0][y0:y1, x0:x1]
    found = []
    for frame in frames:
        score = cv2.matchTemplate(
            frame[y0 - 8 : y1 + 8, x0 - 8 : x1 + 8], template, cv2.TM_CCOEFF_NORMED
        )
        _, _, _, (x, y) = cv2.minMaxLoc(score)
        found.append((x - 8, y - 8))
    assert np.abs(np.array(found) - truth.shifts()).max() < 0.75
    assert synthetic.shift_error(found, truth.shifts()) < 0.5


def test_shifts_at_a_point_follow_rotation_and_scale():
    truth = clip(amplitude=0.0, rotation=2.0, scale=0.02)
    corner = np.array(truth.box[:2])
    for reference in (0, 4):
        expected = [
            truth.flow_at(corner[np.newaxis], reference, frame)[0] for frame in range(len(truth))
        ]
        actual = truth.shifts(reference, at=tuple(corner))
        np.testing.assert_allclose(actual, expected, atol=2e-5)
    np.testing.assert_allclose(truth.shifts(3), truth.motion.shift - truth.motion.shift[3])


def test_known_flow_methods_come_near_the_truth():
    subject = Subject.random(2, size=(544, 1020))
    truth = ClipTruth.random(subject, "happiness", seed=3, amplitude=2.5, shift=1.0)
    onset, apex = synthetic.render(truth, [0, truth.apex])
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(onset, apex, None)
    farneback = cv2.calcOpticalFlowFarneback(onset, apex, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    box = on_face(truth)
    true = truth.flow()[box]
    nothing = synthetic.endpoint_error(np.zeros_like(true), true)
    for flow in (dis, farneback):
        assert synthetic.endpoint_error(flow[box], true) < 0.35 * nothing


def test_still_regions_move_with_the_head_alone():
    truth = clip("happiness", 2, rotation=1.0, scale=0.01)
    still = truth.still()
    head = truth.head_matrix(truth.apex)
    rigid = pixels(SIZE) @ head[:, :2].T + head[:, 2] - pixels(SIZE)
    difference = np.hypot(*np.moveaxis(truth.flow() - rigid, -1, 0))
    assert difference[still].max() < 0.021
    mouth = np.round(truth.subject.landmarks[3:] + truth.motion.shift[0]).astype(int)
    assert not still[mouth[:, 1], mouth[:, 0]].any()
    assert difference[mouth[:, 1], mouth[:, 0]].min() > 0.5 * truth.amplitude
    assert 0.3 < still.mean() < 0.99


def test_expressions_are_different_patterns():
    base = person(0)
    flows = []
    for name in NAMES:
        truth = ClipTruth.random(base, name, seed=1, frames=9, amplitude=2.0, shift=0.0)
        flow = truth.flow().ravel()
        flows.append(flow / np.linalg.norm(flow))
        assert 0.5 < np.abs(truth.flow()).max() < 3.0
    likeness = np.array(flows) @ np.array(flows).T - np.eye(len(NAMES))
    assert likeness.max() < 0.8


def test_mirrored_subjects_move_mirrored():
    flows = []
    for mirror in (False, True):
        subject = Subject(size=SIZE, centre=(99.5, 80.0), face_height=96, mirror=mirror)
        truth = ClipTruth.random(subject, "contempt", seed=1, frames=9, amplitude=2.0, shift=0.0)
        flows.append(truth.flow())
    np.testing.assert_allclose(flows[1], flows[0][:, ::-1] * [-1, 1], atol=1e-5)


def test_noise_is_white_gaussian_and_fresh_in_every_frame():
    truth = clip(noise=3.0, amplitude=0.0, shift=0.0, frames=5)
    clean = synthetic.render(truth, noisy=False).astype(float)
    noise = synthetic.render(truth) - clean
    noise = noise[:, 20:-20, 20:-20]
    count = noise[0].size
    # Rounding twice adds at most 1/6 to the variance.
    assert noise.std() == pytest.approx(3.0, rel=0.03)
    assert abs(noise.mean()) < 0.03
    assert abs((noise**4).mean() / (noise**2).mean() ** 2 - 3) < 0.4

    def alike(a, b):
        return abs(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    bound = 5 / np.sqrt(count)
    assert alike(noise[0, :, 1:], noise[0, :, :-1]) < bound
    assert alike(noise[0, 1:], noise[0, :-1]) < bound
    for frame in range(1, 5):
        assert alike(noise[0], noise[frame]) < bound


def test_illumination_follows_gain_and_drift():
    still = {"shift": np.zeros((2, 2)), "rotation": [0, 0], "scale": [1, 1], "intensity": [0, 0]}
    motion = Motion(**still, gain=[1.0, 1.05], drift=[0.0, -6.0])
    subject = person()
    truth = ClipTruth(
        subject=subject, motion=motion, expression="fear", amplitude=1.0, apex=1, noise=0.0
    )
    first, second = synthetic.render(truth).astype(float)
    assert np.abs(np.clip(1.05 * first - 6.0, 0, 255) - second).max() < 1.1


def test_color_frames_have_the_gray_ones_as_luma():
    truth = clip(noise=0.0)
    gray = synthetic.render(truth, [3])[0]
    color = synthetic.render(truth, [3], color=True)[0]
    assert color.shape == (*SIZE, 3)
    luma = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY).astype(float)
    assert np.abs(luma - gray).mean() < 1.0
    assert color[..., 0].mean() > color[..., 2].mean() + 3  # skin and hair are red rather than blue


def test_a_truth_travels_between_processes():
    truth = clip()
    copy = pickle.loads(pickle.dumps(truth))
    np.testing.assert_array_equal(copy.flow(), truth.flow())
    np.testing.assert_array_equal(synthetic.render(copy, [2]), synthetic.render(truth, [2]))


def test_everything_follows_from_the_seed():
    one, same, other = clip(seed=1), clip(seed=1), clip(seed=2)
    np.testing.assert_array_equal(synthetic.render(one), synthetic.render(same))
    assert (synthetic.render(one)[0] != synthetic.render(other)[0]).mean() > 0.5


@pytest.mark.parametrize(("size", "face"), [((160, 200), 0.6), ((544, 1020), 0.5)])
def test_mtcnn_finds_the_face(size, face):
    from facenet_pytorch import MTCNN

    detector = MTCNN(image_size=224, margin=20, keep_all=False, post_process=False, device="cpu")
    for seed in range(3):
        subject = Subject.random(seed, size=size, face=face)
        truth = ClipTruth.random(
            subject, NAMES[seed], seed=seed, amplitude=3 * size[0] / 1088, shift=1.0
        )
        frame = synthetic.render(truth, [truth.apex])[0]
        boxes, probabilities, landmarks = detector.detect(
            cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB), landmarks=True
        )
        best = int(np.argmax(probabilities))
        assert probabilities[best] > 0.99
        near = 0.1 * subject.face_height
        np.testing.assert_allclose(boxes[best].astype(float), truth.box, atol=near)
        np.testing.assert_allclose(landmarks[best].astype(float), subject.landmarks, atol=near)


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def samm(tmp_path_factory) -> tuple[Path, list[ClipTruth]]:
    root = tmp_path_factory.mktemp("samm")
    return root, synthetic.write_samm(root, frames=6, size=SIZE, face=0.6)


def test_samm_table_has_samms_form(samm):
    root, truths = samm
    data = (root / "samm.csv").read_bytes()
    assert data.startswith(
        b"Subject;Filename;Inducement Code;Onset Frame;Apex Frame;Offset Frame;Duration;Micro;"
        b"Action Units;Estimated Emotion;Objective Classes;Notes\r\n"
    )
    assert data.endswith(b"\r\n")
    assert data.count(b"\n") == data.count(b"\r\n") == 13
    rows = list(csv.DictReader(data.decode().splitlines(), delimiter=";"))
    assert [row["Filename"] for row in rows] == [truth.name for truth in truths]
    assert len({row["Subject"] for row in rows}) == 4
    faulty = {}
    for row in rows:
        onset, apex, offset = (int(row[f"{name} Frame"]) for name in ("Onset", "Apex", "Offset"))
        assert int(row["Duration"]) == offset - onset + 1 == 6
        assert row["Filename"].startswith(row["Subject"] + "_")
        if not onset <= apex <= offset:
            faulty[row["Filename"]] = (onset, apex, offset)
    assert faulty == {"028_4_1": (1071, 1085, 1076), "032_3_1": (4896, 1930, 4901)}


def test_samm_frames_are_where_the_table_says(samm):
    root, truths = samm
    digits = set()
    for truth in truths:
        folder = root / truth.subject.name / truth.name
        numbers = [path.stem.split("_")[1] for path in sorted(folder.iterdir())]
        digits |= {len(number) for number in numbers}
        first = truth.first_number
        assert [int(number) for number in numbers] == list(range(first, first + 6))
        image = cv2.imread(str(folder / synthetic.samm_name(truth, 2)), cv2.IMREAD_UNCHANGED)
        assert image.shape == SIZE
        assert image.dtype == np.uint8
        clean = synthetic.render(truth, [2], noisy=False)[0].astype(float)
        assert np.abs(image - clean).mean() < 3
    assert digits == {4, 5}


def test_samm_does_not_depend_on_threads_or_place(samm, tmp_path):
    root, _ = samm
    synthetic.write_samm(tmp_path, frames=6, size=SIZE, face=0.6, workers=1)
    assert tree(tmp_path) == tree(root)


def test_samm_without_faults_and_of_other_shape(tmp_path):
    truths = synthetic.write_samm(
        tmp_path, subjects=2, clips=3, frames=4, size=(96, 128), face=0.6, faulty=False, seed=5
    )
    assert [len(truth) for truth in truths] == [4, 4, 4]
    assert len({truth.subject for truth in truths}) == 2
    assert len(tree(tmp_path)) == 3 * 4 + 1
    assert all(truth.annotated_apex is None for truth in truths)


def test_frames_take_any_name_and_format(tmp_path):
    truth = clip(frames=4, noise=1.0)
    paths = synthetic.write_frames(tmp_path / "a", truth, name=lambda _, k: f"reg img {k}.png")
    frames = synthetic.render(truth)
    for path, frame in zip(paths, frames, strict=True):
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), frame)
    paths = synthetic.write_frames(tmp_path / "b", truth, color=True)
    assert [path.name for path in paths] == ["img1.jpg", "img2.jpg", "img3.jpg", "img4.jpg"]
    assert cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED).shape == (*SIZE, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_videos_hold_the_frames(tmp_path, suffix):
    truth = clip(frames=7, noise=0.0)
    path = synthetic.write_video(tmp_path / f"clip{suffix}", truth, color=True)
    video = cv2.VideoCapture(str(path))
    frames = []
    while True:
        read, frame = video.read()
        if not read:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    video.release()
    expected = synthetic.render(truth, color=True)
    assert len(frames) == len(expected)
    assert np.abs(np.array(frames, float) - expected).mean() < 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Subject(size=(16, 100)), "size must be at least 32"),
        (lambda: Subject(face_height=5), "face_height must be at least 24"),
        (lambda: Subject(shape=0.5), "shape must be between 0 and 0.02, got 0.5"),
        (lambda: clip("joy"), "expression must be one of .*'anger'.*got 'joy'"),
        (lambda: clip(noise=-1.0), "noise must not be negative"),
        (lambda: clip(frames=2), "frames must be at least 3, got 2"),
        (lambda: Motion.random(5, 4, seed=0), r"apex must lie between 0 and 4 .*got 4"),
        (lambda: synthetic.plan_samm(subjects=5, clips=3), "subjects must be between 1 and 3"),
        (lambda: synthetic.write_video("a.mov", clip()), r"path must end with one of .*'a.mov'"),
        (lambda: synthetic.endpoint_error(np.zeros((3, 2)), np.zeros((2, 2))), "one shape"),
        (lambda: synthetic.false_motion(np.zeros((3, 3, 2)), np.zeros((3, 3))), "mask must"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_measures():
    true = np.zeros((4, 5, 2))
    flow = np.tile([3.0, 4.0], (4, 5, 1))
    flow[0] = 0
    top = np.zeros((4, 5), bool)
    top[0] = True
    assert synthetic.endpoint_error(flow, true) == pytest.approx(5 * 3 / 4)
    assert synthetic.endpoint_error(flow, true, top) == 0
    assert synthetic.false_motion(flow, ~top) == pytest.approx(5)
    assert synthetic.shift_error([[0, 0], [3, 4]], [[0, 0], [0, 0]]) == pytest.approx(12.5**0.5)


class Fixed:
    """A detector that knows where the face is."""

    def __init__(self, count: int = 5) -> None:
        self.box = (60.0, 40.0, 130.0, 140.0)
        self.landmarks = ((80.0, 75.0), (112.0, 77.0), (95.0, 98.0), (80.0, 112.0), (112.0, 113.0))
        self.landmarks = self.landmarks[:count]

    def detect(self, image: np.ndarray) -> Fixed:
        assert image.shape == (180, 200, 3)
        return self


def test_a_picture_of_one_s_own_becomes_a_subject(tmp_path):
    picture = np.random.default_rng(0).uniform(0, 255, (18, 20, 3)).astype(np.uint8)
    picture = cv2.resize(picture, (200, 180), interpolation=cv2.INTER_LINEAR)
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), picture[:, :, ::-1])
    portrait = synthetic.Portrait.read(path, Fixed())
    np.testing.assert_array_equal(portrait.image(), picture)
    person = synthetic.Subject(
        size=(120, 160),
        centre=(80.0, 60.0),
        face_height=50.0,
        contrast=1.0,
        texture=0.0,
        shape=0.0,
        portrait=portrait,
    )
    x0, y0, x1, y1 = person.box
    assert (x1 - x0, y1 - y0) == (35.0, 50.0)
    # The picture at half its size, the middle of its face at the subject's.
    np.testing.assert_allclose(
        person.landmarks, (np.array(Fixed().landmarks) - (95, 90)) / 2 + (80, 60)
    )
    eye = portrait.landmarks["left_eye"]
    assert np.hypot(*np.subtract(eye, portrait.five[0])) < 5
    still = synthetic.ClipTruth(
        subject=person,
        motion=synthetic.Motion.random(4, 2, seed=0, shift=0.0),
        expression="surprise",
        amplitude=1.0,
        apex=2,
        noise=0.0,
    )
    shown = synthetic.render(still, [0], noisy=False, color=True)[0]
    gain, drift = still.motion.gain[0], still.motion.drift[0]
    y, x = np.mgrid[40:80:3, 65:95:3]
    expected = gain * picture[2 * (y - 60) + 90, 2 * (x - 80) + 95].astype(float) + drift
    assert np.abs(shown[y, x] - expected).mean() < 4  # it is blurred a little before it shrinks
    two = synthetic.plan_samm(
        subjects=2, clips=2, frames=6, size=(120, 160), portraits=(synthetic.Portrait(), portrait)
    )
    assert {truth.subject.portrait for truth in two} == {synthetic.Portrait(), portrait}
    with pytest.raises(ApexflowError, match="five landmarks"):
        synthetic.Portrait.read(path, Fixed(2))
    for name, content in (("gone.png", None), ("text.png", b"text"), ("empty.png", b"")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ApexflowError, match=name):
            synthetic.Portrait.read(tmp_path / name, Fixed())


def test_parts_out_of_step_follow_one_another():
    truth = replace(clip("contempt", 1, shift=0.0, frames=25), lag=6.0)
    parts = synthetic.EXPRESSIONS["contempt"].parts
    at = truth.subject.locate(np.array([synthetic.LANDMARKS[p.landmark] for p in parts]))
    in_step = replace(truth, lag=0.0)
    for frame in (4, truth.apex, 20):
        for number, behind in enumerate((-3, 3)):
            moved = truth._bumps(frame)[number, 4:]
            np.testing.assert_allclose(moved, in_step._bumps(frame - behind)[number, 4:])
    assert np.abs(truth.flow_at(at)).max() > 0
