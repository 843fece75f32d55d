"""From how a face has moved to the curve of each kind of expression, and its intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.datasets.long_videos import Kind
from apexflow.errors import ApexflowError
from apexflow.spotting import mdmd
from apexflow.spotting.intervals import KINDS
from apexflow.spotting.motion import FEATURES, FaceMotion, FaceRegions
from apexflow.spotting.recipe import Apart, SpotRecipe
from apexflow.spotting.recipe import Curve as CurveOptions

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

_LEAST_NOISE = 0.002  # px of the crop
# Of the samples: how many are taken for noise at least, and up to which they follow its law.
_QUIET, _LEVEL, _STEPS = 0.5, 0.3, 4
_FAR_LEVEL = 0.15
_NOISE_S = 0.4  # k for the noise: over less, a crowd of long expressions would seem noise
_BOTH = 0.3  # of how far a peak comes down on one side, it does on the other, at least
_SYLLABLE_S = 0.03  # standard deviation of the Gaussian that the mouth's opening is smoothed with
_SYLLABLES = 3  # in a row that are speech
_SYLLABLE_NOISE = 6.0  # standard deviations of its noise that a syllable is, at least
_CHUNK = 4096  # samples whose fields are in memory at a time
_HALF, _LOW = 0.5, 0.15
# Of a rise like half a cosine: from its low level to the half it takes .5 - acos(.7) / pi of its
# length, from the first movement to the half .5.
_TO_START = 0.5 / (0.5 - float(np.arccos(1 - 2 * _LOW)) / np.pi)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One spotted interval. Frames by their numbers, both ends included.

    Attributes
    ----------
    kind : {"micro", "macro"}
    onset, apex, offset : int
    score : float
        The curve's height at the apex over the threshold; at least 1.
    region : str
        What moves most: "left brow", "right brow", "mouth", or "face" where the method does
        not say.
    flags : tuple of str
        "blink" where the eyes blink within it, "speech" where the mouth speaks.
    """

    kind: Kind
    onset: int
    apex: int
    offset: int
    score: float
    region: str = "face"
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """The curve of one kind of expression.

    Attributes
    ----------
    values : (n,) float32
        For ``regions`` in standard deviations of its noise, for ``mdmd`` in pixels of the crop.
    threshold : float
    """

    values: Values
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionCurves:
    """What moves in a face over time, and what of it may be an expression.

    Attributes
    ----------
    numbers : (n,) int64
        The frame in the middle of each sample.
    rate : float
        Samples a second.
    motion : dict of region to (n,) float32
        Mean length of the motion of "left brow", "right brow" and "mouth" against their
        average, in pixels of the crop, the nose's motion subtracted.
    eyes : (n,) float32
        How much the eyes have changed, in normalised gray levels.
    blinks, speech, lost : (n,) bool
        Where the eyes blink, the mouth speaks, and the face is not there.
    curves : dict of kind to Curve
    spots : tuple of Spot
        In order of their onset.
    """

    numbers: NDArray[np.int64]
    rate: float
    motion: dict[str, Values]
    eyes: Values
    blinks: Mask
    speech: Mask
    lost: Mask
    curves: dict[Kind, Curve]
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of n samples of a video.

    Attributes
    ----------
    numbers : (n,) int64
    rate : float
    step : int
        Frames of a sample.
    side : int
        Of the crop, in pixels.
    fields : (n, 2, CELLS, CELLS)
        As `FaceMotion.measure` gives them; may lie in a file.
    eyes : (n,) float32
    lost : (n,) bool
    regions : FaceRegions
    """

    numbers: NDArray[np.int64]
    rate: float
    step: int
    side: int
    fields: NDArray[Any]
    eyes: Values
    lost: Mask
    regions: FaceRegions

    def __len__(self) -> int:
        return len(self.numbers)

    def features(self) -> NDArray[np.float32]:
        """Return u, v and strain of each block, (n, block, FEATURES), smooth in nothing."""
        weights = self.regions.features(self.side).T.copy()
        parts = [
            self.fields[start : start + _CHUNK].reshape(-1, len(weights)).astype(np.float32)
            @ weights
            for start in range(0, len(self), _CHUNK)
        ]
        return np.concatenate(parts).reshape(len(self), -1, FEATURES)


def motion_curves(
    crops: Iterable[NDArray[np.uint8]],
    *,
    fps: float,
    landmarks: Sequence[Sequence[float]] | NDArray[Any] | None = None,
    numbers: Sequence[int] | None = None,
    recipe: str | SpotRecipe = "regions",
) -> MotionCurves:
    """Return what moves in aligned crops of one face, and what of it may be an expression.

    Parameters
    ----------
    crops : iterable of (height, width) uint8
        All frames in order, each registered to the first, such as a store's or those of
        `apexflow.process_clip`; 16 px a side or more. One at a time is in memory.
    fps : float
        Frames a second.
    landmarks : (5, 2), optional
        Eyes, nose and mouth corners, left to right as seen, in parts of the crop (0 to 1):
        where the regions are. Without, where they usually lie in the box of a face.
    numbers : sequence of int, optional
        The number of each frame; 0, 1, 2, … without.
    recipe : name, path or SpotRecipe
        Only what it says of flow and curves; every crop is looked at.

    Returns
    -------
    MotionCurves

    Raises
    ------
    ApexflowError
        There are fewer than 3 crops, fps is not positive, landmarks are not 5 points, or
        numbers are not one a crop.
    """
    chosen = SpotRecipe.load(recipe)
    if not 0 < fps < float("inf"):
        raise ApexflowError(f"fps must be positive. Got {fps}.")
    regions = FaceRegions.of(landmarks)
    fields, eyes, motion, side = [], [], None, 0
    for crop in crops:
        square = _square(crop, chosen.following.side)
        if motion is None:
            motion, side = FaceMotion(square, chosen.flow, regions.eyes), len(square)
        field, changed = motion.measure(square)
        fields.append(field.astype(np.float16))
        eyes.append(changed)
    count = len(fields)
    if count < 3:
        raise ApexflowError(f"motion needs at least 3 crops. Got {count}.")
    named = np.arange(count) if numbers is None else np.asarray(numbers, np.int64)
    if named.shape != (count,):
        raise ApexflowError(f"numbers must be one a crop, {count}. Got {named.shape}.")
    measured = Measured(
        numbers=named,
        rate=fps,
        step=1,
        side=side,
        fields=np.stack(fields),
        eyes=np.array(eyes, np.float32),
        lost=np.zeros(count, bool),
        regions=regions,
    )
    return curves_of(measured, chosen)


def _square(crop: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    import cv2

    if crop.ndim != 2 or crop.dtype != np.uint8 or min(crop.shape) < 16:
        raise ApexflowError(
            f"crops must be (height, width) uint8 of at least 16 px. Got {crop.shape} {crop.dtype}."
        )
    if crop.shape == (side, side):
        return crop
    # A mean where the crop is larger; `INTER_AREA` enlarges by repeating pixels.
    way = cv2.INTER_AREA if min(crop.shape) >= side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, (side, side), interpolation=way))


def curves_of(measured: Measured, recipe: SpotRecipe) -> MotionCurves:
    """Return the curves of what was measured, and the intervals of their peaks.

    Parameters
    ----------
    measured : Measured
    recipe : SpotRecipe

    Returns
    -------
    MotionCurves
    """
    features = measured.features()
    blinks = find_blinks(measured.eyes, measured.rate, recipe.apart)
    speech = find_speech(features, measured.regions.names, measured.rate, recipe.apart)
    names = np.array(measured.regions.names)
    # Falling lids move what lies around them, the nose and the face's place, too: a mouth as well.
    seen = _bridged(_bridged(features, blinks, names != ""), speech, names == "mouth")
    curves: dict[Kind, Curve] = {}
    found: dict[Kind, list[_Candidate]] = {}
    for kind in KINDS:
        options: CurveOptions = getattr(recipe, kind)
        if recipe.method == "mdmd":
            values = mdmd.curve(measured, round(options.lag_ms * measured.rate / 1000))
            threshold = _threshold(values, measured.lost, options)
            found[kind] = _runs(values, threshold, measured, options)
        else:
            bumps = _Bumps.of(seen, names, speech, measured.rate, options)
            values = bumps.values
            threshold = _threshold(values, measured.lost, options)
            found[kind] = bumps.candidates(threshold, measured.rate, options)
        curves[kind] = Curve(values, threshold)
    pairs = [(kind, one) for kind, of_kind in found.items() for one in of_kind]
    spots = [
        _spot(kind, candidate, measured, blinks, speech)
        for kind, candidate in (_apart(found) if recipe.method == "regions" else pairs)
        if not measured.lost[candidate.onset : candidate.offset + 1].any()
    ]
    return MotionCurves(
        numbers=measured.numbers,
        rate=measured.rate,
        motion=_lengths(features, measured.regions.names),
        eyes=measured.eyes,
        blinks=blinks,
        speech=speech,
        lost=measured.lost,
        curves=curves,
        spots=tuple(sorted(spots, key=lambda spot: (spot.onset, spot.offset))),
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An interval in samples."""

    onset: int
    apex: int
    offset: int
    score: float
    region: str = "face"


