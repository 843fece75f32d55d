"""Every reader against tables that hands and programs have damaged."""

from __future__ import annotations

import contextlib
import runpy
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apexflow import ApexflowError, Catalog
from apexflow.datasets import READERS
from apexflow.datasets.audit import audit
from apexflow.datasets.rows import plain
from tests.datasets import annotation_tables as made

Table = list[list[Any]]

TABLES: dict[str, Table] = {
    "samm": [list(made.SAMM_HEADER), *map(list, made.SAMM_ROWS)],
    "casme2": [list(made.CASME2_HEADER), *map(list, made.CASME2_ROWS)],
    "smic": [
        ["Subject", "Filename", "OnsetF", "OffsetF", "Onset2F", "Offset2F", "Emotion"],
        [20, "s20_ne_01", 110, 130, None, None, "negative"],
        [9, "s9_sur_01", 310, 320, 330, 340, "surprise"],
    ],
    "casme": [
        ["Subject", "Filename", None, "OnsetF", "ApexF1", "ApexF2", "OffsetF", "AUs", "Emotion"],
        [1, "EP01_12", None, 73, 81, 0, 91, "4", "tense"],
        [2, "EP01_12", None, 10, 0, 14, 20, "4", "tense"],
    ],
    "dfme": [
        ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Emotion", "Fps", "AU"],
        ["sub0003", "sub0003_01", 109, 199, 228, "anger", 500, "AD38"],
    ],
    "casme_sq": [
        [1, "anger1_1", 557, 572, 608, "4+10", "negative", "macro-expression", "anger"],
        [2, "disgust1_1", 10, 12, 0, 4, "negative", "micro-expression", "disgust"],
    ],
    "casme3": [
        ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"],
        ["spNO.1", "e", "62", "68", "96", "R12", "I", "others"],
        ["spNO.1", "e", "96", "102", "106", "R12", "I", "Others"],
    ],
    "mmew": [
        ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Estimated Emotion"],
        [3, "S03-01-002", 1, 12, 30, "happiness"],
    ],
    "4dme": [
        ["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Emotion"],
        [1, "s01_a", 1, 2, 3, "4", "Negative&Surprise"],
    ],
    "table": [
        ["subject", "clip", "path", "onset", "apex", "offset", "label"],
        ["A", "c1", "A/c1", 1, 2, 3, "happy"],
    ],
}
REQUIRED = {
    "samm": [0, 1, 3, 4, 5, 9],
    "casme2": [0, 1, 3, 4, 5, 8],
    "smic": [0, 1, 2, 3],
    "casme3": [0, 1, 2, 3, 4, 7],
    "casme": [0, 1, 3, 4, 6, 8],
    "dfme": [0, 1, 2, 3, 4],
    "mmew": [0, 1, 2, 3, 4, 5],
    "4dme": [0, 1, 2, 3, 4, 6],
    "table": [0, 1, 2, 3, 5],
}
JUNK = ["", None, "../x", "..", "/", "?", "x", -1, 1.5, 1e30, float("nan"), True, "=A1", "١٢"]
JUNK += ["\u200b", "a\nb", 'a"b', "1;2", "NULL", "é" * 300, "9" * 17, 10**15, "#REF!"]


def read(name: str, path: Path) -> Catalog:
    options = {"subset": "HS-E"} if name == "smic" else {}
    return READERS[name].read(None, path, **options)


def written(folder: Path, rows: Table, form: str) -> Path:
    if form == "xlsx":
        return made.write_xlsx(folder / "t.xlsx", {"HS": rows})
    return made.write_csv(folder / "t.csv", rows, separator=form)


def test_every_reader_is_here():
    assert set(TABLES) == set(READERS)
    assert set(REQUIRED) == set(READERS) - {"casme_sq"}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_sound(tmp_path, name):
    forms = [read(name, written(tmp_path, TABLES[name], form)) for form in (",", ";", "xlsx")]
    rows = len(TABLES[name]) - (name != "casme_sq")
    keys = [[(c.key, c.onset, c.apex, c.offset, c.emotion) for c in found] for found in forms]
    assert len(keys[0]) == rows
    assert keys[0] == keys[1] == keys[2]


@pytest.mark.parametrize(("name", "column"), [(n, c) for n, cs in REQUIRED.items() for c in cs])
def test_no_required_column_may_be_renamed_or_missing(tmp_path, name, column):
    renamed = [list(row) for row in TABLES[name]]
    renamed[0][column] = "Something else"
    missing = [row[:column] + row[column + 1 :] for row in TABLES[name]]
    for rows in (renamed, missing):
        for form in (",", "xlsx"):
            with pytest.raises(ApexflowError, match="no column") as caught:
                read(name, written(tmp_path, rows, form))
            assert repr(TABLES[name][0][column]).casefold() in str(caught.value).casefold()


@pytest.mark.parametrize("name", TABLES)
def test_merged_cells_cost_their_clips_alone(tmp_path, name):
    rows = [*TABLES[name], *TABLES[name][1:]][:3]
    path = written(tmp_path, [rows[0], rows[1], rows[-1], rows[1]], "xlsx")
    book = openpyxl.load_workbook(path)
    book["HS"].merge_cells("A2:A3")
    book.save(path)
    catalog = read(name, path)
    broken = [clip for clip in catalog if "cells A2:A3 are merged" in clip.problem]
    assert [clip.key[1:] for clip in broken] == [("?", "row 2"), ("?", "row 3")]
    assert len(catalog) == len(broken) + (2 if name == "casme_sq" else 1)


