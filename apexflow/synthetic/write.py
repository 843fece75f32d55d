"""Writing one clip to disk: as a folder of frames or as a video."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.synthetic.clip import ClipTruth, take
from apexflow.synthetic.portrait import paint
from apexflow.system import cores

Namer = Callable[[ClipTruth, int], str]


def frame_name(truth: ClipTruth, frame: int) -> str:
    """Return a plain file name, the frame's number alone: ``img46.jpg``."""
    return f"img{truth.first_number + frame}.jpg"


def write_frames(
    folder: str | Path,
    truth: ClipTruth,
    *,
    name: Namer = frame_name,
    quality: int = 90,
    color: bool = False,
    face: NDArray[np.float32] | None = None,
    workers: int | None = None,
) -> list[Path]:
    """Write each frame of a clip as an image.

    Parameters
    ----------
    folder : path
        Where to; made if need be.
    truth : ClipTruth
        The clip.
    name : callable
        Gives the file name for the truth and the position of a frame. Its suffix chooses the
        format.
    quality : int
        Of a JPEG, 0 to 100.
    color : bool
        Whether the frames have colour. Ignored when ``face`` is given.
    face : ndarray, optional
        The painted face of the subject, to paint it once for several clips.
    workers : int, optional
        Threads; one per usable core by default. The files do not depend on it.

    Returns
    -------
    list of Path
        The files in order.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    painted = paint(truth.subject, color=color) if face is None else face

    paths = [folder / name(truth, frame) for frame in range(len(truth))]
    with ThreadPoolExecutor(workers or cores()) as pool:
        tasks = [
            pool.submit(write_frame, path, truth, frame, painted, quality)
            for frame, path in enumerate(paths)
        ]
        for task in tasks:
            task.result()
    return paths


def write_frame(
    path: Path, truth: ClipTruth, frame: int, face: NDArray[np.float32], quality: int
) -> None:
    """Write one frame, see `write_frames`."""
    image = take(truth, frame, face)
    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == _COLOR else image
    # Encoded in memory: `cv2.imwrite` answers False where `write_bytes` says what is wrong.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix in (".jpg", ".jpeg") else []
    _, data = cv2.imencode(path.suffix, picture, options)
    path.write_bytes(data)


def write_video(
    path: str | Path, truth: ClipTruth, *, fps: float = 200.0, color: bool = False
) -> Path:
    """Write a clip as a video: MPEG-4 for ``.mp4``, Motion JPEG for ``.avi``.

    Frame sizes must be even for MPEG-4. Raises ValueError for another suffix and OSError when
    OpenCV cannot write the file.
    """
    path = Path(path)
    height, width = truth.subject.size
    writer = open_writer(path, fps, (width, height))
    face = paint(truth.subject, color=color)
    try:
        for frame in range(len(truth)):
            image = take(truth, frame, face)
            code = cv2.COLOR_RGB2BGR if image.ndim == _COLOR else cv2.COLOR_GRAY2BGR
            writer.write(cv2.cvtColor(image, code))
    finally:
        writer.release()
    return path


def open_writer(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """Return a writer of colour frames (width, height), see `write_video`."""
    if path.suffix not in _CODECS:
        raise ValueError(f"path must end with one of {sorted(_CODECS)}, got {path.name!r}")
    code = cv2.VideoWriter.fourcc(*_CODECS[path.suffix])
    writer = cv2.VideoWriter(str(path), code, fps, size, isColor=True)
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV cannot write a video here")
    return writer


_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_COLOR = 3
