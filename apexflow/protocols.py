"""Evaluation protocols: which clips count, and which class each of them has.

A protocol turns catalogs into one labelled catalog; clips without a class are left out. Data
sets keep their names, so that subject 06 of one is never subject 06 of another. Every fold
of an evaluation leaves out one of ``catalog.subjects``.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from apexflow.catalog import Catalog, Clip
from apexflow.errors import ApexflowError

_EVERY = ""  # a mapping that holds for every data set without one of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A rule that gives clips their classes.

    Attributes
    ----------
    name : str
        How the protocol is called.
    classes : tuple of str
        Class names; a clip's label is its class's position.
    emotions : mapping of data set to mapping of emotion to class
        The key "" stands for every data set that has no mapping of its own. An emotion
        that is not mapped leaves its clips out, unless it is the name of a class itself:
        clips that were labelled negative, positive, surprise before keep their class.
    exclude : frozenset of (data set, subject, clip)
        Clips that are left out by name.
    source : str
        Where the protocol is defined.
    """

    name: str
    classes: tuple[str, ...]
    emotions: Mapping[str, Mapping[str, str]]
    exclude: frozenset[tuple[str, str, str]] = field(default=frozenset())
    source: str = ""

    def label(self, clip: Clip) -> int | None:
        """Return the class of a clip as a number, None where it is left out."""
        if clip.key in self.exclude:
            return None
        mapping = self.emotions.get(clip.dataset, self.emotions.get(_EVERY, {}))
        name = mapping.get(clip.emotion) or mapping.get(clip.emotion_text.strip().casefold())
        if name is None:
            name = next((c for c in self.classes if c.casefold() == clip.emotion), None)
        return None if name is None else self.classes.index(name)

    def left_out(self, *catalogs: Catalog) -> Mapping[str, int]:
        """Return how many clips have no class here, by the reason.

        That is their emotion, "no emotion", or "excluded by name"; the most frequent first.
        """
        return dict(
            Counter(
                self._reason(clip)
                for catalog in catalogs
                for clip in catalog
                if self.label(clip) is None
            ).most_common()
        )

    def _reason(self, clip: Clip) -> str:
        if clip.key in self.exclude:
            return "excluded by name"
        return clip.emotion or "no emotion"

    def apply(self, *catalogs: Catalog) -> Catalog:
        """Return the labelled clips of all catalogs, in their order.

        `left_out` tells how many clips have no class, and why.

        Raises
        ------
        ApexflowError
            A catalog is of a data set that the protocol does not know, two clips share a
            key, no clip of a data set has an emotion, or no clip is left.
        """
        joined = join(*catalogs)
        if _EVERY not in self.emotions:
            self._refuse_other_data_sets(joined)
        self._refuse_without_emotions(joined)
        labelled = ((clip, self.label(clip)) for clip in joined)
        kept = Catalog(replace(clip, label=label) for clip, label in labelled if label is not None)
        if not kept:
            raise ApexflowError(
                f"protocol {self.name}: none of {len(joined)} clips has one of its emotions"
            )
        return kept

    def _refuse_without_emotions(self, catalog: Catalog) -> None:
        """Refuse a data set that would drop out of the classes as a whole."""
        for dataset in dict.fromkeys(clip.dataset for clip in catalog):
            clips = [clip for clip in catalog if clip.dataset == dataset]
            if all(self.label(clip) is None for clip in clips) and len(clips) < len(catalog):
                found = sorted({clip.emotion or "none" for clip in clips})
                raise ApexflowError(
                    f"protocol {self.name}: none of {len(clips)} clips of {dataset} has one of its "
                    f"emotions, they have {', '.join(found[:5])}; leave the data set out, or name "
                    "their emotions in a protocol of your own"
                )

    def _refuse_other_data_sets(self, catalog: Catalog) -> None:
        other = {clip.dataset for clip in catalog} - set(self.emotions)
        if other:
            raise ApexflowError(
                f"protocol {self.name} is for {', '.join(sorted(self.emotions))}, "
                f"not for {', '.join(sorted(other))}"
            )


