"""Maps and flow that somebody else has made, brought into a store."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Catalog, Clip, person_of
from apexflow.datasets.subjects import subject_key
from apexflow.datasets.table import map_rows
from apexflow.engine.run.task import clip_row
from apexflow.errors import ApexflowError
from apexflow.storage.create import create_store
from apexflow.storage.format import DONE, ClipRecord, Layout, MapLayout
from apexflow.storage.target import Target, disk_errors, store_exists, target_name
from apexflow.storage.writer import ClipArrays, StoreWriter

logger = logging.getLogger(__name__)

_IMAGES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
_SHOWN = 3  # problems in one message
_SPLIT = re.compile(r"(.*_)?(train|test)", re.IGNORECASE)

Kind = Literal["maps", "flow"]
Order = Literal["rgb", "bgr"]


def import_maps(
    table: str | Path | None,
    folder: str | Path,
    store: Target,
    *,
    kind: Kind = "maps",
    name: str = "",
    order: Order = "rgb",
    dataset: str = "imported",
) -> Catalog:
    """Bring maps or flow that somebody else has made into a new store.

    Each clip is one file below ``folder``: of maps an image or a ``.npy`` of bytes
    (height, width, 3); of flow a ``.npy`` of floats (2, height, width) or (height, width, 2), in
    pixels. All have one size. `ClipDataset`, `train` and the folds then take the store like any
    other; what has other channels comes by `ClipDataset.from_arrays`.

    Parameters
    ----------
    table : path or None
        A table with the columns subject and clip; also label or emotion, dataset, person, and
        path, relative to ``folder``. Without a path, a clip's file is the one called
        ``clip`` or ``subject_clip``, in a folder of the subject if there are several. None takes
        all from folders, ``subject/clip.png`` or ``subject/label/clip.png``. Folders called
        ``…_train`` beside ``…_test`` hold copies of other people's clips, as the published
        STSTNet maps do, and are left alone.
    folder : path
    store : path, URL or Zarr store
        A new one.
    kind : "maps" or "flow"
    name : str
        What the store calls them: by default "maps", or the window "onset-apex" of flow.
    order : "rgb" or "bgr"
        The order in which an image's channels are kept: as the file names them, or turned
        around, as OpenCV reads them. The published weights of STSTNet are for "bgr".
    dataset : str
        The data set of clips to which the table gives none.

    Returns
    -------
    Catalog
        The clips, in the order of the store.

    Raises
    ------
    ApexflowError
        The table or a file cannot be read, a clip has no file or several different ones, sizes
        differ, a map is not of bytes with three channels, the store exists. All files are read
        before the store is made.
    """
    refuse_existing(store)
    plan = plan_import(table, folder, kind=kind, name=name, order=order, dataset=dataset)
    plan.write(store)
    return Catalog(plan.clips)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What an import would bring in; every file has been read.

    Attributes
    ----------
    kind, name, order : str
        As `import_maps` takes them, ``name`` by default filled in.
    clips : tuple of Clip
    paths : tuple of Path
        The file of each clip.
    shape : tuple of int
        Of the first file that can be read; empty where none can.
    problems : tuple of str
        What is wrong with files, a file each.
    """

    kind: Kind
    name: str
    order: Order
    clips: tuple[Clip, ...]
    paths: tuple[Path, ...]
    shape: tuple[int, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        people = {clip.person for clip in self.clips}
        datasets = Counter(clip.dataset for clip in self.clips)
        classes = Counter(
            clip.emotion or ("no label" if clip.label is None else str(clip.label))
            for clip in self.clips
        )
        size = "x".join(map(str, self.shape)) or "unknown size"
        return "\n".join(
            [
                f"{len(self.clips)} {self.kind} {size} of {len(people)} people, as {self.name!r}",
                f"data sets: {_listed(datasets)}",
                f"classes: {_listed(classes)}",
            ]
        )

    def write(self, store: Target) -> None:
        """Make the store; `ApexflowError` where a file is not sound, or the store exists."""
        if self.problems:
            first = "; ".join(self.problems[:_SHOWN])
            more = len(self.problems) - _SHOWN
            raise ApexflowError(
                f"{len(self.problems)} of {len(self.clips)} files cannot be imported, and nothing "
                f"is written: {first}{f'; and {more} more' if more > 0 else ''}"
            )
        refuse_existing(store)
        about = {"imported": {"kind": self.kind, "name": self.name, "order": self.order}}
        remedy = "make room there, and delete it first"
        with disk_errors(f"cannot write {target_name(store)}", remedy):
            made = create_store(
                store,
                layout=_layout(self.kind, self.name, self.shape),
                recipe=about,
                recipe_hash=hashlib.sha256(json.dumps(about).encode()).hexdigest(),
                provenance={
                    "datasets": sorted({clip.dataset for clip in self.clips}),
                    "versions": _versions(),
                    "runs": [],
                },
            )
            _write(made, self)


def refuse_existing(store: Target) -> None:
    """Refuse to import into a store that is there."""
    if store_exists(store):
        raise ApexflowError(f"{target_name(store)} exists; choose another output, or delete it")


def plan_import(
    table: str | Path | None,
    folder: str | Path,
    *,
    kind: Kind = "maps",
    name: str = "",
    order: Order = "rgb",
    dataset: str = "imported",
) -> ImportPlan:
    """Look at what `import_maps` would bring in, and write nothing.

    Parameters and what is refused at once, as a table that cannot be read, are those of
    `import_maps`; what is wrong with single files is in ``problems``.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ApexflowError(f"{root} is not a folder; name the one that holds the {kind}")
    if kind not in _READERS or order not in ("rgb", "bgr"):
        raise ApexflowError(
            f"kind must be maps or flow, and order rgb or bgr. Got {kind!r} and {order!r}."
        )
    files = _files(root, (*_IMAGES, ".npy") if kind == "maps" else (".npy",))
    found = (
        _from_folders(root, files, dataset)
        if table is None
        else _from_table(table, root, files, dataset)
    )
    _tell_alike(found)
    shape: tuple[int, ...] = ()
    problems = []
    for one in found:
        try:
            values = _READERS[kind](one.path, order)
        except ApexflowError as error:
            problems.append(str(error))
            continue
        shape = shape or values.shape
        if values.shape != shape:
            problems.append(f"{one.path} is {values.shape}, those before it {shape}")
    return ImportPlan(
        kind=kind,
        name=name or ("maps" if kind == "maps" else "onset-apex"),
        order=order,
        clips=tuple(Catalog(one.clip for one in found)),
        paths=tuple(one.path for one in found),
        shape=shape,
        problems=tuple(problems),
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


@dataclass(frozen=True, slots=True)
class _Found:
    """A clip and its file."""

    clip: Clip
    path: Path


def _tell_alike(found: Sequence[_Found]) -> None:
    """Warn of subjects that may be one person under several spellings."""
    spellings: dict[tuple[str, str], set[str]] = {}
    for one in found:
        if one.clip.person == person_of(one.clip.dataset, one.clip.subject):
            key = one.clip.dataset, subject_key(one.clip.subject)
            spellings.setdefault(key, set()).add(one.clip.subject)
    for (dataset, _), texts in spellings.items():
        if len(texts) > 1:
            logger.warning(
                "%s: subjects %s are taken for %d people; name them in a column person where they "
                "are one, or each data set in a column dataset",
                *(dataset, ", ".join(sorted(texts)), len(texts)),
            )


def _versions() -> dict[str, str]:
    from apexflow import __version__

    return {"apexflow": __version__, "opencv": cv2.__version__, "numpy": np.__version__}


def _layout(kind: Kind, name: str, shape: tuple[int, ...]) -> Layout:
    flow = kind == "flow"
    return Layout(
        crop=(shape[-2], shape[-1]) if flow else (shape[0], shape[1]),
        keep_frames=False,
        windows={name: 1} if flow else {},
        flow_dtype="float32",
        maps={} if flow else {name: MapLayout(size=(shape[0], shape[1]), window="")},
        stages=("store",),
    )


def _write(made: StoreWriter, plan: ImportPlan) -> None:
    slots = made.reserve([clip_row(clip, 0) for clip in plan.clips])
    made.begin()
    with made.batch():
        for clip, path, slot in zip(plan.clips, plan.paths, slots, strict=True):
            values = _READERS[plan.kind](path, plan.order)
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            found = {plan.name: values}
            flows, maps = (found, {}) if plan.kind == "flow" else ({}, found)
            record = ClipRecord(
                dataset=clip.dataset,
                subject=clip.subject,
                clip=clip.name,
                status=DONE,
                fingerprint=digest,
                files=(clip.source,),
                # A clip that is the same everywhere says nothing of whose it is.
                frames="" if (values == values.flat[0]).all() else digest,
            )
            made.commit(slot, record, ClipArrays(None, flows, maps, {}), {})
    made.finalize()


def _files(root: Path, endings: Sequence[str]) -> list[Path]:
    """Return the files below a folder, without copies that train other people's folds."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in endings
        and not any(part.lower().endswith("_train") for part in path.relative_to(root).parts[:-1])
        and not path.name.startswith(".")
        and path.is_file()
    ]


