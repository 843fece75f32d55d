"""Loaded by each local worker's nanny: it ends as soon as the process that started it is gone.

A run that is killed must leave nobody behind who goes on writing into its store. The nanny's
own worker process ends with it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

PARENT = "APEXFLOW_PARENT"
_SECONDS_BETWEEN_LOOKS = 0.1


def dask_setup(_nanny: Any) -> None:
    """Begin to watch; Dask calls this when it loads the module."""
    end_with_parent(int(os.environ[PARENT]))


def end_with_parent(parent: int) -> None:
    """End this process within a tenth of a second of the one that started it."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
