"""The benchmarks run at tiny sizes, and their cases agree as the kernels promise."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from apexflow import bench
from apexflow.bench import accuracy, cases, timing
from apexflow.errors import ApexflowError

CASES = list(cases.all_cases(smoke=True))


@pytest.mark.parametrize("case", CASES, ids=[f"{c.kernel}-{c.size}" for c in CASES])
def test_cases_agree_within_their_tolerance(case):
    assert case.difference(case.ours(), case.reference()) <= case.tolerance


@pytest.fixture(scope="module")
def results():
    return bench.run(smoke=True)


def test_a_smoke_run_is_json_and_a_table(results):
    assert json.loads(json.dumps(results)) == results
    text = bench.as_text(results)
    for row in results["speed"] + results["threads"]:
        assert row["kernel"] in text
    assert {row["method"] for row in results["accuracy"]} == {"Farnebäck", "TV-L1"}
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 6 + sum(len(results[key]) for key in ("speed", "threads", "accuracy"))


def test_the_errors_are_those_of_opencv_and_below_no_flow():
    rows = [row for row in accuracy.synthetic_errors(side=128, faces=1) if "3 px" in row["images"]]
    assert len(rows) == 2
    for row in rows:
        assert row["ours_px"] == pytest.approx(row["opencv_px"], rel=0.05)
        assert row["ours_px"] < row["still_px"]


def test_the_true_flow_of_a_face_leads_from_one_crop_to_the_other():
    import cv2

    first, second, truth = accuracy.face_pair(1, 3.0, 96)
    y, x = np.mgrid[:96, :96].astype(np.float32)
    seen = cv2.remap(second, x + truth[..., 0], y + truth[..., 1], cv2.INTER_LINEAR)
    inner = np.s_[8:-8, 8:-8]
    after, before = (np.abs(first[inner] - image[inner].astype(float)) for image in (seen, second))
    assert after.mean() < 0.9 * before.mean()
    assert np.hypot(*np.moveaxis(truth, -1, 0)).max() == pytest.approx(3.0, rel=0.35)


def write_middlebury(folder, truth):
    import cv2

    first, second = cases.pair(64)
    folder.mkdir()
    cv2.imwrite(str(folder / "frame10.png"), first)
    cv2.imwrite(str(folder / "frame11.png"), second)
    head = np.float32(202021.25).tobytes() + np.array([64, 64], "<i4").tobytes()
    (folder / "flow10.flo").write_bytes(head + truth.astype("<f4").tobytes())


def test_a_middlebury_folder_is_read_and_unknown_vectors_are_left_out(tmp_path):
    truth = np.zeros((64, 64, 2), np.float32)
    truth[:, 32:] = 1e10
    truth[:, :32, 0] = 2
    write_middlebury(tmp_path / "pair", truth)
    rows = list(accuracy.middlebury_errors(tmp_path / "pair"))
    assert [row["still_px"] for row in rows] == [2.0, 2.0]
    assert all(np.isfinite(row["ours_px"]) for row in rows)


def test_a_broken_middlebury_folder_is_named(tmp_path):
    with pytest.raises(ApexflowError, match=r"frame10\.png: no image"):
        list(accuracy.middlebury_errors(tmp_path))
    write_middlebury(tmp_path / "pair", np.zeros((64, 63, 2)))
    with pytest.raises(ApexflowError, match="64 x 64 vectors announced, 4032 found"):
        list(accuracy.middlebury_errors(tmp_path / "pair"))
    (tmp_path / "pair" / "flow10.flo").write_bytes(b"other")
    with pytest.raises(ApexflowError, match="no Middlebury flow file"):
        list(accuracy.middlebury_errors(tmp_path / "pair"))


def test_pinning_is_undone():
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("only Linux can pin a process to cores")
    before = os.sched_getaffinity(0)
    with timing.cores(1) as available:
        assert len(os.sched_getaffinity(0)) == available == 1
    assert os.sched_getaffinity(0) == before
