"""Magnified frames of a store, exported by the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import apexflow as af
from apexflow.catalog import Catalog
from apexflow.cli import cli
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.report.entries import read_entries
from apexflow.report.methods import methods
from tests.conftest import small

WIDE = ("--band", "0", "100")  # clips of 9 frames at 200 frames/s have 11 Hz and more


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_animations_show_all_frames_magnified(reference: Path, tmp_path: Path) -> None:
    result = export(reference, "--gif", tmp_path / "gif", "--magnified", "4", *WIDE)
    assert result.exit_code == 0, result.output
    assert "5 animations" in result.output
    with af.open(reference) as store:
        (_, record), *_ = store.finished()
        crops = store.frames(record)
    expected = af.magnify_flow(crops, 4, rate=200, high=100).frames
    with Image.open(tmp_path / "gif" / f"sub{record.subject}_{record.clip}.gif") as animation:
        assert animation.n_frames == len(crops)
        assert animation.info["duration"] == 50
        for number, frame in enumerate(expected):
            animation.seek(number)
            assert (np.asarray(animation.convert("L")) == frame).all()


def test_frames_are_magnified_by_either_method(reference: Path, tmp_path: Path) -> None:
    for method in ("flow", "eulerian"):
        options = ("--magnified", "50", "--magnify-by", method, *WIDE)
        result = export(reference, "--normalized", tmp_path / method, *options)
        assert result.exit_code == 0, result.output
        assert "45 frames" in result.output
    # What the bound has taken is said, clip by clip.
    assert result.output.count("breaks the bound (1 + alpha) delta < lambda / 8") == 5
    assert result.output.count("attenuated, of 5") == 5
    plain = tmp_path / "plain"
    export(reference, "--normalized", plain)
    paths = [path.relative_to(plain) for path in sorted(plain.rglob("*.jpg"))]
    one, two, none = (
        np.stack([cv2.imread(str(tmp_path / each / path), 0) for path in paths]).astype(int)
        for each in ("flow", "eulerian", "plain")
    )
    assert min(abs(one - none).mean(), abs(two - none).mean(), abs(one - two).mean()) > 0.5


def test_clips_that_cannot_be_magnified_are_named_and_left_out(
    reference: Path, tmp_path: Path
) -> None:
    both = ("--gif", tmp_path / "gif", "--normalized", tmp_path / "frames")
    result = export(reference, *both, "--magnified", "4")
    assert result.exit_code == 1
    assert result.output.count("left out") == 5  # once a clip, not once a form
    assert "have 11.1 to 88.9 Hz. Got 0 and 10 Hz" in result.output
    assert "0 frames" in result.output


def test_the_rate_is_asked_for_where_nobody_knows_it(
    catalog: Catalog, small_recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "mine.zarr"
    mine = Catalog([replace(catalog[0], dataset="mine")])
    af.process(mine, path, recipe=small_recipe, workers=0, progress=False)
    asked = ("--gif", tmp_path / "gif", "--magnified", "4", *WIDE)
    result = export(path, *asked, "--magnify-by", "eulerian")
    assert result.exit_code == 1
    assert "frame rate is not known: give --fps, or magnify by flow" in result.output
    assert export(path, *asked, "--magnify-by", "eulerian", "--fps", "200").exit_code == 0
    assert export(path, *asked).exit_code == 0


def test_what_is_magnified_already_is_refused(
    catalog: Catalog, small_recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "magnified.zarr"
    recipe = small(
        small_recipe,
        magnification={"method": "flow", "alpha": 2.0, "high": 100.0},
        frames={"which": "interval", "keep": True, "interpolated": 4},
    )
    af.process(Catalog(catalog[:1]), path, recipe=recipe, workers=0, progress=False)
    result = export(path, "--gif", tmp_path / "gif", "--magnified", "4")
    assert isinstance(result.exception, ApexflowError)
    assert "its recipe has magnified the frames already" in str(result.exception)
    info = CliRunner().invoke(cli, ["info", str(path)]).output
    assert "magnified by flow, alpha 2" in info
    with af.open(path) as store:
        said = methods(store, read_entries(store))
    assert "0 to 100 Hz was magnified (α = 2) by warping by the measured optical" in said.paragraph
    assert "interpolated to 4 frames [3]" in said.paragraph
    assert [text.split(",")[0] for text in said.references[1:]] == ["Bruhn", "Zhou"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--magnified", "4"), "say what to write"),
        (("--maps", "m", "--magnified", "4"), "--magnified FACTOR goes with --gif DIR"),
        (("--gif", "g", "--magnified", "0"), "--magnified"),
        (("--gif", "g", "--magnified", "x"), "--magnified"),
        (("--gif", "g", "--magnified", "4", "--band", "9", "3"), "LOW must be below HIGH"),
    ],
)
def test_wrong_options_are_refused(reference: Path, options: tuple[str, ...], message: str) -> None:
    result = export(reference, *options)
    assert result.exit_code == 2
    assert message in result.output
