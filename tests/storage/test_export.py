import csv
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr
from PIL import Image

from apexflow import process
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.storage.export import export_gifs, export_maps, export_normalized
from apexflow.storage.format import DONE, ClipRecord
from apexflow.storage.store import Store, open_store
from apexflow.storage.writer import open_writer
from tests.conftest import small
from tests.storage.stores import make_store, random_clips


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, samm_root: Path, small_recipe: Recipe) -> Store:
    path = tmp_path_factory.mktemp("export") / "samm.zarr"
    process(read_samm(samm_root), path, recipe=small_recipe, workers=0, progress=False)
    return open_store(path)


def test_maps_have_the_published_names_and_the_stores_pixels(store: Store, tmp_path: Path) -> None:
    assert export_maps(store, tmp_path) == 5
    for index, record in enumerate(store.records()):
        assert record is not None
        path = tmp_path / f"sub{record.subject}_{record.clip}.png"
        assert path.exists() == record.done
        if record.done:
            rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(rgb, store.array("maps/hsv")[index])


def test_the_aligned_tree_has_the_names_of_the_input(
    store: Store, samm_root: Path, tmp_path: Path
) -> None:
    assert export_normalized(store, tmp_path) == 45
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.jpg")}
    given = {path.relative_to(samm_root) for path in samm_root.rglob("*.jpg")}
    assert written < given
    assert {path.parts[1] for path in given - written} == {"028_4_1", "032_3_1"}
    image = cv2.imread(str(tmp_path / next(iter(written))), cv2.IMREAD_GRAYSCALE)
    assert image.shape == (64, 64)


def test_animations_show_onset_apex_and_offset(store: Store, tmp_path: Path) -> None:
    assert export_gifs(store, tmp_path) == 5
    with Image.open(next(tmp_path.glob("*.gif"))) as gif:
        assert gif.n_frames == 3


def test_frames_that_were_not_kept_cannot_be_exported(samm_root: Path, tmp_path: Path) -> None:
    values = Recipe.load("default").to_dict()
    recipe = small(Recipe.from_dict(values | {"frames": {"which": "windows", "keep": False}}))
    path = tmp_path / "samm.zarr"
    process(read_samm(samm_root), path, recipe=recipe, workers=0, progress=False)
    with pytest.raises(ApexflowError, match="keeps no frames"):
        export_normalized(open_store(path), tmp_path / "out")


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b", "..", "a\\b", "a\0b", ""])
def test_names_in_a_hostile_store_write_nowhere_else(
    samm_root: Path, small_recipe: Recipe, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "samm.zarr"
    process(read_samm(samm_root)[:1], path, recipe=small_recipe, workers=0, progress=False)
    store = open_writer(path)
    record = store.record(0)
    assert record is not None
    assert record.status == DONE
    changed = ClipRecord.from_json(record.to_json().replace(f'"{record.clip}"', _quoted(name)))
    store.array("clips/record")[0:1] = changed.to_json()
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ApexflowError, match="not a plain file name"):
        export_maps(open_store(path), tmp_path / "out" / "maps")
    assert {p for p in tmp_path.rglob("*") if p not in before and p.is_file()} == set()


def _quoted(name: str) -> str:
    import json

    return json.dumps(name)


def test_a_folder_that_cannot_be_made(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ApexflowError, match="cannot make folder"):
        export_maps(store, tmp_path / "file")


def test_maps_of_steps_and_regions_are_files_of_their_own(samm_root: Path, tmp_path: Path) -> None:
    values = Recipe.load("default").to_dict()
    values["windows"] = ["steps-2", "consecutive", "onset-apex"]
    values["regions"]["names"] = ["eyes", "mouth"]
    both = {"encoding": "uv", "size": [16, 16]}
    values["maps"] = {
        "parts": both | {"window": "steps-2", "regions": True},
        "face": both | {"window": "onset-apex", "regions": True},
        "all": both | {"window": "consecutive"},
    }
    path = tmp_path / "samm.zarr"
    clips = read_samm(samm_root)[:1]
    process(clips, path, recipe=small(Recipe.from_dict(values)), workers=0, progress=False)
    store = open_store(path)
    record = store.record(0)
    assert record is not None
    assert export_maps(store, tmp_path / "out") == 4 + 2 + 8
    name = f"sub{record.subject}_{record.clip}"
    assert {file.name for file in (tmp_path / "out" / "face").iterdir()} == {
        f"{name}_eyes.png",
        f"{name}_mouth.png",
    }
    image = cv2.imread(str(tmp_path / "out" / "parts" / f"{name}_step2_mouth.png"))
    maps = store.read("maps/parts", 0, record)
    np.testing.assert_array_equal(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), maps[1, 1])
    image = cv2.imread(str(tmp_path / "out" / "all" / f"{name}_step8.png"))
    steps = store.read("maps/all", 0, record)
    np.testing.assert_array_equal(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), steps[7])


