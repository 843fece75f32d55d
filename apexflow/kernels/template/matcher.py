"""Zero-mean normalised cross-correlation: the best position of a template, exactly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels._validate import check_array, check_image
from apexflow.kernels.template.cpu import (
    MOST_EXACT,
    Pattern,
    can_bound,
    exact_products,
    prepare_pattern,
    search,
)
from apexflow.kernels.template.spectrum import Spectrum
from apexflow.kernels.template.sums import one_channel, where, window_sums, with_dense_rows

if TYPE_CHECKING:
    from apexflow.kernels.template.gpu import DeviceMatcher

_Scores = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Positions (y * columns + x) in row-major order, with products and norms."""

MAXIMUM_SIZE = 1 << 23
"""Most values a template may have; up to here all sums of products fit 64 bits."""


class Match(NamedTuple):
    """The best position of a template: its upper left corner in the region, and the score."""

    y: int
    x: int
    score: float


class Matches(NamedTuple):
    """The best position of a template in each of N regions: arrays of length N.

    Attributes
    ----------
    y, x : (N,) int32
    score : (N,) float64
    """

    y: NDArray[np.int32]
    x: NDArray[np.int32]
    score: NDArray[np.float64]


def match_template(region: NDArray[np.uint8], template: NDArray[np.uint8]) -> Match:
    """Find the position at which a template correlates best with a region.

    The score is the zero-mean normalised cross-correlation [1]_ as OpenCV's
    ``TM_CCOEFF_NORMED`` defines it: each channel is freed of its mean under the window, and
    products and norms are summed over the channels. The position is the maximum of the exact
    score (integer arithmetic, no rounding); among equal scores the first in row-major order.
    Where the window or the template is flat, the score is 0.

    Parameters
    ----------
    region : (H, W) or (H, W, C) uint8, C = 1 or 3
        The image searched. Both arrays may be CuPy's.
    template : (h, w) or (h, w, C) uint8
        The patch to find, no larger than the region, with as many channels and at most
        8,388,608 values.

    Returns
    -------
    Match
        ``y``, ``x`` of the window's upper left pixel and ``score`` within [-1, 1].

    Raises
    ------
    ValueError
        If an argument is not such an array, or the template is larger than the region.

    See Also
    --------
    TemplateMatcher : the same for many regions, much faster.

    References
    ----------
    .. [1] J. P. Lewis, "Fast Normalized Cross-Correlation", Vision Interface, 1995.

    Examples
    --------
    >>> import numpy as np
    >>> region = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    >>> match_template(region, region[12:40, 20:50])
    Match(y=12, x=20, score=1.0)
    """
    devices.on_device(region=region, template=template)
    return TemplateMatcher(template).match(region)


