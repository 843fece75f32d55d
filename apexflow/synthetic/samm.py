"""A whole data set shaped like SAMM, with known motion and with SAMM's own two faults."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from apexflow.synthetic.clip import ClipTruth
from apexflow.synthetic.expressions import EXPRESSIONS
from apexflow.synthetic.light import Light
from apexflow.synthetic.portrait import Portrait, Subject, paint
from apexflow.synthetic.write import write_frame
from apexflow.system import cores

COLUMNS = (
    "Subject",
    "Filename",
    "Inducement Code",
    "Onset Frame",
    "Apex Frame",
    "Offset Frame",
    "Duration",
    "Micro",
    "Action Units",
    "Estimated Emotion",
    "Objective Classes",
    "Notes",
)
"""The header of SAMM's ``samm.csv``."""

# 28 and 32 come early: their clips 028_4_1 and 032_3_1 are the faulty ones.
_SUBJECTS = (6, 28, 32, 11, 7, 9, 10, *range(12, 27), 30, 31, *range(33, 38))
_EMOTIONS = ("happiness", "surprise", "anger", "disgust", "contempt")
_REFERENCE_ROWS = 1088  # SAMM's frames: what amplitude and shift are stated for


def samm_name(truth: ClipTruth, frame: int) -> str:
    """Return SAMM's file name of a frame: ``006_05562.jpg``, ``006_0180.jpg`` in some clips.

    Four digits stand here for the clips that start below frame 1000.
    """
    digits = 4 if truth.first_number < _FIVE_DIGITS_FROM else 5
    return f"{truth.subject.name}_{truth.first_number + frame:0{digits}d}.jpg"


_FIVE_DIGITS_FROM = 1000


