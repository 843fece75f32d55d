"""How well a face is aligned, and what that does to its flow, on known motion.

Five tables, on clips with faces of 250 to 300 px (noise of 2 gray levels, JPEG quality 90,
drifting brightness, an expression that deforms the face), each number the mean of at least 12
clips of 12 faces:

1. the error of the shift, and of the residual motion where the face is still, by alignment;
2. end-point error and false motion of the flow, by alignment and interpolation;
3. both of these by what else changes in the picture: light, noise, JPEG, blinks, action units out
   of step, and with no expression at all;
4. the error of the shift from onset to apex under large expressions, by how far a block may lie
   from the others, and by what is done about light before registration;
5. what a frame costs.

End-point errors are against the expression's own motion, as a camera fixed to the head would
see it, in pixels of the 224x224 crop. False motion is the median length of the flow where the
expression moves nothing.

    python benchmarks/alignment.py            # the tables of docs/alignment.md, ten minutes
    python benchmarks/alignment.py --large    # the first two on frames of 2040x1088
    python benchmarks/alignment.py --tiny     # seconds, for a look
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import kernels, synthetic
from apexflow.engine.clip import CPU
from apexflow.engine.clip.align import Aligner, Pose, crop_matrix
from apexflow.engine.clip.faces import Box, FaceDetector, FixedBox, MtcnnDetector, box_in_frame
from apexflow.engine.clip.flow import flow_between
from apexflow.engine.recipe import Crop, Recipe

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]

BASE = Recipe.load("default")
ALIGNMENTS = ("none", "mtcnn", "integer", "subpixel", "similarity")
INTERPOLATIONS = ("linear", "cubic", "lanczos4", "area")
FLOW = replace(BASE.flow, method="clg")


@dataclass(frozen=True, eq=False)
class Sample:
    """A clip: some of its frames, as a camera and a JPEG file give them, and its truth."""

    truth: synthetic.ClipTruth
    frames: dict[int, Image]
    template: int
    box: Box
    detector: FaceDetector
    boxes: dict[int, Box] = field(default_factory=dict)

    def found(self, frame: int) -> Box:
        """Return the box that the detector finds in a frame, looked for once."""
        if frame not in self.boxes:
            image = self.frames[frame]
            self.boxes[frame] = box_in_frame(self.detector.detect(image), image)
        return self.boxes[frame]

    @property
    def corner(self) -> NDArray[np.float64]:
        return np.array(self.box[:2], np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12, help="of each kind; 12")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--large", action="store_true", help="frames of 2040x1088")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--tiny", action="store_true", help="two small clips")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clips, frames = options.clips, options.frames
    size = (1088, 2040) if options.large else (560, 640)
    if options.tiny:
        clips, frames, size = 2, 9, (272, 510)
    print(f"{clips} clips a cell, each of another face")
    if "head" in options.tables:
        print_head_tables(clips, frames, size, detect=not options.tiny)
    if "changes" in options.tables:
        print_change_table(clips)
    if "reach" in options.tables:
        print_reach_table(clips)
    if "cost" in options.tables:
        samples = make_samples(
            clips=1, frames=9, size=size, rotation=0.0, scale=0.0, detect=not options.tiny
        )
        print_cost_table(next(samples))


TABLES = ("head", "changes", "reach", "cost")


def print_head_tables(clips: int, frames: int, size: tuple[int, int], *, detect: bool) -> None:
    """Print the errors of position and flow, without and with a head that turns."""
    for name, rotation, scale in (("shift", 0.0, 0.0), ("shift, ±1° and ±1%", 1.0, 0.01)):
        samples = list(
            make_samples(
                clips=clips,
                frames=frames,
                size=size,
                rotation=rotation,
                scale=scale,
                detect=detect,
            )
        )
        print(f"\n## Head motion: {name}\n")
        print_position_table(samples)
        print_flow_table(samples)


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What could pull a registration: heights of faces in px of the frame, and what changes."""

    face: tuple[int, int]
    amplitude: float = 1.0
    light: synthetic.Light = field(default_factory=synthetic.Light)
    noise: float = 2.0


PULLS = {
    "faces of 330 to 550 px": Pull(face=(330, 550)),
    "the same, expressions 2.5 times as large": Pull(face=(330, 550), amplitude=2.5),
    "faces of 140 to 220 px": Pull(face=(140, 220)),
    "the same, expressions 2.5 times as large ": Pull(face=(140, 220), amplitude=2.5),
    "faces of 330 to 550 px, light that drifts by 8%, noise of 4": Pull(
        face=(330, 550), light=synthetic.Light(drift=0.08), noise=4
    ),
    "the same, light from the side, 30%": Pull(face=(330, 550), light=synthetic.Light(side=0.3)),
}


