import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from apexflow.cli.look import look
from apexflow.errors import ApexflowError
from apexflow.report.look import MOST_FRAMES, write_look
from apexflow.report.look_motion import HEAD, find_candidates, motion_curves, step_of
from apexflow.synthetic import ClipTruth, Subject, render

SUBJECT = Subject.random(3, size=(200, 260), face=0.55)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of a clip with one expression, with a black frame among them."""
    truth = ClipTruth.random(SUBJECT, "surprise", seed=1, frames=40, amplitude=4.0, shift=2)
    frames = render(truth)
    frames[35] = 0
    path = tmp_path_factory.mktemp("look") / "<b>clip"
    path.mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(path / f"{i:03d}.png"), frame)
    return path


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    found = re.search(r"const data = (\{.*\});", text)
    assert found is not None
    values: dict[str, Any] = json.loads(found[1])
    return values


def test_a_page_holds_all_that_it_shows(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = write_look(folder, page)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)|https?://(?!www\.w3\.org)|url\((?!#)", text)
    assert "<b>clip" not in text
    assert "&lt;b&gt;clip" in text
    data = data_of(page)
    assert len(data["raw"]) == len(data["aligned"]) == 40
    assert data["shown"].count(False) == 1
    assert not data["shown"][35]
    # The box is where the face truly is.
    truth = ClipTruth.random(SUBJECT, "surprise", seed=1, frames=40, amplitude=4.0, shift=2)
    middle = np.mean(data["corners"][5], axis=0)
    x0, y0, x1, y1 = truth.box
    true_middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + truth.shifts()[5]
    assert np.abs(middle - true_middle).max() < 0.15 * (y1 - y0)
    assert {flag.name for flag in found.flags} == {"blank-frame"}
    assert "The face is lost in 1 of 40 frames" in text


def test_no_face_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "wall").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "wall" / f"{i}.png"), np.full((80, 100), 120 + i, np.uint8))
    result = CliRunner().invoke(look, [str(tmp_path / "wall"), "-o", str(tmp_path / "p.html")])
    assert result.exit_code == 0
    assert "No face was found" in result.output
    assert "No face was found" in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "aligned" not in data_of(tmp_path / "p.html")


def test_what_cannot_be_looked_at_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    cv2.imwrite(str(tmp_path / "one" / "1.png"), np.zeros((50, 50), np.uint8))
    with pytest.raises(ApexflowError, match="holds one frame, and motion needs two"):
        write_look(tmp_path / "one", tmp_path / "p.html")
    with pytest.raises(ApexflowError, match="nowhere"):
        write_look(tmp_path / "nowhere", tmp_path / "p.html")


BOXES = {"eyes": (40.0, 40.0, 180.0, 90.0), "mouth": (70.0, 140.0, 150.0, 190.0)}


def bulging(moves: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return crops in which the mouth moves up by ``moves`` px and all by ``shift`` px."""
    rng = np.random.default_rng(2)
    picture = cv2.GaussianBlur(rng.normal(128, 500, (224, 224)).astype(np.float32), (0, 0), 4)
    y, x = np.mgrid[:224, :224].astype(np.float32)
    near = np.exp(-(((x - 110) / 30) ** 2) - ((y - 165) / 18) ** 2).astype(np.float32)
    return np.stack(
        [
            np.clip(cv2.remap(picture, x - float(s), y + near * float(m), cv2.INTER_CUBIC), 0, 255)
            for m, s in zip(moves, shift, strict=True)
        ]
    ).astype(np.uint8)


def test_a_region_that_moves_is_a_candidate_when_it_moves() -> None:
    time = np.arange(60)
    moves = 3 * np.clip((time - 30) / 5, 0, 1)
    crops = bulging(moves, np.zeros(60))
    curves = motion_curves(crops, BOXES, 6, np.ones(60, bool))
    assert np.isnan(curves["mouth"][:6]).all()
    (found,) = find_candidates(curves, 6)
    assert found.region == "mouth"
    assert not found.is_head
    assert found.onset <= 30 <= found.apex <= 41
    assert found.offset < 46


def test_a_still_clip_has_no_candidate_and_a_moving_head_is_called_so() -> None:
    still = np.zeros(40)
    assert find_candidates(motion_curves(bulging(still, still), BOXES, 5, still == 0), 5) == ()
    turn = 6 * np.clip((np.arange(40) - 20) / 5, 0, 1)
    curves = motion_curves(bulging(turn / 6, turn), BOXES, 5, still == 0)
    assert np.nanmax(curves[HEAD]) == pytest.approx(6, rel=0.1)
    assert all(one.is_head for one in find_candidates(curves, 5))


def test_the_step_is_a_fifth_of_a_second_and_fits_the_clip() -> None:
    assert (step_of(30, 300), step_of(200, 300), step_of(200, 9), step_of(None, 100)) == (
        *(6, 40, 3),
        2,
    )
    assert step_of(5, 2) == 1
    assert MOST_FRAMES >= 300
