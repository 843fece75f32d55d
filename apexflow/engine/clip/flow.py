"""Flow between the frame pairs of all windows of a clip, and the maps made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.engine.clip.backend import Array, Backend
from apexflow.engine.clip.faces import LocatedFace
from apexflow.engine.clip.light import FlowImages, Images
from apexflow.engine.clip.plan import ClipPlan, flow_frames
from apexflow.engine.clip.temporal import PairFrames
from apexflow.engine.regions import RegionBox, cut_flow, in_crop
from apexflow.engine.windows import Window
from apexflow.kernels.encode import make_maps
from apexflow.kernels.gpu import cuda_device, is_device_array, to_host

if TYPE_CHECKING:
    from apexflow.engine.recipe import Flow, Map, Recipe

Vectors = NDArray[np.float32]

# In flows: as the kernel gives it, components first, rounded; and maps.
_COPIES_OF_A_FLOW = 6


class FaceFlow(NamedTuple):
    """The flow of the face of each window, and how sure it is; both as in `ClipResult`."""

    vectors: dict[str, Vectors]
    confidence: dict[str, Vectors]


def flow_of_windows(
    plan: ClipPlan, images: FlowImages, recipe: Recipe, backend: Backend
) -> FaceFlow:
    """Return the flow of the face of each window; each pair computed once."""
    pairs, sure = flow_frames(plan, recipe), recipe.flow.keep_confidence
    vectors, confidence = _flow_of_pairs(
        images.crops, images.numbers, pairs, plan.reach, recipe, backend, sure=sure
    )
    return FaceFlow(
        _by_window(plan, pairs, vectors), _by_window(plan, pairs, confidence) if sure else {}
    )


def flow_of_regions(
    plan: ClipPlan,
    images: FlowImages,
    flow: Mapping[str, Vectors],
    located: LocatedFace,
    recipe: Recipe,
    backend: Backend,
) -> dict[str, Vectors]:
    """Return the flow of the regions of each window, as in `ClipResult`.

    Cut from the flow of the face, or computed between regions enlarged from the frames.
    """
    if not recipe.regions.names:
        return {}
    if images.regions is None:
        return _cut_regions(flow, located, recipe)
    pairs = flow_frames(plan, recipe)
    vectors = [
        _flow_of_pairs(region, images.numbers, pairs, plan.reach, recipe, backend)[0]
        for region in np.moveaxis(images.regions, 1, 0)
    ]
    return _by_window(plan, pairs, np.stack(vectors, axis=1))


def _flow_of_pairs(
    images: Images,
    numbers: Sequence[int],
    pairs: Sequence[PairFrames],
    reach: int,
    recipe: Recipe,
    backend: Backend,
    *,
    sure: bool = False,
) -> tuple[Vectors, Vectors]:
    """Return the flow (n, 2, height, width) of n pairs among the images of numbered frames.

    And, where it is to be ``sure``, the confidence (n, height, width); empty elsewhere.
    """
    vectors = np.empty((len(pairs), 2, *images.shape[1:]), np.float32)
    confidence = np.empty((len(pairs) if sure else 0, *images.shape[1:]), np.float32)
    row = {number: i for i, number in enumerate(numbers)}
    many = [i for i, pair in enumerate(pairs) if pair.sequence]
    two = [i for i, pair in enumerate(pairs) if not pair.sequence]
    if two:
        means, rows = _means(images, row, [pairs[i] for i in two])
        vectors[two], found = _flow_between(means, rows, recipe.flow, backend, sure=sure)
        if sure:
            confidence[two] = found

    for i in many:
        frames = backend.put(images[[row[number] for number in pairs[i].sequence]])
        vectors[i], found = _flow_of_sequence(frames, pairs[i], reach, recipe.flow, sure=sure)
        if sure:
            confidence[i] = found
    return vectors, confidence


def _means(
    images: Images, row: Mapping[int, int], pairs: Sequence[PairFrames]
) -> tuple[Images, NDArray[np.int64]]:
    """Return the images that flows lead between, and the rows (n, 2) of them for each pair."""
    ends = [(pair.first, pair.second) for pair in pairs]
    if all(len(end) == 1 for both in ends for end in both):
        rows = [[row[number] for (number,) in both] for both in ends]
        return images, np.array(rows, np.int64)
    place = {end: i for i, end in enumerate(dict.fromkeys(end for both in ends for end in both))}
    means = [images[[row[n] for n in end]].mean(axis=0, dtype=np.float32) for end in place]
    return np.stack(means), np.array([[place[end] for end in both] for both in ends], np.int64)


def _flow_of_sequence(
    frames: Array, pair: PairFrames, reach: int, recipe: Flow, *, sure: bool
) -> tuple[Vectors, Vectors | None]:
    """Return the flow (2, height, width) of a pair from all frames within reach, and how sure."""
    first, second = (pair.sequence.index(number) for number in pair.pair)
    # Its first flow has twice the smoothness of the corrections: that of a pair.
    options = recipe.options | {"alpha": recipe.clg.alpha / 2}
    flow, _, confidence = kernels.clg_sequence(
        frames, first, second, numbers=pair.sequence, reach=reach, confidence=sure, **options
    )
    (vectors,) = _stored(to_host(flow)[None], recipe)
    return vectors, _stored_confidence(to_host(confidence), recipe) if sure else None


def _stored(flow: Vectors, recipe: Flow) -> Vectors:
    """Return flow (n, height, width, 2) components first, rounded as a store holds it."""
    components_first = np.ascontiguousarray(np.moveaxis(flow, -1, 1))
    return components_first.astype(recipe.dtype).astype(np.float32)


def _stored_confidence(confidence: Vectors, recipe: Flow) -> Vectors:
    """Return confidence rounded as a store holds it."""
    return confidence.astype(recipe.confidence_dtype).astype(np.float32)


def flow_between(
    images: Images, rows: NDArray[np.int64], recipe: Flow, backend: Backend
) -> Vectors:
    """Return the flow of pairs of images.

    Parameters
    ----------
    images : (m, height, width) uint8, or float32 of about the same range
    rows : (n, 2) int
        The rows of ``images`` that each flow leads from and to.
    recipe : Flow
    backend : Backend

    Returns
    -------
    (n, 2, height, width) float32
        Rounded to the recipe's dtype, as a store holds it.
    """
    return _flow_between(images, rows, recipe, backend, sure=False)[0]


def _flow_between(
    images: Images, rows: NDArray[np.int64], recipe: Flow, backend: Backend, *, sure: bool
) -> tuple[Vectors, Vectors | None]:
    """Return the flow, and the confidence (n, height, width) where it is to be ``sure``."""
    if not len(rows):
        return np.zeros((0, 2, *images.shape[1:]), np.float32), None
    if recipe.method == "tvl1" and images.dtype != np.uint8:
        images = images * np.float32(1 / 255)  # of its float images 1 is white
    there = backend.put(images)
    take = _Batches(there) if is_device_array(there) else _PreparedOnce(images, rows, recipe)
    compute = getattr(kernels, recipe.method)
    options = recipe.options | ({"confidence": True} if sure else {})
    size = images.shape[1:]

    def flow_batch(part: slice) -> tuple[Vectors, Vectors | None]:
        first, second = (take(row) for row in rows[part].T)
        found = compute(first, second, **options)
        flow, confidence = found if sure else (found, None)
        vectors = _stored(to_host(flow).reshape(-1, *size, 2), recipe)
        if not sure:
            return vectors, None
        return vectors, _stored_confidence(to_host(confidence).reshape(-1, *size), recipe)

    each = _COPIES_OF_A_FLOW * 8 * size[0] * size[1]
    flows, confidences = zip(*backend.batches(flow_batch, len(rows), each), strict=True)
    return np.concatenate(flows), np.concatenate(confidences) if sure else None


def make_all_maps(
    flow: Mapping[str, Vectors],
    roi: Mapping[str, Vectors],
    confidence: Mapping[str, Vectors],
    located: LocatedFace,
    recipe: Recipe,
    backend: Backend,
) -> dict[str, NDArray[np.uint8]]:
    """Return every set of maps that a recipe asks for, as in `ClipResult`."""
    boxes = dict(
        zip(recipe.regions.placed, _in_crop(located.regions, located, recipe), strict=True)
    )

    def maps_of(wanted: Map) -> NDArray[np.uint8]:
        vectors = (roi if wanted.regions else flow)[wanted.window]
        lead, flat = vectors.shape[:-3], vectors.reshape(-1, *vectors.shape[-3:])
        if not len(flat):
            return np.zeros((*lead, *wanted.size, 3), np.uint8)

        sure = None
        if wanted.noise == "confidence":
            sure = confidence[wanted.window].reshape(-1, *flat.shape[-2:])

        def map_batch(part: slice) -> NDArray[np.uint8]:
            told = None if sure is None else backend.put(sure[part])
            return to_host(make_map(wanted, backend.put(flat[part]), boxes, told))

        batches = backend.batches(map_batch, len(flat), _COPIES_OF_A_FLOW * flat[0].nbytes)
        return np.concatenate(batches).reshape(*lead, *wanted.size, 3)

    return {name: maps_of(wanted) for name, wanted in recipe.maps.items()}


def make_map(
    wanted: Map,
    flow: NDArray[np.float32],
    boxes: Mapping[str, RegionBox] = MappingProxyType({}),
    confidence: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Return the maps that a recipe's table asks for, of flow (…, 2, height, width).

    ``boxes`` gives the regions in pixels of the flow, for maps without head motion or eyes;
    ``confidence`` (…, height, width) how sure the flow is, for maps that take noise off by it.
    """
    return make_maps(
        flow,
        wanted.encoding,
        size=wanted.size,
        head=boxes["nose"] if wanted.remove_head else None,
        mask=boxes["eyes"] if wanted.mask_eyes else None,
        noise=wanted.noise,
        confidence=confidence if wanted.noise == "confidence" else None,
        options=wanted.options,
    )


