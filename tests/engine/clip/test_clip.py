"""One clip's way, and what comes out of a store by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow import process
from apexflow.catalog import Catalog, Clip
from apexflow.datasets import read_samm
from apexflow.datasets import sources as frames_module
from apexflow.datasets.sources import Image
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.apex import CLEAR, estimate_apex
from apexflow.engine.clip.faces import Face
from apexflow.engine.clip.flow import make_map
from apexflow.engine.clip.plan import plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.regions import in_crop
from apexflow.errors import ClipError
from apexflow.kernels import farneback
from apexflow.kernels.encode import make_maps
from apexflow.quality import parse_flags
from apexflow.report.compare import PER_FRAME, RECIPE, WHOLE_PIXELS, compare_alignments
from apexflow.storage.checks import verify
from apexflow.storage.store import Store, open_store
from apexflow.synthetic import ClipTruth, write_samm
from tests.conftest import small

WINDOWS = ["consecutive", "onset-every-3"]
CHAIN = "onset-mid-apex-mid-offset"


@pytest.fixture
def clip(catalog: Catalog) -> Clip:
    return catalog[0]


class Drawn:
    """A detector that finds the one face that the synthetic clips show, with landmarks."""

    def detect(self, image: Image) -> Face:
        marks = ((85.0, 70.0), (115.0, 70.0), (100.0, 90.0), (88.0, 108.0), (112.0, 108.0))
        return Face((60, 30, 140, 130), marks, 0.99)


def stored(clips: Sequence[Clip], path: Path, recipe: Recipe) -> Store:
    summary = process(Catalog(clips), path, recipe=recipe, workers=0, progress=False)
    assert not summary.failed, summary
    store = open_store(path)
    assert verify(store) == []
    return store


def two_frames(**changes: object) -> Recipe:
    """Return a small recipe whose flow is Farnebäck's between two crops as they are."""
    values = small(Recipe.load("default"), **changes).to_dict()
    values["flow"]["method"] = "farneback"
    return Recipe.from_dict(values | {"normalization": {}, "temporal": {}})


def test_flow_of_each_step_is_the_kernel_s_between_the_crops(clip: Clip) -> None:
    recipe = two_frames(windows=[CHAIN, "onset-apex", "consecutive"], maps={})
    result = process_clip(clip, recipe)
    assert result.flow[CHAIN].shape == (4, 2, 64, 64)
    assert result.flow["onset-apex"].shape == (2, 64, 64)
    assert len(result.flow["consecutive"]) == len(result.aligned.numbers) - 1
    for window, steps in result.plan.pairs.items():
        flows = result.flow[window].reshape(-1, 2, 64, 64)
        for flow, (first, second) in zip(flows, steps, strict=True):
            crops = result.aligned.crop(first), result.aligned.crop(second)
            expected = farneback(*crops, **recipe.flow.options)
            np.testing.assert_array_equal(flow, np.moveaxis(expected, -1, 0))


