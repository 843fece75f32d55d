from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from apexflow import ApexflowError, Catalog, ClipError
from apexflow.catalog import person_of
from apexflow.datasets import (
    READERS,
    read_4dme,
    read_casme2,
    read_casme3,
    read_casme_sq,
    read_mmew,
    read_samm,
    read_smic,
    read_table,
)
from apexflow.datasets.audit import audit
from apexflow.datasets.sources import open_frames
from tests.datasets import annotation_tables as made

# -- SAMM


def test_samm_reads_what_the_table_says(tmp_path):
    catalog = read_samm(None, made.samm_csv(tmp_path / "samm.csv"))
    assert [clip.key for clip in catalog] == [
        ("samm", "006", "006_1_2"),
        ("samm", "006", "006_2_4"),
        ("samm", "028", "028_4_1"),
        ("samm", "032", "032_3_1"),
        ("samm", "032", "032_3_2"),
    ]
    clip = catalog[0]
    assert (clip.onset, clip.apex, clip.offset) == (5562, 5588, 5632)
    assert (clip.emotion, clip.emotion_text, clip.action_units) == ("anger", "Anger", "4+7")
    assert clip.origin == "samm.csv row 2"
    assert clip.root is None
    with pytest.raises(ClipError):
        clip.path  # noqa: B018
    # A wrong apex is not the reader's to judge.
    assert [clip.apex for clip in catalog[2:]] == [1143, 1930, 5127]


@pytest.mark.parametrize(
    "folders",
    [("006", "006_1_2"), ("6", "006_1_2"), ("sub006", "006_1_2"), ("006", "6_1_2"), ("006_1_2",)],
)
@pytest.mark.parametrize("wrapper", ["", "SAMM"])
def test_samm_finds_folders_spelled_otherwise(tmp_path, folders, wrapper):
    root = tmp_path / "root"
    folder = root.joinpath(wrapper, *folders)
    made.touch_frames(folder, ["006_05562.jpg"])
    catalog = read_samm(root, made.samm_csv(tmp_path / "samm.csv"))
    assert catalog[0].path == folder
    assert not catalog[1].path.exists()  # stays in the catalog all the same


def test_samm_does_not_guess_between_two_folders(tmp_path):
    for name in ("6", "06"):
        made.touch_frames(tmp_path / "root" / name / "006_1_2", ["006_05562.jpg"])
    catalog = read_samm(tmp_path / "root", made.samm_csv(tmp_path / "samm.csv"))
    assert catalog[0].source == "006/006_1_2"
    with pytest.raises(ClipError, match=r"006/006_1_2 may be any of 06 \| 6; rename"):
        open_frames(catalog[0])
    (found,) = (
        finding
        for finding in audit("samm", tmp_path / "root", tmp_path / "samm.csv").findings
        if finding.clip == "samm/006/006_1_2"
    )
    assert found.rule == "clip-ambiguous"


@pytest.mark.parametrize("place", ["root", "."])
def test_the_table_is_found_in_or_beside_the_root(tmp_path, place):
    made.touch_frames(tmp_path / "root" / "006" / "006_1_2", ["006_05562.jpg"])
    made.samm_csv(tmp_path / place / "SAMM.csv")
    assert len(read_samm(tmp_path / "root")) == len(made.SAMM_ROWS)


def test_a_root_that_cannot_be_used(tmp_path):
    table = made.samm_csv(tmp_path / "samm.csv")
    (tmp_path / "empty").mkdir()
    for root, words in (("missing", "no such folder"), ("empty", "empty"), ("samm.csv", "not a")):
        with pytest.raises(ApexflowError, match=words):
            read_samm(tmp_path / root, table)
    made.touch_frames(tmp_path / "deep" / "root" / "006", ["x"])
    with pytest.raises(ApexflowError, match=r"no annotation file.*samm\.csv"):
        read_samm(tmp_path / "deep" / "root")
    with pytest.raises(ApexflowError, match="name the annotation file"):
        read_samm(None)


def test_another_data_sets_table_is_refused(tmp_path):
    samm = made.samm_csv(tmp_path / "samm.csv")
    casme2 = made.casme2_xlsx(tmp_path / "casme2.xlsx")
    with pytest.raises(ApexflowError, match="SAMM's table"):
        read_samm(None, casme2)
    for reader in (read_casme2, read_mmew, read_smic, read_casme3, read_casme_sq, read_table):
        with pytest.raises(ApexflowError):
            reader(None, samm)


