from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from apexflow.cli import cli
from apexflow.engine.recipe import Recipe, recipe_names, recipe_text
from apexflow.errors import ApexflowError

SHIPPED = {"apexnet", "default", "roi", "seed-samm", "sequence", "ststnet", "ststnet-published"}


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(Recipe.load("default").to_dict())
    *tables, key = path.split(".")
    table = values
    for name in tables:
        table = table[name]
    table[key] = value
    return values


def test_the_shipped_recipes_are_sound_and_differ() -> None:
    assert set(recipe_names()) == SHIPPED
    recipes = {name: Recipe.load(name) for name in recipe_names()}
    assert len({recipe.hash for recipe in recipes.values()}) == len(SHIPPED)
    for recipe in recipes.values():
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        assert pickle.loads(pickle.dumps(recipe)).hash == recipe.hash


def test_seed_samm_is_the_published_workflow() -> None:
    recipe = Recipe.load("seed-samm")
    assert recipe.face.template_frame == "middle"
    assert (recipe.face.min_face_size, recipe.face.image_side) == (20, 0)
    assert (recipe.alignment.method, recipe.alignment.margin) == ("integer", 40)
    assert recipe.alignment.follow == 0  # the region stays where it is
    assert (recipe.crop.height, recipe.crop.width, recipe.crop.interpolation) == (
        *(224, 224),
        "linear",
    )
    assert recipe.flow.method == "farneback"
    assert recipe.flow.options == {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
    }
    assert [(m.encoding, m.window, m.size) for m in recipe.maps.values()] == [
        ("hsv", "onset-apex", (28, 28))
    ]


UV_MAP = {"encoding": "uv", "window": "onset-apex", "size": [9, 9]}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "frame",
            {},
            "unknown key frame; allowed here: alignment, crop, face, flow, frames, magnification,",
        ),
        ("crop.hight", 3, "unknown key crop.hight; allowed here: height, interpolation, width"),
        ("maps.hsv.zoom", 2, "unknown key maps.hsv.zoom; allowed here: encoding, mask_eyes,"),
        ("flow.farneback.flags", 256, "unknown key flow.farneback.flags; allowed here: iterations"),
        ("crop.height", 224.5, "crop.height: Input should be a valid integer, not 224.5"),
        ("crop.height", 8, "crop.height: Input should be greater than or equal to 16, not 8"),
        ("alignment.method", "affine", "alignment.method: Input should be 'integer', 'subpixel'"),
        (
            "flow.method",
            "raft",
            "flow.method: Input should be 'farneback', 'tvl1' or 'clg', not 'raft'",
        ),
        ("windows", ["onset-peak"], "windows: 'onset-peak' is not a window; a window is"),
        ("windows", ["onset-apex"] * 2, "must name each window once"),
        ("maps.hsv.window", "apex-offset", "must be one of ['onset-apex']"),
        ("maps.hsv.encoding", "rgb", "maps.hsv: encoding must be one of ['hsv', 'hsv-absolute'"),
        ("maps.hsv.options", {"limit": 2}, "maps.hsv: options of hsv must be among ['least']"),
        ("maps.hsv.noise", "none", "maps.hsv.noise"),
        ("maps.hsv.regions", True, "noise = 'measured' needs a part of the face that is still"),
        (
            "maps.uv",
            {**UV_MAP, "regions": True},
            "maps.uv.regions: regions.names must name regions",
        ),
        ("maps.a/b", UV_MAP, "'a/b' must be"),
        ("regions.names", ["ear"], "regions: names: 'ear' must be one of eyes, eyebrows, mouth"),
        ("regions.names", ["nose", "nose"], "must name each region once"),
        ("regions.fractions", {"ear": [0, 0, 0, 1]}, "fractions.ear: width and height"),
        ("regions.boxes", {"*": {"mouth": [5, 0, 2, 9]}}, "boxes.*.mouth: x0 < x1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_rule(
    path: str, value: Any, message: str
) -> None:
    with pytest.raises(ApexflowError) as raised:
        Recipe.from_dict(changed(path, value))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_key_is_named() -> None:
    values = Recipe.load("default").to_dict()
    del values["crop"]["width"]
    with pytest.raises(ApexflowError, match=r"crop\.width is missing"):
        Recipe.from_dict(values)


