"""Pictures of one clip of a store, for notebooks: matplotlib figures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from apexflow.errors import ApexflowError
from apexflow.kernels.encode import colour_wheel, flow_colours
from apexflow.storage.format import NO_NUMBER, ClipRecord

if TYPE_CHECKING:
    from apexflow.storage.store import Store

_ARROWS = 16
_INCHES = 3.0


class ClipFigure(Figure):
    """A matplotlib figure that a notebook shows by itself, without pyplot's global state."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=100)
        return data.getvalue()


def plot_clip(store: Store, index: int, record: ClipRecord) -> ClipFigure:
    """Draw a clip: onset, apex, offset and first maps; below, score and shift over its frames."""
    pictures = [*_key_frames(store, index, record), *_maps(store, index, record)]
    columns = max(len(pictures), 1)
    figure = ClipFigure(figsize=(_INCHES * max(columns, 2), 2 * _INCHES), layout="constrained")
    grid = figure.add_gridspec(2, columns, height_ratios=(2, 1))
    for place, (title, image) in enumerate(pictures):
        axes = figure.add_subplot(grid[0, place])
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title)
        axes.axis("off")
    axes = figure.add_subplot(grid[1, :])
    axes.plot(record.frame_numbers, record.score, label="score")
    axes.set(xlabel="frame", ylabel="score")
    beside = axes.twinx()
    beside.plot(record.frame_numbers, np.hypot(*np.asarray(record.shift).T), color="C1")
    beside.set_ylabel("shift, px of the frame", color="C1")
    figure.suptitle("/".join(record.key))
    return figure


def plot_flow(store: Store, index: int, record: ClipRecord, window: str | None) -> ClipFigure:
    """Draw the flow of a clip: colours, arrows on the first frame, the wheel with its scale."""
    windows = list(store.layout.windows)
    if not windows:
        raise ApexflowError(f"{store.name} holds no flow; its recipe has no windows")
    name = windows[0] if window is None else window
    if name not in windows:
        raise ApexflowError(f"window must be one of {', '.join(windows)}. Got {name!r}.")
    flow = np.nan_to_num(store.read(f"flow/{name}", index, record).astype(np.float32))
    first = flow.reshape(-1, *flow.shape[-3:])[0]
    longest = max(float(np.percentile(np.hypot(*first), 99)), 0.01)
    figure = ClipFigure(figsize=(3 * _INCHES, _INCHES), layout="constrained")
    colours, arrows, wheel = figure.subplots(1, 3, width_ratios=(2, 2, 1))
    colours.imshow(flow_colours(first, longest))
    colours.set_title(f"flow {name}")
    height, width = first.shape[1:]
    step = max(1, width // _ARROWS)
    rows, along = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    start = _start_frame(store, record, name)
    if start is not None:
        arrows.imshow(start, cmap="gray", vmin=0, vmax=255)
    arrows.quiver(
        *(along, rows, *first[:, rows, along]),
        color="C1",
        angles="xy",
        scale_units="xy",
        scale=longest / (2 * step),
    )
    arrows.set(title="arrows, enlarged", xlim=(0, width), ylim=(height, 0), aspect="equal")
    wheel.imshow(colour_wheel(160))
    wheel.set_title(f"rim: {longest:.2g} px")
    for axes in (colours, arrows, wheel):
        axes.axis("off")
    figure.suptitle("/".join(record.key))
    return figure


def _key_frames(store: Store, index: int, record: ClipRecord) -> list[tuple[str, Any]]:
    if not store.layout.keep_frames:
        return []
    frames = store.frames(record)
    columns = {"onset": "onset", "apex": "apex_frame", "offset": "offset"}
    numbers = {name: int(store.column(column)[index]) for name, column in columns.items()}
    return [
        (f"{name} {number}", frames[record.frame_numbers.index(number)])
        for name, number in numbers.items()
        if number != NO_NUMBER and number in record.frame_numbers
    ]


def _maps(store: Store, index: int, record: ClipRecord) -> list[tuple[str, Any]]:
    found = []
    for name in store.layout.maps:
        maps = store.read(f"maps/{name}", index, record)
        found.append((f"map {name}", maps.reshape(-1, *maps.shape[-3:])[0]))
    return found


def _start_frame(store: Store, record: ClipRecord, window: str) -> Any:
    pairs = record.pairs.get(window, ())
    if not store.layout.keep_frames or not pairs or pairs[0][0] not in record.frame_numbers:
        return None
    return store.frames(record)[record.frame_numbers.index(pairs[0][0])]