def _threshold(values: Values, lost: Mask, options: CurveOptions) -> float:
    there = values[~lost]
    if not there.size:
        return max(options.floor, 1.0)
    mean = float(there.mean())
    return max(mean + options.p * (float(there.max()) - mean), options.floor)


@dataclass(frozen=True, slots=True)
class _Bumps:
    """Motion against the mean of before and behind, in standard deviations of its noise.

    A frame's motion less the mean of that k before and that k behind: a slow drift gives
    nothing, and an expression one peak, at its apex.
    """

    smooth: Values  # (n, block, feature), of unit noise
    blocks: Values  # (n, block)
    names: NDArray[Any]
    lag: int

    @classmethod
    def of(
        cls, features: Values, names: NDArray[Any], speech: Mask, rate: float, options: CurveOptions
    ) -> _Bumps:
        from scipy.ndimage import gaussian_filter1d

        sigma = options.smooth_ms * rate / 1000
        smooth = gaussian_filter1d(features, sigma, axis=0, mode="nearest") if sigma else features
        lag = max(1, round(options.lag_ms * rate / 1000))
        near, far = _bumps(smooth, min(lag, max(1, round(_NOISE_S * rate)))), _bumps(smooth, lag)
        silent = ~speech if not speech.all() else speech
        white = np.empty_like(smooth)
        for at, name in enumerate(names):
            rows = silent if name == "mouth" else slice(None)
            white[:, at] = smooth[:, at] @ _whitening(near[rows, at], far[rows, at])
        blocks = np.sqrt(np.mean(_bumps(white, lag) ** 2, axis=2))
        blocks[np.ix_(speech, names == "mouth")] = 0
        return cls(white, blocks, names, lag)

    @property
    def values(self) -> Values:
        return np.asarray(self.blocks.max(axis=1), np.float32)

    def candidates(self, threshold: float, rate: float, options: CurveOptions) -> list[_Candidate]:
        from scipy.signal import find_peaks

        values = self.values
        if len(values) <= 2 * self.lag:  # nothing before or behind to compare with
            return []
        apart = max(1, round(options.least_ms * rate / 1000))
        peaks, _ = find_peaks(values, height=threshold, distance=apart)
        found = [self._interval(int(peak), threshold, rate, options) for peak in peaks]
        least, most = (ms * rate / 1000 for ms in (options.least_ms, options.most_ms))
        return [one for one in found if one and least <= one.offset - one.onset + 1 <= most + 1]

    def _interval(
        self, peak: int, threshold: float, rate: float, options: CurveOptions
    ) -> _Candidate | None:
        """Follow the motion from the apex down to both sides, along its own direction.

        None where it comes down on one side alone: behind an expression, k later, the curve
        has a lower peak, and so it has at a step.
        """
        moving = self.blocks[peak] >= 0.5 * self.blocks[peak].max()
        way = _bumps(self.smooth[:, moving], self.lag, at=peak)
        reach = max(2 * self.lag, round(options.most_ms * rate / 1000))
        first, last = max(0, peak - reach), min(len(self.smooth), peak + reach + 1)
        along = np.einsum("tbf,bf->t", self.smooth[first:last, moving], way)
        at = peak - first
        before, behind = along[: at + 1][::-1], along[at:]
        falls = [side[0] - side[min(self.lag, len(side) - 1)] for side in (before, behind)]
        if min(falls) < _BOTH * max(falls):
            return None
        half = options.mean_ms * rate / 2000
        left, right = (_down(side, self.lag) or half for side in (before, behind))
        onset, offset = max(0, round(peak - left)), min(len(self.smooth) - 1, round(peak + right))
        region = str(self.names[int(self.blocks[peak].argmax())])
        score = float(self.blocks[peak].max() / threshold) if threshold else 1.0
        return _Candidate(onset, peak, offset, score, region)


