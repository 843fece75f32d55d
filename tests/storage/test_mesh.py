"""Landmarks and mesh: a store has as many points a clip as its recipe's detector and mesh give."""

from dataclasses import replace

from apexflow.engine.recipe import Recipe
from apexflow.engine.run.task import layout
from apexflow.storage.format import ClipRecord, Layout, float_columns


def test_the_layout_has_the_points_of_the_recipe() -> None:
    values = Recipe.load("seed-samm").to_dict()
    of_mtcnn = layout(Recipe.from_dict(values))
    assert float_columns(of_mtcnn)["landmarks"][0] == (5, 2)
    assert "mesh" not in float_columns(of_mtcnn)
    values["face"] |= {"detector": "blazeface", "model": "a.tflite", "model_digest": "aa"}
    values["face"] |= {"mesh": "b.tflite", "mesh_digest": "bb"}
    found = layout(Recipe.from_dict(values))
    assert float_columns(found)["landmarks"][0] == (6, 2)
    assert float_columns(found)["mesh"][0] == (468, 3)
    assert Layout.from_dict(found.to_dict()) == found
    earlier = {k: v for k, v in of_mtcnn.to_dict().items() if k not in ("landmarks", "mesh")}
    assert Layout.from_dict(earlier) == of_mtcnn


def test_a_record_keeps_its_mesh_and_is_the_same_text_without() -> None:
    record = ClipRecord(dataset="d", subject="1", clip="c", status="done")
    assert '"mesh"' not in record.to_json()
    meshed = replace(record, mesh=((1.5, 2.25, -3.0),) * 468)
    assert ClipRecord.from_json(meshed.to_json()) == meshed
