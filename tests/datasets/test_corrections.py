from __future__ import annotations

import json
from dataclasses import replace

import pytest

from apexflow import ApexflowError, Catalog, process
from apexflow.datasets import read_casme2, read_samm
from apexflow.datasets.corrections import (
    Correction,
    apply_corrections,
    load_corrections,
    published_corrections,
)
from apexflow.storage.store import open_store
from tests.datasets import annotation_tables as made

HEADER = ("dataset", "subject", "clip", "field", "old", "new", "source")


def csv_of(tmp_path, *rows):
    return made.write_csv(tmp_path / "mine.csv", [HEADER, *rows])


@pytest.fixture
def samm(tmp_path):
    return made.samm_csv(tmp_path / "samm.csv")


def by_name(catalog: Catalog, name: str):
    return next(clip for clip in catalog if clip.name == name)


def test_a_csv_of_corrections_is_applied_and_remembered(tmp_path, samm):
    path = csv_of(
        tmp_path,
        ("samm", "", "028_4_1", "apex", 1143, 1105, "my eyes"),
        ("samm", "032", "032_3_1", "emotion", "Anger", "Others", "me"),
        ("samm", "032", "032_3_1", "apex", 1930, "", "nobody knows"),
        ("casme2", "01", "EP02_01f", "apex", 1, 2, "of another data set"),
    )
    catalog = read_samm(None, samm, corrections=path)
    clip = by_name(catalog, "028_4_1")
    assert clip.apex == 1105
    assert clip.corrections == ("apex: 1143 -> 1105 (my eyes)",)
    clip = by_name(catalog, "032_3_1")
    assert (clip.emotion, clip.emotion_text, clip.apex) == ("other", "Others", None)
    assert len(clip.corrections) == 2
    assert sum(bool(clip.corrections) for clip in catalog) == 2


def test_what_was_corrected_is_stored(tmp_path, samm_root, small_recipe):
    values = {"dataset": "samm", "clip": "032_3_1", "field": "apex", "old": "1930", "new": "4900"}
    catalog = read_samm(samm_root, corrections=[Correction(**values, source="the truth")])
    at, clip = next((i, c) for i, c in enumerate(catalog) if c.name == "032_3_1")
    summary = process(catalog[at : at + 1], tmp_path / "s.zarr", recipe=small_recipe, workers=0)
    assert not summary.failed
    details = json.loads(open_store(tmp_path / "s.zarr").column("details").tolist()[0])
    assert details["corrections"] == ["apex: 1930 -> 4900 (the truth)"]
    assert details["emotion_text"] == clip.emotion_text


def test_a_toml_of_corrections(tmp_path, samm):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[correction]]\ndataset = "samm"\nclip = "032_3_1"\nfield = "apex"\n'
        'old = 1930\nnew = 4930\nsource = "the workbook"\n'
    )
    assert by_name(read_samm(None, samm, corrections=path), "032_3_1").apex == 4930


def test_corrections_come_before_the_middle(tmp_path, samm):
    path = csv_of(tmp_path, ("samm", "", "006_1_2", "offset", 5632, 5602, "me"))
    clip = by_name(read_samm(None, samm, apex="middle", corrections=path), "006_1_2")
    assert clip.apex == (5562 + 5602) // 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("samm", "", "028_4_1", "apex", 1144, 1105, "me"), "is '1143', not '1144'"),
        (("samm", "", "028_4_9", "apex", 1143, 1105, "me"), "no clip samm/028_4_9"),
        (("samm", "006", "028_4_1", "apex", 1143, 1105, "me"), "no clip samm/006/028_4_1"),
        (("samm", "", "028_4_1", "apexx", 1143, 1105, "me"), "field must be one of onset"),
        (("samm", "", "028_4_1", "apex", 1143, "11o5", "me"), "new must be a whole frame"),
        (("samm", "", "028_4_1", "apex", 1143, 1105, ""), "no source"),
        (("samm", "", "../x", "apex", 1143, 1105, "me"), "without path parts"),
    ],
)
def test_a_correction_that_does_not_fit_is_an_error(tmp_path, samm, row, words):
    with pytest.raises(ApexflowError, match=rf"mine\.csv row 2: .*{words}"):
        read_samm(None, samm, corrections=csv_of(tmp_path, row))


