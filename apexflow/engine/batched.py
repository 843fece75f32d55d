"""A whole clip at once on a device: frames go up once, crops, flow and maps come down.

What the host decides comes down in between: the poses, which say where the crops are cut; and
the crops where the apex is estimated from them, which comes before the flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.engine.align import RegionBox, crop_matrices, crop_reach, gray_image, search_region
from apexflow.engine.encoded import EncodedFrames, JpegDecoder, LeftToCpuError, decode_frames
from apexflow.engine.flow import Vectors, stacked
from apexflow.engine.prepared import PreparedClip
from apexflow.engine.process import (
    CPU,
    Aligned,
    ClipPlan,
    ClipResult,
    Clock,
    aligned_by,
    cut_regions,
    make_map,
    map_boxes,
    region_crop,
    with_apex,
)
from apexflow.engine.recipe import Crop, Map, Recipe
from apexflow.engine.windows import Step, Window
from apexflow.kernels.crop.gpu import resize_crops, to_gray, warp_crops
from apexflow.kernels.gpu import Device, in_batches, is_device_array

Array = Any
"""An array of the device."""

# Beside what the kernels reckon for themselves, in frames: the frame, its parts, gray ones.
_COPIES_OF_A_FRAME = 4
# In flows: as the kernel gives it, components first, rounded; and maps.
_COPIES_OF_A_FLOW = 6


def compute_clip(
    prepared: PreparedClip,
    recipe: Recipe,
    device: Device,
    *,
    name: str,
    decoder: JpegDecoder | None = None,
) -> ClipResult:
    """Do on a device what `process_clip` does with a clip once it is read.

    Parameters
    ----------
    prepared : PreparedClip
    recipe : Recipe
    device : Device
    name : str
        What the store says has computed the clip.
    decoder : JpegDecoder, optional
        Of frames that are not decoded yet.

    Raises
    ------
    LeftToCpuError
        When a face is turned or moved so far that its crop needs pixels that were cut off; when
        a frame cannot be decoded.
    MemoryError
        When one frame, or one pair, does not fit into the device's memory.
    """
    clock = Clock(dict(prepared.seconds))
    place, size = prepared.place, (recipe.crop.height, recipe.crop.width)
    stack, decoded_by = prepared.stack, CPU
    if isinstance(stack, EncodedFrames):
        assert decoder is not None
        with clock("decode"):
            stack, decoded_by = decode_frames(stack, prepared.frame_size, decoder, device), name
    with clock("align"):
        aligned, crops, enlarged = _align(prepared, stack, recipe, device)
    with clock("flow"):
        plan = with_apex(prepared.plan, aligned, recipe)
        pairs = _Pairs.of(plan, aligned)
        full_face = {key: wanted for key, wanted in recipe.maps.items() if not wanted.regions}
        vectors, images = _flow(crops, pairs, recipe, full_face, map_boxes(recipe, place), device)
        flow = pairs.windows(plan, vectors, size)
        if enlarged is None:
            roi = cut_regions(recipe, place, flow) if recipe.regions.names else {}
        else:
            roi = _region_flow(enlarged, pairs, plan, recipe, device)
    with clock("encode"):
        maps = {
            key: make_map(wanted, roi[wanted.window])
            if wanted.regions
            else pairs.window(plan, wanted.window, images[key])
            for key, wanted in recipe.maps.items()
        }
    return ClipResult(
        plan,
        place.face,
        place.box,
        place.regions,
        aligned,
        prepared.files,
        flow,
        roi,
        maps,
        clock.seconds,
        device=name,
        face_device=prepared.face_device,
        decode_device=decoded_by,
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The pairs of frames between which a clip's windows have flow, each once.

    ``rows`` (n, 2) are their places in the clip.
    """

    numbers: tuple[Step, ...]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, plan: ClipPlan, aligned: Aligned) -> _Pairs:
        numbers = tuple(dict.fromkeys(step for steps in plan.steps.values() for step in steps))
        row = {number: i for i, number in enumerate(aligned.numbers)}
        rows = np.array([[row[a], row[b]] for a, b in numbers], np.int64).reshape(-1, 2)
        return cls(numbers, rows)

    def windows(
        self, plan: ClipPlan, values: NDArray[Any], size: tuple[int, int]
    ) -> dict[str, Vectors]:
        """Sort flow (n, 2, height, width) by windows."""
        flows = dict(zip(self.numbers, values, strict=True))
        return {
            name: stacked(steps, flows, fixed=Window.parse(name).count, size=size)
            for name, steps in plan.steps.items()
        }

    def window(self, plan: ClipPlan, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Return the values, a row a pair, of the steps of one window."""
        place = {pair: i for i, pair in enumerate(self.numbers)}
        chosen = values[[place[step] for step in plan.steps[name]]]
        return chosen[0] if Window.parse(name).count == 1 else chosen


def _align(
    prepared: PreparedClip, stack: Array, recipe: Recipe, device: Device
) -> tuple[Aligned, Array, Array | None]:
    """Return the crops on the host and on the device, and there the enlarged regions."""
    seeker = _Seeker(prepared, stack, recipe, device)
    each = _COPIES_OF_A_FRAME * stack[0].nbytes
    parts = in_batches(seeker.align, len(stack), each, device)
    poses = np.concatenate([part[0] for part in parts])
    crops = device.xp.concatenate([part[1] for part in parts])
    enlarged = None
    if parts[0][2] is not None:
        enlarged = device.xp.concatenate([part[2] for part in parts])
    regions = None if enlarged is None else device.to_host(enlarged)
    numbers = prepared.plan.numbers
    found = aligned_by(numbers, poses.astype(np.float32), device.to_host(crops), regions)
    return found, crops, enlarged


class _Seeker:
    """The template of a clip on the device: found in frames, and cut out of them.

    ``stack`` has the part of each frame that was sent, on the host or on the device.
    """

    def __init__(
        self, prepared: PreparedClip, stack: Array, recipe: Recipe, device: Device
    ) -> None:
        self._prepared, self._stack = prepared, stack
        self._recipe, self._device = recipe, device
        box, (left, top) = prepared.place.box, prepared.origin
        self._template_row = prepared.plan.numbers.index(prepared.plan.template)
        template = stack[
            self._template_row, box[1] - top : box[3] - top, box[0] - left : box[2] - left
        ]
        if is_device_array(template):
            template = device.to_host(template)
        rows, columns = search_region(box, prepared.frame_size, recipe.alignment)
        # The search region in the stack, and the template's own place in that.
        self._region = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        self._start = box[0] - columns.start, box[1] - rows.start
        self._middle = (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
        self._matcher = kernels.TemplateMatcher(template).on(device)
        self._registration = None
        if recipe.alignment.method in ("subpixel", "similarity"):
            self._registration = kernels.Registration(
                gray_image(template),
                model="similarity" if recipe.alignment.method == "similarity" else "shift",
            ).on(device)

    def align(self, part: slice) -> tuple[NDArray[np.float64], Array, Array | None]:
        """Return poses (n, 5), crops, and enlarged regions (n, region, height, width)."""
        frames = self._device.xp.asarray(self._stack[part])
        poses = self._poses(frames)
        if part.start <= self._template_row < part.stop:
            poses[self._template_row - part.start] = 0, 0, 0, 1, 1
        prepared, recipe = self._prepared, self._recipe
        crops = self._cut(frames, poses, [prepared.place.box], recipe.crop)[:, 0]
        crop = region_crop(recipe)
        if crop is None:
            return poses, crops, None
        boxes = prepared.place.regions[: len(recipe.regions.names)]
        return poses, crops, self._cut(frames, poses, boxes, crop)

    def _poses(self, frames: Array) -> NDArray[np.float64]:
        """Return dx, dy, rotation, scale, score of each frame."""
        to_host = self._device.to_host
        region = frames[:, self._region[0], self._region[1]]
        in_channels = region if region.ndim == 4 else region[..., None]
        y, x, score = map(to_host, self._matcher.match_all(in_channels))
        poses = np.zeros((len(frames), 5))
        poses[:, 0], poses[:, 1] = x - self._start[0], y - self._start[1]
        poses[:, 3], poses[:, 4] = 1, score
        if self._registration is None:
            return poses
        left, top = self._prepared.origin
        corner = np.array([left + self._region[1].start, top + self._region[0].start])
        middle = np.array(self._middle) - corner
        gray = region if region.ndim == 3 else to_gray(region, device=self._device)
        found = self._registration.locate_all(gray, middle + poses[:, :2])
        placed_x, placed_y, poses[:, 2], poses[:, 3] = map(to_host, found)
        poses[:, 0], poses[:, 1] = placed_x - middle[0], placed_y - middle[1]
        return poses

    def _cut(
        self,
        frames: Array,
        poses: NDArray[np.float64],
        regions: list[RegionBox] | tuple[RegionBox, ...],
        crop: Crop,
    ) -> Array:
        """Cut regions of the template frame out of the frames: (n, region, height, width)."""
        size, count = (crop.height, crop.width), len(regions)
        numbers = np.repeat(np.arange(len(frames)), count)
        left, top = self._prepared.origin
        if self._registration is None:
            boxes = np.array([[round(value) for value in region] for region in regions])
            shifts = np.rint(poses[:, :2]).astype(np.int64)
            moved = boxes[None] + np.tile(shifts, 2)[:, None] - (left, top, left, top)
            flat = moved.reshape(-1, 4)
            crops = resize_crops(
                frames, numbers, flat, size, crop.interpolation, device=self._device
            )
        else:
            matrices = np.stack(
                [crop_matrices(region, self._middle, poses, crop) for region in regions], axis=1
            ).reshape(-1, 2, 3)
            self._check_reach(matrices, size)
            matrices[:, :, 2] -= left, top
            crops = warp_crops(
                frames, numbers, matrices, size, crop.interpolation, device=self._device
            )
        return crops.reshape(len(frames), count, *size)

    def _check_reach(self, matrices: NDArray[np.float64], size: tuple[int, int]) -> None:
        """See that the pixels that crops need were sent, as far as the frame has them."""
        bottom, right = size[0] - 1, size[1] - 1
        corners = np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
        places = matrices @ corners
        steps = np.abs(matrices[:, :, :2]).max(axis=(1, 2))
        reach = np.array([crop_reach(step) for step in steps.tolist()]) + 1
        left, top = self._prepared.origin
        height, width = self._stack.shape[1:3]
        sides = zip((left, top), (width, height), self._prepared.frame_size[::-1], strict=True)
        for axis, (start, length, whole) in enumerate(sides):
            low = places[:, axis].min(axis=1) - reach
            high = places[:, axis].max(axis=1) + reach
            # Beyond the frame's own edge its last pixels are repeated, here as on the CPU.
            before = (low < start) & (start > 0)
            behind = (high > start + length - 1) & (start + length < whole)
            if (before | behind).any():
                raise LeftToCpuError("a crop needs pixels beyond the part that was sent")


def _flow(
    crops: Array,
    pairs: _Pairs,
    recipe: Recipe,
    wanted: Mapping[str, Map],
    boxes: Mapping[str, RegionBox],
    device: Device,
) -> tuple[Vectors, dict[str, NDArray[np.uint8]]]:
    """Return the flow (n, 2, height, width) of all pairs, and their maps by name, on the host."""

    def compute(part: slice) -> tuple[Vectors, dict[str, NDArray[np.uint8]]]:
        vectors = _vectors(crops, pairs.rows[part], recipe, device)
        maps = {key: make_map(options, vectors, boxes) for key, options in wanted.items()}
        return device.to_host(vectors), {k: device.to_host(image) for k, image in maps.items()}

    size = crops.shape[1:]
    if not pairs.numbers:
        nothing = {key: np.zeros((0, *o.size, 3), np.uint8) for key, o in wanted.items()}
        return np.zeros((0, 2, *size), np.float32), nothing
    each = _COPIES_OF_A_FLOW * 8 * size[0] * size[1]
    parts = in_batches(compute, len(pairs.numbers), each, device)
    vectors = np.concatenate([part[0] for part in parts])
    return vectors, {key: np.concatenate([part[1][key] for part in parts]) for key in wanted}


def _region_flow(
    enlarged: Array, pairs: _Pairs, plan: ClipPlan, recipe: Recipe, device: Device
) -> dict[str, Vectors]:
    """Return the flow of each window ([step,] region, 2, height, width) between enlarged regions.

    The regions of a frame (n, region, height, width) are images of their own to the kernel.
    """
    count, size = enlarged.shape[1], enlarged.shape[2:]
    images = enlarged.reshape(-1, *size)
    by_region = (pairs.rows[:, None] * count + np.arange(count)[:, None]).reshape(-1, 2)
    flat = _Pairs(tuple(map(tuple, by_region.tolist())), by_region)
    vectors, _ = _flow(images, flat, recipe, {}, {}, device)
    by_pair = vectors.reshape(-1, count, 2, *size)
    return {name: pairs.window(plan, name, by_pair) for name in plan.steps}


def _vectors(crops: Array, rows: NDArray[np.int64], recipe: Recipe, device: Device) -> Array:
    """Return the flow of pairs (n, 2, height, width) float32, rounded as the recipe says."""
    xp = device.xp
    first, second = (_chosen(crops, row, xp) for row in rows.T)
    options = recipe.flow.options
    flow = (_tvl1 if recipe.flow.method == "tvl1" else _farneback)(first, second, options, device)
    flow = flow.reshape(-1, *flow.shape[-3:])
    return xp.ascontiguousarray(xp.moveaxis(flow, -1, 1)).astype(recipe.flow.dtype).astype("f4")


def _chosen(crops: Array, rows: NDArray[np.int64], xp: Any) -> Array:
    """Return a crop for each pair; a single one where it is the same, which is prepared once."""
    if (rows == rows[0]).all() and len(rows) > 1:
        return crops[int(rows[0])]
    return crops[xp.asarray(rows)]


def _farneback(first: Array, second: Array, options: dict[str, Any], device: Device) -> Array:
    from apexflow.kernels.flow_farneback.arguments import check_averaging, check_expansion
    from apexflow.kernels.flow_farneback.gpu import farneback

    frame = {name: options[name] for name in ("pyr_scale", "levels", "poly_n", "poly_sigma")}
    averaging = check_averaging(options["winsize"], options["iterations"], 0)
    return farneback(first, second, check_expansion(**frame), averaging, device=device)


def _tvl1(first: Array, second: Array, options: dict[str, Any], device: Device) -> Array:
    from apexflow.kernels._validate import check_pairs
    from apexflow.kernels.flow_tvl1.arguments import check_pyramid, check_solver
    from apexflow.kernels.flow_tvl1.gpu import tvl1

    of_frame = {name: options[name] for name in ("nscales", "scale_step")}
    of_pair = {name: value for name, value in options.items() if name not in of_frame}
    pyramid, solver = check_pyramid(**of_frame), check_solver(gamma=0.0, **of_pair)
    return tvl1(first, second, None, check_pairs(first, second), pyramid, solver, device=device)
