from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from apexflow import ApexflowError
from apexflow.cli import main
from apexflow.datasets import read_casme_sq
from apexflow.datasets.audit import Report, pixels
from apexflow.datasets.corrections import load_corrections, write_corrections
from apexflow.engine.audit import audit
from tests.datasets import annotation_tables as made

HEADER = ("subject", "clip", "path", "onset", "apex", "offset", "label")


def write_frames(folder: Path, numbers, *, size=(24, 20), suffix=".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image = np.random.default_rng(number).integers(0, 256, size, np.uint8)
        assert cv2.imwrite(str(folder / f"img{number:03d}{suffix}"), image)


@pytest.fixture
def data(tmp_path):
    """Two sound clips and their table."""
    root = tmp_path / "root"
    write_frames(root / "A/c1", range(1, 10))
    write_frames(root / "B/c2", range(5, 12), suffix=".png")
    table(root, ("A", "c1", "A/c1", 1, 4, 9, "happiness"), ("B", "c2", "B/c2", 5, 7, 11, "anger"))
    return root


def table(root: Path, *rows) -> None:
    made.write_csv(root / "annotations.csv", [HEADER, *rows])


def rules(report: Report) -> list[tuple[str, str]]:
    return [(finding.rule, finding.clip.rpartition("/")[2]) for finding in report.findings]


def test_a_sound_data_set_is_clean(data):
    for deep in (False, True):
        report = audit("table", data, deep=deep)
        assert report.findings == ()
        assert (report.clean, report.exit_status, report.clips, report.frames) == (True, 0, 2, 16)


def test_missing_clips_name_the_folder_that_may_be_meant(data):
    (data / "A/c1").rename(data / "A/cc1")
    report = audit("table", data)
    assert rules(report) == [("clip-missing", "c1"), ("clip-surplus", "")]
    assert report.findings[0].where == "annotations.csv row 2"
    assert report.findings[0].proposal == "is it A/cc1?"
    assert report.exit_status == 1


def test_a_wrong_root_is_said_first(data):
    shutil.rmtree(data / "A")
    shutil.rmtree(data / "B")
    first = audit("table", data).findings[0]
    assert (first.rule, first.where) == ("layout", str(data))
    assert first.proposal.startswith("One table with the columns subject, clip, path")


def test_paths_out_of_the_root_are_errors(data, tmp_path):
    row = (1, "anger1_1", 1, 2, 3, 4, "negative", "micro-expression", "anger")
    codes = [(1, "x/../../secret", 1)]
    path = made.write_xlsx(tmp_path / "t.xlsx", {"S": [row], "subjects": codes, "videos": []})
    (tmp_path / "secret").mkdir()
    (tmp_path / "hidden").mkdir()
    report = audit("casme_sq", data, path)
    assert ("path-outside", "anger1_1") in rules(report)
    assert not any("hidden" in str(finding) for finding in report.findings)
    assert "leaves the data set's folder" in read_casme_sq(data, path)[0].problem


def test_surplus_folders_and_subjects_and_videos(data):
    write_frames(data / "A/extra", [1])
    write_frames(data / "C/c9", [1])
    (data / "B/old.mp4").touch()
    found = [finding.where for finding in audit("table", data).findings]
    assert found == ["C", "A/extra", "B/old.mp4"]


def test_missing_frames_and_gaps(data):
    for number in (4, 6, 7):
        (data / f"A/c1/img{number:03d}.jpg").unlink()
    (data / "B/c2/img011.png").unlink()
    report = audit("table", data)
    assert rules(report) == [
        ("frame-missing", "c1"),
        ("frame-missing", "c2"),
        ("frame-gap", "c1"),
    ]
    assert "apex frame 4 is not on disk" in report.findings[0].message
    assert "offset frame 11 is not on disk: the folder holds 5 to 10" in report.findings[1].message
    assert "2 of 9 frames between 1 and 9 are not on disk: 6, 7" in report.findings[2].message


def test_a_number_of_two_files(data):
    shutil.copy(data / "A/c1/img003.jpg", data / "A/c1/reg_img3.jpg")
    (finding,) = audit("table", data).findings
    assert (finding.rule, finding.severity) == ("frames-left-out", "warning")
    assert "reg_img3.jpg (its name has another pattern than the others)" in finding.message
    shutil.copy(data / "A/c1/img003.jpg", data / "A/c1/img3.jpg")
    assert rules(audit("table", data)) == [("frames-unusable", "c1")]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", ["A/c1/img003.jpg", "B/c2/img007.png"])
def test_cut_and_foreign_files(data, deep, name):
    path = data / name
    path.write_bytes(path.read_bytes()[:-100])
    cut = audit("table", data, deep=deep)
    assert [(f.rule, f.where) for f in cut.findings] == [("image-damaged", name)]
    for content, words in ((b"", "empty"), (b"no image at all", "no image header")):
        path.write_bytes(content)
        report = audit("table", data, deep=deep)
        assert [(f.rule, f.where) for f in report.findings] == [("image-damaged", name)]
        assert words in report.findings[0].message


def test_only_decoding_finds_damage_within(data, monkeypatch):
    path = data / "B/c2/img007.png"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(whole))
    assert rules(audit("table", data)) == [("image-damaged", "c2")]  # few files are decoded
    monkeypatch.setattr(pixels, "SMALL", 0)
    headers = audit("table", data)
    assert headers.clean
    assert "16 frames checked by their headers (--deep decodes them)" in str(headers)
    assert rules(audit("table", data, deep=True)) == [("image-damaged", "c2")]


