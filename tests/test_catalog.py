from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apexflow import ApexflowError, Catalog, Clip, ClipError

CLIP = Clip(dataset="d", subject="1", name="a", root=Path("/data"), source="1/a")

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=8)
names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), min_size=1, max_size=8)
numbers = st.one_of(st.none(), st.integers(0, 10**9))
clips = st.builds(
    Clip,
    dataset=names,
    subject=names,
    name=names,
    root=st.one_of(st.none(), st.just(Path("/data/samm"))),
    source=texts,
    onset=numbers,
    apex=numbers,
    offset=numbers,
    apex_source=st.sampled_from(["annotated", "middle", "flow", ""]),
    emotion=texts,
    emotion_text=texts,
    label=numbers,
    action_units=texts,
    origin=texts,
    corrections=st.lists(names, max_size=2).map(tuple),
    extra=st.dictionaries(names, names, max_size=3).map(lambda d: tuple(d.items())),
)


@given(found=st.lists(clips, max_size=5, unique_by=lambda clip: clip.key))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_catalog_survives_its_csv(tmp_path, found):
    path = tmp_path / "catalog.csv"
    catalog = Catalog(found)
    catalog.to_csv(path)
    again = Catalog.from_csv(path)
    # Columns of all clips share one order in the file, so extras may change theirs.
    assert [replace(c, extra=tuple(sorted(c.extra))) for c in again] == [
        replace(c, extra=tuple(sorted(c.extra))) for c in catalog
    ]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", '"', "dataset,subject\n", "\x00", "dataset;clip\n"]
)
def test_another_file_is_no_catalog(tmp_path, text):
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(ApexflowError, match=r"c\.csv"):
        Catalog.from_csv(path)
    with pytest.raises(ApexflowError):
        Catalog.from_csv(tmp_path / "missing.csv")


def test_a_catalog_with_a_damaged_number(tmp_path):
    path = tmp_path / "c.csv"
    Catalog([replace(CLIP, onset=123456)]).to_csv(path)
    path.write_text(path.read_text().replace("123456", "12x"))
    with pytest.raises(ApexflowError, match="12x"):
        Catalog.from_csv(path)


def test_keys_are_unique():
    with pytest.raises(ApexflowError, match="key d/1/a: keys must be unique"):
        Catalog([CLIP, CLIP])
    with pytest.raises(ApexflowError, match=r"\(t row 2 and t row 3\)"):
        Catalog([replace(CLIP, origin="t row 2"), replace(CLIP, origin="t row 3", onset=1)])


def test_subjects_of_two_data_sets_stay_apart():
    catalog = Catalog([CLIP, replace(CLIP, name="b"), replace(CLIP, dataset="e")])
    assert catalog.subjects == (("d", "1"), ("e", "1"))
    assert isinstance(catalog[:2], Catalog)
    assert catalog[:2].subjects == (("d", "1"),)
    assert len(catalog.select(lambda clip: clip.dataset == "e")) == 1


@pytest.mark.parametrize("source", ["../x", "a/../../x", "/etc/passwd", "..", "a\\..\\..\\x"])
def test_a_path_never_leaves_the_root(source):
    with pytest.raises(ClipError, match="leaves"):
        replace(CLIP, source=source).path  # noqa: B018
    assert CLIP.path == Path("/data/1/a")


def test_a_person_follows_the_subject_unless_named(tmp_path):
    assert CLIP.person == "d/1"
    assert replace(CLIP, subject="2").person == "d/2"
    parts = ("smic", "smic-vis", "smic-nir", "smic-hs-e")
    assert {replace(CLIP, dataset=part).person for part in parts} == {"smic/1"}
    assert replace(CLIP, dataset="smiconic").person == "smiconic/1"
    long = ("samm", "samm-long", "casme_sq", "casme_sq-long")
    assert [replace(CLIP, dataset=name).person for name in long] == [
        *("samm/1", "samm/1", "casme_sq/1", "casme_sq/1")
    ]
    named = replace(CLIP, person="Ada")
    assert replace(named, subject="2").person == "Ada"
    clips = Catalog([replace(named, name="b"), pickle.loads(pickle.dumps(CLIP))])
    clips.to_csv(tmp_path / "c.csv")
    again = Catalog.from_csv(tmp_path / "c.csv")
    assert [clip.person for clip in again] == ["Ada", "d/1"]
    assert replace(again[1], subject="9").person == "d/9"
    # A catalog of an earlier version has no such column.
    text = (tmp_path / "c.csv").read_text().replace(",person", ",").replace("Ada", "")
    (tmp_path / "c.csv").write_text(text)
    assert {clip.person for clip in Catalog.from_csv(tmp_path / "c.csv")} == {"d/1"}


def test_a_catalog_is_printable():
    many = Catalog(replace(CLIP, name=str(n), onset=n) for n in range(25))
    lines = str(many).splitlines()
    assert lines[0] == "25 clips of 1 subjects"
    assert lines[-1] == "  … 5 more"
    assert len(lines) == 22
