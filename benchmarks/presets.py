"""Time and memory of each preset: one process each, one thread, CPU seconds of training steps.

    python benchmarks/presets.py [preset …] [--clips 16]

Prints a row a preset: CPU milliseconds a clip and epoch, and the most memory that the process
had. Clips are random, of the size that the preset is fed from its recipe.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

SHAPES = {
    "ststnet": (28, 28, 3),
    "off-apexnet": (28, 28, 3),
    "dual-inception": (28, 28, 3),
    "sssnet": (64, 64, 3),
    "rcn": (60, 60, 3),
    "flow-resnet": (224, 224, 3),
    "siamese-resnet": (2, 224, 224, 1),
    "rgb-resnet": (1, 224, 224, 1),
    "roi-temporal": (4, 3, 224, 224, 3),
    "roi-graph": (4, 3, 224, 224, 3),
    "roi-hybrid": (4, 3, 224, 224, 3),
    "cnn-bilstm": (60, 224, 224, 1),
    "cnn-bilstm-pooled": (60, 224, 224, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=list(SHAPES))
    parser.add_argument("--clips", type=int, default=0, help="0: one full batch")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        measure(given.presets[0], given.clips)
        return
    print(f"{'preset':20s} {'ms a clip':>10s} {'MiB':>7s}", flush=True)
    for name in given.presets:
        command = [sys.executable, __file__, name, "--clips", str(given.clips), "--here"]
        subprocess.run(command, check=True)


def measure(name: str, clips: int) -> None:
    import torch
    from torch import nn

    from apexflow.system import keep_freed_memory
    from apexflow.training.build import make_network, make_optimizer
    from apexflow.training.config import TrainConfig

    torch.set_num_threads(1)
    keep_freed_memory()
    config = TrainConfig.of(name)
    count = clips or config.batch_size
    shape = SHAPES[name]
    sample = torch.rand(*shape[:-3], shape[-1], *shape[-3:-1])
    network = make_network(config, sample, 3)
    optimizer = make_optimizer(config, network.parameters())
    values, targets = torch.rand(count, *sample.shape), torch.arange(count) % 3
    best = float("inf")
    for _ in range(10 if shape[-2] < 100 else 2):
        started = time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(values), targets).backward()
        optimizer.step()
        best = min(best, time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:20s} {1000 * best / count:10.2f} {peak:7.0f}", flush=True)


if __name__ == "__main__":
    main()
