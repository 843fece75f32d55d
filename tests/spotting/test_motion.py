from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.kernels import clg, normalize_light
from apexflow.spotting import mdmd, score
from apexflow.spotting.curves import Measured, curves_of, find_blinks, find_speech, motion_curves
from apexflow.spotting.follow import Follower, Place
from apexflow.spotting.measure import FaceBox, Measurer, measured_of
from apexflow.spotting.motion import CELLS, FEATURES, FaceMotion, FaceRegions
from apexflow.spotting.recipe import SpotRecipe
from apexflow.synthetic import LongTruth, Subject

RECIPE = SpotRecipe.load("regions")
SUBJECT = Subject.random(3, size=(288, 256), face=0.75)


def long_video(**options: object) -> LongTruth:
    defaults = {"seed": 5, "seconds": 6.0, "fps": 30.0, "micro": 0, "macro": 0}
    defaults |= {"blinks_a_minute": 0.0}
    return LongTruth.random(SUBJECT, **(defaults | options))  # type: ignore[arg-type]


def middle(truth: LongTruth, frame: int) -> NDArray[np.float64]:
    """Where the middle of the face's box truly lies."""
    x0, y0, x1, y1 = truth.box
    start = np.array([(x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2])
    centre = np.array(truth.subject.centre) + np.array([truth.left, 0])

    def turn(at: int) -> NDArray[np.float64]:
        angle = np.deg2rad(truth.rotation[at])
        c, s = truth.scale[at] * np.cos(angle), truth.scale[at] * np.sin(angle)
        return np.array([[c, -s], [s, c]])

    material = np.linalg.solve(turn(0), start - centre - truth.shift[0])
    return np.asarray(turn(frame) @ material + centre + truth.shift[frame])


def test_a_head_that_turns_and_nears_is_followed_with_renewed_templates() -> None:
    other = Subject.random(8, size=(288, 160), face=0.4)
    truth = long_video(shift=12.0, rotation=6.0, scale=0.1, beside=other, seconds=5.0)
    chosen = range(0, len(truth), 3)
    face = FaceBox(truth.box, tuple((x, y) for x, y in truth.landmarks.tolist()))
    measurer: Measurer | None = None
    records = []
    for row, image in enumerate(truth.frames(chosen)):
        measurer = measurer or Measurer(image, face, RECIPE)
        records.append(measurer.measure(row, chosen[row], image))
    assert len({int(record["template"]) for record in records}) > 2
    for frame, record in zip(chosen, records, strict=True):
        x, y, rotation, scale = record["place"].tolist()
        assert np.hypot(*((x, y) - middle(truth, frame))) < 0.7
        # Of each template's turn some hundredths are not seen: 6 degrees are found short.
        assert abs(rotation - (truth.rotation[frame] - truth.rotation[0])) < 0.8
        assert abs(scale / (truth.scale[frame] / truth.scale[0]) - 1) < 0.02


def test_a_face_that_leaves_is_lost_and_found() -> None:
    (image,) = long_video().frames([0])
    truth = long_video()
    follower = Follower(image, truth.box, RECIPE.following)
    rng = np.random.default_rng(0)
    assert follower.find(rng.integers(0, 256, image.shape, np.uint8)).score < 0.5
    moved = np.roll(image, 20, axis=1)
    again = follower.find(moved)
    assert again.score > 0.9
    assert abs(again.place.x - follower.origin.x - 20) < 0.5


def test_differences_of_fields_are_the_flow_between_frames() -> None:
    truth = long_video(macro=1, amplitude=1.5)
    (event,) = truth.events
    between = (event.onset + event.apex) // 2
    still = replace(RECIPE.following, side=192)
    images = list(truth.frames([event.onset, between, event.apex]))
    follower = Follower(images[0], truth.box, still)
    crops = [follower.crop(image, follower.find(image).place) for image in images]
    motion = FaceMotion(crops[0], RECIPE.flow)
    one, two = (motion.measure(crop)[0] for crop in crops[1:])
    scale = 192 / 224
    normal = [normalize_light(crop, sigma=RECIPE.flow.sigma * scale) for crop in crops]
    direct = clg(normal[1], normal[2], rho=RECIPE.flow.rho * scale)
    cells = direct.reshape(CELLS, 8, CELLS, 8, 2).mean(axis=(1, 3))
    error = np.hypot(*(two - one - np.moveaxis(cells, -1, 0)))
    assert np.hypot(*np.moveaxis(cells, -1, 0)).max() > 0.4
    assert np.sqrt((error**2).mean()) < 0.05


def test_features_are_means_and_strains_of_the_blocks() -> None:
    side = 96
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) * side / CELLS
    field = np.stack([0.01 * x + 0.02 * y + 3, -0.03 * x + 0.04 * y - 1])
    regions = FaceRegions.of(None)
    found = (regions.features(side) @ field.ravel()).reshape(-1, FEATURES)
    nose = np.array(regions.nose)
    for (_, corners), features in zip(regions.blocks, found, strict=True):
        away = (np.array(corners[:2]) + corners[2:] - nose[:2] - nose[2:]) / 2 * side
        assert features[:2] == pytest.approx(
            np.array([[0.01, 0.02], [-0.03, 0.04]]) @ away, abs=0.02
        )
        strain = np.array([0.01, 0.04, (0.02 - 0.03) / np.sqrt(2)])
        assert features[2:] == pytest.approx(strain * (corners[2] - corners[0]) * side, abs=1e-4)