def test_a_change_of_size_within_a_clip(data):
    write_frames(data / "A/c1", [5], size=(30, 20))
    report = audit("table", data)
    assert rules(report) == [("size-changes", "c1")]
    assert "20x24, 20x30; img005.jpg differ" in report.findings[0].message


def test_rows_that_are_wrong_by_themselves(data):
    table(
        data,
        ("A", "c1", "A/c1", 1, 10, 9, "happiness"),
        ("B", "c2", "B/c2", 5, 5, 11, "glee"),
        ("B", "c2", "B/c2", 5, 5, 11, "anger"),
        ("B", "c3", "B/c2", 5, "", "", "anger"),
        ("B", "c4", "B/c2", 7, 7, 7, "anger"),
        ("B", "c5", "B/c2", 5, 6, 11, ""),
    )
    found = rules(audit("table", data))
    assert found == [
        ("duplicate-row", "c2"),
        ("duplicate-row", "c2 (annotations.csv row 4)"),
        ("order", "c1"),
        ("no-motion", "c4"),
        ("frame-missing", "c1"),
        ("key-frame-unknown", "c3"),
        ("key-frame-unknown", "c3"),
        ("apex-near-onset", "c5"),
        ("emotion-missing", "c5"),
    ]


def test_two_spellings_of_one_subject(data):
    table(
        data,
        ("S1", "c1", "A/c1", 1, 4, 9, "anger"),
        ("s01", "c2", "B/c2", 5, 7, 11, "anger"),
        ("s10", "c3", "C/c3", 5, 7, 11, "anger"),
    )
    write_frames(data / "C/c3", range(5, 12))
    (finding,) = audit("table", data).findings
    assert (finding.rule, finding.message) == (
        "subjects-alike",
        "subjects S1, s01: are they one person?",
    )


def test_frames_of_two_people(data):
    table(
        data,
        ("A", "c1", "A/c1", 1, 4, 6, "happiness"),
        ("A", "c2", "A/c1", 3, 4, 9, "anger"),  # one person may have frames twice
        ("B", "c1", "A/c1", 6, 7, 9, "anger"),
        ("B", "c2", "B/c2", 5, 7, 11, "anger"),
        ("C", "c3", "C/copied", 5, 7, 11, "anger"),
        ("C", "c4", "C/alike", 5, 7, 11, "anger"),
    )
    shutil.copytree(data / "B/c2", data / "C/copied")  # times and all
    write_frames(data / "C/alike", range(5, 12), suffix=".png")  # other times: other files
    (data / "B/c2/img006.png").unlink()
    (data / "B/c2/img006.png").symlink_to("nowhere")  # what cannot be looked at is not compared
    with_link = audit("table", data).findings
    assert [f.clip for f in with_link if f.rule == "frames-shared"] == ["table/B/c1"]
    shutil.copy2(data / "C/copied/img006.png", data / "B/c2/moved")
    (data / "B/c2/moved").replace(data / "B/c2/img006.png")
    found = [(f.clip, f.message) for f in audit("table", data).findings if f.severity == "error"]
    assert found == [
        (
            "table/B/c1",
            "table/A/c1 and table/B/c1 have the same frames (A/c1), under two people "
            "(table/A, table/B)",
        ),
        (
            "table/C/c3",
            "table/B/c2 and table/C/c3 have the same frames (C/copied), under two people "
            "(table/B, table/C)",
        ),
    ]


