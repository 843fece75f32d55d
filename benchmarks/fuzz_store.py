"""Damage stores at random and read them in every way: an error or the truth, never another thing.

    python benchmarks/fuzz_store.py --mutations 2000 --seed 0

Every round takes a sound store, changes one or a few of its files (metadata, commit records,
columns, chunks: bits turned, bytes put in or taken out, files cut, emptied, deleted or swapped),
and reads it in two of these ways: as a data set, by records and arrays, as exports do; and as
`info` and `verify` do. What a reader gives must be what was written; all that it may raise is an
`ApexflowError` of one line. Counted are mutations by kind, errors, and faults, which must be 0.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from apexflow import process, read_samm
from apexflow.cli.store import _info_lines
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.compact import compact
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.export import export_gifs, export_maps
from apexflow.storage.store import open_store
from apexflow.synthetic import write_samm

RECIPE = """\
base = "default"
[face]
detector = "fixed"
box = [60, 30, 140, 130]
[alignment]
margin = 6
[crop]
height = 48
width = 48
"""

MEMORY = 6 << 30  # bytes
Truth = dict[str, Any]


@dataclass
class Tally:
    """What was seen; `faults` must be empty."""

    rounds: int = 0
    mutations: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    unharmed: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in self.mutations.most_common())
        errors = ", ".join(f"{name} {count}" for name, count in self.errors.most_common())
        return (
            f"rounds        {self.rounds}\n"
            f"mutations     {self.mutations.total()}: {kinds}\n"
            f"errors        {errors}\n"
            f"no reader hit {self.unharmed}\n"
            f"faults        {len(self.faults)}\n" + "\n".join(self.faults[:20])
        )


def make_store(folder: Path) -> Path:
    """Return a small store with flow, maps and frames."""
    write_samm(
        folder / "samm", subjects=2, clips=3, frames=5, size=(160, 200), quality=95, faulty=False
    )
    (folder / "recipe.toml").write_text(RECIPE)
    path = folder / "whole.zarr"
    recipe = Recipe.load(folder / "recipe.toml")
    summary = process(read_samm(folder / "samm"), path, recipe=recipe, workers=0, progress=False)
    assert not summary.failed
    return path


def _records(path: Path, _: Path) -> Truth:
    with open_store(path) as store:
        found: Truth = {"keys": store.keys(), "people": store.people()}
        found |= {name: store.column(name) for name in ("emotion", "onset", "apex", "label")}
        for index, record in enumerate(store.records()):
            found[f"record {index}"] = record
            if record is not None and record.done:
                for each in record.digests:
                    found[f"{each} {index}"] = store.read(each, index, record)
        return found


def _dataset(**options: Any) -> Callable[[Path, Path], Truth]:
    def read(path: Path, _: Path) -> Truth:
        dataset = ClipDataset(path, **options)
        values, labels = dataset.batch(range(len(dataset)))
        tensors = values if isinstance(values, tuple) else (values,)
        return {
            "samples": dataset.samples,
            "labels": labels.numpy(),
            **{f"values {i}": one.numpy() for i, one in enumerate(tensors)},
        }

    return read


def _files(export: Callable[..., int]) -> Callable[[Path, Path], Truth]:
    def read(path: Path, out: Path) -> Truth:
        with open_store(path) as store:
            export(store, out)
        return {file.name: file.read_bytes() for file in out.rglob("*") if file.is_file()}

    return read


READERS: dict[str, Callable[[Path, Path], Truth]] = {
    "records": _records,
    "maps": _dataset(maps="hsv"),
    "flow": _dataset(flow="onset-apex", memory=1),
    "frames": _dataset(frames="all"),
    "export": _files(export_maps),
    "gifs": _files(export_gifs),
}


def run(
    mutations: int,
    seed: int,
    folder: Path,
    *,
    names: tuple[str, ...] = (),
    seconds: float = math.inf,
) -> Tally:
    """Damage a plain and a compacted store so many times, or as long; say what was seen."""
    until = time.monotonic() + seconds
    warnings.simplefilter("ignore")
    whole = make_store(folder)
    packed = Path(shutil.copytree(whole, folder / "packed.zarr"))
    compact(packed, chunk_bytes=1 << 15)
    readers = {name: READERS[name] for name in names or READERS}
    truths = {
        store: {name: read(store, folder / store.stem / name) for name, read in readers.items()}
        for store in (whole, packed)
    }
    tally, rng = Tally(), random.Random(seed)
    for number in range(mutations):
        if time.monotonic() > until:
            break
        tally.rounds += 1
        source = rng.choice((whole, packed))
        path = Path(shutil.copytree(source, folder / "s.zarr"))
        done = [_mutate(path, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        tally.mutations.update(kind for kind, _ in done)
        said = f"mutation {number} of {source.name}: {done}"
        hit = False
        for name in rng.sample(sorted(readers), 2):
            truth, reading = truths[source][name], partial(readers[name], path, folder / "out")
            hit |= _try(reading, truth, tally, f"{said}, {name}")
            shutil.rmtree(folder / "out", ignore_errors=True)
        hit |= _try(partial(_damages, path), None, tally, f"{said}, verify")
        hit |= _try(partial(_info, path), None, tally, f"{said}, info")
        tally.unharmed += not hit
        shutil.rmtree(path)
    return tally


def _damages(path: Path) -> Truth:
    return {"damage": verify(path)}


def _info(path: Path) -> Truth:
    with open_store(path) as store:
        return {"info": _info_lines(store)}


def _try(read: Callable[[], Truth], truth: Truth | None, tally: Tally, said: str) -> bool:
    """Read; say whether an error told of the damage; another error or value is a fault."""
    try:
        found = read()
    except ApexflowError as error:
        tally.errors[type(error).__name__] += 1
        if "\n" in str(error):
            tally.faults.append(f"{said}: an error of several lines: {error}")
        return True
    except Exception:
        tally.faults.append(f"{said}: {traceback.format_exc(limit=-3)}")
        return True
    if truth is not None:
        wrong = [name for name in truth.keys() | found.keys() if not _same(truth, found, name)]
        if wrong:
            tally.faults.append(f"{said}: read otherwise than written: {wrong}")
    return False


def _same(truth: Truth, found: Truth, name: str) -> bool:
    if name not in truth or name not in found:
        return False
    one, two = truth[name], found[name]
    if isinstance(one, np.ndarray):
        return one.shape == two.shape and bool((one == two).all() or _equal_nan(one, two))
    return bool(one == two)


def _equal_nan(one: Any, two: Any) -> bool:
    return one.dtype.kind == "f" and bool(np.array_equal(one, two, equal_nan=True))


def _mutate(path: Path, rng: random.Random) -> tuple[str, str]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    groups = {
        "metadata": [f for f in files if f.name == "zarr.json"],
        "records": [f for f in files if "record" in f.parts and f.name != "zarr.json"],
        "chunks": [f for f in files if f.name != "zarr.json"],
    }
    kind = rng.choice(sorted(groups))
    victim = rng.choice(groups[kind] or files)
    how = rng.choice(("bit", "byte", "bytes", "digit", "cut", "empty", "delete", "swap", "insert"))
    data = bytearray(victim.read_bytes())
    place = rng.randrange(len(data)) if data else 0
    if how == "bit" and data:
        data[place] ^= 1 << rng.randrange(8)
    elif how == "byte" and data:
        data[place] = rng.randrange(256)
    elif how == "bytes" and data:
        data[place : place + 8] = rng.randbytes(8)
    elif how == "digit":
        digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
        if digits:
            data[rng.choice(digits)] = 48 + rng.randrange(10)
    elif how == "cut":
        del data[place:]
    elif how == "empty":
        data.clear()
    elif how == "insert":
        data[place:place] = rng.randbytes(rng.randrange(1, 9))
    elif how == "swap":
        data = bytearray(rng.choice(groups[kind] or files).read_bytes())
    if how == "delete":
        victim.unlink()
    else:
        victim.write_bytes(data)
    return f"{kind} {how}", str(victim.relative_to(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after that time")
    arguments = parser.parse_args()
    # A damaged length that is believed is found as an error, and not by the machine.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(arguments.mutations, arguments.seed, Path(folder), seconds=arguments.seconds)
    print(tally)
    print(f"seconds       {time.perf_counter() - started:.0f}")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
