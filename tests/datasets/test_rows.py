"""Rows: numbers, names and helper cells, whatever a table writes into them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apexflow import ApexflowError
from apexflow.datasets import read_samm, read_smic
from tests.datasets import annotation_tables as made

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("cell", ["", "12.5", "x", "-3", "1e3", "5_000", "٣", "5 588", "1.234,0"])
def test_a_frame_number_that_is_none_names_row_and_rule(tmp_path, cell):
    row = [*made.SAMM_ROWS[0]]
    row[3] = cell
    path = made.write_csv(tmp_path / "t.csv", [made.SAMM_HEADER, row], separator=";")
    with pytest.raises(ApexflowError, match=r"t\.csv row 2: onset must be a whole frame number"):
        read_samm(None, path)


def test_a_whole_float_is_a_frame_number(tmp_path):
    row = [*made.SAMM_ROWS[0]]
    row[3:6] = "5562.0", "5588.0", "5632.00"
    path = made.write_csv(tmp_path / "t.csv", [made.SAMM_HEADER, row])
    clip = read_samm(None, path)[0]
    assert (clip.onset, clip.apex, clip.offset) == (5562, 5588, 5632)


@given(
    rows=st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=12, max_size=12),
        max_size=4,
    )
)
@FUZZ
def test_rows_of_any_text_give_an_error_or_are_rows(tmp_path, rows):
    path = tmp_path / "t.csv"
    lines = [",".join(made.SAMM_HEADER), *(",".join(row) for row in rows)]
    path.write_bytes("\n".join(lines).encode("utf-8"))
    with contextlib.suppress(ApexflowError):
        catalog = read_samm(None, path)
        for clip in catalog:
            assert clip.problems or (clip.onset is not None and clip.name.startswith(clip.subject))


@pytest.mark.parametrize("cell", ["MISSING <-426679", "see notes", "1.5", "=A1"])
@pytest.mark.parametrize("column", ["FirstF", "LastF", "Onset2F"])
def test_a_helper_column_costs_nothing_but_a_finding(tmp_path, cell, column):
    header = ["Subject", "Filename", "OnsetF", "OffsetF", "Onset2F", "Offset2F", "FirstF", "LastF"]
    rows = [[20, "s20_ne_01", 110, 130, None, None, 100, 199] for _ in range(2)]
    rows[1][1] = "s20_ne_02"
    rows[0][header.index(column)] = cell
    path = made.write_xlsx(tmp_path / "t.xlsx", {"HS": [header, *rows]})
    assert made.notes_of(path, read_smic) == (2, [("helper-column", "t.xlsx row 2")])