def _from_folders(root: Path, files: Sequence[Path], dataset: str) -> list[_Found]:
    if not files:
        raise ApexflowError(f"{root} holds no file of maps: {', '.join(_IMAGES)} or .npy")
    return [_named(root, path, dataset) for path in files]


def _named(root: Path, path: Path, dataset: str) -> _Found:
    inside = path.relative_to(root)
    folders = [part for part in inside.parts[:-1] if not _SPLIT.fullmatch(part)]
    if len(folders) not in (1, 2):
        raise ApexflowError(
            f"{path}: files lie in subject/clip or in subject/label/clip; give a table for others"
        )
    subject, label = folders[0], folders[1] if len(folders) > 1 else ""
    clip = Clip(
        dataset=dataset,
        subject=subject,
        name=path.stem,
        source=inside.as_posix(),
        label=int(label) if label.isdecimal() else None,
        emotion="" if label.isdecimal() else label,
    )
    return _Found(clip, path)


def _from_table(table: str | Path, root: Path, files: Sequence[Path], dataset: str) -> list[_Found]:
    clips = map_rows(table, dataset=dataset)
    if not clips:
        raise ApexflowError(f"{table} names no clip")
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    found = []
    for clip in clips:
        path = root / clip.source if clip.source else _file_of(clip, root, by_stem, table)
        source = path.relative_to(root).as_posix()
        found.append(_Found(replace(clip, source=source), path))
    return found


