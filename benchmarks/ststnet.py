"""STSTNet in train's own loop: compiled streams against the layers, alternating in one process.

    python benchmarks/ststnet.py [--maps 442] [--epochs 20]

One thread. CPU milliseconds an epoch, the best and the median of the epochs of all rounds, and
the ratio of the medians.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import apexflow as af
from apexflow.training.config import TrainConfig
from apexflow.training.fitting import _Training
from apexflow.training.machine import Machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=442)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (given.maps, 28, 28, 3), np.uint8)
    subjects = [f"{i % 68:02d}" for i in range(given.maps)]
    labels = [i % 3 for i in range(given.maps)]
    dataset = af.ClipDataset.from_arrays(values, labels, subjects=subjects)
    times: dict[str, list[float]] = {"compiled": [], "layers": []}
    for _ in range(3):
        for name in times:
            times[name] += epochs(dataset, given.epochs, compiled=name == "compiled")
    for name, found in times.items():
        print(f"{name:10s} best {min(found):7.1f} ms  median {np.median(found):7.1f} ms")
    print(f"ratio {np.median(times['layers']) / np.median(times['compiled']):.2f}")


def epochs(dataset: af.ClipDataset, count: int, *, compiled: bool) -> list[float]:
    config, machine = TrainConfig.of("ststnet"), Machine(torch.device("cpu"))
    training = _Training(dataset, range(len(dataset)), config, machine, 0)
    if not compiled:
        training.network._can_compile = lambda _: False
    training.step_epoch(1)
    found = []
    for epoch in range(2, count + 2):
        started = time.process_time()
        training.step_epoch(epoch)
        found.append(1000 * (time.process_time() - started))
    return found


if __name__ == "__main__":
    main()