# -- CASME II


def test_casme2_reads_what_the_table_says(tmp_path):
    catalog = read_casme2(None, made.casme2_xlsx(tmp_path / "t.xlsx"))
    assert [clip.subject for clip in catalog] == ["01", "04", "05", "26"]
    assert [clip.apex for clip in catalog] == [59, None, 69, 64]
    assert [clip.apex_source for clip in catalog] == ["annotated", "", "annotated", "annotated"]
    assert [clip.emotion for clip in catalog] == ["happiness", "disgust", "disgust", "other"]
    assert catalog[3].emotion_text == "others"
    assert [clip.action_units for clip in catalog] == ["12", "4+7", "?", "4+L10"]


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("sub01/EP02_01f", ["img46.jpg", "img59.jpg"]),
        ("CASME2_RAW_selected/sub01/EP02_01f", ["img46.jpg", "img59.jpg"]),
        ("Cropped/sub1/EP02_01f", ["reg_img46.jpg", "reg_img59.jpg"]),
        ("prepared_dataset/sub01/ROI_EP02_01f", ["img46.jpg", "img59.jpg"]),
    ],
)
def test_casme2_trees(tmp_path, folder, names):
    made.touch_frames(tmp_path / "root" / folder, names)
    clip = read_casme2(tmp_path / "root", made.casme2_xlsx(tmp_path / "t.xlsx"))[0]
    assert clip.source == folder
    assert (clip.onset, clip.apex, clip.offset) == (46, 59, 86)


def test_casme2_prepared_layout_with_named_frames(tmp_path):
    root = tmp_path / "prepared_dataset"
    made.touch_frames(root / "sub01/ROI_EP02_01f", ["onset_frame.jpg", "apex_frame.jpg"])
    made.touch_frames(
        root / "sub26/EP18_51", ["onset_frame.png", "apex_frame.png", "offset_frame.png"]
    )
    first, _, _, last = read_casme2(root, made.casme2_xlsx(tmp_path / "t.xlsx"))
    assert (first.onset, first.apex, first.offset) == (1, 2, None)
    assert (last.onset, last.apex, last.offset) == (1, 2, 3)
    kept = dict(first.extra)
    assert [kept[f"annotated {m}"] for m in ("onset", "apex", "offset")] == ["46", "59", "86"]


def test_casme2_raw_and_cropped_side_by_side_are_not_mixed(tmp_path):
    for tree in ("CASME2-RAW", "Cropped"):
        made.touch_frames(tmp_path / "root" / tree / "sub01" / "EP02_01f", ["img46.jpg"])
    with pytest.raises(ApexflowError, match="both CASME2-RAW and Cropped"):
        read_casme2(tmp_path / "root", made.casme2_xlsx(tmp_path / "t.xlsx"))


def test_casme2_objective_classes(tmp_path):
    header = ("Subject", "Filename", "Objective Class")
    classes = made.write_xlsx(
        tmp_path / "classes.xlsx",
        {"Sheet1": [header, ("01", "EP02_01f", 1), (4, "EP12_01f", 7)], "Sheet2": [("01", "x")]},
    )
    table = made.casme2_xlsx(tmp_path / "t.xlsx")
    catalog = read_casme2(None, table, objective_classes=classes)
    found = [dict(clip.extra).get("objective class") for clip in catalog]
    assert found == ["1", "7", None, None]
    rows = [header, ("01", "EP02_01f", 1), ("01", "EP02_01f", 2)]
    made.write_xlsx(classes, {"Sheet1": rows})
    with pytest.raises(ApexflowError, match="two objective classes"):
        read_casme2(None, table, objective_classes=classes)


def test_casme2_edition_of_2019(tmp_path):
    """Numbers for subjects, no blank columns, more unknown apexes."""
    header = [heading for heading in made.CASME2_HEADER if heading]
    rows = [
        (1, "EP02_01f", 46, 59, 86, 12, "happiness"),
        (7, "EP06_01", 15, "/", 68, "", "others"),
    ]
    catalog = read_casme2(None, made.write_xlsx(tmp_path / "t.xlsx", {"S": [header, *rows]}))
    assert [(c.subject, c.apex) for c in catalog] == [("01", 59), ("07", None)]


# -- SMIC


