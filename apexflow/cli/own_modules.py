"""The user's own models: modules that lie in the current folder."""

from __future__ import annotations

import sys
from pathlib import Path


def find_in_current_folder() -> None:
    """Let ``nets:Net`` name what is in nets.py of the current folder, before what is installed.

    `python -m` looks there by itself; the command ``apexflow`` looks first where it is installed.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