def test_clips_that_a_recipe_cannot_use(data):
    table(data, ("A", "c1", "A/c1", 1, "", 9, "anger"), ("B", "c2", "B/c2", 5, 7, 11, "anger"))
    found = audit("table", data, recipe="default").findings
    assert ("recipe", "table/A/c1") in [(finding.rule, finding.clip) for finding in found]
    assert not any(f.rule == "recipe" for f in audit("table", data).findings)
    with pytest.raises(ApexflowError, match="recipe"):
        audit("table", data, recipe="unheard-of")


def test_videos(data):
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64), np.uint8)
    path = data / "A/v1.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()
    row = ("A", "v1", "A/v1.avi", 0, 5, 11, "anger")
    sound = [("A", "c1", "A/c1", 1, 4, 9, "anger"), ("B", "c2", "B/c2", 5, 7, 11, "anger")]
    table(data, *sound, row)
    for deep in (False, True):
        assert audit("table", data, deep=deep).clean
    table(data, *sound, (*row[:5], 12, "anger"))
    assert rules(audit("table", data)) == [("frame-missing", "v1")]
    path.write_bytes(b"no video")
    assert rules(audit("table", data)) == [("frames-unusable", "v1")]


def test_samm_proposes_published_corrections(tmp_path):
    made.samm_csv(tmp_path / "samm.csv")
    report = audit("samm", None, tmp_path / "samm.csv")
    found = {finding.clip: finding for finding in report.findings}
    early, late = found["samm/032/032_3_1"], found["samm/028/028_4_1"]
    assert (early.rule, early.severity) == ("order", "error")
    assert early.where == "samm.csv row 5"
    assert early.proposal.startswith("apex: 1930 -> 4930 (")
    assert late.proposal.startswith("undecided, choose one: apex: 1143 -> 1105 (")
    assert found["samm/032/032_3_2"].rule == "apex-near-onset"
    corrected = audit("samm", None, tmp_path / "samm.csv", corrections="published")
    assert "samm/032/032_3_1" not in {finding.clip for finding in corrected.findings}


def test_notes_leave_a_data_set_clean(tmp_path):
    row = [*made.SAMM_ROWS[0]]
    row[8] = "R14+17+soft focus"
    made.write_csv(tmp_path / "samm.csv", [made.SAMM_HEADER, row])
    report = audit("samm", None, tmp_path / "samm.csv")
    assert [finding.rule for finding in report.findings] == ["count", "action-units"]
    assert report.clean


def test_alternative_action_units_are_told(tmp_path):
    rows = [[*row] for row in made.SAMM_ROWS[:2]]
    rows[0][8], rows[1][8] = "L2 or R2", "(6 or 12)+15"
    rows += [["011", "011_4_2", 4, 1, 2, 9, 9, "Micro - 1/2", "L12 or L14", "Other", 7, ""]]
    made.write_csv(tmp_path / "samm.csv", [made.SAMM_HEADER, *rows])
    report = audit("samm", None, tmp_path / "samm.csv")
    told = {f.clip: f for f in report.findings if f.rule == "action-units"}
    assert {clip: f.message for clip, f in told.items()} == {
        "samm/006/006_2_4": "one of several: 6, 12",
        "samm/011/011_4_2": "one of several: 12, 14",
    }
    assert told["samm/011/011_4_2"].proposal.startswith("action_units: L12 or L14 -> L14 (")
    assert [fix.new for fix in report.corrections] == ["L14"]


