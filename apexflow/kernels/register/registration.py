"""Where a template lies in an image, to a small part of a pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels._validate import check_array, check_choice, check_number
from apexflow.kernels.register.prepared import Blocks, Floats
from apexflow.kernels.register.reduce import REDUCTION, reduce_image

if TYPE_CHECKING:
    from apexflow.kernels.register.gpu import DeviceRegistration

MINIMUM_SIZE = 16
"""Fewest pixels a side of a template."""

# Rotation and scale move the rim by more than a block can follow: they are found on a reduced
# image first, as long as it keeps this many pixels a side.
_REDUCED_SIDE = 64


class Placement(NamedTuple):
    """How a template lies in an image.

    Attributes
    ----------
    x, y : float
        The middle of the template, in pixels of the image; the middle of its first pixel is
        (0, 0).
    rotation : float
        Degrees, clockwise as seen.
    scale : float
        Enlargement.
    """

    x: float
    y: float
    rotation: float = 0.0
    scale: float = 1.0


class Placements(NamedTuple):
    """How a template lies in each of N images: `Placement` as arrays (N,) float64."""

    x: Floats
    y: Floats
    rotation: Floats
    scale: Floats


class Registration:
    """One template, prepared to be located in many images.

    The template is divided into blocks, each of which finds its own way; the motion that most
    of them agree on is the template's. A face whose mouth moves is so held by everything but
    the mouth, where a fit of the whole face would be pulled along. Brightness and contrast may
    change.

    Parameters
    ----------
    template : (h, w) uint8
        The patch to find, at least 16x16.
    model : {"shift", "similarity"}, default "shift"
        What may happen to the template: a shift, or also rotation and scale, of a few degrees
        and percent.
    reach : {"median", "falling"}, default "median"
        How far a block may lie from what the others agree on: as far as Tukey's constant times
        the median distance, or in further rounds only .3, .15 and .08 px and what noise does to
        it. Falling, a large expression pulls the template less.

    Raises
    ------
    ValueError
        If an argument is not such an array or model.

    Notes
    -----
    Images may be NumPy's or CuPy's, whatever the template was; one in CuPy's memory comes down
    once, to be prepared. On a GPU `locate_all` is the form to use.

    Examples
    --------
    >>> import cv2, numpy as np
    >>> noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
    >>> image = cv2.GaussianBlur(noise, (0, 0), 2)
    >>> moved = cv2.warpAffine(image, np.array([[1, 0, 0.3], [0, 1, -0.4]]), (90, 90))
    >>> found = Registration(image[20:70, 20:70]).locate(moved, (44.5, 44.5))
    >>> bool(abs(found.x - 44.8) < 0.03), bool(abs(found.y - 44.1) < 0.03)
    (True, True)
    """

    def __init__(
        self,
        template: NDArray[np.uint8],
        *,
        model: Literal["shift", "similarity"] = "shift",
        reach: Literal["median", "falling"] = "median",
    ) -> None:
        check_array("template", template, dtypes=("uint8",), ndim=(2,))
        if min(template.shape) < MINIMUM_SIZE:
            raise ValueError(
                f"template must be at least {MINIMUM_SIZE}x{MINIMUM_SIZE} pixels. "
                f"Got shape {template.shape}."
            )
        check_choice("model", model, ("shift", "similarity"))
        if devices.is_device_array(template):
            template = devices.cuda_device().to_host(template)
        check_choice("reach", reach, ("median", "falling"))
        self._similarity, self._falling = model == "similarity", reach == "falling"
        self._fine = Blocks.of(template)
        self._coarse = None
        if self._similarity and min(template.shape) >= REDUCTION * _REDUCED_SIDE:
            self._coarse = Blocks.of(_reduced(template))
        # From the middle of the reduced template to that of the template, in its pixels.
        self._lag = [0.5 * (side - side // REDUCTION * REDUCTION) for side in template.shape[::-1]]
        self._on_devices: dict[str, DeviceRegistration] = {}

    def locate(self, image: NDArray[np.uint8], start: tuple[float, float]) -> Placement:
        """Find how the template lies in an image.

        Parameters
        ----------
        image : (H, W) uint8
            The image searched.
        start : (x, y)
            About where the middle of the template is, to a pixel or two, as a template search
            gives it.

        Returns
        -------
        Placement
            ``start`` itself when the template is too flat to be located.

        Raises
        ------
        ValueError
            If ``image`` is not such an array or ``start`` is not finite.
        """
        check_array("image", image, dtypes=("uint8",), ndim=(2,))
        x, y = (check_number("start", value) for value in start)
        if devices.is_device_array(image):
            to_host = devices.cuda_device().to_host
            found = self.locate_all(image[None], np.array([[x, y]]))
            return Placement(*(float(to_host(part)[0]) for part in found))
        matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
        pixels = np.ascontiguousarray(image)
        if self._coarse is not None:
            self._find_coarsely(pixels, matrix)
        self._fine.refine(pixels, matrix, similarity=self._similarity, falling=self._falling)
        return _placement(matrix)

    def locate_all(self, images: NDArray[np.uint8], starts: NDArray[np.number[Any]]) -> Placements:
        """Find how the template lies in each of many images.

        Parameters
        ----------
        images : (N, H, W) uint8
            The images searched.
        starts : (N, 2) int or float
            (x, y) for each, as `locate` takes it; finite. NumPy's or CuPy's where the images are
            CuPy's, but of CuPy's the numbers are not looked at.

        Returns
        -------
        Placements
            As `locate` finds them; for CuPy images CuPy arrays, with nothing waited for.

        Raises
        ------
        ValueError
            If an argument is not such an array.
        """
        check_array("images", images, dtypes=("uint8",), ndim=(3,))
        numbers = ("int32", "int64", "float32", "float64")
        check_array("starts", starts, dtypes=numbers, ndim=(2,), finite=False)
        if starts.shape != (len(images), 2):
            raise ValueError(f"starts must be ({len(images)}, 2). Got shape {starts.shape}.")
        if not devices.is_device_array(starts) and not np.isfinite(starts).all():
            raise ValueError("starts must be finite.")
        if devices.is_device_array(images):
            place = str(images.device)
            if place not in self._on_devices:
                self._on_devices[place] = self.on(devices.cuda_device())
            return Placements(*self._on_devices[place].locate_all(images, starts))
        devices.on_device(images=images, starts=starts)
        found = [
            self.locate(image, (float(x), float(y)))
            for image, (x, y) in zip(images, starts, strict=True)
        ]
        return Placements(*np.array(found).T.copy())

    def on(self, device: devices.Device) -> DeviceRegistration:
        """Prepare the template on a device."""
        from apexflow.kernels.register.gpu import DeviceRegistration

        lag = self._lag[0], self._lag[1]
        return DeviceRegistration(
            self._fine,
            self._coarse,
            lag,
            similarity=self._similarity,
            falling=self._falling,
            device=device,
        )

    def _find_coarsely(self, image: NDArray[np.uint8], matrix: Floats) -> None:
        """Bring the matrix near by a search in the reduced image."""
        assert self._coarse is not None
        # The middle of a reduced pixel lies this far from that of its first pixel.
        offset = 0.5 * (REDUCTION - 1)
        middle = matrix[:, 2] - matrix[:, :2] @ self._lag
        reduced = np.column_stack([matrix[:, :2], (middle - offset) / REDUCTION])
        self._coarse.refine(_reduced(image), reduced, similarity=True, falling=False)
        matrix[:, :2] = reduced[:, :2]
        matrix[:, 2] = reduced[:, 2] * REDUCTION + offset + reduced[:, :2] @ self._lag


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    reduced = np.empty([side // REDUCTION for side in image.shape], np.uint8)
    reduce_image(image, reduced)
    return reduced


def _placement(matrix: Floats) -> Placement:
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    rotation = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    return Placement(float(matrix[0, 2]), float(matrix[1, 2]), rotation, scale)