class TemplateMatcher:
    """One template, prepared to be found in many regions.

    Parameters
    ----------
    template : (h, w) or (h, w, C) uint8, C = 1 or 3
        The patch to find, of at most 8,388,608 values. A copy is kept, on the host; one in
        CuPy's memory comes down once, here.

    Raises
    ------
    ValueError
        If ``template`` is not such an array.

    Notes
    -----
    Regions may be NumPy's or CuPy's, whatever the template was; on a GPU `match_all` is the
    form to use.

    A matcher keeps nothing of the regions it has seen, so that threads may share it.

    Gray images stored in three equal channels score what one of these scores, and are searched
    as one.
    """

    def __init__(self, template: NDArray[np.uint8]) -> None:
        check_image("template", template, dtypes=("uint8",))
        if template.size > MAXIMUM_SIZE:
            raise ValueError(
                f"template must have at most {MAXIMUM_SIZE} values. Got shape {template.shape}."
            )
        if devices.is_device_array(template):
            template = devices.cuda_device().to_host(template)
        self._template = np.array(_with_channels(template), order="C")
        sums, norms = window_sums(where(self._template), *self._template.shape[:2])
        self._sums, self._norm = sums.ravel(), int(norms.item())
        one = one_channel(self._template)
        self._gray = None if one is None else TemplateMatcher(one)
        self._pattern: Pattern | None = None
        self._spectra: dict[tuple[tuple[int, int], type], Spectrum] = {}
        self._on_devices: dict[str, DeviceMatcher] = {}

    def __reduce__(self) -> tuple[type[TemplateMatcher], tuple[NDArray[np.uint8]]]:
        return TemplateMatcher, (self._template,)

    def match(self, region: NDArray[np.uint8]) -> Match:
        """Find the template's best position in a region.

        Parameters
        ----------
        region : (H, W) or (H, W, C) uint8
            The image searched: at least as large as the template, with as many channels.

        Returns
        -------
        Match
            As `match_template` gives it.

        Raises
        ------
        ValueError
            If ``region`` is not such an array.
        """
        check_image("region", region, dtypes=("uint8",))
        self._check_shape("region", region.shape, region.shape)
        if devices.is_device_array(region):
            found = devices.cuda_device().to_host
            y, x, score = (found(values)[0] for values in self.match_all(region[None]))
            return Match(int(y), int(x), float(score))
        region = with_dense_rows(_with_channels(region))
        if self._norm == 0:
            return Match(0, 0, 0.0)
        if self._gray is not None and (one := one_channel(region)) is not None:
            return self._gray.match(one)
        return self._search(region)

    def match_all(self, regions: NDArray[np.uint8]) -> Matches:
        """Find the template's best position in each of many regions.

        Parameters
        ----------
        regions : (N, H, W) or (N, H, W, C) uint8
            The images searched: each at least as large as the template, with as many channels.

        Returns
        -------
        Matches
            As `match` finds them; of CuPy regions CuPy arrays, with nothing waited for.

        Raises
        ------
        ValueError
            If ``regions`` is not such an array.
        """
        check_array("regions", regions, dtypes=("uint8",), ndim=(3, 4))
        self._check_shape("regions", regions.shape, regions.shape[1:])
        if devices.is_device_array(regions):
            there = regions if regions.ndim == 4 else regions[..., None]
            where_it_is = str(regions.device)
            if where_it_is not in self._on_devices:
                self._on_devices[where_it_is] = self.on(devices.cuda_device())
            return Matches(*self._on_devices[where_it_is].match_all(there))
        y, x, score = zip(*map(self.match, regions), strict=True)
        return Matches(np.array(y, np.int32), np.array(x, np.int32), np.array(score))

    def on(self, device: devices.Device) -> DeviceMatcher:
        """Prepare the template on a device."""
        from apexflow.kernels.template.gpu import DeviceMatcher

        return DeviceMatcher(self._template, self._sums, self._norm, device=device)

    def _check_shape(self, name: str, shape: tuple[int, ...], size: tuple[int, ...]) -> None:
        height, width, channels = self._template.shape
        if (*size, 1)[2] != channels:
            raise ValueError(
                f"{name} must have as many channels as template, {channels}. Got shape {shape}."
            )
        if size[0] < height or size[1] < width:
            raise ValueError(
                f"{name} must be at least as large as template, ({height}, {width}). "
                f"Got shape {shape}."
            )

    def _search(self, region: NDArray[np.uint8]) -> Match:
        sums, norms = window_sums(where(region), *self._template.shape[:2])
        positions, products, chosen = self._bounded(region, sums, norms)
        if not positions.size:
            positions, products, chosen = self._everywhere(region, sums, norms)
        best = _first_maximum(products, chosen)
        y, x = divmod(int(positions[best]), norms.shape[1])
        return Match(y, x, _score(int(products[best]), int(chosen[best]), self._norm))

    def _bounded(
        self, region: NDArray[np.uint8], sums: NDArray[np.int64], norms: NDArray[np.int64]
    ) -> _Scores:
        """Return the scores at the positions that may be the best, by bounds; none if they fail."""
        if not can_bound(region.shape, self._template.shape):
            nothing = np.empty(0, np.int64)
            return nothing, nothing, nothing
        if self._pattern is None:
            self._pattern = prepare_pattern(self._template, self._sums, self._norm)
        positions, products = search(where(region), sums, norms, self._pattern)
        order = np.argsort(positions)
        positions = positions[order]
        return positions, products[order], norms.flat[positions]

    def _everywhere(
        self, region: NDArray[np.uint8], sums: NDArray[np.int64], norms: NDArray[np.int64]
    ) -> _Scores:
        """Return the scores at all positions that may be the best, by DFT."""
        if self._pattern is not None:
            products, error = self._spectrum(region, np.float32).products(region, sums)
            near = near_best(products, error, norms)
            if near.size <= MOST_EXACT:
                exact = exact_products(where(region), sums, self._pattern, near)
                if np.abs(exact - products.flat[near]).max() <= error / 4:
                    return near, exact, norms.flat[near]
        products, _ = self._spectrum(region, np.float64).products(region, sums)
        return np.arange(products.size), products.ravel(), norms.ravel()

    def _spectrum(self, region: NDArray[np.uint8], dtype: type) -> Spectrum:
        """Return the template's spectrum for regions of this size, kept for the next."""
        size = region.shape[:2], dtype
        if size not in self._spectra:
            self._spectra[size] = Spectrum(self._template, self._sums, *size)
        return self._spectra[size]


def _with_channels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image if image.ndim == 3 else image[..., None]


def near_best(
    products: NDArray[np.float64], error: float, norms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the positions that may be the best if the products are wrong by ``error``."""
    scale = 1 / np.sqrt(np.maximum(norms, 1))
    wrong = error * (norms > 0) * scale  # the score of a flat window is 0 for certain
    scores = products * (norms > 0) * scale
    return np.flatnonzero(scores + wrong >= (scores - wrong).max())


def _score(product: int, norm: int, template_norm: int) -> float:
    if norm == 0:
        return 0.0
    # The root of a whole square is exact: a copy scores 1.0.
    return min(max(product / math.sqrt(norm * template_norm), -1.0), 1.0)


def _first_maximum(products: NDArray[np.int64], norms: NDArray[np.int64]) -> int:
    """Return the first index of the largest ``products / sqrt(norms)``, compared exactly."""
    if products.size == 1:
        return 0
    scores = np.divide(products, np.sqrt(norms), out=np.zeros(products.size), where=norms > 0)
    top = scores.max()
    near = np.flatnonzero(scores >= top - abs(top) * 1e-12)
    best = int(near[0])
    while near.size:
        first = int(near[0])
        if _exceeds(int(products[first]), int(norms[first]), int(products[best]), int(norms[best])):
            best = first
        near = near[(products[near] != products[first]) | (norms[near] != norms[first])]
    return best


def _exceeds(product: int, norm: int, than_product: int, than_norm: int) -> bool:
    """Whether product / sqrt(norm) > than_product / sqrt(than_norm), in exact integers."""
    # A flat window has norm 0 and product 0: any norm serves to give it the score 0.
    left = product * abs(product) * max(than_norm, 1)
    right = than_product * abs(than_product) * max(norm, 1)
    return left > right
