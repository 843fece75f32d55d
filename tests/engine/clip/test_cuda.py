"""A whole clip on a GPU, against the same clip on the CPU."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apexflow import process
from apexflow.catalog import Catalog, Clip
from apexflow.engine.clip import CPU, ClipResult, process_clip
from apexflow.engine.clip import cuda as cuda_module
from apexflow.engine.clip.align import Aligner, align_frames, needed_part
from apexflow.engine.clip.clock import Clock
from apexflow.engine.clip.cuda import FAILURES_IN_A_ROW, Cuda
from apexflow.engine.clip.faces import LocatedFace, locate_face
from apexflow.engine.clip.flow import flow_of_regions, flow_of_windows, make_all_maps
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.light import normalize_frames
from apexflow.engine.clip.plan import plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.errors import ClipError
from apexflow.kernels import gpu
from apexflow.kernels.gpu import Device, GpuUnavailable, Kernel, cuda_device
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from tests.conftest import small
from tests.engine.run.fake_gpus import FOLDER, NAME, FakeCuda, OpenCvDecoder, take_for_cupy
from tests.kernels.cuda.build import ShimDevice


class StrictCuda(Cuda):
    """The backend on a device without a driver."""

    def _open(self, share: float) -> str:
        return NAME

    def _is_broken(self) -> bool:
        return False

    def _open_decoder(self) -> OpenCvDecoder:
        return OpenCvDecoder(self.device)


Backends = Callable[[Device], Cuda]


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Backends:
    """Return the backend on a device, whose arrays are as strict as CuPy's."""

    def backend(device: Device) -> Cuda:
        modules: dict[str, Any] = {}
        strict = take_for_cupy(
            device, functools.partial(monkeypatch.setattr, gpu, "_card"), modules
        )
        monkeypatch.setitem(sys.modules, "cupy", modules["cupy"])
        return StrictCuda(device=strict)

    return backend