def kernel_compiled(recipe: Flow) -> bool:
    """Whether the kernel that a recipe needs has been compiled on this machine before."""
    from apexflow.kernels.compiled import is_compiled

    if recipe.method == "tvl1":
        from apexflow.kernels.flow_tvl1.cpu import refine

        return is_compiled(refine)
    if recipe.method == "clg":
        from apexflow.kernels.flow_clg.cpu import fit

        return is_compiled(fit)
    from apexflow.kernels.flow_farneback.cpu import blur

    return is_compiled(blur)


class _Batches:
    """Images on a GPU, which computes many pairs of them at a time."""

    def __init__(self, images: Array) -> None:
        self._images = images

    def __call__(self, rows: NDArray[np.int64]) -> Array:
        if (rows == rows[0]).all() and len(rows) > 1:  # prepared once for all
            return self._images[int(rows[0])]
        return self._images[cuda_device().xp.asarray(rows)]


class _PreparedOnce:
    """Images on the CPU, one at a time: each is prepared once for all its pairs.

    A clip of consecutive frames keeps two prepared images in memory.
    """

    def __init__(self, images: Images, rows: NDArray[np.int64], recipe: Flow) -> None:
        self._images, self._recipe = images, recipe
        self._uses = Counter(rows.ravel().tolist())
        self._prepared: dict[int, Any] = {}

    def __call__(self, rows: NDArray[np.int64]) -> Any:
        (row,) = rows.tolist()
        if row not in self._prepared:
            image = self._images[row]
            self._prepared[row] = self._prepare(image) if self._uses[row] > 1 else image
        found = self._prepared[row]
        self._uses[row] -= 1
        if not self._uses[row]:
            del self._prepared[row]
        return found

    def _prepare(self, image: Images) -> Any:
        options = self._recipe.options
        if self._recipe.method == "tvl1":
            names: Sequence[str] = ("nscales", "scale_step")
            prepare: Any = kernels.prepare_tvl1
        elif self._recipe.method == "clg":
            names, prepare = ("levels",), kernels.prepare_clg
        else:
            names = ("pyr_scale", "levels", "poly_n", "poly_sigma")
            prepare = kernels.prepare_farneback
        return prepare(image, **{name: options[name] for name in names})


