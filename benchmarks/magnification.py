"""Motion magnification against known motion: ``python benchmarks/magnification.py``.

Clips of faces with an expression of known size, as crops of 224x224 without head motion, are
magnified. The motion from onset to apex is then measured, and set against 1 + alpha times the true
one; beside it the same measurement in the same clip rendered with an expression 1 + alpha times as
large: what a perfect magnification would give. The table is that of docs/magnification.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels, synthetic
from apexflow.kernels.crop import warp_crops

SIDE = 224
RATE = 200.0
FRAMES = 40
FACES = (480, 420)  # frames, height and width
EXPRESSIONS = ("surprise", "happiness", "disgust", "sadness")

Frames = NDArray[np.uint8]
Flow = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """How a measured motion compares with the true one.

    Attributes
    ----------
    ratio : float
        Length along the true motion, in parts of it, where that is over half its largest.
    error : float
        Mean end-point error in px.
    false : float
        Median length in px where nothing moves.
    """

    ratio: float
    error: float
    false: float


def measure(frames: Frames, apex: int, truth: Flow) -> Measured:
    onset, end = (kernels.normalize_light(frames[n]) for n in (0, apex))
    flow = kernels.clg(onset, end)
    length = np.hypot(*np.moveaxis(truth, -1, 0))
    moves, rests = length > 0.5 * length.max(), length < 0.01 * length.max()
    along = (flow * truth).sum(axis=-1)[moves].sum() / (truth[moves] ** 2).sum()
    false = np.median(np.hypot(*np.moveaxis(flow[rests], -1, 0)))
    return Measured(float(along), synthetic.endpoint_error(flow, truth), float(false))


def crops(truth: synthetic.ClipTruth, frames: Frames) -> Frames:
    matrix = synthetic.crop_matrix(truth.box, (SIDE, SIDE))
    matrices = np.repeat(matrix[None], len(frames), axis=0)
    cut = warp_crops(frames, np.arange(len(frames)), matrices, (SIDE, SIDE), "area")
    return np.asarray(cut, np.uint8)


def crop_flow(truth: synthetic.ClipTruth) -> Flow:
    matrix = synthetic.crop_matrix(truth.box, (SIDE, SIDE))
    return truth.crop_flow(matrix, matrix, (SIDE, SIDE))


def clip(seed: int, amplitude: float, noise: float, frames: int) -> synthetic.ClipTruth:
    """Return a clip whose expression reaches ``amplitude`` px of the crop."""
    person = synthetic.Subject.random(seed, size=FACES)
    truth = synthetic.ClipTruth.random(
        person,
        EXPRESSIONS[seed % len(EXPRESSIONS)],
        seed=seed,
        frames=frames,
        shift=0.0,
        noise=noise,
        amplitude=1.0,
    )
    reached = np.hypot(*np.moveaxis(crop_flow(truth), -1, 0)).max()
    return replace(truth, amplitude=float(amplitude / reached))


Result = kernels.EulerianMagnified | kernels.FlowMagnified
METHODS: dict[str, Callable[[Frames, float], Result]] = {
    "Eulerian": lambda frames, alpha: kernels.magnify_eulerian(frames, alpha, rate=RATE),
    "flow": kernels.magnify_flow,
    "flow, in the band": lambda frames, alpha: kernels.magnify_flow(frames, alpha, rate=RATE),
}


def rows(
    amplitudes: list[float], alphas: list[float], clips: int, noise: float, frames: int
) -> Iterator[str]:
    for amplitude in amplitudes:
        truths = [clip(seed, amplitude, noise, frames) for seed in range(clips)]
        shown = [crops(truth, synthetic.render(truth)) for truth in truths]
        for alpha in alphas:
            wanted = [(1 + alpha) * crop_flow(truth) for truth in truths]
            yield row(amplitude, alpha, "rendered", [rendered(t, alpha) for t in truths])
            for name, magnify in METHODS.items():
                results = [magnify(frames, alpha) for frames in shown]
                found = [
                    measure(result.frames, truth.apex, flow)
                    for result, truth, flow in zip(results, truths, wanted, strict=True)
                ]
                yield row(amplitude, alpha, name, found, said(results))


def rendered(truth: synthetic.ClipTruth, alpha: float) -> Measured | None:
    """Measure the clip whose expression is 1 + alpha times as large; None where that folds."""
    try:
        larger = replace(truth, amplitude=(1 + alpha) * truth.amplitude)
    except ValueError:
        return None
    key_frames = synthetic.render(larger, frames=[0, larger.apex])
    return measure(crops(larger, key_frames), 1, crop_flow(larger))


def said(results: Sequence[Result]) -> str:
    """Return what the results say of themselves, over clips."""
    motion = np.mean([result.motion for result in results])
    levels = [r.levels for r in results if isinstance(r, kernels.EulerianMagnified)]
    folded = [r.folded for r in results if isinstance(r, kernels.FlowMagnified)]
    if folded:
        return f"{motion:.2f} px; folded {max(folded):.1%}"
    alphas = np.mean([[level.alpha for level in of_clip] for of_clip in levels], axis=0)
    return f"{motion:.2f} px; alpha by level {' '.join(f'{a:.1f}' for a in alphas)}"


def row(
    amplitude: float, alpha: float, name: str, found: Sequence[Measured | None], says: str = ""
) -> str:
    there = [one for one in found if one is not None]
    if not there:
        return f"| {amplitude:g} | {alpha:g} | {name} | folds | | | |"
    ratio, spread = (f([one.ratio for one in there]) for f in (np.mean, np.std))
    error, false = (np.mean([getattr(o, n) for o in there]) for n in ("error", "false"))
    return (
        f"| {amplitude:g} | {alpha:g} | {name} | {ratio:.2f} ± {spread:.2f} | {error:.2f} "
        f"| {false:.2f} | {says} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amplitudes", type=float, nargs="+", default=[0.05, 0.1, 0.3, 1.0])
    parser.add_argument("--alphas", type=float, nargs="+", default=[4, 10])
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--noise", type=float, default=2.0, help="gray levels of the frame")
    parser.add_argument("--frames", type=int, default=FRAMES)
    options = parser.parse_args()
    print("| px | alpha | method | motion found | EPE, px | false, px | the result says |")
    print("|---|---|---|---|---|---|---|")
    for line in rows(
        options.amplitudes, options.alphas, options.clips, options.noise, options.frames
    ):
        print(line, flush=True)


if __name__ == "__main__":
    main()