def smic_tree(root: Path, clips: dict[str, list[int]], *, suffix: str = ".bmp") -> None:
    for path, numbers in clips.items():
        made.touch_frames(root / path, [f"image{n}{suffix}" for n in numbers])


def test_smic_hs_takes_its_folders_for_the_annotation(tmp_path):
    smic_tree(
        tmp_path,
        {
            "HS/s1/micro/negative/s1_ne_01": [559740, 559741, 559775],
            "HS/s01/micro/positive/s01_po_02": [9, 10],
            "HS/s03/micro/surprise/s3_sur_11": [],
            "HS/s03/non_micro/s3_ne_09": [1],
            "VIS/s11/micro/negative/s11_ne_01": [7, 9],
            "NIR/s12/micro/positive/s12_po_01": [3, 4],
        },
    )
    catalog = read_smic(tmp_path)
    assert [clip.key for clip in catalog] == [
        ("smic", "01", "s1_ne_01"),
        ("smic", "01", "s1_po_02"),
        ("smic", "03", "s3_sur_11"),
    ]
    assert [(c.onset, c.apex, c.offset) for c in catalog] == [
        (559740, None, 559775),
        (9, None, 10),
        (None, None, None),
    ]
    assert [clip.emotion for clip in catalog] == ["negative", "positive", "surprise"]
    assert [clip.key for clip in read_smic(tmp_path, subset="VIS")] == [
        ("smic-vis", "11", "s11_ne_01")
    ]
    assert [clip.key for clip in read_smic(tmp_path, subset="NIR")] == [
        ("smic-nir", "12", "s12_po_01")
    ]
    made.touch_frames(tmp_path / "HS/s1/micro/negative/s1_ne_01", ["points68.txt", ".image1.bmp"])
    assert read_smic(tmp_path) == catalog
    middle = read_smic(tmp_path, apex="middle")[0]
    assert (middle.apex, middle.apex_source) == ((559740 + 559775) // 2, "middle")


def test_smic_long_videos_are_not_taken_for_clips(tmp_path):
    smic_tree(tmp_path, {"HS_long/SMIC_HS_E/s20/s20_ne_01": [1, 2]}, suffix=".jpg")
    for root in (tmp_path, tmp_path / "HS_long", tmp_path / "HS_long" / "SMIC_HS_E"):
        with pytest.raises(ApexflowError, match="no folder like s1_ne_01"):
            read_smic(root)


def test_smic_in_a_folder_that_happens_to_be_called_so(tmp_path):
    root = tmp_path / "vis" / "SMIC"
    smic_tree(root, {"HS/s1/micro/negative/s1_ne_01": [1, 2], "NIR/s1/s1_po_01": [1, 2]})
    assert [clip.name for clip in read_smic(root)] == ["s1_ne_01"]
    nested = tmp_path / "HS_long" / "SMIC-HS-E"
    smic_tree(nested, {"HS/s1/s1_ne_01": [1, 2]})
    with pytest.raises(ApexflowError, match="no folder like s1_ne_01"):
        read_smic(nested)


def test_smic_raw_and_cropped_are_not_mixed(tmp_path):
    smic_tree(tmp_path, {f"{t}/HS/s1/micro/negative/s1_ne_01": [1] for t in ("raw", "cropped")})
    with pytest.raises(ApexflowError, match="s1_ne_01 is in both"):
        read_smic(tmp_path)


SMIC_HEADER = (
    "Subject",
    "Filename",
    None,
    "OnsetF",
    "OffsetF",
    "Onset2F",
    "Offset2F",
    "Onset3F",
    "Offset3F",
    None,
    "FirstF",
    "LastF",
    "Emotion",
)
SMIC_ROWS = (
    (20, "s20_ne_01", None, 110, 130, None, None, None, None, None, 100, 199, "negative"),
    # the third interval comes from a broken formula, and lies outside the video
    (20, "s20_ne_06", None, 220, 230, 250, 260, 17, 210, None, 200, 299, "negative"),
    (9, "s9_sur_01", None, 310, 320, 330, 340, 330, 340, None, 300, 399, "surprise"),
    # the second interval comes first, and the emotion contradicts the name
    (18, "s18_sur_03", None, 450, 460, 410, 420, None, None, None, 400, 499, "negative"),
    tuple([None] * 13),
)


def smic_table(path: Path) -> Path:
    vis = [(*SMIC_HEADER[:7], None, "FirstF", "TotalVL", "Emotion")]
    vis.append((20, "s20_ne_01", None, 12, 14, None, None, None, 10, 30, "negative"))
    return made.write_xlsx(path, {"HS": [SMIC_HEADER, *SMIC_ROWS], "VIS": vis, "Sheet2": []})


def test_smic_hs_e_rows_and_intervals(tmp_path):
    table = smic_table(tmp_path / "SMIC-HS-E_annotation.xlsx")
    catalog = read_smic(None, table)
    assert [(c.key, c.onset, c.offset, c.emotion) for c in catalog] == [
        (("smic-hs-e", "20", "s20_ne_01"), 110, 130, "negative"),
        (("smic-hs-e", "20", "s20_ne_06"), 220, 230, "negative"),
        (("smic-hs-e", "09", "s9_sur_01"), 310, 320, "surprise"),
        (("smic-hs-e", "18", "s18_sur_03"), 450, 460, "surprise"),
    ]
    assert dict(catalog[1].extra)["intervals"] == "220-230 250-260 17-210"
    every = read_smic(None, table, intervals="all")
    assert [(c.name, c.onset, c.offset) for c in every if "#" in c.name] == [
        ("s20_ne_06#2", 250, 260),
        ("s9_sur_01#2", 330, 340),
        ("s18_sur_03#2", 410, 420),
    ]
    vis = read_smic(None, table, subset="VIS-E")[0]
    assert (vis.key, vis.onset) == (("smic-vis-e", "20", "s20_ne_01"), 12)
    assert dict(vis.extra)["last frame"] == "39"


def test_smic_hs_e_frames(tmp_path):
    folder = "SMIC-E/HS_long/SMIC-HS-E/HS/s09/s9_sur_01"
    smic_tree(tmp_path, {folder: [310], "SMIC-E/HS_long/x/s1/s1_ne_99": [1]}, suffix=".jpg")
    table = smic_table(tmp_path / "SMIC-HS-E_annotation.xlsx")
    catalog = read_smic(tmp_path, table)
    assert catalog[2].source == folder
    assert read_smic(tmp_path, subset="HS-E") == catalog


def test_smic_options_are_checked(tmp_path):
    table = smic_table(tmp_path / "t.xlsx")
    for options in ({"subset": "HD"}, {"intervals": "second"}, {"apex": "late"}, {"subset": "HS"}):
        with pytest.raises(ApexflowError):
            read_smic(None, table, **options)
    with pytest.raises(ApexflowError, match="needs a root"):
        read_smic(None)


# -- CAS(ME)²


CASME_SQ_ROWS = (
    (1, "anger1_1", 557, 572, 608, "4+10", "negative", "macro-expression", "anger"),
    (1, "anger1_2", 2854, 2862, 0, 38, "others", "micro-expression", "sadness"),
    (2, "disgust1_1", 10, 12, 20, 4, "negative", "micro-expression", "disgust"),
    (2, "disgust1_1", 90, 95, 99, 4, "negative", "micro-expression", "disgust"),
)


def casme_sq_xlsx(path: Path) -> Path:
    subjects = [(1, 15, 1), (2, 16, 2)]
    videos = [("0401", "anger1"), (101, "disgust1")]
    return made.write_xlsx(
        path, {"CASFEcode_final": CASME_SQ_ROWS, "naming rule2": subjects, "naming rule1": videos}
    )


def test_casme_sq_has_no_header_and_names_folders_by_code(tmp_path):
    table = casme_sq_xlsx(tmp_path / "CAS(ME)^2code_final.xlsx")
    made.touch_frames(tmp_path / "root/rawpic/s15/15_0401girlcrashing", ["img557.jpg"])
    made.touch_frames(tmp_path / "root/rawpic/s15/15_0101x", ["img1.jpg"])
    made.touch_frames(tmp_path / "root/rawpic/s16/16_0101disgustingteeth", ["img10.jpg"])
    catalog = read_casme_sq(tmp_path / "root")
    assert [c.name for c in catalog] == ["anger1_1", "anger1_2", "disgust1_1_10", "disgust1_1_90"]
    assert [c.subject for c in catalog] == ["01", "01", "02", "02"]
    assert [c.offset for c in catalog] == [608, None, 20, 99]
    assert catalog[0].source == "rawpic/s15/15_0401girlcrashing"
    assert catalog[2].source == "rawpic/s16/16_0101disgustingteeth"
    assert dict(catalog[1].extra) == {"expression": "micro-expression", "self report": "sadness"}
    micro = read_casme_sq(None, table, expressions="micro")
    assert [c.name for c in micro] == ["anger1_2", "disgust1_1_10", "disgust1_1_90"]


def test_casme_sq_with_a_header_is_refused(tmp_path):
    rows = [("subject", "video", "onset", "apex", "offset"), *CASME_SQ_ROWS]
    with pytest.raises(ApexflowError, match="row 1: subject must be a number"):
        read_casme_sq(None, made.write_xlsx(tmp_path / "t.xlsx", {"S": rows}))


def test_casme_sq_with_a_column_missing_is_refused(tmp_path):
    for column in range(9):
        rows = [[*row[:column], *row[column + 1 :]] for row in CASME_SQ_ROWS]
        path = made.write_csv(tmp_path / "t.csv", rows)
        if column == 8:  # the self-report alone may be left out
            assert len(read_casme_sq(None, path)) == 4
        else:
            with pytest.raises(ApexflowError, match=r"t\.csv row 1: "):
                read_casme_sq(None, path)


# -- CAS(ME)³


CASME3_HEADER = (
    "Subject",
    "Filename",
    "Onset",
    "Apex",
    "Offset",
    "AU",
    "Objective class",
    "emotion",
)
CASME3_ROWS = (
    ("spNO.1", "e", "62", "68", "96", "R12", "I", "others"),
    ("spNO.1", "e", "96", "102", "106", "R12", "I", "Others"),
    ("spNO.149", "d", "112", "83", "358", "T28+14", "VII", "fear"),
    ("spNO.40", "J", "1812", "1824", "0", "18", "VII", "happy"),
)


def test_casme3_part_a_needs_the_onset_in_its_names(tmp_path):
    table = made.write_xlsx(
        tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        {"label": [CASME3_HEADER, *CASME3_ROWS], "Sheet1": [], "Sheet3": []},
    )
    made.touch_frames(tmp_path / "part_A/spNO.1/e/color", ["62.jpg", "68.jpg"])
    made.touch_frames(tmp_path / "part_A/spNO.1/e/depth", ["62.png"])
    made.touch_frames(tmp_path / "part_A/spNO.040/j", ["1812.jpg"])
    catalog = read_casme3(tmp_path / "part_A", table)
    assert [c.key for c in catalog] == [
        ("casme3", "spNO.1", "e_62"),
        ("casme3", "spNO.1", "e_96"),
        ("casme3", "spNO.149", "d_112"),
        ("casme3", "spNO.40", "j_1812"),
    ]
    assert [c.emotion for c in catalog] == ["other", "other", "fear", "happiness"]
    assert catalog[1].source == "spNO.1/e/color"
    assert catalog[3].source == "spNO.040/j"
    assert (catalog[2].apex, catalog[3].offset) == (83, 0)  # wrong, and for the audit to say


def test_casme3_part_c(tmp_path):
    rows = [("sub", "count", "onset", "offset", "au"), (1, 1, 10, 20, "4，7"), (1, 2, 30, 40, 12)]  # noqa: RUF001
    table = made.write_xlsx(tmp_path / "CAS(ME)3_part_C_ME.xlsx", {"Sheet1": rows})
    made.touch_frames(tmp_path / "part_C/01/a/color", ["10.jpg"])
    catalog = read_casme3(tmp_path / "part_C", part="C")
    assert [c.key for c in catalog] == [("casme3c", "01", "1_10"), ("casme3c", "01", "2_30")]
    assert catalog[0].source == "01/a/color"
    assert catalog[0].apex is None
    assert read_casme3(None, table, part="C", apex="middle")[1].apex == 35
    # The same number in part A is the same person, as far as anybody knows.
    assert {clip.person for clip in catalog} == {person_of("casme3", "spNO.1")}
    with pytest.raises(ApexflowError, match="part must be"):
        read_casme3(None, table, part="B")


# -- MMEW and 4DME


def test_mmew_finds_clips_below_their_emotions(tmp_path):
    header = (
        "Subject",
        "Filename",
        "OnsetFrame",
        "ApexFrame",
        "OffsetFrame",
        "remarks",
        "Action Units",
        "Estimated Emotion",
    )
    rows = [
        header,
        (3, "S03-01-002", 1, 12, 30, "", "6+12", "happiness"),
        (4, "S04-07-001", 2, 9, 20, "", 4, "others"),
    ]
    table = made.write_xlsx(tmp_path / "MMEW_Micro_Exp.xlsx", {"Sheet1": rows})
    made.touch_frames(tmp_path / "MMEW/Micro_Expression/happiness/S03-01-002", ["1.jpg"])
    made.touch_frames(tmp_path / "MMEW/Macro_Expression/happiness/S03-01-002", ["1.jpg"])
    made.touch_frames(tmp_path / "MMEW/Micro_Expression/S04/other/S04-07-001", ["2.jpg"])
    for root, prefix in (("MMEW", "Micro_Expression/"), ("MMEW/Micro_Expression", "")):
        catalog = read_mmew(tmp_path / root, table)
        assert [c.key for c in catalog] == [
            ("mmew", "03", "S03-01-002"),
            ("mmew", "04", "S04-07-001"),
        ]
        assert catalog[0].source == f"{prefix}happiness/S03-01-002"
        assert catalog[1].source == f"{prefix}S04/other/S04-07-001"
    assert catalog[1].emotion == "other"


def test_4dme_joins_emotions(tmp_path):
    header = ("sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Emotion")
    rows = [
        header,
        ("1", "s01_a", 1, 2, 3, "AU4+AU7(k)", "Negative & Surprise"),
        ("1", "s01_b", 1, 2, 3, "", "Others"),
    ]
    table = made.write_xlsx(tmp_path / "4DME_Labelling_Micro_release v1.xlsx", {"S": rows})
    made.touch_frames(tmp_path / "gray_micro/01/s01_a", ["1.jpg"])
    made.touch_frames(tmp_path / "gray_micro/s01_b", ["1.jpg"])
    catalog = read_4dme(tmp_path / "gray_micro", table)
    assert [c.key for c in catalog] == [("4dme", "01", "s01_a"), ("4dme", "01", "s01_b")]
    assert [c.emotion for c in catalog] == ["negative&surprise", "other"]
    assert [c.source for c in catalog] == ["01/s01_a", "s01_b"]


# -- the generic table


TABLE_HEADER = ("subject", "clip", "path", "onset", "apex", "offset", "label")


def read_one(tmp_path, *cells, header=TABLE_HEADER, **options):
    (tmp_path / "root" / "x").mkdir(parents=True, exist_ok=True)
    path = made.write_csv(tmp_path / "t.csv", [header, cells])
    return read_table(tmp_path / "root", path, **options)[0]


def test_table_reads_folders_and_videos(tmp_path):
    clip = read_one(tmp_path, "A", "c1", "videos\\A\\c1.mp4", 0, "", 29, 2)
    assert clip.key == ("table", "A", "c1")
    assert clip.path == tmp_path / "root/videos/A/c1.mp4"
    assert (clip.onset, clip.apex, clip.offset, clip.label) == (0, None, 29, 2)
    clip = read_one(tmp_path, "A", "c1", "./A/c1/", 3, 5, 9, "Happy", dataset="mine")
    assert clip.key == ("mine", "A", "c1")
    assert (clip.source, clip.emotion, clip.label) == ("A/c1", "happiness", None)
    absolute = str(tmp_path / "root" / "A")
    assert read_one(tmp_path, "A", "c1", absolute, 3, 5, 9, "").source == "A"
    header = (*TABLE_HEADER, "Dataset", "light")
    clip = read_one(tmp_path, "A", "c1", "A", 3, 5, 9, "", "own", "warm", header=header)
    assert (clip.dataset, clip.extra) == ("own", (("light", "warm"),))


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("2", (2, "")),
        ("2.0", (2, "")),
        ("0", (0, "")),
        ("", (None, "")),
        ("NaN", (None, "")),
        ("happy", (None, "happiness")),
        ("A", (None, "a")),
        ("3 of a kind", (None, "3 of a kind")),
    ],
)
def test_table_labels(tmp_path, label, found):
    clip = read_one(tmp_path, "A", "c1", "x", 1, 2, 3, label)
    assert (clip.label, clip.emotion) == found