def _by_window(plan: ClipPlan, pairs: Sequence[PairFrames], vectors: Vectors) -> dict[str, Vectors]:
    """Sort flow, a row a pair, by windows; that of a window of one pair has no axis of pairs."""
    place = {pair.pair: i for i, pair in enumerate(pairs)}
    found = {}
    for name, of_window in plan.pairs.items():
        chosen = vectors[[place[pair] for pair in of_window]]
        found[name] = chosen[0] if Window.parse(name).count == 1 else chosen
    return found


def _cut_regions(
    flow: Mapping[str, Vectors], located: LocatedFace, recipe: Recipe
) -> dict[str, Vectors]:
    options = recipe.regions
    boxes = _in_crop(located.regions[: len(options.names)], located, recipe)
    cut_out = {}
    for name, vectors in flow.items():
        pairs = vectors.reshape(-1, *vectors.shape[-3:])
        parts = cut_flow(pairs, boxes, (options.height, options.width))
        stored = parts.astype(recipe.flow.dtype).astype(np.float32)
        cut_out[name] = stored.reshape(*vectors.shape[:-3], *parts.shape[1:])
    return cut_out


def _in_crop(
    regions: tuple[RegionBox, ...], located: LocatedFace, recipe: Recipe
) -> tuple[RegionBox, ...]:
    return in_crop(regions, located.box, (recipe.crop.height, recipe.crop.width))