@pytest.fixture(params=["shim", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest, on_device: Backends) -> Cuda:
    """The sources as C++ with arrays as strict as CuPy's, and a GPU where there is one."""
    if request.param == "gpu":
        try:
            cuda_device()
        except GpuUnavailable as error:
            pytest.skip(str(error))
        return Cuda()
    return on_device(request.getfixturevalue("shim"))


def assert_agrees(found: ClipResult, clip: Clip, recipe: Recipe, name: str) -> None:
    """Compare with the CPU by the tolerances that the documentation states.

    Each step is compared on what the one before has found, so that nothing adds up.
    """
    wanted = process_clip(clip, recipe)
    assert found.device == name
    assert (found.plan, found.box, found.regions) == (wanted.plan, wanted.box, wanted.regions)
    assert (found.face, found.files) == (wanted.face, wanted.files)
    for figure in ("shift", "rotation", "scale", "score"):
        one, two = getattr(found.aligned, figure), getattr(wanted.aligned, figure)
        np.testing.assert_allclose(one, two, atol=1e-3, err_msg=figure)
    assert levels(found.aligned.crops, wanted.aligned.crops) <= 1
    located = LocatedFace(found.face, found.box, found.regions)
    images = normalize_frames(found.plan, found.aligned, recipe, CPU)
    flow, confidence = flow_of_windows(found.plan, images, recipe, CPU)
    roi = flow_of_regions(found.plan, images, found.flow, located, recipe, CPU)
    for one, two in ((found.flow, flow), (found.roi, roi)):
        assert one.keys() == two.keys()
        for window in one:
            assert (one[window].dtype, one[window].shape) == (np.float32, two[window].shape)
            np.testing.assert_allclose(one[window], two[window], atol=1e-3)
    maps = make_all_maps(found.flow, found.roi, confidence, located, recipe, CPU)
    assert found.maps.keys() == maps.keys()
    for key in maps:
        assert (found.maps[key].dtype, found.maps[key].shape) == (np.uint8, maps[key].shape)
        assert levels(found.maps[key], maps[key]) <= 1


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


# Few steps of each kind: as C++ on one core a launch takes milliseconds.
SHORT_CLG = {"levels": 2, "warps": 1, "max_iterations": 4}


def two_frames(name: str = "default") -> Recipe:
    """Return a small recipe whose flow is Farnebäck's between two crops as they are."""
    flow = {"method": "farneback"}
    pair = {"normalization": {"method": "none"}, "temporal": {"method": "pair"}}
    return changed(small(Recipe.load(name)), flow=flow, **pair)


def recipes() -> Iterator[Any]:
    base = two_frames()
    for name in ("default", "roi"):
        short = small(Recipe.load(name)).to_dict()
        short["flow"]["clg"] |= SHORT_CLG
        short["regions"] |= {"height": 48, "width": 40}
        yield pytest.param(Recipe.from_dict(short), id=name)
    for name in ("seed-samm", "sequence"):
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
    tvl1 = options | {"method": "tvl1", "tvl1": options["tvl1"] | SHORT_TVL1}
    yield pytest.param(
        changed(base, flow=tvl1, maps={"strain": map_of("onset-apex", "uv-strain")}), id="tvl1"
    )


@pytest.mark.parametrize("recipe", list(recipes()))
def test_a_gpu_agrees_with_the_cpu(backend: Cuda, catalog: Catalog, recipe: Recipe) -> None:
    clip = catalog[0]
    found = process_clip(clip, recipe, backend)
    assert found.seconds.keys() == {"decode", "detect", "align", "flow", "encode", "quality"}
    assert_agrees(found, clip, recipe, backend.name)


@pytest.mark.parametrize("method", ["integer", "similarity"])
def test_colour(backend: Cuda, tmp_path: Path, catalog: Catalog, method: str) -> None:
    clip = in_colour(catalog[0], tmp_path)
    recipe = changed(
        two_frames(),
        alignment={"method": method, "color": True},
        regions={"names": ["mouth"], "source": "frames", "height": 40, "width": 48},
    )
    assert_agrees(process_clip(clip, recipe, backend), clip, recipe, backend.name)


def in_colour(clip: Clip, folder: Path) -> Clip:
    for path in clip.path.iterdir():
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        colours = np.stack([gray // 2 + 20, gray, 255 - gray // 3], axis=-1)
        cv2.imwrite(str(folder / f"{path.stem}.png"), colours)
    return replace(clip, root=folder.parent, source=folder.name)


def test_an_apex_that_is_estimated(backend: Cuda, catalog: Catalog) -> None:
    clip = replace(catalog[0], apex=None, apex_source="flow")
    recipe = two_frames()
    assert_agrees(process_clip(clip, recipe, backend), clip, recipe, backend.name)


def test_a_clip_without_frame_pairs(backend: Cuda, catalog: Catalog) -> None:
    short = replace(catalog[0], offset=catalog[0].apex)
    recipe = changed(
        two_frames(),
        windows=["onset-every-99"],
        regions={"names": ["mouth"], "source": "frames", "height": 40, "width": 48},
        maps={"hsv": map_of("onset-every-99")},
    )
    found = process_clip(short, recipe, backend)
    assert found.flow["onset-every-99"].shape == (0, 2, 64, 64)
    assert found.roi["onset-every-99"].shape == (0, 1, 2, 40, 48)
    assert found.maps["hsv"].shape == (0, 28, 28, 3)
    wanted = process_clip(short, recipe)
    assert wanted.roi["onset-every-99"].shape == (0, 1, 2, 40, 48)
    assert wanted.maps["hsv"].shape == (0, 28, 28, 3)


def assert_equal(found: ClipResult, wanted: ClipResult) -> None:
    np.testing.assert_array_equal(found.aligned.crops, wanted.aligned.crops)
    np.testing.assert_array_equal(found.aligned.shift, wanted.aligned.shift)
    for name in ("flow", "maps"):
        one, two = getattr(found, name), getattr(wanted, name)
        assert one.keys() == two.keys() != set()
        for key in two:
            np.testing.assert_array_equal(one[key], two[key])


@pytest.fixture
def stepped() -> Recipe:
    return changed(
        two_frames(),
        windows=["consecutive"],
        maps={"hsv": map_of("consecutive")},
    )


def test_little_memory_makes_more_batches_and_the_same_bytes(
    shim: ShimDevice, on_device: Backends, catalog: Catalog, stepped: Recipe
) -> None:
    shim.launches.clear()
    wanted = process_clip(catalog[0], stepped, on_device(shim))
    many = len(shim.launches)
    tight = ShimDevice(shim._folder, free=1 << 18)
    found = process_clip(catalog[0], stepped, on_device(tight))
    assert_equal(found, wanted)
    assert found.device == NAME
    assert len(tight.launches) > 2 * many


def test_a_long_clip_is_held_in_parts(
    shim: ShimDevice,
    on_device: Backends,
    catalog: Catalog,
    stepped: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = process_clip(catalog[0], stepped, on_device(shim))
    sizes = []
    put = StrictCuda.put

    def counted(self: Cuda, array: np.ndarray) -> Any:
        sizes.append(array.nbytes)
        return put(self, array)

    monkeypatch.setattr(StrictCuda, "put", counted)
    monkeypatch.setattr(cuda_module, "_BATCH_BYTES", 1 << 17)
    found = process_clip(catalog[0], stepped, on_device(shim))
    assert_equal(found, wanted)
    assert found.device == NAME
    # First the template frame, then stacks of two frames, none of all.
    assert sizes.count(2 * sizes[0]) > 1
    assert len(found.aligned.numbers) * sizes[0] not in sizes


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
def test_a_full_gpu_gets_smaller_batches(
    shim: ShimDevice, on_device: Backends, catalog: Catalog, stepped: Recipe, kernel: str
) -> None:
    wanted = process_clip(catalog[0], stepped, on_device(shim))
    full = Full(shim, kernel, most=2)
    found = process_clip(catalog[0], stepped, on_device(full))
    assert_equal(found, wanted)
    assert found.device == NAME
    assert full.refused
    # Where not even one fits, the CPU does that step, and the GPU the others.
    nothing = process_clip(catalog[0], stepped, on_device(Full(shim, kernel, most=0)))
    assert nothing.device == f"{NAME} and cpu"


@pytest.mark.parametrize("method", ["integer", "subpixel", "similarity", "none"])
def test_the_part_of_a_frame_that_is_uploaded_is_all_that_is_looked_at(
    catalog: Catalog, method: str
) -> None:
    """All else is blackened: search and crops must not see it."""
    clip = catalog[0]
    recipe = changed(two_frames(), alignment={"method": method})
    source, plan = plan_clip(clip, recipe)
    frames = list(source.read(plan.numbers, color=False))
    template = frames[plan.numbers.index(plan.template)]
    box = locate_face(template, clip, recipe).box
    rows, columns = needed_part(box, frames[0].shape, recipe)
    assert frames[0][rows, columns].size < frames[0].size
    seen = []
    for whole in (True, False):
        stack = np.stack(frames)
        if not whole:
            dark = np.zeros_like(stack)
            dark[:, rows, columns] = stack[:, rows, columns]
            stack = dark
        aligner = Aligner(stack[plan.numbers.index(plan.template)], box, recipe.alignment)
        poses = aligner.find(stack)
        seen.append((poses, aligner.cut(stack, poses, [box], recipe.crop)))
    assert seen[0][0] == seen[1][0]
    np.testing.assert_array_equal(seen[0][1], seen[1][1])


def test_a_crop_beyond_the_part_that_was_uploaded_is_left_to_the_cpu(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = two_frames()
    wanted = process_clip(catalog[0], recipe)
    backend = FakeCuda()
    assert process_clip(catalog[0], recipe, backend).device == NAME

    def narrow(*arguments: Any) -> tuple[slice, slice]:
        rows, columns = needed_part(*arguments)
        return slice(rows.start + 11, rows.stop - 11), slice(columns.start + 11, columns.stop - 11)

    monkeypatch.setattr("apexflow.engine.clip.align.needed_part", narrow)
    for _ in range(FAILURES_IN_A_ROW + 1):  # which is no failure of the GPU
        found = process_clip(catalog[0], recipe, backend)
        assert_equal(found, wanted)
        assert found.device == f"{NAME} and cpu"
    assert backend.usable
    assert backend.complaints == []


class Failing(FakeCuda):
    """Fails in the steps that are next in a list."""

    def __init__(self, *fails: bool) -> None:
        super().__init__()
        self.fails = list(fails)
        self.breaks = False

    def _troubled(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def troubled(*inputs: Any) -> Any:
            if inputs[-1] is self and self.fails.pop(0):
                raise RuntimeError("illegal memory access")
            return "made"

        troubled.__name__ = step.__name__
        return troubled

    def _is_broken(self) -> bool:
        return self.breaks


def test_three_failures_in_a_row_end_the_use_of_a_gpu() -> None:
    backend = Failing(True, True, False, True, True, True)
    ran_on = [backend.run(align_frames)[1] for _ in range(8)]
    assert ran_on == ["cpu", "cpu", NAME, "cpu", "cpu", "cpu", "cpu", "cpu"]
    (complaint,) = backend.complaints
    assert "given up after 3 failures in a row" in complaint
    assert "RuntimeError in align_frames: illegal memory access" in complaint
    assert not backend.usable
    assert not backend.broken


def test_a_broken_gpu_is_used_no_more_by_its_process() -> None:
    backend = Failing(True)
    backend.breaks = True
    assert [backend.run(align_frames)[1] for _ in range(3)] == ["cpu"] * 3
    assert backend.broken
    (complaint,) = backend.complaints
    assert "is lost to this process" in complaint


def test_what_is_wrong_with_a_clip_is_no_failure_of_the_gpu(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in catalog[0].path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:100])
    backend = FakeCuda()
    for _ in range(FAILURES_IN_A_ROW):
        with pytest.raises(ClipError, match=last.name):
            process_clip(
                replace(catalog[0], root=tmp_path, source="broken"),
                two_frames(),
                backend,
            )
    assert backend.usable


def test_frames_that_have_passed_are_decoded_again(catalog: Catalog) -> None:
    """As a batch that did not fit is read once more."""
    recipe = two_frames()
    source, plan = plan_clip(catalog[0], recipe)
    frames = ClipFrames(source, plan, Clock(), color=False)
    wanted = np.stack(list(source.read(plan.numbers, color=False)))
    for part in (slice(0, 5), slice(0, 2), slice(2, 7), slice(5, 9)):
        found = np.stack(list(frames.read(plan.numbers[part])))
        np.testing.assert_array_equal(found, wanted[part])


@pytest.mark.parametrize("gpu_decode", [False, True])
def test_a_run_on_a_gpu(
    tmp_path: Path,
    shim: ShimDevice,
    on_device: Backends,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    gpu_decode: bool,
) -> None:
    """From the data set into the store, in worker processes, with the sources as C++."""
    monkeypatch.setattr("apexflow.engine.run.find_gpus", lambda gpus: ("0",))
    monkeypatch.setattr("apexflow.engine.run.check_decoder", lambda gpus: None)
    monkeypatch.setattr("apexflow.engine.run.gpus.CUDA", "tests.engine.run.fake_gpus:ShimCuda")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=":")
    monkeypatch.setenv(FOLDER, str(shim._folder))
    path, recipe = tmp_path / "s.zarr", two_frames()
    options = {"recipe": recipe, "workers": 1, "progress": False}
    summary = process(catalog, path, gpu_decode=gpu_decode, **options)
    assert summary.devices == {NAME: 5}
    assert f"5 clips on {NAME}" in str(summary)
    store = open_store(path)
    assert verify(store) == []
    backend = on_device(shim)
    done = 0
    for clip, record in zip(catalog, store.records(), strict=True):
        assert record is not None
        if record.done:
            done += 1
            assert record.decode_device == (NAME if gpu_decode else "cpu")
            row = store.keys().index(record.key)
            found = process_clip(clip, recipe, backend)
            np.testing.assert_array_equal(store.frames(record), found.aligned.crops)
            for name in ("flow/onset-apex", "maps/hsv"):
                group, _, key = name.partition("/")
                np.testing.assert_array_equal(
                    store.read(name, row, record), getattr(found, group)[key]
                )
    assert done == 5
