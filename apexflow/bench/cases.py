"""What is compared: each kernel with the functions that do the same, at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import TemplateMatcher, encode_hsv, farneback, optical_strain, tvl1
from apexflow.kernels.flow_farneback import OPTFLOW_FARNEBACK_GAUSSIAN, prepare_farneback

Image = NDArray[np.uint8]
Flow = NDArray[np.float32]

FRAMES = 75
"""Frames of a clip at 200 frames/s: about what SAMM's hold."""

FARNEBACK: dict[str, Any] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
}


_HEADS = {"walk": (1.0, 0.0), "jump-3": (0.0, 3.0), "jump-10": (0.0, 10.0)}
"""Steps and jumps of a head, in px a frame, beside one that drifts by 0.05 px."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel at one size.

    Attributes
    ----------
    kernel, size : str
        What people read.
    ours : callable
        Does ``items`` pieces of work.
    reference : callable
        OpenCV, or NumPy where OpenCV has no such function, on ``reference_items`` pieces.
    difference : callable
        From the two results, how far apart they are.
    unit : str
        Of the difference.
    tolerance : float
        The largest difference allowed; infinite where rounding decides (TV-L1 over all scales).
    others : mapping
        Further functions to time, by name, on one piece of work.
    """

    kernel: str
    size: str
    ours: Callable[[], Any]
    reference: Callable[[], Any]
    difference: Callable[[Any, Any], float]
    unit: str
    tolerance: float
    items: int = 1
    reference_items: int = 1
    others: Mapping[str, Callable[[], Any]] = field(default_factory=dict)