def plain_mdmd(fields: NDArray[np.float32], lag: int) -> NDArray[np.float64]:
    """The method in the plainest form: a loop over frames, blocks and directions."""
    count, side = len(fields), CELLS // mdmd.BLOCKS

    def at(row: int) -> NDArray[np.float32]:
        return fields[min(max(row, 0), count - 1)]

    raw = []
    for t in range(count):
        near, far = at(t) - at(t - lag), at(t + lag) - at(t - lag)
        differences = []
        for i in range(mdmd.BLOCKS):
            for j in range(mdmd.BLOCKS):
                cut = np.s_[i * side : (i + 1) * side, j * side : (j + 1) * side]
                u, v = near[0][cut].ravel(), near[1][cut].ravel()
                ways = [
                    (0 if a >= 0 else 2) if abs(a) >= abs(b) else (1 if b >= 0 else 3)
                    for a, b in zip(u, v, strict=True)
                ]
                main = max(range(4), key=lambda way: (ways.count(way), -way))
                chosen = [n for n, way in enumerate(ways) if way == main]
                whole = np.hypot(far[0][cut].ravel(), far[1][cut].ravel())
                differences.append(np.mean(np.hypot(u, v)[chosen] - whole[chosen]))
        raw.append(np.mean(sorted(differences)[-12:]))
    around = [(raw[max(t - lag, 0)] + raw[min(t + lag, count - 1)]) / 2 for t in range(count)]
    return np.maximum(np.array(raw) - around, 0)


def made(fields: NDArray[np.float32], rate: float = 30.0) -> Measured:
    return Measured(
        numbers=np.arange(len(fields)),
        rate=rate,
        step=1,
        side=96,
        fields=fields,
        eyes=np.zeros(len(fields), np.float32),
        lost=np.zeros(len(fields), bool),
        regions=FaceRegions.of(None),
    )


@pytest.mark.parametrize(("count", "lag"), [(9, 2), (3, 5), (20, 1)])
def test_mdmd_is_that_of_plain_loops(count: int, lag: int) -> None:
    fields = np.random.default_rng(count).normal(size=(count, 2, CELLS, CELLS)).astype(np.float32)
    assert mdmd.curve(made(fields), lag) == pytest.approx(plain_mdmd(fields, lag), abs=1e-5)


def pushed(events: list[tuple[int, int, float]], count: int = 700) -> NDArray[np.float32]:
    """Fields in which the left brow rises by some px from onset to offset; noise of .02 px."""
    fields = np.random.default_rng(1).normal(0, 0.02, (count, 2, CELLS, CELLS))
    brow = FaceRegions.of(None).blocks[0][1]
    x, y = (round((brow[i] + brow[i + 2]) / 2 * CELLS) for i in (0, 1))
    for onset, offset, height in events:
        part = 0.5 - 0.5 * np.cos(2 * np.pi * np.linspace(0, 1, offset - onset + 1))
        fields[onset : offset + 1, 1, y - 3 : y + 3, x - 3 : x + 3] -= height * part[:, None, None]
    return fields.astype(np.float32)


def test_intervals_are_found_where_they_are() -> None:
    events = [(100, 113, 0.5), (300, 340, 0.5), (600, 612, 0.3)]
    motion = curves_of(made(pushed(events)), RECIPE)
    assert [spot.kind for spot in motion.spots] == ["micro", "macro", "micro"]
    for spot, (onset, offset, _) in zip(motion.spots, events, strict=True):
        assert abs(spot.onset - onset) <= 2
        assert abs(spot.offset - offset) <= 2
        assert abs(spot.apex - (onset + offset) / 2) <= 2
        assert spot.region == "left brow"


def test_nothing_is_found_in_noise() -> None:
    assert curves_of(made(pushed([])), RECIPE).spots == ()


def test_a_blink_and_a_lost_face_are_no_expression() -> None:
    fields = pushed([(100, 105, 0.5), (300, 313, 0.5), (500, 513, 0.5)])
    measured = made(fields)
    measured.eyes[100:106] = 5
    measured.lost[505] = True
    motion = curves_of(measured, RECIPE)
    (spot,) = motion.spots
    assert abs(spot.onset - 300) <= 2
    assert motion.blinks[99:107].all()


