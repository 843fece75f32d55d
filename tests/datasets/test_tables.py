from __future__ import annotations

import contextlib

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apexflow import ApexflowError
from apexflow.datasets import read_samm
from apexflow.datasets.audit import audit
from tests.datasets import annotation_tables as made

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def expected(tmp_path):
    return strip(read_samm(None, made.samm_csv(tmp_path / "expected.csv")))


def strip(catalog):
    """A catalog as what must not depend on how the table is written."""
    return [
        (c.key, c.onset, c.apex, c.offset, c.emotion, c.action_units, dict(c.extra))
        for c in catalog
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_tables_read_the_same_however_written(
    tmp_path, expected, separator, encoding, newline
):
    path = made.samm_csv(
        tmp_path / "t.csv", separator=separator, encoding=encoding, newline=newline
    )
    assert strip(read_samm(None, path)) == expected


def test_titles_above_the_header_and_empty_rows_are_no_rows(tmp_path, expected):
    rows = [*made.SAMM_TITLES, made.SAMM_HEADER, *made.SAMM_ROWS[:2], (), *made.SAMM_ROWS[2:], ()]
    path = made.write_xlsx(tmp_path / "t.xlsx", {"MICRO_ONLY": rows})
    catalog = read_samm(None, path)
    assert strip(catalog) == expected
    assert catalog[2].origin == "t.xlsx row 10"


def test_the_sheet_with_the_header_is_found(tmp_path, expected):
    sheets = {"About": [("read me",)], "Data": [made.SAMM_HEADER, *made.SAMM_ROWS], "Empty": []}
    catalog = read_samm(None, made.write_xlsx(tmp_path / "t.xlsx", sheets))
    assert strip(catalog) == expected
    assert catalog[0].origin == "t.xlsx sheet Data row 2"


@given(order=st.permutations(range(len(made.SAMM_HEADER))), capital=st.booleans())
@FUZZ
def test_order_and_case_of_columns_do_not_matter(tmp_path, expected, order, capital):
    header = [h.upper() if capital else h for h in made.SAMM_HEADER]
    rows = [[row[i] for i in order] for row in (header, *made.SAMM_ROWS)]
    found = strip(read_samm(None, made.write_csv(tmp_path / "t.csv", rows)))
    assert [row[:6] for row in found] == [row[:6] for row in expected]


@pytest.mark.parametrize(
    "column", ["Subject", "Filename", "Onset Frame", "Apex Frame", "Offset Frame"]
)
def test_a_renamed_column_is_named(tmp_path, column):
    header = ["Something" if name == column else name for name in made.SAMM_HEADER]
    path = made.write_csv(tmp_path / "t.csv", [header, *made.SAMM_ROWS])
    with pytest.raises(ApexflowError, match=rf"t\.csv: no column '{column}'.*'Something'"):
        read_samm(None, path)


def test_a_repeated_column_is_refused(tmp_path):
    header = [*made.SAMM_HEADER[:-1], "Apex Frame"]
    path = made.write_csv(tmp_path / "t.csv", [header, *made.SAMM_ROWS])
    with pytest.raises(ApexflowError, match="'Apex Frame' occurs 2 times"):
        read_samm(None, path)


def test_a_cell_too_many_is_refused(tmp_path):
    rows = [made.SAMM_HEADER, (*made.SAMM_ROWS[0], "surplus")]
    with pytest.raises(ApexflowError, match=r"row 2: has 13 cells, the header \(row 1\) 12"):
        read_samm(None, made.write_csv(tmp_path / "t.csv", rows))


def test_a_header_that_is_merged_with_its_rows_is_refused(tmp_path):
    path = made.write_xlsx(tmp_path / "t.xlsx", {"S": [made.SAMM_HEADER, *made.SAMM_ROWS]})
    book = openpyxl.load_workbook(path)
    book["S"].merge_cells("A1:A2")
    book.save(path)
    with pytest.raises(ApexflowError, match="row 1: cells A1:A2 are merged"):
        read_samm(None, path)


def test_merged_titles_do_no_harm(tmp_path, expected):
    rows = [*made.SAMM_TITLES, made.SAMM_HEADER, *made.SAMM_ROWS]
    path = made.write_xlsx(tmp_path / "t.xlsx", {"S": rows})
    book = openpyxl.load_workbook(path)
    book["S"].merge_cells("A1:F1")
    book.save(path)
    assert strip(read_samm(None, path)) == expected


def test_a_formula_without_value_costs_its_clip_where_it_matters(tmp_path):
    rows = [list(row) for row in (made.SAMM_HEADER, *made.SAMM_ROWS)]
    rows[1][6] = "=SUM(F2-D2)+1"  # Duration is not read
    read_samm(None, made.write_xlsx(tmp_path / "t.xlsx", {"S": rows}))
    rows[1][5] = "=D2+70"
    clips = read_samm(None, made.write_xlsx(tmp_path / "t.xlsx", {"S": rows}))
    assert [bool(clip.problems) for clip in clips] == [True, *[False] * (len(clips) - 1)]
    assert "row 2: offset is a formula without a stored value" in clips[0].problem


def test_an_empty_table(tmp_path):
    (tmp_path / "t.csv").touch()
    with pytest.raises(ApexflowError, match="empty"):
        read_samm(None, tmp_path / "t.csv")


def test_a_header_alone_is_no_table(tmp_path):
    path = made.write_csv(tmp_path / "t.csv", [made.SAMM_HEADER])
    with pytest.raises(ApexflowError, match=r"t\.csv: no row below the header in row 1"):
        read_samm(None, path)


def test_a_row_that_is_repeated_is_read_once_and_told(tmp_path, expected):
    rows = [made.SAMM_HEADER, *made.SAMM_ROWS, made.SAMM_ROWS[0]]
    path = made.write_csv(tmp_path / "t.csv", rows)
    assert strip(read_samm(None, path)) == expected
    (told,) = (one for one in audit("samm", None, path).findings if one.rule == "duplicate-row")
    assert (told.severity, told.where) == ("warning", "t.csv row 7")


def test_of_two_rows_that_differ_none_is_believed(tmp_path, expected):
    again = list(made.SAMM_ROWS[0])
    again[3] = 5563
    path = made.write_csv(tmp_path / "t.csv", [made.SAMM_HEADER, *made.SAMM_ROWS, again])
    clips = read_samm(None, path)
    assert {clip.name: clip.problem for clip in clips if clip.problems} == {
        "006_1_2": "t.csv row 2: another row of the clip is t.csv row 7; "
        "rename or delete one of them",
        "006_1_2 (t.csv row 7)": "t.csv row 7: another row of the clip is t.csv row 2; "
        "rename or delete one of them",
    }
    assert strip(clips)[2:] == expected[1:]


@given(
    at=st.integers(0, 10_000),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.integers(0, 10_000)),
)
@FUZZ
def test_a_damaged_workbook_gives_an_error_or_the_same_rows(tmp_path, expected, at, junk, cut):
    whole = made.write_xlsx(
        tmp_path / "t.xlsx", {"S": [made.SAMM_HEADER, *made.SAMM_ROWS]}
    ).read_bytes()
    at %= len(whole)
    damaged = whole[:at] + junk + whole[at + len(junk) :]
    (tmp_path / "t.xlsx").write_bytes(damaged if cut is None else damaged[: cut % len(damaged)])
    with contextlib.suppress(ApexflowError):
        assert strip(read_samm(None, tmp_path / "t.xlsx")) == expected