def all_cases(*, smoke: bool = False) -> Iterator[Case]:
    """Yield the cases; tiny ones for a smoke run."""
    scales = (0.12,) if smoke else (0.25, 0.5, 1.0)
    sides = (48,) if smoke else (112, 224, 448)
    for scale in scales:
        yield template_case("template search, 1 channel", scale)
    for kind, head in (("walk", "walks"), ("jump-3", "jumps 3 px"), ("jump-10", "jumps 10 px")):
        yield template_case(f"template search, the head {head}", scales[-1], kind)
    yield template_case("template search, 3 channels, gray frame", scales[-1], "gray")
    yield template_case("template search, 3 channels, colour frame", scales[-1], "colour")
    yield template_case("template search, cuts to noise", scales[-1], "noise")
    yield template_case("template search, stripes", scales[-1], "stripes")
    for side in sides:
        yield farneback_case("Farnebäck, box window", side)
    middle = sides[len(sides) // 2]
    yield farneback_case("Farnebäck, first frame shared", middle, shared=True)
    yield farneback_case("Farnebäck, Gaussian window", middle, flags=OPTFLOW_FARNEBACK_GAUSSIAN)
    yield tvl1_case("TV-L1, one scale, one warp", middle, nscales=1, warps=1)
    for side in sides[:2]:
        yield tvl1_case("TV-L1", side)
    for side in sides:
        yield hsv_case(side)
    yield strain_case(middle)


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return a random scene of 0 to 255 with shapes of the sizes that a face has."""
    scene = np.zeros((height, width), np.float32)
    for size, weight in ((height / 8, 1.0), (height / 24, 0.6), (3.0, 0.5), (1.2, 0.15)):
        layer = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), size)
        scene += weight * layer / layer.std()
    return np.clip(128 + 40 * scene / scene.std(), 10, 245)


def clip(
    scale: float, frames: int, seed: int = 0, *, step: float = 0.05, jump: float = 0.0
) -> list[Image]:
    """Return gray search regions: a head that moves, light that changes, noise.

    It drifts by ``step`` px a frame and axis (standard deviation), or jumps by ``jump`` px a
    frame in any direction, but no farther from the middle than a search reaches.
    """
    rng = np.random.default_rng(seed)
    height, width = round(680 * scale), round(580 * scale)
    scene = texture(rng, height, width)
    drift = np.cumsum(rng.normal(0, step, (frames, 2)), axis=0)
    if jump:
        drift = jumps(rng, frames, jump, farthest=36 * scale)
    result = []
    for number, (dy, dx) in enumerate(drift):
        move = np.array([[1, 0, dx], [0, 1, dy]])
        frame = cv2.warpAffine(scene, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=2)
        frame = frame * (1 + 0.02 * np.sin(number / 20)) + rng.normal(0, 2, frame.shape)
        result.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    return result


def jumps(rng: np.random.Generator, frames: int, length: float, *, farthest: float) -> Any:
    """Return places (frames, 2), each at a distance from the one before and near the origin."""
    places = [np.zeros(2)]
    while len(places) < frames:
        angle = rng.uniform(0, 2 * np.pi)
        place = places[-1] + length * np.array([np.sin(angle), np.cos(angle)])
        if np.abs(place).max() <= max(farthest, length):
            places.append(place)
    return np.array(places)


def searched_frames(kind: str, scale: float) -> list[Image]:
    """Return the frames of a clip of some kind, the worst cases included."""
    rng = np.random.default_rng(0)
    if kind in _HEADS:
        step, jump = _HEADS[kind]
        return clip(scale, FRAMES, step=step, jump=jump)
    frames = clip(scale, FRAMES)
    if kind == "gray":
        return [np.repeat(frame[..., None], 3, 2) for frame in frames]
    if kind == "colour":  # the channels of a photograph have most in common
        planes = (clip(scale, FRAMES, seed) for seed in range(3))
        mixed = [np.stack(three, -1).astype(np.uint16) for three in zip(*planes, strict=True)]
        return [((4 * f.sum(-1, keepdims=True) + 3 * f) // 15).astype(np.uint8) for f in mixed]
    if kind == "noise":
        return [rng.integers(0, 256, frames[0].shape, dtype=np.uint8) for _ in frames[:10]]
    if kind == "stripes":
        stripes = np.broadcast_to(np.arange(frames[0].shape[1]) % 8 * 30, frames[0].shape)
        return [(stripes + number % 2).astype(np.uint8) for number in range(10)]
    return frames


def template_case(kernel: str, scale: float, kind: str = "") -> Case:
    """Search a 600 x 500 template within ±40 px, times a scale, over a clip."""
    frames = searched_frames(kind, scale)
    margin, height, width = round(40 * scale), round(600 * scale), round(500 * scale)
    first = frames[0] if kind in _HEADS else frames[len(frames) // 2]
    template = first[margin : margin + height, margin : margin + width].copy()
    sample = slice(None, None, len(frames) // 5)

    def ours() -> list[tuple[int, int, float]]:
        matcher = TemplateMatcher(template)
        return [matcher.match(frame) for frame in frames]

    def opencv() -> list[tuple[int, int, float]]:
        found = []
        for frame in frames[sample]:
            scores = cv2.matchTemplate(frame, template, cv2.TM_CCOEFF_NORMED)
            _, best, _, (x, y) = cv2.minMaxLoc(scores)
            found.append((y, x, best))
        return found

    def scikit_image() -> Any:
        from skimage.feature import match_template

        return match_template(first, template)

    def difference(mine: Any, theirs: Any) -> float:
        # Stripes fit at many positions, of which OpenCV's rounding chooses one.
        compared = slice(2, 3) if kind == "stripes" else slice(0, 3)
        pairs = zip(np.array(mine)[sample, compared], np.array(theirs)[:, compared], strict=True)
        return float(max(np.abs(a - b).max() for a, b in pairs))

    return Case(
        kernel=kernel,
        size=f"{height} x {width}, ±{margin}",
        ours=ours,
        reference=opencv,
        difference=difference,
        unit="px, score",
        tolerance=1e-5,
        items=len(frames),
        reference_items=len(frames[sample]),
        others={} if kind else {"scikit-image": scikit_image},
    )


def pair(side: int, seed: int = 0) -> tuple[Image, Image]:
    """Return two square frames between which a smooth motion of up to 2 px lies."""
    rng = np.random.default_rng(seed)
    scene = texture(rng, side, side)
    blur = (0, 0), side / 8
    motion = [cv2.GaussianBlur(rng.normal(size=(side, side)), *blur) for _ in range(2)]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    dx, dy = (2 * field / np.abs(field).max() for field in motion)
    moved = cv2.remap(
        scene, x + dx.astype(np.float32), y + dy.astype(np.float32), cv2.INTER_CUBIC, borderMode=2
    )
    frames = [image + rng.normal(0, 2, image.shape) for image in (scene, moved)]
    first, second = (np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in frames)
    return first, second


def largest_end_point_difference(a: Flow, b: Flow) -> float:
    """Return the largest distance between the vectors of two flows, in px."""
    return float(np.hypot(*np.moveaxis(np.float64(a) - b, -1, 0)).max())


def mean_end_point_difference(a: Flow, b: Flow) -> float:
    """Return the mean distance between the vectors of two flows, in px."""
    return float(np.hypot(*np.moveaxis(np.float64(a) - b, -1, 0)).mean())


def farneback_case(kernel: str, side: int, *, shared: bool = False, flags: int = 0) -> Case:
    """Compute the flow between two frames, the first of which may be prepared."""
    first, second = pair(side)
    start = prepare_farneback(first) if shared else first
    return Case(
        kernel=kernel,
        size=f"{side} x {side}",
        ours=lambda: farneback(start, second, **FARNEBACK, flags=flags),
        reference=lambda: opencv_farneback(first, second, flags),
        difference=largest_end_point_difference,
        unit="px, largest",
        tolerance=1e-2 if flags else 1e-3,
    )


def opencv_farneback(first: Image, second: Image, flags: int = 0) -> Flow:
    """Return OpenCV's flow with the parameters of `FARNEBACK`."""
    return np.asarray(cv2.calcOpticalFlowFarneback(first, second, None, **FARNEBACK, flags=flags))


def tvl1_case(kernel: str, side: int, *, nscales: int = 5, warps: int = 5) -> Case:
    """Compute the TV-L1 flow between two frames with OpenCV's parameters."""
    first, second = pair(side)
    full = warps > 1
    return Case(
        kernel=kernel,
        size=f"{side} x {side}",
        ours=lambda: tvl1(first, second, nscales=nscales, warps=warps),
        reference=lambda: opencv_tvl1(first, second, nscales, warps),
        difference=mean_end_point_difference if full else largest_end_point_difference,
        unit="px, mean" if full else "px, largest",
        tolerance=np.inf if full else 1e-4,
        others={"scikit-image": lambda: scikit_image_tvl1(first, second)} if full else {},
    )


def opencv_tvl1(first: Image, second: Image, nscales: int = 5, warps: int = 5) -> Flow:
    """Return the flow of OpenCV's TV-L1 with its defaults."""
    solver = cv2.optflow.DualTVL1OpticalFlow.create(nscales=nscales, warps=warps)
    return np.asarray(solver.calc(first, second, None))


def scikit_image_tvl1(first: Image, second: Image) -> Flow:
    """Return the flow of scikit-image's TV-L1 with its defaults, (x, y) last."""
    from skimage.registration import optical_flow_tvl1

    return np.stack(optical_flow_tvl1(first, second, dtype=np.float32)[::-1], -1)


def hsv_case(side: int) -> Case:
    """Make the 28 x 28 HSV map of a flow."""
    flow = smooth_flow(side)
    return Case(
        kernel="HSV map to 28 x 28",
        size=f"{side} x {side}",
        ours=lambda: encode_hsv(flow),
        reference=lambda: opencv_hsv(flow),
        difference=lambda a, b: float(np.abs(a.astype(int) - b).max()),
        unit="levels, largest",
        tolerance=1,
    )


def smooth_flow(side: int) -> Flow:
    """Return a smooth random flow of up to some px."""
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.normal(size=(side, side, 2)), (0, 0), side / 12)
    return (field / field.std()).astype(np.float32)


def opencv_hsv(flow: Flow) -> Image:
    """Return the HSV map that the steps of OpenCV make."""
    magnitude, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
    hsv = np.empty((*magnitude.shape, 3), np.uint8)
    hsv[..., 0] = angle / 2
    hsv[..., 1] = 255
    hsv[..., 2] = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.asarray(cv2.resize(rgb, (28, 28), interpolation=cv2.INTER_AREA))


def strain_case(side: int) -> Case:
    """Compute the magnitude of the optical strain of a flow."""
    flow = smooth_flow(side)
    return Case(
        kernel="optical strain (against NumPy)",
        size=f"{side} x {side}",
        ours=lambda: optical_strain(flow),
        reference=lambda: numpy_strain(flow),
        difference=lambda a, b: float(np.abs(a - b).max()),
        unit="largest",
        tolerance=1e-5,
    )


def numpy_strain(flow: Flow) -> NDArray[np.float32]:
    """Return the Frobenius norm of the symmetric gradient, by central differences."""
    u_y, u_x = np.gradient(flow[..., 0])
    v_y, v_x = np.gradient(flow[..., 1])
    return np.asarray(np.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2))
