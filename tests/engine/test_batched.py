"""A whole clip on a device, against the same clip on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexflow import process
from apexflow.catalog import Catalog, Clip
from apexflow.engine.align import Aligner, Pose, crop_matrices, crop_matrix
from apexflow.engine.batched import compute_clip
from apexflow.engine.cards import CardPlace
from apexflow.engine.encoded import LeftToCpuError
from apexflow.engine.faces import Face
from apexflow.engine.on_card import UNDECIDED, near_whole
from apexflow.engine.prepared import PreparedClip, prepare_clip
from apexflow.engine.process import (
    ClipResult,
    Place,
    make_all_flow,
    make_all_maps,
    plan_clip,
    process_clip,
)
from apexflow.engine.recipe import Crop, Recipe
from apexflow.kernels import gpu
from apexflow.kernels.gpu import Device, GpuUnavailable, Kernel, cuda_device
from apexflow.storage.store import open_store
from apexflow.storage.verify import verify
from tests.conftest import small
from tests.engine.fake_cards import FOLDER, NAME
from tests.engine.strict_arrays import StrictArray, StrictDevice
from tests.kernels.cuda.build import COMPILER, ShimDevice


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> ShimDevice:
    if COMPILER is None:
        pytest.skip("no C++ compiler (g++)")
    return ShimDevice(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(params=["shim", pytest.param("card", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The sources as C++ with arrays as strict as CuPy's, and a card where there is one."""
    if request.param == "card":
        try:
            return cuda_device()
        except GpuUnavailable as error:
            pytest.skip(str(error))
    strict = StrictDevice(request.getfixturevalue("shim"))
    cupy = SimpleNamespace(
        ndarray=StrictArray,
        is_available=lambda: True,
        cuda=SimpleNamespace(Device=lambda: SimpleNamespace(id=0)),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(gpu, "_card", lambda number: strict)
    return strict


def prepared_clip(clip: Clip, recipe: Recipe) -> PreparedClip:
    made = prepare_clip(clip, recipe)
    assert made is not None
    return made


def assert_agrees(found: ClipResult, clip: Clip, recipe: Recipe) -> None:
    """Compare with the CPU by the tolerances that the documentation states.

    Each step is compared on what the one before has found, so that nothing adds up.
    """
    wanted = process_clip(clip, recipe)
    assert (found.plan, found.box, found.regions) == (wanted.plan, wanted.box, wanted.regions)
    assert (found.face, found.files) == (wanted.face, wanted.files)
    for name in ("shift", "rotation", "scale", "score"):
        one, two = getattr(found.aligned, name), getattr(wanted.aligned, name)
        np.testing.assert_allclose(one, two, atol=1e-3, err_msg=name)
    assert levels(found.aligned.crops, wanted.aligned.crops) <= 1
    place = Place(found.face, found.box, found.regions)
    flow, roi = make_all_flow(found.plan, recipe, found.aligned, place)
    for one, two in ((found.flow, flow), (found.roi, roi)):
        assert one.keys() == two.keys()
        for window in one:
            assert (one[window].dtype, one[window].shape) == (np.float32, two[window].shape)
            np.testing.assert_allclose(one[window], two[window], atol=1e-3)
    maps = make_all_maps(recipe, place, found.flow, found.roi)
    assert found.maps.keys() == maps.keys()
    for name in maps:
        assert (found.maps[name].dtype, found.maps[name].shape) == (np.uint8, maps[name].shape)
        assert levels(found.maps[name], maps[name]) <= 1


def levels(one: np.ndarray, two: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - two.astype(int)).max(initial=0))


def changed(recipe: Recipe, **tables: Any) -> Recipe:
    """Return a recipe with some keys of its tables changed."""
    values = recipe.to_dict()
    for name, table in tables.items():
        values[name] = values[name] | table if isinstance(table, dict) else table
    return Recipe.from_dict(values)


