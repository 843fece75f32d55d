"""The one way through: videos in, a table, a page, a score and clips out."""

import csv
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import apexflow as af
from apexflow import synthetic
from apexflow.cli import cli
from apexflow.datasets import read_table
from apexflow.engine.clip.faces import FixedBox
from apexflow.errors import ApexflowError
from apexflow.spotter import COLUMNS, spot


@pytest.fixture(scope="module")
def truth() -> synthetic.LongTruth:
    return synthetic.LongTruth.random(
        synthetic.Subject.random(3, size=(192, 176), face=0.75),
        seed=3,
        seconds=5,
        fps=30,
        micro=2,
        macro=0,
        amplitude=2.0,
        name="v1",
    )


@pytest.fixture(scope="module")
def video(truth: synthetic.LongTruth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    return synthetic.write_long_video(folder / "v1.avi", truth)


def test_from_a_video_to_a_table_a_page_a_score_and_clips(
    truth: synthetic.LongTruth, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, page = tmp_path / "spots.csv", tmp_path / "page.html"
    (video.parent / "broken.avi").write_bytes(b"nothing")
    box = FixedBox(truth.box)
    summary = spot(video.parent, table, report=page, detector=box)
    (video.parent / "broken.avi").unlink()
    assert list(summary.failed) == ["broken"]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert {row["video"] for row in rows} == {"v1"}
    true = synthetic.write_long_table(tmp_path / "truth.csv", [truth])
    assert af.spotting.score(table, true).tp == 2
    assert af.spotting.score(table, true).f1 > 0.6
    catalog = read_table(summary.root, table)
    assert [(clip.onset, clip.apex, clip.offset) for clip in catalog] == [
        (spot.onset, spot.apex, spot.offset) for spot in summary.videos[0].spots
    ]
    assert catalog[0].path == video
    text = page.read_text()
    assert text.count('class="play"') == len(rows)
    assert "http" not in text.replace("http://www.w3.org", "")
    again = spot(video, tmp_path / "mdmd.csv", recipe="mdmd", parts=f"{table}.parts", p=0.2)
    assert again.videos[0].name == "v1"
    around = video.parent / ".." / video.parent.name / "v1.avi"
    mine = tmp_path / "my spots.csv"
    whole = spot([video, around], mine, parts=f"{table}.parts")
    assert [(one.name, one.path) for one in whole.videos] == [("v1", "v1.avi")]
    # The command that is proposed next can be run as it stands, or none is.
    monkeypatch.setattr("apexflow.spotter.spot", lambda *_, **__: whole)
    said = CliRunner().invoke(cli, ["spot", str(video), "-o", str(mine)]).output
    command = shlex.split(said.rpartition("next: apexflow ")[2])
    made = CliRunner().invoke(cli, [*command, "--dry-run"], catch_exceptions=False)
    assert (made.exit_code, f"to do    {len(whole.videos[0].spots)} clips" in made.output) == (
        0,
        True,
    )
    of_the_disk = replace(whole.videos[0], path=video.relative_to(video.anchor).as_posix())
    for other in (
        replace(whole, videos=()),
        replace(whole, root=tmp_path),
        replace(whole, root=Path(video.anchor), videos=(of_the_disk,)),
    ):
        monkeypatch.setattr("apexflow.spotter.spot", lambda *_, said=other, **__: said)
        assert "next" not in CliRunner().invoke(cli, ["spot", "v1.avi", "-o", "s.csv"]).output


def test_a_folder_of_frames_needs_a_rate(truth: synthetic.LongTruth, tmp_path: Path) -> None:
    import cv2

    folder = tmp_path / "frames" / "s1"
    folder.mkdir(parents=True)
    for number, image in enumerate(truth.frames([0] * 30), 101):
        cv2.imwrite(str(folder / f"img{number}.png"), image)
    with pytest.raises(ApexflowError, match="s1: nobody says its frames a second; give --fps"):
        spot(folder, tmp_path / "spots.csv", detector=FixedBox(truth.box))
    found = spot(folder, tmp_path / "spots.csv", detector=FixedBox(truth.box), fps=30)
    assert found.videos[0].motion.numbers.tolist() == list(range(101, 131))
    assert (tmp_path / "spots.csv").read_text() == ",".join(COLUMNS) + "\n"
    with pytest.raises(ApexflowError, match=r"30 frames at 60/s last 0.50 s; .* more than 0.8 s"):
        spot(folder, tmp_path / "spots.csv", detector=FixedBox(truth.box), fps=60)


def test_a_bad_row_of_a_data_set_costs_no_more_than_its_video(
    truth: synthetic.LongTruth, video: Path, tmp_path: Path
) -> None:
    root = tmp_path / "long"
    root.mkdir()
    shutil.copy(video, root / "006_1")
    table = tmp_path / "samm.csv"
    table.write_text(
        "Subject,Filename,Onset,Apex,Offset,Type\n"
        "6,006_1_2,1,3,9,Macro\n"
        "6,006_1_3,x,3,9,Tiny\n"
        "7,nobody,1,3,9,Macro\n"
    )
    summary = spot(
        root,
        tmp_path / "spots.csv",
        dataset="samm-long",
        annotations=table,
        fps=30,
        detector=FixedBox(truth.box),
    )
    assert [one.name for one in summary.videos] == ["006_1"]
    (unread,) = summary.unread
    assert unread.startswith("samm.csv row 3: type must say Macro or Micro, got 'Tiny'")
    assert "onset must be a frame number from 0, got 'x'; correct the cell" in unread
    (failed,) = summary.failed.items()
    assert failed[0] == "row 4"
    assert "samm.csv row 4: clip must be named like 006_1_2" in failed[1]
    assert f"unread   {unread}; no video is lost" in str(summary)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.avi"], "nowhere.avi is not on disk"),
        (["."], "no video and no folder of numbered frames in ."),
        ([".", "--fps", "-1"], "fps must be above 0"),
        ([".", "--p", "2"], "p must be from 0 to 1"),
        ([".", "--recipe", "none"], "no such recipe or file; recipes: mdmd, regions"),
        ([".", "--dataset", "samm-long"], "the folder is empty; expected 006_1"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["spot", *arguments, "-o", "spots.csv"])
    assert isinstance(result.exception, ApexflowError)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)


def test_long_truths_keep_their_promises(truth: synthetic.LongTruth) -> None:
    for event in truth.events:
        strengths = np.array([event.strength(frame) for frame in range(len(truth))])
        assert strengths.argmax() == event.apex
        moving = np.flatnonzero(strengths)
        assert event.onset < moving[0] <= moving[-1] < event.offset
        assert 250 / 1000 * 30 - 1 <= event.offset - event.onset <= 480 / 1000 * 30 + 1
    pauses = [b.onset - a.offset for a, b in zip(truth.events, truth.events[1:], strict=False)]
    assert min(pauses) >= 27
    assert synthetic.without_expressions(truth).events == ()
