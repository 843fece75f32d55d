"""From raw long videos, or a store, to a table of spotted expressions: `apexflow.spot`.

The rooms meet here: faces are found by the engine's detector, everything else is `spotting`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.datasets.long_videos import LongVideo, read_casme_sq_long, read_samm_long
from apexflow.datasets.sources import VIDEO_SUFFIXES, FrameSource, list_frames, open_frames
from apexflow.errors import ApexflowError, ClipError
from apexflow.rates import rate_of_dataset
from apexflow.spotting.curves import MotionCurves, Spot, curves_of, motion_curves
from apexflow.spotting.follow import Follower, Place
from apexflow.spotting.measure import (
    RECORD,
    FaceBox,
    FaceFinder,
    Report,
    measure_video,
    step_of,
    stored_face,
)
from apexflow.spotting.page import (
    MOST_PLAYERS,
    PLAYER_FRAMES,
    PLAYER_SIDE,
    Candidate,
    Player,
    VideoPart,
    write_page,
)
from apexflow.spotting.recipe import SpotRecipe
from apexflow.storage.csv_cells import safe_row

if TYPE_CHECKING:
    from apexflow.storage.format import ClipRecord
    from apexflow.storage.store import Store

COLUMNS = (
    *("dataset", "subject", "clip", "path", "onset", "apex", "offset"),
    *("video", "kind", "score", "region", "flags", "fps"),
)
"""Of the table of spots: those of a table of clips first, then those of spotting."""

LONG_DATASETS = {"samm-long": read_samm_long, "casme_sq-long": read_casme_sq_long}

_DATASET = "spots"  # of videos that belong to none


@dataclass(frozen=True, slots=True, kw_only=True)
class Spotted:
    """What was spotted in one video.

    Attributes
    ----------
    dataset, subject, name : str
    path : str
        Relative to the summary's root.
    fps : float
    motion : MotionCurves
    """

    dataset: str
    subject: str
    name: str
    path: str
    fps: float
    motion: MotionCurves

    @property
    def spots(self) -> tuple[Spot, ...]:
        return self.motion.spots

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield a row of the table for each spot."""
        for spot in self.spots:
            yield {
                "dataset": self.dataset,
                "subject": self.subject,
                "clip": f"{self.name}_{spot.onset}",
                "path": self.path,
                **{key: str(getattr(spot, key)) for key in ("onset", "apex", "offset")},
                "video": self.name,
                "kind": spot.kind,
                "score": f"{spot.score:.3f}",
                "region": spot.region,
                "flags": "; ".join(spot.flags),
                "fps": f"{self.fps:g}",
            }


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotSummary:
    """What `spot` did.

    Attributes
    ----------
    root : Path
        The folder that the paths of the table are relative to.
    videos : tuple of Spotted
    failed : dict of str to str
        Why, of each video that could not be used; "row 5" where its table does not say which.
    unread : tuple of str
        Rows of the data set's table that cannot be read, though they name a video that can.
    output : Path
        The table.
    """

    root: Path
    videos: tuple[Spotted, ...]
    output: Path
    failed: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def can_be_processed(self) -> bool:
        """Whether there are spots, and their frames lie in one folder that is not the disk's."""
        found = [video for video in self.videos if video.spots]
        one_place = self.root != Path(self.root.anchor)
        return bool(found) and one_place and all((self.root / v.path).exists() for v in found)

    def __str__(self) -> str:
        lines = []
        for video in self.videos:
            kinds = [spot.kind for spot in video.spots]
            lost = video.motion.lost.mean()
            more = f"; the face was lost for {100 * lost:.1f}% of it" if lost else ""
            lines.append(
                f"{video.name}: {kinds.count('micro')} micro, {kinds.count('macro')} macro{more}"
            )
        lines += [f"unread   {row}; no video is lost by it" for row in self.unread]
        lines += [f"failed   {name}: {reason}" for name, reason in self.failed.items()]
        count = sum(len(video.spots) for video in self.videos)
        spots = "1 spot" if count == 1 else f"{count} spots"
        videos = "1 video" if len(self.videos) == 1 else f"{len(self.videos)} videos"
        lines.append(f"{spots} of {videos} in {self.output}")
        return "\n".join(lines)


