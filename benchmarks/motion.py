"""How true flow is, by method and by what else changes in the picture, on known motion.

Clips like SAMM's are rendered (faces of 330 to 550 px, an expression that moves skin by 1.5 to
10 px of the frame, a head that drifts by up to 3 px), written as JPEG files and taken the whole
way of a recipe: similarity alignment, crops of 224x224, flow from onset to apex. The truth is
the expression's own motion, as a camera fixed to the head would see it, in pixels of the crop.

epe      mean end-point error
false    mean length of the flow where nothing moves
moves    mean end-point error where the truth exceeds .15 px
peak     length of the flow over that of the truth, where the truth is largest
strain   correlation of the 28x28 map of optical strain with that of the true flow
hsv      the same of the HSV map

    python benchmarks/motion.py                     # the tables of docs/motion.md
    python benchmarks/motion.py --sets even drift   # some of them
    python benchmarks/motion.py --seed 70000        # on faces and motion of your own choice
    python benchmarks/motion.py --confidence        # whether the confidence tells the error
    python benchmarks/motion.py --tiny              # seconds, for a look
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import synthetic
from apexflow.catalog import Clip
from apexflow.engine.clip import CPU
from apexflow.engine.clip.align import align_frames
from apexflow.engine.clip.clock import Clock
from apexflow.engine.clip.faces import FixedBox, locate_face
from apexflow.engine.clip.flow import FaceFlow, flow_of_windows
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.light import normalize_frames
from apexflow.engine.clip.plan import plan_clip
from apexflow.engine.clip.result import Aligned
from apexflow.engine.recipe import Recipe
from apexflow.kernels import encode_hsv, expected_error, make_maps, optical_strain
from apexflow.synthetic import Light

Flow = NDArray[np.float32]
Matrix = NDArray[np.float64]

SIZE = (640, 720)
MARGIN = 44  # px of the frame around the box: what the search needs
EXPRESSIONS = ("happiness", "surprise", "anger", "disgust", "contempt")
MEASURES = ("epe", "false", "moves", "peak", "strain", "hsv")


@dataclass(frozen=True, kw_only=True)
class Set:
    """Clips of one kind. Even light is a gain of ±1% and a drift of ±3 gray levels."""

    what: str
    seed: int
    clips: int = 12
    fps: int = 200
    light: Light = field(default_factory=Light)
    amplitude: tuple[float, float] = (0.8, 3.2)
    noise: float = 2.0
    quality: int = 92
    blink: int | None = None
    shutter: float = 0.0
    lag: float = 0.0


DRIFT, HARD = Light(drift=0.04), Light(drift=0.08)
SMALL = (0.1, 0.5)
SETS: Mapping[str, Set] = {
    "even": Set(what="even light", seed=100, clips=20),
    "drift": Set(what="light that drifts over the face, ±4%", seed=200, light=DRIFT),
    "faces": Set(what="drifting light, other faces", seed=9300, light=DRIFT),
    "faces-even": Set(what="even light, other faces", seed=9400),
    "small": Set(what="small motions", seed=300, amplitude=SMALL),
    "hard": Set(what="noise of 4, JPEG 80, light ±8%", seed=400, noise=4, quality=80, light=HARD),
    "blink": Set(
        what="drifting light, eyes that begin to close at the apex", seed=500, light=DRIFT, blink=8
    ),
    "blink-half": Set(
        what="drifting light, eyes half closed at the apex", seed=550, light=DRIFT, blink=4
    ),
    "blur": Set(what="drifting light, open shutter", seed=600, light=DRIFT, shutter=1.0),
    "steps": Set(
        what="drifting light, action units out of step by 12 frames",
        seed=650,
        light=DRIFT,
        lag=12.0,
    ),
    "30": Set(what="drifting light, 30 frames/s", seed=700, light=DRIFT, fps=30),
    "60": Set(what="drifting light, 60 frames/s", seed=800, light=DRIFT, fps=60),
    "100": Set(what="drifting light, 100 frames/s", seed=900, light=DRIFT, fps=100),
    "500": Set(what="drifting light, 500 frames/s", seed=1000, light=DRIFT, fps=500),
}
STILL = (0.0, 0.0)
STILL_SETS: Mapping[str, Set] = {
    "noise": Set(what="noise of 2", seed=2000, amplitude=STILL),
    "noise-5": Set(what="noise of 5", seed=2100, amplitude=STILL, noise=5),
    "flicker": Set(what="flicker of 5%", seed=2200, amplitude=STILL, light=Light(flicker=0.05)),
    "side": Set(what="light from the side, 10%", seed=2300, amplitude=STILL, light=Light(side=0.1)),
    "blink-still": Set(
        what="eyes that begin to close at the apex",
        seed=2500,
        amplitude=STILL,
        blink=8,
    ),
    "gamma": Set(what="gamma 1.15", seed=2400, amplitude=STILL, light=Light(gamma=1.15)),
}

NO_LIGHT = {"normalization": {"method": "local"}}
METHODS: Mapping[str, dict[str, Any]] = {
    "Farnebäck 19": {"flow": {"method": "farneback"}},
    "Farnebäck 19, normalised": {"flow": {"method": "farneback"}, **NO_LIGHT},
    "TV-L1": {"flow": {"method": "tvl1"}},
    "TV-L1 lambda .3, cubic -.5, normalised": {
        "flow": {"method": "tvl1", "tvl1": {"lambda_": 0.3, "cubic": -0.5}},
        **NO_LIGHT,
    },
    "CLG": {"flow": {"method": "clg"}},
    "CLG, normalised": {"flow": {"method": "clg"}, **NO_LIGHT},
    "CLG, normalised, mean": {
        "flow": {"method": "clg"},
        "temporal": {"method": "mean"},
        **NO_LIGHT,
    },
    "CLG, normalised, sequence of 5 (ststnet)": {
        "flow": {"method": "clg"},
        "temporal": {"method": "sequence", "frames": 5},
        **NO_LIGHT,
    },
    "CLG, normalised, sequence (default)": {
        "flow": {"method": "clg"},
        "temporal": {"method": "sequence"},
        **NO_LIGHT,
    },
}
# The crops and poses of all methods, with the neutral treatment of frames.
BASE: Mapping[str, Any] = {"normalization": {}, "temporal": {}, "maps": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*SETS, *STILL_SETS]
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--reach", choices=("median", "falling"), default="falling")
    parser.add_argument("--seed", type=int, default=0, help="of other faces and other motion")
    parser.add_argument("--tiny", action="store_true", help="one clip a set")
    parser.add_argument(
        "--confidence", action="store_true", help="how well the confidence tells the error"
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    chosen = [
        replace(made, clips=1 if options.tiny else made.clips, seed=made.seed + options.seed)
        for made in ((SETS | STILL_SETS)[name] for name in options.sets)
    ]
    if options.confidence:
        print_confidence_tables(chosen)
        return
    means = {
        f"{made.what} ({made.clips})": print_table(made, options.methods, options.reach)
        for made in chosen
    }
    print_summary(means)


def recipe_of(method: str, reach: str = "falling") -> Recipe:
    """Return the default recipe with another way from crops to flow."""
    values = Recipe.load("default").to_dict() | BASE
    values["alignment"]["reach"] = reach
    for table, change in METHODS[method].items():
        values[table] = _merged(values[table], change)
    return Recipe.from_dict(values)


def _merged(table: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in change.items():
        merged[key] = table[key] | value if isinstance(value, dict) else value
    return merged


def print_summary(means: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Print error and false motion of all sets in one table, a column a method."""
    methods = list(next(iter(means.values())))
    print("\n## epe / false\n")
    print("| clips |", " | ".join(methods), "|")
    print("|---|" + "---|" * len(methods))
    for what, found in means.items():
        cells = (f"{found[method][0]:.3f} / {found[method][1]:.3f}" for method in methods)
        print(f"| {what} |", " | ".join(cells), "|")