def _bumps(values: Values, lag: int, at: int | None = None) -> Values:
    """Return values (n, …) less the mean of those ``lag`` before and behind; at one of them."""
    rows = np.arange(len(values)) if at is None else np.array(at)
    last = len(values) - 1
    around = values[np.clip(rows - lag, 0, last)] + values[np.clip(rows + lag, 0, last)]
    return np.asarray(values[rows] - 0.5 * around)


def _whitening(values: Values, far: Values) -> Values:
    """Return the matrix (feature, feature) after which noise is white, of variance 1.

    The noise is the covariance of the part of the samples that move least: the minimum
    covariance determinant, by the concentration steps of Rousseeuw and Van Driessen 1999, DOI
    10.1080/00401706.1999.10485670, from the robust standard deviations on. Expressions that
    take a good part of a video do not count as its noise.
    """
    from scipy.stats import chi2

    features = values.shape[1]
    least = np.eye(features) * _LEAST_NOISE**2
    covariance = np.diag((1.4826 * np.median(np.abs(values), axis=0)) ** 2) + least
    for _ in range(_STEPS):
        away = np.einsum("ti,ij,tj->t", values, np.linalg.inv(covariance), values)
        quiet = values[away <= np.quantile(away, _QUIET)]
        covariance = quiet.T @ quiet / max(len(quiet), 1) + least
    # By what the quiet part is quieter than all, and what drifts over the whole of k louder.
    inverse = np.linalg.inv(covariance)
    scale = max(
        np.quantile(np.einsum("ti,ij,tj->t", bumps, inverse, bumps), level)
        / chi2.ppf(level, features)
        for bumps, level in ((values, _LEVEL), (far, _FAR_LEVEL))
    )
    lengths, axes = np.linalg.eigh(covariance)
    return np.asarray(axes / np.sqrt(np.maximum(scale, 1.0) * lengths), np.float32)