def test_folders_that_belong_beside_the_clips(tmp_path):
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")
    table = made.write_csv(tmp_path / "t.csv", [header, ("spNO.1", "b", 1, 3, 5, 4, "I", "sad")])
    root = tmp_path / "part_A"
    write_frames(root / "spNO.1/b/color", range(1, 6))
    write_frames(root / "spNO.1/b/depth", range(1, 6), suffix=".png")
    write_frames(root / "spNO.1/c/color", range(1, 6))
    report = audit("casme3", root, table)
    assert [finding.rule for finding in report.findings] == ["count", "clip-surplus"]
    assert "1 folders without an annotation: spNO.1/c" in report.findings[1].message
    assert report.clean


def test_smic_subsets_side_by_side_are_no_surplus(tmp_path):
    for folder in ("HS/s1/micro/negative/s1_ne_01", "HS/s1/non_micro/x", "VIS/s1/s1_ne_01"):
        write_frames(tmp_path / folder, range(5))
    assert audit("smic", tmp_path).clean
    write_frames(tmp_path / "HS/s1/micro/negative/other", range(5))
    assert [f.where for f in audit("smic", tmp_path).findings if f.severity != "note"] == [
        "HS/s1/micro/negative/other"
    ]


def test_the_prepared_layout_is_clean(tmp_path):
    root = tmp_path / "prepared_dataset"
    write_frames(root / "sub01/ROI_EP02_01f", [1, 2], size=(60, 50))
    for name, number in (("onset_frame", 1), ("apex_frame", 2)):
        (root / f"sub01/ROI_EP02_01f/img{number:03d}.jpg").rename(
            root / f"sub01/ROI_EP02_01f/{name}.jpg"
        )
    table = made.write_xlsx(tmp_path / "t.xlsx", {"S": [made.CASME2_HEADER, made.CASME2_ROWS[0]]})
    report = audit("casme2", root, table, recipe="default")
    assert [finding.rule for finding in report.findings] == ["count"]
    shutil.rmtree(root)
    write_frames(root / "sub01/ROI_EP02_01f", [46, 59], size=(60, 50))  # the other naming
    report = audit("casme2", root, table, recipe="default")
    assert [finding.rule for finding in report.findings] == ["count", "frame-missing"]
    assert report.clean
    write_frames(root / "sub01/ROI_EP02_01f", [60], size=(60, 50))  # no longer the key frames alone
    assert not audit("casme2", root, table).clean


def test_smic_intervals(tmp_path):
    header = ("Subject", "Filename", "OnsetF", "OffsetF", "Onset2F", "Offset2F")
    header += ("Onset3F", "Offset3F", "FirstF", "LastF", "Emotion")
    rows = [
        (9, "s9_sur_01", 310, 320, 330, 340, 330, 340, 300, 399, "surprise"),
        (18, "s18_sur_03", 450, 460, 410, 420, 17, 400, 400, 499, "negative"),
    ]
    path = made.write_xlsx(tmp_path / "t.xlsx", {"HS": [header, *rows]})
    found = [f.message for f in audit("smic", None, path).findings if f.severity == "warning"]
    assert found == [
        "interval 330-340 is repeated",
        "the table says 'negative', the clip's name 'surprise', which is used",
        "interval 410-420 stands after a later one",
        "interval 17-400 is outside the video, 400-499",
    ]