@pytest.mark.parametrize("label", ["-1", "1.5", "1e3", "2E+05", "٣", "1/2"])
def test_table_labels_that_are_neither_number_nor_name(tmp_path, label):
    with pytest.raises(ApexflowError, match="row 2: label must be a class number"):
        read_one(tmp_path, "A", "c1", "x", 1, 2, 3, label)


def test_table_labels_are_of_one_kind(tmp_path):
    rows = [("A", "c1", "x", 1, 2, 3, 0), ("A", "c2", "x", 1, 2, 3, "happy")]
    path = made.write_csv(tmp_path / "t.csv", [TABLE_HEADER, *rows])
    with pytest.raises(ApexflowError, match=r"row 3: label 'happy', but '0' in row 2"):
        read_table(None, path)


def test_table_keeps_a_label_beside_an_emotion(tmp_path):
    header = (*TABLE_HEADER, "emotion")
    clip = read_one(tmp_path, "A", "c1", "x", 1, 2, 3, "genuine", "happy", header=header)
    assert (clip.emotion, clip.label, clip.extra) == ("happiness", None, (("label", "genuine"),))


@pytest.mark.parametrize(
    "path", ["../other", "a/../../b", "..", "a\\..\\..\\b", "/etc", "C:\\x", "\\\\host\\x", ""]
)
def test_table_paths_never_leave_the_root(tmp_path, path):
    with pytest.raises(ApexflowError, match="row 2"):
        read_one(tmp_path, "A", "c1", path, 1, 2, 3, "")


