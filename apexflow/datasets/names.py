"""Names on disk: what systems leave behind, and one spelling of what is the same."""

from __future__ import annotations

import re
import unicodedata

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff"}
    | {".webp", ".pgm", ".ppm", ".pnm", ".jp2"}
)
"""How images are called; which format one has, its content says."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".webm", ".wmv", ".m4v", ".mpg", ".mpeg", ".ts", ".mts"}
    | {".m2ts", ".flv", ".3gp", ".ogv", ".asf", ".mxf", ".vob", ".divx", ".gif"}
)
"""How videos are called; whether a file is one, its content says."""

AMBIGUOUS = "may be any of"
"""The extra of a clip for which several folders can be meant, joined by " | "."""

# What operating systems, network disks and tools make beside the data, in lower case.
_SYSTEM = frozenset(
    {"__macosx", "$recycle.bin", "recycler", "recycled", "system volume information"}
    | {"lost+found", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}
    | {"@tmp", "@sharebin", "@synoeastream", "@synoresource", "network trash folder"}
    | {"temporary items", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"}
    | {"icon\r", "__pycache__", "wpsettings.dat", "indexervolumeguid", "$extend"}
)
_FOUND = re.compile(r"found\.\d{3}")  # what a check of a FAT disk makes


def is_system(name: str) -> bool:
    """Tell whether a file or folder is a system's own, or hidden: it is never data.

    ``._img1.jpg``, ``.DS_Store``, ``__MACOSX``, ``@eaDir``, ``$RECYCLE.BIN``, ``Thumbs.db``, …
    """
    lower = name.casefold()
    return lower.startswith((".", "~$")) or lower in _SYSTEM or bool(_FOUND.fullmatch(lower))


def composed(text: str) -> str:
    """Return a name in composed Unicode: macOS disks keep it decomposed."""
    return unicodedata.normalize("NFC", text)


def alike(text: str) -> str:
    """Return what names have in common that a person takes for one: case and Unicode form."""
    return composed(text).casefold()