def test_a_file_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "default"\n[crop]\nheight = 128\n[maps]\n')
    recipe = Recipe.load(path)
    assert (recipe.crop.height, recipe.crop.width) == (128, 224)
    assert recipe.maps == {}  # maps are a list of their own, not settings of the base's
    assert recipe.hash != Recipe.load("default").hash
    path.write_text('base = "mine"\n')
    with pytest.raises(ApexflowError, match="base 'mine' must be one of apexnet, default"):
        Recipe.load(path)
    path.write_text("windows = [")
    with pytest.raises(ApexflowError, match="not a TOML file"):
        Recipe.load(path)


# The recipes of version 0.1 whose stores must go on: their hashes then.
HASHES_OF_0_1 = {
    "seed-samm": "e122d22b9cd31d5cbaec962770d85ed7d62907a18dbf2fe745a1bbf4cf0e05be",
    "ststnet-published": "9a48dc8b1ded60ca960cb064e42f4a9690812bc620d52fa8e76e4509bec84ac0",
}


@pytest.mark.parametrize("name", HASHES_OF_0_1)
def test_stores_of_earlier_versions_keep_their_hash(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.hash == HASHES_OF_0_1[name]
    old = recipe.to_dict()
    for table, key in (("alignment", "reach"), ("flow", "clg")):
        del old[table][key]
    del old["normalization"], old["temporal"], old["flow"]["tvl1"]["cubic"]
    assert Recipe.from_dict(old) == recipe
    assert Recipe.from_dict(old).temporal.method == "pair"
    assert Recipe.from_dict(old).normalization.method == "none"
    changed_later = recipe.to_dict()
    changed_later["normalization"]["sigma"] = 7.0
    assert Recipe.from_dict(changed_later).hash != recipe.hash


@pytest.mark.parametrize(
    ("text", "method", "light", "temporal"),
    [
        ("", "clg", "local", "sequence"),
        ("[flow.clg]\nalpha = 80.0", "clg", "local", "sequence"),
        ('[flow]\nmethod = "tvl1"', "tvl1", "none", "pair"),
        ("[flow.farneback]\nwinsize = 15", "farneback", "none", "pair"),
        ('[flow]\ndtype = "float16"', "clg", "local", "sequence"),
        ('[flow]\nmethod = "tvl1"\n[temporal]\nmethod = "mean"', "tvl1", "none", "mean"),
        ('[flow]\nmethod = "tvl1"\n[normalization]\nmethod = "local"', "tvl1", "local", "pair"),
        ('[temporal]\nmethod = "mean"', "clg", "local", "mean"),
    ],
)
def test_a_flow_method_of_its_own_starts_from_two_frames_as_they_are(
    tmp_path: Path, text: str, method: str, light: str, temporal: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'base = "default"\n{text}\n')
    recipe = Recipe.load(path)
    chosen = recipe.flow.method, recipe.normalization.method, recipe.temporal.method
    assert chosen == (method, light, temporal)


def test_own_region_boxes_become_part_of_the_recipe(tmp_path: Path) -> None:
    """A store and a worker elsewhere need no second file, and other boxes are another recipe."""
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("clip,region,x0,y0,x1,y1\n006/006_1_2,mouth,1,2,30,40\n")
    path = tmp_path / "mine.toml"
    path.write_text('base = "default"\n[regions]\nnames = ["mouth"]\nfile = "boxes.csv"\n')
    first = Recipe.load(path)
    assert first.regions.boxes == {"006/006_1_2": {"mouth": (1, 2, 30, 40)}}
    assert Recipe.from_dict(first.to_dict()) == first
    boxes.write_text("clip,region,x0,y0,x1,y1\n006/006_1_2,mouth,1,2,30,41\n")
    assert Recipe.load(path).hash != first.hash


def test_recipes_are_listed_and_printed(tmp_path: Path) -> None:
    listed = CliRunner().invoke(cli, ["recipe", "list"])
    assert listed.exit_code == 0
    assert {line.split()[0] for line in listed.output.splitlines()} == SHIPPED
    for name in recipe_names():
        shown = CliRunner().invoke(cli, ["recipe", "show", name])
        assert shown.exit_code == 0
        assert shown.output.strip() == recipe_text(name).strip()
        own = tmp_path / "own.toml"
        own.write_text(shown.output)
        assert Recipe.load(own) == Recipe.load(name)
    full = CliRunner().invoke(cli, ["recipe", "show", "apexnet", "--full"])
    assert '"winsize": 19' in full.output
    missing = CliRunner().invoke(cli, ["recipe", "show", "nope"])
    assert isinstance(missing.exception, ApexflowError)
