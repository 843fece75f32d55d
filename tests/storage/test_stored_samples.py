"""What lies in stores is read as it was written, or named."""

from pathlib import Path
from typing import Any

import pytest

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from tests.storage.stores import make_store, random_clips

TINY = 3000  # bytes: nothing fits


@pytest.mark.parametrize("memory_", [1 << 30, TINY])
@pytest.mark.parametrize("part", ["maps/hsv", "frames/image"])
def test_a_lost_chunk_is_named(tmp_path: Path, part: str, memory_: int) -> None:
    make_store(tmp_path / "s.zarr", random_clips(4, frames=True))
    for chunk in (tmp_path / "s.zarr" / part).glob("c.2.*"):
        chunk.unlink()
    what: dict[str, Any] = {"maps": "hsv"} if part == "maps/hsv" else {"frames": ("apex",)}
    with pytest.raises(ApexflowError, match=r"clip made/\d\d/c\d is damaged"):
        list(ClipDataset(tmp_path / "s.zarr", memory=memory_, **what))


def test_a_changed_chunk_is_named(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", random_clips(4))
    chunk = tmp_path / "s.zarr" / "maps/hsv/c.2.0.0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(ApexflowError, match="damaged or being rewritten"):
        ClipDataset(tmp_path / "s.zarr", maps="hsv")


def test_stores_that_do_not_go_together(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", random_clips(3))
    make_store(tmp_path / "b.zarr", random_clips(3, side=16))
    with pytest.raises(ApexflowError, match="two clips have the key made/00/c0"):
        ClipDataset([tmp_path / "a.zarr", tmp_path / "a.zarr"])
    other = random_clips(3, side=16)
    for clip in other:
        clip.dataset = "other"
    make_store(tmp_path / "c.zarr", other)
    with pytest.raises(ApexflowError, match="stores served together must agree"):
        ClipDataset([tmp_path / "a.zarr", tmp_path / "c.zarr"], flow="onset-apex")
