"""A run that is killed goes on within the video, and ends as one that ran through."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apexflow.spotting.measure import RECORD
from apexflow.synthetic import LongTruth, Subject, write_long_video

RUN = """
import sys
from apexflow.engine.clip.faces import FixedBox
from apexflow.spotter import spot
spot(sys.argv[1], sys.argv[2], detector=FixedBox(tuple(map(int, sys.argv[3].split(",")))))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_within_the_video(tmp_path: Path) -> None:
    subject = Subject.random(3, size=(160, 144), face=0.7)
    truth = LongTruth.random(subject, seed=2, seconds=60, fps=30, rotation=4, scale=0.05)
    video = write_long_video(tmp_path / "v.avi", truth)

    def start(name: str) -> subprocess.Popen[bytes]:
        box = ",".join(map(str, truth.box))
        return subprocess.Popen([sys.executable, "-c", RUN, video, tmp_path / name, box])

    assert start("whole.csv").wait() == 0
    (wanted,) = (tmp_path / "whole.csv.parts").glob("*/motion.bin")
    killed = start("parts.csv")
    part = tmp_path / "parts.csv.parts" / wanted.parent.name / "motion.bin"
    end = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size >= RECORD.itemsize) and time.monotonic() < end:
        time.sleep(0.002)  # polls, until the first samples are on the disk
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "parts.csv").exists()
    assert 0 < part.stat().st_size // RECORD.itemsize < len(truth)
    kept = part.read_bytes()
    assert start("parts.csv").wait() == 0
    assert part.read_bytes() == wanted.read_bytes()
    assert part.read_bytes().startswith(kept[: len(kept) // RECORD.itemsize * RECORD.itemsize])
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
