"""A video of any length, measured sample by sample into a file that can be gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.datasets.sources import FrameSource
from apexflow.errors import ApexflowError, ClipError
from apexflow.spotting.curves import Measured
from apexflow.spotting.follow import Box, Follower, Place
from apexflow.spotting.motion import CELLS, FaceMotion, FaceRegions
from apexflow.spotting.recipe import SpotRecipe

Image = NDArray[np.uint8]

RECORD = np.dtype(
    [
        ("number", "<i8"),
        ("template", "<i8"),  # the sample whose crop the motion is measured against
        ("place", "<f8", (4,)),
        ("score", "<f4"),
        ("eyes", "<f4"),
        ("field", "<f2", (2, CELLS, CELLS)),
    ]
)
_FLUSH = 256  # samples between two writes to disk
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face in a frame: its box in whole pixels, and five landmarks in pixels, or none."""

    box: Box
    landmarks: tuple[tuple[float, float], ...] = ()

    def regions(self) -> FaceRegions:
        """Return where brows, mouth, nose and eyes are in the crop of the box."""
        if len(self.landmarks) != 5:
            return FaceRegions.of(None)
        x0, y0, x1, y1 = self.box
        points = np.array(self.landmarks, float)
        return FaceRegions.of((points - (x0, y0)) / (x1 - x0, y1 - y0))


FaceFinder = Callable[[Image], FaceBox]
"""Finds the largest face of an image (height, width) uint8; `ClipError` when there is none."""

Report = Callable[[int, int], None]
"""Told how many frames of how many are done."""


def samples(frames: Iterable[Image], step: int) -> Iterator[Image]:
    """Yield the mean of each ``step`` neighbouring frames; those left over at the end go."""
    if step == 1:
        yield from frames
        return
    total: NDArray[Any] | None = None
    count = 0
    for frame in frames:
        if total is None:
            total = frame.astype(np.uint16)
        else:
            if frame.shape != total.shape:
                raise _other_size(frame.shape, total.shape)
            np.add(total, frame, out=total)  # a quarter of the time of cv2.add to 16 bits
        count += 1
        if count == step:
            yield cv2.convertScaleAbs(total, alpha=1 / step)
            total, count = None, 0


def _other_size(shape: tuple[int, ...], first: tuple[int, ...]) -> ClipError:
    return ClipError(
        f"a frame is {shape[1]}x{shape[0]} px, those before it {first[1]}x{first[0]}: "
        f"all frames of a video must be of one size"
    )


def step_of(fps: float, recipe: SpotRecipe) -> int:
    """Return how many frames a sample is the mean of."""
    return max(1, int(fps / recipe.sampling.rate + 1e-6))


@dataclass(slots=True)
class _Template:
    """What the motion is measured against, and from where on."""

    row: int
    follower: Follower
    motion: FaceMotion
    base: NDArray[np.float32]