def test_a_value_is_corrected_once(tmp_path, samm):
    row = ("samm", "", "028_4_1", "apex", 1143, 1105, "me")
    with pytest.raises(ApexflowError, match=r"mine\.csv row 3: .*corrected twice"):
        read_samm(None, samm, corrections=csv_of(tmp_path, row, row))


def test_a_name_of_two_subjects_needs_the_subject(tmp_path):
    rows = [*made.CASME2_ROWS, ("02", *made.CASME2_ROWS[0][1:])]
    table = made.write_xlsx(tmp_path / "t.xlsx", {"S": [made.CASME2_HEADER, *rows]})
    row = ["casme2", "", "EP02_01f", "apex", 59, 60, "me"]
    with pytest.raises(ApexflowError, match="is a clip of 01, 02: add the subject"):
        read_casme2(None, table, corrections=csv_of(tmp_path, row))
    row[1] = "02"
    catalog = read_casme2(None, table, corrections=csv_of(tmp_path, row))
    assert [c.apex for c in catalog if c.name == "EP02_01f"] == [59, 60]


def test_an_empty_file_corrects_nothing(tmp_path, samm):
    assert read_samm(None, samm, corrections=csv_of(tmp_path)) == read_samm(None, samm)


@pytest.mark.parametrize(
    "text",
    ["x = 1", "[correction]\nx = 1", "[[correction]]\nclip = 'a'", "[[correction]]\nwho = 1", "="],
)
def test_a_toml_that_breaks_a_rule(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ApexflowError, match=r"c\.toml"):
        load_corrections(tmp_path / "c.toml")


def test_the_published_table_decides_what_the_field_agrees_on(samm):
    catalog = read_samm(None, samm, corrections="published")
    clip = by_name(catalog, "032_3_1")
    assert clip.apex == 4930
    assert clip.corrections[0].startswith("apex: 1930 -> 4930 (")
    # Four values are in use for this one: none is chosen.
    clip = by_name(catalog, "028_4_1")
    assert (clip.apex, clip.corrections) == (1143, ())
    values = {c.new for c in published_corrections() if c.clip == "028_4_1"}
    assert values == {"1105", "1113", "1124", "1134"}


def test_the_published_table_passes_over_newer_editions(samm):
    catalog = read_samm(None, samm)
    newer = Catalog(replace(c, apex=4930) if c.name == "032_3_1" else c for c in catalog)
    assert apply_corrections(newer, "published") == list(newer)
    older = Catalog(replace(c, apex=7) if c.name == "032_3_1" else c for c in catalog)
    with pytest.raises(ApexflowError, match="is '7', not '1930'"):
        apply_corrections(older, "published")


def test_the_published_table_decides_between_action_units(tmp_path):
    row = ["011", "011_4_2", 4, 1, 2, 3, 3, "Micro - 1/2", "L12 or L14", "Other", 7, ""]
    table = made.write_csv(tmp_path / "samm.csv", [made.SAMM_HEADER, row])
    (clip,) = read_samm(None, table, corrections="published")
    assert clip.action_units == "L14"
    assert clip.corrections[0].startswith("action_units: L12 or L14 -> L14 (")
    row[8] = "L12 or R14"
    table = made.write_csv(tmp_path / "other.csv", [made.SAMM_HEADER, row])
    with pytest.raises(ApexflowError, match="is 'L12 or R14', not 'L12 or L14'"):
        read_samm(None, table, corrections="published")
    row[8] = ""
    table = made.write_csv(tmp_path / "none.csv", [made.SAMM_HEADER, row])
    assert read_samm(None, table, corrections="published") == read_samm(None, table)


def test_corrections_may_be_plain_data(samm):
    one = Correction(dataset="samm", clip="006_1_2", field="onset", old="5562", new="1", source="x")
    assert read_samm(None, samm, corrections=[one])[0].onset == 1
