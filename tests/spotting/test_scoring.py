import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow import spotting
from apexflow.cli import cli
from apexflow.errors import ApexflowError

Row = tuple[str, int, int, str]

TRUTH = "video,kind,onset,apex,offset\na,micro,10,15,19\na,macro,40,50,0\nb,micro,7,9,16\n"


@st.composite
def tables(draw: st.DrawFn, least: int = 0) -> list[Row]:
    rows = st.tuples(
        st.sampled_from("ab"), st.integers(0, 30), st.integers(0, 12), st.sampled_from(_KINDS)
    )
    found = draw(st.lists(rows, min_size=least, max_size=9, unique=True))
    return [(video, onset, onset + more, kind) for video, onset, more, kind in found]


_KINDS = ("micro", "macro")


def plain_overlap(a: Row, b: Row) -> float:
    if (a[0], a[3]) != (b[0], b[3]):
        return 0.0
    first, second = set(range(a[1], a[2] + 1)), set(range(b[1], b[2] + 1))
    return len(first & second) / len(first | second)


def plain_matching(predicted: list[Row], truth: list[Row], iou: float) -> int:
    """Augment along paths (Kuhn), in the plainest form."""
    partner: dict[int, int] = {}

    def place(t: int, tried: set[int]) -> bool:
        for p in range(len(predicted)):
            if p not in tried and plain_overlap(predicted[p], truth[t]) >= iou:
                tried.add(p)
                if p not in partner or place(partner[p], tried):
                    partner[p] = t
                    return True
        return False

    return sum(place(t, set()) for t in range(len(truth)))


@settings(max_examples=80, deadline=None)
@given(tables(), tables(least=1), st.sampled_from([0.1, 0.3, 0.5, 0.75, 1.0]))
def test_counts_are_those_of_a_plain_double_loop(
    predicted: list[Row], truth: list[Row], iou: float
) -> None:
    if predicted and not {p[0] for p in predicted} & {t[0] for t in truth}:
        with pytest.raises(ApexflowError, match="no video is in both"):
            spotting.score(predicted, truth)
        return
    hits = [t for t in truth if any(plain_overlap(p, t) >= iou for p in predicted)]
    whole = spotting.score(predicted, truth, iou=iou)
    assert (whole.tp, whole.n_predicted, whole.n_true) == (len(hits), len(predicted), len(truth))
    for kind, of_kind in whole.kinds.items():
        assert of_kind.tp == sum(t[3] == kind for t in hits)
        assert of_kind.n_predicted == sum(p[3] == kind for p in predicted)
    for video, of_video in whole.videos.items():
        assert of_video.tp == sum(t[0] == video for t in hits)
    single = spotting.score(predicted, truth, iou=iou, rule="one-to-one")
    assert single.tp == plain_matching(predicted, truth, iou) <= whole.tp


def test_figures_and_the_published_rules_two_forms() -> None:
    # One long prediction covers two true intervals: found twice, or paired once.
    truth = [("a", 0, 9), ("a", 0, 10)]
    both = spotting.score([("a", 0, 9)], truth)
    assert (both.tp, both.n_predicted, both.n_true) == (2, 1, 2)
    assert (both.precision, both.recall, both.f1) == (2.0, 1.0, 4 / 3)
    assert spotting.score([("a", 0, 9)], truth, rule="one-to-one").f1 == 2 / 3
    assert spotting.score([], truth).f1 == 0


def test_the_least_overlap_is_enough() -> None:
    assert spotting.score([("a", 10, 19)], [("a", 10, 14)]).tp == 1  # 5 of 10 frames
    assert spotting.score([("a", 10, 20)], [("a", 10, 14)]).tp == 0  # 5 of 11