def plan_samm(
    *,
    subjects: int = 4,
    clips: int = 10,
    frames: int = 30,
    size: tuple[int, int] = (1088, 2040),
    face: float = 0.5,
    amplitude: float = 3.0,
    shift: float = 4.0,
    rotation: float = 0.0,
    scale: float = 0.0,
    noise: float = 2.0,
    seed: int = 0,
    faulty: bool = True,
    light: Light | None = None,
    shutter: float = 0.0,
    blinks: bool = False,
    portraits: Sequence[Portrait] = (Portrait(),),
) -> list[ClipTruth]:
    """Describe a data set shaped like SAMM without writing it; see `write_samm`."""
    if not 1 <= subjects <= min(clips, len(_SUBJECTS)):
        most = min(clips, len(_SUBJECTS))
        raise ValueError(f"subjects must be between 1 and {most} (clips), got {subjects}")
    zoom = size[0] / _REFERENCE_ROWS

    def draw(number: int, name: str, first: int, expression: str, entropy: int) -> ClipTruth:
        rng = np.random.default_rng([seed, 6, entropy])
        person = Subject.random(
            int(np.random.SeedSequence([seed, 7, number]).generate_state(1)[0]),
            name=f"{number:03d}",
            size=size,
            face=face,
            portrait=portraits[_SUBJECTS.index(number) % len(portraits)],
        )
        truth = ClipTruth.random(
            person,
            expression,
            seed=int(rng.integers(2**31)),
            frames=frames,
            amplitude=zoom * amplitude * rng.uniform(0.6, 1.2),
            shift=zoom * shift,
            rotation=rotation,
            scale=scale,
            noise=noise,
            name=name,
            first_number=first,
        )
        lit = Light() if light is None else replace(light, seed=light.seed + entropy)
        blink = np.random.default_rng([seed, 11, entropy]).integers(frames)
        return replace(truth, light=lit, shutter=shutter, blinks=(int(blink),) * blinks)

    truths = []
    people = sorted(_SUBJECTS[:subjects])
    for i in range(clips):
        number = people[i * subjects // clips]
        low, high = (150, 900) if i % 4 == _FOUR_DIGIT_CLIP else (1200, 8000)
        first = int(np.random.default_rng([seed, 8, i]).integers(low, high))
        name = f"{number:03d}_{1 + i % 7}_{2 + i}"
        truths.append(draw(number, name, first, _EMOTIONS[i % len(_EMOTIONS)], i))
    if faulty:
        late = draw(28, "028_4_1", 1071, "contempt", clips)
        early = draw(32, "032_3_1", 4896, "anger", clips + 1)
        truths.append(replace(late, annotated_apex=1071 + frames - 1 + 9))
        truths.append(replace(early, annotated_apex=1930))
    return sorted(truths, key=lambda truth: (truth.subject.name, truth.name))


_FOUR_DIGIT_CLIP = 3


def write_samm(
    root: str | Path,
    *,
    subjects: int = 4,
    clips: int = 10,
    frames: int = 30,
    size: tuple[int, int] = (1088, 2040),
    face: float = 0.5,
    amplitude: float = 3.0,
    shift: float = 4.0,
    rotation: float = 0.0,
    scale: float = 0.0,
    noise: float = 2.0,
    quality: int = 90,
    seed: int = 0,
    faulty: bool = True,
    light: Light | None = None,
    shutter: float = 0.0,
    blinks: bool = False,
    portraits: Sequence[Portrait] = (Portrait(),),
    workers: int | None = None,
) -> list[ClipTruth]:
    """Write a data set shaped like SAMM, with known motion, and its ``samm.csv``.

    Parameters
    ----------
    root : path
        The data set's folder; made if need be. Frames lie in ``006/006_1_2/006_05562.jpg``.
    subjects, clips, frames : int
        Number of subjects, of sound clips over all subjects, and of frames in each clip.
    size : (int, int)
        Height and width of the frames.
    face : float
        Height of the face box as a part of the frame's, about.
    amplitude, shift : float
        Displacement by the expression at the apex, of which each clip has .6 to 1.2 times, and
        the largest one by the head. In pixels of frames of 1088 rows; they shrink with the
        frames.
    rotation, scale, noise : float
        As in `ClipTruth.random`.
    quality : int
        Of the JPEG files.
    seed : int
        Chooses everything that is random.
    faulty : bool
        Whether to add two clips whose apex is wrong in the table, as it is in SAMM's own: of
        032_3_1 before the onset, of 028_4_1 after the offset. Their frames are sound.
    light : Light, optional
        How the light changes, in each clip by a seed of its own; even by default.
    shutter : float
        As in `ClipTruth`.
    blinks : bool
        Whether the subject blinks once in each clip, at any frame.
    portraits : sequence of Portrait
        The pictures that the subjects are painted from, in turn.
    workers : int, optional
        Threads; one per usable core by default. The files do not depend on it.

    Returns
    -------
    list of ClipTruth
        In the order of the table, the faulty ones with their ``annotated_apex``.
    """
    truths = plan_samm(
        subjects=subjects,
        clips=clips,
        frames=frames,
        size=size,
        face=face,
        amplitude=amplitude,
        shift=shift,
        rotation=rotation,
        scale=scale,
        noise=noise,
        seed=seed,
        faulty=faulty,
        light=light,
        shutter=shutter,
        blinks=blinks,
        portraits=portraits,
    )
    write_clips(root, truths, quality=quality, workers=workers)
    return truths


def write_clips(
    root: str | Path,
    truths: Sequence[ClipTruth],
    *,
    quality: int = 90,
    workers: int | None = None,
) -> None:
    """Write any clips as a data set shaped like SAMM; see `write_samm`."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers or cores()) as pool:
        tasks = []
        for subject, own in groupby(truths, key=lambda truth: truth.subject):
            painted = paint(subject)  # while the pool is busy with the subject before
            for truth in own:
                folder = root / subject.name / truth.name
                folder.mkdir(parents=True, exist_ok=True)
                for frame in range(len(truth)):
                    path = folder / samm_name(truth, frame)
                    tasks.append(pool.submit(write_frame, path, truth, frame, painted, quality))
        for task in tasks:
            task.result()
    write_table(root / "samm.csv", truths)


def write_table(path: str | Path, truths: Sequence[ClipTruth]) -> None:
    """Write the clips' annotations as SAMM's ``samm.csv``: semicolons, CRLF, ASCII."""
    with Path(path).open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerow(COLUMNS)
        writer.writerows(_row(truth) for truth in truths)


def _row(truth: ClipTruth) -> tuple[str | int, ...]:
    expression = EXPRESSIONS[truth.expression]
    onset, offset = truth.first_number, truth.first_number + truth.offset
    apex = truth.annotated_apex
    return (
        truth.subject.name,
        truth.name,
        truth.name.split("_")[1],
        onset,
        onset + truth.apex if apex is None else apex,
        offset,
        offset - onset + 1,
        "Micro - 1/2",
        expression.action_units,
        expression.emotion,
        expression.objective_class,
        "",
    )
