"""Flow against the truth: faces whose motion is known, and Middlebury's image pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.bench.cases import FARNEBACK, Flow, Image, opencv_farneback, opencv_tvl1
from apexflow.errors import ApexflowError
from apexflow.kernels import farneback, tvl1

AMPLITUDES = (0.2, 0.5, 1.0, 2.0, 3.0)
"""Of micro-expressions in px of the crop."""

METHODS: dict[str, tuple[Callable[..., Flow], Callable[..., Flow]]] = {
    "Farnebäck": (lambda a, b: farneback(a, b, **FARNEBACK), opencv_farneback),
    "TV-L1": (tvl1, opencv_tvl1),
}


def synthetic_errors(*, side: int = 224, faces: int = 3) -> Iterator[dict[str, Any]]:
    """Yield the mean end-point errors over some faces, for each amplitude and method.

    Where the face moves, that is by at least a tenth of the amplitude: an expression leaves most
    of it still.
    """
    for amplitude in AMPLITUDES:
        pairs = [face_pair(seed, amplitude, side) for seed in range(faces)]
        moving = [np.hypot(*np.moveaxis(true, -1, 0)) > amplitude / 10 for _, _, true in pairs]

        def mean_error(
            method: Callable[..., Flow], pairs: Any = pairs, moving: Any = moving
        ) -> float:
            each = zip(pairs, moving, strict=True)
            return float(np.mean([error(method(a, b), true, mask) for (a, b, true), mask in each]))

        for method, (ours, opencv) in METHODS.items():
            yield {
                "images": f"faces, {amplitude:g} px",
                "method": method,
                "ours_px": mean_error(ours),
                "opencv_px": mean_error(opencv),
                "still_px": mean_error(_no_flow),
            }


def middlebury_errors(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the mean end-point errors on one image pair of Middlebury's.

    The folder holds frame10.png, frame11.png and flow10.flo.
    """
    folder = Path(folder)
    first, second = (_read_gray(folder / f"frame{number}.png") for number in (10, 11))
    truth = read_flo(folder / "flow10.flo")
    for method, (ours, opencv) in METHODS.items():
        yield {
            "images": folder.name,
            "method": method,
            "ours_px": error(ours(first, second), truth),
            "opencv_px": error(opencv(first, second), truth),
            "still_px": error(_no_flow(first, second), truth),
        }


def face_pair(seed: int, amplitude: float, side: int) -> tuple[Image, Image, Flow]:
    """Return the onset and apex crops of an expression, and the true flow between them."""
    from apexflow import synthetic

    expressions = sorted(synthetic.EXPRESSIONS)
    person = synthetic.Subject.random(seed, size=(2 * side, 2 * side))
    truth = synthetic.ClipTruth.random(
        person, expressions[seed % len(expressions)], seed=seed, frames=9, amplitude=1.0, shift=0.0
    )
    x0, y0, x1, y1 = truth.box
    zoom = (x1 - x0) / side  # the amplitude counts in px of the crop
    truth = synthetic.ClipTruth.random(
        person,
        expressions[seed % len(expressions)],
        seed=seed,
        frames=9,
        amplitude=amplitude * zoom,
        shift=0.0,
    )
    matrix = synthetic.crop_matrix((x0, y0, x1, y1), (side, side))
    frames = synthetic.render(truth, (truth.onset, truth.apex))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    first, second = (
        np.asarray(cv2.warpAffine(frame, matrix, (side, side), flags=flags)) for frame in frames
    )
    return first, second, truth.crop_flow(matrix, matrix, (side, side))


def _no_flow(first: Image, _: Image) -> Flow:
    return np.zeros((*first.shape, 2), np.float32)


def error(flow: Flow, truth: Flow, mask: NDArray[np.bool_] | None = None) -> float:
    """Return the mean end-point error in px where the truth is known, and the mask is set."""
    known = (np.abs(truth) < 1e9).all(-1)  # Middlebury's mark for unknown
    known = known if mask is None else known & mask
    return float(np.hypot(*np.moveaxis(flow[known] - truth[known], -1, 0)).mean())


def read_flo(path: Path) -> Flow:
    """Read a flow file of Middlebury's: tag, width, height, then (x, y) pairs."""
    data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(202021.25):
        raise ApexflowError(f"{path}: no Middlebury flow file (its first bytes are not 'PIEH')")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, offset=4))
    flow: NDArray[np.float32] = np.frombuffer(data, "<f4", offset=12).astype(np.float32)
    if flow.size != height * width * 2:
        raise ApexflowError(f"{path}: {height} x {width} vectors announced, {flow.size // 2} found")
    return flow.reshape(height, width, 2)


def _read_gray(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ApexflowError(f"{path}: no image that can be read")
    return np.asarray(image)
