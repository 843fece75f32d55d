"""One rule for numbers, subjects and unknown marks, in every reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from apexflow import ApexflowError, read_table
from apexflow.cells import is_unknown
from apexflow.datasets import read_casme2, read_mmew, read_samm, read_smic
from apexflow.datasets.audit import audit
from apexflow.datasets.rows import whole_number
from apexflow.datasets.subjects import subject_key
from tests.datasets import annotation_tables as made

HEADER = ("subject", "clip", "path", "onset", "apex", "offset", "label")


@pytest.mark.parametrize(
    ("text", "number"),
    [("6", 6), ("6.0", 6), ("006", 6), ("6.", 6), ("6,0", 6), ("\u200b6\ufeff", 6), ("６", 6)]  # noqa: RUF001
    + [(" 5562.00 ", 5562), ("0", 0), ("9" * 12, 10**12 - 1)]
    + [(text, None) for text in ("", "6.5", "-6", "1e3", "٣", "6 7", "9" * 13, "s6", "²", "6_0")],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    "mark", ["", " ", "/", "nan", "NaN", "n/a", "N/A", "-", "None", "?", "\u200b"]
)
def test_marks_of_unknown_values(mark: str, tmp_path: Path) -> None:
    assert is_unknown(mark)
    rows = [("1", "c1", "a", 1, mark, mark, mark), ("1", "c2", "a", 1, 2, 3, "happiness")]
    clip = read_table(None, made.write_csv(tmp_path / "t.csv", [HEADER, *rows]))[0]
    assert (clip.apex, clip.offset, clip.emotion, clip.label) == (None, None, "", None)
    header = [*HEADER[:6], "emotion"]
    clip = read_table(None, made.write_csv(tmp_path / "t.csv", [header, *rows]))[0]
    assert clip.emotion == ""
    for column in (0, 1) if mark != "None" else ():
        rows[0] = ("1", "c1", "a", 1, 2, 3, "x")
        broken = [list(row) for row in (HEADER, *rows)]
        broken[1][column] = mark
        clips = read_table(None, made.write_csv(tmp_path / "t.csv", broken))
        assert clips[0].key == ("table", "?", "row 2")
        assert f"row 2: no {HEADER[column]}" in clips[0].problem
        assert not clips[1].problems


def test_spellings_of_a_subject_have_one_key() -> None:
    spellings = ("6", "6.0", "006", "s06", "S6", "sub06", "Sub 6", "subject_6", "spNO.6", "\u200b6")
    assert {subject_key(text) for text in spellings} == {"6"}
    assert subject_key("1.0") != subject_key("10")
    assert subject_key("P3") == subject_key("p03")
    assert len({subject_key(text) for text in ("3", "P3", "C3", "3a", "33")}) == 5


@pytest.mark.parametrize("text", ["6", "6.0", "006", "s06", "sub6", "\u200b6"])
def test_every_reader_takes_the_same_spellings(tmp_path: Path, text: str) -> None:
    row = (text, "006_1_2", 1, 5562, 5588, 5632, 71, "", "4", "Anger", 3, "")
    samm = read_samm(None, made.write_csv(tmp_path / "a.csv", [made.SAMM_HEADER, row]))
    row = (text, "EP02_01f", None, 46, 59, 86, None, 12, "happiness")
    casme2 = read_casme2(None, made.write_csv(tmp_path / "b.csv", [made.CASME2_HEADER, row]))
    header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Emotion")
    row = (text, "S06-01-002", 1, 12, 30, "happiness")
    mmew = read_mmew(None, made.write_csv(tmp_path / "c.csv", [header, row]))
    row = (text, "s6_ne_01", 110, 130)
    table = made.write_csv(tmp_path / "d.csv", [("Subject", "Filename", "OnsetF", "OffsetF"), row])
    smic = read_smic(None, table, subset="HS-E")
    assert [c[0].subject for c in (samm, casme2, mmew, smic)] == ["006", "06", "06", "06"]


def test_spellings_in_one_table_are_one_subject_and_a_finding(tmp_path: Path) -> None:
    subjects = ("1", "1.0", "2", "2.0", "3", "s3", "4", "sub04", "10")
    rows = [(s, f"c{i}", "f", 1, 3, 6, "happiness") for i, s in enumerate(subjects)]
    path = made.write_csv(tmp_path / "t.csv", [HEADER, *rows])
    catalog = read_table(None, path)
    assert [clip.subject for clip in catalog] == ["1", "1", "2", "2", "3", "3", "4", "4", "10"]
    assert dict(catalog[7].extra)["subject as written"] == "sub04"
    found = [f.message for f in audit("table", None, path).findings if f.rule == "subjects-alike"]
    assert found == [
        f"subjects {pair}: are they one person?"
        for pair in ("1, 1.0", "2, 2.0", "3, s3", "4, sub04")
    ]


@pytest.mark.parametrize("date", ["2024-03-01T00:00:00", "1-Mar", "Mar-24", "3/1/2024"])
def test_a_name_that_became_a_date_is_refused(tmp_path: Path, date: str) -> None:
    path = made.write_csv(tmp_path / "t.csv", [HEADER, ("1", date, "a", 1, 2, 3, "happiness")])
    with pytest.raises(ApexflowError, match=r"row 2: clip .* is a date"):
        read_table(None, path)