def _down(along: Values, lag: int) -> float | None:
    """Return after how many samples a motion has come down from its first value.

    From where it crosses its half and its low level, as a rise like half a cosine would go on:
    over the valley behind it, or over where the face mostly is, if another expression leads
    from there the other way. None where it does not come down.
    """
    valley = float(along[: 2 * lag + 1].min())
    low, high = max(valley, float(np.median(along))), float(along[0])
    if high <= low:
        return None
    part = (along - low) / (high - low)
    if part.min() > _HALF:
        return None
    first = int(np.argmax(part <= _HALF))
    again = part[first:] > _HALF
    part = part[: first + int(np.argmax(again))] if again.any() else part
    if part.min() > _LOW:  # the next expression begins before this one has ended
        return float(part.argmin())
    half, start = _crossing(part, _HALF), _crossing(part, _LOW)
    return half + _TO_START * (start - half)


def _crossing(part: Values, level: float) -> float:
    """Return where a curve that starts above a level first falls to it, in between samples."""
    at = int(np.argmax(part <= level))
    if at == 0:
        return 0.0
    before, after = float(part[at - 1]), float(part[at])
    return at - 1 + (before - level) / max(before - after, 1e-9)


def _runs(
    values: Values, threshold: float, measured: Measured, options: CurveOptions
) -> list[_Candidate]:
    """Return the runs of neighbouring samples above the threshold that last long enough."""
    above = np.concatenate([[False], values > threshold, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1])
    least, most = (ms * measured.rate / 1000 for ms in (options.least_ms, options.most_ms))
    return [
        _Candidate(first, first + int(values[first:end].argmax()), end - 1, score)
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        if least <= end - first <= most
        for score in [float(values[first:end].max()) / threshold if threshold else 1.0]
    ]


