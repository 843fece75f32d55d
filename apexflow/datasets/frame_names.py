"""Which of a folder's images are its frames: their names are compared with each other.

The frames of a folder follow one pattern with one number, ``006_05562.jpg``. Copies, previews,
pictures named by a time, and those of another pattern are left out, and said to be.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from apexflow.datasets.names import IMAGE_SUFFIXES, alike, composed, is_system

# The layout that keeps only the frames that matter names them instead of numbering them.
NAMED_FRAMES = {"onset_frame": 1, "apex_frame": 2, "offset_frame": 3}
# As long as a table's frame numbers may be; a store keeps 63 bits, 18 digits.
MOST_DIGITS = 12

_TRAILING_NUMBER = re.compile(r"(\d+)$", re.ASCII)
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.ASCII | re.DOTALL)
_COPY_WORDS = r"copy|copie|kopie|copia|cópia|копия|副本|コピー|복사본"
_COPY = re.compile(
    rf"(?P<of>.*?\d)(?:(?:\s*-\s*|[ _])(?:{_COPY_WORDS})(?:\s*\(?\d+\)?)?|\s*\(\d+\)| \d+)"
    rf"|(?:{_COPY_WORDS})(?:\s*\(?\d+\)?)?(?: of| von| de| di| -)? *(?P<before>.+)",
    re.IGNORECASE,
)
_OTHER = "its name has another pattern than the others"
_Pattern = tuple[str, str]
_PREVIEW = re.compile(r"thumb|preview|vorschau|small|icon", re.IGNORECASE)
# 2024-01-02, 20240102123045, or seconds or more since 1970.
_TIME = re.compile(r"(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d|(?<!\d)1[5-9]\d{8}(?:\d{3}){0,3}(?!\d)")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that is not a frame of its folder, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of one folder.

    Attributes
    ----------
    frames : dict of int to str
        The file name of each frame, by ascending number.
    left_out : tuple of LeftOut
        Images that are none.
    repeated : tuple of (int, str, str)
        Numbers that two files have, and these.
    problem : str
        Why the folder's names cannot be understood; empty where they can.
    """

    frames: dict[int, str]
    left_out: tuple[LeftOut, ...] = ()
    repeated: tuple[tuple[int, str, str], ...] = ()
    problem: str = ""


def frame_number(stem: str) -> int | None:
    """Return the number of the frame in a file called ``stem``, without its suffix."""
    if stem.casefold() in NAMED_FRAMES:
        return NAMED_FRAMES[stem.casefold()]
    found = _TRAILING_NUMBER.search(stem)
    return int(found.group()) if found else None


def is_image(name: str) -> bool:
    """Tell whether a file is called like an image, and is not a system's own."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES and not is_system(name)


def choose_frames(names: Iterable[str]) -> Listing:
    """Find the frames among the names of a folder's files."""
    images = sorted(name for name in names if is_image(name))
    named = [name for name in images if _stem(name).casefold() in NAMED_FRAMES]
    if any(_stem(name).casefold() == "onset_frame" for name in named):
        others = [LeftOut(n, "the folder's frames have names") for n in images if n not in named]
        return _numbered([(NAMED_FRAMES[_stem(name).casefold()], name) for name in named], others)
    left_out, rest = _without_copies(images)
    if len(left_out) > len(rest):
        return Listing({}, (), (), f"more copies than images by their names: {left_out[0].name}, …")
    patterns: dict[_Pattern, list[tuple[int, str]]] = defaultdict(list)
    for name in rest:
        match = _LAST_NUMBER.fullmatch(_stem(name))
        if match is None:
            left_out.append(LeftOut(name, "no number in its name"))
        elif len(match[2].lstrip("0")) > MOST_DIGITS:
            left_out.append(LeftOut(name, f"a number of more than {MOST_DIGITS} digits"))
        else:
            patterns[alike(match[1]), alike(match[3])].append((int(match[2]), name))
    return _of_patterns(patterns, left_out)


def _of_patterns(
    patterns: dict[_Pattern, list[tuple[int, str]]], left_out: list[LeftOut]
) -> Listing:
    ranked = sorted(_likely(patterns).items(), key=lambda item: len(item[1]), reverse=True)
    if not ranked:
        return Listing({}, tuple(left_out))
    best, frames = ranked[0]
    if len(ranked) > 1 and 2 * len(ranked[1][1]) >= len(frames):
        shown = " and ".join(f"{len(found)} like {found[0][1]}" for _, found in ranked[:2])
        return Listing(
            {},
            (),
            (),
            f"the images' names follow {len(ranked)} patterns, {shown}; keep the frames of one",
        )
    for pattern, found in patterns.items():
        if pattern != best:
            left_out += [LeftOut(name, _why(name)) for _, name in found]
    return _numbered(frames, left_out)


def _likely(
    patterns: dict[_Pattern, list[tuple[int, str]]],
) -> dict[_Pattern, list[tuple[int, str]]]:
    """Return the patterns that frames may have: as plain as there are."""
    # What stands behind the number makes it another picture, as long as there are plain ones.
    for tails in ({""}, {"", ")"}):
        plain = {key: found for key, found in patterns.items() if key[1] in tails}
        usual = {k: f for k, f in plain.items() if any(_why(name) == _OTHER for _, name in f)}
        if usual or plain:
            return usual or plain
    return patterns


def _numbered(frames: Sequence[tuple[int, str]], left_out: list[LeftOut]) -> Listing:
    numbered: dict[int, str] = {}
    repeated = []
    for number, name in frames:
        if number in numbered:
            repeated.append((number, numbered[number], name))
        else:
            numbered[number] = name
    return Listing(dict(sorted(numbered.items())), tuple(left_out), tuple(repeated))


def _without_copies(images: Sequence[str]) -> tuple[list[LeftOut], list[str]]:
    """Part the copies of a folder's images from the images."""
    stems = {alike(_stem(name)) for name in images}
    copies, rest = [], []
    for name in images:
        original = _original(_stem(name))
        if original and alike(original) in stems:
            copies.append(LeftOut(name, f"a copy of {original} by its name"))
        else:
            rest.append(name)
    return copies, rest


def _original(stem: str) -> str:
    """Return what a file is a copy of by its name, empty where it is not one."""
    match = _COPY.fullmatch(composed(stem))
    return "" if match is None else (match["of"] or match["before"]).strip()


def _why(name: str) -> str:
    stem = _stem(name)
    if _original(stem):
        return "a copy by its name"
    if _PREVIEW.search(stem):
        return "a preview by its name"
    if _TIME.search(stem):
        return "named by a time, unlike the others"
    return _OTHER


def _stem(name: str) -> str:
    return PurePath(name).stem
