"""One page about one video or folder of frames: no table, no recipe to choose."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.catalog import Clip
from apexflow.datasets.sources import FrameSource, Image, open_frames
from apexflow.engine.clip.align import align_frames
from apexflow.engine.clip.backend import CPU
from apexflow.engine.clip.clock import Clock
from apexflow.engine.clip.faces import LocatedFace, NoFaceError, locate_in_clip
from apexflow.engine.clip.flow import flow_between
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.plan import ClipPlan, plan_clip
from apexflow.engine.clip.quality import FrameQuality, frame_quality, shows_face, tracking_flags
from apexflow.engine.clip.rate import frame_rate
from apexflow.engine.clip.result import Aligned
from apexflow.engine.recipe import Recipe
from apexflow.engine.regions import in_crop
from apexflow.errors import ApexflowError, ClipError
from apexflow.quality import MEANINGS, Flag
from apexflow.report.look_motion import HEAD, Candidate, find_candidates, motion_curves, step_of

MOST_FRAMES = 360
"""A longer clip is looked at in every second, third … frame."""

_REGIONS = ("eyes", "eyebrows", "mouth")
_COLORS = {"eyes": "#3b7ddd", "eyebrows": "#d97a1e", "mouth": "#2f9e6e", HEAD: "#8a8f98"}
_PADDING = 10.0  # px around the points of a mesh
_PLAYER_FRAMES = 240
_RAW_SIDE, _ALIGNED_SIDE = 420, 224  # px, the longer side
_ARROW_GRID = 14  # px of the crop between arrows
_HEAD_MOVES = 1.0  # px of the crop


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one clip.

    Attributes
    ----------
    name : str
    rate : float or None
        Frames a second, as the video says.
    frame_count : int
        Frames on disk.
    numbers : tuple of int
        The frames that were looked at.
    face : str
        "found", or why not.
    flags : tuple of Flag
    candidates : tuple of Candidate
    verdicts : tuple of str
        What it comes to, in plain sentences.
    """

    name: str
    rate: float | None
    frame_count: int
    numbers: tuple[int, ...]
    face: str
    flags: tuple[Flag, ...]
    candidates: tuple[Candidate, ...]
    verdicts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Tracked:
    """A clip whose face was found: where it is in each frame, and how sure that is."""

    located: LocatedFace
    aligned: Aligned
    quality: FrameQuality
    flags: tuple[Flag, ...]


def write_look(
    source: str | Path,
    path: str | Path,
    *,
    blazeface: str | Path | None = None,
    mesh: str | Path | None = None,
) -> Look:
    """Look at a video or a folder of frames, and write one self-contained HTML page about it.

    Parameters
    ----------
    source, path : path
    blazeface, mesh : path, optional
        Model files: BlazeFace finds the face in place of MTCNN, FaceMesh its parts.

    Raises
    ------
    ApexflowError
        There are no two frames to look at, a model is none, or the page cannot be written.
    """
    recipe = _recipe(blazeface, mesh)
    clip, opened = _open(source)
    _, plan = plan_clip(clip, recipe)
    every = math.ceil(len(plan.numbers) / MOST_FRAMES)
    numbers = tuple(sorted({*plan.numbers[::every], plan.template}))
    plan = replace(plan, numbers=numbers)
    rate = frame_rate(clip, opened)
    frames = ClipFrames(opened, plan, Clock(), color=False)
    seen_rate = rate and rate / every
    try:
        tracked = _track(frames, clip, recipe)
    except NoFaceError as error:
        found = _without_face(clip, rate, opened, numbers, str(error))
        page: dict[str, Any] = {"player": _player(opened, numbers, None)}
    else:
        found, page = _with_face(clip, rate, seen_rate, opened, frames.plan, tracked, recipe)
    _write(Path(path), found, page, every, seen_rate)
    return found


def _open(source: str | Path) -> tuple[Clip, FrameSource]:
    path = Path(source).resolve()
    clip = Clip(dataset="look", subject="-", name=path.name, source=path.name, root=path.parent)
    opened = open_frames(clip)
    numbers = opened.numbers
    if len(numbers) < 2:
        raise ClipError(
            f"{path} holds one frame, and motion needs two: give a video, or a folder of "
            f"numbered frames"
        )
    return replace(clip, onset=numbers[0], offset=numbers[-1], apex_source="difference"), opened