def map_of(window: str, encoding: str = "hsv", **options: Any) -> dict[str, Any]:
    return {"encoding": encoding, "window": window, "size": [28, 28], **options}


# What stops early stops at another iteration where sums round otherwise.
SHORT_TVL1 = {"nscales": 1, "warps": 1, "inner_iterations": 8, "outer_iterations": 2}


def recipes() -> Iterator[Any]:
    base = small(Recipe.load("default"))
    for name in ("default", "seed-samm", "roi", "sequence"):
        yield pytest.param(small(Recipe.load(name)), id=name)
    yield pytest.param(changed(base, alignment={"method": "none"}), id="not aligned")
    yield pytest.param(
        changed(
            base,
            alignment={"method": "subpixel"},
            windows=["consecutive", "onset-every-4", "onset-apex"],
            regions={"names": ["eyes", "mouth"], "height": 32, "width": 32},
            maps={
                "steps": map_of("consecutive", "uv"),
                "still": map_of("onset-every-4", remove_head=True, mask_eyes=True),
                "parts": map_of("onset-apex", "magnitude-angle", regions=True),
            },
        ),
        id="many windows",
    )
    options = base.to_dict()["flow"]
    short = options | {"method": "tvl1", "tvl1": options["tvl1"] | SHORT_TVL1}
    yield pytest.param(
        changed(base, flow=short, maps={"strain": map_of("onset-apex", "uv-strain")}), id="tvl1"
    )


@pytest.mark.parametrize("recipe", list(recipes()))
def test_a_device_agrees_with_the_cpu(device: Device, catalog: Catalog, recipe: Recipe) -> None:
    clip = catalog[0]
    found = compute_clip(prepared_clip(clip, recipe), recipe, device, name="Card")
    assert (found.device, found.face_device) == ("Card", "cpu")
    assert found.seconds.keys() == {"decode", "detect", "align", "flow", "encode"}
    assert_agrees(found, clip, recipe)


@pytest.mark.parametrize("method", ["integer", "similarity"])
def test_colour(device: Device, tmp_path: Path, catalog: Catalog, method: str) -> None:
    clip = in_colour(catalog[0], tmp_path)
    recipe = changed(
        small(Recipe.load("default")),
        alignment={"method": method, "color": True},
        regions={"names": ["mouth"], "source": "frames", "height": 40, "width": 48},
    )
    prepared = prepared_clip(clip, recipe)
    assert prepared.stack.shape[3:] == (3,)
    assert_agrees(compute_clip(prepared, recipe, device, name="Card"), clip, recipe)