def _apart(found: dict[Kind, list[_Candidate]]) -> list[tuple[Kind, _Candidate]]:
    """Return candidates of which no two overlap.

    A short expression shows in the curve of the long ones, too: one whose apex lies in a
    micro-expression is that. Of others that overlap the higher stays.
    """
    short = found["micro"]
    long = [
        one for one in found["macro"] if not any(m.onset <= one.apex <= m.offset for m in short)
    ]
    pairs: list[tuple[Kind, _Candidate]] = [("micro", one) for one in short]
    pairs += [("macro", one) for one in long]
    chosen: list[tuple[Kind, _Candidate]] = []
    for kind, one in sorted(pairs, key=lambda pair: (-pair[1].score, pair[1].onset)):
        if all(one.offset < other.onset or other.offset < one.onset for _, other in chosen):
            chosen.append((kind, one))
    return chosen


def _spot(kind: Kind, found: _Candidate, measured: Measured, blinks: Mask, speech: Mask) -> Spot:
    inside = slice(found.onset, found.offset + 1)
    flags = [name for name, mask in (("blink", blinks), ("speech", speech)) if mask[inside].any()]
    onset, apex, offset = (
        int(measured.numbers[at]) for at in (found.onset, found.apex, found.offset)
    )
    return Spot(
        kind=kind,
        onset=onset,
        apex=apex,
        offset=offset,
        score=round(found.score, 3),
        region=found.region,
        flags=tuple(flags),
    )


def find_blinks(eyes: Values, rate: float, options: Apart) -> Mask:
    """Return where the eyes change far more than within the second around."""
    from scipy.ndimage import binary_dilation, median_filter

    window = min(len(eyes), 2 * round(0.6 * rate) + 1)
    rest = eyes - median_filter(eyes, window, mode="nearest")
    beyond = round(options.blink_ms * rate / 1000)
    # Less than usual, too: the template's eyes may be shut.
    shut = np.abs(rest) > options.blink
    return np.asarray(binary_dilation(shut, iterations=beyond) if beyond else shut)


def find_speech(features: Values, names: Sequence[str], rate: float, options: Apart) -> Mask:
    """Return where the mouth opens and closes as often as in speech."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    mouth = np.flatnonzero(np.array(names) == "mouth")
    upper, lower = mouth[: len(mouth) // 2], mouth[len(mouth) // 2 :]
    opening = features[:, lower, 1].mean(axis=1) - features[:, upper, 1].mean(axis=1)
    # Noise, by its second differences, opens and closes, too.
    noise = 1.4826 * np.median(np.abs(np.diff(opening, 2))) / np.sqrt(6)
    opening = gaussian_filter1d(opening, _SYLLABLE_S * rate, mode="nearest")
    opened, _ = find_peaks(opening, prominence=max(options.syllable, _SYLLABLE_NOISE * noise))
    apart = rate / options.syllables
    speech = np.zeros(len(opening), bool)
    for run in np.split(opened, np.flatnonzero(np.diff(opened) > apart) + 1):
        if len(run) >= _SYLLABLES:
            speech[max(0, round(run[0] - apart / 2)) : round(run[-1] + apart / 2) + 1] = True
    return speech


def _bridged(features: Values, gaps: Mask, blocks: Mask) -> Values:
    """Return features of blocks drawn straight across gaps, from before and behind."""
    if not gaps.any() or gaps.all():
        return features
    bridged = features.copy()
    seen = np.flatnonzero(~gaps)
    missing = np.flatnonzero(gaps)
    for block in np.flatnonzero(blocks):
        for feature in range(features.shape[2]):
            values = features[:, block, feature]
            bridged[missing, block, feature] = np.interp(missing, seen, values[seen])
    return bridged


def _lengths(features: Values, names: Sequence[str]) -> dict[str, Values]:
    away = features[:, :, :2] - np.median(features[:, :, :2], axis=0)
    lengths = np.hypot(away[..., 0], away[..., 1])
    regions = np.array(names)
    return {
        name: lengths[:, regions == name].mean(axis=1).astype(np.float32)
        for name in dict.fromkeys(names)
    }
