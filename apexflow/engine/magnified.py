"""Magnifying the frames of clips that a store holds already, as they are exported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.engine.clip.magnify import magnify_frames
from apexflow.engine.recipe import Magnification
from apexflow.errors import ApexflowError, ClipError
from apexflow.kernels import EulerianMagnified, FlowMagnified
from apexflow.rates import rate_of_dataset
from apexflow.storage.format import NO_NUMBER, ClipRecord
from apexflow.storage.store import Store


class StoredMagnifier:
    """Magnifies the aligned crops of a store, clip by clip, and tells what it found.

    Parameters
    ----------
    store : Store
    wanted : Magnification
        Its method is "eulerian" or "flow".
    fps : float, optional
        Frames a second of all clips, in the place of what the store knows.
    tell : callable
        Takes one line about each clip in which something is doubtful.

    Attributes
    ----------
    left_out : set of int
        Rows of the clips that could not be magnified.

    Raises
    ------
    ApexflowError
        The store's frames are magnified already, or are not all that the method needs.
    """

    def __init__(
        self,
        store: Store,
        wanted: Magnification,
        *,
        fps: float | None = None,
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        recipe = store.attributes.get("recipe", {})
        if recipe.get("magnification", {}).get("method", "none") != "none":
            raise ApexflowError(
                f"{store.name}: its recipe has magnified the frames already; export it without "
                f"--magnified"
            )
        self._few = recipe.get("frames", {}).get("which") == "windows"
        if self._few and wanted.method == "eulerian":
            raise ApexflowError(
                f"{store.name} keeps only the frames of its windows (frames.which), and a band "
                f"needs all: magnify by flow, or process with frames.which = 'interval'"
            )
        self._store, self._wanted, self._fps, self._tell = store, wanted, fps, tell
        self._onsets = store.column("onset").tolist()
        self.left_out: set[int] = set()
        self._told: set[int] = set()

    def __call__(
        self, index: int, record: ClipRecord, crops: NDArray[np.uint8]
    ) -> NDArray[np.uint8] | None:
        """Return the crops of a clip magnified; None where that cannot be, which is told."""
        name = f"{record.subject}/{record.clip}"
        onset = self._onsets[index]
        try:
            result = magnify_frames(
                crops,
                record.frame_numbers,
                self._wanted,
                onset=record.frame_numbers[0] if onset == NO_NUMBER else onset,
                rate=None if self._few else self._rate(record),
            )
        except ClipError as error:
            self.left_out.add(index)
            self._tell_once(index, f"left out  {name}: {error}")
            return None
        if doubt := doubt_about(result):
            self._tell_once(index, f"{name}: {doubt}")
        return result.frames

    def _tell_once(self, index: int, line: str) -> None:
        """Tell of a clip, whatever number of forms it is exported in."""
        if index not in self._told:
            self._told.add(index)
            self._tell(line)

    def _rate(self, record: ClipRecord) -> float | None:
        known = self._fps or record.frame_rate or rate_of_dataset(record.dataset)
        if known is None and self._wanted.method == "eulerian":
            raise ClipError("its frame rate is not known: give --fps, or magnify by flow")
        return known


def doubt_about(result: EulerianMagnified | FlowMagnified) -> str:
    """Return what a clip's magnification could not do; empty where all was done."""
    if isinstance(result, kernels.EulerianMagnified):
        if not result.attenuated:
            return ""
        scales = ", ".join(f"{level.wavelength:g}" for level in result.attenuated)
        alphas = ", ".join(f"{level.alpha:.1f}" for level in result.attenuated)
        which = "every level is" if result.beyond_bound else "levels are"
        return (
            f"motion of {result.motion:.2f} px breaks the bound (1 + alpha) delta < lambda / 8: "
            f"{which} attenuated, of {scales} px to alpha {alphas}"
        )
    if not result.folded:
        return ""
    return (
        f"motion of up to {result.motion:.2f} px, enlarged, folds {result.folded:.1%} of a frame: "
        f"take a smaller factor"
    )
