"""A spotting recipe: everything that changes which intervals are found, as frozen data."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from apexflow.errors import ApexflowError

_STRICT = ConfigDict(extra="forbid")
_Positive = Annotated[float, Field(gt=0)]
_Part = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Sampling:
    """How many frames are looked at.

    Attributes
    ----------
    rate : float
        Samples a second, about: a sample is the mean of so many neighbouring frames that there
        are at least this many, of a video of fewer frames a second each frame.
    """

    rate: _Positive


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Following:
    """How a face is followed, and when its template is renewed.

    Attributes
    ----------
    side : int
        Of the square crop that the face's box becomes, in pixels: a multiple of 24.
    turned : float
        The correlation with the template below which the face has turned: the template is
        renewed from the frame before.
    lost : float
        The correlation below which it is not this face: nothing is measured.
    rotation, scale : float
        Degrees and parts by which it may lie or grow otherwise than in the template.
    """

    side: Annotated[int, Field(ge=72, le=480, multiple_of=24)]
    turned: _Part
    lost: _Part
    rotation: _Positive
    scale: _Positive


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Flow:
    """Light and flow, for a crop 224 px high: `kernels.normalize_light` and `kernels.clg`."""

    sigma: _Positive
    epsilon: _Positive
    alpha: _Positive
    rho: _Positive
    levels: Annotated[int, Field(ge=1, le=8)]
    warps: Annotated[int, Field(ge=1, le=20)]
    tolerance: Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Curve:
    """How motion becomes a curve of one kind of expression.

    Attributes
    ----------
    lag_ms : float
        k: between a frame and those that it is compared with, before and behind.
    mean_ms : float
        The length that the expressions of the data sets' people last.
    least_ms, most_ms : float
        Which lengths are of this kind.
    smooth_ms : float
        Standard deviation of the Gaussian that the motion is smoothed with.
    p : float
        A peak counts above mean + p (max - mean) of the curve.
    floor : float
        ... and above this, whatever the curve: in standard deviations of its noise for
        ``regions``, in pixels of the crop for ``mdmd``.
    """

    lag_ms: _Positive
    mean_ms: _Positive
    least_ms: _Positive
    most_ms: _Positive
    smooth_ms: Annotated[float, Field(ge=0)]
    p: _Part
    floor: Annotated[float, Field(ge=0)]

    def __post_init__(self) -> None:
        if not self.least_ms <= self.most_ms:
            raise ValueError(
                f"least_ms must be at most most_ms, got {self.least_ms} and {self.most_ms}"
            )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Apart:
    """What is told apart from expressions.

    Attributes
    ----------
    blink : float
        The eyes blink where they change by so many normalised gray levels more than within
        the second around: what brows do then is not seen, but drawn from before and behind.
    blink_ms : float
        By which a blink is longer than that, on each side.
    syllable : float
        In pixels of the crop: how far the mouth opens for a syllable, at least.
    syllables : float
        The mouth speaks where it opens so many times a second or more, three times in a row:
        what it does then is not seen, either.
    """

    blink: _Positive
    blink_ms: Annotated[float, Field(ge=0)]
    syllable: _Positive
    syllables: _Positive


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SpotRecipe:
    """Everything that changes which intervals are spotted.

    Recipes are TOML files. `SpotRecipe.load` takes the name of one that ships with apexflow
    (see `spot_recipe_names`) or the path of your own, which may start from another with
    ``base = "regions"`` and say only what differs.
    """

    method: Literal["regions", "mdmd"]
    sampling: Sampling
    following: Following
    flow: Flow
    micro: Curve
    macro: Curve
    apart: Apart

    @classmethod
    def load(cls, name: str | Path | SpotRecipe) -> SpotRecipe:
        """Return the recipe of that name, or the one in that TOML file.

        Raises `ApexflowError` for an unknown name, a file that is not TOML, an unknown key
        or a value outside its rule.
        """
        if isinstance(name, SpotRecipe):
            return name
        try:
            return TypeAdapter(cls).validate_json(json.dumps(_read(name)), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            what = first["msg"].removeprefix("Value error, ")
            raise ApexflowError(f"spotting recipe {name}: {where}: {what}") from None

    @property
    def measuring_hash(self) -> str:
        """SHA-256 of what changes a measurement: of what the method makes of it, nothing."""
        parts = {"sampling": asdict(self.sampling), "following": asdict(self.following)}
        values = {**parts, "flow": asdict(self.flow)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def with_p(self, p: float | None) -> SpotRecipe:
        """Return the recipe with another p for both kinds; None leaves it."""
        if p is None:
            return self
        if not 0 <= p <= 1:
            raise ApexflowError(f"p must be from 0 to 1. Got {p}.")
        return replace(self, micro=replace(self.micro, p=p), macro=replace(self.macro, p=p))


def spot_recipe_names() -> list[str]:
    """Return the names of the spotting recipes that ship with apexflow.

    Returns
    -------
    list of str
    """
    found = (path.name for path in _shipped().iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def _shipped() -> Any:
    return resources.files("apexflow.spotting") / "recipes"


def _read(name: str | Path) -> dict[str, Any]:
    try:
        if str(name) in spot_recipe_names():
            text = (_shipped() / f"{name}.toml").read_text(encoding="utf-8")
        else:
            text = Path(name).read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError):
        known = ", ".join(spot_recipe_names())
        raise ApexflowError(
            f"spotting recipe {name}: no such recipe or file; recipes: {known}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ApexflowError(f"spotting recipe {name}: not a TOML file: {error}") from None
    base = values.pop("base", None)
    if base is None:
        return values
    if base not in spot_recipe_names():
        known = ", ".join(spot_recipe_names())
        raise ApexflowError(f"spotting recipe {name}: base {base!r} must be one of {known}")
    return _over(_read(base), values)


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _over(base[key], value) if both else value
    return merged