def test_regions_are_cut_from_the_flow_or_enlarged_from_the_frames(clip: Clip) -> None:
    values: dict[str, Any] = two_frames(windows=[CHAIN], maps={}).to_dict()
    values["regions"] |= {"names": ["mouth", "nose"], "height": 40, "width": 48}
    cut = process_clip(clip, Recipe.from_dict(values), detector=Drawn())
    assert cut.roi[CHAIN].shape == (4, 2, 2, 40, 48)
    boxes = in_crop(cut.regions[:2], cut.box, (64, 64))
    for i, (x0, y0, x1, y1) in enumerate([tuple(map(round, box)) for box in boxes]):
        part = cut.flow[CHAIN][:, :, y0:y1, x0:x1]
        for step in range(4):
            expected = cv2.resize(np.moveaxis(part[step], 0, -1), (48, 40))
            np.testing.assert_allclose(
                cut.roi[CHAIN][step, i], np.moveaxis(expected, -1, 0), atol=1e-6
            )
    values["regions"]["source"] = "frames"
    values["alignment"]["method"] = "integer"
    values["crop"]["interpolation"] = "linear"
    enlarged = process_clip(clip, Recipe.from_dict(values), detector=Drawn())
    (path,) = {file.parent for file in clip.path.iterdir()}
    steps = enlarged.plan.pairs[CHAIN]
    images = {}
    for number, (dx, dy) in zip(
        enlarged.aligned.numbers, enlarged.aligned.shift.astype(int), strict=True
    ):
        name = enlarged.files[enlarged.aligned.numbers.index(number)]
        frame = cv2.imread(str(path / name), cv2.IMREAD_GRAYSCALE)
        x0, y0, x1, y1 = (round(value) for value in enlarged.regions[0])
        images[number] = cv2.resize(frame[y0 + dy : y1 + dy, x0 + dx : x1 + dx], (48, 40))
    for step, (first, second) in enumerate(steps):
        expected = farneback(images[first], images[second], **Recipe.from_dict(values).flow.options)
        np.testing.assert_array_equal(enlarged.roi[CHAIN][step, 0], np.moveaxis(expected, -1, 0))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_maps_made_when_reading_equal_those_of_the_run(
    tmp_path: Path, clip: Clip, dtype: str
) -> None:
    values = small(Recipe.load("default"), windows=["onset-apex", "steps-3"]).to_dict()
    values["flow"]["dtype"] = dtype
    values["regions"]["names"] = ["mouth"]
    values["maps"] = {
        "hsv": {"encoding": "hsv", "window": "onset-apex", "size": [28, 28]},
        "still": {
            "encoding": "hsv-absolute",
            "window": "steps-3",
            "size": [64, 64],
            "remove_head": True,
            "mask_eyes": True,
            "options": {"max_magnitude": 1.5},
        },
        "uv": {"encoding": "uv", "window": "steps-3", "size": [30, 20]},
        "strain": {"encoding": "uv-strain", "window": "onset-apex", "size": [28, 28]},
        "mouth": {
            "encoding": "magnitude-angle",
            "window": "steps-3",
            "size": [16, 24],
            "regions": True,
        },
    }
    recipe = Recipe.from_dict(values)
    store = stored([clip], tmp_path / "s.zarr", recipe)
    record = store.record(0)
    assert record is not None
    placed = store.array("clips/roi_box").attrs["regions"]
    boxes = dict(zip(placed, in_crop(record.roi_box, record.box, store.layout.crop), strict=True))
    for name, wanted in recipe.maps.items():
        flow = store.read(f"{'roi' if wanted.regions else 'flow'}/{wanted.window}", 0, record)
        assert flow.dtype == dtype
        made = make_map(wanted, flow, boxes)
        np.testing.assert_array_equal(made, store.read(f"maps/{name}", 0, record))
    assert store.read("maps/mouth", 0, record).shape == (3, 1, 16, 24, 3)
    plain = make_maps(
        store.read("flow/steps-3", 0, record),
        "hsv-absolute",
        size=(64, 64),
        options={"max_magnitude": 1.5},
    )
    assert (plain != store.read("maps/still", 0, record)).any()