class Measurer:
    """The state of a measurement: a face, its template, and the last sample.

    Parameters
    ----------
    image : (height, width) uint8
        The first sample.
    face : FaceBox
        In it.
    recipe : SpotRecipe
    """

    def __init__(self, image: Image, face: FaceBox, recipe: SpotRecipe) -> None:
        self._recipe, self._face, self._regions = recipe, face, face.regions()
        nothing = np.zeros((2, CELLS, CELLS), np.float32)
        follower = Follower(image, face.box, recipe.following)
        self._template = self._renewed(0, image, follower.origin, nothing)
        self._before: tuple[int, Image, Place, NDArray[np.float32]] | None = None
        self._shape = image.shape

    def resume(self, records: NDArray[Any], sample: Callable[[int], Image]) -> None:
        """Go on behind records, the last of which has the face; ``sample`` reads one of a row."""
        last = len(records) - 1
        row = int(records[last]["template"])
        if row:  # the first template lies where the face was detected, not where it is found
            place, base = _face_of(records[row])
            self._template = self._renewed(row, sample(row), place, base)
        place, field = _face_of(records[last])
        self._template.follower.last = place
        self._before = last, sample(last), place, field

    def measure(self, row: int, number: int, image: Image) -> NDArray[Any]:
        """Return the record () of one sample."""
        if image.shape != self._shape:
            raise _other_size(image.shape, self._shape)
        found = self._template.follower.find(image)
        if found.renew and self._before is not None and self._before[0] != self._template.row:
            last = self._template.follower.last
            before_row, before, place, field = self._before
            self._template = self._renewed(before_row, before, place, field)
            again = self._template.follower.find(image)
            if again.score >= found.score:
                found = again
            else:
                self._template.follower.last = last
        record = np.zeros((), RECORD)
        record["number"], record["template"] = number, self._template.row
        record["place"], record["score"] = found.place, found.score
        if found.score >= self._recipe.following.lost:
            moved, record["eyes"] = self._template.motion.measure(found.crop)
            record["field"] = self._template.base + moved
            # As it is read again, so that going on and going through agree to the bit.
            field = np.asarray(record["field"], np.float32)
            self._before = row, image, found.place, field
        elif self._before is not None:
            record["field"] = self._before[3]
        return record

    def find_again(self, image: Image, find: FaceFinder) -> None:
        """Look for the lost face in the whole image; where it is found, go on from there."""
        try:
            x0, y0, x1, y1 = find(image).box
        except ClipError:
            return
        height = self._face.box[3] - self._face.box[1]
        place = Place((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2, 0.0, (y1 - y0) / height)
        self._template.follower.last = place

    def _renewed(
        self, row: int, image: Image, place: Place, base: NDArray[np.float32]
    ) -> _Template:
        follower = Follower(image, self._face.box, self._recipe.following, place)
        motion = FaceMotion(follower.crop(image, place), self._recipe.flow, self._regions.eyes)
        return _Template(row, follower, motion, base)


def _face_of(record: NDArray[Any]) -> tuple[Place, NDArray[np.float32]]:
    return Place(*record["place"].tolist()), np.asarray(record["field"], np.float32)


def measure_video(
    source: FrameSource,
    fps: float,
    recipe: SpotRecipe,
    find: FaceFinder,
    folder: Path,
    *,
    report: Report | None = None,
) -> Measured:
    """Measure a video into a folder, or go on where an earlier call ended.

    Memory does not grow with the video: samples are written to ``folder/motion.bin`` as they
    are measured, some 2.4 KB each. The same video and recipe measure nothing twice; another
    one begins again.

    Parameters
    ----------
    source : FrameSource
    fps : float
    recipe : SpotRecipe
    find : callable
        Finds the face in the first sample, and again where it was lost.
    folder : Path
        Of this video alone; made if need be.
    report : callable, optional
        Told how many frames of how many are done.

    Returns
    -------
    Measured

    Raises
    ------
    ClipError
        The video has no face, or a frame cannot be decoded.
    """
    numbers = source.numbers
    step = step_of(fps, recipe)
    count = len(numbers) // step
    if count < 3:
        raise ClipError(f"{len(numbers)} frames at {fps:g}/s are too few to see an expression")
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = json.loads(json.dumps(source.fingerprint(numbers)))
    stamp = {"format": _FORMAT, "fps": fps, "recipe": recipe.measuring_hash, "files": fingerprint}
    head, path = folder / "motion.json", folder / "motion.bin"
    face = _known_face(head, stamp)
    if face is None:
        path.unlink(missing_ok=True)
        face = _first_face(source, numbers[:: step * 5][:20], find)
        text = json.dumps({**stamp, "box": face.box, "landmarks": face.landmarks})
        head.write_text(text, encoding="utf-8")
    done = _gone_on_from(path, count, recipe)
    if done < count:
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(done * RECORD.itemsize)
            file.seek(0, os.SEEK_END)
            _go_on(source, numbers, step, recipe, face, find, file, done, fps, report)
    return measured_of(np.memmap(path, RECORD, "r", shape=(count,)), fps, step, face, recipe)


def measured_of(
    records: NDArray[Any], fps: float, step: int, face: FaceBox, recipe: SpotRecipe
) -> Measured:
    """Return records as what the curves are drawn from."""
    return Measured(
        numbers=np.array(records["number"]),
        rate=fps / step,
        step=step,
        side=recipe.following.side,
        fields=records["field"],
        eyes=np.array(records["eyes"]),
        lost=np.array(records["score"] < recipe.following.lost),
        regions=face.regions(),
    )


def stored_face(folder: Path) -> FaceBox:
    """Return the face that a measured video was followed by."""
    return _face_in(json.loads((folder / "motion.json").read_text(encoding="utf-8")))


def _face_in(known: dict[str, Any]) -> FaceBox:
    x0, y0, x1, y1 = known["box"]
    return FaceBox((x0, y0, x1, y1), tuple((x, y) for x, y in known["landmarks"]))


def _known_face(head: Path, stamp: dict[str, Any]) -> FaceBox | None:
    """Return the face of an earlier measurement of the same; None where there is none."""
    try:
        known = json.loads(head.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if {key: known.get(key) for key in stamp} != stamp:
        return None
    return _face_in(known)


def _whole_records(path: Path) -> int:
    return path.stat().st_size // RECORD.itemsize if path.exists() else 0


def _gone_on_from(path: Path, count: int, recipe: SpotRecipe) -> int:
    """Return how many samples need no measuring: all, or those to the last that has the face.

    While it is lost, where it is looked for depends on more than the records tell.
    """
    done = _whole_records(path)
    if done >= count:
        return count
    if not done:
        return 0
    scores = np.memmap(path, RECORD, "r", shape=(done,))["score"]
    good = np.flatnonzero(scores >= recipe.following.lost)
    return int(good[-1]) + 1 if good.size else 0


def _first_face(source: FrameSource, numbers: Sequence[int], find: FaceFinder) -> FaceBox:
    """Return the face in the video's first frame; look into some more before giving up."""
    said = ""
    for image in source.read(numbers, color=False):
        try:
            return find(image)
        except ClipError as error:
            said = str(error)
    raise ClipError(f"no face in the first {len(numbers)} frames that were looked at: {said}")


def _go_on(
    source: FrameSource,
    numbers: tuple[int, ...],
    step: int,
    recipe: SpotRecipe,
    face: FaceBox,
    find: FaceFinder,
    file: BinaryIO,
    done: int,
    fps: float,
    report: Report | None,
) -> None:
    def images(rows: range) -> Iterator[Image]:
        chosen = numbers[rows.start * step : rows.stop * step]
        return samples(source.read(chosen, color=False), step)

    count = len(numbers) // step
    measurer = Measurer(next(images(range(1))), face, recipe)
    if done:
        records = np.memmap(file.name, RECORD, "r", shape=(done,))
        measurer.resume(records, lambda row: next(images(range(row, row + 1))))
    lost = 0
    patience = max(1, round(fps / step))  # a second
    for row, image in enumerate(images(range(done, count)), done):
        record = measurer.measure(row, numbers[row * step + step // 2], image)
        file.write(record.tobytes())
        lost = lost + 1 if record["score"] < recipe.following.lost else 0
        if lost and lost % patience == 0:
            measurer.find_again(image, find)
        if (row + 1) % _FLUSH == 0 or row + 1 == count:
            file.flush()
            if report is not None:
                report((row + 1) * step, len(numbers))
    if _whole_records(Path(file.name)) < count:
        raise ApexflowError(f"{file.name}: the disk did not take all samples; make room")