def _file_of(
    clip: Clip, root: Path, by_stem: Mapping[str, Sequence[Path]], table: str | Path
) -> Path:
    """Return the one file that a row without a path means."""
    paths = [
        path
        for stem in dict.fromkeys((clip.name, f"{clip.subject}_{clip.name}"))
        for path in by_stem.get(stem, ())
    ]
    own = [path for path in paths if clip.subject in path.relative_to(root).parts[:-1]]
    prefixed = [path for path in paths if path.stem.startswith(f"{clip.subject}_")]
    chosen = own or prefixed or paths
    if not chosen:
        raise ApexflowError(
            f"{table}: clip {clip} has no file called {clip.name} or {clip.subject}_{clip.name} "
            f"in {root}; name it in a column path"
        )
    if len({path.read_bytes() for path in chosen}) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in chosen[:3])
        raise ApexflowError(f"{table}: clip {clip} may be any of {names}; name it in a column path")
    return chosen[0]


def _read_map(path: Path, order: Order) -> NDArray[np.uint8]:
    if path.suffix.lower() == ".npy":
        values = _load(path)
        if values.dtype.kind == "f" and np.isfinite(values).all():
            whole = values.round()
            if (whole == values).all() and values.min() >= 0 and values.max() <= 255:
                values = whole.astype(np.uint8)
    else:
        read = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if read is None:
            raise ApexflowError(f"{path} cannot be read as an image")
        values = read if read.ndim == 2 else read[..., ::-1]
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        raise ApexflowError(
            f"{path} must be bytes (height, width, 3). Got {values.dtype} {values.shape}; other "
            "maps and features are brought in by ClipDataset.from_arrays"
        )
    return np.ascontiguousarray(values if order == "rgb" else values[..., ::-1])


def _read_flow(path: Path, _: Order) -> NDArray[np.float32]:
    values = _load(path)
    if values.ndim == 3 and values.shape[0] != 2 and values.shape[2] == 2:
        values = np.moveaxis(values, -1, 0)
    if values.ndim != 3 or values.shape[0] != 2 or values.dtype.kind != "f":
        raise ApexflowError(
            f"{path} must be floats (2, height, width) or (height, width, 2). Got {values.dtype} "
            f"{values.shape}."
        )
    if not np.isfinite(values).all():
        raise ApexflowError(f"{path}: a displacement is not finite")
    return np.ascontiguousarray(values, np.float32)


_READERS: Mapping[str, Callable[[Path, Order], NDArray[Any]]] = {
    "maps": _read_map,
    "flow": _read_flow,
}


def _load(path: Path) -> NDArray[Any]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ApexflowError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(values, np.ndarray):
        raise ApexflowError(f"{path} holds several arrays; give one file a clip")
    return values
