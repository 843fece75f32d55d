"""The whole way on a small data set whose motion is known, and a check against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apexflow.datasets import read_samm
from apexflow.engine.run import RunSummary, process
from apexflow.errors import ApexflowError, ClipError
from apexflow.report import write_report
from apexflow.storage.store import Store, open_store
from apexflow.synthetic import (
    ClipTruth,
    Portrait,
    crop_matrix,
    endpoint_error,
    shift_error,
    write_samm,
)

MOST_SHIFT_ERROR = 0.75
MOST_FLOW_ERROR = 0.6


@dataclass(frozen=True, slots=True)
class Check:
    """One measurement against the known motion."""

    name: str
    value: float
    most: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.value <= self.most

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "TOO LARGE"
        return (
            f"{self.name}: {self.value:.3f} {self.unit} (at most {self.most} {self.unit}) {verdict}"
        )


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demonstration made and found."""

    folder: Path
    summary: RunSummary
    checks: tuple[Check, ...]
    report: Path


def run_demo(
    folder: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    clips: int = 10,
    frames: int = 30,
    pictures: Sequence[str | Path] = (),
) -> Demo:
    """Write a SAMM-shaped data set, process it, check it, and write ``report.html``.

    The folder gets ``SAMM/`` (frames and ``samm.csv``), ``samm.zarr``, ``report.html`` and
    ``report_files/``, which the report loads its clips from. The faces are those of ``pictures``,
    in turn, or of the portrait that is shipped. Raises `ApexflowError` when the folder exists and
    holds anything else, and for a picture without a face.
    """
    place = Path(folder)
    _check_folder(place)
    root, target = place / "SAMM", place / "samm.zarr"
    portraits = [_portrait(picture) for picture in pictures] or [Portrait()]
    truths = write_samm(root, clips=clips, frames=frames, portraits=portraits)
    summary = process(read_samm(root), target, workers=workers, progress=progress)
    store = open_store(target)
    checks = _checks(store, truths)
    report = place / "report.html"
    rows = [(c.name, f"{c.value:.3f} {c.unit}", f"at most {c.most} {c.unit}") for c in checks]
    write_report(store, report, root=root, checks=rows)
    return Demo(place, summary, checks, report)


def _portrait(picture: str | Path) -> Portrait:
    from apexflow.engine.clip.faces import MtcnnDetector

    try:
        return Portrait.read(picture, MtcnnDetector(image_side=640))
    except ClipError as error:
        raise ApexflowError(f"{picture}: {error}") from None


def _check_folder(place: Path) -> None:
    if place.is_file():
        raise ApexflowError(f"{place} is a file; name a folder for the demonstration")
    ours = {"SAMM", "samm.zarr", "report.html", "report_files"}
    foreign = (
        sorted(p.name for p in place.iterdir() if p.name not in ours) if place.exists() else []
    )
    if foreign:
        raise ApexflowError(
            f"folder {place} holds {foreign[0]}, which is not the demonstration's; name another"
        )


def _checks(store: Store, truths: list[ClipTruth]) -> tuple[Check, ...]:
    """Compare the stored shifts and flow with the motion that the frames were made with."""
    by_name = {truth.name: truth for truth in truths}
    shift_errors, flow_errors = [], []
    for index, record in enumerate(store.records()):
        if record is None or not record.done:
            continue
        truth = by_name[record.clip]
        frames = [number - truth.first_number for number in record.frame_numbers]
        template = record.template_frame - truth.first_number
        shifts = np.asarray(record.shift)
        shift_errors.append(shift_error(shifts, truth.shifts(template)[frames]))
        size = store.layout.crop
        x0, y0, x1, y1 = record.box
        box = (x0, y0, x1, y1)
        first, second = (
            crop_matrix(box, size, shift=tuple(shifts[frames.index(key_frame)]))
            for key_frame in (truth.onset, truth.apex)
        )
        flow = np.moveaxis(np.asarray(store.array("flow/onset-apex")[index]), 0, -1)
        flow_errors.append(endpoint_error(flow, truth.crop_flow(first, second, size)))
    return (
        Check("shift, 2-D RMS", float(np.mean(shift_errors)), MOST_SHIFT_ERROR, "px of the frame"),
        Check("flow, average end-point error", float(np.mean(flow_errors)), MOST_FLOW_ERROR, "px"),
    )
