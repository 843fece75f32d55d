"""How fast samples reach a network, and how much memory that takes.

1. Maps (28x28x3), batches of 256, shuffled: a plain tensor, a store in memory, a store four
   times larger than its memory allowance streamed in shuffled blocks (compacted, or sharded),
   and a folder of PNGs by torchvision's ImageFolder.
2. Memory over epochs of flow (2x224x224) that is four times larger than its allowance, and
   with no allowance at all, which is what reading itself takes.

One process on one core, one thread; the sides are measured in turn, the median of the rounds
counts, and disk caches are warm.

    python benchmarks/dataset.py            # the tables of docs/training.md: minutes
    python benchmarks/dataset.py --tiny     # seconds, for a look
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from apexflow.storage.compact import compact
from apexflow.storage.create import create_store
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.format import DONE, ClipRecord, ClipRow, Layout, MapLayout

BATCH = 256
SUBJECTS = 30
Epoch = Callable[[int], Iterator[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small data set, one round")
    parser.add_argument("--memory-of", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_one_core()
    if options.memory_of:
        print(*memory_of_an_epoch(options.memory_of))
        return
    maps, flows, rounds = (600, 24, 1) if options.tiny else (12_000, 600, 5)
    with tempfile.TemporaryDirectory() as folder:
        rates(Path(folder), maps, rounds)
        memory(Path(folder), flows)


def rates(folder: Path, count: int, rounds: int) -> None:
    """Print samples/s of each way to feed the same maps."""
    images = smooth_maps(count)
    for name in ("compact", "sharded"):
        write_store(folder / name, maps=images)
    compact(folder / "compact")
    # Blocks of a megabyte, so that several fit into the allowance.
    compact(folder / "sharded", chunk_bytes=1 << 18, shard_bytes=1 << 20)
    write_pngs(folder / "png", images)
    epochs = {
        "plain tensor": plain_tensor(images),
        "store in memory": in_memory(folder / "compact", collate=True),
        "store in memory, default collate": in_memory(folder / "compact", collate=False),
        "streamed, compacted": streamed(folder / "compact"),
        "streamed, shards": streamed(folder / "sharded"),
        "ImageFolder of PNGs": image_folder(folder / "png"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            started = time.perf_counter()
            samples = sum(len(labels) for _, labels in epoch(number))
            # The first round warms caches.
            if number or rounds == 1:
                seconds[name].append((time.perf_counter() - started) / samples)
            assert samples == count, (name, samples)
    slowest = statistics.median(seconds["ImageFolder of PNGs"])
    print(f"{count} maps of 28x28x3, batches of {BATCH}, median of {rounds}")
    for name, each in seconds.items():
        rate = 1 / statistics.median(each)
        print(f"  {name:34s} {rate:10.0f} samples/s {rate * slowest:8.1f}x the PNGs")


def memory(folder: Path, count: int) -> None:
    """Print how much a process grows over an epoch of a store four times its allowance."""
    path = folder / "flow"
    rng = np.random.default_rng(0)
    flow = (rng.normal(size=(2, 224, 224)).astype(np.float32) for _ in range(count))
    write_store(path, flow=flow, count=count)
    compact(path)
    command = [sys.executable, __file__, "--memory-of", str(path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    total, allowance, before, reading, first, later = (float(word) for word in told.split())
    print(f"{count} flows of 2x224x224, {total:.0f} MB, allowance {allowance:.0f} MB")
    print(f"  process before the first batch  {before:6.0f} MB")
    print(f"  most with an allowance of 0     {reading:6.0f} MB")
    print(f"  most in the first epoch         {first:6.0f} MB")
    print(f"  most in the two epochs after    {later:6.0f} MB")


def memory_of_an_epoch(path: str) -> tuple[float, ...]:
    """Return MB: the data, the allowance; resident before, without allowance, in epochs."""
    dataset = ClipDataset(path, flow="onset-apex", memory=1)
    before = resident()
    reading = most_in(dataset, [0])
    dataset.memory = dataset.nbytes // 4
    first, later = most_in(dataset, [1]), most_in(dataset, [2, 3])
    return dataset.nbytes / 1e6, dataset.memory / 1e6, before, reading, first, later


def most_in(dataset: ClipDataset, epochs: Sequence[int]) -> float:
    """Return the most MB that the process occupies while it is given these epochs."""
    stream = dataset.stream(batch_size=16)
    most = 0.0
    for epoch in epochs:
        stream.set_epoch(epoch)
        for _ in DataLoader(stream, batch_size=None):
            most = max(most, resident())
    return most


def plain_tensor(images: NDArray[np.uint8]) -> Epoch:
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    labels = torch.zeros(len(images), dtype=torch.long)

    def epoch(number: int) -> Iterator[Any]:
        order = torch.randperm(len(tensor), generator=torch.Generator().manual_seed(number))
        for chosen in order.split(BATCH):
            yield tensor.index_select(0, chosen).float().mul_(1 / 255), labels[chosen]

    return epoch


def in_memory(path: Path, *, collate: bool) -> Epoch:
    dataset = ClipDataset(path, maps="hsv")
    options = {"collate_fn": dataset.collate} if collate else {}
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, **options)
    return lambda _: iter(loader)


def streamed(path: Path) -> Epoch:
    dataset = ClipDataset(path, maps="hsv", memory=1)
    dataset.memory = dataset.nbytes // 4
    stream = dataset.stream(batch_size=BATCH)

    def epoch(number: int) -> Iterator[Any]:
        stream.set_epoch(number)
        return iter(DataLoader(stream, batch_size=None))

    return epoch


def image_folder(path: Path) -> Epoch:
    loader = DataLoader(ImageFolder(path, ToTensor()), batch_size=BATCH, shuffle=True)
    return lambda _: iter(loader)


def smooth_maps(count: int) -> NDArray[np.uint8]:
    """Random maps as smooth as maps of flow are, so that they compress alike."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 7, 7, 3), np.uint8)
    return np.stack([cv2.resize(one, (28, 28), interpolation=cv2.INTER_CUBIC) for one in coarse])