def in_colour(clip: Clip, folder: Path) -> Clip:
    for path in clip.path.iterdir():
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        colours = np.stack([gray // 2 + 20, gray, 255 - gray // 3], axis=-1)
        cv2.imwrite(str(folder / f"{path.stem}.png"), colours)
    return replace(clip, root=folder.parent, source=folder.name)


def test_an_apex_that_is_estimated(device: Device, catalog: Catalog) -> None:
    clip = replace(catalog[0], apex=None, apex_source="flow")
    recipe = small(Recipe.load("default"))
    assert_agrees(
        compute_clip(prepared_clip(clip, recipe), recipe, device, name="Card"), clip, recipe
    )


def test_a_clip_without_steps(device: Device, catalog: Catalog) -> None:
    clip = catalog[0]
    short = replace(clip, offset=clip.apex)
    recipe = changed(
        small(Recipe.load("default")),
        windows=["onset-every-99"],
        maps={"hsv": map_of("onset-every-99")},
    )
    found = compute_clip(prepared_clip(short, recipe), recipe, device, name="Card")
    assert found.flow["onset-every-99"].shape == (0, 2, 64, 64)
    assert found.maps["hsv"].shape == (0, 28, 28, 3)


def assert_equal(found: ClipResult, wanted: ClipResult) -> None:
    np.testing.assert_array_equal(found.aligned.crops, wanted.aligned.crops)
    np.testing.assert_array_equal(found.aligned.shift, wanted.aligned.shift)
    for name in ("flow", "maps"):
        one, two = getattr(found, name), getattr(wanted, name)
        for key in two:
            np.testing.assert_array_equal(one[key], two[key])


@pytest.fixture
def stepped(catalog: Catalog) -> tuple[PreparedClip, Recipe]:
    recipe = changed(
        small(Recipe.load("default")),
        windows=["consecutive"],
        maps={"hsv": map_of("consecutive")},
    )
    return prepared_clip(catalog[0], recipe), recipe


def test_little_memory_makes_more_batches_and_the_same_bytes(
    shim: ShimDevice, stepped: tuple[PreparedClip, Recipe]
) -> None:
    wanted = compute_clip(*stepped, shim, name="Card")
    shim.launches.clear()
    compute_clip(*stepped, shim, name="Card")
    many = len(shim.launches)
    tight = ShimDevice(shim._folder, free=1 << 18)
    assert_equal(compute_clip(*stepped, tight, name="Card"), wanted)
    assert len(tight.launches) > 2 * many


class Full:
    """A device that runs out of memory in chosen kernels, as long as a batch is too large."""

    def __init__(self, device: Device, name: str, most: int) -> None:
        self.xp, self._device = device.xp, device
        self._name, self._most = name, most
        self.refused = 0

    def kernel(self, source: str, name: str) -> Kernel:
        start = self._device.kernel(source, name)

        def started(grid: Any, block: Any, args: Any, **options: Any) -> None:
            if name == self._name and grid[-1] > self._most:
                self.refused += 1
                raise MemoryError(f"{grid[-1]} do not fit")
            start(grid, block, args, **options)

        return started

    def free_bytes(self) -> int:
        return self._device.free_bytes()

    def to_host(self, array: Any) -> Any:
        return self._device.to_host(array)


@pytest.mark.parametrize("kernel", ["warp_crops", "bound_scores", "measure_blocks", "stretch"])
def test_a_full_card_gets_smaller_batches(
    shim: ShimDevice, stepped: tuple[PreparedClip, Recipe], kernel: str
) -> None:
    full = Full(shim, kernel, most=2)
    found = compute_clip(*stepped, full, name="Card")
    assert_equal(found, compute_clip(*stepped, shim, name="Card"))
    if kernel != "stretch":  # maps of the shim's arrays, which are NumPy's, are the CPU's
        assert full.refused
        with pytest.raises(MemoryError):
            compute_clip(*stepped, Full(shim, kernel, most=0), name="Card")


@pytest.mark.parametrize("method", ["integer", "subpixel", "similarity", "none"])
def test_the_part_of_a_frame_that_is_sent_is_all_that_is_looked_at(
    catalog: Catalog, method: str
) -> None:
    """All else is blackened: search and crops must not see it."""
    clip = catalog[0]
    recipe = changed(small(Recipe.load("default")), alignment={"method": method})
    prepared = prepared_clip(clip, recipe)
    source, plan = plan_clip(clip, recipe)
    (x, y), (height, width) = prepared.origin, prepared.stack.shape[1:]
    rows, columns = slice(y, y + height), slice(x, x + width)
    frames = list(source.read(plan.numbers, color=False))
    assert height * width < frames[0].size
    seen = []
    for whole in (True, False):
        shown = []
        for frame, part in zip(frames, prepared.stack, strict=True):
            dark = frame if whole else np.zeros_like(frame)
            dark[rows, columns] = part
            shown.append(dark)
        template = shown[plan.numbers.index(plan.template)]
        aligner = Aligner(template, prepared.place.box, recipe.alignment)
        poses = [aligner.find(frame) for frame in shown]
        crops = [
            aligner.cut(frame, prepared.place.box, pose, recipe.crop)
            for frame, pose in zip(shown, poses, strict=True)
        ]
        seen.append((poses, np.stack(crops)))
    assert seen[0][0] == seen[1][0]
    np.testing.assert_array_equal(seen[0][1], seen[1][1])


def test_a_crop_beyond_the_part_that_was_sent_is_refused(
    shim: ShimDevice, catalog: Catalog
) -> None:
    recipe = small(Recipe.load("default"))
    prepared = prepared_clip(catalog[0], recipe)
    less = 11
    x, y = prepared.origin
    narrow = replace(
        prepared,
        stack=np.ascontiguousarray(prepared.stack[:, less:-less, less:-less]),
        origin=(x + less, y + less),
    )
    with pytest.raises(LeftToCpuError):
        compute_clip(narrow, recipe, shim, name="Card")


def test_a_clip_that_is_too_long_is_not_held(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(Recipe.load("default"))
    held = prepared_clip(catalog[0], recipe).stack.nbytes
    monkeypatch.setattr("apexflow.engine.prepared.MOST_BYTES", held - 1)
    assert prepare_clip(catalog[0], recipe) is None


def test_a_face_that_was_found_elsewhere_is_taken(catalog: Catalog) -> None:
    recipe = small(Recipe.load("default"))
    face = Face((50.5, 20.25, 130.5, 120.75), (), 0.9)
    prepared = prepare_clip(catalog[0], recipe, face=face, face_device="Card")
    assert prepared is not None
    assert (prepared.place.box, prepared.face_device) == ((50, 20, 130, 120), "Card")


@pytest.mark.parametrize(
    ("box", "near"),
    [((10.5, 20.5, 99.5, 80.5), False), ((10.5, 20.998, 99.5, 80.5), True)],
)
def test_a_box_that_rounding_may_decide_is_left_to_the_cpu(
    box: tuple[float, float, float, float], near: bool
) -> None:
    assert near_whole(Face(box, (), 1.0), UNDECIDED) is near


@given(
    numbers=st.lists(st.floats(-5, 5), min_size=4, max_size=4),
    scale=st.floats(0.9, 1.1),
)
def test_the_matrices_of_many_crops_are_those_of_each(numbers: list[float], scale: float) -> None:
    dx, dy, rotation, offset = numbers
    crop = Crop(height=64, width=48, interpolation="area")
    region, middle = (10.5 + offset, 20.0, 90.25, 140.0), (50.0, 81.5)
    poses = np.array([[0, 0, 0, 1, 1], [dx, dy, rotation, scale, 0.5]])
    found = crop_matrices(region, middle, poses, crop)
    for matrix, (x, y, turn, size, score) in zip(found, poses, strict=True):
        wanted = crop_matrix(region, middle, Pose(x, y, score, turn, size), crop)
        np.testing.assert_allclose(matrix, wanted, rtol=1e-12, atol=1e-12)


def test_a_run_on_a_device(
    tmp_path: Path,
    shim: ShimDevice,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the data set into the store, in worker processes, with the sources as C++."""
    place = CardPlace("0", "tests.engine.fake_cards:ShimCard")
    monkeypatch.setattr("apexflow.engine.run.find_cards", lambda gpus: (place,))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=":")
    monkeypatch.setenv(FOLDER, str(shim._folder))
    path = tmp_path / "s.zarr"
    summary = process(catalog, path, recipe=small_recipe, workers=1, progress=False)
    assert summary.devices == {NAME: 5}
    store = open_store(path)
    assert verify(store) == []
    for clip, record in zip(catalog, store.records(), strict=True):
        assert record is not None
        if record.done:
            row = store.keys().index(record.key)
            found = compute_clip(prepared_clip(clip, small_recipe), small_recipe, shim, name=NAME)
            np.testing.assert_array_equal(store.frames(record), found.aligned.crops)
            for name in ("flow/onset-apex", "maps/hsv"):
                group, _, key = name.partition("/")
                np.testing.assert_array_equal(
                    store.read(name, row, record), getattr(found, group)[key]
                )