def _recipe(blazeface: str | Path | None, mesh: str | Path | None) -> Recipe:
    values = Recipe.load("default").to_dict()
    values["frames"]["which"] = "all"
    values["regions"]["names"] = list(_REGIONS)
    if blazeface is not None:
        values["face"] |= {"detector": "blazeface", "model": str(Path(blazeface).resolve())}
    if mesh is not None:
        values["face"] |= {"mesh": str(Path(mesh).resolve())}
        values["regions"]["padding"] = _PADDING
    return Recipe.from_dict(values)


def _track(frames: ClipFrames, clip: Clip, recipe: Recipe) -> _Tracked:
    wanted = frames.plan.template
    located = locate_in_clip(frames, clip, recipe)
    aligned = align_frames(frames, located, recipe, CPU)
    quality = frame_quality(aligned.crops, aligned.numbers.index(frames.plan.template))
    flags = tracking_flags(frames.plan, located, aligned, quality, wanted=wanted)
    return _Tracked(located, aligned, quality, flags)


def _without_face(
    clip: Clip, rate: float | None, source: FrameSource, numbers: tuple[int, ...], reason: str
) -> Look:
    verdicts = (
        "No face was found, so that nothing could be followed.",
        "Faces are found when they look at the camera, are 40 px or more of a picture of 640 px, "
        "and are not turned by more than some 30 degrees.",
    )
    return Look(clip.name, rate, len(source.numbers), numbers, reason, (), (), verdicts)


def _with_face(
    clip: Clip,
    rate: float | None,
    seen_rate: float | None,
    source: FrameSource,
    plan: ClipPlan,
    tracked: _Tracked,
    recipe: Recipe,
) -> tuple[Look, dict[str, Any]]:
    aligned, located = tracked.aligned, tracked.located
    shown = shows_face(tracked.quality)
    size = recipe.crop.height, recipe.crop.width
    placed = in_crop(located.regions, located.box, size)
    everywhere = dict(zip(recipe.regions.placed, placed, strict=True))
    boxes = {name: everywhere[name] for name in _REGIONS}
    step = step_of(seen_rate, len(aligned.numbers))
    curves = motion_curves(aligned.crops, boxes, step, shown)
    candidates = find_candidates(curves, step)
    chosen = candidates[0] if candidates else _strongest(curves, step)
    verdicts = _verdicts(tracked, shown, candidates, curves)
    found = Look(
        clip.name,
        rate,
        len(source.numbers),
        aligned.numbers,
        "found",
        tracked.flags,
        candidates,
        verdicts,
    )
    match = np.where(np.arange(len(shown)) == aligned.numbers.index(plan.template), 2.0, 0.0)
    worst = int((tracked.quality.match + match).argmin())
    page = {
        "player": _player(source, aligned.numbers, tracked),
        "stills": [
            _still(source, tracked, row, title)
            for row, title in ((0, "First frame"), (worst, "Frame least like the template frame"))
        ],
        "chart": _chart(curves, candidates, shown, seen_rate),
        "flow": None if chosen is None else _flow_figure(aligned, chosen, recipe),
        "chosen": chosen,
    }
    return found, page


def _strongest(curves: dict[str, NDArray[np.float64]], step: int) -> Candidate | None:
    """Return the moment at which a region moves most, where none is a candidate."""
    stack = np.stack([curves[name] for name in _REGIONS])
    if not np.isfinite(stack).any():
        return None
    region, row = np.unravel_index(np.nan_to_num(stack, nan=-1).argmax(), stack.shape)
    values = float(stack[region, row]), float(curves[HEAD][row])
    return Candidate(int(row) - step, int(row), int(row), _REGIONS[region], *values)


def _verdicts(
    tracked: _Tracked,
    shown: NDArray[np.bool_],
    candidates: Sequence[Candidate],
    curves: dict[str, NDArray[np.float64]],
) -> tuple[str, ...]:
    lines = []
    lost = int((~shown).sum())
    if 2 * lost > len(shown):
        lines.append(
            f"Tracking failed: {lost} of {len(shown)} frames do not show the face that is in the "
            f"template frame."
        )
    elif lost:
        lines.append(
            f"The face is lost in {lost} of {len(shown)} frames; nothing is measured there."
        )
    else:
        lines.append("The face was followed through all frames that were looked at.")
    if tracked.located.candidates > 1:
        lines.append(
            f"There are {tracked.located.candidates} faces in the template frame; the largest was "
            f"followed."
        )
    if not candidates:
        lines.append("No part of the face moves strikingly more than it usually does here.")
    elif candidates[0].is_head:
        lines.append(
            "What moves is the head: within the strongest candidate the whole face moves more "
            "than any part of it."
        )
    moving = np.nanmax(curves[HEAD]) if np.isfinite(curves[HEAD]).any() else 0.0
    if moving > _HEAD_MOVES and not (candidates and candidates[0].is_head):
        lines.append(
            f"The head turns or tilts at times, by up to {moving:.1f} px that alignment does not "
            f"take out: be careful with candidates there."
        )
    return tuple(lines)