def named(tmp_path: Path, names: list[tuple[str, str]]) -> Store:
    """Make a store of clips of these subjects and names, each with pixels of its own."""
    clips = random_clips(len(names), frames=True)
    for clip, (subject, name) in zip(clips, names, strict=True):
        clip.subject, clip.name = subject, name
    return make_store(tmp_path / "named.zarr", clips)


CLASHING = [
    [("1", "EP02_01f"), ("2", "EP02_01f"), ("3", "EP02_01f")],
    [("a", "b_c"), ("a_b", "c"), ("x", "y")],
    [("a", "b%5Fc"), ("a", "b_c"), ("a_b", "c")],
    [("a", "b"), ("A", "B"), ("a", "B")],
    [("a", "c"), ("a", "c_step1"), ("a_c", "step1")],
    [("a", "e\u0301"), ("a", "\u00e9"), ("b", "e")],
]


@pytest.mark.parametrize("names", CLASHING)
@pytest.mark.parametrize("export", [export_maps, export_gifs])
def test_one_file_a_clip_whatever_they_are_called(
    tmp_path: Path, names: list[tuple[str, str]], export: Callable[..., int]
) -> None:
    store = named(tmp_path, names)
    assert export(store, tmp_path / "out") == len(names)
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len({str(file).casefold() for file in files}) == len(names)
    if export is export_maps:
        wanted = {store.read("maps/hsv", i, r).tobytes() for i, r in enumerate(store.records())}
        found = {cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB).tobytes() for f in files}
        assert found == wanted


def test_published_names_stay_where_nothing_clashes(tmp_path: Path) -> None:
    store = named(tmp_path, [("006", "006_1_2"), ("a", "b_c"), ("a_b", "c")])
    export_maps(store, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("sub006_006_1_2.png", "suba_b%5Fc.png", "suba%5Fb_c.png")
    }


def test_a_name_that_no_file_system_takes_is_shortened(tmp_path: Path) -> None:
    names = [("s" * 200, "c" * 200 + end) for end in "ab"]
    assert export_maps(named(tmp_path, names), tmp_path / "out") == 2
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "a/b", ""])
@pytest.mark.parametrize("what", ["maps", "regions"])
def test_names_of_maps_and_regions_stay_inside(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / "box" / "s.zarr"
    make_store(path, random_clips(2))
    attributes = zarr.open_group(path, mode="r+").attrs
    layout = dict(attributes["layout"])
    window = layout["maps"]["hsv"]
    if what == "maps":
        layout["maps"] = {name: window, "hsv": window}
    else:
        layout["maps"] = {"hsv": window | {"regions": True}}
        layout["regions"] = [name]
    attributes["layout"] = layout
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ApexflowError):
        export_maps(open_store(path), tmp_path / "box" / "out")
    assert {p for p in tmp_path.rglob("*") if p not in before and p.is_file()} == set()


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-x", "@SUM(A1)", "\tx", "\r=1"])
def test_cells_that_a_spreadsheet_would_execute(tmp_path: Path, cell: str) -> None:
    store = named(tmp_path, [("a", cell), ("b", "plain"), ("c", "-1.5")])
    text = (Path(store.name) / "clips.csv" / "c" / "0").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["clip"] for row in rows] == [
        cell if cell == "+1" else "'" + cell.replace("\r", "\n"),
        "plain",
        "-1.5",
    ]
    assert rows[0]["label"] == "-1"


def test_a_full_disk_is_one_line(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))\n"
        "from apexflow.cli import main; main()"
    )
    for option in ("--maps", "--normalized", "--gif"):
        command = ["export", store.name, option, str(tmp_path / "out")]
        ended = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert re.match(r"apexflow: error: cannot write .*File too large; make room", line)
