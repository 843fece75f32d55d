"""A recipe: everything that changes a pixel, as frozen data with a stable hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from functools import reduce
from importlib import resources
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from apexflow.engine import regions
from apexflow.engine.models import model_digest
from apexflow.engine.windows import Window
from apexflow.errors import ApexflowError
from apexflow.storage.format import COORDINATES

_STRICT = ConfigDict(extra="forbid")
_Side = Annotated[int, Field(ge=1, le=4096)]
_FlowSide = Annotated[int, Field(ge=16, le=4096)]  # what TV-L1's pyramid needs
_Fraction = Annotated[float, Field(ge=-1, le=2)]
_Corners = tuple[float, float, float, float]
Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos4"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FaceOptions:
    """How the face's box is found, once per clip."""

    detector: Literal["mtcnn", "blazeface", "fixed"]
    template_frame: Literal["first", "middle", "onset", "apex"]
    min_face_size: Annotated[int, Field(ge=12)]
    image_side: Annotated[int, Field(ge=0)]
    choice: Literal["largest", "central", "followed"] = "largest"
    frames_tried: Annotated[int, Field(ge=1, le=100)] = 1
    box: tuple[int, int, int, int] | None = None
    model: str = ""
    model_digest: str = ""
    mesh: str = ""
    mesh_digest: str = ""

    def __post_init__(self) -> None:
        if (self.detector == "blazeface") != bool(self.model):
            raise ValueError(
                f"model: the file face_detection_short_range.tflite goes with detector "
                f"'blazeface', and with no other. Got detector {self.detector!r}, model "
                f"{self.model!r}"
            )

    @property
    def landmark_count(self) -> int:
        """How many landmarks the detector gives."""
        return 6 if self.detector == "blazeface" else 5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Alignment:
    """How every frame is brought onto the template frame."""

    method: Literal["integer", "subpixel", "similarity", "none"]
    margin: Annotated[int, Field(ge=0)]
    color: bool
    reach: Literal["median", "falling"] = "median"
    follow: Annotated[float, Field(ge=0, le=16)] = 0.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Crop:
    """The aligned image that everything after it sees."""

    height: _FlowSide
    width: _FlowSide
    interpolation: Interpolation


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Frames:
    """Which frames are decoded, whether their crops are stored, and as how many others."""

    which: Literal["all", "interval", "windows"]
    keep: bool
    interpolated: Annotated[int, Field(ge=0, le=10_000)] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Magnification:
    """How much the motion of the aligned crops is enlarged, see `apexflow.kernels.magnification`.

    ``alpha`` is the published magnification factor: motion becomes 1 + alpha times as large.
    """

    method: Literal["none", "eulerian", "flow"] = "none"
    alpha: Annotated[float, Field(ge=0, le=1000)] = 10.0
    low: Annotated[float, Field(ge=0)] = 0.0
    high: Annotated[float, Field(gt=0)] = 10.0

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, both in Hz. Got {self.low} and {self.high}")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Normalization:
    """What is done about light before flow is computed: `apexflow.kernels.normalize_light`."""

    method: Literal["none", "local"] = "none"
    sigma: Annotated[float, Field(gt=0, le=1000)] = 8.0
    epsilon: Annotated[float, Field(ge=1e-3)] = 4.0

    @property
    def options(self) -> dict[str, float]:
        """What the kernel takes."""
        return {"sigma": self.sigma, "epsilon": self.epsilon}


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Temporal:
    """How many frames the flow of a pair is drawn from, see `engine.clip.temporal`."""

    method: Literal["pair", "mean", "sequence"] = "pair"
    reach_ms: Annotated[float, Field(ge=0, le=10_000)] = 40.0
    reach_frames: Annotated[int, Field(ge=0, le=1000)] = 2
    frames: Annotated[int, Field(ge=0, le=1000)] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Farneback:
    """Parameters of `apexflow.kernels.farneback`."""

    pyr_scale: Annotated[float, Field(gt=0, lt=1)]
    levels: Annotated[int, Field(ge=1)]
    winsize: Annotated[int, Field(ge=2)]
    iterations: Annotated[int, Field(ge=1)]
    poly_n: Annotated[int, Field(ge=3)]
    poly_sigma: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Tvl1:
    """Parameters of `apexflow.kernels.tvl1`; `lambda_` is OpenCV's lambda."""

    tau: Annotated[float, Field(gt=0)]
    lambda_: Annotated[float, Field(gt=0)]
    theta: Annotated[float, Field(gt=0)]
    nscales: Annotated[int, Field(ge=1)]
    warps: Annotated[int, Field(ge=1)]
    epsilon: Annotated[float, Field(gt=0)]
    inner_iterations: Annotated[int, Field(ge=1)]
    outer_iterations: Annotated[int, Field(ge=1)]
    scale_step: Annotated[float, Field(gt=0, lt=1)]
    median_filtering: Literal[1, 3, 5]
    cubic: Annotated[float, Field(ge=-1, le=0)] = -0.75


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Clg:
    """Parameters of `apexflow.kernels.clg`; `clg_sequence` corrects with half of `alpha`."""

    alpha: Annotated[float, Field(ge=2e-3)] = 100.0
    rho: Annotated[float, Field(gt=0, le=1000)] = 8.0
    levels: Annotated[int, Field(ge=1)] = 3
    warps: Annotated[int, Field(ge=1)] = 2
    max_iterations: Annotated[int, Field(ge=1)] = 40
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-3


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Flow:
    """The optical flow method and how its result is stored."""

    method: Literal["farneback", "tvl1", "clg"]
    dtype: Literal["float32", "float16"]
    farneback: Farneback
    tvl1: Tvl1
    clg: Clg = field(default_factory=Clg)
    keep_confidence: bool = False

    def __post_init__(self) -> None:
        if self.keep_confidence and self.method != "clg":
            raise ValueError(
                f"keep_confidence: method {self.method!r} has no confidence; take 'clg'"
            )

    @property
    def confidence_dtype(self) -> str:
        """How the confidence is stored; empty where none is.

        The step of float16 below 1 is 2 ** -11, at which the error that it stands for is .001 px.
        """
        return "float16" if self.keep_confidence else ""

    @property
    def options(self) -> dict[str, Any]:
        """The parameters of the method."""
        return asdict(getattr(self, self.method))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Regions:
    """Parts of the face, where they lie and whether they have flow of their own."""

    names: tuple[str, ...]
    source: Literal["flow", "frames"]
    placement: Literal["landmarks", "fractions"]
    padding: Annotated[float, Field(ge=0)]
    height: _FlowSide
    width: _FlowSide
    fractions: dict[str, tuple[_Fraction, _Fraction, _Fraction, _Fraction]] = field(
        default_factory=dict
    )
    boxes: dict[str, dict[str, _Corners]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (_, _, width, height) in self.fractions.items():
            if width <= 0 or height <= 0:
                raise ValueError(
                    f"fractions.{name}: width and height, the last two, must be positive"
                )
        for clip, boxes in self.boxes.items():
            for name, (x0, y0, x1, y1) in boxes.items():
                if not (x0 < x1 and y0 < y1):
                    raise ValueError(f"boxes.{clip}.{name}: x0 < x1 and y0 < y1 must hold")
        known = self.fraction_of
        boxed = {name for boxes in self.boxes.values() for name in boxes}
        for name in (*self.names, *boxed):
            if name not in known:
                raise ValueError(
                    f"names: {name!r} must be one of {', '.join(known)}, or have its place in "
                    f"regions.fractions"
                )
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names: {list(self.names)} must name each region once")

    @property
    def fraction_of(self) -> dict[str, regions.RegionBox]:
        """Where each region lies in the face's box when nothing better is known."""
        return {**regions.FRACTIONS, **self.fractions}

    @property
    def placed(self) -> tuple[str, ...]:
        """All regions that are placed, those with flow of their own first."""
        return tuple(dict.fromkeys((*self.names, *regions.NAMES, *self.fractions)))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Map:
    """One set of images made from the flow of one window."""

    encoding: str
    window: str
    size: tuple[_Side, _Side]
    regions: bool = False
    remove_head: bool = False
    mask_eyes: bool = False
    noise: Annotated[float, Field(ge=0)] | Literal["measured", "confidence"] = 0.0
    options: dict[str, bool | int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from apexflow.kernels.encode import check_options

        check_options(self.encoding, self.options)
        if self.regions and isinstance(self.noise, str):
            why = {
                "measured": "a part of the face that is still, and a region may have none",
                "confidence": "that of the full face, and regions keep none",
            }
            raise ValueError(
                f"noise = {self.noise!r} needs {why[self.noise]}; give the noise of regions in px"
            )
        if self.regions and (self.remove_head or self.mask_eyes):
            raise ValueError(
                "remove_head and mask_eyes act on the flow of the full face; regions must be false"
            )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Recipe:
    """Everything that changes a pixel of the result.

    Recipes are TOML files. `Recipe.load` takes the name of one that ships with apexflow (see
    `recipe_names`) or the path of your own, which may start from another with
    ``base = "default"`` and say only what differs.
    """

    windows: tuple[str, ...]
    face: FaceOptions
    alignment: Alignment
    crop: Crop
    frames: Frames
    flow: Flow
    regions: Regions
    maps: dict[str, Map]
    normalization: Normalization = field(default_factory=Normalization)
    temporal: Temporal = field(default_factory=Temporal)
    magnification: Magnification = field(default_factory=Magnification)

    def __post_init__(self) -> None:
        self._check_sequences()
        if self.temporal.method == "sequence" and self.flow.method != "clg":
            raise ValueError(
                f"temporal.method: 'sequence' needs flow.method 'clg', not {self.flow.method!r}; "
                f"take 'mean' or 'pair'"
            )
        for window in self.windows:
            try:
                Window.parse(window)
            except ValueError as error:
                raise ValueError(f"windows: {error}") from None
        if len(set(self.windows)) < len(self.windows):
            raise ValueError(f"windows: {list(self.windows)} must name each window once")
        for name, wanted in self.maps.items():
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"maps: {name!r} must be letters, digits, '-' and '_'")
            if name.removeprefix("frame_") in (*COORDINATES, "number"):
                raise ValueError(f"maps: {name!r} is a column of the store; take another name")
            if wanted.window not in self.windows:
                raise ValueError(
                    f"maps.{name}.window: {wanted.window!r} must be one of {list(self.windows)}"
                )
            if wanted.noise == "confidence" and not self.flow.keep_confidence:
                raise ValueError(
                    f"maps.{name}.noise: 'confidence' needs flow.keep_confidence = true"
                )
            if wanted.regions and not self.regions.names:
                raise ValueError(f"maps.{name}.regions: regions.names must name regions")

    def _check_sequences(self) -> None:
        """Refuse what needs the frames of a sequence where only some are read."""
        magnified = self.magnification.method != "none"
        wanted = {
            "frames.interpolated": self.frames.interpolated > 0,
            "magnification.method": magnified,
        }
        for key, asked in wanted.items():
            if asked and self.frames.which == "windows":
                raise ValueError(
                    f"{key} needs every frame: frames.which must be 'interval' or 'all', "
                    f"not 'windows'"
                )
        if magnified and self.regions.names and self.regions.source == "frames":
            raise ValueError(
                "magnification.method acts on the crops of the face: regions.source must be "
                "'flow', not 'frames'"
            )

    @classmethod
    def load(cls, name: str | Path | Recipe) -> Recipe:
        """Return the recipe of that name, or the one in that TOML file.

        Parameters
        ----------
        name : str, path or Recipe
            A recipe that is shipped, a TOML file, or a recipe as it is.

        Returns
        -------
        Recipe

        Raises
        ------
        ApexflowError
            An unknown name, a file that is not TOML, an unknown key or a value outside its rule.
        """
        if isinstance(name, Recipe):
            return name
        return cls.from_dict(_read(name), origin=f"recipe {name}")

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, origin: str = "recipe") -> Recipe:
        """Validate plain values, as in a recipe's TOML file or `to_dict`.

        A model file whose digest the values do not say is read for it.

        Parameters
        ----------
        values : dict
        origin : str
            What an error calls them.

        Returns
        -------
        Recipe

        Raises
        ------
        ApexflowError
            An unknown key or a value outside its rule.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(_with_digests(values)), strict=True)
        except ValidationError as error:
            raise ApexflowError(f"{origin}: {_reason(error)}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values.

        Returns
        -------
        dict
        """
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe's values; of model files their content counts, not their place.

        Keys that came later count only where they say something else than what was done before
        there were any: a store keeps its hash, and the recipe that it was made with.
        """
        values = self.to_dict()
        for model in _MODELS:
            del values["face"][model]
        for *tables, key in _LATER_KEYS:
            table = reduce(getitem, tables, values)
            if table[key] == reduce(getitem, (*tables, key), _BEFORE):
                del table[key]
        for wanted in values["maps"].values():
            if wanted["noise"] == 0:
                del wanted["noise"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# Keys that recipes did not have at first, and what their absence meant.
_BEFORE: dict[str, Any] = {
    "face": {"choice": "largest", "frames_tried": 1, "model_digest": "", "mesh_digest": ""},
    "alignment": {"reach": "median", "follow": 0.0},
    "frames": {"interpolated": 0},
    "normalization": asdict(Normalization()),
    "temporal": asdict(Temporal()),
    "magnification": asdict(Magnification()),
    "flow": {"clg": asdict(Clg()), "tvl1": {"cubic": -0.75}, "keep_confidence": False},
}
_LATER_KEYS = (
    ("face", "choice"),
    ("face", "frames_tried"),
    ("face", "model_digest"),
    ("face", "mesh_digest"),
    ("alignment", "reach"),
    ("alignment", "follow"),
    ("frames", "interpolated"),
    ("normalization",),
    ("temporal",),
    ("magnification",),
    ("flow", "clg"),
    ("flow", "tvl1", "cubic"),
    ("flow", "keep_confidence"),
)


_MODELS = ("model", "mesh")
"""Keys of ``face`` that name a file; its SHA-256 is the key with ``_digest``."""


def _with_digests(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the digest of each model file that they name."""
    face = values.get("face")
    if not isinstance(face, dict):
        return values
    unknown = [name for name in _MODELS if face.get(name) and not face.get(f"{name}_digest")]
    named = {f"{name}_digest": model_digest(str(face[name])) for name in unknown}
    return values | {"face": face | named}


