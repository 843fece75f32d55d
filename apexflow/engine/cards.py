"""The CUDA cards of this machine, counted without CuPy where there is none."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

from apexflow.errors import ApexflowError

logger = logging.getLogger(__name__)

RESOURCE = "GPU"
"""What a Dask worker that has a card says that it has."""

DEFAULT = "APEXFLOW_GPUS"
"""The environment variable that says what "auto" is."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
OPENER = "APEXFLOW_CARD"
CUDA_CARD = "apexflow.engine.on_card:CudaCard"

DECODER = "nvidia.nvimgcodec"

_NO_CUPY = "CuPy is not installed: pip install 'apexflow[gpu]'"


@dataclass(frozen=True, slots=True)
class CardPlace:
    """A card that a worker is to be started for.

    Attributes
    ----------
    visible : str
        What `CUDA_VISIBLE_DEVICES` is in that worker.
    opener : str
        ``module:function`` that opens the card in the worker.
    """

    visible: str
    opener: str = CUDA_CARD

    @property
    def environment(self) -> dict[str, str]:
        return {VISIBLE: self.visible, OPENER: self.opener}


def check_gpus(gpus: str | int) -> int | None:
    """Return the number of cards asked for; None for all that are there ("auto").

    What "auto" means may be said by the environment (`DEFAULT`).
    """
    if gpus == "auto":
        gpus = os.environ.get(DEFAULT, "auto")
    if gpus == "auto":
        return None
    count = -1
    if isinstance(gpus, str) and gpus.isdecimal():
        count = int(gpus)
    elif isinstance(gpus, int) and not isinstance(gpus, bool):
        count = gpus
    if count < 0:
        raise ApexflowError(f"gpus must be 'auto' or a number from 0 up, not {gpus!r}")
    return count


def find_cards(gpus: str | int) -> tuple[CardPlace, ...]:
    """Return the cards of this machine that a run takes.

    Parameters
    ----------
    gpus : "auto" or int
        All cards that can be used, or so many.

    Raises
    ------
    ApexflowError
        When more are asked for than there are.
    """
    wanted = check_gpus(gpus)
    if wanted == 0:
        return ()
    there = _count()
    reason = _unusable() if there else ""
    if wanted is None:
        if reason:
            logger.info("%d cards are not used: %s", there, reason)
        return () if reason else _places(there)
    if there < wanted or reason:
        raise ApexflowError(
            f"gpus is {wanted}, and "
            + (reason if there >= wanted else _too_few(there))
            + "; take gpus 'auto' to use what is there, 0 for the CPU"
        )
    return _places(wanted)


def check_decoder(cards: Sequence[CardPlace]) -> None:
    """See that there are cards, and the library with which they decode JPEG files.

    Raises `ApexflowError` when not.
    """
    if not cards:
        raise ApexflowError("gpu_decode is asked for, and this run has no card to decode on")
    if not decoder_there():
        raise ApexflowError("gpu_decode needs nvImageCodec: pip install 'apexflow[gpu,gpu-decode]'")


def decoder_there() -> bool:
    """Whether nvImageCodec is installed."""
    package, _, _ = DECODER.partition(".")
    return find_spec(package) is not None and find_spec(DECODER) is not None


def _too_few(there: int) -> str:
    visible = os.environ.get(VISIBLE)
    limit = "" if visible is None else f" ({VISIBLE} is {visible!r})"
    return f"this machine has {there or 'no'} CUDA card{'s' * (there > 1)}{limit}"


def _places(count: int) -> tuple[CardPlace, ...]:
    """Return the first cards, by the names that they have in this process's environment."""
    visible = os.environ.get(VISIBLE, "").strip()
    names = [name.strip() for name in visible.split(",")] if visible else map(str, range(count))
    return tuple(CardPlace(name) for name in list(names)[:count])


def _unusable() -> str:
    """Return why CuPy cannot use the cards; empty when it can."""
    if find_spec("cupy") is None:
        return _NO_CUPY
    import cupy

    return "" if cupy.is_available() else "CuPy finds none that it can use (driver too old?)"


def _count() -> int:
    """Ask the driver how many cards this process may see; 0 without a driver."""
    count = ctypes.c_int(0)
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0
