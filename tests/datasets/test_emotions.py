from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexflow.action_units import ActionUnit, parse_action_units
from apexflow.datasets.emotions import EMOTIONS, canonical_emotion, unknown_emotions


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("Anger", "anger"),
        ("others", "other"),
        ("Others", "other"),
        (" Other ", "other"),
        ("happy", "happiness"),
        ("Sad", "sadness"),
        ("sur", "surprise"),
        ("Negative&Surprise", "negative&surprise"),
        ("Negative & negative", "negative"),
        ("", ""),
        ("Helpless", "helpless"),
    ],
)
def test_emotions_have_one_spelling(text, emotion):
    assert canonical_emotion(text) == emotion
    assert canonical_emotion(emotion) == emotion


def test_unknown_emotions_are_told():
    assert unknown_emotions("anger&helpless") == ("helpless",)
    assert unknown_emotions("&".join(EMOTIONS)) == ()


def units(text: str) -> list[list[tuple[int, str, str, bool]]]:
    groups = parse_action_units(text).groups
    return [[(u.number, u.side, u.intensity, u.reflex) for u in group] for group in groups]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("4", [[(4, "", "", False)]]),
        ("4+L10", [[(4, "", "", False)], [(10, "L", "", False)]]),
        ("2+1", [[(2, "", "", False)], [(1, "", "", False)]]),
        ("L12A", [[(12, "L", "A", False)]]),
        ("A9E+ref(10)", [[(9, "A", "E", False)], [(10, "", "", True)]]),
        ("ref(7B)+43C", [[(7, "", "B", True)], [(43, "", "C", False)]]),
        ("10A/B", [[(10, "", "A/B", False)]]),
        ("A/L12", [[(12, "A/L", "", False)]]),
        ("(A/L)12(B/C)", [[(12, "A/L", "B/C", False)]]),
        ("12A/14", [[(12, "", "A", False), (14, "", "", False)]]),
        ("ref(R12/14)", [[(12, "R", "", True), (14, "", "", True)]]),
        ("12+15 ", [[(12, "", "", False)], [(15, "", "", False)]]),
        ("L12 or L14", [[(12, "L", "", False), (14, "L", "", False)]]),
        (
            "(R6 or R12) + R15",
            [[(6, "R", "", False), (12, "R", "", False)], [(15, "R", "", False)]],
        ),
        (
            "R14A or 17A or 24A",
            [[(14, "R", "A", False), (17, "", "A", False), (24, "", "A", False)]],
        ),
        ("T28+14", [[(28, "T", "", False)], [(14, "", "", False)]]),
        ("AU4+AU7(k)", [[(4, "", "", False)], [(7, "", "", False)]]),
        ("4，7", [[(4, "", "", False)], [(7, "", "", False)]]),  # noqa: RUF001
    ],
)
def test_action_units_as_the_data_sets_write_them(text, expected):
    assert units(text) == expected
    assert parse_action_units(text).unparsed == ()


@pytest.mark.parametrize(
    ("text", "numbers", "unparsed"),
    [
        ("?", (), ("?",)),
        ("R14+17+soft focus", (14, 17), ("soft focus",)),
        ("4+x", (4,), ("x",)),
        ("4 or ?", (), ("4 or ?",)),
        ("123", (), ("123",)),
    ],
)
def test_what_is_no_action_unit_is_kept(text, numbers, unparsed):
    parsed = parse_action_units(text)
    assert (parsed.numbers, parsed.unparsed) == (numbers, unparsed)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_kept(text):
    parsed = parse_action_units(text)
    digits = {int(d) for d in re.findall("[0-9]+", text)}
    assert set(parsed.numbers) <= digits
    for term in parsed.unparsed:
        assert term in text


def test_a_unit_is_plain_data():
    assert ActionUnit(4) == ActionUnit(4, "", "", False)
