"""Transforms on a GPU need a plan each: faces of all sizes must come out at few."""

from __future__ import annotations

from apexflow.kernels.template.gpu import _plane_size, _transforms


def test_faces_of_all_sizes_need_few_plans() -> None:
    sizes = [(height, width) for height in range(200, 900, 7) for width in range(200, 900, 7)]
    planes = {size: _plane_size(*size) for size in sizes}
    assert len(set(planes.values())) < len(sizes) / 50
    for (height, width), (rows, columns) in planes.items():
        assert rows >= height
        assert columns >= width
        assert columns % 2 == 0
        assert rows * columns <= 1.45 * height * width
    assert {_transforms(count) for count in range(1, 1000)} == {1, 2, 4, 8, 16}
    assert all(_transforms(count) >= min(count, 16) for count in range(1, 1000))