def test_windows_as_long_as_the_clip_share_the_rows_of_its_frames(
    tmp_path: Path, catalog: Catalog
) -> None:
    values = small(Recipe.load("default"), windows=WINDOWS, maps={}).to_dict()
    values["maps"] = {"all": {"encoding": "hsv", "window": "consecutive", "size": [16, 16]}}
    recipe = Recipe.from_dict(values)
    clips = [c for c in catalog if c.name not in ("028_4_1", "032_3_1")][:2]
    store = stored(clips, tmp_path / "s.zarr", recipe)
    for row, one in enumerate(clips):
        record = store.record(row)
        assert record is not None
        result = process_clip(one, recipe)
        for window in recipe.windows:
            np.testing.assert_array_equal(
                store.read(f"flow/{window}", row, record), result.flow[window]
            )
        assert store.read("maps/all", row, record).shape == (8, 16, 16, 3)
        every = np.asarray(store.array("flow/onset-every-3")[:])
        numbers = store.array("frames/frame_number")[:].tolist()
        start, count = record.frame_start, len(record.frame_numbers)
        filled = np.isfinite(every[start : start + count]).all(axis=(1, 2, 3))
        ends = [n for n, full in zip(numbers[start : start + count], filled, strict=True) if full]
        assert one.onset is not None
        assert ends == [one.onset + 3, one.onset + 6]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("seed-samm", {"maps/hsv": (28, 28, 3), "flow/onset-apex": (2, 224, 224)}),
        ("ststnet", {"maps/uv-strain": (28, 28, 3)}),
        ("ststnet-published", {"maps/uv-strain": (28, 28, 3)}),
        ("roi", {"maps/roi": (4, 3, 224, 224, 3), f"roi/{CHAIN}": (4, 3, 2, 224, 224)}),
        ("apexnet", {"maps/hsv": (224, 224, 3), "frames/image": (3, 224, 224)}),
        ("sequence", {"frames/image": (9, 224, 224)}),
        ("default", {"maps/hsv": (28, 28, 3), "frames/image": (9, 224, 224)}),
    ],
)
def test_each_recipe_gives_its_tensors_by_name(
    tmp_path: Path, clip: Clip, name: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    """SEEDS: the shapes that the published systems take, from the recipe of their name."""
    values = Recipe.load(name).to_dict()
    values["face"] |= {"detector": "fixed", "box": [60, 30, 140, 130]}
    values["alignment"]["margin"] = 6
    store = stored([clip], tmp_path / "s.zarr", Recipe.from_dict(values))
    record = store.record(0)
    assert record is not None
    for path, shape in shapes.items():
        array = store.read(path, 0, record)
        assert array.shape == shape
        values32 = array.astype(np.float32)
        assert np.isfinite(values32).all()
        assert values32.std() > 0


def test_maps_alone_decode_only_the_frames_they_need(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = two_frames(windows=["onset-apex", "apex-offset"]).to_dict()
    values["frames"] = {"which": "windows", "keep": False}
    decoded: list[Path] = []
    decode = frames_module.read_image

    def counted(path: Path, **options: Any) -> Image:
        decoded.append(path)
        return decode(path, **options)

    monkeypatch.setattr(frames_module, "read_image", counted)
    result = process_clip(clip, Recipe.from_dict(values))
    key_frames = (clip.onset, clip.apex, clip.offset)
    numbers = [frames_module.frame_number(path.stem) for path in decoded]
    assert sorted(numbers) == sorted({*key_frames, result.plan.template})
    assert len(numbers) <= 4 < len(list(clip.path.iterdir()))


@pytest.mark.parametrize("method", ["difference", "flow"])
def test_an_apex_that_nobody_annotated_is_estimated_on_aligned_crops(
    tmp_path: Path, method: str
) -> None:
    truths = write_samm(
        tmp_path / "samm",
        subjects=1,
        clips=1,
        frames=15,
        size=(160, 200),
        amplitude=14,
        seed=3,
        faulty=False,
    )
    (annotated,) = read_samm(tmp_path / "samm")
    unknown = replace(annotated, apex=None, apex_source=method)
    recipe = small(Recipe.load("default"))
    result = process_clip(unknown, recipe)
    position, confidence = estimate_apex(result.aligned.crops, method=method)
    assert result.plan.key_frames["apex"] == result.aligned.numbers[position]
    assert abs(position - truths[0].apex) <= 3
    store = stored([unknown], tmp_path / "s.zarr", recipe)
    record = store.record(0)
    assert record is not None
    assert record.apex_confidence == confidence > 0.9
    assert record.flags == ""
    assert (record.apex_frame, record.apex_source) == (result.plan.key_frames["apex"], method)
    assert store.column("apex_frame").tolist() == [record.apex_frame]
    assert store.column("apex_source").tolist() == [method]
    assert store.column("apex").tolist() == [-1]


def test_a_still_clip_has_no_clear_apex(tmp_path: Path, clip: Clip) -> None:
    write_samm(
        tmp_path / "samm",
        subjects=1,
        clips=1,
        frames=15,
        size=(160, 200),
        amplitude=0,
        faulty=False,
    )
    (still,) = read_samm(tmp_path / "samm", apex="flow")
    store = stored([still], tmp_path / "s.zarr", small(Recipe.load("default")))
    record = store.record(0)
    assert record is not None
    assert record.apex_confidence is not None
    assert record.apex_confidence < CLEAR
    flags = {flag.name: flag.figure for flag in parse_flags(record.flags)}
    assert "no-motion" in flags
    assert flags["apex-unclear"] == pytest.approx(record.apex_confidence, abs=0.01)
    annotated = stored([clip], tmp_path / "a.zarr", small(Recipe.load("default"))).record(0)
    assert annotated is not None
    assert annotated.apex_confidence is None
    assert "apex-unclear" not in annotated.flags


def test_an_annotated_apex_says_so(tmp_path: Path, clip: Clip) -> None:
    store = stored([clip], tmp_path / "s.zarr", small(Recipe.load("default")))
    assert store.column("apex_source").tolist() == ["annotated"]
    assert store.column("apex_frame").tolist() == [clip.apex]


@pytest.mark.parametrize(
    ("windows", "change", "match"),
    [
        (["onset-apex"], {"apex": None, "apex_source": ""}, "no apex is annotated.*--apex flow"),
        (["onset-apex"], {"onset": 1}, "onset frame 1 is not on disk"),
    ],
)
def test_windows_whose_key_frames_are_unknown_are_refused(
    clip: Clip, windows: list[str], change: dict[str, Any], match: str
) -> None:
    recipe = small(Recipe.load("default"), windows=windows, maps={})
    with pytest.raises(ClipError, match=match):
        plan_clip(replace(clip, **change), recipe)


def test_windows_that_need_no_key_frame_take_the_whole_clip(clip: Clip) -> None:
    recipe = small(Recipe.load("default"), windows=["steps-3", "consecutive"], maps={})
    bare = replace(clip, onset=None, apex=None, offset=None, apex_source="")
    plan = plan_clip(bare, recipe)[1]
    assert len(plan.pairs["consecutive"]) == 8
    assert plan.apex_source == ""


@pytest.mark.parametrize(
    "unknown", [{"onset": None}, {"offset": None}, {"onset": None, "offset": None}]
)
def test_an_unknown_onset_or_offset_is_the_clip_s_end(clip: Clip, unknown: dict[str, None]) -> None:
    recipe = small(Recipe.load("default"), windows=["onset-apex-offset", "onset-every-2"], maps={})
    _, plan = plan_clip(replace(clip, **unknown), recipe)
    numbers = plan_clip(clip, small(Recipe.load("seed-samm")))[1].numbers
    onset = clip.onset if "onset" not in unknown else numbers[0]
    offset = clip.offset if "offset" not in unknown else numbers[-1]
    assert plan.pairs["onset-apex-offset"] == ((onset, clip.apex), (clip.apex, offset))
    assert (plan.interval[0], plan.interval[-1]) == (onset, offset)


def test_own_boxes_place_a_clip_s_regions(clip: Clip) -> None:
    values = small(Recipe.load("default")).to_dict()
    name = "/".join(clip.key[1:])
    values["regions"] |= {"names": ["mouth"], "boxes": {name: {"mouth": [80, 90, 121, 125]}}}
    result = process_clip(clip, Recipe.from_dict(values), detector=Drawn())
    assert result.regions[0] == (80, 90, 121, 125)


def test_a_comparison_shows_what_alignment_takes_away(
    samm_truths: tuple[Path, list[ClipTruth]], catalog: Catalog
) -> None:
    recipe = small(Recipe.load("default"))
    shown: dict[str, list[float]] = {PER_FRAME: [], WHOLE_PIXELS: [], RECIPE: []}
    for one in [c for c in catalog if c.name not in ("028_4_1", "032_3_1")]:
        for pair in compare_alignments(one, recipe):
            shown[pair.name].append(pair.false_motion)
            assert pair.onset.shape == pair.apex.shape == pair.difference.shape == (64, 64)
            expected: NDArray[np.uint8] = cv2.absdiff(pair.apex, pair.onset)
            np.testing.assert_array_equal(pair.difference, expected)
    assert np.mean(shown[RECIPE]) < np.mean(shown[WHOLE_PIXELS])
    assert np.mean(shown[RECIPE]) < np.mean(shown[PER_FRAME])
    with pytest.raises(ClipError, match="annotated onset and apex"):
        compare_alignments(replace(catalog[0], apex=None), recipe)
