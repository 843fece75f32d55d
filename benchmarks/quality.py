"""What quality flags find: sound clips that are flagged, and planted faults that are not.

    python benchmarks/quality.py [--clips 200] [--faults 50] [--kinds NAME…] [--seed 0]
                                 [--portraits PICTURE…] [-o figures.json]

Sound clips vary in subject, frame rate (30 to 200 frames/s), amplitude, light, noise, JPEG
quality and head motion. Each fault is planted into a clip that would be sound. Subjects are drawn
from the portrait that is shipped, and in turn from pictures of your own. Prints the rates, and
names the clips that are not as they should be; writes all figures to a JSON file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import synthetic
from apexflow.catalog import Clip
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.faces import Face, MtcnnDetector
from apexflow.engine.recipe import Recipe
from apexflow.errors import ClipError
from apexflow.quality import format_flags

Frames = NDArray[np.uint8]
SIZES = ((240, 320), (360, 480), (480, 640))
RATES = (30, 60, 100, 200)


@dataclass(frozen=True)
class Made:
    """A clip as drawn: its frames, and what planting a fault needs to know of it."""

    frames: Frames
    truth: synthetic.ClipTruth
    quality: int
    rng: np.random.Generator


def draw(seed: int, portrait: synthetic.Portrait) -> Made:
    """Draw a sound clip."""
    rng = np.random.default_rng([seed, 77])
    size = SIZES[rng.integers(len(SIZES))]
    rate = RATES[rng.integers(len(RATES))]
    count = int(np.clip(rate * rng.uniform(0.25, 0.5), 9, 60))
    subject = synthetic.Subject.random(
        seed, size=size, face=float(rng.uniform(0.4, 0.6)), portrait=portrait
    )
    expression = str(rng.choice(sorted(synthetic.EXPRESSIONS)))
    truth = synthetic.ClipTruth.random(
        subject,
        expression,
        seed=seed,
        frames=count,
        amplitude=float(rng.uniform(0.5, 3.0)) * size[0] / 480,
        shift=float(rng.uniform(0, 8)),
        rotation=float(rng.uniform(0, 2)),
        scale=float(rng.uniform(0, 0.015)),
        noise=float(rng.uniform(0.5, 4.0)),
    )
    light = synthetic.Light(
        drift=float(rng.uniform(0, 0.05)),
        flicker=float(rng.uniform(0, 0.04)),
        side=float(rng.uniform(0, 0.1)),
        gamma=float(rng.uniform(0.9, 1.1)),
        seed=seed,
    )
    truth = replace(truth, light=light, shutter=float(rng.uniform(0, 0.8)))
    return Made(synthetic.render(truth), truth, int(rng.integers(75, 98)), rng)


def _part(made: Made, least: float = 0.15, most: float = 0.4) -> slice:
    """Draw a run of frames that a fault lies in."""
    count = len(made.frames)
    length = max(2, round(count * made.rng.uniform(least, most)))
    start = int(made.rng.integers(0, count - length + 1))
    return slice(start, start + length)


def _face(made: Made) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(v) for v in made.truth.box)
    return x0, y0, x1, y1


def occlusion(made: Made) -> None:
    """A hand of one skin tone, or of a texture, lies over a third of the face or more."""
    x0, y0, x1, y1 = _face(made)
    part, rng = _part(made), made.rng
    height, width = y1 - y0, x1 - x0
    h, w = round(height * rng.uniform(0.45, 0.7)), round(width * rng.uniform(0.7, 1.0))
    y, x = y0 + int(rng.integers(height - h + 1)), x0 + int(rng.integers(width - w + 1))
    hand = rng.normal(rng.uniform(90, 190), rng.uniform(3, 25), (h, w))
    hand = np.clip(cv2.GaussianBlur(hand, (0, 0), 1.5), 0, 255).astype(np.uint8)
    mask = np.zeros((h, w), np.uint8)
    cv2.ellipse(mask, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
    for frame in made.frames[part]:
        view = frame[y : y + h, x : x + w]
        view[mask > 0] = hand[mask > 0]


def leaving(made: Made) -> None:
    """The face leaves the picture sideways: what is behind it stays."""
    count = len(made.frames)
    start = round(count * made.rng.uniform(0.3, 0.6))
    width = made.frames.shape[2]
    for i in range(start, count):
        away = round(width * 1.2 * (i - start + 1) / (count - start))
        moved = np.roll(made.frames[i], away, axis=1)
        moved[:, : min(away, width)] = cv2.GaussianBlur(
            made.frames[i][:, :1].repeat(min(away, width), 1), (0, 0), 3
        )
        made.frames[i] = moved


def passer_by(made: Made) -> None:
    """The face is there in the template frame alone."""
    count = len(made.frames)
    noise = made.rng.normal(0, 3, made.frames.shape[1:])
    wall = cv2.GaussianBlur(made.rng.normal(120, 60, made.frames.shape[1:]), (0, 0), 9)
    wall = 120 + 45 * (wall - wall.mean()) / wall.std()
    for i in range(count):
        if i != count // 2:
            made.frames[i] = np.clip(wall + noise, 0, 255).astype(np.uint8)


def black(made: Made) -> None:
    """One to some frames are black."""
    count = len(made.frames)
    at = made.rng.choice(count, int(made.rng.integers(1, max(2, count // 5))), replace=False)
    made.frames[at[at != count // 2]] = int(made.rng.integers(0, 6))
    if (at == count // 2).all():
        made.frames[made.truth.apex] = 0


def repeated(made: Made) -> None:
    """Some frames are copies of the one before."""
    part = _part(made)
    made.frames[part] = made.frames[part.start]


def one_picture(made: Made) -> None:
    """All frames are one picture."""
    made.frames[:] = made.frames[0]


def still(made: Made) -> None:
    """A still face: noise alone differs."""
    truth = replace(made.truth, amplitude=0.0, light=synthetic.Light())
    made.frames[:] = synthetic.render(truth)


def cut(made: Made) -> None:
    """Another person from some frame on."""
    seed = int(made.rng.integers(1000, 100000))
    portrait = made.truth.subject.portrait
    subject = synthetic.Subject.random(
        seed, size=made.frames.shape[1:], face=0.5, portrait=portrait
    )
    subject = replace(subject, mirror=not made.truth.subject.mirror)
    other = synthetic.render(replace(made.truth, subject=subject))
    start = round(len(made.frames) * made.rng.uniform(0.2, 0.8))
    made.frames[start:] = other[start:]


def blur(made: Made) -> None:
    """Some frames are out of focus, or smeared by motion."""
    part = _part(made)
    height = _face(made)[3] - _face(made)[1]
    size = height * made.rng.uniform(0.025, 0.06)
    length = 2 * round(size * 1.5) + 1
    smear = made.rng.random() < 0.5
    for i in range(part.start, part.stop):
        frame = made.frames[i]
        blurred = cv2.blur(frame, (length, 1)) if smear else cv2.GaussianBlur(frame, (0, 0), size)
        noisy = blurred + made.rng.normal(0, made.truth.noise, frame.shape)
        made.frames[i] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def beyond(made: Made) -> None:
    """The head moves far beyond the margin and what follows it: across most of the picture."""
    count = len(made.frames)
    x0, _, x1, _ = _face(made)
    width = made.frames.shape[2]
    away = width - x1 - 2 + round((x1 - x0) * made.rng.uniform(0.3, 0.5))
    for i in range(count):
        part = max(0.0, i / (count - 1) - 0.55) / 0.45
        shift = round(away * part)
        matrix = np.float32([[1, 0, shift], [0, 1, 0]])
        made.frames[i] = cv2.warpAffine(
            made.frames[i], matrix, made.frames.shape[:0:-1], borderMode=cv2.BORDER_REPLICATE
        )


def dark(made: Made) -> None:
    """The light is nearly off all along."""
    made.frames[:] = (made.frames * made.rng.uniform(0.01, 0.06)).astype(np.uint8)


def saturated(made: Made) -> None:
    """The light is far too bright: most of the face is white."""
    made.frames[:] = np.minimum(made.frames * made.rng.uniform(2.2, 4.0), 255).astype(np.uint8)


FAULTS: dict[str, Callable[[Made], None]] = {
    one.__name__: one
    for one in (
        *(occlusion, leaving, passer_by, black, repeated, one_picture, still),
        *(cut, blur, beyond, dark, saturated),
    )
}


@dataclass(frozen=True)
class KnownBox:
    """In place of a detector: the true box, off by some per cent."""

    box: tuple[float, float, float, float]

    def detect(self, image: NDArray[np.uint8]) -> Face:
        del image
        return Face(self.box, (), 1.0)


def run(made: Made, folder: Path, recipe: Recipe) -> dict[str, object]:
    """Process a clip; return its flags, or why it failed, and its figures."""
    folder.mkdir()
    for i, frame in enumerate(made.frames):
        cv2.imwrite(str(folder / f"{i:04d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, made.quality])
    clip = Clip(
        dataset="made",
        subject="1",
        name=folder.name,
        source=folder.name,
        root=folder.parent,
        onset=0,
        apex=made.truth.apex,
        offset=len(made.frames) - 1,
    )
    box = np.array(made.truth.box)
    dx, dy = made.truth.shifts()[len(made.frames) // 2]
    box += (dx, dy, dx, dy)
    box += made.rng.uniform(-0.03, 0.03, 4) * (box[3] - box[1])
    try:
        result = process_clip(clip, recipe, detector=KnownBox(tuple(box.tolist())))
    except ClipError as error:
        return {"failed": str(error)}
    quality = result.quality
    frames = {
        name: np.round(getattr(quality.frames, name), 4).tolist()
        for name in quality.frames.__slots__
    }
    return {
        "flags": format_flags(result.flags),
        "motion": quality.motion,
        "head_motion": quality.head_motion,
        "inconsistency": quality.inconsistency,
        "score": np.round(result.aligned.score, 4).tolist(),
        "distance": result.aligned.distance_to_margin.tolist(),
        "seconds": result.seconds,
        **frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=200, help="sound ones")
    parser.add_argument("--faults", type=int, default=50, help="of each kind")
    parser.add_argument(
        "--kinds", nargs="+", default=["sound", *FAULTS], choices=["sound", *FAULTS]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--portraits", nargs="*", default=[], help="pictures of a face each")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    recipe = Recipe.load(options.recipe)
    detector = MtcnnDetector(min_face_size=40)
    portraits = [synthetic.Portrait()]
    portraits += [synthetic.Portrait.read(path, detector) for path in options.portraits]
    kinds = {"sound": options.clips, **dict.fromkeys(FAULTS, options.faults)}
    found: dict[str, list[dict[str, object]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, count) in enumerate(kinds.items()):
            if kind not in options.kinds:
                continue
            for i in range(count):
                made = draw(options.seed + 10000 * number + i, portraits[i % len(portraits)])
                if kind in FAULTS:
                    FAULTS[kind](made)
                one = run(made, Path(folder) / f"{kind}_{i}", recipe)
                found.setdefault(kind, []).append(one)
            flagged = sum(bool(one.get("flags") or one.get("failed")) for one in found[kind])
            print(f"{kind:12s} {flagged:4d} of {count} flagged or failed", flush=True)
            for i, one in enumerate(found[kind]):
                if bool(one.get("flags") or one.get("failed")) == (kind == "sound"):
                    print(f"    clip {i}: {one.get('flags') or one.get('failed') or 'missed'}")
    if options.output:
        options.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