def spot(
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    recipe: str | Path | SpotRecipe = "regions",
    fps: float | None = None,
    p: float | None = None,
    dataset: str | None = None,
    annotations: str | Path | None = None,
    report: str | Path | None = None,
    parts: str | Path | None = None,
    detector: Any = None,
    progress: bool = False,
) -> SpotSummary:
    """Spot expressions in long videos and write a table of them.

    Parameters
    ----------
    sources : path or sequence of paths
        Videos, folders of numbered frames, folders of these, or stores whose recipe keeps the
        frames of whole videos. With ``dataset``: the root of that data set.
    output : path
        The table, a CSV that `apexflow process table` and `apexflow spot-score` read.
    recipe : name, path or SpotRecipe
        "regions" or "mdmd", or your own TOML file.
    fps : float, optional
        Frames a second; without, what the video or its data set says.
    p : float, optional
        In place of the recipe's: a peak counts above mean + p (max - mean) of its curve.
    dataset : {"samm-long", "casme_sq-long"}, optional
        Take the videos, their names and their rate from this data set.
    annotations : path, optional
        The data set's table, where it is not in its usual place.
    report : path, optional
        Also write a page with the curves and a player for each spot.
    parts : path, optional
        The folder that keeps what was measured of each video; ``OUTPUT.parts`` by default. The
        same video is not measured twice: a run goes on where one was stopped, and another
        ``p`` or method takes seconds.
    detector : optional
        With ``detect(image) -> Face``, in place of MTCNN.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    SpotSummary
        A video that cannot be used is in ``failed``, and costs itself alone.

    Raises
    ------
    ApexflowError
        No source can be used, or the table cannot be written.
    """
    chosen = SpotRecipe.load(recipe).with_p(p)
    output = Path(output)
    if fps is not None and not 0 < fps < 10_000:
        raise ApexflowError(f"fps must be above 0 and below 10000. Got {fps}.")
    if output.is_dir():
        raise ApexflowError(f"{output} is a folder; name the CSV file to write")
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    videos, stores, root = _listed([Path(path) for path in given], dataset, annotations)
    measured = Path(parts) if parts else output.with_name(f"{output.name}.parts")
    done: list[Spotted] = []
    pages: list[VideoPart] = []
    failed: dict[str, str] = {}
    with _bar(progress) as start:
        for video in videos:
            if video.clip.problems:
                failed[video.name] = video.clip.problem
                continue
            try:
                rate = fps or _rate(video)
                folder = measured / re.sub(r"[^\w.-]", "_", video.clip.name)
                spotted, page = _spot_video(
                    video.clip, rate, chosen, detector, folder, start(video.name), bool(report)
                )
            except ClipError as error:
                failed[video.name] = str(error)
                continue
            done.append(spotted)
            pages += [page] if page else []
        for path in stores:
            for name, outcome in _spot_store(path, fps, chosen, bool(report)):
                if isinstance(outcome, str):
                    failed[name] = outcome
                    continue
                done.append(outcome[0])
                pages.append(outcome[1])
    if not done and failed:
        name, reason = next(iter(failed.items()))
        raise ApexflowError(f"no video can be used; {name}: {reason}")
    _write_table(output, done)
    if report is not None:
        write_page(report, _with_fewer_players(pages), recipe=_title(recipe, chosen))
    sound = [video for video in videos if not video.clip.problems]
    unread = tuple(row.problem for video in sound for row in video.unread)
    return SpotSummary(root=root, videos=tuple(done), output=output, failed=failed, unread=unread)


def _title(recipe: str | Path | SpotRecipe, chosen: SpotRecipe) -> str:
    name = chosen.method if isinstance(recipe, SpotRecipe) else str(recipe)
    return f"{name}, p {chosen.micro.p:g} (micro) and {chosen.macro.p:g} (macro)"


def _listed(
    given: list[Path], dataset: str | None, annotations: str | Path | None
) -> tuple[list[LongVideo], list[Path], Path]:
    """Return the videos and stores that are meant, and the folder that holds them all."""
    if not given:
        raise ApexflowError("name a video, a folder of frames, or a store")
    if dataset is not None:
        if dataset not in LONG_DATASETS:
            known = ", ".join(LONG_DATASETS)
            raise ApexflowError(f"dataset must be one of {known}. Got {dataset!r}.")
        if len(given) != 1:
            raise ApexflowError(f"with --dataset name its one root, not {len(given)} paths")
        return list(LONG_DATASETS[dataset](given[0], annotations)), [], given[0]
    for path in given:
        if not path.exists():
            raise ApexflowError(f"{path} is not on disk")
    stores = [path for path in given if (path / "zarr.json").is_file()]
    found = [video for path in given if path not in stores for video in _videos_in(path)]
    if not found and not stores:
        names = ", ".join(map(str, given))
        raise ApexflowError(f"no video and no folder of numbered frames in {names}")
    if not found:
        return [], stores, stores[0].parent
    absolute = list(dict.fromkeys(map(_plain_path, found)))
    root = absolute[0].parent
    while not all(path.is_relative_to(root) for path in absolute):
        if root == root.parent:
            raise ApexflowError(f"{absolute[0]} and others lie on two drives; spot each by itself")
        root = root.parent
    called = _names(absolute, root)
    return [_plain_video(path, root, called[path]) for path in absolute], stores, root