def _player(
    source: FrameSource, numbers: Sequence[int], tracked: _Tracked | None
) -> dict[str, Any]:
    """Return the frames of the player as JPEGs, and where the face's box is in each."""
    rows = range(0, len(numbers), math.ceil(len(numbers) / _PLAYER_FRAMES))
    raw, size = [], (1, 1)
    for image in source.read([numbers[row] for row in rows], color=True):
        size = image.shape[1], image.shape[0]
        raw.append(_jpeg(_fitted(image, _RAW_SIDE), 68))
    player: dict[str, Any] = {
        "rows": list(rows),
        "numbers": [numbers[row] for row in rows],
        "raw": raw,
        "size": size,
    }
    if tracked is not None:
        shown = shows_face(tracked.quality)
        player["aligned"] = [
            _jpeg(_fitted(tracked.aligned.crops[row], _ALIGNED_SIDE), 78) for row in rows
        ]
        player["corners"] = [np.round(_corners(tracked, row), 1).tolist() for row in rows]
        player["shown"] = [bool(shown[row]) for row in rows]
        player["score"] = [round(float(tracked.aligned.score[row]), 3) for row in rows]
    return player


def _corners(tracked: _Tracked, row: int) -> NDArray[np.float64]:
    """Return the corners (4, 2) of the face's box in a frame, moved and turned as it was."""
    x0, y0, x1, y1 = tracked.located.box
    aligned = tracked.aligned
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float) - middle
    angle = np.deg2rad(aligned.rotation[row])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return corners @ turn.T * float(aligned.scale[row]) + middle + aligned.shift[row]


def _still(source: FrameSource, tracked: _Tracked, row: int, title: str) -> dict[str, str]:
    number = tracked.aligned.numbers[row]
    (image,) = source.read([number], color=True)
    image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    shown = bool(shows_face(tracked.quality)[row])
    line = max(2, round(max(image.shape) / 250))
    color = (60, 200, 80) if shown else (60, 60, 230)
    corners = np.round(_corners(tracked, row)).astype(np.int32)
    cv2.polylines(image, [corners], True, color, line, cv2.LINE_AA)
    match = float(tracked.quality.match[row])
    said = "" if shown else ", the face is lost"
    return {
        "title": title,
        "caption": f"frame {number}: correlation {match:.2f} with the template frame{said}",
        "uri": f"data:image/jpeg;base64,{_jpeg(_fitted(image, 640), 80)}",
    }


def _fitted(image: Image, side: int) -> Image:
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(image: Image, quality: int) -> str:
    return _encoded(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encoded(image: Image, suffix: str, options: Sequence[int] = ()) -> str:
    _, data = cv2.imencode(suffix, image, list(options))
    return base64.b64encode(data.tobytes()).decode()


_CHART = (900.0, 260.0, 46.0, 10.0, 30.0)  # width, height, left, top, bottom


def _chart(
    curves: dict[str, NDArray[np.float64]],
    candidates: Sequence[Candidate],
    shown: NDArray[np.bool_],
    rate: float | None,
) -> dict[str, Any]:
    """Return the curves as the lines of a drawing, with ticks of both axes."""
    width, height, left, top, bottom = _CHART
    count = len(shown)
    every = np.concatenate([curve[np.isfinite(curve)] for curve in curves.values()])
    most = max(float(every.max()) if every.size else 0.0, 0.5)
    unit = _round_number(most / 3)

    def x(row: float) -> float:
        return left + (width - left - 8) * row / max(1, count - 1)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * value / (most * 1.05)

    lines = []
    for name, curve in curves.items():
        path, pen = [], "M"
        for row, value in enumerate(curve):
            if not np.isfinite(value):
                pen = "M"
                continue
            path.append(f"{pen}{x(row):.1f} {y(value):.1f}")
            pen = "L"
        lines.append({"name": name, "color": _COLORS[name], "path": " ".join(path)})
    seconds = count / rate if rate else 0.0
    tick = _round_number(seconds / 6) * rate if rate else _round_number(count / 6)
    ticks = [
        (x(row), f"{row / rate:g} s" if rate else f"{row:g}")
        for row in np.arange(0, count, max(tick, 1e-6)).tolist()
    ]
    lost = np.flatnonzero(~shown)
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": x(count - 1),
        "base": y(0),
        "top": top,
        "lines": lines,
        "x_ticks": ticks,
        "y_ticks": [(y(v), f"{v:g}") for v in np.arange(0, most * 1.05, unit).tolist()],
        "bands": [
            (x(one.onset), max(x(one.offset) - x(one.onset), 2.0), i)
            for i, one in enumerate(candidates, 1)
        ],
        "lost": [(x(row - 0.5), max(x(row + 0.5) - x(row - 0.5), 1.0)) for row in lost.tolist()],
    }


