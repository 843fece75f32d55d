"""The benchmark on a GPU runs, on the shim at tiny sizes, and says when there is no GPU."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from apexflow.kernels.gpu import Device, GpuUnavailable, cuda_device

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu" / "rates.py"


def test_every_kernel_is_measured_and_agrees(device: Device) -> None:
    script = runpy.run_path(str(SCRIPT))
    results = script["measure"](device, batches=(3,), smoke=True)
    rates = {(row["kernel"], row["batch"]): row for row in results["rates"]}
    assert len(rates) == 6
    allowed = {"Farnebäck": 1e-3, "TV-L1": 1e-4, "registration, similarity": 1e-3}
    for (kernel, _), row in rates.items():
        assert row["difference"] <= allowed.get(kernel, 1), kernel
        assert row["bytes_per_s"] > 0, kernel
    assert rates["template search", 3]["difference"] < 1e-9
    assert {row["work"] for row in results["kernels"]} == {kernel for kernel, _ in rates}
    text = script["as_text"](json.loads(json.dumps(results)))
    assert text.count("\n| ") == len(rates) + len(results["kernels"]) + 4


@pytest.mark.parametrize("arguments", [("rates.py",), ("smoke.py",), ("clip.py", "one")])
def test_without_a_gpu_it_says_so_and_ends_with_2(arguments: tuple[str, ...]) -> None:
    try:
        cuda_device()
    except GpuUnavailable:
        pass
    else:
        pytest.skip("there is a GPU")
    script, *more = arguments
    done = subprocess.run(
        [sys.executable, str(SCRIPT.with_name(script)), *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "needs a GPU" in done.stderr
