from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from apexflow import ApexflowError, Catalog, Clip, protocols
from apexflow.datasets import read_casme2, read_samm, read_smic

SAMM = {
    "anger": 57,
    "contempt": 12,
    "disgust": 9,
    "fear": 8,
    "happiness": 26,
    "other": 26,
    "sadness": 6,
    "surprise": 15,
}
CASME2 = {
    "disgust": 63,
    "fear": 2,
    "happiness": 32,
    "other": 99,
    "repression": 27,
    "sadness": 7,
    "surprise": 25,
}
SMIC = {"negative": 70, "positive": 51, "surprise": 43}


def catalog(dataset: str, emotions: dict[str, int], subjects: int) -> Catalog:
    """A catalog with the published numbers of each emotion, spread over the subjects."""
    written = [emotion for emotion, count in emotions.items() for _ in range(count)]
    return Catalog(
        Clip(dataset=dataset, subject=f"{i % subjects:02d}", name=f"c{i}", emotion=emotion)
        for i, emotion in enumerate(written)
    )


def casme2_with_excluded() -> Catalog:
    """Two clips of disgust that MEGC 2019 leaves out by name."""
    clips = list(catalog("casme2", CASME2, 26))
    at = [i for i, clip in enumerate(clips) if clip.emotion == "disgust"][:2]
    for i, (subject, name) in zip(at, (("04", "EP12_01f"), ("05", "EP09_05f")), strict=True):
        clips[i] = replace(clips[i], subject=subject, name=name)
    return Catalog(clips)


def counts(labelled: Catalog) -> dict[str, list[int]]:
    found = Counter((clip.dataset, clip.label) for clip in labelled)
    classes = sorted({clip.label for clip in labelled})
    return {d: [found[d, label] for label in classes] for d in {c.dataset for c in labelled}}


def test_megc2019_has_its_published_classes():
    composite = protocols.megc2019(
        samm=catalog("samm", SAMM, 29),
        casme2=casme2_with_excluded(),
        smic=catalog("smic", SMIC, 16),
    )
    assert len(composite) == 442
    assert counts(composite) == {
        "samm": [92, 26, 15],
        "casme2": [88, 32, 25],
        "smic": [70, 51, 43],
    }
    assert not any(clip.name in {"EP12_01f", "EP09_05f"} for clip in composite)


def test_megc2019_keeps_clips_that_are_labelled_already():
    before = protocols.megc2019(
        samm=catalog("samm", SAMM, 29),
        casme2=casme2_with_excluded(),
        smic=catalog("smic", SMIC, 16),
    )
    names = ("negative", "positive", "surprise")
    relabelled = [replace(clip, emotion=names[clip.label], label=None) for clip in before]
    protocol = protocols.PROTOCOLS["megc2019"]
    again = protocol.apply(Catalog(relabelled))
    assert [clip.label for clip in again] == [clip.label for clip in before]
    assert protocol.left_out(Catalog(relabelled)) == {}


def test_what_a_protocol_leaves_out_is_counted():
    protocol = protocols.PROTOCOLS["megc2019"]
    assert protocol.left_out(catalog("samm", SAMM, 29)) == {"other": 26}
    left_out = protocol.left_out(casme2_with_excluded())
    assert left_out == {"other": 99, "sadness": 7, "excluded by name": 2, "fear": 2}
    unknown = [Clip(dataset="smic", subject="1", name="a"), *catalog("smic", SMIC, 16)]
    assert protocol.left_out(Catalog(unknown)) == {"no emotion": 1}


def test_a_data_set_that_would_drop_out_is_an_error():
    numbers = Catalog(
        Clip(dataset="casme2", subject=str(i), name="a", emotion=f"class {i}") for i in range(9)
    )
    with pytest.raises(ApexflowError, match="none of 9 clips of casme2 has one of its emotions"):
        protocols.megc2019(samm=catalog("samm", SAMM, 29), casme2=numbers)


def test_megc2019_takes_a_part_and_checks_its_arguments():
    part = protocols.megc2019(smic=catalog("smic", SMIC, 16))
    assert (len(part), len(part.subjects)) == (164, 16)
    with pytest.raises(ApexflowError, match=r"samm must be a catalog of samm\. Got 'smic'"):
        protocols.megc2019(samm=catalog("smic", SMIC, 16))
    with pytest.raises(ApexflowError, match="at least one"):
        protocols.megc2019()
    with pytest.raises(ApexflowError, match="Got 'smic-hs-e'"):
        protocols.megc2019(smic=catalog("smic-hs-e", SMIC, 16))