def print_reach_table(clips: int) -> None:
    """Print the error of the shift from onset to apex, px of the frame: mean, worst clip."""
    print("## Shift from onset to apex: mean, worst, px of the frame\n")
    print("| clips | reach: median | falling | falling, light normalised |")
    print("|---|---|---|---|")
    for name, pull in PULLS.items():
        errors: dict[str, list[float]] = {"median": [], "falling": [], "normalised": []}
        for number in range(clips):
            truth, images, box = _pulled(pull, number)
            for reach in ("median", "falling"):
                errors[reach].append(_shift_error(truth, images, box, reach))
            even = {frame: _without_light(image) for frame, image in images.items()}
            errors["normalised"].append(_shift_error(truth, even, box, "falling"))
        cells = (f"{np.mean(found):.3f}, {np.max(found):.3f}" for found in errors.values())
        print(f"| {name.strip()} |", " | ".join(cells), "|", flush=True)
    print()


def _pulled(pull: Pull, number: int) -> tuple[synthetic.ClipTruth, dict[int, Image], Box]:
    """Return a clip's truth, its onset, template and apex frames, and the box of its face."""
    rng = np.random.default_rng([number, *pull.face])
    height = rng.uniform(*pull.face)
    rows = int(1.5 * height) + 100
    person = synthetic.Subject.random(
        int(rng.integers(2**31)), size=(rows, rows + 80), face=height / rows
    )
    wanted, seed = pull.amplitude * rng.uniform(0.8, 3.2) * height / 500 * 3, rng.integers(2**31)
    truth = None
    while truth is None:
        with suppress(ValueError):  # so large that skin would fold
            truth = synthetic.ClipTruth.random(
                person,
                sorted(synthetic.EXPRESSIONS)[number % len(synthetic.EXPRESSIONS)],
                seed=int(seed),
                frames=40,
                amplitude=wanted,
                shift=3.0,
                noise=pull.noise,
            )
        wanted *= 0.9
    truth = replace(truth, light=replace(pull.light, seed=number))
    face = synthetic.paint(person)
    images = {i: _through_jpeg(synthetic.take(truth, i, face)) for i in (0, TEMPLATE, truth.apex)}
    box = np.array(person.box) + np.tile(truth.motion.shift[TEMPLATE], 2)
    x0, y0, x1, y1 = (int(value) for value in box)
    return truth, images, (x0, y0, x1, y1)


TEMPLATE = 3  # a frame with little expression, so that the apex pulls


def _without_light(image: Image) -> Image:
    """Return gray levels again, as registration takes them; a face is larger than a crop's."""
    even = 128 + 1.6 * kernels.normalize_light(image, sigma=16)
    return np.clip(np.rint(even), 0, 255).astype(np.uint8)