def _reason(error: ValidationError) -> str:
    """Say in one line what is wrong first: where, what, and what would be right."""
    first = error.errors(include_url=False, include_context=False)[0]
    loc = [str(part) for part in first["loc"]]
    where = ".".join(loc)
    if first["type"] == "unexpected_keyword_argument":
        return f"unknown key {where}; allowed here: {', '.join(_keys_at(loc[:-1]))}"
    if first["type"] == "missing":
        return f"{where} is missing"
    what = first["msg"].removeprefix("Value error, ")
    # A rule of ours names the value itself.
    got = "" if first["type"] == "value_error" else f", not {first['input']!r}"
    return f"{where + ': ' if where else ''}{what}{got}"


def _keys_at(path: Sequence[str]) -> list[str]:
    """Return the keys that the table at a path of a recipe may have."""
    table: Any = Recipe
    for part in path:
        # A table of tables, such as maps, has keys of the user's own.
        table = get_args(table)[1] if get_origin(table) is dict else get_type_hints(table)[part]
    return sorted(f.name for f in dataclasses.fields(table))


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with apexflow."""
    return sorted(
        path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.is_file()
    )


def recipe_text(name: str | Path) -> str:
    """Return the TOML text of a recipe that ships with apexflow, or of a file.

    Raises `ApexflowError` when there is neither.
    """
    if str(name) in recipe_names():
        return str((_shipped() / f"{name}.toml").read_text(encoding="utf-8"))
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ApexflowError(
            f"recipe {name}: no such recipe or file; recipes: {', '.join(recipe_names())}"
        ) from None


def _shipped() -> Any:
    return resources.files("apexflow.engine") / "recipes"


def _read(name: str | Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(recipe_text(name))
    except tomllib.TOMLDecodeError as error:
        raise ApexflowError(f"recipe {name}: not a TOML file: {error}") from None
    _read_boxes(values, Path(name).parent)
    _find_models(values, Path(name).parent)
    base = values.pop("base", None)
    if base is None:
        return values
    if base not in recipe_names():
        raise ApexflowError(
            f"recipe {name}: base {base!r} must be one of {', '.join(recipe_names())}"
        )
    return _over_base(_read(base), values)


def _read_boxes(values: dict[str, Any], folder: Path) -> None:
    """Take the file of region boxes into the recipe, so that it holds all that it means."""
    table = values.get("regions")
    if isinstance(table, dict) and isinstance(table.get("file"), str):
        boxes = regions.read_region_boxes(folder / table.pop("file"))
        table["boxes"] = boxes | table.get("boxes", {})


def _find_models(values: dict[str, Any], folder: Path) -> None:
    """Make the paths of model files, which are given from the recipe's folder, absolute."""
    face = values.get("face")
    if isinstance(face, dict):
        for name in _MODELS:
            if isinstance(face.get(name), str) and face[name]:
                face[name] = str((folder / Path(face[name]).expanduser()).resolve())


def _over_base(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Lay a recipe over its base, whose treatment of frames goes with the base's flow method.

    A file with one method's parameters and no method means that method; and a method that is
    not the base's starts from two frames as they are, not from what another one was given.
    """
    flow = values.get("flow")
    if isinstance(flow, dict) and "method" not in flow:
        named = [method for method in _FLOW_METHODS if method in flow]
        if len(named) == 1:
            values = values | {"flow": flow | {"method": named[0]}}
    method = values["flow"].get("method") if isinstance(flow, dict) else None
    if method is not None and method != base["flow"]["method"]:
        base = {key: base[key] for key in base if key not in ("normalization", "temporal")}
    return _merged(base, values)


_FLOW_METHODS = get_args(get_type_hints(Flow)["method"])


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a recipe over its base: tables key by key, but maps as a whole."""
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict) and key != "maps"
        result[key] = _merged(result[key], value) if both else value
    return result
