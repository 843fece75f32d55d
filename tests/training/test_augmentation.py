"""A mirrored map is the map of the mirrored flow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apexflow as af
from apexflow.errors import ApexflowError
from apexflow.kernels.encode import make_maps
from apexflow.training.augmentation import augmentation_kind, augmented, mirrored
from tests.storage.stores import make_store
from tests.training.motion import motion_clips


def smooth_flow(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(6, 2, 6, 5)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, (40, 36), mode="bicubic").numpy()


def maps_of(flow: np.ndarray, encoding: str, size: Any, options: dict[str, Any]) -> torch.Tensor:
    made = make_maps(flow, encoding, size=size, options=options)
    return torch.from_numpy(np.moveaxis(made, -1, -3).astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("encoding", "options", "kind", "size", "bytes_off"),
    [
        ("uv", {}, "uv-fixed", (14, 12), 1),
        ("uv", {"normalize": "minmax"}, "uv-stretched", (14, 12), 1),
        ("uv-strain", {}, "uv-stretched", (14, 12), 1),
        ("uv-strain", {"normalize": "fixed"}, "uv-fixed", None, 1),
        # Hue is stored in steps of 2 degrees, 8.5 bytes of a channel.
        ("hsv", {}, "hsv", None, 10),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mirrored_map_is_that_of_the_mirrored_flow(
    encoding: str, options: dict[str, Any], kind: str, size: Any, bytes_off: int, seed: int
) -> None:
    flow = smooth_flow(seed)
    other = flow[..., ::-1].copy()
    other[:, 0] *= -1
    found = mirrored(maps_of(flow, encoding, size, options), kind)
    wanted = maps_of(other, encoding, size, options)
    assert float((found - wanted).abs().max()) * 255 <= bytes_off + 1e-3
    # What leaves out the sign is another map altogether.
    plain = mirrored(maps_of(flow, encoding, size, options), "plain")
    assert float((plain - wanted).abs().max()) * 255 > 50


def test_hues_that_were_averaged_turn_nearly() -> None:
    flow = smooth_flow(3)
    other = flow[..., ::-1].copy()
    other[:, 0] *= -1
    found = mirrored(maps_of(flow, "hsv", (20, 18), {}), "hsv")
    assert float((found - maps_of(other, "hsv", (20, 18), {})).abs().mean()) * 255 < 4


def test_half_of_the_clips_are_mirrored() -> None:
    flow = torch.randn(64, 2, 5, 7)
    found = augmented(flow, "flow", torch.Generator().manual_seed(1))
    assert isinstance(found, torch.Tensor)
    other = torch.stack([-flow[:, 0], flow[:, 1]], 1).flip(-1)
    kinds = [
        (torch.equal(one, plain), torch.equal(one, mirror))
        for one, plain, mirror in zip(found, flow, other, strict=True)
    ]
    assert set(kinds) == {(True, False), (False, True)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("augment") / "s.zarr"
    make_store(path, motion_clips(2, 1))
    return path


@pytest.mark.parametrize(
    ("fed", "augment", "kind"),
    [
        ({"flow": "onset-apex"}, "mirror", "flow"),
        ({"flow": "onset-apex", "encode": "uv"}, "mirror", "uv-fixed"),
        ({"flow": "onset-apex", "encode": "uv-strain"}, "mirror", "uv-stretched"),
        (
            {
                "flow": "onset-apex",
                "encode": "uv-strain",
                "encode_options": {"normalize": "fixed"},
            },
            "mirror",
            "uv-fixed",
        ),
        ({"flow": "onset-apex", "encode": "hsv"}, "mirror", "hsv"),
        ({"frames": "apex"}, "mirror", "plain"),
        ({"frames": "apex"}, "frames", "frames"),
        ({"flow": "onset-apex"}, "none", "none"),
    ],
)
def test_what_is_fed_says_how_it_is_mirrored(
    store: Path, fed: dict[str, Any], augment: str, kind: str
) -> None:
    assert augmentation_kind(augment, af.ClipDataset(store, **fed)) == kind


@pytest.mark.parametrize(
    ("fed", "augment", "message"),
    [
        ({"flow": "onset-apex"}, "frames", "which motion does not bear: take augment 'mirror'"),
        ({"flow": "onset-apex", "encode": "hsv"}, "frames", "motion does not bear"),
        ({"flow": "onset-apex", "encode": "magnitude-angle"}, "mirror", "not magnitude-angle"),
    ],
)
def test_what_would_be_wrong_is_refused(
    store: Path, fed: dict[str, Any], augment: str, message: str
) -> None:
    with pytest.raises(ApexflowError, match=message):
        augmentation_kind(augment, af.ClipDataset(store, **fed))
