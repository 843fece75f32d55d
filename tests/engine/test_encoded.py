"""JPEG files that a card decodes, here with OpenCV in the place of its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow import process
from apexflow.catalog import Catalog, Clip
from apexflow.engine.batched import compute_clip
from apexflow.engine.cards import CardPlace
from apexflow.engine.encoded import EncodedFrames, LeftToCpuError, decode_frames, read_encoded
from apexflow.engine.frames import open_frames
from apexflow.engine.on_card import NvJpegDecoder
from apexflow.engine.prepared import PreparedClip, prepare_clip
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError, ClipError
from apexflow.kernels.gpu import GpuUnavailable, cuda_device
from apexflow.storage.store import open_store
from apexflow.storage.verify import verify
from tests.engine.fake_cards import FOLDER, NAME, OpenCvDecoder
from tests.engine.strict_arrays import StrictDevice
from tests.kernels.cuda.build import COMPILER, ShimDevice

SIZE = (120, 160)
PART = slice(11, 93), slice(24, 140)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> ShimDevice:
    if COMPILER is None:
        pytest.skip("no C++ compiler (g++)")
    return ShimDevice(tmp_path_factory.mktemp("cuda"))


class Reluctant(OpenCvDecoder):
    """A decoder that takes every other file."""

    def decode(self, files: Sequence[NDArray[np.uint8]], *, color: bool) -> list[Any]:
        found = super().decode(files, color=color)
        return [image if i % 2 else None for i, image in enumerate(found)]


def write_clip(folder: Path, *, color: bool, count: int = 5, suffix: str = ".jpg") -> Clip:
    rng = np.random.default_rng(7)
    (folder / "c").mkdir()
    for number in range(count):
        image = rng.integers(0, 256, (*SIZE, 3) if color else SIZE, np.uint8)
        cv2.imwrite(str(folder / "c" / f"{number:03d}{suffix}"), image)
    return Clip(dataset="d", subject="s", name="c", source="c", root=folder)


def encoded_of(clip: Clip, *, color: bool) -> EncodedFrames | None:
    source = open_frames(clip)
    return read_encoded(source, source.numbers, *PART, color=color)


@pytest.mark.parametrize("kind", [OpenCvDecoder, Reluctant])
@pytest.mark.parametrize("color", [False, True])
def test_frames_are_those_that_the_cpu_reads(
    shim: ShimDevice, tmp_path: Path, color: bool, kind: type[OpenCvDecoder]
) -> None:
    clip = write_clip(tmp_path, color=color)
    encoded = encoded_of(clip, color=color)
    assert encoded is not None
    source = open_frames(clip)
    wanted = np.stack([frame[PART] for frame in source.read(source.numbers, color=color)])
    few = ShimDevice(shim._folder, free=12 * SIZE[0] * SIZE[1] * wanted[0].ndim ** 2)
    for device in (StrictDevice(shim), StrictDevice(few)):
        found = decode_frames(encoded, SIZE, kind(device), device)
        np.testing.assert_array_equal(device.to_host(found), wanted)


def test_what_does_not_end_as_a_jpeg_file_is_not_given_to_the_decoder(
    shim: ShimDevice, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path, color=False)
    last = sorted(clip.path.iterdir())[-1]
    last.write_bytes(last.read_bytes() + bytes(4))
    encoded = encoded_of(clip, color=False)
    assert encoded is not None
    decoder = OpenCvDecoder(shim)
    found = decode_frames(encoded, SIZE, decoder, shim)
    assert (decoder.seen, len(found)) == (4, 5)
    last.write_bytes(last.read_bytes()[:60])
    encoded = encoded_of(clip, color=False)
    assert encoded is not None
    with pytest.raises(LeftToCpuError, match="truncated or no image"):
        decode_frames(encoded, SIZE, decoder, shim)


def test_a_frame_of_another_size_is_for_the_cpu_to_refuse(shim: ShimDevice, tmp_path: Path) -> None:
    clip = write_clip(tmp_path, color=False)
    cv2.imwrite(str(clip.path / "003.jpg"), np.zeros((SIZE[0], SIZE[1] - 1), np.uint8))
    encoded = encoded_of(clip, color=False)
    assert encoded is not None
    with pytest.raises(LeftToCpuError, match=r"\(120, 159\), the template frame \(120, 160\)"):
        decode_frames(encoded, SIZE, OpenCvDecoder(shim), shim)


def test_only_jpeg_files_that_fit_are_left_to_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path, color=False)
    size = sum(path.stat().st_size for path in clip.path.iterdir())
    monkeypatch.setattr("apexflow.engine.encoded.MOST_BYTES", size)
    assert encoded_of(clip, color=False) is not None
    monkeypatch.setattr("apexflow.engine.encoded.MOST_BYTES", size - 1)
    assert encoded_of(clip, color=False) is None
    monkeypatch.undo()
    cv2.imwrite(str(clip.path / "009.png"), np.zeros(SIZE, np.uint8))
    assert encoded_of(clip, color=False) is None
    writer = cv2.VideoWriter(
        str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, SIZE[::-1]
    )
    for _ in range(3):
        writer.write(np.zeros((*SIZE, 3), np.uint8))
    writer.release()
    assert encoded_of(replace(clip, source="v.avi"), color=False) is None


def test_a_file_that_cannot_be_read_is_the_clips_failure(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, color=False)
    source = open_frames(clip)
    (clip.path / "002.jpg").unlink()
    with pytest.raises(ClipError, match=r"002\.jpg"):
        read_encoded(source, source.numbers, *PART, color=False)


def prepared_clip(clip: Clip, recipe: Recipe, *, encoded: bool) -> PreparedClip:
    made = prepare_clip(clip, recipe, encoded=encoded)
    assert made is not None
    assert isinstance(made.stack, EncodedFrames) is encoded
    return made


def test_a_clip_that_is_decoded_on_a_device_is_the_same(
    shim: ShimDevice, catalog: Catalog, small_recipe: Recipe
) -> None:
    plain, encoded = (
        prepared_clip(catalog[0], small_recipe, encoded=value) for value in (False, True)
    )
    wanted = compute_clip(plain, small_recipe, shim, name=NAME)
    decoder = OpenCvDecoder(shim)
    found = compute_clip(encoded, small_recipe, shim, name=NAME, decoder=decoder)
    assert (found.decode_device, wanted.decode_device) == (NAME, "cpu")
    np.testing.assert_array_equal(found.aligned.crops, wanted.aligned.crops)
    np.testing.assert_array_equal(found.flow["onset-apex"], wanted.flow["onset-apex"])
    np.testing.assert_array_equal(found.maps["hsv"], wanted.maps["hsv"])


def test_a_run_whose_cards_decode(
    tmp_path: Path,
    shim: ShimDevice,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clip with a damaged file fails as on the CPU; the card is not blamed."""
    clips = catalog.select(lambda clip: clip.subject in ("006", "032"))
    broken = clips[0]
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in broken.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:100])
    given = Catalog((replace(broken, root=tmp_path, source="broken"), *clips[1:]))
    place = CardPlace("0", "tests.engine.fake_cards:ShimCard")
    monkeypatch.setattr("apexflow.engine.run.find_cards", lambda gpus: (place,))
    monkeypatch.setattr("apexflow.engine.run.check_decoder", lambda cards: None)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=":")
    monkeypatch.setenv(FOLDER, str(shim._folder))
    path = tmp_path / "s.zarr"
    options = {"recipe": small_recipe, "workers": 1, "gpu_decode": True, "progress": False}
    summary = process(given, path, **options)
    reasons = {failure.clip: failure.reason for failure in summary.failed}
    assert last.name in reasons[str(broken)]
    store = open_store(path)
    assert verify(store) == []
    done = [record for record in store.records() if record is not None and record.done]
    assert done
    assert {(record.device, record.decode_device) for record in done} == {(NAME, NAME)}


