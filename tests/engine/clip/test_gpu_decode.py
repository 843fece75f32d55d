"""JPEG files that a GPU decodes, here with OpenCV in the place of its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apexflow import process
from apexflow.catalog import Catalog, Clip
from apexflow.datasets.sources import FolderFrames, open_frames
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.clock import Clock
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.gpu_decode import (
    File,
    NotDecodedError,
    NvJpegDecoder,
    decode_frames,
    read_files,
)
from apexflow.engine.clip.plan import ClipPlan
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError, ClipError
from apexflow.kernels.gpu import GpuUnavailable, cuda_device
from tests.engine.run.fake_gpus import NAME, FakeCuda, HostDevice, OpenCvDecoder
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.cuda.strict_arrays import StrictDevice

SIZE = (120, 160)
PART = slice(11, 93), slice(24, 140)


class Reluctant(OpenCvDecoder):
    """A decoder that takes every other file."""

    def decode(self, files: Sequence[File], *, color: bool) -> list[Any]:
        found = super().decode(files, color=color)
        return [image if i % 2 else None for i, image in enumerate(found)]


def write_clip(folder: Path, *, color: bool, count: int = 5, suffix: str = ".jpg") -> Clip:
    rng = np.random.default_rng(7)
    (folder / "c").mkdir()
    for number in range(count):
        image = rng.integers(0, 256, (*SIZE, 3) if color else SIZE, np.uint8)
        cv2.imwrite(str(folder / "c" / f"{number:03d}{suffix}"), image)
    return Clip(dataset="d", subject="s", name="c", source="c", root=folder)


def frames_of(clip: Clip, *, color: bool) -> ClipFrames:
    source = open_frames(clip)
    plan = ClipPlan(source.numbers, source.numbers[0], {}, source.numbers, "", {}, "")
    return ClipFrames(source, plan, Clock(), color=color)


def files_of(clip: Clip, *, color: bool) -> list[File]:
    files = read_files(frames_of(clip, color=color))
    assert files is not None
    return list(files.values())


@pytest.mark.parametrize("kind", [OpenCvDecoder, Reluctant])
@pytest.mark.parametrize("color", [False, True])
def test_frames_are_those_that_the_cpu_reads(
    shim: ShimDevice, tmp_path: Path, color: bool, kind: type[OpenCvDecoder]
) -> None:
    clip = write_clip(tmp_path, color=color)
    files, source = files_of(clip, color=color), open_frames(clip)
    whole = list(source.read(source.numbers, color=color))
    wanted = np.stack([frame[PART] for frame in whole])
    few = ShimDevice(shim._folder, free=12 * SIZE[0] * SIZE[1] * wanted[0].ndim ** 2)
    for device in (StrictDevice(shim), StrictDevice(few)):
        found = decode_frames(files, whole[0].shape, PART, kind(device), device)
        np.testing.assert_array_equal(device.to_host(found), wanted)


def test_what_does_not_end_as_a_jpeg_file_is_not_given_to_the_decoder(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, color=False)
    last = sorted(clip.path.iterdir())[-1]
    last.write_bytes(last.read_bytes() + bytes(4))
    device = HostDevice()
    decoder = OpenCvDecoder(device)
    found = decode_frames(files_of(clip, color=False), SIZE, PART, decoder, device)
    assert (decoder.seen, len(found)) == (4, 5)
    last.write_bytes(last.read_bytes()[:60])
    with pytest.raises(NotDecodedError, match="truncated, or not an image"):
        decode_frames(files_of(clip, color=False), SIZE, PART, decoder, device)


def test_a_frame_of_another_size_is_for_the_cpu_to_refuse(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, color=False)
    cv2.imwrite(str(clip.path / "003.jpg"), np.zeros((SIZE[0], SIZE[1] - 1), np.uint8))
    device = HostDevice()
    with pytest.raises(NotDecodedError, match=r"\(120, 159\), the template frame \(120, 160\)"):
        decode_frames(files_of(clip, color=False), SIZE, PART, OpenCvDecoder(device), device)


def test_only_jpeg_files_that_fit_are_left_to_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path, color=False)
    size = sum(path.stat().st_size for path in clip.path.iterdir())
    monkeypatch.setattr("apexflow.engine.clip.gpu_decode.MOST_BYTES", size)
    assert read_files(frames_of(clip, color=False)) is not None
    monkeypatch.setattr("apexflow.engine.clip.gpu_decode.MOST_BYTES", size - 1)
    assert read_files(frames_of(clip, color=False)) is None
    monkeypatch.undo()
    cv2.imwrite(str(clip.path / "009.png"), np.zeros(SIZE, np.uint8))
    assert read_files(frames_of(clip, color=False)) is None
    writer = cv2.VideoWriter(
        str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, SIZE[::-1]
    )
    for _ in range(3):
        writer.write(np.zeros((*SIZE, 3), np.uint8))
    writer.release()
    assert read_files(frames_of(replace(clip, source="v.avi"), color=False)) is None


def test_a_file_that_cannot_be_read_is_the_clips_failure(tmp_path: Path) -> None:
    frames = frames_of(write_clip(tmp_path, color=False), color=False)
    assert isinstance(frames.source, FolderFrames)
    frames.source.files[2].unlink()
    with pytest.raises(ClipError, match=r"002\.jpg"):
        read_files(frames)


@pytest.mark.parametrize("color", [False, True])
def test_a_clip_that_is_decoded_on_a_gpu_is_the_same(
    catalog: Catalog, small_recipe: Recipe, color: bool
) -> None:
    values = small_recipe.to_dict()
    values["alignment"]["color"] = color
    recipe = Recipe.from_dict(values)
    wanted = process_clip(catalog[0], recipe)
    found = process_clip(catalog[0], recipe, FakeCuda(gpu_decode=True))
    assert (found.device, found.aligned.decode_device) == (NAME, NAME)
    assert wanted.aligned.decode_device == "cpu"
    np.testing.assert_array_equal(found.aligned.crops, wanted.aligned.crops)
    np.testing.assert_array_equal(found.flow["onset-apex"], wanted.flow["onset-apex"])
    np.testing.assert_array_equal(found.maps["hsv"], wanted.maps["hsv"])
    assert found.seconds["decode"] > 0


def test_a_damaged_file_fails_its_clip_as_on_the_cpu(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in catalog[0].path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:100])
    clip = replace(catalog[0], root=tmp_path, source="broken")
    backend = FakeCuda(gpu_decode=True)
    reasons = []
    for on in (backend, FakeCuda()):
        with pytest.raises(ClipError, match=last.name) as raised:
            process_clip(clip, small_recipe, on)
        reasons.append(str(raised.value))
    assert reasons[0] == reasons[1]
    assert backend.usable
    assert backend.complaints == []


def test_decoding_on_gpus_needs_gpus_and_the_library(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"recipe": small_recipe, "gpu_decode": True, "progress": False}
    for workers in (0, 1):
        with pytest.raises(ApexflowError, match="has no GPU to decode on"):
            process(catalog, tmp_path / "s.zarr", workers=workers, **options)
    monkeypatch.setattr("apexflow.engine.run.find_gpus", lambda gpus: ("0",))
    monkeypatch.setattr("apexflow.engine.run.gpus.find_spec", lambda name: None)
    with pytest.raises(ApexflowError, match="needs nvImageCodec: pip install"):
        process(catalog, tmp_path / "s.zarr", workers=1, **options)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("color", [False, True])
def test_the_gpus_decoder_is_near_the_cpus(tmp_path: Path, color: bool) -> None:
    try:
        device = cuda_device()
        decoder = NvJpegDecoder(device.xp)
    except (GpuUnavailable, ImportError) as error:
        pytest.skip(str(error))
    folder = tmp_path / "c"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(5):
        shape = (271, 333, 3) if color else (271, 333)
        image = cv2.GaussianBlur(rng.integers(0, 256, shape).astype(np.float32), (0, 0), 4)
        levels = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), levels)
    clip = Clip(dataset="d", subject="s", name="c", source="c", root=tmp_path)
    source, files = open_frames(clip), files_of(clip, color=color)
    assert None not in decoder.decode(files, color=color)
    wanted = np.stack(list(source.read(source.numbers, color=color)))
    whole = slice(0, 271), slice(0, 333)
    found = device.to_host(decode_frames(files, wanted[0].shape, whole, decoder, device))
    # Chroma is interpolated by another rule; luma differs by rounding alone.
    assert np.abs(found.astype(int) - wanted).max() <= (8 if color else 1)
    garbage = np.frombuffer(b"\xff\xd8\xff" + bytes(50) + b"\xff\xd9", np.uint8)
    assert decoder.decode([garbage], color=color) == [None]