def join(*catalogs: Catalog) -> Catalog:
    """Return one catalog of all clips; subjects of different data sets stay apart.

    Raises `ApexflowError` when two clips share (data set, subject, name).
    """
    return Catalog(clip for catalog in catalogs for clip in catalog)


_MEGC_2019 = Protocol(
    name="megc2019",
    classes=("negative", "positive", "surprise"),
    emotions={
        "samm": {
            "anger": "negative",
            "contempt": "negative",
            "disgust": "negative",
            "fear": "negative",
            "sadness": "negative",
            "happiness": "positive",
            "surprise": "surprise",
        },
        "casme2": {
            "disgust": "negative",
            "repression": "negative",
            "happiness": "positive",
            "surprise": "surprise",
        },
        "smic": {"negative": "negative", "positive": "positive", "surprise": "surprise"},
    },
    exclude=frozenset({("casme2", "04", "EP12_01f"), ("casme2", "05", "EP09_05f")}),
    source="See et al., MEGC 2019, doi:10.1109/FG.2019.8756611",
)


def _same(*emotions: str) -> dict[str, str]:
    return {emotion: emotion for emotion in emotions}


_SAMM_5 = Protocol(
    name="samm5",
    classes=("anger", "contempt", "happiness", "surprise", "other"),
    emotions={"samm": _same("anger", "contempt", "happiness", "surprise", "other")},
)
_CASME2_5 = Protocol(
    name="casme2_5",
    classes=("disgust", "happiness", "repression", "surprise", "other"),
    emotions={"casme2": _same("disgust", "happiness", "repression", "surprise", "other")},
)
_CASME2_4 = Protocol(
    name="casme2_4",
    classes=("negative", "positive", "surprise", "other"),
    emotions={
        "casme2": {
            "disgust": "negative",
            "fear": "negative",
            "repression": "negative",
            "sadness": "negative",
            "happiness": "positive",
            "surprise": "surprise",
            "other": "other",
        }
    },
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (_MEGC_2019, _SAMM_5, _CASME2_5, _CASME2_4)}
)


def megc2019(
    *, samm: Catalog | None = None, casme2: Catalog | None = None, smic: Catalog | None = None
) -> Catalog:
    """Return the composite of MEGC 2019, or the part of it whose data sets are given.

    From the full data sets: 442 clips of 68 subjects with 250 negative (0), 109 positive
    (1) and 83 surprise (2). SAMM without Other; CASME II with disgust and repression as
    negative, without sadness, fear, others and the clips 04/EP12_01f and 05/EP09_05f; SMIC
    from its HS folders [1]_.

    Parameters
    ----------
    samm, casme2, smic : Catalog, optional

    Returns
    -------
    Catalog
        The labelled clips of those that are given.

    Raises
    ------
    ApexflowError
        A catalog is of another data set than its argument says, or none is given.

    References
    ----------
    .. [1] J. See, M. H. Yap, J. Li, X. Hong, S.-J. Wang, "MEGC 2019 - The second facial
       micro-expressions grand challenge", FG 2019, doi:10.1109/FG.2019.8756611.
    """
    given = {"samm": samm, "casme2": casme2, "smic": smic}
    catalogs = []
    for name, catalog in given.items():
        if catalog is None:
            continue
        other = {clip.dataset for clip in catalog} - {name}
        if other:
            raise ApexflowError(f"{name} must be a catalog of {name}. Got {sorted(other)[0]!r}.")
        catalogs.append(catalog)
    if not catalogs:
        raise ApexflowError("megc2019 needs at least one of samm, casme2, smic")
    return _MEGC_2019.apply(*catalogs)


def samm5(catalog: Catalog) -> Catalog:
    """Return SAMM in five classes: anger, contempt, happiness, surprise, other (136 clips).

    Parameters
    ----------
    catalog : Catalog

    Returns
    -------
    Catalog

    Raises
    ------
    ApexflowError
        It is of another data set, or no clip is left.
    """
    return _SAMM_5.apply(catalog)


