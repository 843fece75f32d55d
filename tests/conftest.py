"""Small data sets with known motion, made once a session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from apexflow.catalog import Catalog
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.engine.run import process
from apexflow.synthetic import ClipTruth, write_samm
from tests.kernels.cuda.build import COMPILER, ShimDevice

# Tests compare bytes with the CPU's; those of GPUs ask for GPUs.
os.environ["APEXFLOW_GPUS"] = "0"

ADDRESSES = "APEXFLOW_TEST_ADDRESSES"
"""Set to 1 in a process that runs under AddressSanitizer, or under compute-sanitizer."""

# A test never fails for being slow, since machines differ, nor for what it drew: the same tests
# draw the same examples, and `--hypothesis-profile explore` draws others.
settings.register_profile("apexflow", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("apexflow")


@pytest.fixture(scope="session")
def samm_truths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ClipTruth]]:
    """A SAMM-shaped folder: 3 subjects, 5 sound clips of 9 frames, 2 with a faulty apex."""
    root = tmp_path_factory.mktemp("samm")
    truths = write_samm(root, subjects=3, clips=5, frames=9, size=(160, 200), quality=95)
    return root, truths


@pytest.fixture(scope="session")
def samm_root(samm_truths: tuple[Path, list[ClipTruth]]) -> Path:
    return samm_truths[0]


@pytest.fixture
def catalog(samm_root: Path) -> Catalog:
    return read_samm(samm_root)


@pytest.fixture(scope="session")
def reference(
    tmp_path_factory: pytest.TempPathFactory, samm_root: Path, small_recipe: Recipe
) -> Path:
    """The store of one uninterrupted run in one process; a test that writes takes a copy."""
    path = tmp_path_factory.mktemp("reference") / "samm.zarr"
    process(read_samm(samm_root), path, recipe=small_recipe, workers=0, progress=False)
    return path


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> ShimDevice:
    """The CUDA sources as C++; each is built once a session, when a test asks for it."""
    if COMPILER is None:
        pytest.skip("no C++ compiler (g++)")
    addresses = os.environ.get(ADDRESSES) == "1"
    return ShimDevice(tmp_path_factory.mktemp("cuda"), addresses=addresses)


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """The default recipe on small frames: a fixed box needs no detector."""
    return small(Recipe.load("default"))


def small(recipe: Recipe, **changes: object) -> Recipe:
    values = recipe.to_dict()
    values["face"] |= {"detector": "fixed", "box": [60, 30, 140, 130]}
    values["alignment"]["margin"] = 6
    values["crop"] |= {"height": 64, "width": 64}
    return Recipe.from_dict(values | changes)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a TOML recipe for the command line."""

    def write(text: str = "") -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(SMALL_TOML + text, encoding="utf-8")
        return path

    return write


SMALL_TOML = """\
base = "default"
[face]
detector = "fixed"
box = [60, 30, 140, 130]
[alignment]
margin = 6
[crop]
height = 64
width = 64
"""
