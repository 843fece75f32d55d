"""Light, and the many frames that a flow is drawn from: the engine's way against the kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from apexflow.catalog import Catalog, Clip
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.plan import plan_clip
from apexflow.engine.clip.temporal import frames_of_pairs
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.kernels import clg, clg_sequence, farneback, normalize_light, tvl1
from tests.conftest import small

CHAIN = "onset-mid-apex-mid-offset"


@pytest.fixture
def clip(catalog: Catalog) -> Clip:
    return catalog[0]


def recipe_of(temporal: str, flow: str = "clg", reach_ms: float = 10, **changes: Any) -> Recipe:
    values = small(Recipe.load("default"), maps={}, **changes).to_dict()
    values["temporal"] = {"method": temporal, "reach_ms": reach_ms, "reach_frames": 1}
    values["flow"]["method"] = flow
    return Recipe.from_dict(values)


def components(flow: Any) -> Any:
    return np.moveaxis(flow, -1, 0)


@pytest.mark.parametrize("which", ["interval", "windows"])
def test_the_sequence_is_the_kernel_s_from_the_frames_in_reach(clip: Clip, which: str) -> None:
    recipe = recipe_of("sequence", frames={"which": which, "keep": True})
    result = process_clip(clip, recipe)
    onset, apex = result.plan.key_frames["onset"], result.plan.key_frames["apex"]
    assert result.plan.reach == 2  # 10 ms at SAMM's 200 frames/s
    numbers = [n for n in result.plan.interval if min(abs(n - onset), abs(n - apex)) <= 2]
    frames = normalize_light(np.stack([result.aligned.crop(n) for n in numbers]))
    found = clg_sequence(
        frames, numbers.index(onset), numbers.index(apex), numbers=numbers, reach=2
    )
    np.testing.assert_array_equal(result.flow["onset-apex"], components(found.flow))
    if which == "windows":
        assert set(result.aligned.numbers) == {*numbers, result.plan.template}


def test_short_steps_have_no_sequence_but_even_means(clip: Clip) -> None:
    recipe = recipe_of("sequence", reach_ms=40, windows=["onset-apex", CHAIN, "consecutive"])
    result = process_clip(clip, recipe)
    crops = dict(zip(result.aligned.numbers, normalize_light(result.aligned.crops), strict=True))
    interval, keys = result.plan.interval, set(result.plan.key_frames.values())

    def mean(number: int, reach: int) -> Any:
        near = [n for n in interval if abs(n - number) <= reach]
        if number not in keys:
            near = [n for n in near if 2 * number - n in near]
        return np.mean([crops[n] for n in near], axis=0, dtype=np.float32)

    for window in (CHAIN, "consecutive"):
        for flow, (a, b) in zip(result.flow[window], result.plan.pairs[window], strict=True):
            reach = min(2, (b - a - 1) // 2)
            expected = components(clg(mean(a, reach), mean(b, reach)))
            np.testing.assert_allclose(flow, expected, atol=1e-6)
    assert np.abs(result.flow["onset-apex"]).max() > 0


def test_a_mean_takes_a_quarter_of_the_reach_and_less_than_half_the_way() -> None:
    temporal = recipe_of("mean").temporal
    interval = tuple(range(60))
    keys = {"onset": 0, "apex": 30}

    def ends(pair: tuple[int, int], reach: int) -> tuple[int, int]:
        (found,) = frames_of_pairs([pair], keys, interval, temporal, reach)
        assert not found.sequence
        return len(found.first), len(found.second)

    assert ends((0, 30), 8) == (3, 5)  # nothing lies before the onset
    assert ends((0, 30), 3) == (1, 1)
    assert ends((0, 30), 20) == (6, 11)
    assert ends((0, 15), 8) == (3, 5)
    assert ends((58, 59), 8) == (1, 1)
    assert ends((10, 13), 8) == (3, 3)
    assert ends((30, 59), 8) == (5, 1)  # no key frame, with frames on one side alone

    few = replace(temporal, frames=3)
    (found,) = frames_of_pairs([(15, 45)], keys, interval, few, 40)
    assert (found.first, found.second) == ((14, 15, 16), (44, 45, 46))


def test_a_sequence_is_for_key_frames_and_for_steps_of_the_reach() -> None:
    temporal = recipe_of("sequence").temporal
    interval, keys = tuple(range(60)), {"onset": 0, "apex": 6, "offset": 59}

    def has(pair: tuple[int, int], reach: int) -> bool:
        (found,) = frames_of_pairs([pair], keys, interval, temporal, reach)
        return bool(found.sequence)

    assert has((0, 6), 8)
    assert has((6, 0), 8)
    assert not has((0, 6), 0)
    assert not has((6, 6), 8)
    assert has((20, 28), 8)
    assert not has((20, 27), 8)
    assert has((20, 24), 1)
    assert not has((20, 23), 1)


@pytest.mark.parametrize("frames", [0, 1, 2, 5, 100])
def test_at_most_so_many_frames_the_nearest_stand_for_each_key_frame(frames: int) -> None:
    temporal = replace(recipe_of("sequence").temporal, frames=frames)
    interval, keys = tuple(range(60)), {"onset": 0, "apex": 20, "offset": 59}
    every = {(0, 20): (range(9), range(12, 29)), (20, 59): (range(12, 29), range(51, 60))}
    for pair, both in every.items():
        (found,) = frames_of_pairs([pair], keys, interval, temporal, 8)
        nearest = [
            sorted(near, key=lambda n, key=key: (abs(n - key), n))[: frames or None]
            for near, key in zip(both, pair, strict=True)
        ]
        assert found.sequence == tuple(sorted(nearest[0] + nearest[1]))
        assert found.numbers == set(found.sequence) >= set(pair)
    # Halfway between the two no frame counts twice, and none is missing.
    (found,) = frames_of_pairs([(0, 10)], {"onset": 0, "apex": 10}, interval, temporal, 8)
    assert len(set(found.sequence)) == len(found.sequence)
    if not frames:
        assert found.sequence == tuple(range(19))


@pytest.mark.parametrize(
    ("flow", "kernel", "scale"), [("farneback", farneback, 1), ("tvl1", tvl1, 255), ("clg", clg, 1)]
)
def test_every_method_takes_images_without_their_light(
    clip: Clip, flow: str, kernel: Any, scale: int
) -> None:
    recipe = recipe_of("pair", flow)
    result = process_clip(clip, recipe)
    crops = [result.aligned.crop(result.plan.key_frames[name]) for name in ("onset", "apex")]
    first, second = normalize_light(np.stack(crops)) * np.float32(1 / scale)
    expected = components(kernel(first, second, **recipe.flow.options))
    np.testing.assert_allclose(result.flow["onset-apex"], expected, atol=1e-3)


def test_regions_have_their_own_light_and_sequence(clip: Clip) -> None:
    values = recipe_of("sequence").to_dict()
    values["regions"] |= {"names": ["mouth", "nose"], "source": "frames", "height": 40, "width": 48}
    result = process_clip(clip, Recipe.from_dict(values))
    assert result.roi["onset-apex"].shape == (2, 2, 40, 48)
    regions = result.aligned.regions
    assert regions is not None
    numbers = np.array(result.aligned.numbers)
    onset, apex = (result.plan.key_frames[name] for name in ("onset", "apex"))
    near = np.minimum(abs(numbers - onset), abs(numbers - apex)) <= 2
    chosen = numbers[near].tolist()
    for i in range(2):
        frames = normalize_light(regions[near, i])
        ends = chosen.index(onset), chosen.index(apex)
        found = clg_sequence(frames, *ends, numbers=chosen, reach=2)
        np.testing.assert_array_equal(result.roi["onset-apex"][i], components(found.flow))


def test_the_reach_is_time_where_the_frame_rate_is_known(clip: Clip) -> None:
    recipe = recipe_of("mean")
    rates: list[tuple[dict[str, Any], int]] = [
        ({}, 2),
        ({"extra": (("FPS", "500"),)}, 5),
        ({"extra": (("fps", "unknown"),)}, 2),
        ({"dataset": "casme3"}, 0),
        ({"dataset": "smic-nir"}, 0),
        ({"dataset": "smic-hs-e"}, 1),
        ({"dataset": "mmew"}, 1),
        ({"dataset": "my own"}, 1),  # reach_frames
    ]
    for change, reach in rates:
        assert plan_clip(replace(clip, **change), recipe)[1].reach == reach, change
    assert plan_clip(clip, recipe_of("pair"))[1].reach == 0


def test_another_reach_is_another_result(clip: Clip) -> None:
    """The same files at another frame rate are done again."""
    other = replace(clip, extra=(("fps", "400"),))
    for temporal, same in (("mean", False), ("pair", True)):
        plans = [plan_clip(c, recipe_of(temporal))[1] for c in (clip, other)]
        assert (plans[0].fingerprint == plans[1].fingerprint) is same


def test_a_sequence_needs_its_own_flow_method() -> None:
    with pytest.raises(ApexflowError, match=r"'sequence' needs flow\.method 'clg', not 'tvl1'"):
        recipe_of("sequence", "tvl1")
