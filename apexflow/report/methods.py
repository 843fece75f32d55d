"""What a recipe did, as a paragraph for the methods section of a paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apexflow.report.entries import DONE, FAILED, Entry
from apexflow.storage.store import Store

_MTCNN = (
    "Zhang, K., Zhang, Z., Li, Z., Qiao, Y.: Joint face detection and alignment using multitask "
    "cascaded convolutional networks. IEEE Signal Processing Letters 23(10), 2016. "
    "doi:10.1109/LSP.2016.2603342"
)
_BLAZEFACE = (
    "Bazarevsky, V., Kartynnik, Y., Vakunov, A., Raveendran, K., Grundmann, M.: BlazeFace: "
    "Sub-millisecond neural face detection on mobile GPUs. 2019. arXiv:1907.05047"
)
_FACEMESH = (
    "Kartynnik, Y., Ablavatski, A., Grishchenko, I., Grundmann, M.: Real-time facial surface "
    "geometry from monocular video on mobile GPUs. 2019. arXiv:1907.06724"
)
_DETECTORS: Mapping[str, tuple[str, str]] = {
    "mtcnn": ("MTCNN", _MTCNN),
    "blazeface": ("BlazeFace", _BLAZEFACE),
}
_FLOWS: Mapping[str, tuple[str, str]] = {
    "farneback": (
        "Farnebäck's polynomial expansion",
        "Farnebäck, G.: Two-frame motion estimation based on polynomial expansion. SCIA 2003. "
        "doi:10.1007/3-540-45103-X_50",
    ),
    "tvl1": (
        "duality-based TV-L1 flow",
        "Zach, C., Pock, T., Bischof, H.: A duality based approach for realtime TV-L1 optical "
        "flow. DAGM 2007. doi:10.1007/978-3-540-74936-3_22",
    ),
    "clg": (
        "combined local-global flow",
        "Bruhn, A., Weickert, J., Schnörr, C.: Lucas/Kanade meets Horn/Schunck: combining local "
        "and global optic flow methods. International Journal of Computer Vision 61(3), 2005. "
        "doi:10.1023/B:VISI.0000045324.43199.43",
    ),
}
_ALIGNMENTS: Mapping[str, str] = {
    "integer": "to the whole pixel by zero-mean normalised cross-correlation with it",
    "subpixel": "by zero-mean normalised cross-correlation with it, refined to a fraction of a "
    "pixel by robust registration of blocks",
    "similarity": "by zero-mean normalised cross-correlation with it, refined to shift, rotation "
    "and scale by robust registration of blocks",
}
_TEMPORAL: Mapping[str, str] = {
    "mean": ", each key frame averaged with its neighbours",
    "sequence": ", from all frames around each key frame",
}
_MAGNIFICATIONS: Mapping[str, tuple[str, str]] = {
    "eulerian": (
        "linear Eulerian video magnification, attenuated where the motion exceeds its bound",
        "Wu, H.-Y., Rubinstein, M., Shih, E., Guttag, J., Durand, F., Freeman, W.: Eulerian video "
        "magnification for revealing subtle changes in the world. ACM Transactions on Graphics "
        "31(4), 2012. doi:10.1145/2185520.2185561",
    ),
    "flow": ("warping by the measured optical flow", _FLOWS["clg"][1]),
}
_TIM = (
    "Zhou, Z., Zhao, G., Pietikäinen, M.: Towards a practical lipreading system. CVPR 2011. "
    "doi:10.1109/CVPR.2011.5995347"
)
_STATED = ("python", "numpy", "numba", "opencv-contrib-python-headless", "zarr", "torch")


@dataclass(frozen=True, slots=True)
class Methods:
    """The paragraph, and what it cites.

    Attributes
    ----------
    paragraph : str
    references : tuple of str
        In the order in which the paragraph names them as [1], [2], …
    """

    paragraph: str
    references: tuple[str, ...]


def methods(store: Store, entries: Sequence[Entry]) -> Methods:
    """Return what was done to the clips of a store, from its recipe, records and versions."""
    attributes = store.attributes
    recipe, versions = attributes.get("recipe", {}), attributes.get("versions", {})
    references = [
        f"The apexflow developers: apexflow {versions.get('apexflow', '')}, software. "
        f"Recipe {attributes.get('recipe_hash', '')[:12]}."
    ]
    sentences = [_clips(attributes, entries, versions)]
    if "face" in recipe:
        sentences += _steps(recipe, references)
    sentences += [*_outcome(entries), _software(versions)]
    return Methods(" ".join(sentences), tuple(references))


def _clips(
    attributes: Mapping[str, Any], entries: Sequence[Entry], versions: Mapping[str, str]
) -> str:
    people = len({entry.person for entry in entries})
    datasets = ", ".join(attributes.get("datasets", [])) or "one data set"
    return (
        f"{len(entries)} clips of {people} people ({datasets}) were processed with apexflow "
        f"{versions.get('apexflow', '')} [1], recipe {attributes.get('recipe_hash', '')[:12]}."
    )


def _steps(recipe: Mapping[str, Any], references: list[str]) -> list[str]:
    face, alignment, crop = recipe["face"], recipe["alignment"], recipe["crop"]

    def cite(text: str) -> str:
        if text not in references:
            references.append(text)
        return f"[{references.index(text) + 1}]"

    detector = _DETECTORS.get(face["detector"])
    found = f"found by {detector[0]} {cite(detector[1])}" if detector else "given by a box"
    steps = [f"The face was {found} once per clip, in the {face['template_frame']} frame."]
    if face.get("mesh"):
        steps.append(f"Its parts were located by FaceMesh {cite(_FACEMESH)}.")
    size = f"{crop['height']}×{crop['width']} px ({crop['interpolation']} interpolation)"
    how = _ALIGNMENTS.get(alignment["method"])
    aligned = (
        f"All frames were aligned {how}, searched within {alignment['margin']} px"
        if how
        else "All frames were cut at the same box, without alignment"
    )
    steps.append(f"{aligned}, and cropped to {size}.")
    magnified = recipe.get("magnification", {"method": "none"})
    if magnified["method"] != "none":
        by, source = _MAGNIFICATIONS[magnified["method"]]
        steps.append(
            f"Motion within {magnified['low']:g} to {magnified['high']:g} Hz was magnified "
            f"(α = {magnified['alpha']:g}) by {by} {cite(source)}."
        )
    if count := recipe["frames"].get("interpolated", 0):
        steps.append(f"The clips were interpolated to {count} frames {cite(_TIM)}.")
    windows = ", ".join(recipe["windows"])
    if windows:
        light = recipe.get("normalization", {})
        if light.get("method") == "local":
            steps.append(
                "Illumination was removed by local normalisation of mean and contrast "
                f"(σ = {light['sigma']:g} px)."
            )
        method = recipe["flow"]["method"]
        name, source = _FLOWS[method]
        options = ", ".join(f"{k} = {v}" for k, v in recipe["flow"].get(method, {}).items())
        around = _TEMPORAL.get(recipe.get("temporal", {}).get("method", "pair"), "")
        steps.append(
            f"Dense optical flow ({windows}) was computed by {name} {cite(source)} ({options})"
            f"{around}, in pixels of the crop."
        )
    for wanted in recipe["maps"].values():
        size = "×".join(map(str, wanted["size"]))
        steps.append(f"It was encoded as {wanted['encoding']} maps of {size} px.")
    return steps


def _outcome(entries: Sequence[Entry]) -> list[str]:
    counts = Counter(entry.status for entry in entries)
    sources = Counter(
        entry.record.apex_source for entry in entries if entry.record and entry.record.apex_source
    )
    failed = counts[FAILED]
    said = [
        f"{counts[DONE]} clips could be used"
        + (f"; {failed} could not and were left out." if failed else ", none was left out.")
    ]
    estimated = {name: n for name, n in sources.items() if name != "annotated"}
    if estimated:
        told = ", ".join(f"{n} by {name}" for name, n in sorted(estimated.items()))
        said.append(f"The apex of {sum(estimated.values())} clips was estimated ({told}).")
    return said


def _software(versions: Mapping[str, str]) -> str:
    return (
        "Software: "
        + ", ".join(f"{name} {versions[name]}" for name in _STATED if name in versions)
        + "."
    )
