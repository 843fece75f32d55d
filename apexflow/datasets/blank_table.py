"""A table of clips to fill in: what `read_table` reads, with what the disk says already there."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from apexflow.catalog import Clip
from apexflow.datasets.names import VIDEO_SUFFIXES
from apexflow.datasets.sources import VideoFrames, list_frames, open_frames
from apexflow.errors import ApexflowError

COLUMNS = (
    *("subject", "clip", "path", "onset", "apex", "offset", "label"),
    *("first", "last", "frames", "fps"),
)


def write_table(
    sources: Sequence[str | Path], path: str | Path, *, overwrite: bool = False
) -> tuple[int, tuple[str, ...]]:
    """Write a table with one row a video or folder of frames; subject and label stay empty.

    Paths in it are relative to the folder that holds all of them, which is the ROOT of
    `apexflow process table`. Where a folder holds neither frames nor videos, those below it that
    do are taken.

    Returns
    -------
    rows : int
    left_out : tuple of str
        What cannot be used, and why.

    Raises
    ------
    ApexflowError
        A source is not there, none can be used, or the table is there already.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise ApexflowError(f"{target} is there already; choose another (-o), or --force")
    found = list(dict.fromkeys(one for source in sources for one in _clips_in(Path(source))))
    rows, left_out = [], []
    root = Path(os.path.commonpath([one.parent for one in found])) if found else Path()
    for one in found:
        try:
            rows.append(_row(one, root))
        except ApexflowError as error:
            left_out.append(str(error))
    if not rows:
        more = f": {left_out[0]}" if left_out else ""
        raise ApexflowError(f"{', '.join(map(str, sources))}: no video or folder of frames{more}")
    try:
        with target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    except OSError as error:
        raise ApexflowError(f"cannot write {target}: {error.strerror}; choose another") from None
    return len(rows), tuple(left_out)


def _clips_in(path: Path) -> Iterator[Path]:
    """Yield the videos and folders of frames that a path is or holds, in order of name."""
    found = path.resolve()
    if not found.exists():
        raise ApexflowError(f"{path} is not on disk; give videos, or folders of frames")
    if found.is_file():
        yield found
        return
    if list_frames(found):
        yield found
        return
    for child in sorted(found.iterdir()):
        if child.is_dir():
            yield from _clips_in(child)
        elif child.suffix.lower() in VIDEO_SUFFIXES:
            yield child


def _row(path: Path, root: Path) -> tuple[str | int, ...]:
    source = path.relative_to(root).as_posix()
    clip = Clip(dataset="table", subject="-", name=path.name, source=source, root=root)
    opened = open_frames(clip)
    numbers = opened.numbers
    rate = ""
    if isinstance(opened, VideoFrames):
        capture = cv2.VideoCapture(str(opened.path))
        found = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        rate = f"{found:g}" if found > 0 else ""
    name = Path(source).with_suffix("").as_posix() if path.is_file() else source
    # What begins like a formula is one to a spreadsheet.
    safe = f"./{source}" if source.startswith(_FORMULA) else source
    shown = name.replace("/", "_").lstrip("".join(_FORMULA))
    return "", shown, safe, "", "", "", "", numbers[0], numbers[-1], len(numbers), rate


_FORMULA = ("=", "+", "-", "@", "\t", "\n", "'")