def test_motion_curves_of_aligned_crops() -> None:
    truth = long_video(micro=1, amplitude=3.0, shift=0.0, rotation=0.0, scale=0.0, seconds=4.0)
    (event,) = truth.events
    x0, y0, x1, y1 = truth.box
    crops = (image[y0:y1, x0:x1] for image in truth.frames())
    landmarks = (truth.landmarks - (x0, y0)) / (x1 - x0, y1 - y0)
    numbers = range(1000, 1000 + len(truth))
    motion = motion_curves(crops, fps=truth.fps, landmarks=landmarks, numbers=numbers)
    (spot,) = motion.spots
    assert abs(spot.onset - 1000 - event.onset) <= 2
    assert abs(spot.offset - 1000 - event.offset) <= 2
    assert set(motion.motion) == {"left brow", "right brow", "mouth"}
    assert motion.curves["micro"].values.shape == (len(truth),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fps": 0}, "fps must be positive"),
        ({"landmarks": [[0, 0]] * 5}, "the eyes are 0.00 apart"),
        ({"numbers": [1, 2]}, "numbers must be one a crop, 3"),
        ({"crops": 2}, "at least 3 crops"),
        ({"recipe": "none"}, "spotting recipe none: no such recipe"),
    ],
)
def test_wrong_arguments_of_motion_curves(options: dict[str, object], said: str) -> None:
    count = options.pop("crops", 3)
    crops = [np.full((40, 40), 99, np.uint8)] * count  # type: ignore[operator]
    with pytest.raises(ApexflowError, match=said):
        motion_curves(crops, **({"fps": 30} | options))  # type: ignore[arg-type]


def test_flat_crops_have_no_motion() -> None:
    motion = motion_curves([np.full((40, 40), 99, np.uint8)] * 50, fps=30)
    assert motion.spots == ()


def test_place_outside_of_the_frame_is_refused() -> None:
    from apexflow.errors import ClipError

    image = np.zeros((100, 100), np.uint8)
    with pytest.raises(ClipError, match="smaller than 32 px"):
        Follower(image, (0, 0, 20, 20), RECIPE.following)
    with pytest.raises(ClipError, match="lies outside"):
        Follower(image, (0, 0, 40, 40), RECIPE.following, Place(500, 500))


def test_crowded_expressions_of_both_ways_keep_their_own_intervals() -> None:
    """Neither neighbours that move the other way nor what fills the video widens or hides one."""
    fields = pushed([])
    events = [(60 + 75 * n, 60 + 75 * n + (40 if n % 2 else 14)) for n in range(8)]
    for n, (onset, offset) in enumerate(events):
        way = 1 if n % 3 else -1
        fields += way * (pushed([(onset, offset, 2.0)]) - pushed([]))
    motion = curves_of(made(fields), RECIPE)
    assert [spot.kind for spot in motion.spots] == ["micro", "macro"] * 4
    for spot, (onset, offset) in zip(motion.spots, events, strict=True):
        assert abs(spot.onset - onset) <= 3
        assert abs(spot.offset - offset) <= 3


def test_crowded_macro_expressions_of_a_video_are_found() -> None:
    truth = LongTruth.random(
        Subject.random(4000, size=(192, 176), face=0.75),
        seed=4000,
        seconds=10,
        fps=50,
        micro=0,
        macro=5,
        amplitude=3.0,
        noise=1.0,
        blinks_a_minute=0,
    )
    face = FaceBox(truth.box, tuple((x, y) for x, y in truth.landmarks.tolist()))
    measurer, records = None, []
    for row, image in enumerate(truth.frames()):
        measurer = measurer or Measurer(image, face, RECIPE)
        records.append(measurer.measure(row, row, image))
    motion = curves_of(measured_of(np.array(records), 50, 1, face, RECIPE), RECIPE)
    found = [(s.onset, s.offset, s.kind) for s in motion.spots]
    true = [(e.onset, e.offset, e.kind) for e in truth.events]
    assert len(true) == 5
    scored = score([("v", *one) for one in found], [("v", *one) for one in true])
    assert scored.tp == 5
    assert scored.f1 > 0.9


def test_a_step_is_no_expression() -> None:
    fields = pushed([])
    fields[300:] += pushed([(0, 1398, 1.0)], 1399)[699] - pushed([], 1399)[699]
    assert curves_of(made(fields), RECIPE).spots == ()


def test_noise_of_the_mouth_is_no_speech_and_syllables_are() -> None:
    names = FaceRegions.of(None).names
    features = np.random.default_rng(3).normal(0, 0.15, (900, len(names), FEATURES))
    assert not find_speech(features, names, 30.0, RECIPE.apart).any()
    lower = np.flatnonzero(np.array(names) == "mouth")[3:]
    opening = 1.5 - 1.5 * np.cos(2 * np.pi * 4 * np.arange(90) / 30)
    features[300:390, lower, 1] += opening[:, None]
    speech = find_speech(features, names, 30.0, RECIPE.apart)
    assert speech[305:385].all()
    assert not speech[:285].any()
    assert not speech[405:].any()


def test_a_blink_in_the_template_is_seen_by_open_eyes() -> None:
    eyes = np.full(300, 6.0, np.float32)
    eyes[100:105] = 0.5
    blinks = find_blinks(eyes, 30.0, RECIPE.apart)
    assert blinks[100:105].all()
    assert blinks.sum() < 12
