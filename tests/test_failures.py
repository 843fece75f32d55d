from apexflow.failures import group_failures, remedy


def test_reasons_that_differ_in_numbers_and_names_alone_are_one() -> None:
    groups = group_failures(
        [
            ("a", "apex 12 lies before onset 30; correct the annotation"),
            ("b", "006_05562.jpg is truncated, or not an image (0 bytes)"),
            ("c", "apex 1930 lies before onset 4896; correct the annotation"),
            ("d", "video /data/x y.mp4 is not on disk"),
        ]
    )
    assert [group.clips for group in groups] == [("a", "c"), ("b",), ("d",)]
    assert groups[0].reason.startswith("apex 12")
    assert "--corrections" in groups[0].remedy
    assert "--deep" in groups[1].remedy
    assert "audit" in remedy("something that nobody has thought of")