def test_sources_of_every_form_say_the_same(tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "truth.csv"
    path.write_text(TRUTH)
    frame = pandas.read_csv(path)
    rows = [("a", 10, 19, "micro"), ("a", 40, 50, "macro"), ("b", 7, 16, "micro")]
    columns = dict(zip(("video", "onset", "offset", "kind"), zip(*rows, strict=True), strict=True))
    sources = [path, str(path), frame, frame.to_dict("records"), rows, columns]
    sources += [np.array(rows, object), np.array(rows), spotting.read_intervals(path)]
    sources.append(list(spotting.read_intervals(path)))
    found = [spotting.read_intervals(source).spans for source in sources]
    assert all(spans == found[0] for spans in found)
    assert [(s.video, s.onset, s.offset, s.kind) for s in found[0]] == rows
    assert spotting.score(np.array([[3, 8]]), np.array([[2, 8]])).tp == 1
    numbered = spotting.read_intervals([(7.0, 1.0, 2.0)]).spans
    assert numbered == spotting.read_intervals([("007", 1, 2)]).spans


def test_parts_by_data_set_and_video() -> None:
    columns = {"dataset": ["x", "y"], "video": ["1", "1"], "onset": [1, 1], "offset": [5, 5]}
    result = spotting.score(columns, columns | {"onset": [1, 4]})
    assert {name: one.tp for name, one in result.datasets.items()} == {"x": 1, "y": 0}
    assert set(result.videos) == {"x/1", "y/1"}
    # One table without data sets: videos of one name are one.
    assert spotting.score([("1", 1, 5)], columns | {"onset": [1, 4]}).n_true == 2


def test_spot_then_recognise() -> None:
    truth = {"video": ["a"] * 4, "onset": [0, 20, 40, 60], "offset": [9, 29, 49, 69]}
    spots = {"video": ["a"] * 3, "onset": [0, 20, 40], "offset": [9, 29, 49]}
    result = spotting.score(
        spots | {"emotion": ["joy", "joy", "fear"]},
        truth | {"emotion": ["joy", "fear", "fear", "joy"]},
    )
    # joy: 1 right, 1 wrong, 0 missed; fear: 1, 0, 1.
    assert result.analysis_f1 == pytest.approx(2 / 3)
    assert result.strs == pytest.approx(2 / 3 * 6 / 7)
    assert spotting.score(spots, truth).strs is None


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a", 9, 8)], "truth row 1: offset 8 lies before onset 9"),
        ([("a", float("nan"), 9)], "truth row 1: onset must be a frame number"),
        ([("a", 9, 8), ("", 1, 5)], "lies before onset 9.*none of its 2 rows can be read"),
        ([("a", 5, 0)], "offset is 0, that is unknown, and no apex"),
        ([("a", -1, 5)], "onset must be a frame number from 0, got '-1'"),
        ([("a", 1, 5, "tiny")], "kind must be micro or macro, got 'tiny'"),
        ([("", 1, 5)], "truth row 1: no video"),
        ([("a", 1)], "truth row 1: onset must be a frame number"),
        ([("a", 1, 2, "micro", 4)], r"must be \(video, onset, offset"),
        ([], "truth has no interval"),
        ({"video": ["a"], "start": [1], "offset": [2]}, "no column 'onset'; it has 'video'"),
        ({"video": ["a"], "onset": [1, 2], "offset": [2]}, "columns must be of one length"),
        (7, "truth must be a path"),
        ("/nowhere/truth.csv", "cannot be read"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(rows: object, said: str) -> None:
    with pytest.raises(ApexflowError, match=said) as caught:
        spotting.score([("a", 1, 5)], rows)
    assert "\n" not in str(caught.value)


def test_a_row_that_cannot_be_read_costs_its_interval_alone(tmp_path: Path) -> None:
    sound = "video,onset,offset,kind\na,1,5,micro\na,11,15,micro\n"
    bad = "a,x,25,micro\na,39,31,micro\n,1,5,tiny\na,1,5,micro\n"
    table, whole = tmp_path / "truth.csv", tmp_path / "whole.csv"
    table.write_text(sound + bad)
    whole.write_text(sound)
    result = spotting.score(whole, table)
    assert (result.tp, result.n_predicted, result.n_true) == (2, 2, 2)
    fix = "; correct the cell, or delete the row"
    no_video = "no video; fill in the cell, or delete the row"
    assert result.left_out == (
        f"truth.csv row 4: onset must be a frame number from 0, got 'x'{fix}",
        f"truth.csv row 5: offset 31 lies before onset 39{fix}",
        f"truth.csv row 6: {no_video}. kind must be micro or macro, got 'tiny'{fix}",
        "truth.csv row 7: repeats row 2: micro 1 to 5 of a; that one is read, delete either",
    )
    assert spotting.score(table, whole).left_out == result.left_out
    assert 'left_out=("truth.csv row 4' in repr(result)
    joined = spotting.read_intervals(table) + spotting.read_intervals(whole)
    assert joined.left_out == result.left_out
    items = [{"video": "a", "onset": 1, "offset": 5}, {"video": "a", "onset": 1}, 7]
    assert [line.split(":")[0] for line in spotting.read_intervals(items).left_out] == [
        "intervals row 2",
        "intervals row 3",
    ]


def test_the_command_says_beside_the_score_what_it_is_without(tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text(TRUTH + "".join(f"b,micro,{at},,\n" for at in range(30, 45)))
    arguments = ["spot-score", str(table), str(table), "--length", "micro=1:"]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 1
    said = "truth.csv row 5: offset must be a frame number from 0, got ''"
    figures, _, rows = shown.stdout.partition("rows left out of these figures (30):")
    assert "together" in figures
    assert rows.count(said) == 2
    assert rows.endswith("  … 10 more (--json lists all)\n")
    saved = CliRunner().invoke(cli, [*arguments, "--json"])
    assert saved.exit_code == 1
    left_out = json.loads(saved.stdout)["left_out"]
    assert (len(left_out), sum(said in line for line in left_out)) == (30, 2)


def test_the_published_tables_lose_no_more_than_a_row(tmp_path: Path) -> None:
    header = "Subject,Filename,Onset,Apex,Offset,Type\n"
    rows = ["6,006_1_1,1.4,3,9,Macro", "6,006_1_2,?,11,15,Micro - 1/2", "7,007_1_1,1,2,4,Macro"]
    table = tmp_path / "SAMMLV_gt.csv"
    table.write_text(header + "\n".join(rows) + "\n")
    found = spotting.read_intervals(table)
    assert [(s.video, s.onset, s.offset) for s in found] == [("006_1", 1, 9), ("007_1", 1, 4)]
    (left_out,) = found.left_out
    assert left_out.startswith("SAMMLV_gt.csv row 3: the onset is unknown; fill in")
    table.write_text(header + "6,006_1_1,a,3,9,Macro\n6,006_1_2,b,11,15,Macro\n")
    with pytest.raises(ApexflowError, match=r"row 2: onset must be .* got 'a'.* so are all 2 rows"):
        spotting.read_intervals(table)


def test_doubts_are_noted() -> None:
    result = spotting.score([("a", 1, 5), ("z", 1, 5)], [("a", 1.4, 5), ("a", 8.6, 12)])
    assert result.tp == 1
    assert result.notes == (
        "truth row 1: onset 1.4 is read as 1 (and 1 more)",
        "1 predicted intervals lie in 1 videos without a true one, such as 'z': false alarms",
    )


def test_options_are_checked() -> None:
    for options, said in (({"iou": 0}, "iou must be above 0"), ({"rule": "x"}, "rule must be")):
        with pytest.raises(ApexflowError, match=said):
            spotting.score([("a", 1, 5)], [("a", 1, 5)], **options)


def test_the_command(tmp_path: Path) -> None:
    truth, micro, macro = (tmp_path / name for name in ("truth.csv", "mi.csv", "ma.csv"))
    truth.write_text(TRUTH)
    micro.write_text("video,onset,offset\na,11,19\nb,1,3\n")
    macro.write_text("video,onset,offset\na,40,50\na,60,61\n")
    arguments = [f"micro={micro}", f"macro={macro}", str(truth), "--length", "macro=3:"]
    shown = CliRunner().invoke(cli, ["spot-score", *arguments])
    assert shown.exit_code == 0
    assert "together      2          3      3" in shown.output
    given = json.loads(CliRunner().invoke(cli, ["spot-score", *arguments, "--json"]).output)
    assert given["kinds"]["macro"] == {
        **dict.fromkeys(("tp", "n_predicted", "n_true"), 1),
        **dict.fromkeys(("precision", "recall", "f1"), 1.0),
    }
    assert list(itertools.islice(given, 3)) == ["tp", "n_predicted", "n_true"]
