"""Targets of action units: what is shown, what is not, and what nobody can know."""

import pytest

from apexflow import ApexflowError, Catalog, Clip
from apexflow.datasets import CD6ME_UNITS, action_unit_targets


def catalog(*texts: str, dataset: str = "table") -> Catalog:
    return Catalog(
        Clip(dataset=dataset, subject="1", name=f"c{i}", action_units=text)
        for i, text in enumerate(texts)
    )


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4+7", [1, 1, 0]),
        ("L4", [1, 0, 0]),
        ("4B+R7C", [1, 1, 0]),
        ("A/L12", [0, 0, 1]),
        ("ref(L12)+4", [1, 0, 1]),
        ("(L4 or R7)+12", [-1, -1, 1]),
        ("(4 or 7)+4", [1, -1, 0]),
        ("L12 or R12", [0, 0, 1]),
        ("L4 or L7", [-1, -1, 0]),
        ("R12A or 7A or 24A", [0, -1, -1]),
        ("12/14+4", [1, 0, -1]),
        ("ref(4/7)", [-1, -1, 0]),
        ("(4 or AD38)", [-1, 0, 0]),
        ("12(B/C)+(A/L)4", [1, 0, 1]),
        ("AU4(k)+AU7", [-1, 1, 0]),
        ("4(k)+4", [1, 0, 0]),
        ("?", [-1, -1, -1]),
        ("4+?", [1, -1, -1]),
        ("soft focus", [-1, -1, -1]),
        ("", [-1, -1, -1]),
        ("AD7+M12", [0, 0, 0]),
        ("38", [0, 0, 0]),
    ],
)
def test_rules_of_sides_intensities_alternatives_and_doubts(text: str, values: list[int]) -> None:
    found = action_unit_targets(catalog("4", text), (4, 7, 12))
    assert found.values[1].tolist() == values


def test_counts_are_by_data_set() -> None:
    both = Catalog([*catalog("4+1", "4", "?"), *catalog("12", dataset="other")])
    found = action_unit_targets(both)
    assert found.units == CD6ME_UNITS
    assert found.counts["table"][:3] == (1, 0, 2)
    assert found.unknown["table"] == (1,) * 12
    assert sum(found.counts["other"]) == 1
    rows = str(found).splitlines()
    assert rows[0].split()[:4] == ["clips", "AU1", "AU2", "AU4"]
    assert rows[-1].split()[:2] == ["all", "4"]
    assert "2 (1)" in rows[-1]


def test_what_holds_no_unit_is_refused() -> None:
    with pytest.raises(ApexflowError, match="none of 2 clips has an action unit"):
        action_unit_targets(catalog("", ""))
    with pytest.raises(ApexflowError, match="units must be different"):
        action_unit_targets(catalog("4"), (4, 4))
