"""Bad input costs its own clip, with a reason, and nothing else."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr

from apexflow import Catalog, RunSummary, process, read_table
from apexflow.cli.store import _info_lines
from apexflow.engine.audit import audit
from apexflow.engine.recipe import Recipe
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from apexflow.synthetic import ClipTruth, Subject, write_frames, write_video
from tests.conftest import SMALL_TOML

HEADER = "subject,clip,path,onset,apex,offset,label\n"


def truncate(folder: Path) -> str:
    path = folder / "img4.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    return "img4.jpg is truncated, or not an image"


def another_size(folder: Path) -> str:
    cv2.imwrite(str(folder / "img4.jpg"), np.zeros((170, 200), np.uint8))
    return "frame 4 is 200x170, the template frame 5 200x160: one size is needed"


def colour_among_gray(folder: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (200, 160, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "img4.jpg"), noise)
    return "frame 4 is 160x200"


def text_file(folder: Path) -> str:
    (folder / "img4.jpg").write_text("not an image")
    return "img4.jpg is truncated, or not an image"


def empty_file(folder: Path) -> str:
    (folder / "img4.jpg").write_bytes(b"")
    return "img4.jpg is truncated, or not an image (0 bytes)"


def missing_apex(folder: Path) -> str:
    (folder / "img5.jpg").unlink()
    return "apex frame 5 is not on disk"


def no_frames(folder: Path) -> str:
    for path in folder.iterdir():
        path.unlink()
    return "no numbered image in"


def no_folder(folder: Path) -> str:
    no_frames(folder)
    folder.rmdir()
    return "No such file or directory"


@pytest.mark.parametrize(
    "spoil",
    [
        *[truncate, another_size, colour_among_gray, text_file, empty_file],
        *[missing_apex, no_frames, no_folder],
    ],
)
def test_a_spoilt_folder(
    tmp_path: Path, small_recipe: Recipe, spoil: Callable[[Path], str]
) -> None:
    person = Subject.random(1, size=(160, 200))
    truth = ClipTruth.random(person, "surprise", seed=1, frames=8, amplitude=1, shift=1)
    for name in ("good", "bad"):
        write_frames(tmp_path / name, truth)
    reason = spoil(tmp_path / "bad")
    (tmp_path / "clips.csv").write_text(f"{HEADER}1,good,good,1,5,8,0\n1,bad,bad,1,5,8,0\n")
    catalog = read_table(tmp_path, tmp_path / "clips.csv")
    summary = process(catalog, tmp_path / "s.zarr", recipe=small_recipe, workers=0, progress=False)
    assert summary.done == 1
    (failure,) = summary.failed
    assert failure.clip == "table/1/bad"
    assert reason in failure.reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("one,img,1,1,1", "needs two"),
        ("late,img,5,3,8", "apex 3 lies before onset 5"),
        ("early,img,1,9,8", "apex 9 lies after offset 8"),
        ("backward,img,5,,2", "offset 2 lies before onset 5"),
        ("beyond,img,1,80,90", "apex frame 80 is not on disk"),
        ("unknown,img,1,,8", "no apex is annotated"),
        ("empty,empty.mp4,1,2,3", "not a video, or an empty one (0 bytes)"),
        ("text,text.avi,1,2,3", "not a video, or an empty one"),
        ("short,clip.avi,0,2,30", ""),
        ("too short,clip.avi,0,20,30", "apex frame 20 is not on disk"),
        ("gone,gone.mov,1,2,3", "not on disk"),
    ],
)
def test_a_bad_row(
    tmp_path_factory: pytest.TempPathFactory,
    spoilt: Path,
    small_recipe: Recipe,
    row: str,
    reason: str,
) -> None:
    folder = tmp_path_factory.mktemp("row")
    name, *_ = row.split(",")
    table = folder / "clips.csv"
    table.write_text(f"{HEADER}1,good,img,1,5,8,0\n1,{row},0\n")
    catalog = read_table(spoilt, table)
    summary = process(catalog, folder / "s.zarr", recipe=small_recipe, workers=0, progress=False)
    assert summary.done == (1 if reason else 2)
    for failure in summary.failed:
        assert failure.clip == f"table/1/{name}"
        assert reason in failure.reason


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spoilt")
    person = Subject.random(1, size=(160, 200))
    truth = ClipTruth.random(person, "surprise", seed=1, frames=8, amplitude=1, shift=1)
    write_frames(root / "img", truth)
    write_video(root / "clip.avi", truth)
    (root / "empty.mp4").touch()
    (root / "text.avi").write_text("not a video")
    return root


def test_no_face_is_a_failure_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "gray").mkdir()
    for number in range(1, 4):
        cv2.imwrite(str(tmp_path / "gray" / f"{number}.png"), np.full((120, 160), 128, np.uint8))
    (tmp_path / "clips.csv").write_text(f"{HEADER}1,gray,gray,1,2,3,0\n")
    catalog = read_table(tmp_path, tmp_path / "clips.csv")
    summary = process(catalog, tmp_path / "s.zarr", workers=0, progress=False)
    (failure,) = summary.failed
    assert "MTCNN found no face" in failure.reason


def good(folder: Path, name: str, seed: int = 1) -> str:
    """Write a sound clip of 8 frames; return its row."""
    person = Subject.random(seed, size=(160, 200))
    write_frames(
        folder / name,
        ClipTruth.random(person, "surprise", seed=seed, frames=8, amplitude=1, shift=1),
    )
    return f"1,{name},{name},1,5,8,0\n"


def processed(folder: Path, rows: str, recipe: Recipe, **options: object) -> RunSummary:
    (folder / "clips.csv").write_text(HEADER + rows)
    catalog = read_table(folder, folder / "clips.csv")
    options = {"workers": 0, "progress": False, **options}
    return process(catalog, folder / "s.zarr", recipe=recipe, **options)  # type: ignore[arg-type]


def test_a_frame_number_that_no_column_holds(tmp_path: Path, small_recipe: Recipe) -> None:
    rows = good(tmp_path, "good") + good(tmp_path, "bad", 2).replace(",1,5,8,", ",1,5,,")
    frames = sorted((tmp_path / "bad").glob("*.jpg"))
    for number, frame in enumerate(frames):
        frame.rename(frame.with_name(f"img{10**20 + number}.jpg"))
    rows = rows.replace("bad,bad,1,5,,", "bad,bad,,,,")
    every = replace(
        small_recipe,
        frames=replace(small_recipe.frames, which="all"),
        windows=("consecutive",),
        maps={},
        face=replace(small_recipe.face, template_frame="first"),
    )
    for _ in range(2):
        summary = processed(tmp_path, rows, every)
        (failure,) = summary.failed
        assert failure.clip == "table/1/bad"
        assert open_store(tmp_path / "s.zarr").complete
    assert summary.skipped == 1
    assert verify(open_store(tmp_path / "s.zarr")) == []


def test_file_names_that_are_not_utf8(tmp_path: Path, small_recipe: Recipe) -> None:
    rows = good(tmp_path, "good") + good(tmp_path, "bad", 2)
    for frame in (tmp_path / "bad").glob("*.jpg"):
        os.rename(frame, os.fsencode(frame.parent) + b"/\xff" + os.fsencode(frame.name))  # noqa: PTH104
    summary = processed(tmp_path, rows, small_recipe)
    assert [failure.clip for failure in summary.failed] == ["table/1/bad"]
    assert "not UTF-8" in summary.failed[0].reason
    str(summary).encode()
    # A clip whose own name is such has no row: a store holds UTF-8 alone.
    name = os.fsdecode(b"\xff")
    catalog = read_table(tmp_path, tmp_path / "clips.csv")
    odd = Catalog([*catalog[:1], replace(catalog[0], name=name)])
    summary = process(odd, tmp_path / "odd.zarr", recipe=small_recipe, workers=0, progress=False)
    assert summary.done == 1
    (failure,) = summary.failed
    assert "its name is not UTF-8" in failure.reason
    str(summary).encode()
    assert len(open_store(tmp_path / "odd.zarr").keys()) == 1


@pytest.mark.parametrize("path", ["a" * 296 + ".mp4", "a" * 300, "b/" * 3000 + "c.avi"])
def test_paths_that_no_file_system_takes(tmp_path: Path, small_recipe: Recipe, path: str) -> None:
    rows = good(tmp_path, "good") + f"1,long,{path},1,5,8,0\n"
    summary = processed(tmp_path, rows, small_recipe)
    assert summary.done == 1
    assert "File name too long" in summary.failed[0].reason


def test_an_avi_that_claims_two_billion_frames(tmp_path: Path, small_recipe: Recipe) -> None:
    """Its true frames are counted, or it fails; the process that plans never believes it."""
    person = Subject.random(1, size=(160, 200))
    truth = ClipTruth.random(person, "surprise", seed=1, frames=8, amplitude=1, shift=1)
    write_video(tmp_path / "claims.avi", truth)
    content = (tmp_path / "claims.avi").read_bytes()
    header = content.index(b"avih") + 8
    stream = content.index(b"strh") + 8
    huge = struct.pack("<I", 2**31 - 1)
    for place in (header + 16, stream + 32):
        content = content[:place] + huge + content[place + 4 :]
    (tmp_path / "claims.avi").write_bytes(content)
    rows = good(tmp_path, "good") + "2,claims,claims.avi,0,4,7,0\n"
    (tmp_path / "clips.csv").write_text(HEADER + rows)
    (tmp_path / "recipe.toml").write_text(SMALL_TOML)
    command = [sys.executable, "-m", "apexflow", "process", "table", str(tmp_path), "--quiet"]
    command += ["-o", str(tmp_path / "s.zarr"), "--workers", "0", "--gpus", "0"]
    ended = subprocess.run(
        [*command, "--recipe", str(tmp_path / "recipe.toml")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in (0, 1), ended.stderr
    assert "Traceback" not in ended.stderr
    records = [record for record in open_store(tmp_path / "s.zarr").records() if record]
    assert records[0].done
    assert len(records) == 2


def test_a_hole_in_a_jpeg_fails_the_frame(tmp_path: Path, small_recipe: Recipe) -> None:
    rows = good(tmp_path, "good") + good(tmp_path, "bad", 2)
    path = tmp_path / "bad" / "img4.jpg"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 512] = bytes(512)
    path.write_bytes(data)
    (failure,) = processed(tmp_path, rows, small_recipe).failed
    assert failure.clip == "table/1/bad"
    assert "img4.jpg is damaged (JPEG): its coded data" in failure.reason


def test_frames_below_the_detectors_size_say_so(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for number in range(1, 4):
        cv2.imwrite(str(tmp_path / "c" / f"{number}.png"), np.full((28, 28), 40 * number, np.uint8))
    (tmp_path / "clips.csv").write_text(f"{HEADER}1,c,c,1,2,3,0\n")
    catalog = read_table(tmp_path, tmp_path / "clips.csv")
    summary = process(catalog, tmp_path / "s.zarr", workers=0, progress=False)
    (failure,) = summary.failed
    assert "the frame of 28x28 px is smaller than min_face_size 40" in failure.reason
    report = audit("table", tmp_path, tmp_path / "clips.csv", recipe="default")
    assert failure.reason in [finding.message for finding in report.findings]


def test_deep_frames_give_what_8_bits_give(tmp_path: Path, small_recipe: Recipe) -> None:
    rows = good(tmp_path, "bits8")
    for bits in (10, 12, 16):
        (tmp_path / f"bits{bits}").mkdir()
        for frame in sorted((tmp_path / "bits8").glob("*.jpg")):
            deep = cv2.imread(str(frame), 0).astype(np.uint16) << (bits - 8)
            cv2.imwrite(str(tmp_path / f"bits{bits}" / f"{frame.stem}.png"), deep)
        rows += f"1,bits{bits},bits{bits},1,5,8,0\n"
    assert processed(tmp_path, rows, small_recipe).done == 4
    store = open_store(tmp_path / "s.zarr")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    flow = np.asarray(group["flow/onset-apex"])[: len(store.keys())]
    for other in flow[1:]:
        np.testing.assert_array_equal(other, flow[0])
    # What they were scaled by, the store says.
    assert store.column("sample_bits").tolist() == [8, 10, 12, 16]
    assert "bits      10 in 1 clips, 12 in 1 clips, 16 in 1 clips" in "\n".join(_info_lines(store))


def test_copies_among_the_frames_are_left_out(tmp_path: Path, small_recipe: Recipe) -> None:
    rows = good(tmp_path, "good") + good(tmp_path, "bad", 2)
    for name in (
        "img4 2.jpg",
        "Copy of img4.jpg",
        "._img4.jpg",
        "capture_20240102123045123456.jpg",
    ):
        (tmp_path / "bad" / name).write_bytes(b"x")
    assert processed(tmp_path, rows, small_recipe).done == 2