def write_store(
    path: Path,
    *,
    maps: NDArray[np.uint8] | None = None,
    flow: Iterator[NDArray[np.float32]] | None = None,
    count: int = 0,
) -> None:
    """Write a finished store in bulk, in the form that a run leaves behind."""
    count = len(maps) if maps is not None else count
    layout = Layout(
        crop=(224, 224) if flow is not None else (28, 28),
        keep_frames=False,
        windows={"onset-apex": 1},
        flow_dtype="float32",
        maps={} if maps is None else {"hsv": MapLayout(size=(28, 28), window="onset-apex")},
        stages=("flow",),
    )
    store = create_store(path, layout=layout, recipe={}, recipe_hash="0" * 64, provenance={})
    keys = [
        {"dataset": "made", "subject": f"{i * SUBJECTS // count:02d}", "clip": f"{i}"}
        for i in range(count)
    ]
    store.reserve([ClipRow(**key, emotion="joy") for key in keys])
    digests: list[dict[str, int]] = [{} for _ in range(count)]
    if maps is not None:
        store.array("maps/hsv")[:] = maps
        for found, image in zip(digests, maps, strict=True):
            found["maps/hsv"] = crc(image)
    for i, one in enumerate(flow or ()):
        store.array("flow/onset-apex")[i] = one
        digests[i]["flow/onset-apex"] = crc(one)
    records = [
        ClipRecord(**key, status=DONE, digests=digest).to_json()
        for key, digest in zip(keys, digests, strict=True)
    ]
    store.array("clips/record")[:] = np.asarray(records, store.array("clips/record").dtype)
    store.finalize()


def write_pngs(folder: Path, images: NDArray[np.uint8]) -> None:
    into = folder / "joy"
    into.mkdir(parents=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(into / f"{i}.png"), image)


def crc(values: NDArray[Any]) -> int:
    return int(google_crc32c.value(values.tobytes()))


def resident() -> float:
    """Return MB of memory that the process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def on_one_core() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