def test_what_cannot_be_audited(tmp_path):
    with pytest.raises(ApexflowError, match="data set must be one of samm"):
        audit("somm", tmp_path)
    with pytest.raises(ApexflowError):
        audit("samm", tmp_path / "missing")
    with pytest.raises(ApexflowError, match="apex must be one of"):
        audit("samm", None, made.samm_csv(tmp_path / "samm.csv"), apex="late")


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["apexflow", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_the_command_line(monkeypatch, capsys, data):
    status, out, _ = run(monkeypatch, capsys, "table", data)
    assert status == 0
    assert "2 clips, 16 frames checked; 0 errors, 0 warnings, 0 notes" in out
    (data / "A/c1/img004.jpg").unlink()
    status, out, _ = run(monkeypatch, capsys, "table", data)
    assert status == 1
    assert "error: table/A/c1: apex frame 4 is not on disk" in out
    status, out, _ = run(monkeypatch, capsys, "table", data, "--json", "--deep")
    assert status == 1
    assert json.loads(out)["findings"][0]["rule"] == "frame-missing"
    status, out, _ = run(monkeypatch, capsys, "table", data, "--csv")
    assert [row["clip"] for row in csv.DictReader(io.StringIO(out))] == ["table/A/c1"]
    status, _, err = run(monkeypatch, capsys, "table", data, "--annotations", data / "no.csv")
    assert status == 2
    assert err.startswith("apexflow: error: ")
    status, _, err = run(monkeypatch, capsys, "samm", data)
    assert (status, err.count("\n")) == (2, 1)


# -- frames


def findings_of(data: Path, rule: str) -> list[str]:
    return [f.message for f in audit("table", data).findings if f.rule == rule]


def test_black_repeated_and_duplicate_frames(data):
    folder = data / "B/c2"
    black = np.zeros((24, 20), np.uint8)
    for number in (5, 6):
        cv2.imwrite(str(folder / f"img{number:03d}.png"), black)
    shutil.copy(folder / "img008.png", folder / "img009.png")
    shutil.copy(folder / "img007.png", folder / "img011.png")
    assert findings_of(data, "frame-black") == ["2 of 7 frames are black: img005.png, img006.png"]
    assert findings_of(data, "frame-repeated") == ["1 of 7 frames equal the one before: img009.png"]
    assert findings_of(data, "frame-duplicate") == [
        "1 frames have the pixels of another: img011.png is img007.png"
    ]


@pytest.mark.parametrize(
    ("bits", "top", "rule"),
    [
        *[(12, 4080, "bit-depth"), (10, 1000, "bit-depth"), (16, 65000, "bit-depth")],
        *[(10, 400, "bit-depth-unsure"), (12, 1500, "bit-depth-unsure")],
    ],
)
def test_bits_that_a_clip_is_scaled_by_are_told(data, bits, top, rule):
    for i, number in enumerate(range(5, 12)):
        image = np.linspace(0, top - i, 24 * 20).reshape(24, 20).astype(np.uint16)
        cv2.imwrite(str(data / f"B/c2/img{number:03d}.png"), image)
    (message,) = findings_of(data, rule)
    assert f"16-bit images whose values end at {top}: all frames are scaled as {bits}" in message
    assert ("a dark clip" in message) == (rule == "bit-depth-unsure")


def test_clips_of_unlike_bits_are_a_doubt(data):
    for folder, bits in (("A/c1", 10), ("B/c2", 12)):
        for path in sorted((data / folder).iterdir()):
            image = cv2.imread(str(path), 0).astype(np.uint16) << (bits - 8)
            path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (message,) = findings_of(data, "bit-depth-unsure")
    assert "10 bits in 1 clips, such as A/c1, 12 bits in 1 clips, such as B/c2" in message
    assert "img001.jpg is PNG" in findings_of(data, "format-name")[0]


def test_turned_frames_and_stacks_are_told(data):
    exif = Image.Exif()
    exif[274] = 8
    for number in range(5, 12):
        path = data / f"B/c2/img{number:03d}.png"
        image = Image.fromarray(cv2.imread(str(path), 0).T.copy())
        image.save(path, exif=exif)
    (message,) = findings_of(data, "orientation")
    assert "turned by the orientation 8 of the file" in message
    page = Image.fromarray(cv2.imread(str(data / "A/c1/img003.jpg"), 0))
    page.save(data / "A/c1/img003.jpg", format="TIFF", save_all=True, append_images=[page])
    assert "img003.jpg holds several pictures" in findings_of(data, "pages")[0]


def test_folders_that_systems_make_are_no_data(data):
    for name in ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"):
        write_frames(data / name / "A/c1", range(1, 3))
        write_frames(data / "A" / name, [1])
        write_frames(data / "A/c1" / name, [1])
    (data / "A/c1/._img001.jpg").write_bytes(b"Mac OS X")
    (data / "A/c1/Thumbs.db").write_bytes(b"x")
    assert audit("table", data).findings == ()


# -- what people see


def test_three_hundred_clips_fit_a_screen(tmp_path):
    rows = [(f"s{i % 20}", f"c{i}", f"gone/c{i}", 5, 5, 4 + i % 3, "hapiness") for i in range(300)]
    made.write_csv(tmp_path / "annotations.csv", [HEADER, *rows])
    report = audit("table", tmp_path)
    text = str(report)
    assert len(report.findings) > 800
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 240
    for rule in ("clip-missing", "order", "no-motion", "emotion-unknown", "layout"):
        assert text.count(f"[{rule}]") == 1
    assert "[clip-missing] 300 errors in 300 clips" in text
    data = json.loads(report.to_json())
    assert len(data["findings"]) == len(report.findings)
    assert sum(rule["count"] for rule in data["rules"]) == len(report.findings)
    assert all(rule["remedy"] for rule in data["rules"])


@pytest.mark.parametrize("suffix", [".csv", ".toml"])
def test_corrections_are_written_to_be_confirmed(monkeypatch, capsys, data, tmp_path, suffix):
    table(
        data,
        ("A", "c1", "A/c1", 9, 4, 1, "hapiness"),
        ("B", "c2", "B/c2", 5, 5, 12, 'ang"er'),
    )
    target = tmp_path / f"fixes{suffix}"
    status, out, err = run(monkeypatch, capsys, "table", data, "--write-corrections", target)
    assert status == 1
    assert "6 corrections are proposed" in out
    assert err.startswith(f"6 corrections in {target}: confirm each")
    found = {(c.clip, c.field): (c.old, c.new) for c in load_corrections(target)}
    assert found == {
        ("c1", "onset"): ("9", "1"),
        ("c1", "offset"): ("1", "9"),
        ("c1", "emotion"): ("hapiness", "happiness"),
        ("c2", "apex"): ("5", ""),
        ("c2", "offset"): ("12", "11"),
        ("c2", "emotion"): ('ang"er', "anger"),
    }
    after = audit("table", data, corrections=target)
    assert not {"order", "apex-at-onset", "frame-missing"} & {f.rule for f in after.findings}
    status, _, err = run(monkeypatch, capsys, "table", data, "--write-corrections", target)
    assert status == 2
    assert "is there already" in err


def test_undecided_corrections_have_to_be_chosen(tmp_path):
    made.samm_csv(tmp_path / "samm.csv")
    report = audit("samm", None, tmp_path / "samm.csv")
    write_corrections(tmp_path / "fixes.csv", report.corrections)
    with pytest.raises(ApexflowError, match="is corrected twice"):
        audit("samm", None, tmp_path / "samm.csv", corrections=tmp_path / "fixes.csv")


def test_long_videos_are_audited_by_their_expressions(monkeypatch, capsys, tmp_path):
    made.write_csv(
        tmp_path / "SAMMLV_gt.csv",
        [
            ("Subject", "Filename", "Onset", "Apex", "Offset", "Type"),
            ("6", "006_1_2", 3, 5, 9, "Macro"),
            ("6", "006_1_3", 12, 11, 15, "Micro - 1/2"),
            ("7", "007_2_1", 1, 2, 4, "Macro"),
            ("6", "006_1_4", 1.4, -1, 4, "?"),
            ("7", "", 1.4, -1, 4, "Macro"),
        ],
    )
    write_frames(tmp_path / "long" / "006_1", range(1, 14))
    arguments = ("samm-long", tmp_path / "long", "--annotations", tmp_path / "SAMMLV_gt.csv")
    status, out, _ = run(monkeypatch, capsys, *arguments, "--json")
    found = {
        (f["rule"], f["clip"]) for f in json.loads(out)["findings"] if f["severity"] == "error"
    }
    assert status == 1
    assert found == {
        ("order", "samm-long/006/006_1_12-15"),
        ("frame-missing", "samm-long/006/006_1_12-15"),
        ("clip-missing", "samm-long/007/007_2_1-4"),
        ("row-unread", "samm-long/006/006_1_4"),
        ("row-unread", "samm-long/?/row 6"),
    }
    unread = [f["message"] for f in json.loads(out)["findings"] if f["rule"] == "row-unread"]
    assert sorted(unread) == ["no clip", "type must say Macro or Micro, got '?' (column 'Type')"]
