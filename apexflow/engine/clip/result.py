"""What comes out of one clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apexflow.datasets.sources import Image
from apexflow.engine.clip.backend import CPU
from apexflow.engine.clip.faces import Box, Face
from apexflow.engine.clip.plan import ClipPlan
from apexflow.engine.clip.quality import ClipQuality
from apexflow.engine.regions import RegionBox
from apexflow.quality import Flag

if TYPE_CHECKING:
    from apexflow.engine.clip.interpolate import Interpolated


@dataclass(frozen=True, slots=True)
class Aligned:
    """Crops of one face, each frame registered to the template frame.

    Attributes
    ----------
    numbers : tuple of int
        Frame numbers, ascending; n of them.
    crops : uint8 (n, height, width)
    shift : float32 (n, 2)
        (dx, dy) of the middle of the face's box against the template frame, in pixels of the
        original frame.
    rotation, scale : float32 (n,)
        About that point, in degrees clockwise as seen, and as a factor.
    score : float32 (n,)
        Zero-mean normalised cross-correlation with the template; 1 is equality.
    distance_to_margin : float32 (n,)
        Pixels from the best whole shift to the nearest end of the search. At 0 the face may lie
        beyond, so that its place is not to be trusted. The search ends where the recipe's
        ``margin``, and ``follow`` beyond it, or the frame ends. A side on which the template
        itself lies at the frame's edge does not count; infinite where none does, and where
        nothing was searched.
    regions : uint8 (n, region, height, width), or None
        Each region enlarged from the original frame, where a recipe asks for its own flow.
    decode_device : str
        What decoded the frames: "cpu", or the name of a GPU.
    """

    numbers: tuple[int, ...]
    crops: Image
    shift: NDArray[np.float32]
    rotation: NDArray[np.float32]
    scale: NDArray[np.float32]
    score: NDArray[np.float32]
    distance_to_margin: NDArray[np.float32]
    regions: Image | None = None
    decode_device: str = CPU.name

    def crop(self, number: int) -> Image:
        """Return the (height, width) crop of one frame."""
        return self.crops[self.numbers.index(number)]


@dataclass(frozen=True, slots=True)
class ClipResult:
    """All that a recipe asks of one clip.

    Attributes
    ----------
    plan : ClipPlan
    face : Face
        As detected in the template frame.
    box : (x0, y0, x1, y1)
        The template in pixels of the template frame.
    regions : tuple of (x0, y0, x1, y1)
        The box of each region that the recipe places, in pixels of the template frame.
    aligned : Aligned
        With their motion enlarged, where the recipe says so.
    files : tuple of str
        The image file of each frame in ``aligned``.
    flow : dict of window to float32 ([pair,] 2, height, width)
        Horizontal and vertical displacement in pixels of the crop, rounded to the recipe's
        dtype. Windows of one frame pair have no axis of pairs.
    roi : dict of window to float32 ([pair,] region, 2, height, width)
        The same of each region: cut from the flow, or in pixels of the enlarged region.
    confidence : dict of window to float32 ([pair,] height, width)
        How sure the flow is, 0 to 1 (`apexflow.kernels.clg`), rounded as a store holds it; empty
        where the recipe does not keep it.
    maps : dict of name to uint8 ([pair,] [region,] height, width, 3)
    seconds : dict of stage to float
    mesh : (468, 3) float64, or None
        FaceMesh's points in pixels of the template frame, where the recipe asks for them.
    quality : ClipQuality
        How good the frames and the clip are, and the flags that follow.
    device : str
        What has computed it: "cpu", the name of a GPU, or both where a GPU failed at a step.
    sample_bits : int
        Bits of a sample in the files, which frames were scaled from to 8.
    interpolated : Interpolated or None
        The frames from onset to offset as so many others, where the recipe asks for them.
    magnification : dict
        What magnification found, as a record keeps it; empty where there was none.
    """

    plan: ClipPlan
    face: Face
    box: Box
    regions: tuple[RegionBox, ...]
    aligned: Aligned
    files: tuple[str, ...]
    flow: dict[str, NDArray[np.float32]]
    roi: dict[str, NDArray[np.float32]]
    maps: dict[str, NDArray[np.uint8]]
    seconds: dict[str, float]
    quality: ClipQuality
    device: str = CPU.name
    sample_bits: int = 8
    confidence: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    mesh: NDArray[np.float64] | None = None
    interpolated: Interpolated | None = None
    magnification: dict[str, Any] = field(default_factory=dict)

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What is doubtful about the clip."""
        return self.quality.flags
