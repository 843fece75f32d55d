"""Cards for worker processes of tests: they compute on the CPU, and fail as they are told.

What a card does is in the environment, so that real worker processes know it: ``FAKE_CARD``
names a trouble, ``FAKE_CARD_CLIP`` the only clip that has it, ``FAKE_CARD_FOLDER`` a folder.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.engine.batched import compute_clip
from apexflow.engine.faces import Face
from apexflow.engine.frames import decode_image
from apexflow.engine.prepared import PreparedClip
from apexflow.engine.process import ClipResult, process_clip
from apexflow.engine.recipe import Recipe
from apexflow.kernels.gpu import Device

TROUBLE, CHOSEN, FOLDER = "FAKE_CARD", "FAKE_CARD_CLIP", "FAKE_CARD_FOLDER"
NAME = "Test Card"
FACE = Face((60.5, 30.5, 140.5, 130.5), ((80, 60), (120, 60), (100, 80), (85, 105), (115, 105)), 1)


@dataclass
class FakeCard:
    """A card whose computation is the CPU's."""

    name: str = NAME
    broken: bool = False

    def find_face(self, image: Any, options: Any) -> Face | None:
        return FACE

    def compute(self, prepared: PreparedClip, recipe: Recipe) -> ClipResult:
        if os.environ.get(CHOSEN) in (None, prepared.clip.name):
            self._trouble(os.environ.get(TROUBLE, ""))
        found = process_clip(prepared.clip, recipe, detector=_Known(prepared.place.face))
        return replace(found, device=self.name, face_device=prepared.face_device)

    def _trouble(self, kind: str) -> None:
        if kind.endswith(" once"):
            if not _first_time():
                return
            kind = kind.removesuffix(" once")
        if kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "breaks":
            self.broken = True
        if kind in ("breaks", "fails"):
            raise RuntimeError("illegal memory access")
        if kind == "is full":
            raise MemoryError("out of memory")
        if kind == "hangs":
            time.sleep(1e6)


@dataclass
class ShimCard:
    """A card whose kernels are the CUDA sources as C++."""

    name: str = NAME
    broken: bool = False
    device: Any = field(init=False)

    def __post_init__(self) -> None:
        from tests.kernels.cuda.build import ShimDevice

        self.device = ShimDevice(Path(os.environ[FOLDER]))

    def find_face(self, image: Any, options: Any) -> Face | None:
        return None

    def compute(self, prepared: PreparedClip, recipe: Recipe) -> ClipResult:
        decoder = OpenCvDecoder(self.device)
        return compute_clip(prepared, recipe, self.device, name=self.name, decoder=decoder)


@dataclass
class OpenCvDecoder:
    """The CPU's decoder in the place of a card's."""

    device: Device
    seen: int = 0

    def decode(self, files: Sequence[NDArray[np.uint8]], *, color: bool) -> list[Any]:
        self.seen += len(files)
        images = (decode_image("a file", file, color=color) for file in files)
        return [self.device.xp.asarray(image) for image in images]


@dataclass
class _Known:
    face: Face

    def detect(self, image: Any) -> Face:
        return self.face


def _first_time() -> bool:
    try:
        (Path(os.environ[FOLDER]) / "happened").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
