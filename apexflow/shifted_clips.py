"""Clips of stores with their key frames moved: flow and maps made again from the stored frames.

By the steps that processed the clip, from its aligned crops on. The face, the alignment and
what magnified the motion stay those of the annotated key frames.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from apexflow.engine.clip import CPU
from apexflow.engine.clip.faces import Face, LocatedFace
from apexflow.engine.clip.flow import flow_of_regions, flow_of_windows, make_all_maps
from apexflow.engine.clip.light import normalize_frames
from apexflow.engine.clip.plan import ClipPlan, with_key_frames
from apexflow.engine.clip.result import Aligned
from apexflow.engine.clip.temporal import frame_reach
from apexflow.engine.recipe import Recipe
from apexflow.engine.windows import KEY_FRAMES, Window
from apexflow.errors import ApexflowError, NotStoredError
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.format import NO_NUMBER, ClipRecord
from apexflow.storage.samples import PerClipPart, SamplePart
from apexflow.storage.store import Store
from apexflow.storage.stored_samples import StoredSample
from apexflow.training.jitter import ShiftedSamples
from apexflow.training.shifts import Shift

_MOVED = ("onset", "apex")
_UNMOVED = (0, 0)


class ShiftedClips:
    """The samples of a data set, made again with onset and apex moved.

    Parameters
    ----------
    dataset : ClipDataset
        Of flow or maps whose windows begin or end at the onset or the apex.

    Raises
    ------
    ApexflowError
        A store does not hold the frames that the maps are made of, what samples hold is not made
        of key frames, or nothing says how it was made.
    """

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset = dataset
        self._recipes: dict[tuple[str, str], Recipe] = {}
        for i in range(len(dataset)):
            stored = self._stored(i)
            if _key(stored.store) not in self._recipes:
                self._recipes[_key(stored.store)] = _checked_recipe(stored)

    def read(
        self,
        indices: Sequence[int],
        shifts: Sequence[Shift],
        *,
        threads: int = 1,
        on_clip: Callable[[], None] = lambda: None,
    ) -> ShiftedSamples:
        """Make samples for each shift; that of no frames is what the store holds.

        Parameters
        ----------
        indices : sequence of int
            Of the data set.
        shifts : sequence of (onset, apex)
            By how many frames each is moved, among the stored frames of the clip.
        threads : int
            Clips that are made side by side.
        on_clip : callable
            Called for each clip that is done.
        """
        stored = [self._stored(i) for i in indices]  # opened here, before there are threads
        values: dict[str, torch.Tensor] = {}
        clamped = np.zeros(len(shifts), int)
        differs = 0.0
        with ThreadPoolExecutor(threads) as pool:
            for i, clip in enumerate(pool.map(partial(self._clip, shifts), stored)):
                for s, parts in enumerate(clip.values):
                    for name, value in parts.items():
                        if name not in values:
                            shape = (len(shifts), len(stored), *value.shape)
                            values[name] = torch.empty(shape, dtype=value.dtype)
                        values[name][s, i] = value
                clamped += clip.clamped
                differs = max(differs, clip.differs)
                on_clip()
        if self._dataset.in_memory:
            self._dataset.close()
        return ShiftedSamples(values, tuple(clamped.tolist()), differs)

    def _stored(self, index: int) -> StoredSample:
        stored = self._dataset.stored(index)
        if stored is None:
            raise ApexflowError(
                "jitter makes maps again from the frames of a store, which arrays have not: give a "
                "store that `apexflow process` made"
            )
        return stored

    def _clip(self, shifts: Sequence[Shift], stored: StoredSample) -> _ShiftedClip:
        clip = _StoredClip.read(stored, self._recipes[_key(stored.store)])
        values, clamped, differs = [], [], 0.0
        for shift in shifts:
            key_frames = moved(clip.record.frame_numbers, clip.plan.key_frames, shift)
            clamped.append(key_frames != _asked(clip, shift))
            arrays = clip.make(key_frames)
            if shift == _UNMOVED:
                known = {path: stored.store.read(path, stored.row, clip.record) for path in arrays}
                differs = max(_difference(arrays[path], known[path]) for path in arrays)
                arrays = known
            values.append(_sample(stored.parts, arrays))
        return _ShiftedClip(values, clamped, differs)


@dataclass(frozen=True, slots=True)
class _ShiftedClip:
    """One clip at each shift: its samples, whether it was clamped; how it differs unmoved."""

    values: list[dict[str, torch.Tensor]]
    clamped: list[bool]
    differs: float


@dataclass(frozen=True, slots=True)
class _StoredClip:
    """What a store holds of a clip, as the steps after alignment take it."""

    record: ClipRecord
    plan: ClipPlan
    aligned: Aligned
    located: LocatedFace
    recipe: Recipe
    paths: tuple[str, ...]
    flow_dtype: str

    @classmethod
    def read(cls, stored: StoredSample, recipe: Recipe) -> _StoredClip:
        store, row = stored.store, stored.row
        record = store.record(row)
        assert record is not None
        paths = _paths(stored.parts)
        maps = {path.removeprefix("maps/") for path in paths}
        return cls(
            record,
            _plan(record, {name: int(store.column(name)[row]) for name in KEY_FRAMES}, recipe),
            _aligned(record, store.frames(record)),
            _located(record),
            # Windows stay: a mean for one of them decides how the others are computed.
            replace(recipe, maps={name: m for name, m in recipe.maps.items() if name in maps}),
            paths,
            store.layout.flow_dtype,
        )

    def make(self, key_frames: Mapping[str, int]) -> dict[str, NDArray[Any]]:
        """Return what the store would hold of each path with these key frames."""
        recipe, located = self.recipe, self.located
        plan = with_key_frames(self.plan, key_frames, recipe)
        images = normalize_frames(plan, self.aligned, recipe, CPU)
        flow, confidence = flow_of_windows(plan, images, recipe, CPU)
        roi = {}
        if _needs_regions(self.paths, recipe):
            roi = flow_of_regions(plan, images, flow, located, recipe, CPU)
        maps = make_all_maps(flow, roi, confidence, located, recipe, CPU)
        made: dict[str, Mapping[str, NDArray[Any]]] = {"flow": flow, "roi": roi, "maps": maps}
        found = {}
        for path in self.paths:
            group, _, name = path.partition("/")
            values = made[group][name]
            found[path] = values if group == "maps" else values.astype(self.flow_dtype)
        return found


def moved(frames: Sequence[int], key_frames: Mapping[str, int], shift: Shift) -> dict[str, int]:
    """Return key frames with onset and apex moved as far as the clip goes.

    Onset and apex stay within ``frames``, no later than the offset and a frame apart at least.

    Parameters
    ----------
    frames : sequence of int
        The numbers of the clip's frames, ascending.
    key_frames : dict of "onset", "apex", "offset" to int
        The apex only where it is known.
    shift : (onset, apex)
    """
    if shift == _UNMOVED:
        return dict(key_frames)
    place = {name: min(bisect_left(frames, n), len(frames) - 1) for name, n in key_frames.items()}
    onset, last = place["onset"], place["offset"]
    to = min(max(onset + shift[0], 0), max(last - 1, 0))
    if "apex" not in place:
        return {**key_frames, "onset": frames[to]}
    apex = min(max(place["apex"] + shift[1], 0), last)
    if to >= apex and shift[0] > 0:
        to = max(onset, apex - 1)
    if to >= apex:
        apex = min(to + 1, last)
    return {**key_frames, "onset": frames[to], "apex": frames[apex]}


def _asked(clip: _StoredClip, shift: Shift) -> dict[str, int]:
    """Return the key frames where a shift alone would have them; -1 beyond the frames."""
    frames = clip.record.frame_numbers
    asked = dict(clip.plan.key_frames)
    for name, by in zip(_MOVED, shift, strict=True):
        if by and name in asked:
            to = bisect_left(frames, asked[name]) + by
            asked[name] = frames[to] if 0 <= to < len(frames) else -1
    return asked


def _key(store: Store) -> tuple[str, str]:
    return store.name, store.recipe_hash  # stores in memory may share a name


def _checked_recipe(stored: StoredSample) -> Recipe:
    """Return the recipe of a store whose clips can be made again."""
    store = stored.store
    paths = _paths(stored.parts)
    values = dict(store.attributes.get("recipe", {}))
    for path in paths:
        if path.partition("/")[0] not in ("flow", "roi", "maps"):
            raise ApexflowError(
                f"{store.name}: jitter makes flow and maps again, not {path}: feed maps, flow or "
                "roi of a window from the onset or to the apex"
            )
    if "imported" in values:
        raise ApexflowError(
            f"{store.name}: its {paths[0]} were imported, and jitter makes maps again from frames: "
            "process the clips"
        )
    if not store.layout.keep_frames:
        raise NotStoredError(
            f"{store.name} keeps no frames, from which jitter makes maps again: process with a "
            "recipe that has frames.keep = true and frames.which = 'interval'"
        )
    recipe = Recipe.from_dict(values, origin=f"{store.name}: its recipe")
    if recipe.frames.which == "windows":
        raise NotStoredError(
            f"{store.name} keeps the frames of its windows alone (frames.which = 'windows'), and "
            "jitter needs those around them: process with frames.which = 'interval' or 'all'"
        )
    if _needs_regions(paths, recipe) and recipe.regions.source == "frames":
        raise NotStoredError(
            f"{store.name}: regions.source = 'frames' enlarges regions from the original frames, "
            "which a store does not hold: process with regions.source = 'flow' for jitter"
        )
    for path in paths:
        _check_window(store, store.window_of(path))
    return recipe


def _check_window(store: Store, name: str) -> None:
    window = Window.parse(name)
    if not set(_MOVED) & set(window.key_frames):
        raise ApexflowError(
            f"{store.name}: the window {name} has neither onset nor apex, which jitter moves: feed "
            "one that has, such as onset-apex"
        )
    if window.count is None:
        raise ApexflowError(
            f"{store.name}: the window {name} is as long as its clip, and of another length with "
            "the onset moved: feed one of key frames, such as onset-apex"
        )


def _paths(parts: Mapping[str, SamplePart]) -> tuple[str, ...]:
    found: list[str] = []
    for part in parts.values():
        found += part.paths if isinstance(part, PerClipPart) else [part.path]
    return tuple(found)


def _needs_regions(paths: Sequence[str], recipe: Recipe) -> bool:
    groups = [path.partition("/") for path in paths]
    return any(
        group == "roi" or (group == "maps" and recipe.maps[name].regions)
        for group, _, name in groups
    )


def _plan(record: ClipRecord, annotated: Mapping[str, int], recipe: Recipe) -> ClipPlan:
    """Return the plan that a clip was processed by, as far as the steps after alignment ask."""
    numbers = record.frame_numbers
    known = {**annotated, "apex": record.apex_frame}
    key_frames = {
        "onset": numbers[0],
        "offset": numbers[-1],
        **{name: number for name, number in known.items() if number != NO_NUMBER},
    }
    many = bool(recipe.windows) and recipe.temporal.method != "pair"
    return ClipPlan(
        numbers=numbers,
        template=record.template_frame,
        key_frames=key_frames,
        interval=(),
        apex_source=record.apex_source,
        pairs={},
        fingerprint=record.fingerprint,
        reach=frame_reach(recipe.temporal, record.frame_rate) if many else 0,
        rate=record.frame_rate,
    )


def _aligned(record: ClipRecord, crops: NDArray[np.uint8]) -> Aligned:
    poses = (record.shift, record.rotation, record.scale, record.score)
    shift, rotation, scale, score = (np.asarray(values, np.float32) for values in poses)
    beyond = np.full(len(crops), np.inf, np.float32)  # how far a search went is not recorded
    return Aligned(record.frame_numbers, crops, shift, rotation, scale, score, beyond)


def _located(record: ClipRecord) -> LocatedFace:
    x0, y0, x1, y1 = record.box
    face = Face((x0, y0, x1, y1), record.landmarks, record.confidence or 0.0)
    return LocatedFace(face, (int(x0), int(y0), int(x1), int(y1)), record.roi_box)


def _sample(
    parts: Mapping[str, SamplePart], arrays: Mapping[str, NDArray[Any]]
) -> dict[str, torch.Tensor]:
    """Return each part of one sample, made of what a store would hold of its clip."""
    found = {}
    for name, part in parts.items():
        assert isinstance(part, PerClipPart)
        (value,) = part.finished(arrays[path][None] for path in part.paths)
        found[name] = torch.from_numpy(value)
    return found


def _difference(made: NDArray[Any], known: NDArray[Any]) -> float:
    if made.tobytes() == known.tobytes():
        return 0.0
    return float(np.abs(made.astype(np.float64) - known.astype(np.float64)).max())
