"""A recipe: everything that changes a pixel, as frozen data with a stable hash."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from apexflow.errors import ApexflowError

MOMENTS = ("onset", "apex", "offset")

_STRICT = ConfigDict(extra="forbid")
_Side = Annotated[int, Field(ge=8, le=4096)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Face:
    """How the face's box is found, once per clip."""

    detector: Literal["mtcnn", "fixed"]
    template_frame: Literal["first", "middle", "onset", "apex"]
    min_face_size: Annotated[int, Field(ge=12)]
    image_side: Annotated[int, Field(ge=0)]
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Alignment:
    """How every frame is brought onto the template frame."""

    method: Literal["integer", "none"]
    margin: Annotated[int, Field(ge=0)]
    color: bool


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Crop:
    """The aligned image that everything after it sees."""

    height: _Side
    width: _Side
    interpolation: Literal["nearest", "linear", "cubic", "area", "lanczos4"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Frames:
    """Which frames are decoded, and whether their crops are stored."""

    which: Literal["all", "interval", "windows"]
    keep: bool


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
class Flow:
    """The optical flow method and how its result is stored."""

    method: Literal["farneback"]
    dtype: Literal["float32", "float16"]
    farneback: Farneback


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Map:
    """One image made from the flow of one window."""

    encoding: Literal["hsv"]
    window: str
    size: tuple[_Side, _Side]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Recipe:
    """Everything that changes a pixel of the result.

    Recipes are TOML files. `Recipe.load` takes the name of one that ships with apexflow
    (``default``, ``seed-samm``) or the path of your own, which may start from another with
    ``base = "default"`` and say only what differs.
    """

    windows: tuple[str, ...]
    face: Face
    alignment: Alignment
    crop: Crop
    frames: Frames
    flow: Flow
    maps: dict[str, Map]

    def __post_init__(self) -> None:
        for window in self.windows:
            moments = window.split("-")
            if len(moments) != 2 or not set(moments) <= set(MOMENTS) or moments[0] == moments[1]:
                raise ValueError(
                    f"windows: {window!r} must name two of {', '.join(MOMENTS)}, as 'onset-apex'"
                )
        for name, wanted in self.maps.items():
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"maps: {name!r} must be letters, digits, '-' and '_'")
            if wanted.window not in self.windows:
                raise ValueError(
                    f"maps.{name}.window: {wanted.window!r} must be one of {list(self.windows)}"
                )

    @classmethod
    def load(cls, name: str | Path | Recipe) -> Recipe:
        """Return the recipe of that name, or the one in that TOML file.

        Raises `ApexflowError` for an unknown name, a file that is no TOML, an unknown key
        or a value outside its rule.
        """
        if isinstance(name, Recipe):
            return name
        return cls.from_dict(_read(name), origin=f"recipe {name}")

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, origin: str = "recipe") -> Recipe:
        """Validate plain values, as in a recipe's TOML file or `to_dict`."""
        try:
            return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            what = first["msg"].removeprefix("Value error, ")
            got = "" if first["type"] in _SELF_EXPLAINING else f", not {first['input']!r}"
            raise ApexflowError(f"{origin}: {where + ': ' if where else ''}{what}{got}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe's values: equal for recipes that make equal pixels."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


_SELF_EXPLAINING = {"missing", "unexpected_keyword_argument", "value_error"}


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with apexflow."""
    return sorted(
        path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.is_file()
    )


def _shipped() -> Any:
    return resources.files("apexflow.engine") / "recipes"


def _read(name: str | Path) -> dict[str, Any]:
    if str(name) in recipe_names():
        text = (_shipped() / f"{name}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ApexflowError(
                f"recipe {name}: no such recipe or file; recipes: {', '.join(recipe_names())}"
            ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ApexflowError(f"recipe {name}: not a TOML file: {error}") from None
    base = values.pop("base", None)
    if base is None:
        return values
    if base not in recipe_names():
        raise ApexflowError(
            f"recipe {name}: base {base!r} must be one of {', '.join(recipe_names())}"
        )
    return _merged(_read(base), values)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result
