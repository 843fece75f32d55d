"""Damaged tables, images and videos: no traceback, and audit and process agree on each.

    python benchmarks/fuzz_inputs.py [--tables N] [--images N] [--videos N] [--seed S]

Sound inputs of each kind are damaged as disks, downloads and spreadsheets do it: bytes changed,
cut off, doubled, zeroed, numbers of headers replaced. Each is read in the way of an audit and in
the way of a run. Prints how many were tried, how many were refused, and every disagreement.
"""

from __future__ import annotations

import argparse
import csv
import io
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from apexflow.catalog import Catalog, Clip
from apexflow.datasets import READERS
from apexflow.datasets.audit import Report, audit
from apexflow.datasets.images import inspect_image, read_image
from apexflow.datasets.sources import open_frames
from apexflow.errors import ApexflowError, ClipError

Rng = np.random.Generator
UNREAD = {"row-unread", "path-outside", "duplicate-row"}
_NUMBERS = (0, 1, 2, 3, 255, 256, 65535, 65536, 2**31 - 1, 2**32 - 1)
_CELLS = ("", "nan", "/", "?", "n/a", "6.0", "006", "s06", "-1", "1e9", "3-Jan", "\u200b7", "x/y")
_CELLS += ("9" * 20, "é", "厌恶", "\x00", '"', ";", "MISSING <-4", "2024-03-01", "None", "1,5")


def damaged(data: bytes, rng: Rng) -> bytes:
    """Return data after one to three accidents of a disk."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            break
        at = int(rng.integers(len(content)))
        size = int(rng.integers(1, 1 + min(200, len(content))))
        match rng.integers(8):
            case 0:
                content[at] ^= 1 << int(rng.integers(8))
            case 1:
                del content[at:]
            case 2:
                content[at : at + size] = bytes(len(content[at : at + size]))
            case 3:
                content[at:at] = rng.bytes(size)
            case 4:
                content += rng.bytes(size)
            case 5:
                del content[at : at + size]
            case 6:
                form = str(rng.choice(["<I", ">I", "<H", ">H"]))
                value = int(rng.choice(_NUMBERS)) % (1 << 8 * struct.calcsize(form))
                packed = struct.pack(form, value)
                content[at : at + len(packed)] = packed
            case _:
                content[at : at + size] = content[:size]
    return bytes(content)


def sound_images(rng: Rng) -> list[tuple[str, bytes]]:
    """Return small images of each format and depth, as (suffix, content)."""
    gray = rng.integers(0, 256, (40, 49), np.uint8)
    color = rng.integers(0, 256, (40, 49, 3), np.uint8)
    deep = rng.integers(0, 4096, (40, 49), np.uint16)
    found = [
        (suffix, cv2.imencode(suffix, picture)[1].tobytes())
        for suffix in (".jpg", ".png", ".bmp", ".tif", ".webp", ".jp2")
        for picture in (gray, color)
    ]
    found += [
        (".pgm", cv2.imencode(".pgm", gray)[1].tobytes()),
        (".ppm", cv2.imencode(".ppm", color)[1].tobytes()),
    ]
    found += [(suffix, cv2.imencode(suffix, deep)[1].tobytes()) for suffix in (".png", ".tif")]
    exif = Image.Exif()
    exif[274] = 6
    for options in (
        {"format": "JPEG", "progressive": True},
        {"format": "JPEG", "optimize": True, "exif": exif},
        {"format": "PNG", "exif": exif},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "TIFF", "compression": "tiff_adobe_deflate"},
        {"format": "GIF"},
    ):
        file = io.BytesIO()
        Image.fromarray(color).save(file, **options)
        found.append((".jpg", file.getvalue()))
    restarts = cv2.imencode(".jpg", color, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1]
    return [*found, (".jpg", restarts.tobytes())]


def sound_videos(folder: Path) -> list[tuple[str, bytes]]:
    """Return small videos, as (suffix, content)."""
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8)
    found = []
    for suffix, codec in ((".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "MJPG"), (".avi", "FFV1")):
        path = folder / f"sound{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 30, (64, 48))
        for frame in frames:
            writer.write(frame)
        writer.release()
        if path.exists() and path.stat().st_size:
            found.append((suffix, path.read_bytes()))
    return found


def try_image(path: Path) -> tuple[bool, str]:
    """Look at an image as an audit and as a run do; return (refused, disagreement)."""
    audited = _refusal(lambda: inspect_image(path, deep=True))
    read = [_refusal(lambda c=c: read_image(path, color=c)) for c in (False, True)]  # type: ignore[misc]
    if len({audited is None, *(one is None for one in read)}) > 1:
        return True, f"audit: {audited}; process: {read}"
    _refusal(lambda: inspect_image(path, deep=False))
    return audited is not None, ""


def try_video(path: Path) -> tuple[bool, str]:
    """Look at a video as an audit and as a run do; return (refused, disagreement)."""
    clip = Clip(dataset="table", subject="1", name="a", root=path.parent, source=path.name)

    def read() -> None:
        source = open_frames(clip)
        for _ in source.read(source.numbers, color=False):
            pass

    refused = _refusal(read)
    table = path.parent / "t.csv"
    table.write_text(f"subject,clip,path,onset,apex,offset\n1,a,{path.name},,,\n")
    report = audit("table", path.parent, table)
    found = [f for f in report.findings if f.rule in {"frames-unusable", "video-damaged"}]
    if refused is not None and not found:
        return True, f"process: {refused}; audit says nothing"
    if refused is None and any(f.rule == "frames-unusable" for f in found):
        return True, f"audit: {found[0].message}; process reads it"
    return refused is not None, ""


def try_table(name: str, path: Path) -> tuple[bool, str]:
    """Read a table as an audit and as a run do; return (refused, disagreement)."""
    options = {"subset": "HS-E"} if name == "smic" else {}
    reports: list[Report] = []
    catalogs: list[Catalog] = []
    audited = _refusal(lambda: reports.append(audit(name, None, path, **options)))
    read = _refusal(lambda: catalogs.append(READERS[name].read(None, path, **options)))
    if (audited is None) != (read is None):
        return True, f"audit: {audited}; process: {read}"
    if read is not None:
        return True, ""
    errors = (f for f in reports[0].findings if f.severity == "error")
    found = {f.clip for f in errors if f.rule in UNREAD}
    failing = {str(clip) for clip in catalogs[0] if clip.problems}
    return bool(failing), f"audit: {found}; process: {failing}" if found != failing else ""


def damaged_table(rng: Rng) -> tuple[str, bytes]:
    """Return a reader's name and its table, with wrong cells and wrong bytes."""
    name = str(rng.choice(sorted(TABLES)))
    rows = [list(row) for row in TABLES[name]]
    for _ in range(int(rng.integers(0, 4))):
        row = rows[int(rng.integers(len(rows)))]
        if row:
            row[int(rng.integers(len(row)))] = str(rng.choice(_CELLS))
    text = io.StringIO()
    csv.writer(text, delimiter=str(rng.choice([",", ";", "\t"]))).writerows(rows)
    encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "gb18030"]))
    data = text.getvalue().encode(encoding, "replace")
    return name, damaged(data, rng) if rng.integers(2) else data