def print_table(chosen: Set, methods: list[str], reach: str) -> dict[str, list[float]]:
    """Print what each method makes of a set of clips, and return its means over the clips."""
    results: dict[str, list[list[float]]] = {method: [] for method in ("no flow", *methods)}
    seconds = dict.fromkeys(methods, 0.0)
    for sample in make_samples(chosen):
        truth = sample.truth_flow()
        sample.align(recipe_of(methods[0], reach))
        results["no flow"].append(measures(np.zeros_like(truth), truth))
        for method in methods:
            start = time.process_time()
            flow = sample.flow(recipe_of(method, reach))
            seconds[method] += time.process_time() - start
            results[method].append(measures(flow, truth))
    print(f"\n## {chosen.what}, {chosen.clips} clips\n")
    print("| method |", " | ".join(MEASURES), "| CPU ms a clip |")
    print("|---|" + "---|" * (len(MEASURES) + 1))
    means = {}
    for method, rows in results.items():
        columns = [column[np.isfinite(column)] for column in np.array(rows).T]
        means[method] = [float(column.mean()) if column.size else np.nan for column in columns]
        cells = [f"{mean:.3f}" if np.isfinite(mean) else "" for mean in means[method]]
        cost = "" if method == "no flow" else f"{1e3 * seconds[method] / len(rows):.0f}"
        print(f"| {method} |", " | ".join(cells), f"| {cost} |", flush=True)
    return means