def _round_number(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, the largest that is not above a value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(m for m in (5, 2, 1) if m * power <= value * (1 + 1e-9)) * power)


def _flow_figure(aligned: Aligned, chosen: Candidate, recipe: Recipe) -> dict[str, Any]:
    """Return the flow of a moment in colours and in arrows, less what the whole face moves."""
    pair = aligned.crops[[chosen.onset, chosen.apex]]
    images: NDArray[Any] = pair
    if recipe.normalization.method != "none":
        images = kernels.normalize_light(pair, **recipe.normalization.options)
    (flow,) = flow_between(images, np.array([[0, 1]]), recipe.flow, CPU)
    head = np.median(flow, axis=(1, 2))
    within = flow - head[:, None, None]
    length = np.hypot(*within)
    most = max(float(np.percentile(length, 99)), 0.05)
    height, width = pair.shape[1:]
    gain = 1.4 * _ARROW_GRID / most
    arrows = [
        (x, y, x + gain * within[0, y, x], y + gain * within[1, y, x])
        for y in range(_ARROW_GRID // 2, height, _ARROW_GRID)
        for x in range(_ARROW_GRID // 2, width, _ARROW_GRID)
        if length[y, x] > 0.12 * most
    ]
    scale = _round_number(most)
    return {
        "wheel": f"data:image/png;base64,{_encoded(_colored(_wheel(most), most), '.png')}",
        "colors": f"data:image/png;base64,{_encoded(_colored(within, most), '.png')}",
        "under": f"data:image/jpeg;base64,{_jpeg(aligned.crops[chosen.apex], 82)}",
        "width": width,
        "height": height,
        "arrows": arrows,
        "scale": f"{scale:g}",
        "scale_length": gain * scale,
        "gain": f"{gain:.2g}",
        "most": f"{most:.2f}",
        "head": f"{float(np.hypot(*head)):.2f}",
        "first": aligned.numbers[chosen.onset],
        "second": aligned.numbers[chosen.apex],
    }


def _colored(flow: NDArray[np.floating[Any]], most: float) -> Image:
    """Return flow (2, H, W) as colours: hue is the direction, white is rest."""
    hue = np.rad2deg(np.arctan2(flow[1], flow[0])) % 360 / 2
    strength = np.clip(np.hypot(*flow) / most, 0, 1) * 255
    hsv = np.stack([hue, strength, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def _wheel(most: float, side: int = 96) -> NDArray[np.float64]:
    """Return every flow up to a length, as a disc (2, side, side)."""
    axis = np.linspace(-1, 1, side)
    flow = np.stack(np.meshgrid(axis, axis))
    return np.asarray(np.where(np.hypot(*flow) <= 1, flow * most, 0.0))


def _write(path: Path, look: Look, page: dict[str, Any], every: int, rate: float | None) -> None:
    from jinja2 import Environment

    text = (resources.files("apexflow.report") / "look.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)

    def moment(row: int) -> str:
        number = look.numbers[row]
        return f"{row / rate:.2f} s (frame {number})" if rate else f"frame {number}"

    html = environment.from_string(text).render(
        look=look,
        page=page,
        every=every,
        colors=_COLORS,
        meanings=MEANINGS,
        moment=moment,
        data=json.dumps(
            page["player"]
            | {"rate": rate or 25, "count": len(look.numbers), "chart": page.get("chart", {})}
        ).replace("<", "\\u003c"),
    )
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ApexflowError(
            f"cannot write {path}: {error.strerror}; choose another file (-o)"
        ) from None