def _plain_path(path: Path) -> Path:
    """Return an absolute path without "..", its links as they are: names come from it."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _videos_in(path: Path) -> Iterator[Path]:
    """Yield a path that is a video, or the videos below it."""
    if path.is_file() or _has_frames(path):
        yield path
        return
    for inner in sorted(path.iterdir()):
        if inner.name.startswith((".", "__MACOSX", "@eaDir")):
            continue
        if inner.is_dir():
            yield from _videos_in(inner)
        elif inner.suffix.lower() in VIDEO_SUFFIXES:
            yield inner


def _has_frames(folder: Path) -> bool:
    try:
        return len(list_frames(folder)) > 1
    except ClipError:
        return False


def _names(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """Return what each video is called: its own name, or where that repeats its whole path."""
    short = [path.stem if path.is_file() else path.name for path in paths]
    return {
        path: name if short.count(name) == 1 else "_".join(path.relative_to(root).parts)
        for path, name in zip(paths, short, strict=True)
    }


def _plain_video(path: Path, root: Path, name: str) -> LongVideo:
    source = path.relative_to(root).as_posix()
    clip = Clip(dataset=_DATASET, subject=name, name=name, root=root, source=source)
    return LongVideo(clip=clip, fps=0, intervals=())


def _rate(video: LongVideo) -> float:
    from apexflow.engine.clip.rate import frame_rate

    rate = video.fps or frame_rate(video.clip, open_frames(video.clip))
    if not rate:
        raise ClipError(f"{video.clip.source}: nobody says its frames a second; give --fps")
    return rate


def _finder(detector: Any) -> FaceFinder:
    """Return what finds a face: the engine's detector, its box in whole pixels."""
    from apexflow.engine.clip.faces import MtcnnDetector, box_in_frame

    # A frame of 640 px on its longer side shows every face that is large enough to see move.
    found = detector or MtcnnDetector(min_face_size=40, image_side=640)

    def find(image: NDArray[np.uint8]) -> FaceBox:
        face = found.detect(image)
        return FaceBox(box_in_frame(face, image), tuple(face.landmarks))

    return find


def _spot_video(
    clip: Clip,
    fps: float,
    recipe: SpotRecipe,
    detector: Any,
    folder: Path,
    told: Report | None,
    report: bool,
) -> tuple[Spotted, VideoPart | None]:
    source = open_frames(clip)
    _refuse_short(len(source.numbers), fps, recipe)
    measured = measure_video(source, fps, recipe, _finder(detector), folder, report=told)
    spotted = Spotted(
        dataset=clip.dataset,
        subject=clip.subject,
        name=clip.name,
        path=clip.source,
        fps=fps,
        motion=curves_of(measured, recipe),
    )
    return spotted, _page(spotted, source, recipe, folder) if report else None


def _refuse_short(frames: int, fps: float, recipe: SpotRecipe) -> None:
    """Refuse what has nothing before and behind to compare an expression with."""
    least = 2 * recipe.micro.lag_ms / 1000
    if frames / fps <= least:
        raise ClipError(
            f"{frames} frames at {fps:g}/s last {frames / fps:.2f} s; spotting compares each frame "
            f"with those before and behind and needs more than {least:g} s"
        )