def measures(flow: Flow, truth: Flow) -> list[float]:
    """Return `MEASURES` of one flow (H, W, 2), without what an eyelid hides."""
    hidden = np.isnan(truth).any(axis=-1)
    flow, truth = (np.where(hidden[..., None], np.float32(0), of) for of in (flow, truth))
    error = np.linalg.norm(flow - truth, axis=-1)
    true, found = np.linalg.norm(truth, axis=-1), np.linalg.norm(flow, axis=-1)
    still, moves, top = true < 0.02, true > 0.15, true.argmax()
    moving = bool(moves.any())
    if true.max() < 0.05:
        return [float(error.mean()), float(found[still].mean()), *[np.nan] * 4]
    maps = [(encode_hsv(of).astype(np.float64), _strain(of)) for of in (flow, truth)]
    hsv, strain = (_correlation(*pair) for pair in zip(*maps, strict=True))
    return [
        float(error.mean()),
        float(found[still].mean()) if still.any() else np.nan,
        float(error[moves].mean()) if moving else np.nan,
        float(found.flat[top] / true.flat[top]),
        strain,
        hsv,
    ]


def print_confidence_tables(sets: Sequence[Set]) -> None:
    """Print how the confidence of `default` ranks true errors, and what maps made by it are."""
    values = Recipe.load("default").to_dict() | {"maps": {}}
    values["flow"]["keep_confidence"] = True
    recipe, tables = Recipe.from_dict(values), (_ErrorTable(), _MapTable())
    for chosen in sets:
        for sample in make_samples(chosen):
            truth = sample.truth_flow()
            sample.align(recipe)
            vectors, confidence = (of[recipe.windows[0]] for of in sample.face_flow(recipe))
            for table in tables:
                table.add(vectors, confidence, truth)
        for table in tables:
            table.end_row(f"{chosen.what} ({chosen.clips})")
    for table in tables:
        print("\n".join(("", *table.lines)), flush=True)