@pytest.mark.parametrize("name", TABLES)
def test_formulas_without_values_cost_their_clip_alone(tmp_path, name):
    rows = [list(row) for row in [*TABLES[name], TABLES[name][-1]]]
    rows[1][1] = '=CONCATENATE("a","b")'
    broken = [clip for clip in read(name, written(tmp_path, rows, "xlsx")) if clip.problems]
    assert [(clip.subject, clip.name) for clip in broken] == [("?", "row 2")]
    assert "row 2: clip is a formula" in broken[0].problem


ANOTHER_CLIP = {
    **{"samm": "006_1_3", "casme2": "EP03_02", "smic": "s20_ne_02", "casme": "EP01_13"},
    **{"dfme": "sub0003_02", "casme_sq": "anger1_9", "casme3": "f", "mmew": "S03-01-003"},
    **{"4dme": "s01_b", "table": "c2"},
}
COLUMNS = [(name, column) for name, columns in REQUIRED.items() for column in columns]


@pytest.mark.parametrize(
    ("name", "column"), [*COLUMNS, *(("casme_sq", column) for column in (0, 1, 2, 3, 4, 7))]
)
def test_a_bad_cell_costs_its_clip_alone(tmp_path, name, column):
    """In every column that a clip is known by, of every reader; the audit says the same."""
    header = 0 if name == "casme_sq" else 1
    sound, bad = (list(TABLES[name][header]) for _ in range(2))
    bad[1] = ANOTHER_CLIP[name]
    bad[column] = "../b"
    path = written(tmp_path, [*TABLES[name][:header], sound, bad], ",")
    catalog = read(name, path)
    broken = [clip for clip in catalog if clip.problems]
    heading = TABLES[name][0][column] if header else ""
    if plain(heading) in {"emotion", "estimatedemotion"} and name != "mmew":
        assert not broken  # a text that no data set knows is an emotion all the same
        return
    assert len(catalog) == 2
    (clip,) = broken
    assert f"t.csv row {header + 2}: " in clip.problem
    assert repr(bad[column]) in clip.problem
    assert "; " in clip.problem  # the remedy
    options = {"subset": "HS-E"} if name == "smic" else {}
    report = audit(name, None, path, **options)
    found = [one for one in report.findings if one.rule in {"row-unread", "path-outside"}]
    assert [(one.severity, one.clip, one.where) for one in found] == [
        ("error", str(clip), clip.origin)
    ]
    assert Catalog.from_csv(_saved(catalog, tmp_path / "c.csv")) == catalog


def _saved(catalog: Catalog, path: Path) -> Path:
    catalog.to_csv(path)
    return path


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_a_column_that_no_row_can_be_read_in_is_refused(tmp_path, name, column):
    rows = [list(row) for row in [*TABLES[name], TABLES[name][-1]]]
    heading = plain(rows[0][column])
    if heading in {"emotion", "estimatedemotion", "label", "apex"}:
        return  # may hold anything, or nothing
    for row in rows[1:]:
        row[column] = "../x"
    with pytest.raises(ApexflowError, match=rf"row 2: .*; so are all {len(rows) - 1} rows"):
        read(name, written(tmp_path, rows, ","))


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Table]:
    """Return a reader's name and its table after one to three accidents."""
    name = draw(st.sampled_from(sorted(TABLES)))
    rows = [list(row) for row in TABLES[name]]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(rows) - 1))
        accident = draw(st.sampled_from(["cell", "row", "short", "long", "column", "swap"]))
        if accident == "cell" and rows[at]:
            rows[at][draw(st.integers(0, len(rows[at]) - 1))] = draw(st.sampled_from(JUNK))
        elif accident == "row":
            rows.insert(at, draw(st.lists(st.sampled_from(JUNK), max_size=9)))
        elif accident == "short":
            rows[at] = rows[at][: draw(st.integers(0, len(rows[at])))]
        elif accident == "long":
            rows[at].append(draw(st.sampled_from(JUNK)))
        elif accident == "column":
            column = draw(st.integers(0, 8))
            rows = [row[:column] + row[column + 1 :] for row in rows]
        else:
            rows[0], rows[at] = rows[at], rows[0]
    return name, rows


@given(case=damaged(), form=st.sampled_from([",", ";", "xlsx"]))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_damage_gives_an_error_in_one_line_or_sound_clips(tmp_path, case, form):
    name, rows = case
    path = written(tmp_path, rows, form)
    with contextlib.suppress(_ClearRefusalError):
        catalog = _reading(name, path)
        assert sum(not clip.problems for clip in catalog) <= len(rows)
        for clip in catalog:
            assert clip.subject
            assert clip.name
            assert "\n" not in clip.problem
            if clip.problems:
                continue
            assert not {"..", ""} & set(clip.source.split("/"))
            assert "\n" not in clip.subject + clip.name + clip.source


class _ClearRefusalError(Exception):
    """A clear refusal."""


def _reading(name: str, path: Path) -> Catalog:
    try:
        return read(name, path)
    except ApexflowError as error:
        if "\n" in str(error) or "t." not in str(error):
            raise
        raise _ClearRefusalError from None


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_inputs.py"


@pytest.mark.parametrize(("kind", "count"), [("tables", 300), ("images", 600), ("videos", 60)])
def test_audit_and_process_agree_on_damaged_inputs(tmp_path, kind, count):
    """A sample of what the script tries by the hundred thousand."""
    results, problems = runpy.run_path(str(SCRIPT))["run"](kind, count, 1, tmp_path)
    assert problems == []
    assert results["read"]
    assert results["refused"]
