"""Training values changed as a face may be: mirrored with the signs of what they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from apexflow.errors import ApexflowError
from apexflow.storage.collate import Padded
from apexflow.storage.dataset import ClipDataset
from apexflow.training.batches import Input

# Where no motion lies in 0..1, of components as bytes on a fixed scale: byte 128 of 255.
_STILL = 128 / 255
# An encoding and how it is stretched: what `augmented` calls it.
_MIRRORED = {
    ("hsv", None): "hsv",
    ("hsv-absolute", None): "hsv",
    ("uv", "fixed"): "uv-fixed",
    ("uv", "minmax"): "uv-stretched",
    ("uv-strain", "fixed"): "uv-fixed",
    ("uv-strain", "minmax"): "uv-stretched",
}
_STRETCHED = {"uv": "fixed", "uv-strain": "minmax"}


def augmentation_kind(augment: str, dataset: ClipDataset) -> str:
    """Return what `augmented` does to the samples of a data set.

    Parameters
    ----------
    augment : "none", "frames" or "mirror"
        "frames" mirrors whole clips of frames, and changes brightness and contrast by up to a
        tenth. "mirror" mirrors whole clips as what they show is mirrored: u changes its sign,
        the hue of an HSV map turns, strain and frames stay as they are.
    dataset : ClipDataset

    Raises
    ------
    ApexflowError
        "frames" for motion, whose brightness is its size or direction; "mirror" for what no
        mirrored form is known of.
    """
    if augment == "none":
        return "none"
    fed = dataset.options
    if augment == "frames":
        if fed and "frames" not in fed:
            raise ApexflowError(
                "augment 'frames' changes brightness and mirrors without signs, which motion does "
                "not bear: take augment 'mirror'"
            )
        return "frames"
    if "frames" in fed:
        return "plain"
    kinds = {_mirrored(recipe, fed) for _, recipe in dataset.recipes}
    if len(kinds) != 1:
        raise ApexflowError(
            "augment 'mirror' must know what the channels are, which "
            f"{'these arrays do not say' if not kinds else 'differs from store to store'}: mirror "
            "in your own transform"
        )
    return kinds.pop()


def _mirrored(recipe: Mapping[str, Any], fed: Mapping[str, Any]) -> str:
    encoding, options = fed.get("encode"), fed.get("encode_options", {})
    if "maps" in fed:
        made = recipe.get("maps", {}).get(fed["maps"], {})
        encoding, options = made.get("encoding"), made.get("options", {})
    elif encoding is None:
        return "flow"
    stretched = options.get("normalize", _STRETCHED.get(str(encoding)))
    kind = _MIRRORED.get((str(encoding), stretched))
    if kind is None:
        raise ApexflowError(
            f"augment 'mirror' knows flow, uv, uv-strain and hsv, not {encoding or 'these maps'}: "
            "feed the stored flow and --encode it, or take augment 'none'"
        )
    return kind


def augmented(values: Input, kind: str, rng: torch.Generator) -> Input:
    """Return training values changed as a face may be, half of the clips mirrored as a whole.

    Parameters
    ----------
    values : (B, ..., channel, H, W), or padded
        Maps and frames in 0..1, flow in pixels.
    kind : str
        As `augmentation_kind` gives it.
    rng : torch.Generator
    """
    if kind == "none":
        return values
    if isinstance(values, Padded):
        keep = values.mask.reshape(*values.mask.shape, *[1] * (values.values.ndim - 2))
        changed = augmented(values.values, kind, rng)
        assert isinstance(changed, torch.Tensor)
        return Padded(changed * keep, values.mask)
    shape = (-1, *[1] * (values.ndim - 1))
    draws = torch.rand((3, len(values)), generator=rng).to(values.device)
    flip = draws[0].reshape(shape) < 0.5
    flipped = torch.where(flip, mirrored(values, kind), values)
    if kind != "frames":
        return flipped
    contrast, brightness = (0.2 * draw.reshape(shape) - 0.1 for draw in draws[1:])
    return ((flipped - 0.5) * (1 + contrast) + 0.5 + brightness).clamp(0, 1)


def mirrored(values: torch.Tensor, kind: str) -> torch.Tensor:
    """Return what the mirrored clips would have given: (..., channel, H, W)."""
    flipped = values.flip(-1)
    if kind in ("plain", "frames"):
        return flipped
    if kind == "hsv":
        return _turned_hue(flipped)
    horizontal, rest = flipped[..., :1, :, :], flipped[..., 1:, :, :]
    if kind == "flow":
        other = -horizontal
    elif kind == "uv-fixed":
        other = 2 * _STILL - horizontal
    else:  # stretched from its lowest value, at 0, to its highest
        other = horizontal.amax((-2, -1), keepdim=True) - horizontal
    return torch.cat([other, rest], dim=-3)


def _turned_hue(maps: torch.Tensor) -> torch.Tensor:
    """Return RGB maps whose hue h (of a direction of motion) is 180 - h degrees.

    Exact before the map is made smaller; means of several hues turn as means.
    """
    high, low = maps.amax(-3, keepdim=True), maps.amin(-3, keepdim=True)
    spread = (high - low).clamp(min=1e-12)
    red, green, blue = (maps[..., i : i + 1, :, :] for i in range(3))
    sextant = torch.where(
        high == red,
        (green - blue) / spread,
        torch.where(high == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    turned = (3 - sextant) % 6
    # The channels as HSV gives them: red 5, green 3, blue 1 sextants ahead.
    ahead = torch.tensor([5.0, 3.0, 1.0], device=maps.device).reshape(3, 1, 1)
    way = (ahead + turned) % 6
    return high - (high - low) * torch.minimum(way, 4 - way).clamp(0, 1)