class _ErrorTable:
    """Rank correlation of confidence and error, and the error of each tenth of the pixels."""

    def __init__(self) -> None:
        self.lines = [
            "Rank correlation of expected and true error, of all pixels and where truth exceeds "
            ".15 px; RMS error of each tenth of the pixels, from the surest on: true (expected), "
            "hundredths of a px",
            "",
            "| clips | all | moves |" + "".join(f" {n} |" for n in range(1, 11)),
            "|---" * 13 + "|",
        ]
        self._clips: list[tuple[float, float, NDArray[np.float64]]] = []

    def add(self, vectors: Flow, confidence: Flow, truth: Flow) -> None:
        error = np.linalg.norm(np.moveaxis(vectors, 0, -1) - truth, axis=-1)
        seen = np.isfinite(error)
        told = expected_error(confidence)[seen]
        moves = np.linalg.norm(truth, axis=-1)[seen] > 0.15
        error = error[seen]
        tenth = _ranks(told) * 10 // len(told)
        parts = [[np.mean(of[tenth == n] ** 2) for of in (error, told)] for n in range(10)]
        self._clips.append(
            (
                _correlation(_ranks(told), _ranks(error)),
                _correlation(_ranks(told[moves]), _ranks(error[moves]))
                if moves.sum() > 100
                else np.nan,
                np.array(parts),
            )
        )

    def end_row(self, what: str) -> None:
        everywhere, moves, parts = zip(*self._clips, strict=True)
        self._clips.clear()
        squares = np.minimum(np.mean(parts, axis=0), 1.0)
        cells = (f"{100 * e:.1f} ({100 * t:.1f})" for e, t in np.sqrt(squares))
        moving = np.array(moves)[np.isfinite(moves)]
        said = f"{moving.mean():.2f}" if moving.size else ""
        self.lines.append(f"| {what} | {np.mean(everywhere):.2f} | {said} | {' | '.join(cells)} |")


class _MapTable:
    """What 28x28 maps are by what is taken off the flow."""

    def __init__(self) -> None:
        self.lines = [
            "HSV and strain maps: correlation with those of the true flow; without motion standard "
            "deviation and highest byte of the HSV map",
            "",
            "| clips | " + " | ".join(f"noise = {noise!r}" for noise in _NOISES) + " |",
            "|---" * (1 + len(_NOISES)) + "|",
        ]
        self._clips: list[list[tuple[float, float]]] = []

    def add(self, vectors: Flow, confidence: Flow, truth: Flow) -> None:
        hidden = np.isnan(truth).any(axis=-1)
        flow, true = (
            np.where(hidden, np.float32(0), of) for of in (vectors, np.moveaxis(truth, -1, 0))
        )
        moves = np.hypot(*true).max() > 0.05
        found = []
        for noise in _NOISES:
            options = {"noise": noise, "confidence": confidence}
            hsv = make_maps(flow, "hsv", **options).astype(np.float64)
            strain = make_maps(flow, "uv-strain", **options)[..., 2].astype(np.float64)
            if moves:
                true_hsv = make_maps(true, "hsv").astype(np.float64)
                true_strain = make_maps(true, "uv-strain")[..., 2].astype(np.float64)
                found.append((_correlation(hsv, true_hsv), _correlation(strain, true_strain)))
            else:
                found.append((float(hsv.std()), float(hsv.max())))
        self._clips.append(found)

    def end_row(self, what: str) -> None:
        means = np.nanmean(self._clips, axis=0)
        self._clips.clear()
        cells = (
            f"{a:.3f}, {b:.3f}" if a <= 1 and b <= 1 else f"{a:.0f}, {b:.0f}" for a, b in means
        )
        self.lines.append(f"| {what} | {' | '.join(cells)} |")


_NOISES: tuple[Any, ...] = (0.0, "measured", "confidence")


