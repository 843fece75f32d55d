"""The folder in which README and docs are walked: every file that they name, small and made up."""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

import apexflow as af
from apexflow import synthetic
from apexflow.synthetic import ClipTruth, frame_name, plan_samm, write_clips, write_frames
from tests.datasets.annotation_tables import CASME2_HEADER, write_xlsx

SIZE = (180, 240)


def write_data(place: Path) -> None:
    """Write data sets, videos, tables and maps under the names that the docs call them by."""
    clips = _clips(seed=0, subjects=3, clips=6)
    write_clips(place / "SAMM", clips)
    shutil.copy(place / "SAMM" / "samm.csv", place / "samm.csv")
    write_clips(place / "tutorial" / "SAMM", _clips(seed=1, subjects=3, clips=6, faulty=True))
    _write_casme2(place / "CASME2", _clips(seed=2, subjects=3, clips=6))
    _write_smic(place / "SMIC", _clips(seed=3, subjects=2, clips=3))
    _write_own(place, _clips(seed=4, subjects=2, clips=3))
    _write_long(place)
    _write_maps(place)


def write_stores(place: Path) -> None:
    """Write what one page has made and another one reads: stores, marks, a training."""
    with contextlib.chdir(place):
        samm = af.read_samm("SAMM", "samm.csv")
        casme2 = af.read_casme2("CASME2")
        smic = af.read_smic("SMIC", apex="middle")
        _process(samm, "samm.zarr", "default")
        for catalog, store in ((samm, "ststnet"), (casme2, "casme2"), (smic, "smic")):
            _process(catalog, f"{store}.zarr", "ststnet")
        _process(samm.select(lambda clip: clip is samm[0]), "roi.zarr", "roi")
        _process(samm.select(lambda clip: clip is samm[0]), "seq.zarr", "sequence")
        shutil.copytree("ststnet.zarr", "new.zarr")
        for model in ("ststnet", "off-apexnet"):
            af.train("ststnet.zarr", f"results/{model}", model=model, epochs=1, progress=False)
    rows = [("dataset", "subject", "clip", "mark", "note"), ("samm", *_key(samm), "bad", "")]
    _write_csv(place / "marks.csv", rows)


def _process(catalog: af.Catalog, store: str, recipe: str) -> None:
    af.process(catalog, store, recipe=recipe, workers=0, progress=False)


def _key(catalog: af.Catalog) -> tuple[str, str]:
    return catalog[0].subject, catalog[0].name


def _clips(*, seed: int, subjects: int, clips: int, faulty: bool = False) -> list[ClipTruth]:
    """Plan clips of two classes, which every person shows; 2 px of motion on small frames."""
    truths = plan_samm(
        subjects=subjects,
        clips=clips,
        frames=9,
        size=SIZE,
        face=0.6,
        amplitude=12.0,
        seed=seed,
        faulty=faulty,
    )
    return [
        replace(truth, expression=("happiness", "surprise")[number % 2])
        for number, truth in enumerate(truths)
    ]


def _key_frames(truth: ClipTruth) -> tuple[int, int, int]:
    onset = truth.first_number
    return onset, onset + truth.apex, onset + truth.offset


def _write_casme2(root: Path, clips: Sequence[ClipTruth]) -> None:
    """Write the raw layout, whose folders and table are CASME II's."""
    rows = []
    people = sorted({truth.subject.name for truth in clips})
    for number, truth in enumerate(clips):
        subject, name = f"{1 + people.index(truth.subject.name):02d}", f"EP{number:02d}_01f"
        write_frames(root / f"sub{subject}" / name, truth)
        onset, apex, offset = _key_frames(truth)
        emotion = ("happiness", "surprise")[number % 2]
        rows.append((subject, name, None, onset, apex, offset, None, "4", emotion))
    for folder in (root, root.parent):
        write_xlsx(folder / "CASME2-coding-20140508.xlsx", {"Sheet1": [CASME2_HEADER, *rows]})


def _write_smic(root: Path, clips: Sequence[ClipTruth]) -> None:
    people = sorted({truth.subject.name for truth in clips})
    for number, truth in enumerate(clips):
        subject = f"s{1 + people.index(truth.subject.name)}"
        emotion = ("negative", "positive", "surprise")[number % 3]
        name = f"{subject}_{emotion[: 2 if emotion == 'negative' else 3]}_{number + 1:02d}"
        folder = root / "HS" / subject / "micro" / emotion / name
        write_frames(folder, truth, name=lambda t, frame: f"image{t.first_number + frame}.bmp")


def _write_own(place: Path, clips: Sequence[ClipTruth]) -> None:
    """Write CLIPS (folders and a video) with its table, single videos, and a picture."""
    rows: list[Sequence[object]] = [
        ("subject", "clip", "path", "onset", "apex", "offset", "label"),
    ]
    for truth in clips[:-1]:
        write_frames(place / "CLIPS" / truth.name, truth, name=frame_name)
        frames = _key_frames(truth)
        rows.append((truth.subject.name, truth.name, truth.name, *frames, "surprise"))
    video = synthetic.write_video(place / "CLIPS" / "last.mp4", clips[-1])
    rows.append((clips[-1].subject.name, "last", video.name, 0, clips[-1].apex, 8, "anger"))
    _write_csv(place / "clips.csv", rows)
    shutil.copy(video, place / "clip.mp4")
    shutil.copy(video, place / "VIDEO")  # content counts, not the name
    (place / "VIDEOS").mkdir()
    shutil.copy(video, place / "VIDEOS" / "first.mp4")


def _write_long(place: Path) -> None:
    truth = synthetic.LongTruth.random(
        synthetic.Subject.random(3, size=(192, 176), face=0.75),
        seed=3,
        seconds=4,
        fps=30,
        micro=2,
        macro=0,
        amplitude=2.0,
        name="interview",
    )
    synthetic.write_long_video(place / "interview.mp4", truth)
    synthetic.write_long_table(place / "truth.csv", [truth])


def _write_maps(place: Path) -> None:
    """Write maps as published (folders of subjects, of classes, a picture a clip), and a table."""
    rng = np.random.default_rng(0)
    rows = [("subject", "clip", "label")]
    for subject in ("sub1", "sub2"):
        for label in ("0", "1"):
            for clip in (f"{subject}_{label}a", f"{subject}_{label}b"):
                picture = rng.integers(0, 256, (28, 28, 3), np.uint8)
                for folder in ("my_maps", f"norm_u_v_os/{subject}/{label}"):
                    (place / folder).mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(place / folder / f"{clip}.png"), picture)
                rows.append((subject, clip, label))
    _write_csv(place / "my_maps.csv", rows)


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