def _page(spotted: Spotted, source: FrameSource, recipe: SpotRecipe, folder: Path) -> VideoPart:
    """Cut the crops of each spot again, from where its face was found."""
    face = stored_face(folder)
    records = np.memmap(folder / "motion.bin", RECORD, "r")
    larger = replace(recipe.following, side=PLAYER_SIDE)
    step = step_of(spotted.fps, recipe)
    numbers = source.numbers
    best = sorted(spotted.spots, key=lambda spot: -spot.score)[:MOST_PLAYERS]
    players = {}
    for spot in best:
        chosen = _shown(spot, numbers)
        crops = []
        for number, image in zip(chosen, source.read(chosen, color=False), strict=True):
            row = min(int(np.searchsorted(numbers, number)) // step, len(records) - 1)
            place = Place(*records[row]["place"].tolist())
            crops.append(Follower.cut(image, face.box, larger, place))
        players[spot] = Player.of(chosen, crops)
    rows = list(spotted.rows())
    candidates = tuple(
        Candidate(row=row, spot=spot, player=players.get(spot))
        for row, spot in zip(rows, spotted.spots, strict=True)
    )
    return VideoPart(
        name=spotted.name, fps=spotted.fps, motion=spotted.motion, candidates=candidates
    )


def _shown(spot: Spot, numbers: Sequence[int]) -> list[int]:
    """Return the frames of a spot's player: some before it and behind, evenly."""
    beyond = max(2, (spot.offset - spot.onset) // 3)
    first = int(np.searchsorted(numbers, spot.onset - beyond))
    last = min(int(np.searchsorted(numbers, spot.offset + beyond)), len(numbers) - 1)
    rows = np.unique(np.linspace(first, last, PLAYER_FRAMES).astype(int))
    return [numbers[row] for row in rows.tolist()]


def _with_fewer_players(parts: Sequence[VideoPart]) -> list[VideoPart]:
    """Keep the players of the highest spots of all videos."""
    scores = sorted((c.spot.score for part in parts for c in part.candidates), reverse=True)
    if len(scores) <= MOST_PLAYERS:
        return list(parts)
    least = scores[MOST_PLAYERS - 1]
    return [
        replace(
            part,
            candidates=tuple(
                c if c.spot.score >= least else replace(c, player=None) for c in part.candidates
            ),
        )
        for part in parts
    ]


def _spot_store(
    path: Path, fps: float | None, recipe: SpotRecipe, report: bool
) -> Iterator[tuple[str, str | tuple[Spotted, VideoPart]]]:
    from apexflow.storage.store import open_store

    with open_store(str(path)) as store:
        if not store.layout.keep_frames:
            raise ApexflowError(f"{path} holds no frames; its recipe must say frames.keep = true")
        for index, record in store.finished():
            try:
                yield record.clip, _spot_clip(store, index, record, fps, recipe, report)
            except ApexflowError as error:
                yield record.clip, str(error)


def _spot_clip(
    store: Store,
    index: int,
    record: ClipRecord,
    fps: float | None,
    recipe: SpotRecipe,
    report: bool,
) -> tuple[Spotted, VideoPart]:
    source = str(store.column("source")[index])
    rate = fps or _rate_of_dataset(record, source)
    _refuse_short(len(record.frame_numbers), rate, recipe)
    crops = store.frames(record)
    motion = motion_curves(
        crops,
        fps=rate,
        landmarks=_landmarks(record),
        numbers=record.frame_numbers,
        recipe=recipe,
    )
    spotted = Spotted(
        dataset=record.dataset,
        subject=record.subject,
        name=record.clip,
        path=source,
        fps=rate,
        motion=motion,
    )
    candidates = []
    for row, spot in zip(spotted.rows(), spotted.spots, strict=True):
        chosen = _shown(spot, record.frame_numbers) if report else []
        at = [record.frame_numbers.index(number) for number in chosen]
        player = Player.of(chosen, list(crops[at])) if report else None
        candidates.append(Candidate(row=row, spot=spot, player=player))
    part = VideoPart(name=record.clip, fps=rate, motion=motion, candidates=tuple(candidates))
    return spotted, part


def _rate_of_dataset(record: ClipRecord, source: str) -> float:
    rate = rate_of_dataset(record.dataset)
    if rate is None:
        raise ClipError(f"{source}: nobody says its frames a second; give --fps")
    return rate


def _landmarks(record: ClipRecord) -> NDArray[np.float64] | None:
    """Return a record's landmarks in parts of the crop; None without."""
    points = np.asarray(record.landmarks, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        return None
    x0, y0, x1, y1 = record.box
    return np.asarray((points - (x0, y0)) / (x1 - x0, y1 - y0))


def _write_table(path: Path, videos: Iterable[Spotted]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for video in videos:
                writer.writerows(safe_row([row[name] for name in COLUMNS]) for row in video.rows())
    except OSError as error:
        raise ApexflowError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def _bar(progress: bool) -> Iterator[Any]:
    """Yield what starts the progress of one video: frames done, a second, time left."""
    if not progress:
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:

        def start(name: str) -> Report:
            task = bar.add_task(name, total=None, rate="")

            def told(done: int, total: int) -> None:
                speed = bar.tasks[task].speed
                rate = f"{speed:.0f} frames/s" if speed else ""
                bar.update(task, completed=done, total=total, rate=rate)

            return told

        yield start