def test_a_scratch_sheet_does_not_stand_in_the_way(tmp_path):
    good = [made.SAMM_HEADER, *made.SAMM_ROWS]
    scratch = [(*made.SAMM_HEADER, "Estimated Emotion"), ("x",)]
    for sheets in (
        {"Good": good, "counts": scratch},
        {"counts": scratch, "Good": good},
        {"counts": [["Estimated Emotion", "Estimated Emotion"], ["Anger", 57]], "Good": good},
    ):
        path = made.write_xlsx(tmp_path / "t.xlsx", sheets)
        assert made.notes_of(path) == (5, [])
        assert read_samm(None, path)[0].origin == "t.xlsx sheet Good row 2"


def test_a_huge_scratch_sheet_does_not_stand_in_the_way(tmp_path):
    sheets = {"Huge": [("x",)], "Good": [made.SAMM_HEADER, *made.SAMM_ROWS]}
    path = made.write_xlsx(tmp_path / "t.xlsx", sheets)
    book = openpyxl.load_workbook(path)
    book["Huge"].cell(row=1_048_576, column=16_384).value = "x"
    book.save(path)
    assert made.notes_of(path) == (5, [])


def test_two_sheets_that_may_be_the_table_are_a_doubt(tmp_path):
    rows = [made.SAMM_HEADER, *made.SAMM_ROWS]
    path = made.write_xlsx(tmp_path / "t.xlsx", {"A": rows, "B": rows[:3]})
    assert made.notes_of(path) == (5, [("sheets", "t.xlsx sheet A")])


def test_a_repeated_header_is_not_a_row(tmp_path):
    rows = [made.SAMM_HEADER, *made.SAMM_ROWS[:2], made.SAMM_HEADER, *made.SAMM_ROWS[2:]]
    path = made.write_csv(tmp_path / "t.csv", rows)
    assert made.notes_of(path) == (5, [("header-repeated", "t.csv row 4")])


def test_a_column_twice_with_the_same_cells_is_one(tmp_path):
    rows = [(*made.SAMM_HEADER, "Apex Frame"), *((*row, row[4]) for row in made.SAMM_ROWS)]
    path = made.write_csv(tmp_path / "t.csv", rows)
    assert made.notes_of(path) == (5, [("column-repeated", "t.csv row 1")])


def test_invisible_characters_do_not_matter(tmp_path, expected):
    rows = [[f"\u200b{cell}\u00a0" if cell else cell for cell in row] for row in made.SAMM_ROWS]
    header = [f"\ufeff{cell}" for cell in made.SAMM_HEADER]
    assert strip(read_samm(None, made.write_csv(tmp_path / "t.csv", [header, *rows]))) == expected


def test_rows_that_a_filter_hides_are_read_and_told(tmp_path):
    book = openpyxl.Workbook()
    header = ["subject", "clip", "path", "onset", "apex", "offset", "label"]
    for row in (header, [1, "a", "a", 1, 3, 5, "anger"], [2, "b", "b", 1, 3, 5, "anger"]):
        book.active.append(row)
    book.active.row_dimensions[3].hidden = True
    book.save(tmp_path / "t.xlsx")
    report = audit("table", None, tmp_path / "t.xlsx")
    assert report.clips == 2
    (finding,) = report.findings
    assert (finding.rule, finding.severity) == ("hidden-rows", "warning")
    assert "1 rows are hidden, by a filter or by hand, and read: 3" in finding.message
