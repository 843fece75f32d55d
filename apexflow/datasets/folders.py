"""The folders of a data set on disk: listed lazily, once each, without opening a frame."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from apexflow.datasets.names import VIDEO_SUFFIXES, alike, is_system
from apexflow.datasets.rows import whole_number
from apexflow.errors import ApexflowError

_MOST_LISTED = 20_000
_WIDEST = 2_000  # folders looked into for the base of the data set


class Tree:
    """Names of the folders below a root, without those that systems make.

    Attributes
    ----------
    root : Path
    ambiguous : dict of str to tuple of str
        Folders that a clip's may be, by the path that it would have: a guess between them
        could give a clip the frames of another.

    Raises
    ------
    ApexflowError
        The root does not exist, is not a folder, or is empty.
    """

    def __init__(self, root: str | Path, layout: str = "") -> None:
        self.root = Path(root)
        self.ambiguous: dict[str, tuple[str, ...]] = {}
        self._folders: dict[str, tuple[str, ...]] = {}
        hint = f"; expected {layout}" if layout else ""
        if not self.root.exists():
            raise ApexflowError(f"{self.root}: no such folder{hint}")
        if not self.root.is_dir():
            raise ApexflowError(f"{self.root}: not a folder{hint}")
        try:
            with os.scandir(self.root) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            raise ApexflowError(f"{self.root}: cannot be listed ({error.strerror})") from None
        if empty:
            raise ApexflowError(f"{self.root}: the folder is empty{hint}")

    def folders(self, relative: str = "") -> tuple[str, ...]:
        """Return the sorted names of the folders in a folder; none when it is missing."""
        if relative not in self._folders:
            try:
                with os.scandir(self.root / relative) as entries:
                    names = sorted(e.name for e in entries if e.is_dir() and not is_system(e.name))
            except OSError:
                names = []
            self._folders[relative] = tuple(names)
            if len(self._folders) > _MOST_LISTED:
                raise ApexflowError(
                    f"{self.root}: more than {_MOST_LISTED} folders in it; is it the data set's?"
                )
        return self._folders[relative]

    def videos(self, relative: str = "") -> tuple[str, ...]:
        """Return the sorted names of the files in a folder that are called like videos."""
        try:
            with os.scandir(self.root / relative) as entries:
                names = [e.name for e in entries if e.is_file() and not is_system(e.name)]
        except OSError:
            return ()
        return tuple(sorted(n for n in names if Path(n).suffix.lower() in VIDEO_SUFFIXES))

    def child(self, parent: str, matches: Callable[[str], bool], exact: str) -> str | None:
        """Return the one folder of ``parent`` that is meant, as a path relative to root.

        An exact name wins, then one that differs in case or Unicode form alone; otherwise
        exactly one name must match. Several are remembered in `ambiguous`.
        """
        names = self.folders(parent)
        for found in (
            [name for name in names if name == exact],
            [name for name in names if alike(name) == alike(exact)],
            [name for name in names if matches(name)],
        ):
            if len(found) == 1:
                return join(parent, found[0])
            if found:
                self.doubt(join(parent, exact), [join(parent, name) for name in found])
                return None
        return None

    def doubt(self, path: str, choices: Iterable[str]) -> None:
        """Remember that ``path`` may be any of several folders."""
        self.ambiguous[path] = tuple(choices)

    def choices(self, source: str) -> tuple[str, ...]:
        """Return the folders that may be meant by a clip's source, where there are several."""
        parts = source.split("/")
        for i in range(1, len(parts) + 1):
            found = self.ambiguous.get("/".join(parts[:i]))
            if found:
                return found
        return ()

    def base(self, belongs: Callable[[str], bool]) -> str:
        """Return the folder, at most two levels down, whose folders are the data set's own.

        Archives unpack into a folder of their own ("CASME2_RAW_selected/sub01"). With
        no such folder the root itself is the base, so that clips are reported missing one
        by one.

        Raises
        ------
        ApexflowError
            Two folders qualify, for example a raw and a cropped tree side by side.
        """
        level = [""]
        for _ in range(3):
            found = [f for f in level if any(belongs(name) for name in self.folders(f))]
            if len(found) > 1:
                raise ApexflowError(
                    f"{self.root}: both {found[0]} and {found[1]} hold the data set's folders; "
                    "give one of them as the root"
                )
            if found:
                return found[0]
            level = [join(f, name) for f in level for name in self.folders(f)][:_WIDEST]
        return ""


def join(*parts: str) -> str:
    """Join relative path parts with forward slashes, skipping empty ones."""
    return "/".join(part for part in parts if part)


def subject_number(text: str) -> int | None:
    """Return the number that a subject or its folder is known by.

    "006", "6.0", "sub06", "s6" and "spNO.6" are 6.
    """
    match = re.fullmatch(r"(?:[A-Za-z]+[ ._-]?(?:NO\.)?)?(.+)", text.strip(), re.IGNORECASE)
    return whole_number(match[1], most_digits=9) if match else None


def find_annotations(root: Path | None, names: Iterable[str], title: str) -> Path:
    """Return the annotation file that lies in ``root``, or beside it, under a usual name."""
    names = tuple(names)
    if root is None:
        raise ApexflowError(f"{title}: without a root folder, name the annotation file")
    for folder in (root, root.absolute().parent):
        try:
            present = {entry.name.casefold(): entry for entry in folder.iterdir()}
        except OSError:
            continue
        for name in names:
            if name.casefold() in present:
                return present[name.casefold()]
    raise ApexflowError(
        f"{root}: no annotation file in or beside it ({', '.join(names)}); name it explicitly"
    )