TABLES: dict[str, list[list[object]]] = {
    "samm": [
        ["Subject", "Filename", "Onset Frame", "Apex Frame", "Offset Frame", "Estimated Emotion"],
        ["006", "006_1_2", 5562, 5588, 5632, "Anger"],
        ["007", "007_1_2", 1, 5, 9, "Other"],
    ],
    "casme2": [
        ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Estimated Emotion"],
        ["01", "EP02_01f", 46, 59, 86, "happiness"],
        ["04", "EP12_01f", 261, "/", 321, "disgust"],
    ],
    "casme": [
        ["Subject", "Filename", "OnsetF", "ApexF1", "ApexF2", "OffsetF", "AUs", "Emotion"],
        [1, "EP01_12", 73, 81, 0, 91, "4", "tense"],
    ],
    "dfme": [
        [
            *("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame"),
            *("Emotion", "EmotionId", "Fps", "AU"),
        ],
        ["sub0003", "sub0003_01", 109, 199, 228, "anger", 0, 500, "AD38+M57"],
    ],
    "smic": [
        ["Subject", "Filename", "OnsetF", "OffsetF", "FirstF", "LastF", "Emotion"],
        [20, "s20_ne_01", 110, 130, 100, 199, "negative"],
    ],
    "mmew": [
        ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Estimated Emotion"],
        [3, "S03-01-002", 1, 12, 30, "happiness"],
    ],
    "table": [
        ["subject", "clip", "path", "onset", "apex", "offset", "label"],
        ["A", "c1", "A/c1", 1, 2, 3, "happy"],
        ["s06", "c2", "B/c2", 1, 2, 3, "sad"],
    ],
}


def _refusal(action: Callable[[], object]) -> str | None:
    """Return the message of a refusal in one line; None where there is none."""
    try:
        action()
    except (ClipError, ApexflowError) as error:
        if "\n" in str(error):
            raise RuntimeError(f"a message of several lines: {error!r}") from None
        return str(error)
    return None


def run(kind: str, count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Try ``count`` inputs of a kind; return what became of them, and the disagreements."""
    rng = np.random.default_rng(seed)
    sound = {"images": lambda: sound_images(rng), "videos": lambda: sound_videos(folder)}
    inputs = sound[kind]() if kind in sound else []
    results: Counter[str] = Counter()
    problems = []
    for i in range(count):
        if kind == "tables":
            name, data = damaged_table(rng)
            path = folder / "fuzzed.csv"
        else:
            suffix, content = inputs[int(rng.integers(len(inputs)))]
            name, data, path = suffix, damaged(content, rng), folder / f"fuzzed{suffix}"
        path.write_bytes(data)
        try:
            refused, problem = (
                try_table(name, path)
                if kind == "tables"
                else (try_image if kind == "images" else try_video)(path)
            )
        except Exception as error:  # a traceback is what is looked for
            refused, problem = True, f"{type(error).__name__}: {error}"
        results["refused" if refused else "read"] += 1
        if problem:
            kept = folder / f"problem_{kind}_{i}_{name.strip('.')}"
            kept.write_bytes(data)
            problems.append(f"{kind} {i} ({name}): {problem}")
    return results, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for kind, count in (("tables", 30_000), ("images", 60_000), ("videos", 10_000)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that made trouble")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("tables", "images", "videos"):
            start = time.perf_counter()
            results, problems = run(kind, getattr(options, kind), options.seed, folder)
            failed += len(problems)
            seconds = time.perf_counter() - start
            print(
                f"{kind}: {results.total()} tried in {seconds:.0f} s, {dict(results)}, "
                f"{len(problems)} problems"
            )
            for problem in problems[:20]:
                print("  " + problem[:400])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
