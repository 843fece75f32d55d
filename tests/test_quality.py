import pytest

from apexflow.errors import ApexflowError
from apexflow.quality import Flag, count_flags, format_flags, parse_flags, say_flagged


def test_the_text_form_is_sorted_and_has_three_digits() -> None:
    flags = [Flag("blur", 0.31415), Flag("cut"), Flag("at-margin", 12.0), Flag("a1", 123456.0)]
    assert format_flags(flags) == "a1=123000; at-margin=12; blur=0.314; cut"
    assert format_flags([]) == ""


@pytest.mark.parametrize("flags", [(), (Flag("cut"),), (Flag("at-margin", 12), Flag("blur", -0.5))])
def test_the_text_form_reads_back(flags: tuple[Flag, ...]) -> None:
    assert parse_flags(format_flags(flags)) == flags


@pytest.mark.parametrize("text", ["Blur", "blur=", "blur=x", "blur=nan", "; blur", "two words"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ApexflowError, match="flag"):
        parse_flags(text)


def test_clips_are_counted_by_flag_not_flags_by_clip() -> None:
    texts = ["blur=1; cut=3; cut=7", "blur=2", "", ""]
    assert count_flags(texts) == {"blur": 2, "cut": 1}
    assert say_flagged(texts) == "2 of 4 clips are flagged (blur 2, cut 1)"
    assert say_flagged(["", ""]) == "0 of 2 clips are flagged"
