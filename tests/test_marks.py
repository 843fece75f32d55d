from pathlib import Path

import pytest

from apexflow.catalog import Catalog, Clip
from apexflow.errors import ApexflowError
from apexflow.marks import excluded, read_marks

HEAD = "dataset,subject,clip,mark,note\n"


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(Clip(dataset="samm", subject=s, name=n) for s, n in (("1", "a"), ("2", "b")))


def marks(folder: Path, text: str) -> Path:
    path = folder / "marks.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_marked_bad_is_left_out(tmp_path: Path, catalog: Catalog) -> None:
    text = f'{HEAD}samm,1,a,bad,"a ""hand"", see\nframe 3"\nsamm,2,b,good,\nother,9,z,bad,\n'
    path = marks(tmp_path, "\ufeff" + text)  # as spreadsheets save it
    assert read_marks(path)[0].note == 'a "hand", see\nframe 3'
    assert [clip.name for clip in catalog.without(path)] == ["b"]
    assert [clip.name for clip in catalog.without([("samm", "2", "b")])] == ["a"]
    assert catalog.without(None) == catalog


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}samm,1,typo,bad,\n", "no clip samm/1/typo to leave out"),
        (f"{HEAD}samm,1,a,terrible,\n", "row 2: mark must be good, bad or empty: terrible"),
        (f"{HEAD}samm,1,a,bad,\nsamm,1,a,good,\n", "row 3: samm/1/a stands twice"),
        ("subject,clip\n", "no column dataset, mark"),
        ("", "no column dataset, subject, clip, mark"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, catalog: Catalog, text: str, said: str) -> None:
    with pytest.raises(ApexflowError, match=said):
        catalog.without(marks(tmp_path, text))
    with pytest.raises(ApexflowError, match="cannot be read as a file of marks"):
        excluded(tmp_path / "none.csv", [])