def _shift_error(
    truth: synthetic.ClipTruth, images: dict[int, Image], box: Box, reach: str
) -> float:
    x0, y0, x1, y1 = box
    aligner = Aligner(images[TEMPLATE], box, replace(BASE.alignment, reach=reach))
    onset, apex = aligner.find(np.stack([images[0], images[truth.apex]]))
    true = truth.shifts(TEMPLATE, at=((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2))
    found = apex.dx - onset.dx, apex.dy - onset.dy
    return float(np.hypot(*(found - (true[truth.apex] - true[0]))))


def make_samples(
    *,
    clips: int,
    frames: int,
    size: tuple[int, int],
    rotation: float,
    scale: float,
    detect: bool,
    change: Change | None = None,
) -> Iterator[Sample]:
    """Render clips; their template frame is the middle one."""
    change = Change() if change is None else change
    for truth in synthetic.plan_samm(
        subjects=clips,
        clips=clips,
        frames=frames,
        size=size,
        rotation=rotation,
        scale=scale,
        noise=change.noise,
        amplitude=0.0 if change.still else 3.0,
        light=change.light,
        faulty=False,
    ):
        blinks = (min(truth.apex + 4, truth.offset),) if change.blink else ()
        truth = replace(truth, lag=change.lag, blinks=blinks)  # noqa: PLW2901
        template = len(truth) // 2
        chosen = {template, truth.onset, truth.apex, truth.offset, *range(0, len(truth), 3)}
        face = synthetic.paint(truth.subject)
        images = {
            i: _through_jpeg(synthetic.take(truth, i, face), change.quality) for i in sorted(chosen)
        }
        box = truth.subject.box + np.tile(truth.motion.shift[template], 2)
        known = FixedBox(tuple(int(value) for value in box))
        detector = MtcnnDetector(BASE.face.min_face_size, BASE.face.image_side)
        found: FaceDetector = detector if detect else known
        at = box_in_frame(found.detect(images[template]), images[template])
        yield Sample(truth, images, template, at, found)


def print_position_table(samples: list[Sample]) -> None:
    print("| alignment | shift, RMS px of the frame | residual where still, px of the crop |")
    print("|---|---|---|")
    for alignment in ALIGNMENTS[1:]:
        errors, residuals = _position_errors(samples, alignment)
        shift = float(np.sqrt(np.mean(np.sum(np.square(errors), axis=1))))
        print(
            f"| {alignment} | {shift:.3f} | mean {np.mean(residuals):.3f}, "
            f"worst frame {np.max(residuals):.3f} |"
        )
    print()


def _position_errors(
    samples: list[Sample], alignment: str
) -> tuple[list[NDArray[np.float64]], list[float]]:
    """Return each frame's error of the middle, px of the frame, and the residual, of the crop."""
    errors, residuals = [], []
    for sample in samples:
        still = _still_points(sample)
        for frame in sample.frames:
            if frame == sample.template:
                continue
            matrix = _matrix(sample, frame, alignment)
            ideal = _ideal(sample, frame)
            errors.append((matrix - ideal) @ np.array([111.5, 111.5, 1.0]))
            per_pixel = np.linalg.inv(ideal[:, :2])
            seen = still @ (per_pixel @ (matrix - ideal)).T
            residuals.append(float(np.hypot(*seen.T).mean()))
    return errors, residuals


def print_flow_table(samples: list[Sample]) -> None:
    print("| alignment |", " | ".join(f"{name}: EPE, false" for name in INTERPOLATIONS), "|")
    print("|---|" + "---|" * len(INTERPOLATIONS))
    for alignment in ALIGNMENTS:
        scores = [_flow_scores(samples, alignment, name) for name in INTERPOLATIONS]
        cells = (f"{epe:.3f}, {false:.3f}" for epe, false in scores)
        print(f"| {alignment} |", " | ".join(cells), "|", flush=True)
    print()


def _flow_scores(samples: list[Sample], alignment: str, interpolation: str) -> tuple[float, float]:
    epe, false = [], []
    for sample in samples:
        truth, size = sample.truth, (BASE.crop.height, BASE.crop.width)
        pair = truth.onset, truth.apex
        crops = np.stack([_crop(sample, i, alignment, interpolation) for i in pair])
        even = kernels.normalize_light(crops, **BASE.normalization.options)
        (found,) = flow_between(even, np.array([[0, 1]]), FLOW, CPU)
        flow = np.moveaxis(found, 0, -1)
        first, second = (_ideal(sample, i) for i in pair)
        known = truth.crop_flow(first, second, size)
        seen = np.isfinite(known).all(axis=-1)  # not under an eyelid
        epe.append(synthetic.endpoint_error(flow, known, seen))
        false.append(synthetic.false_motion(flow, truth.still(first, size)))
    return float(np.mean(epe)), float(np.mean(false))


@dataclass(frozen=True, kw_only=True)
class Change:
    """What else changes in the picture beside head and expression."""

    light: synthetic.Light = field(default_factory=synthetic.Light)
    noise: float = 2.0
    quality: int = 90
    blink: bool = False
    lag: float = 0.0
    still: bool = False


CHANGES = {
    "nothing": Change(),
    "light that drifts by 8%": Change(light=synthetic.Light(drift=0.08)),
    "flicker of 5%": Change(light=synthetic.Light(flicker=0.05)),
    "light from the side, 30%": Change(light=synthetic.Light(side=0.3)),
    "noise of 5": Change(noise=5.0),
    "JPEG 60": Change(quality=60),
    "a blink 4 frames after the apex": Change(blink=True),
    "action units out of step by 12 frames": Change(lag=12.0),
    "no expression": Change(still=True),
    "no expression, light that drifts by 8%": Change(still=True, light=synthetic.Light(drift=0.08)),
}


def print_change_table(clips: int) -> None:
    """Print residual and flow of three alignments under each change, faces of 250 to 300 px."""
    compared = ("integer", "subpixel", "similarity")
    print("## What else changes; a head that shifts and turns by up to .5°\n")
    print("| what changes |", " | ".join(f"{a}: residual, EPE, false" for a in compared), "|")
    print("|---|" + "---|" * len(compared))
    for name, change in CHANGES.items():
        samples = list(
            make_samples(
                clips=clips,
                frames=30,
                size=(560, 640),
                rotation=0.5,
                scale=0.005,
                detect=False,
                change=change,
            )
        )
        cells = []
        for alignment in compared:
            _, residuals = _position_errors(samples, alignment)
            epe, false = _flow_scores(samples, alignment, "area")
            cells.append(f"{np.mean(residuals):.3f}, {epe:.3f}, {false:.3f}")
        print(f"| {name} |", " | ".join(cells), "|", flush=True)
    print()


def _crop(sample: Sample, frame: int, alignment: str, interpolation: str) -> Image:
    crop = replace(BASE.crop, interpolation=interpolation)
    image = sample.frames[frame]
    if alignment == "mtcnn":
        box = sample.found(frame)
        none = replace(BASE.alignment, method="none")
        return _cut(Aligner(image, box, none), image, box, Pose(), crop)
    aligner = _aligner(sample, alignment)
    pose = Pose() if alignment == "none" else aligner.find(image[None])[0]
    return _cut(aligner, image, sample.box, pose, crop)


def _cut(aligner: Aligner, image: Image, box: Box, pose: Pose, crop: Crop) -> Image:
    return aligner.cut(image[None], [pose], [box], crop)[0, 0]


def _aligner(sample: Sample, alignment: str) -> Aligner:
    recipe = replace(BASE.alignment, method=alignment)
    return Aligner(sample.frames[sample.template], sample.box, recipe)


def _matrix(sample: Sample, frame: int, alignment: str) -> Matrix:
    """Return the map from crop to frame that an alignment chooses."""
    if alignment == "mtcnn":
        box = sample.found(frame)
        return synthetic.crop_matrix(box, (BASE.crop.height, BASE.crop.width))
    image, (x0, y0, x1, y1) = sample.frames[frame], sample.box
    middle = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
    (pose,) = _aligner(sample, alignment).find(image[None])
    return crop_matrix(sample.box, middle, pose, BASE.crop)


def _ideal(sample: Sample, frame: int) -> Matrix:
    """Return the map from crop to frame of a camera that is fixed to the head."""
    (turn, offset), (turn_0, offset_0) = (_head(sample.truth, i) for i in (frame, sample.template))
    crop = synthetic.crop_matrix(sample.box, (BASE.crop.height, BASE.crop.width))
    linear = turn @ np.linalg.inv(turn_0)
    return np.column_stack([linear @ crop[:, :2], linear @ (crop[:, 2] - offset_0) + offset])


def _head(truth: synthetic.ClipTruth, frame: int) -> tuple[Matrix, NDArray[np.float64]]:
    """Return rotation with scale, and offset, from the neutral head to a frame."""
    motion, centre = truth.motion, np.array(truth.subject.centre)
    angle = np.deg2rad(motion.rotation[frame])
    c, s = motion.scale[frame] * np.cos(angle), motion.scale[frame] * np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    return turn, centre + motion.shift[frame] - turn @ centre


def _still_points(sample: Sample) -> NDArray[np.float64]:
    """Return points (n, 3) of the crop, homogeneous, that the expression does not move."""
    size = BASE.crop.height, BASE.crop.width
    y, x = np.nonzero(sample.truth.still(_ideal(sample, sample.truth.onset), size))
    return np.stack([x, y, np.ones_like(x)], axis=1)[::7].astype(np.float64)


def print_cost_table(sample: Sample) -> None:
    image = sample.frames[sample.truth.apex]
    x0, y0, x1, y1 = sample.box
    print(f"## Cost of a frame, box {x1 - x0}x{y1 - y0}, one thread, ms\n")
    print("| alignment | find | cut |")
    print("|---|---|---|")
    for alignment in ("integer", "subpixel", "similarity"):
        interpolation = "linear" if alignment == "integer" else "area"
        crop = replace(BASE.crop, interpolation=interpolation)
        aligner = _aligner(sample, alignment)
        (pose,) = aligner.find(image[None])
        find = _milliseconds(lambda aligner=aligner: aligner.find(image[None]))
        cut = _milliseconds(
            lambda aligner=aligner, pose=pose, crop=crop: _cut(
                aligner, image, sample.box, pose, crop
            )
        )
        print(f"| {alignment} | {find:.2f} | {cut:.2f} |")


def _milliseconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def _through_jpeg(image: Image, quality: int = 90) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


if __name__ == "__main__":
    main()
