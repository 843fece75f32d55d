import numpy as np
import pytest

from apexflow.engine.clip.faces import BlazeFaceDetector, NoFaceError, blazeface
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


def test_each_detector_has_a_remedy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = blazeface.Detections(np.zeros((0, 4)), np.zeros((0, 6, 2)), np.zeros(0))
    monkeypatch.setattr(blazeface, "find_faces", lambda *_: nothing)
    with pytest.raises(NoFaceError) as caught:
        BlazeFaceDetector("any.tflite").detect(np.zeros((60, 80), np.uint8))
    assert "'mtcnn'" in remedy(f"frame 1 shows no face: {caught.value}")
    assert "min_face_size" in remedy("frame 1 shows no face: MTCNN found no face of 20 px or more")
    assert "audit" not in remedy("s.zarr: maps/hsv is damaged (x); `apexflow verify` names what is")
    assert "without face.mesh" in remedy("FaceMesh sees no face (0.10) in the box (1, 2, 3, 4)")