def test_decoding_on_cards_needs_cards_and_the_library(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"recipe": small_recipe, "gpu_decode": True, "progress": False}
    for workers in (0, 1):
        with pytest.raises(ApexflowError, match="has no card to decode on"):
            process(catalog, tmp_path / "s.zarr", workers=workers, **options)
    monkeypatch.setattr("apexflow.engine.run.find_cards", lambda gpus: (CardPlace("0"),))
    monkeypatch.setattr("apexflow.engine.cards.find_spec", lambda name: None)
    with pytest.raises(ApexflowError, match="needs nvImageCodec: pip install"):
        process(catalog, tmp_path / "s.zarr", workers=1, **options)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("color", [False, True])
def test_the_cards_decoder_is_near_the_cpus(tmp_path: Path, color: bool) -> None:
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
    source = open_frames(Clip(dataset="d", subject="s", name="c", source="c", root=tmp_path))
    whole = slice(0, 271), slice(0, 333)
    encoded = read_encoded(source, source.numbers, *whole, color=color)
    assert encoded is not None
    assert None not in decoder.decode(list(encoded.files(slice(0, 5))), color=color)
    found = device.to_host(decode_frames(encoded, (271, 333), decoder, device))
    wanted = np.stack(list(source.read(source.numbers, color=color)))
    # Chroma is interpolated by another rule; luma differs by rounding alone.
    assert np.abs(found.astype(int) - wanted).max() <= (8 if color else 1)
    garbage = np.frombuffer(b"\xff\xd8\xff" + bytes(50) + b"\xff\xd9", np.uint8)
    assert decoder.decode([garbage], color=color) == [None]