def casme2_5(catalog: Catalog) -> Catalog:
    """Return CASME II in five classes: disgust, happiness, repression, surprise, other (246).

    Parameters
    ----------
    catalog : Catalog

    Returns
    -------
    Catalog

    Raises
    ------
    ApexflowError
        It is of another data set, or no clip is left.
    """
    return _CASME2_5.apply(catalog)


def casme2_4(catalog: Catalog) -> Catalog:
    """Return CASME II in four classes: negative, positive, surprise, other (255 clips).

    Negative is disgust, fear, repression and sadness; positive is happiness.

    Parameters
    ----------
    catalog : Catalog

    Returns
    -------
    Catalog

    Raises
    ------
    ApexflowError
        It is of another data set, or no clip is left.
    """
    return _CASME2_4.apply(catalog)


def from_toml(path: str | Path) -> Protocol:
    """Read a user's own protocol.

    .. code-block:: toml

        classes = ["negative", "positive"]
        exclude = ["casme2/04/EP12_01f"]      # optional: data set/subject/clip

        [emotions]                            # for every data set
        happiness = "positive"
        disgust = "negative"

        [emotions.casme2]                     # for this one instead
        happiness = "positive"
        repression = "negative"

    Emotions in apexflow's canonical spelling ("other", "happiness") or as the data set's table
    writes them; those not named leave their clips out.

    Raises
    ------
    ApexflowError
        The file cannot be read, or breaks one of these rules.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ApexflowError(f"{path}: not a readable TOML file ({error})") from None
    unknown = set(data) - {"name", "classes", "exclude", "emotions"}
    if unknown:
        raise ApexflowError(
            f"{path}: unknown {sorted(unknown)[0]!r}; a protocol has name, classes, exclude, "
            "emotions"
        )
    classes = _texts(path, "classes", data.get("classes"))
    if len(set(classes)) < 2 or len(set(classes)) != len(classes):
        raise ApexflowError(f"{path}: classes must name at least two classes, each once")
    return Protocol(
        name=str(data.get("name", path.stem)),
        classes=classes,
        emotions=_emotions(path, classes, data.get("emotions")),
        exclude=frozenset(_keys(path, _texts(path, "exclude", data.get("exclude", [])))),
        source=str(path),
    )


def find(name: str | Path) -> Protocol:
    """Return the protocol of that name, or the one in that TOML file.

    Parameters
    ----------
    name : str or path

    Returns
    -------
    Protocol

    Raises
    ------
    ApexflowError
        There is none of that name, or the file is not a protocol.
    """
    if str(name) in PROTOCOLS:
        return PROTOCOLS[str(name)]
    if Path(name).suffix.lower() == ".toml":
        return from_toml(name)
    raise ApexflowError(
        f"protocol must be one of {', '.join(PROTOCOLS)}, or a .toml file. Got {str(name)!r}."
    )


def _texts(path: Path, what: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ApexflowError(f"{path}: {what} must be a list of texts. Got {value!r}.")
    return tuple(value)


def _keys(path: Path, texts: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    for text in texts:
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            raise ApexflowError(f"{path}: exclude must hold dataset/subject/clip. Got {text!r}.")
        yield parts[0], parts[1], parts[2]


def _emotions(path: Path, classes: tuple[str, ...], value: Any) -> dict[str, dict[str, str]]:
    if not isinstance(value, dict) or not value:
        raise ApexflowError(f"{path}: needs a table [emotions] with emotion = class")
    emotions: dict[str, dict[str, str]] = {}
    for key, entry in value.items():
        pairs = entry.items() if isinstance(entry, dict) else [(key, entry)]
        target = emotions.setdefault(key if isinstance(entry, dict) else _EVERY, {})
        for emotion, name in pairs:
            if name not in classes:
                raise ApexflowError(
                    f"{path}: emotion {emotion} must be one of {', '.join(classes)}. Got {name!r}."
                )
            target[emotion.casefold()] = name
    return emotions
