"""Text files and workbooks: encodings, separators, damage, what is no table at all."""

from __future__ import annotations

import zipfile

import openpyxl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from apexflow import ApexflowError
from apexflow.datasets import READERS, read_casme2, read_samm, read_table
from apexflow.datasets.audit import audit
from tests.datasets import annotation_tables as made

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_accents_survive_every_encoding(tmp_path):
    rows = [made.SAMM_HEADER, (*made.SAMM_ROWS[0][:-1], "clin d'œil étonné")]
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        path = made.write_csv(tmp_path / "t.csv", rows, encoding=encoding)
        assert dict(read_samm(None, path)[0].extra)["Notes"] == "clin d'œil étonné"


def test_an_open_quote_does_not_swallow_rows(tmp_path):
    path = made.samm_csv(tmp_path / "t.csv", separator=",")
    path.write_text(path.read_text().replace("While blinking", '"While blinking'))
    with pytest.raises(ApexflowError, match=r"t\.csv row 3: .*quotation mark"):
        read_samm(None, path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ditto", ["joy", "9"])
def test_ditto_marks_do_not_swallow_the_rows_between_them(tmp_path, separator, ditto):
    rows = [f"1,c{i},c{i},1,5,9,joy" for i in range(5)]
    header = "subject,clip,path,onset,apex,offset,label"
    rows[1], rows[3] = rows[1].replace("joy", '"'), rows[3].replace(ditto, '"')
    path = tmp_path / "t.csv"
    path.write_text("\n".join([header, *rows]).replace(",", separator))
    with pytest.raises(ApexflowError, match=r"t\.csv row 3: .* rows below it.*quotation mark"):
        read_table(None, path)
    note = '"first line, of two,\nthird, and fourth"'
    lines = [f"{header},note", *(f"1,c{i},c{i},1,5,9,joy,{note}" for i in range(2))]
    path.write_text("\n".join(lines))
    assert [clip.name for clip in read_table(None, path)] == ["c0", "c1"]


def test_an_old_workbook_says_what_to_do(tmp_path):
    path = tmp_path / "CASME2-coding.xlsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(ApexflowError, match=r"old \.xls.*save it as \.xlsx or \.csv"):
        read_casme2(None, path)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_table_that_is_no_file(tmp_path, name):
    with pytest.raises(ApexflowError):
        read_samm(None, tmp_path / name)


def test_a_huge_sheet_is_refused_quickly(tmp_path):
    path = made.write_xlsx(tmp_path / "t.xlsx", {"S": [made.SAMM_HEADER, *made.SAMM_ROWS]})
    book = openpyxl.load_workbook(path)
    book["S"].cell(row=1_048_576, column=16_384).value = "x"
    book.save(path)
    with pytest.raises(ApexflowError, match="spans 1048576 rows and 16384 columns"):
        read_samm(None, path)


@pytest.mark.parametrize("reader", [r for r in READERS.values() if r.needs_annotations])
@given(data=st.binary(max_size=400))
@example(data=b"PK\x03\x04")
@example(data=b"\xff\xfe")
@FUZZ
def test_random_bytes_give_a_clear_error(tmp_path, reader, data):
    for name in ("t.csv", "t.xlsx"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ApexflowError) as caught:
            reader.read(None, tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_workbook_that_is_another_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("hello.txt", "no workbook")
    with pytest.raises(ApexflowError, match=r"not a readable \.xlsx"):
        read_samm(None, tmp_path / "t.xlsx")


@pytest.mark.parametrize(
    ("encoding", "note", "name"),
    [
        ("gbk", "GBK", "惊讶"),
        ("cp1251", "Windows-1251", "удивление"),
        ("cp932", "Shift-JIS", "驚き"),
    ],
)
def test_an_encoding_is_named_by_the_audit(tmp_path, encoding, note, name):
    row = [*made.SAMM_ROWS[0]]
    row[9] = name
    path = made.write_csv(tmp_path / "t.csv", [made.SAMM_HEADER, row], encoding=encoding)
    assert read_samm(None, path)[0].emotion == name
    (found,) = (f for f in audit("samm", None, path).findings if f.rule == "encoding")
    assert note in found.message
    assert found.where == "t.csv"