def _ranks(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.argsort(np.argsort(values))


def _strain(flow: Flow) -> NDArray[np.float64]:
    small = cv2.resize(optical_strain(flow), (28, 28), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float64)


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if first.std() == 0 or second.std() < 1e-9:
        return np.nan
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@dataclass(frozen=True, eq=False)
class Sample:
    """A clip on disk, its truth, and its aligned crops by the alignment that made them."""

    truth: synthetic.ClipTruth
    clip: Clip
    box: tuple[int, int, int, int]
    aligned: dict[str, Aligned] = field(default_factory=dict)

    def align(self, recipe: Recipe) -> Aligned:
        """Return the crops by a recipe's alignment, made once."""
        reach = recipe.alignment.reach
        if reach not in self.aligned:
            source, plan = plan_clip(self.clip, recipe)
            frames = ClipFrames(source, plan, Clock(), color=False)
            located = locate_face(frames.template, self.clip, recipe, FixedBox(self.box))
            self.aligned[reach] = align_frames(frames, located, recipe, CPU)
        return self.aligned[reach]

    def flow(self, recipe: Recipe) -> Flow:
        """Return the flow (H, W, 2) from onset to apex that a recipe makes of the clip."""
        (window,) = recipe.windows
        return np.moveaxis(self.face_flow(recipe).vectors[window], 0, -1)

    def face_flow(self, recipe: Recipe) -> FaceFlow:
        """Return the flow, and the confidence in it where the recipe keeps it."""
        _, plan = plan_clip(self.clip, recipe)
        images = normalize_frames(plan, self.align(recipe), recipe, CPU)
        return flow_of_windows(plan, images, recipe, CPU)

    def truth_flow(self) -> Flow:
        """Return the true flow between crops of a camera that is fixed to the head."""
        onset, apex = (self._crop_of(frame) for frame in (self.truth.onset, self.truth.apex))
        return self.truth.crop_flow(onset, apex, (224, 224))

    def _crop_of(self, frame: int) -> Matrix:
        """Return the map from such a camera's crop to a frame; the template is the middle one."""
        crop = synthetic.crop_matrix(self.box, (224, 224))
        head = self.truth.head_matrix(frame, len(self.truth) // 2)
        return np.column_stack([head[:, :2] @ crop[:, :2], head[:, :2] @ crop[:, 2] + head[:, 2]])


def make_samples(chosen: Set) -> Iterator[Sample]:
    """Write the clips of a set, one at a time."""
    for i in range(chosen.clips):
        with tempfile.TemporaryDirectory() as folder:
            truth = make_truth(chosen, i)
            synthetic.write_frames(folder, truth, quality=chosen.quality, workers=1)
            first = truth.first_number
            clip = Clip(
                dataset="synthetic",
                subject="001",
                name=f"clip-{i}",
                root=Path(folder),
                source=".",
                onset=first,
                apex=first + truth.apex,
                offset=first + truth.offset,
                extra=(("fps", str(chosen.fps)),),
            )
            box = np.array(truth.subject.box) + np.tile(truth.motion.shift[len(truth) // 2], 2)
            edge = SIZE[1] - MARGIN, SIZE[0] - MARGIN
            x0, y0, x1, y1 = np.clip(box, MARGIN, [*edge, *edge]).astype(int).tolist()
            yield Sample(truth, clip, (x0, y0, x1, y1))


def make_truth(chosen: Set, number: int) -> synthetic.ClipTruth:
    """Draw a clip of .18 to .3 seconds, but of 6 frames at least."""
    rng = np.random.default_rng([chosen.seed, number])
    face = rng.uniform(330, 550)
    person = synthetic.Subject.random(int(rng.integers(2**31)), size=SIZE, face=face / SIZE[0])
    frames = max(6, round(rng.uniform(0.18, 0.30) * chosen.fps))
    truth = synthetic.ClipTruth.random(
        person,
        EXPRESSIONS[number % len(EXPRESSIONS)],
        seed=int(rng.integers(2**31)),
        frames=frames,
        amplitude=rng.uniform(*chosen.amplitude) * face / 500 * 3,
        shift=3.0,
        noise=chosen.noise,
    )
    blinks = () if chosen.blink is None else (min(truth.apex + chosen.blink, truth.offset),)
    light = replace(chosen.light, seed=int(rng.integers(2**31)))
    return replace(truth, light=light, shutter=chosen.shutter, blinks=blinks, lag=chosen.lag)


if __name__ == "__main__":
    main()
