"""CASME, DFME and the long videos: small tables with their quirks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import apexflow as af
from apexflow import ApexflowError
from apexflow.datasets import parse_action_units, read_casme_sq_long, read_samm_long
from apexflow.datasets.audit import audit
from tests.datasets import annotation_tables as made

CASME = (
    ("Subject", "Filename", None, "OnsetF", "ApexF1", "ApexF2", "OffsetF", None, "AUs", "Emotion"),
    (1, "EP01_12", None, 73, 81, 0, 91, None, "4", "tense"),
    (1, "EP03_1", None, 10, 0, 14, 20, None, "4+9", "disgust"),
    ("19", "EP19_02", None, 10, 12, 15, 20, None, "12", "happiness"),
)
DFME = (
    (
        *("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame"),
        *("Emotion", "EmotionId", "Fps", "AU"),
    ),
    ("sub0003", "sub0003_01", 0, 199, 228, "anger", 0, 500, "AD38+L12"),
    ("sub0021", "sub0021_04", 48, 106, 171, None, 5, 300, "M57+M58"),
)


def test_casme_has_two_apexes_and_two_sections(tmp_path: Path) -> None:
    table = made.write_xlsx(tmp_path / "CASME.xlsx", {"S": CASME})
    root = tmp_path / "root"
    made.touch_frames(root / "Section A/sub01/EP01_12", ["EP01_12-1.jpg"])
    made.touch_frames(root / "Section B/sub19/ep19_02", ["1.jpg"])
    for section in "AB":
        made.touch_frames(root / f"Section {section}/sub01/EP03_1", ["1.jpg"])
    catalog = af.read_casme(root, table)
    assert [(c.subject, c.name, c.apex) for c in catalog] == [
        ("01", "EP01_12", 81),
        ("01", "EP03_1", 14),
        ("19", "EP19_02", 12),
    ]
    assert dict(catalog[2].extra)["second apex"] == "15"
    assert catalog[0].source == "Section A/sub01/EP01_12"
    assert catalog[2].source == "Section B/sub19/ep19_02"
    rules = [(f.rule, f.clip) for f in audit("casme", root, table).findings]
    assert ("clip-ambiguous", "casme/01/EP03_1") in rules
    assert ("two-apexes", "") in rules


def test_dfme_reads_what_the_table_says(tmp_path: Path) -> None:
    table = made.write_xlsx(tmp_path / "testA.xlsx", {"S": DFME})
    made.touch_frames(tmp_path / "root/DFME/sub3/sub0003_01", ["0.jpg"])
    catalog = af.read_dfme(tmp_path / "root", table)
    assert [c.key for c in catalog] == [
        ("dfme", "sub0003", "sub0003_01"),
        ("dfme", "sub0021", "sub0021_04"),
    ]
    assert [(c.onset, c.emotion, dict(c.extra)["Fps"]) for c in catalog] == [
        (0, "anger", "500"),
        (48, "sadness", "300"),
    ]
    assert catalog[0].source == "DFME/sub3/sub0003_01"
    assert not any(f.rule == "action-units" for f in audit("dfme", None, table).findings)
    with pytest.raises(ApexflowError, match="not named after subject"):
        af.read_dfme(None, made.write_csv(tmp_path / "t.csv", [DFME[0], ("sub0004", *DFME[1][1:])]))


def test_action_descriptors_and_head_movements_are_units() -> None:
    units = parse_action_units("AD38+M57+L12+AU4")
    assert units.unparsed == ()
    assert [(g[0].kind, g[0].number, g[0].side) for g in units.groups] == [
        ("AD", 38, ""),
        ("M", 57, ""),
        ("AU", 12, "L"),
        ("AU", 4, ""),
    ]
    assert parse_action_units("nan") == parse_action_units("/") == parse_action_units("")


def test_samm_long_videos_are_videos_with_intervals(tmp_path: Path) -> None:
    header = ("Subject", "Filename", "Code", "Onset", "Apex", "Offset", "Duration", "Type")
    rows = [
        ("SAMM Long Videos Dataset - FACS Codes",),
        ("Symbol Key:",),
        (*header, "Action Units"),
        ("006", "006_1_1", 1, 566.4000000000001, 647.6, 743.2, 178, "Macro", "4(B/C)+7B"),
        (6, "006_1_2", 1, 3562, -1, 3632, 71, "Micro - 1/2", "4+7"),
        ("010", "010_1_3", 1, 89, 90, 209, 121, "Macro", "7A"),
    ]
    table = made.write_xlsx(tmp_path / "SAMMLV_gt.xlsx", {"FACS": rows})
    made.touch_frames(tmp_path / "root/SAMM_longvideos/006_1", ["006_1_0001.jpg"])
    first, second = read_samm_long(tmp_path / "root", table)
    assert (first.name, first.clip.subject, first.fps) == ("006_1", "006", 200)
    assert first.clip.source == "SAMM_longvideos/006_1"
    assert [(i.onset, i.apex, i.offset, i.kind) for i in first.intervals] == [
        (566, 648, 743, "macro"),
        (3562, None, 3632, "micro"),
    ]
    assert (second.name, len(second.intervals)) == ("010_1", 1)


def test_samm_long_videos_may_be_files(tmp_path: Path) -> None:
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "Type")
    rows = [(6, "006_1_1", 1, 3, 9, "Macro"), (7, "007_1_1", 1, 3, 9, "Macro")]
    table = made.write_csv(tmp_path / "SAMMLV_gt.csv", [header, *rows])
    root = tmp_path / "root"
    root.mkdir()
    for name in ("006_1.MP4", "007_1.avi", "007_1.mov", "006_1.txt"):
        (root / name).touch()
    first, second = read_samm_long(root, table)
    assert first.clip.source == "006_1.MP4"
    assert second.clip.source == "007_1"
    assert "007_1.avi | 007_1.mov" in dict(second.clip.extra).values()


def test_casme_sq_long_videos_have_the_names_of_their_folders(tmp_path: Path) -> None:
    rows = [
        (1, "anger1_1", 557, 572, 608, "4+10", "negative", "macro-expression", "anger"),
        (1, "anger1_2", 2854, 2862, 0, 38, "others", "micro-expression", "sadness"),
        (2, "disgust1_1", 10, 12, 20, 4, "negative", "micro-expression", "disgust"),
    ]
    sheets = {"code": rows, "rule1": [(15, "s15", 1), (16, "s16", 2)]}
    sheets["rule2"] = [("0401", "anger1"), (101, "disgust1")]
    table = made.write_xlsx(tmp_path / "CASME_sq_gt.xlsx", sheets)
    made.touch_frames(tmp_path / "root/rawpic/s15/15_0401girlcrashing", ["img557.jpg"])
    videos = read_casme_sq_long(tmp_path / "root", table)
    assert [(v.name, v.clip.subject, len(v.intervals)) for v in videos] == [
        ("s15_0401", "01", 2),
        ("s16_0101", "02", 1),
    ]
    assert videos[0].clip.source == "rawpic/s15/15_0401girlcrashing"
    assert [(i.kind, i.offset) for i in videos[0].intervals] == [("macro", 608), ("micro", None)]


def test_a_long_video_keeps_what_of_its_rows_cannot_be_read(tmp_path: Path) -> None:
    rows = [
        (1, "anger1_1", 557, 572, 608, "4+10", "negative", "macro-expression", "anger"),
        (1, "anger1_2", "x", 2862, 0, 38, "others", "micro-expression", "sadness"),
        (1, "anger1_3", 4000, 4001, 4009, 38, "others", "tiny", "sadness"),
        ("", "disgust1_1", 10, 12, 20, 4, "negative", "micro-expression", "disgust"),
    ]
    table = made.write_xlsx(tmp_path / "CASME_sq_gt.xlsx", {"code": rows})
    sound, unknown = read_casme_sq_long(None, table)
    assert [interval.onset for interval in sound.intervals] == [557]
    assert [(clip.name, clip.problems[0][0]) for clip in sound.unread] == [
        ("anger1_2", "onset"),
        ("anger1_3", "expression"),
    ]
    assert (unknown.name, unknown.intervals, unknown.unread) == ("row 4", (), (unknown.clip,))
    # Asked for one kind, a row that says neither is not lost.
    only = af.read_casme_sq(None, table, expressions="micro")
    assert [clip.name for clip in only] == ["anger1_2", "anger1_3", "row 4"]


@pytest.mark.skipif("APEXFLOW_TEST_DATA" not in os.environ, reason="names no folder")
def test_the_published_tables() -> None:
    tables = Path(os.environ["APEXFLOW_TEST_DATA"])
    dfme = af.read_dfme(None, tables / "DFME_training_full_with_AU.xlsx")
    assert (len(dfme), len(dfme.subjects)) == (1856, 176)
    assert not any(parse_action_units(c.action_units).unparsed for c in dfme)
    samm = read_samm_long(None, tables / "SAMMLV_gt.xlsx")
    casme = read_casme_sq_long(None, tables / "CASME_sq_gt.xlsx")
    counts = [
        (len(videos), sum(i.kind == "micro" for v in videos for i in v.intervals))
        for videos in (samm, casme)
    ]
    assert counts == [(147, 159), (95, 57)]