def test_the_protocols_of_one_data_set():
    samm = counts(protocols.samm5(catalog("samm", SAMM, 29)))
    assert samm == {"samm": [57, 12, 26, 15, 26]}
    casme2 = catalog("casme2", CASME2, 26)
    assert counts(protocols.casme2_5(casme2)) == {"casme2": [63, 32, 27, 25, 99]}
    assert counts(protocols.casme2_4(casme2)) == {"casme2": [99, 32, 25, 99]}
    with pytest.raises(ApexflowError, match="is for samm, not for casme2"):
        protocols.samm5(casme2)


def test_subjects_with_one_number_stay_apart():
    joined = protocols.join(catalog("samm", SAMM, 29), catalog("casme2", CASME2, 26))
    assert len(joined.subjects) == 29 + 26
    with pytest.raises(ApexflowError, match="keys must be unique"):
        protocols.join(joined, joined)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_users_own_protocol(tmp_path):
    path = toml(
        tmp_path,
        """
        classes = ["calm", "not calm"]
        exclude = ["samm/00/c0"]
        [emotions]
        anger = "not calm"
        happiness = "calm"
        [emotions.casme2]
        others = "calm"
        """,
    )
    protocol = protocols.find(path)
    assert protocol.name == "mine"
    casme2 = Catalog(
        replace(c, emotion_text="others" if c.emotion == "other" else c.emotion)
        for c in catalog("casme2", CASME2, 26)
    )
    labelled = protocol.apply(catalog("samm", SAMM, 29), casme2)
    assert Counter((c.dataset, c.label) for c in labelled) == {
        ("samm", 0): 26,
        ("samm", 1): 56,
        ("casme2", 0): 99,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classes = [", "not a readable TOML"),
        ("", "classes must be a list"),
        ("classes = ['a']\n[emotions]\nx = 'a'", "at least two"),
        ("classes = ['a', 'a']\n[emotions]\nx = 'a'", "each once"),
        ("classes = ['a', 'b']", r"\[emotions\]"),
        ("classes = ['a', 'b']\n[emotions]\nx = 'c'", "must be one of a, b. Got 'c'"),
        ("classes = ['a', 'b']\n[emotions]\nx = 1", "Got 1"),
        ("classes = ['a', 'b']\n[emotions.samm]\nx = 'c'", "Got 'c'"),
        ("classes = ['a', 'b']\nexclude = ['x']\n[emotions]\nx = 'a'", "dataset/subject/clip"),
        ("classes = ['a', 'b']\nclass = 1\n[emotions]\nx = 'a'", "unknown 'class'"),
    ],
)
def test_a_protocol_that_breaks_a_rule(tmp_path, text, words):
    with pytest.raises(ApexflowError, match=words):
        protocols.from_toml(toml(tmp_path, text))


def test_a_protocol_is_found_by_name(tmp_path):
    assert protocols.find("samm5").classes[0] == "anger"
    with pytest.raises(ApexflowError, match="protocol must be one of megc2019"):
        protocols.find("megc2018")
    with pytest.raises(ApexflowError, match="not a readable"):
        protocols.find(tmp_path / "missing.toml")
    nothing = toml(tmp_path, "classes = ['a', 'b']\n[emotions]\njoy = 'a'")
    with pytest.raises(ApexflowError, match="none of 159 clips"):
        protocols.find(nothing).apply(catalog("samm", SAMM, 29))


# SMIC HS in its published numbers: 16 subjects, 70, 51 and 43 clips. Which subject has how many
# is made up.
SMIC_SUBJECTS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 14, 15, 18, 19, 20)
SMIC_HS = {"ne": 70, "po": 51, "sur": 43}


@pytest.mark.skipif("APEXFLOW_TEST_DATA" not in os.environ, reason="names no folder")
def test_megc2019_from_the_published_tables(tmp_path):
    for emotion, count in SMIC_HS.items():
        for i in range(count):
            subject = SMIC_SUBJECTS[i % 16]
            name = f"s{subject}_{emotion}_{1 + i // 16:02d}"
            folder = tmp_path / f"HS/s{subject}/micro/{emotion}/{name}"
            folder.mkdir(parents=True)
            (folder / "image10.bmp").touch()
    smic = read_smic(tmp_path)
    assert (len(smic), len(smic.subjects)) == (164, 16)
    tables = Path(os.environ["APEXFLOW_TEST_DATA"])
    composite = protocols.megc2019(
        samm=read_samm(None, tables / "samm.csv"),
        casme2=read_casme2(None, tables / "CASME2-coding-20140508.xlsx"),
        smic=smic,
    )
    assert (len(composite), len(composite.subjects)) == (442, 68)
    assert Counter(dataset for dataset, _ in composite.subjects) == {
        "smic": 16,
        "casme2": 24,
        "samm": 28,
    }
    assert counts(composite) == {
        "samm": [92, 26, 15],
        "casme2": [88, 32, 25],
        "smic": [70, 51, 43],
    }