@pytest.mark.parametrize("name", ["../006_1_2", "006_1_2/..", "..", "a\\b"])
def test_names_never_hold_path_parts(tmp_path, name):
    with pytest.raises(ApexflowError, match="row 2"):
        read_one(tmp_path, "A", name, "x", 1, 2, 3, "")
    with pytest.raises(ApexflowError, match="row 2"):
        read_one(tmp_path, name, "c", "x", 1, 2, 3, "")
    row = [*made.SAMM_ROWS[0]]
    row[1] = name
    path = made.write_csv(tmp_path / "s.csv", [made.SAMM_HEADER, row])
    with pytest.raises(ApexflowError, match="row 2"):
        read_samm(None, path)


# -- all of them


def test_every_reader_is_described():
    assert list(READERS) == [
        "samm",
        "casme",
        "casme2",
        "smic",
        "casme_sq",
        "casme3",
        "mmew",
        "4dme",
        "dfme",
        "table",
    ]
    for name, reader in READERS.items():
        assert reader.name == name
        assert "ROOT" in reader.layout
        assert max(map(len, reader.layout.splitlines())) <= 95
        assert {option.name for option in reader.options} >= {"apex", "corrections"}


def test_apex_choices(tmp_path):
    table = made.samm_csv(tmp_path / "t.csv")
    clip = read_samm(None, table, apex="middle")[0]
    assert (clip.apex, clip.apex_source) == ((5562 + 5632) // 2, "middle")
    clip = read_samm(None, table, apex="flow")[0]
    assert (clip.apex, clip.apex_source) == (None, "flow")
    with pytest.raises(ApexflowError, match="apex must be one of annotated, middle"):
        read_samm(None, table, apex="last")


# -- the published tables, where a folder with them is named


real = pytest.mark.skipif(
    "APEXFLOW_TEST_DATA" not in os.environ, reason="APEXFLOW_TEST_DATA names no folder"
)


def published(name: str) -> Path:
    return Path(os.environ["APEXFLOW_TEST_DATA"]) / name


def size(catalog: Catalog) -> tuple[int, int]:
    return len(catalog), len(catalog.subjects)


@real
def test_published_tables_have_their_published_counts():
    samm = read_samm(None, published("samm.csv"))
    assert size(samm) == (159, 29)
    book = read_samm(None, published("SAMM_Micro_FACS_Codes_v2.xlsx"))
    assert [c.key for c in book] == [c.key for c in samm]
    differ = [c.name for c, b in zip(samm, book, strict=True) if c.apex != b.apex]
    assert differ == ["028_4_1", "032_3_1"]
    casme2 = read_casme2(
        None,
        published("CASME2-coding-20140508.xlsx"),
        objective_classes=published("CASME2-ObjectiveClasses.xlsx"),
    )
    assert size(casme2) == (255, 26)
    assert sum(c.apex is None for c in casme2) == 1
    assert sum(c.action_units == "?" for c in casme2) == 5
    assert all("objective class" in dict(c.extra) for c in casme2)
    assert size(read_smic(None, published("SMIC-HS-E_annotation.xlsx"))) == (157, 16)
    casme3 = read_casme3(None, published("cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"))
    assert size(casme3) == (860, 94)
    assert sum(c.onset == c.apex for c in casme3) == 55
    assert Counter(c.emotion for c in casme3)["other"] == 161
