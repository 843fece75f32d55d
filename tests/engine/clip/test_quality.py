"""Planted faults and the flags that name them; the rates are those of benchmarks/quality.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from apexflow.catalog import Clip
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.faces import FixedBox
from apexflow.engine.clip.quality import frame_quality
from apexflow.engine.recipe import Recipe
from apexflow.errors import ClipError
from apexflow.synthetic import ClipTruth, Subject, render

COUNT, TEMPLATE, APEX = 12, 6, 4
SUBJECT = Subject.random(5, size=(150, 200), face=0.5)
OTHER = replace(Subject.random(9, size=(150, 200), face=0.5), mirror=not SUBJECT.mirror)
BOX = tuple(round(value) for value in SUBJECT.box)
Frames = np.ndarray


def rendered(subject: Subject, amplitude: float = 1.5) -> Frames:
    truth = ClipTruth.random(
        subject, "surprise", seed=2, frames=COUNT, amplitude=amplitude, shift=1, noise=1
    )
    return render(replace(truth, apex=APEX))


@pytest.fixture(scope="module")
def sound() -> Frames:
    return rendered(SUBJECT)


def judged(folder: Path, frames: Frames, base: str = "default") -> dict[str, float | None]:
    """Process frames as a clip, with a margin of 8 px; return its flags by name."""
    (folder / "clip").mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / "clip" / f"{i:03d}.png"), frame)
    values = Recipe.load(base).to_dict()
    values["alignment"] |= {"margin": 8, "follow": 0.0}
    clip = Clip(
        dataset="made",
        subject="1",
        name="clip",
        root=folder,
        source="clip",
        onset=0,
        apex=APEX,
        offset=COUNT - 1,
    )
    result = process_clip(clip, Recipe.from_dict(values), detector=FixedBox(BOX))
    return {flag.name: flag.figure for flag in result.flags}


def test_two_frames_do_not_say_what_noise_is(tmp_path: Path) -> None:
    assert judged(tmp_path, rendered(SUBJECT, 0.25), "apexnet") == {}


@pytest.mark.parametrize("base", ["default", "sequence"])  # the second has no flow to judge
def test_a_sound_clip_has_no_flag(sound: Frames, tmp_path: Path, base: str) -> None:
    assert judged(tmp_path, sound, base) == {}


def one_black(frames: Frames) -> None:
    frames[9] = 2


def hand(frames: Frames) -> None:
    x0, y0, x1, y1 = BOX
    frames[8:11, (y0 + y1) // 2 : y1, x0:x1] = 150


def another_person(frames: Frames) -> None:
    frames[9:] = rendered(OTHER)[9:]


def copies(frames: Frames) -> None:
    frames[8:11] = frames[8]


def out_of_focus(frames: Frames) -> None:
    for i in range(8, 11):
        frames[i] = cv2.GaussianBlur(frames[i], (0, 0), 3.0)


def too_far(frames: Frames) -> None:
    frames[8:] = np.roll(frames[8:], 14, axis=2)


def too_dark(frames: Frames) -> None:
    frames[:] = frames // 12


def too_bright(frames: Frames) -> None:
    frames[:] = np.minimum(frames * 3.5, 255).astype(np.uint8)


def nothing_moves(frames: Frames) -> None:
    frames[:] = rendered(SUBJECT, amplitude=0.0)[[0]]
    rng = np.random.default_rng(3)
    frames[:] = np.clip(frames + rng.normal(0, 1, frames.shape), 0, 255).astype(np.uint8)


def test_noise_that_grows_is_no_motion(tmp_path: Path) -> None:
    # The last frames differ more from the others than neighbours do, but never alike.
    frames = rendered(SUBJECT, amplitude=0.0)[[0] * 12].copy()
    rng = np.random.default_rng(4)
    strength = np.where(np.arange(12) < 9, 1.0, 4.0)[:, None, None]
    frames[:] = np.clip(frames + strength * rng.normal(size=frames.shape), 0, 255).astype(np.uint8)
    assert "no-motion" in judged(tmp_path, frames)


def test_one_copy_in_a_short_clip_counts(sound: Frames, tmp_path: Path) -> None:
    frames = sound.copy()
    frames[9] = frames[8]
    assert judged(tmp_path, frames) == {"repeated-frames": 1}


FAULTS: dict[str, tuple[Callable[[Frames], None], float | None]] = {
    "blank-frame": (one_black, 1),
    "occluded": (hand, 3),
    "cut": (another_person, 1),
    "repeated-frames": (copies, 2),
    "blur": (out_of_focus, None),
    "at-margin": (too_far, 4),
    "dark": (too_dark, 12),
    "saturated": (too_bright, 12),
    "no-motion": (nothing_moves, None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(name: str, sound: Frames, tmp_path: Path) -> None:
    plant, figure = FAULTS[name]
    frames = sound.copy()
    plant(frames)
    found = judged(tmp_path, frames)
    assert name in found
    assert figure is None or found[name] == figure


def test_a_black_key_frame_fails(sound: Frames, tmp_path: Path) -> None:
    frames = sound.copy()
    frames[APEX] = 0
    with pytest.raises(ClipError, match=r"apex 4 shows no face: .* is blank; look at the frame"):
        judged(tmp_path, frames)


def test_a_passer_by_fails(sound: Frames, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    wall = cv2.GaussianBlur(rng.normal(128, 400, sound.shape[1:]), (0, 0), 6)
    frames = np.repeat(np.clip(wall, 0, 255).astype(np.uint8)[None], COUNT, axis=0)
    frames[TEMPLATE] = sound[TEMPLATE]
    with pytest.raises(ClipError, match="11 of 12 frames show no face that is in the template"):
        judged(tmp_path, frames)


def test_the_figures_do_not_depend_on_the_light_s_gain_and_offset() -> None:
    rng = np.random.default_rng(0)
    face = cv2.GaussianBlur(rng.normal(128, 300, (90, 70)), (0, 0), 4)
    face = np.clip(face, 60, 200).astype(np.uint8)
    brighter = (face * 0.5 + 90).astype(np.uint8)
    found = frame_quality(np.stack([face, brighter, face]), 0)
    assert found.match.min() > 0.999
    assert found.covered.max() == 0
    assert found.step[2] == pytest.approx(np.abs(face.astype(float) - brighter).mean(), rel=1e-5)
    assert np.isinf(found.step[0])
    assert found.brightness[1] == pytest.approx(brighter.mean(), abs=0.5)
